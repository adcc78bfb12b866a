/**
 * RegionTable: registers ranges of the arena for one-sided access, and takes them back.
 *
 * Invariant: a key opens its region only while the slot's stamp is ACTIVE under the epoch it was made for. Before memory
 * can be reused or moved, the stamp has left ACTIVE (so that optimistic reads fail their second check) and every write or
 * atomic in flight has been waited for. Each slot's fields are written by the owner in it alone, who is in it from before the
 * first until after the last of them, so that whoever adopts what a dead owner had finds every slot it held.
 * Source: `ibv_reg_mr`, `ibv_rereg_mr`, `ibv_dereg_mr` (rdma-core). Divergence: re-registering always gives a new key; a
 * dead owner's regions can be adopted; reads are not counted but validated, so readers may die at any point.
 */
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import type { Arena } from "./arena.ts";
import { REGION_CURSOR_WORD } from "./arena-layout.ts";
import { repairOdd } from "./cell.ts";
import { CELL_ALIGNMENT_BYTES, CELL_HEADER_BYTES } from "./cell-layout.ts";
import {
  ACCESS_MASK,
  ACTIVE,
  BASE,
  DRAINING,
  EPOCH_SHIFT,
  entryWord,
  FREE,
  IN_FLIGHT,
  INDEX_MASK,
  KEY,
  KEYS_KEPT,
  LENGTH,
  MAX_EPOCH,
  MAX_OWNER,
  OWNER,
  REGION_COUNT,
  type RegionRef,
  RIGHTS,
  STAMP,
  STATE_MASK,
  STRIDE,
  stampOf,
} from "./region-layout.ts";
import { STATUS, statusName } from "./status.ts";

export { ACCESS, type RegionRef } from "./region-layout.ts";

/** A range to register. */
export interface RegionOptions {
  /** Absolute byte offset in the arena's heap; a multiple of 16 for cells. */
  readonly byteOffset: number;
  /** Bytes, at least 1; a multiple of the stride for cells. */
  readonly byteLength: number;
  /** Rights out of `ACCESS`, at least one. */
  readonly access: number;
  /**
   * Above 0 the region is an array of cells of this many bytes, header included: a multiple of 16, more than 32.
   * Verbs then validate the cell and refuse ranges over several cells.
   * @default 0
   */
  readonly cellStrideBytes?: number;
}

/** How to wait for writes in flight. */
export interface DrainOptions {
  /** Milliseconds; measured by the clock given to the table, else by a calibrated count of loads. @default 1000 */
  readonly timeoutMs?: number;
}

/** A region that was taken over, under its new key. */
export interface AdoptedRegion extends RegionRef {
  readonly cellStrideBytes: number;
  /** Byte offsets of cells that their writer died in. They were made even and got a new incarnation; their payload is unspecified. */
  readonly tornCells: readonly number[];
}

/** What the table knows of one active region. */
export interface RegionInfo {
  readonly ref: RegionRef;
  readonly owner: number;
  readonly access: number;
  readonly cellStrideBytes: number;
  readonly regionEpoch: number;
}

const DEFAULT_DRAIN_MS = 1000;
const ADOPT_DRAIN_MS = 100;
/** Loads that stand for a millisecond when no clock was given; at a nanosecond or more each, never shorter than that. */
const LOADS_PER_MS = 500_000;
const LOADS_PER_CLOCK_READ = 4096;

/** One owner's handle of the region table; all state is in the arena. Control plane: clarity before speed. */
export class RegionTable {
  readonly #arena: Arena;
  readonly #i32: Int32Array;
  readonly #owner: number;
  readonly #randomU32: () => number;
  readonly #nowMs: (() => number) | undefined;

  /**
   * @param owner Who registers: a non-negative int32, unique among live threads.
   * @param randomU32 Source of the keys: uniform over uint32, from a cryptographic generator wherever keys must not be guessed.
   * @param nowMs Monotonic clock for the bounded waits. Without it they are bounded by a count of loads.
   */
  constructor(arena: Arena, owner: number, randomU32: () => number, nowMs?: () => number) {
    checkOwner("open region table", "owner", owner);
    this.#arena = arena;
    this.#i32 = arena.i32;
    this.#owner = owner;
    this.#randomU32 = randomU32;
    this.#nowMs = nowMs;
  }

  /**
   * Registers a range under a fresh key. Registering a range twice gives two regions with their own keys and rights.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_REGION_TABLE_FULL` when 4096 regions exist.
   */
  register(options: RegionOptions): RegionRef {
    this.#check("register region", options);
    return this.#publish(this.#claim(this.#owner), this.#owner, options);
  }

  /**
   * Revokes the key, waits for writes in flight, and registers the slot anew: other range, rights or stride as given.
   *
   * @param options What is to change; the rest stays.
   * @throws {ShardloomError} `ERR_REGION_ACCESS` when this owner has no such region; `ERR_TIMEOUT` as in {@link deregister}.
   */
  reregister(ref: RegionRef, options: Partial<RegionOptions> & DrainOptions = {}): RegionRef {
    const word = this.#own("re-register region", ref);
    const wanted: RegionOptions = {
      byteOffset: options.byteOffset ?? this.#u32(word + BASE),
      byteLength: options.byteLength ?? this.#u32(word + LENGTH),
      access: options.access ?? this.#u32(word + RIGHTS),
      cellStrideBytes: options.cellStrideBytes ?? this.#u32(word + STRIDE),
    };
    this.#check("re-register region", wanted);
    this.#revoke(word, "re-register region", options.timeoutMs ?? DEFAULT_DRAIN_MS);
    return this.#publish(word, this.#owner, wanted);
  }

  /** Who registers here. */
  get owner(): number {
    return this.#owner;
  }

  /**
   * Takes the key back. On return no write or atomic through it is in flight or can start, and no read that overlapped
   * ends in SUCCESS: the memory may be reused.
   *
   * @throws {ShardloomError} `ERR_REGION_ACCESS` when this owner has no such region; `ERR_TIMEOUT` when a write did not
   * finish in time (its thread may have died): the key is revoked, but the memory must not be reused. Call again to wait on.
   */
  deregister(ref: RegionRef, options: DrainOptions = {}): void {
    const word = this.#own("deregister region", ref);
    this.#revoke(word, "deregister region", options.timeoutMs ?? DEFAULT_DRAIN_MS);
    this.#release(word);
  }

  /**
   * Takes over all regions of an owner whose thread has exited: keys are revoked, cells left odd are repaired, and each
   * region comes back under a new key and regionEpoch. Registrations and deregistrations the owner died in are undone.
   *
   * When a write in flight does not end within 100 ms, its thread is taken for the dead one: the region moves to a slot of
   * its own, and the old slot stays out of use. Cost: one load per cell.
   *
   * @throws {ShardloomError} `ERR_REGION_TABLE_FULL` when such a move finds no slot.
   */
  adopt(owner: number, newOwner: number, options: DrainOptions = {}): AdoptedRegion[] {
    checkOwner("adopt regions", "owner", owner);
    checkOwner("adopt regions", "newOwner", newOwner);
    const adopted: AdoptedRegion[] = [];
    // The list first: with newOwner = owner, a region that moves must not be met again.
    const words = this.#wordsOf(owner);
    for (const word of words) {
      const stamp = Atomics.load(this.#i32, word + STAMP);
      const state = stamp & STATE_MASK;
      if (state === FREE) this.#release(word);
      else if (state === DRAINING || this.#move(word, stamp, DRAINING))
        adopted.push(this.#takeOver(word, newOwner, options.timeoutMs ?? ADOPT_DRAIN_MS));
    }
    return adopted;
  }

  /** The active regions of one owner, or of all. A snapshot. The keys in it are secrets: keep them inside the process. */
  list(owner?: number): RegionInfo[] {
    const regions: RegionInfo[] = [];
    for (let index = 0; index < REGION_COUNT; index++) {
      const word = entryWord(index);
      const stamp = Atomics.load(this.#i32, word + STAMP); // acquires
      if ((stamp & STATE_MASK) !== ACTIVE) continue;
      const info: RegionInfo = {
        ref: { address: this.#u32(word + BASE), rkey: this.#key(word, 0), length: this.#u32(word + LENGTH) },
        owner: this.#u32(word + OWNER) - 1,
        access: this.#u32(word + RIGHTS),
        cellStrideBytes: this.#u32(word + STRIDE),
        regionEpoch: stamp >>> EPOCH_SHIFT,
      };
      if (Atomics.add(this.#i32, word + STAMP, 0) !== stamp) continue; // changed meanwhile
      if (owner === undefined || info.owner === owner) regions.push(info);
    }
    return regions;
  }

  #wordsOf(owner: number): number[] {
    const words: number[] = [];
    for (let index = 0; index < REGION_COUNT; index++) {
      if (Atomics.load(this.#i32, entryWord(index) + OWNER) === owner + 1) words.push(entryWord(index));
    }
    return words;
  }

  #check(action: string, options: RegionOptions): void {
    const { byteOffset, byteLength, access, cellStrideBytes: stride = 0 } = options;
    const arena = this.#arena;
    if (!Number.isInteger(byteOffset) || byteOffset < arena.heapByteOffset || byteOffset >= arena.capacityBytes) {
      throw invalidArgument(action, "byteOffset", "inside the arena's heap", byteOffset);
    }
    if (!Number.isInteger(byteLength) || byteLength < 1 || byteOffset + byteLength > arena.capacityBytes) {
      throw invalidArgument(action, "byteLength", "at least 1 and end inside the arena", byteLength);
    }
    if (!Number.isInteger(access) || access < 1 || access > ACCESS_MASK)
      throw invalidArgument(action, "access", "a union of ACCESS rights", access);
    if (stride === 0) return;
    if (
      !Number.isInteger(stride) ||
      stride <= CELL_HEADER_BYTES ||
      stride % CELL_ALIGNMENT_BYTES !== 0 ||
      stride > byteLength
    ) {
      throw invalidArgument(action, "cellStrideBytes", "0, or a multiple of 16 above 32 within byteLength", stride);
    }
    if (byteLength % stride !== 0)
      throw invalidArgument(action, "byteLength", "a multiple of cellStrideBytes", byteLength);
    if (byteOffset % CELL_ALIGNMENT_BYTES !== 0)
      throw invalidArgument(action, "byteOffset", "a multiple of 16", byteOffset);
  }

  /** Takes a free slot: next fit, so that a slot, and the keys it remembers, is reused as late as possible. */
  #claim(owner: number): number {
    const start = Atomics.add(this.#i32, REGION_CURSOR_WORD, 1);
    for (let step = 0; step < REGION_COUNT; step++) {
      const word = entryWord((start + step) & INDEX_MASK);
      if (!this.#isFree(word) || Atomics.compareExchange(this.#i32, word + OWNER, 0, owner + 1) !== 0) continue;
      if (!this.#isFree(word)) {
        Atomics.store(this.#i32, word + OWNER, 0); // taken and left DRAINING for good in between
        continue;
      }
      if (step > 0) Atomics.store(this.#i32, REGION_CURSOR_WORD, start + step + 1);
      return word;
    }
    throw new ShardloomError("ERR_REGION_TABLE_FULL", `Cannot register region as all ${REGION_COUNT} slots are taken`, {
      details: { limit: REGION_COUNT },
    });
  }

  /** A slot that a dead thread is still counted in is not: whoever took it could never give it back. */
  #isFree(word: number): boolean {
    const stamp = Atomics.load(this.#i32, word + STAMP);
    const unused = Atomics.load(this.#i32, word + IN_FLIGHT) === 0;
    return unused && (stamp & STATE_MASK) === FREE && stamp >>> EPOCH_SHIFT !== MAX_EPOCH;
  }

  /** Fills a slot that the caller owns (FREE, or DRAINING and drained) and makes it active under the next epoch. */
  #publish(word: number, owner: number, options: RegionOptions): RegionRef {
    const i32 = this.#i32;
    const epoch = (i32[word + STAMP] as number) >>> EPOCH_SHIFT;
    if (epoch >= MAX_EPOCH) {
      this.#release(word); // retired for good: #claim skips it
      return this.#publish(this.#claim(owner), owner, options);
    }
    Atomics.store(i32, word + OWNER, owner + 1);
    const keys = (word >>> 1) + KEY;
    const f64 = this.#arena.f64;
    for (let age = KEYS_KEPT - 1; age > 0; age--) f64[keys + age] = f64[keys + age - 1] as number;
    const rkey = this.#newKey(word);
    f64[keys] = rkey;
    i32[word + BASE] = options.byteOffset;
    i32[word + LENGTH] = options.byteLength;
    i32[word + RIGHTS] = options.access;
    i32[word + STRIDE] = options.cellStrideBytes ?? 0;
    // IN_FLIGHT stays: a late comer of the epoch before may have counted itself in, and is about to count itself out.
    Atomics.store(i32, word + STAMP, stampOf(epoch + 1, ACTIVE)); // publishes the fields
    return { address: options.byteOffset, rkey, length: options.byteLength };
  }

  #newKey(word: number): number {
    const index = (word - entryWord(0)) / (entryWord(1) - entryWord(0));
    for (;;) {
      const random = (this.#randomU32() >>> 0) * 256 + ((this.#randomU32() >>> 0) & 255);
      const rkey = random * REGION_COUNT + index;
      if (random !== 0 && !this.#remembers(word, rkey)) return rkey;
    }
  }

  #own(action: string, ref: RegionRef): number {
    const rkey: unknown = ref?.rkey;
    const word = typeof rkey === "number" ? entryWord(rkey & INDEX_MASK) : 0;
    const state = word === 0 ? FREE : Atomics.load(this.#i32, word + STAMP) & STATE_MASK;
    const current = word !== 0 && this.#key(word, 0) === rkey;
    if (
      current &&
      (state === ACTIVE || state === DRAINING) &&
      Atomics.load(this.#i32, word + OWNER) === this.#owner + 1
    )
      return word;
    const known = word !== 0 && typeof rkey === "number" && this.#remembers(word, rkey);
    const status =
      current && state === ACTIVE ? STATUS.REMOTE_ACCESS_ERROR : known ? STATUS.REGION_REVOKED : STATUS.INVALID_RKEY;
    throw new ShardloomError(
      "ERR_REGION_ACCESS",
      `Cannot ${action} as the key belongs to no region of owner ${this.#owner}: ${statusName(status)}`,
      { details: { status: statusName(status), owner: this.#owner } },
    );
  }

  /** ACTIVE → DRAINING, then waits for writes in flight. A slot that is DRAINING already is waited for again. */
  #revoke(word: number, action: string, timeoutMs: number): void {
    if (!Number.isFinite(timeoutMs) || timeoutMs < 0)
      throw invalidArgument(action, "timeoutMs", "a finite number, at least 0", timeoutMs);
    const stamp = Atomics.load(this.#i32, word + STAMP);
    if ((stamp & STATE_MASK) === ACTIVE) this.#move(word, stamp, DRAINING);
    if (this.#drained(word, timeoutMs)) return;
    const inFlight = Atomics.load(this.#i32, word + IN_FLIGHT);
    throw new ShardloomError(
      "ERR_TIMEOUT",
      `Cannot ${action} as ${inFlight} writes are still in flight after ${timeoutMs} ms`,
      { details: { inFlight, timeoutMs } },
    );
  }

  #takeOver(word: number, newOwner: number, timeoutMs: number): AdoptedRegion {
    const i32 = this.#i32;
    const drained = this.#drained(word, timeoutMs);
    const byteOffset = this.#u32(word + BASE);
    const byteLength = this.#u32(word + LENGTH);
    const cellStrideBytes = this.#u32(word + STRIDE);
    const tornCells: number[] = [];
    if (cellStrideBytes !== 0) {
      for (let cell = byteOffset; cell < byteOffset + byteLength; cell += cellStrideBytes) {
        if (repairOdd(i32, cell)) tornCells.push(cell);
      }
    }
    const options: RegionOptions = { byteOffset, byteLength, access: this.#u32(word + RIGHTS), cellStrideBytes };
    const ref = this.#publish(drained ? word : this.#claim(newOwner), newOwner, options);
    if (!drained) Atomics.store(i32, word + OWNER, 0); // the slot stays DRAINING, and nobody's
    return { ...ref, cellStrideBytes, tornCells };
  }

  #drained(word: number, timeoutMs: number): boolean {
    const start = this.#nowMs?.() ?? 0;
    const limit = this.#nowMs === undefined ? Math.ceil(timeoutMs * LOADS_PER_MS) : Number.POSITIVE_INFINITY;
    for (let loads = 0; Atomics.load(this.#i32, word + IN_FLIGHT) > 0; loads++) {
      if (loads >= limit) return false;
      if (loads % LOADS_PER_CLOCK_READ === 0 && this.#nowMs !== undefined && this.#nowMs() - start >= timeoutMs)
        return false;
    }
    return true;
  }

  #release(word: number): void {
    const epoch = (this.#i32[word + STAMP] as number) >>> EPOCH_SHIFT;
    Atomics.store(this.#i32, word + STAMP, stampOf(epoch, FREE));
    Atomics.store(this.#i32, word + OWNER, 0); // publishes the slot as free
  }

  #move(word: number, stamp: number, state: number): boolean {
    const next = (stamp & ~STATE_MASK) | state;
    return Atomics.compareExchange(this.#i32, word + STAMP, stamp, next) === stamp;
  }

  #remembers(word: number, rkey: number): boolean {
    for (let age = 0; age < KEYS_KEPT; age++) if (this.#key(word, age) === rkey) return true;
    return false;
  }

  #key(word: number, age: number): number {
    return this.#arena.f64[(word >>> 1) + KEY + age] as number;
  }

  #u32(word: number): number {
    return this.#arena.u32[word] as number;
  }
}

function checkOwner(action: string, name: string, owner: number): void {
  if (!Number.isInteger(owner) || owner < 0 || owner > MAX_OWNER)
    throw invalidArgument(action, name, "a non-negative int32", owner);
}
