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
import { beginWrite, CELL_ATTEMPTS, cancelWrite, endWrite, loadFirst, NEEDS_RMW_CHECK, sameVersion, spinWhileOdd } from "./cell.ts";
import { CELL_WRITABLE_OFFSET, INCARNATION, VERSION_HIGH, VERSION_LOW } from "./cell-layout.ts";
import { type Completion, CompletionQueue } from "./completion-queue.ts";
import {
  ACCESS, ACTIVE, BASE, IN_FLIGHT, INDEX_MASK, KEY, KEYS_KEPT, LENGTH, MIN_RKEY, REGION_ENTRY_WORD_SHIFT, REGION_TABLE_WORD,
  type RegionRef, RIGHTS, STAMP, STATE_MASK, STRIDE,
} from "./region-layout.ts";
import { STATUS } from "./status.ts";
import { executeRequest, type WorkRequest } from "./work-request.ts";
import { copyDoubles, copyIn, copyOut, copyWords, LocalBuffer, type LocalView, WORD_LOOP_MAX_BYTES } from "./word-copy.ts";

export type { Completion } from "./completion-queue.ts";
export { STATUS, type Status, statusName } from "./status.ts";
export { OPCODE, type WorkRequest } from "./work-request.ts";

export interface VerbsOptions {
  /** Completions held until polled, 1 … 65536; when full, `post` accepts no more. @default 256 */
  readonly completionCapacity?: number;
  /** Attempts on a busy cell before RETRY_EXCEEDED, at least 1. @default 128 */
  readonly attempts?: number;
  /** Whether second checks are read-modify-writes. @default what this processor needs */
  readonly rmwCheck?: boolean;
}

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
  readonly #bytes: Uint8Array;
  readonly #attempts: number;
  readonly #rmw: boolean;
  readonly #local: LocalBuffer = new LocalBuffer();
  readonly #completions: CompletionQueue;
  /** Carries readAt's arguments; its fields are float64 from the start, so that storing a key allocates nothing. */
  readonly #ref: { address: number; rkey: number; length: number } = { address: 0.5, rkey: 0.5, length: 0.5 };
  /** Set by #resolve: the entry, its stamp, and the cell's word index (0 = not in a cell region). */
  #entry = 0;
  #stamp = 0;
  #cell = 0;
  /** Set by beginInPlace. */
  #low = 0;
  #high = 0;

  constructor(arena: Arena, options: VerbsOptions = {}) {
    const attempts = options.attempts ?? CELL_ATTEMPTS;
    if (!Number.isInteger(attempts) || attempts < 1) throw invalidArgument("create verbs", "attempts", "an integer, at least 1", attempts);
    this.#arena = arena;
    this.#i32 = arena.i32;
    this.#f64 = arena.f64;
    this.#bytes = arena.bytes;
    this.#attempts = attempts;
    this.#rmw = options.rmwCheck ?? NEEDS_RMW_CHECK;
    this.#completions = new CompletionQueue(options.completionCapacity ?? 256);
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
    const address = ref.address;
    const length = ref.length;
    const rkey = ref.rkey;
    const local = this.#local;
    const words = local.words;
    const at = targetOffset << local.elementShift;
    if (
      this.#rmw || local.view !== target || typeof address !== "number" || typeof rkey !== "number" || typeof length !== "number" ||
      address >>> 0 !== address || length >>> 0 !== length || targetOffset >>> 0 !== targetOffset || targetOffset > MAX_FAST_OFFSET ||
      ((address | at | length) & 3) !== 0 || length > LOOP_MAX_BYTES || at + length > words.length * 4
    ) return this.#readSlowly(ref, target, targetOffset);
    const i32 = this.#i32;
    const entry = TABLE_WORD + ((rkey & KEY_INDEX) << ENTRY_SHIFT);
    const stamp = i32[entry + AT_STAMP] as number;
    const within = address - ((i32[entry + AT_BASE] as number) >>> 0);
    const stride = i32[entry + AT_STRIDE] as number;
    if (
      (stamp & STATE) === ACTIVE_STATE && this.#f64[(entry >>> 1) + AT_KEY] === rkey && ((i32[entry + AT_RIGHTS] as number) & MAY_READ) !== 0 &&
      within >= 0 && within + length <= (i32[entry + AT_LENGTH] as number) >>> 0
    ) {
      const inCell = stride === 0 ? 0 : (within >>> 0) % (stride >>> 0);
      const guard = stride === 0 ? entry : (address - inCell) >>> 2;
      const high = i32[guard + AT_HIGH] as number;
      const low = i32[guard + AT_LOW] as number;
      const generation = ref.generation;
      if ((low & 1) === 0 && (stride === 0 || inCell + length <= stride >>> 0) && (generation === undefined || (stride !== 0 && i32[guard + AT_INCARNATION] === generation))) {
        if (((address | at | length) & 7) === 0 && local.doubles.length !== 0) copyDoubles(this.#f64, address >>> 3, local.doubles, at >>> 3, length >>> 3);
        else copyWords(i32, address >>> 2, words, at >>> 2, length >>> 2);
        // The one atomic: loads before it stay before, loads after it stay after.
        if (Atomics.load(i32, guard + AT_LOW) === low && i32[guard + AT_HIGH] === high && i32[entry + AT_STAMP] === stamp) return SUCCESS;
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

  /**
   * Lets `visit` look at the bytes where they are, and validates afterwards. `visit` may see torn bytes and may run again,
   * so it must only compute; what it throws over bytes that turn out torn is dropped.
   *
   * @returns The status, and the value of the validated call.
   */
  readInPlace<T>(ref: RegionRef, visit: (arena: Uint8Array, byteOffset: number, byteLength: number) => T): { status: number; value: T | undefined } {
    for (let attempt = 0; attempt < this.#attempts; attempt++) {
      const begun = this.beginInPlace(ref);
      if (begun === STATUS.RETRY_EXCEEDED) continue;
      if (begun !== SUCCESS) return { status: begun, value: undefined };
      let value: T | undefined;
      let status: number;
      try {
        value = visit(this.#bytes, ref.address, ref.length);
        status = this.endInPlace();
      } catch (error) {
        status = this.endInPlace();
        if (status === SUCCESS) throw error;
      }
      if (status === SUCCESS) return { status, value };
      if (status !== STATUS.RETRY_EXCEEDED) return { status, value: undefined };
    }
    return { status: STATUS.RETRY_EXCEEDED, value: undefined };
  }

  /**
   * First half of a read in place that allocates nothing: load what you need between this and {@link endInPlace}, and use it
   * only if that returns SUCCESS. One at a time; no other verb of this object in between.
   *
   * @returns SUCCESS, or why not; RETRY_EXCEEDED here means that the cell is being written now.
   */
  beginInPlace(ref: RegionRef): number {
    const status = this.#resolve(ref.address, ref.rkey, ref.length, MAY_READ);
    if (status !== SUCCESS) return status;
    const cell = this.#cell;
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
    const cell = this.#cell;
    if (cell === 0) return this.#active() ? SUCCESS : STATUS.REGION_REVOKED;
    const same = sameVersion(this.#i32, cell, this.#low, this.#high, this.#rmw);
    if (!this.#activeAfterCell()) return STATUS.REGION_REVOKED;
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
    const resolved = this.#resolve(ref.address, ref.rkey, ref.length, ACCESS.WRITE);
    if (resolved !== SUCCESS) return resolved;
    const at = this.#localRange(source, sourceOffset, ref.length);
    if (at < 0) return STATUS.LOCAL_LENGTH_ERROR;
    const entered = this.#enter(ref);
    if (entered !== SUCCESS) return entered;
    copyIn(this.#arena, ref.address, this.#local, at, ref.length);
    this.#leave();
    return SUCCESS;
  }

  /**
   * Stores `desired` in the int32 at the address if it holds `expected`. `atomicResult` is the old value: the swap took
   * place when that equals `expected | 0`. In a cell region it takes the cell, as a write does.
   */
  compareAndSwap(ref: RegionRef, expected: number, desired: number): number {
    const entered = this.#enterAtomic(ref);
    if (entered !== SUCCESS) return entered;
    this.atomicResult = Atomics.compareExchange(this.#i32, ref.address >>> 2, expected | 0, desired | 0);
    this.#leave();
    return SUCCESS;
  }

  /** Adds `delta` to the int32 at the address, modulo 2^32. `atomicResult` is the old value. */
  fetchAdd(ref: RegionRef, delta: number): number {
    const entered = this.#enterAtomic(ref);
    if (entered !== SUCCESS) return entered;
    this.atomicResult = Atomics.add(this.#i32, ref.address >>> 2, delta | 0);
    this.#leave();
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

  #readSlowly(ref: RegionRef, target: LocalView, targetOffset: number): number {
    const { address, rkey, length, generation } = ref;
    const resolved = this.#resolve(address, rkey, length, MAY_READ);
    if (resolved !== SUCCESS) return resolved;
    const at = this.#localRange(target, targetOffset, length);
    if (at < 0) return STATUS.LOCAL_LENGTH_ERROR;
    if (this.#cell !== 0) return this.#copyCell(address, at, length, generation);
    if (generation !== undefined) return STATUS.STALE_CELL;
    copyOut(this.#arena, address, this.#local, at, length);
    return this.#active() ? SUCCESS : this.#wipe(at, length, STATUS.REGION_REVOKED);
  }

  #copyCell(address: number, at: number, length: number, generation: number | undefined): number {
    const i32 = this.#i32;
    const cell = this.#cell;
    for (let attempt = this.#attempts; attempt > 0; attempt--) {
      const high = loadFirst(i32, cell + AT_HIGH, this.#rmw); // acquires
      const low = loadFirst(i32, cell + AT_LOW, this.#rmw); // acquires
      if ((low & 1) === 0) {
        const stale = generation !== undefined && i32[cell + AT_INCARNATION] !== generation;
        if (!stale) copyOut(this.#arena, address, this.#local, at, length);
        if (sameVersion(i32, cell, low, high, this.#rmw)) {
          if (!this.#activeAfterCell()) return this.#wipe(at, length, STATUS.REGION_REVOKED);
          return stale ? STATUS.STALE_CELL : SUCCESS;
        }
      } else spinWhileOdd(i32, cell);
      this.retries++;
    }
    return this.#wipe(at, length, this.#active() ? STATUS.RETRY_EXCEEDED : STATUS.REGION_REVOKED);
  }

  /** Checks key, right, range and cell; notes entry, stamp and cell. */
  #resolve(address: number, rkey: number, length: number, right: number): number {
    if (typeof rkey !== "number") return STATUS.INVALID_RKEY;
    const i32 = this.#i32;
    const entry = TABLE_WORD + ((rkey & KEY_INDEX) << ENTRY_SHIFT);
    const stamp = loadFirst(i32, entry + AT_STAMP, this.#rmw); // acquires the entry's fields
    if ((stamp & STATE) !== ACTIVE_STATE || this.#f64[(entry >>> 1) + AT_KEY] !== rkey) return this.#unknownKey(entry, rkey);
    this.#entry = entry;
    this.#stamp = stamp;
    if (((i32[entry + AT_RIGHTS] as number) & right) === 0) return STATUS.REMOTE_ACCESS_ERROR;
    if (typeof address !== "number" || typeof length !== "number") return STATUS.OUT_OF_BOUNDS;
    if (address >>> 0 !== address || length >>> 0 !== length) return STATUS.OUT_OF_BOUNDS;
    const within = address - ((i32[entry + AT_BASE] as number) >>> 0);
    if (within < 0 || within + length > (i32[entry + AT_LENGTH] as number) >>> 0) return STATUS.OUT_OF_BOUNDS;
    const stride = i32[entry + AT_STRIDE] as number;
    if (stride === 0) {
      this.#cell = 0;
      return SUCCESS;
    }
    const inCell = (within >>> 0) % (stride >>> 0);
    this.#cell = (address - inCell) >>> 2;
    if (inCell + length > stride >>> 0) return STATUS.SPANS_CELLS;
    return right !== MAY_READ && inCell < CELL_WRITABLE_OFFSET ? STATUS.REMOTE_ACCESS_ERROR : SUCCESS;
  }

  #unknownKey(entry: number, rkey: number): number {
    if (!(rkey >= MIN_RKEY)) return STATUS.INVALID_RKEY;
    for (let age = 0; age < KEYS_KEPT; age++) {
      if (this.#f64[(entry >>> 1) + AT_KEY + age] === rkey) return STATUS.REGION_REVOKED;
    }
    return STATUS.INVALID_RKEY;
  }

  /** Whether the region that #resolve found is still active, as the second check of a read outside cells. */
  #active(): boolean {
    const word = this.#entry + AT_STAMP;
    return (this.#rmw ? Atomics.add(this.#i32, word, 0) : Atomics.load(this.#i32, word)) === this.#stamp;
  }

  /** The same after {@link sameVersion}, whose atomic has put all loads in order already. */
  #activeAfterCell(): boolean {
    return loadFirst(this.#i32, this.#entry + AT_STAMP, this.#rmw) === this.#stamp;
  }

  /** Binds the local buffer; byte offset in it, or −1 when the range does not fit. */
  #localRange(view: LocalView, offset: number, length: number): number {
    const local = this.#local;
    if (local.view !== view) local.bind(view);
    if (typeof offset !== "number" || offset >>> 0 !== offset) return -1;
    const at = offset * (1 << local.elementShift);
    return at + length > local.bytes.length ? -1 : at;
  }

  #wipe(at: number, length: number, status: number): number {
    this.#local.bytes.fill(0, at, at + length);
    return status;
  }

  #enterAtomic(ref: RegionRef): number {
    const resolved = this.#resolve(ref.address, ref.rkey, ref.length, ACCESS.ATOMIC);
    if (resolved !== SUCCESS) return resolved;
    if ((ref.address & 3) !== 0 || ref.length !== 4) return STATUS.MISALIGNED;
    return this.#enter(ref);
  }

  /** Registers an operation in flight, checks that the region is still active, and takes the cell if there is one. */
  #enter(ref: RegionRef): number {
    const i32 = this.#i32;
    const cell = this.#cell;
    if (cell === 0 && ref.generation !== undefined) return STATUS.STALE_CELL;
    Atomics.add(i32, this.#entry + IN_FLIGHT, 1); // before the stamp is looked at again: deregister does it the other way round
    let status: number = SUCCESS;
    if (Atomics.load(i32, this.#entry + AT_STAMP) !== this.#stamp) status = STATUS.REGION_REVOKED;
    else if (cell !== 0) status = this.#takeCell(cell, ref.generation);
    if (status !== SUCCESS) Atomics.sub(i32, this.#entry + IN_FLIGHT, 1);
    return status;
  }

  #takeCell(cell: number, generation: number | undefined): number {
    if (!beginWrite(this.#i32, cell * 4, this.#attempts)) return STATUS.RETRY_EXCEEDED;
    if (generation === undefined || this.#i32[cell + AT_INCARNATION] === generation) return SUCCESS;
    cancelWrite(this.#i32, cell * 4);
    return STATUS.STALE_CELL;
  }

  #leave(): void {
    if (this.#cell !== 0) endWrite(this.#i32, this.#cell * 4);
    Atomics.sub(this.#i32, this.#entry + IN_FLIGHT, 1);
  }
}
