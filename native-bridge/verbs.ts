/**
 * Verbs: one-sided reads, writes and atomics on registered regions, without the owner's thread.
 *
 * Invariant: SUCCESS means that the key was active, granted the right and covered the range for the whole operation, and
 * that bytes from a cell belong to one version of it. Checks run in this order: key, rights, range, cell, alignment, local
 * buffer; the first that fails names the status. After any other status nothing was written to the region, and a read's
 * target range is unchanged or zero, never remote bytes.
 * Source: RDMA READ, WRITE, CMP_SWAP, FETCH_ADD; optimistic reads as in FaRM (Dragojević et al., NSDI'14, §4).
 * Divergence: a range over several cells is refused (SPANS_CELLS; post a list instead); outside cells bytes may be torn by
 * a concurrent writer, as with RDMA; `post` executes at once, since no other processor could do it in the background.
 */
import { invalidArgument } from "../src/errors.ts";
import type { Arena } from "./arena.ts";
import { loadFirst, sameVersion, spinWhileOdd } from "./cell.ts";
import { INCARNATION, VERSION_HIGH, VERSION_LOW } from "./cell-layout.ts";
import { type Completion, CompletionQueue } from "./completion-queue.ts";
import { RegionAccess } from "./region-access.ts";
import {
  ACCESS,
  ACTIVE,
  BASE,
  INDEX_MASK,
  KEY,
  LENGTH,
  REGION_ENTRY_WORD_SHIFT,
  REGION_TABLE_WORD,
  type RegionRef,
  RIGHTS,
  STAMP,
  STATE_MASK,
  STRIDE,
} from "./region-layout.ts";
import { STATUS } from "./status.ts";
import { type InPlaceResult, resolveVerbsOptions, type VerbsOptions } from "./verbs-options.ts";
import {
  copyDoubles,
  copyIn,
  copyOut,
  copyWords,
  LocalBuffer,
  type LocalView,
  WORD_LOOP_MAX_BYTES,
} from "./word-copy.ts";
import { executeRequest, type WorkRequest } from "./work-request.ts";

export type { Completion } from "./completion-queue.ts";
export { STATUS, type Status, statusName } from "./status.ts";
export type { InPlaceResult, VerbsOptions } from "./verbs-options.ts";
export { OPCODE, type WorkRequest } from "./work-request.ts";

// Imported bindings are loaded from their module at each use, local constants are folded: 7 ns of a 35 ns read.
const TABLE_WORD = REGION_TABLE_WORD;
const KEY_INDEX = INDEX_MASK;
const ENTRY_SHIFT = REGION_ENTRY_WORD_SHIFT;
const STATE = STATE_MASK;
const ACTIVE_STATE = ACTIVE;
const AT_STAMP = STAMP;
const AT_BASE = BASE;
const AT_STRIDE = STRIDE;
const AT_RIGHTS = RIGHTS;
const AT_LENGTH = LENGTH;
const AT_KEY = KEY;
const AT_LOW = VERSION_LOW;
const AT_HIGH = VERSION_HIGH;
const AT_INCARNATION = INCARNATION;
const LOOP_MAX_BYTES = WORD_LOOP_MAX_BYTES;
const SUCCESS = STATUS.SUCCESS;
const MAY_READ = ACCESS.READ;
/** Target offsets up to here may be shifted as int32. */
const MAX_FAST_OFFSET = 0x0fff_ffff;

/** One thread's one-sided access to an arena. Not to be shared or re-entered; nothing is allocated on the way. */
export class Verbs {
  /** What the word held before the last successful atomic. */
  atomicResult = 0;
  /** Attempts beyond the first on busy or changed cells, so far. */
  retries = 0;
  readonly #arena: Arena;
  readonly #i32: Int32Array;
  readonly #f64: Float64Array;
  readonly #attempts: number;
  readonly #rmw: boolean;
  readonly #local: LocalBuffer = new LocalBuffer();
  readonly #completions: CompletionQueue;
  /** Carries readAt's arguments; its fields are float64 from the start, so that storing a key allocates nothing. */
  readonly #ref: { address: number; rkey: number; length: number } = { address: 0.5, rkey: 0.5, length: 0.5 };
  readonly #access: RegionAccess;
  /** Set by beginInPlace. */
  #low = 0;
  #high = 0;
  readonly #result: InPlaceResult<unknown> = { status: SUCCESS, value: undefined };
  readonly #parameters: [Uint8Array, number, number];

  constructor(arena: Arena, options: VerbsOptions = {}) {
    const { attempts, rmwCheck, completionCapacity } = resolveVerbsOptions(options);
    this.#arena = arena;
    this.#i32 = arena.i32;
    this.#f64 = arena.f64;
    this.#parameters = [arena.bytes, 0, 0];
    this.#attempts = attempts;
    this.#rmw = rmwCheck;
    this.#access = new RegionAccess(arena, rmwCheck);
    this.#completions = new CompletionQueue(completionCapacity);
  }

  /**
   * Copies the range out, validated.
   *
   * This is the common read in one piece: words, into the buffer of last time, all checks passed at the first attempt.
   * Whatever does not fit goes to `#readSlowly`, which starts anew and names the status, so order and grouping here are for
   * speed only. The guard is the version pair of the cell, or outside cells the stamp (whose ACTIVE is even, like a version
   * at rest) and the base behind it. Fields of `ref` are loaded here and not passed on: a float64 field passed is boxed.
   *
   * Cost: about 28 ns for 64 bytes into an aligned buffer that was used last time as well; nothing is allocated.
   *
   * @param targetOffset In elements of `target`.
   * @returns One of STATUS. RETRY_EXCEEDED: ask the owner instead.
   */
  read(ref: RegionRef, target: LocalView, targetOffset: number = 0): number {
    if (ref === null || ref === undefined || typeof targetOffset !== "number")
      return this.#readSlowly(ref, target, targetOffset);
    const address = ref.address;
    const length = ref.length;
    const rkey = ref.rkey;
    const local = this.#local;
    const words = local.words;
    const at = targetOffset << local.elementShift;
    if (
      this.#rmw ||
      local.view !== target ||
      typeof address !== "number" ||
      typeof rkey !== "number" ||
      typeof length !== "number" ||
      address >>> 0 !== address ||
      length >>> 0 !== length ||
      targetOffset >>> 0 !== targetOffset ||
      targetOffset > MAX_FAST_OFFSET ||
      ((address | at | length) & 3) !== 0 ||
      length > LOOP_MAX_BYTES ||
      at + length > words.length * 4
    )
      return this.#readSlowly(ref, target, targetOffset);
    const i32 = this.#i32;
    const entry = TABLE_WORD + ((rkey & KEY_INDEX) << ENTRY_SHIFT);
    const stamp = i32[entry + AT_STAMP] as number;
    const within = address - ((i32[entry + AT_BASE] as number) >>> 0);
    const stride = i32[entry + AT_STRIDE] as number;
    if (
      (stamp & STATE) === ACTIVE_STATE &&
      this.#f64[(entry >>> 1) + AT_KEY] === rkey &&
      ((i32[entry + AT_RIGHTS] as number) & MAY_READ) !== 0 &&
      within >= 0 &&
      within + length <= (i32[entry + AT_LENGTH] as number) >>> 0
    ) {
      const inCell = stride === 0 ? 0 : (within >>> 0) % (stride >>> 0);
      const guard = stride === 0 ? entry : (address - inCell) >>> 2;
      const high = i32[guard + AT_HIGH] as number;
      const low = i32[guard + AT_LOW] as number;
      const generation = ref.generation;
      if (
        (low & 1) === 0 &&
        (stride === 0 || inCell + length <= stride >>> 0) &&
        (generation === undefined || (stride !== 0 && i32[guard + AT_INCARNATION] === generation))
      ) {
        if (((address | at | length) & 7) === 0 && local.doubles.length !== 0)
          copyDoubles(this.#f64, address >>> 3, local.doubles, at >>> 3, length >>> 3);
        else copyWords(i32, address >>> 2, words, at >>> 2, length >>> 2);
        // The one atomic: loads before it stay before, loads after it stay after.
        if (
          Atomics.load(i32, guard + AT_LOW) === low &&
          i32[guard + AT_HIGH] === high &&
          i32[entry + AT_STAMP] === stamp
        )
          return SUCCESS;
        this.#wipe(at, length, SUCCESS); // may be another owner's bytes by now, and the slow path may end before it copies
      }
    }
    return this.#readSlowly(ref, target, targetOffset);
  }

  /** As {@link read}, without a reference object and for any incarnation. */
  readAt(address: number, rkey: number, length: number, target: LocalView, targetOffset: number): number {
    const ref = this.#ref;
    ref.address = address;
    ref.rkey = rkey;
    ref.length = length;
    return this.read(ref, target, targetOffset);
  }

  /** An aligned word of any incarnation, unsigned, or −1 when it cannot be read. No buffer is bound for it: nothing is allocated. */
  readWord(address: number, rkey: number): number {
    const ref = this.#ref;
    ref.address = address;
    ref.rkey = rkey;
    ref.length = 4;
    let status: number = STATUS.RETRY_EXCEEDED;
    for (let attempt = this.#attempts; attempt > 0 && status === STATUS.RETRY_EXCEEDED; attempt--) {
      status = this.beginInPlace(ref);
      if (status !== SUCCESS) continue;
      const word = (this.#i32[address >>> 2] as number) >>> 0;
      status = this.endInPlace();
      if (status === SUCCESS) return word;
    }
    return -1;
  }

  /**
   * Lets `visit` look at the bytes where they are, and validates afterwards. `visit` may see torn bytes and may run again,
   * so it must only compute; what it throws over bytes that turn out torn is dropped.
   *
   * @returns The status, and the value of the validated call: one object per Verbs, valid until its next `readInPlace`.
   */
  readInPlace<T>(
    ref: RegionRef,
    visit: (arena: Uint8Array, byteOffset: number, byteLength: number) => T,
  ): InPlaceResult<T> {
    const result = this.#result as { status: number; value: T | undefined };
    if (typeof visit !== "function") throw invalidArgument("read in place", "visit", "a function", visit);
    const parameters = this.#parameters;
    result.status = STATUS.RETRY_EXCEEDED;
    for (let attempt = this.#attempts; attempt > 0 && result.status === STATUS.RETRY_EXCEEDED; attempt--) {
      result.status = this.beginInPlace(ref);
      if (result.status !== SUCCESS) continue;
      parameters[1] = ref.address;
      parameters[2] = ref.length;
      let failure: { readonly error: unknown } | undefined;
      try {
        // Applied, not called: V8 then compiles the visitor by itself. A loop that it inlines into a `try` is half as fast.
        result.value = Reflect.apply<unknown, unknown[], T>(
          visit as (...parameters: unknown[]) => T,
          undefined,
          parameters,
        );
      } catch (error) {
        failure = { error };
      }
      result.status = this.endInPlace();
      // oxlint-disable-next-line only-throw-error -- whatever the visitor threw is the caller's
      if (failure !== undefined && result.status === SUCCESS) throw failure.error;
    }
    if (result.status !== SUCCESS) result.value = undefined;
    return result;
  }

  /**
   * First half of a read in place that allocates nothing: load what you need between this and {@link endInPlace}, and use it
   * only if that returns SUCCESS. One at a time; no other verb of this object in between.
   *
   * @returns SUCCESS, or why not; RETRY_EXCEEDED here means that the cell is being written now.
   */
  beginInPlace(ref: RegionRef): number {
    const status = this.#access.resolve(ref, MAY_READ);
    if (status !== SUCCESS) return status;
    const cell = this.#access.cell;
    if (cell === 0) return ref.generation === undefined ? SUCCESS : STATUS.STALE_CELL;
    this.#high = loadFirst(this.#i32, cell + AT_HIGH, this.#rmw); // acquires
    this.#low = loadFirst(this.#i32, cell + AT_LOW, this.#rmw); // acquires
    if ((this.#low & 1) !== 0) {
      this.retries++;
      spinWhileOdd(this.#i32, cell);
      return STATUS.RETRY_EXCEEDED;
    }
    if (ref.generation === undefined || this.#i32[cell + AT_INCARNATION] === ref.generation) return SUCCESS;
    return this.endInPlace() === SUCCESS ? STATUS.STALE_CELL : STATUS.RETRY_EXCEEDED;
  }

  /** Second half: SUCCESS when all loads since {@link beginInPlace} are valid, RETRY_EXCEEDED when the cell changed, or REGION_REVOKED. */
  endInPlace(): number {
    const cell = this.#access.cell;
    if (cell === 0) return this.#access.active() ? SUCCESS : STATUS.REGION_REVOKED;
    const same = sameVersion(this.#i32, cell, this.#low, this.#high, this.#rmw);
    if (!this.#access.activeAfterCell()) return STATUS.REGION_REVOKED;
    if (same) return SUCCESS;
    this.retries++;
    return STATUS.RETRY_EXCEEDED;
  }

  /**
   * Copies `ref.length` bytes of the source into the region. In a cell region it takes the cell, so readers and other
   * writers see it whole; the version and incarnation words are out of reach (REMOTE_ACCESS_ERROR).
   *
   * @param sourceOffset In elements of `source`.
   */
  write(ref: RegionRef, source: LocalView, sourceOffset: number = 0): number {
    const resolved = this.#access.resolve(ref, ACCESS.WRITE);
    if (resolved !== SUCCESS) return resolved;
    const at = this.#local.rangeOf(source, sourceOffset, ref.length);
    if (at < 0) return STATUS.LOCAL_LENGTH_ERROR;
    const entered = this.#access.enter(ref.generation, this.#attempts);
    if (entered !== SUCCESS) return entered;
    copyIn(this.#arena, ref.address, this.#local, at, ref.length);
    this.#access.leave();
    return SUCCESS;
  }

  /**
   * Stores `desired` in the int32 at the address if it holds `expected`. `atomicResult` is the old value: the swap took
   * place when that equals `expected | 0`. In a cell region it takes the cell, as a write does.
   */
  compareAndSwap(ref: RegionRef, expected: number, desired: number): number {
    checkOperand("compare and swap", "expected", expected);
    checkOperand("compare and swap", "desired", desired);
    const entered = this.#enterAtomic(ref);
    if (entered !== SUCCESS) return entered;
    this.atomicResult = Atomics.compareExchange(this.#i32, ref.address >>> 2, expected | 0, desired | 0);
    this.#access.leave();
    return SUCCESS;
  }

  /** Adds `delta` to the int32 at the address, modulo 2^32. `atomicResult` is the old value. */
  fetchAdd(ref: RegionRef, delta: number): number {
    checkOperand("fetch and add", "delta", delta);
    const entered = this.#enterAtomic(ref);
    if (entered !== SUCCESS) return entered;
    this.atomicResult = Atomics.add(this.#i32, ref.address >>> 2, delta | 0);
    this.#access.leave();
    return SUCCESS;
  }

  /**
   * Executes a list in order, each request ending in one completion.
   *
   * @returns How many were accepted: fewer than given when the completion queue is full. The rest was not executed.
   */
  post(list: readonly WorkRequest[]): number {
    if (!Array.isArray(list)) throw invalidArgument("post", "list", "an array of work requests", list);
    for (let index = 0; index < list.length; index++) {
      if (this.#completions.isFull()) return index;
      executeRequest(this, this.#completions, list[index]);
    }
    return list.length;
  }

  /** Moves up to `limit` completions into `out`, reusing its objects. Returns how many. */
  poll(out: Completion[], limit: number): number {
    return this.#completions.poll(out, limit);
  }

  /**
   * Whether a key opens a region for reading now: the last check after one's own loads from the region, for whoever validates
   * the cells otherwise. Looks at the region table only.
   */
  checkKey(rkey: number): number {
    return this.#access.checkKey(rkey);
  }

  #readSlowly(ref: RegionRef, target: LocalView, targetOffset: number): number {
    const resolved = this.#access.resolve(ref, MAY_READ);
    if (resolved !== SUCCESS) return resolved;
    const { address, length, generation } = ref;
    const at = this.#local.rangeOf(target, targetOffset, length);
    if (at < 0) return STATUS.LOCAL_LENGTH_ERROR;
    if (this.#access.cell !== 0) return this.#copyCell(address, at, length, generation);
    if (generation !== undefined) return STATUS.STALE_CELL;
    copyOut(this.#arena, address, this.#local, at, length);
    return this.#access.active() ? SUCCESS : this.#wipe(at, length, STATUS.REGION_REVOKED);
  }

  #copyCell(address: number, at: number, length: number, generation: number | undefined): number {
    const i32 = this.#i32;
    const cell = this.#access.cell;
    for (let attempt = this.#attempts; attempt > 0; attempt--) {
      const high = loadFirst(i32, cell + AT_HIGH, this.#rmw); // acquires
      const low = loadFirst(i32, cell + AT_LOW, this.#rmw); // acquires
      if ((low & 1) === 0) {
        const stale = generation !== undefined && i32[cell + AT_INCARNATION] !== generation;
        if (!stale) copyOut(this.#arena, address, this.#local, at, length);
        if (sameVersion(i32, cell, low, high, this.#rmw)) {
          if (!this.#access.activeAfterCell()) return this.#wipe(at, length, STATUS.REGION_REVOKED);
          return stale ? STATUS.STALE_CELL : SUCCESS;
        }
      } else spinWhileOdd(i32, cell);
      this.retries++;
    }
    return this.#wipe(at, length, this.#access.active() ? STATUS.RETRY_EXCEEDED : STATUS.REGION_REVOKED);
  }

  #wipe(at: number, length: number, status: number): number {
    this.#local.bytes.fill(0, at, at + length);
    return status;
  }

  #enterAtomic(ref: RegionRef): number {
    const resolved = this.#access.resolve(ref, ACCESS.ATOMIC);
    if (resolved !== SUCCESS) return resolved;
    if ((ref.address & 3) !== 0 || ref.length !== 4) return STATUS.MISALIGNED;
    return this.#access.enter(ref.generation, this.#attempts);
  }
}

/** Before the cell is taken: a bigint would throw with the cell in hand. */
function checkOperand(action: string, name: string, value: number): void {
  if (typeof value !== "number") throw invalidArgument(action, name, "a number", value);
}
