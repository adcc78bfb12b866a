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
import { beginWrite, CELL_ATTEMPTS, endWrite, NEEDS_RMW_CHECK, sameVersion, spinWhileOdd } from "./cell.ts";
import { CELL_WRITABLE_OFFSET, INCARNATION, VERSION_HIGH, VERSION_LOW } from "./cell-layout.ts";
import { type Completion, CompletionQueue } from "./completion-queue.ts";
import {
  ACCESS, ACTIVE, BASE, IN_FLIGHT, INDEX_MASK, KEY, KEYS_KEPT, LENGTH, MIN_RKEY, REGION_ENTRY_WORD_SHIFT, REGION_TABLE_WORD,
  type RegionRef, RIGHTS, STAMP, STATE_MASK, STRIDE,
} from "./region-layout.ts";
import { STATUS } from "./status.ts";
import { copyIn, copyOut, LocalBuffer, type LocalView } from "./word-copy.ts";

export type { Completion } from "./completion-queue.ts";
export { STATUS, type Status, statusName } from "./status.ts";

/** Operations of work requests. */
export const OPCODE = { READ: 1, WRITE: 2, COMPARE_AND_SWAP: 3, FETCH_ADD: 4 } as const;

/** One operation of a list; `local` is the target of READ and the source of WRITE. */
export interface WorkRequest {
  /** The caller's number; comes back in the completion. */
  readonly id: number;
  readonly opcode: number;
  readonly ref: RegionRef;
  readonly local?: LocalView;
  /** In elements of `local`. @default 0 */
  readonly localOffset?: number;
  readonly expected?: number;
  readonly desired?: number;
  readonly delta?: number;
}

export interface VerbsOptions {
  /** Completions held until polled, 1 … 65536; when full, `post` accepts no more. @default 256 */
  readonly completionCapacity?: number;
  /** Attempts on a busy cell before RETRY_EXCEEDED, at least 1. @default 128 */
  readonly attempts?: number;
  /** Whether second checks are read-modify-writes. @default what this processor needs */
  readonly rmwCheck?: boolean;
}

/** "Any incarnation": refs carry non-negative ones. */
const ANY = -1;

/** One thread's one-sided access to an arena. Not to be shared or re-entered; nothing is allocated on the way. */
export class Verbs {
  /** What the word held before the last successful atomic. */
  atomicResult = 0;
  /** Attempts beyond the first on busy or changed cells, so far. */
  retries = 0;
  readonly #i32: Int32Array;
  readonly #f64: Float64Array;
  readonly #bytes: Uint8Array;
  readonly #attempts: number;
  readonly #rmw: boolean;
  readonly #local: LocalBuffer = new LocalBuffer();
  readonly #completions: CompletionQueue;
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
   * Cost: about 25 ns for 64 bytes into an aligned buffer that was used last time as well.
   *
   * @param targetOffset In elements of `target`.
   * @returns One of STATUS. RETRY_EXCEEDED: ask the owner instead.
   */
  read(ref: RegionRef, target: LocalView, targetOffset: number = 0): number {
    const generation = ref.generation;
    if (generation === undefined) return this.#copyOut(ref.address, ref.rkey, ref.length, target, targetOffset, ANY);
    return this.#copyOut(ref.address, ref.rkey, ref.length, target, targetOffset, generation >= 0 ? generation : Number.NaN);
  }

  /** As {@link read}, without a reference object and for any incarnation. */
  readAt(address: number, rkey: number, length: number, target: LocalView, targetOffset: number): number {
    return this.#copyOut(address, rkey, length, target, targetOffset, ANY);
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
      if (begun !== STATUS.SUCCESS) return { status: begun, value: undefined };
      const ended = this.#visit(ref, visit);
      if (ended.status !== STATUS.RETRY_EXCEEDED) return ended;
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
    const status = this.#resolve(ref.address, ref.rkey, ref.length, ACCESS.READ);
    if (status !== STATUS.SUCCESS) return status;
    const cell = this.#cell;
    if (cell === 0) return ref.generation === undefined ? STATUS.SUCCESS : STATUS.STALE_CELL;
    this.#high = Atomics.load(this.#i32, cell + VERSION_HIGH); // acquires
    this.#low = Atomics.load(this.#i32, cell + VERSION_LOW); // acquires
    if ((this.#low & 1) !== 0) {
      this.retries++;
      spinWhileOdd(this.#i32, cell);
      return STATUS.RETRY_EXCEEDED;
    }
    if (ref.generation === undefined || this.#i32[cell + INCARNATION] === ref.generation) return STATUS.SUCCESS;
    return this.endInPlace() === STATUS.SUCCESS ? STATUS.STALE_CELL : STATUS.RETRY_EXCEEDED;
  }

  /** Second half: SUCCESS when all loads since {@link beginInPlace} are valid, RETRY_EXCEEDED when the cell changed, or REGION_REVOKED. */
  endInPlace(): number {
    const cell = this.#cell;
    if (cell !== 0 && !sameVersion(this.#i32, cell, this.#low, this.#high, this.#rmw)) {
      this.retries++;
      return this.#active() ? STATUS.RETRY_EXCEEDED : STATUS.REGION_REVOKED;
    }
    return this.#active() ? STATUS.SUCCESS : STATUS.REGION_REVOKED;
  }

  /**
   * Copies `ref.length` bytes of the source into the region. In a cell region it takes the cell, so readers and other
   * writers see it whole; the version and incarnation words are out of reach (REMOTE_ACCESS_ERROR).
   *
   * @param sourceOffset In elements of `source`.
   */
  write(ref: RegionRef, source: LocalView, sourceOffset: number = 0): number {
    const resolved = this.#resolve(ref.address, ref.rkey, ref.length, ACCESS.WRITE);
    if (resolved !== STATUS.SUCCESS) return resolved;
    const refused = this.#refuseHeader(ref.address);
    if (refused !== STATUS.SUCCESS) return refused;
    const at = this.#localRange(source, sourceOffset, ref.length);
    if (at < 0) return STATUS.LOCAL_LENGTH_ERROR;
    const entered = this.#enter(ref);
    if (entered !== STATUS.SUCCESS) return entered;
    copyIn(this.#i32, this.#bytes, ref.address, this.#local, at, ref.length);
    this.#leave();
    return STATUS.SUCCESS;
  }

  /**
   * Stores `desired` in the int32 at the address if it holds `expected`. `atomicResult` is the old value: the swap took
   * place when that equals `expected | 0`. In a cell region it takes the cell, as a write does.
   */
  compareAndSwap(ref: RegionRef, expected: number, desired: number): number {
    const entered = this.#enterAtomic(ref);
    if (entered !== STATUS.SUCCESS) return entered;
    this.atomicResult = Atomics.compareExchange(this.#i32, ref.address >>> 2, expected | 0, desired | 0);
    this.#leave();
    return STATUS.SUCCESS;
  }

  /** Adds `delta` to the int32 at the address, modulo 2^32. `atomicResult` is the old value. */
  fetchAdd(ref: RegionRef, delta: number): number {
    const entered = this.#enterAtomic(ref);
    if (entered !== STATUS.SUCCESS) return entered;
    this.atomicResult = Atomics.add(this.#i32, ref.address >>> 2, delta | 0);
    this.#leave();
    return STATUS.SUCCESS;
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
      this.#execute(list[index] as WorkRequest);
    }
    return list.length;
  }

  /** Moves up to `limit` completions into `out`, reusing its objects. Returns how many. */
  poll(out: Completion[], limit: number): number {
    return this.#completions.poll(out, limit);
  }

  #copyOut(address: number, rkey: number, length: number, target: LocalView, targetOffset: number, generation: number): number {
    const resolved = this.#resolve(address, rkey, length, ACCESS.READ);
    if (resolved !== STATUS.SUCCESS) return resolved;
    const at = this.#localRange(target, targetOffset, length);
    if (at < 0) return STATUS.LOCAL_LENGTH_ERROR;
    if (this.#cell !== 0) return this.#copyCell(address, at, length, generation);
    if (generation !== ANY) return STATUS.STALE_CELL;
    copyOut(this.#i32, this.#bytes, address, this.#local, at, length);
    return this.#active() ? STATUS.SUCCESS : this.#wipe(at, length, STATUS.REGION_REVOKED);
  }

  #copyCell(address: number, at: number, length: number, generation: number): number {
    const i32 = this.#i32;
    const cell = this.#cell;
    for (let attempt = this.#attempts; attempt > 0; attempt--) {
      const high = Atomics.load(i32, cell + VERSION_HIGH); // acquires
      const low = Atomics.load(i32, cell + VERSION_LOW); // acquires
      if ((low & 1) === 0) {
        const stale = generation !== ANY && i32[cell + INCARNATION] !== generation;
        if (!stale) copyOut(i32, this.#bytes, address, this.#local, at, length);
        if (sameVersion(i32, cell, low, high, this.#rmw)) {
          if (!this.#active()) return this.#wipe(at, length, STATUS.REGION_REVOKED);
          return stale ? STATUS.STALE_CELL : STATUS.SUCCESS;
        }
      } else spinWhileOdd(i32, cell);
      this.retries++;
    }
    return this.#wipe(at, length, this.#active() ? STATUS.RETRY_EXCEEDED : STATUS.REGION_REVOKED);
  }

  #visit<T>(ref: RegionRef, visit: (arena: Uint8Array, byteOffset: number, byteLength: number) => T): { status: number; value: T | undefined } {
    try {
      const value = visit(this.#bytes, ref.address, ref.length);
      const status = this.endInPlace();
      return { status, value: status === STATUS.SUCCESS ? value : undefined };
    } catch (error) {
      const status = this.endInPlace();
      if (status === STATUS.SUCCESS) throw error;
      return { status, value: undefined };
    }
  }

  /** Checks key, right, range and cell; notes entry, stamp and cell. */
  #resolve(address: number, rkey: number, length: number, right: number): number {
    if (typeof rkey !== "number" || typeof address !== "number" || typeof length !== "number") {
      return typeof rkey === "number" ? STATUS.OUT_OF_BOUNDS : STATUS.INVALID_RKEY;
    }
    const i32 = this.#i32;
    const entry = REGION_TABLE_WORD + ((rkey & INDEX_MASK) << REGION_ENTRY_WORD_SHIFT);
    const stamp = Atomics.load(i32, entry + STAMP); // acquires the entry's fields
    if ((stamp & STATE_MASK) !== ACTIVE || this.#f64[(entry >>> 1) + KEY] !== rkey) return this.#unknownKey(entry, rkey);
    this.#entry = entry;
    this.#stamp = stamp;
    if (((i32[entry + RIGHTS] as number) & right) === 0) return STATUS.REMOTE_ACCESS_ERROR;
    if (address >>> 0 !== address || length >>> 0 !== length) return STATUS.OUT_OF_BOUNDS;
    const within = address - ((i32[entry + BASE] as number) >>> 0);
    if (within < 0 || within + length > (i32[entry + LENGTH] as number) >>> 0) return STATUS.OUT_OF_BOUNDS;
    const stride = i32[entry + STRIDE] as number;
    if (stride === 0) {
      this.#cell = 0;
      return STATUS.SUCCESS;
    }
    const inCell = (within >>> 0) % (stride >>> 0);
    this.#cell = (address - inCell) >>> 2;
    return inCell + length > stride >>> 0 ? STATUS.SPANS_CELLS : STATUS.SUCCESS;
  }

  #unknownKey(entry: number, rkey: number): number {
    if (!(rkey >= MIN_RKEY)) return STATUS.INVALID_RKEY;
    for (let age = 0; age < KEYS_KEPT; age++) {
      if (this.#f64[(entry >>> 1) + KEY + age] === rkey) return STATUS.REGION_REVOKED;
    }
    return STATUS.INVALID_RKEY;
  }

  /** Whether the region that #resolve found is still active: the second check. After a cell's own check a load suffices. */
  #active(): boolean {
    const word = this.#entry + STAMP;
    const now = this.#rmw && this.#cell === 0 ? Atomics.add(this.#i32, word, 0) : Atomics.load(this.#i32, word);
    return now === this.#stamp;
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

  #refuseHeader(address: number): number {
    if (this.#cell === 0) return STATUS.SUCCESS;
    return address - this.#cell * 4 < CELL_WRITABLE_OFFSET ? STATUS.REMOTE_ACCESS_ERROR : STATUS.SUCCESS;
  }

  #enterAtomic(ref: RegionRef): number {
    const resolved = this.#resolve(ref.address, ref.rkey, ref.length, ACCESS.ATOMIC);
    if (resolved !== STATUS.SUCCESS) return resolved;
    const refused = this.#refuseHeader(ref.address);
    if (refused !== STATUS.SUCCESS) return refused;
    if ((ref.address & 3) !== 0 || ref.length !== 4) return STATUS.MISALIGNED;
    return this.#enter(ref);
  }

  /** Registers an operation in flight, checks that the region is still active, and takes the cell if there is one. */
  #enter(ref: RegionRef): number {
    const i32 = this.#i32;
    const cell = this.#cell;
    if (cell === 0 && ref.generation !== undefined) return STATUS.STALE_CELL;
    Atomics.add(i32, this.#entry + IN_FLIGHT, 1); // before the stamp is looked at again: deregister does it the other way round
    let status: number = STATUS.SUCCESS;
    if (Atomics.load(i32, this.#entry + STAMP) !== this.#stamp) status = STATUS.REGION_REVOKED;
    else if (cell !== 0) status = this.#takeCell(cell, ref.generation);
    if (status !== STATUS.SUCCESS) Atomics.sub(i32, this.#entry + IN_FLIGHT, 1);
    return status;
  }

  #takeCell(cell: number, generation: number | undefined): number {
    if (!beginWrite(this.#i32, cell * 4, this.#attempts)) return STATUS.RETRY_EXCEEDED;
    if (generation === undefined || this.#i32[cell + INCARNATION] === generation) return STATUS.SUCCESS;
    endWrite(this.#i32, cell * 4);
    return STATUS.STALE_CELL;
  }

  #leave(): void {
    if (this.#cell !== 0) endWrite(this.#i32, this.#cell * 4);
    Atomics.sub(this.#i32, this.#entry + IN_FLIGHT, 1);
  }

  #execute(request: WorkRequest): void {
    this.atomicResult = 0;
    if (!isObject(request) || !isObject(request.ref)) {
      this.#completions.push(Number(request?.id), Number(request?.opcode), STATUS.INVALID_REQUEST, 0, 0);
      return;
    }
    const { id, opcode, ref } = request;
    let status: number = STATUS.INVALID_REQUEST;
    if (opcode === OPCODE.READ && request.local !== undefined) status = this.read(ref, request.local, request.localOffset ?? 0);
    else if (opcode === OPCODE.WRITE && request.local !== undefined) status = this.write(ref, request.local, request.localOffset ?? 0);
    else if (opcode === OPCODE.COMPARE_AND_SWAP && request.expected !== undefined && request.desired !== undefined) {
      status = this.compareAndSwap(ref, request.expected, request.desired);
    } else if (opcode === OPCODE.FETCH_ADD && request.delta !== undefined) status = this.fetchAdd(ref, request.delta);
    this.#completions.push(id, opcode, status, status === STATUS.SUCCESS ? ref.length : 0, this.atomicResult);
  }
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null;
}
