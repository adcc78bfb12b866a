/**
 * The slots of requests in flight: which are free, and whose the others are.
 *
 * Invariant: a slot is free or taken by one request; its number carries how often the place was taken, so that a slot given back
 * twice is found out before it frees another's. No allocation after creation.
 *
 * Layout of a slot's number: bits 29..16 how often taken, wrapping | bits 15..0 index.
 */
import { invalidArgument } from "../errors.ts";

/** What `take` returns when nothing is free, and admission when a request may not enter at once. */
export const NO_SLOT = -1;

const INDEX_BITS = 16;
const INDEX_MASK = 0xffff;
const TURN_MASK = 0x3fff;

/** A fixed number of slots. */
export class SlotTable {
  readonly #shards: Int32Array;
  readonly #tenants: Uint32Array;
  readonly #turns: Uint16Array;
  readonly #sinceMs: Float64Array;
  readonly #free: Int32Array;
  #freeCount: number;

  constructor(slots: number) {
    this.#shards = new Int32Array(slots).fill(NO_SLOT);
    this.#tenants = new Uint32Array(slots);
    this.#turns = new Uint16Array(slots);
    this.#sinceMs = new Float64Array(slots);
    this.#free = Int32Array.from({ length: slots }, (_, at) => slots - 1 - at);
    this.#freeCount = slots;
  }

  get free(): number {
    return this.#freeCount;
  }

  get taken(): number {
    return this.#free.length - this.#freeCount;
  }

  /**
   * Takes a slot for a request. There must be a free one.
   *
   * @param sinceMs The time, or NaN when nobody has read the clock.
   */
  take(shard: number, tenant: number, sinceMs: number): number {
    const index = this.#free[--this.#freeCount] as number;
    this.#shards[index] = shard;
    this.#tenants[index] = tenant;
    this.#sinceMs[index] = sinceMs;
    return ((this.#turns[index] as number) << INDEX_BITS) | index;
  }

  /**
   * Shard of the request that holds a slot.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when no request holds it.
   */
  shardOf(slot: number): number {
    const index = slot & INDEX_MASK;
    const shard = this.#shards[index];
    if (shard === undefined || shard === NO_SLOT || this.#turns[index] !== slot >>> INDEX_BITS)
      throw invalidArgument("leave admission", "slot", "one that was entered and not left", slot);
    return shard;
  }

  /** Tenant of the request that holds a slot. */
  tenantOf(slot: number): number {
    return this.#tenants[slot & INDEX_MASK] as number;
  }

  /** When the slot was taken, or NaN. */
  sinceMsOf(slot: number): number {
    return this.#sinceMs[slot & INDEX_MASK] as number;
  }

  /** Frees a slot that `shardOf` has found taken. */
  release(slot: number): void {
    const index = slot & INDEX_MASK;
    this.#shards[index] = NO_SLOT;
    this.#turns[index] = ((this.#turns[index] as number) + 1) & TURN_MASK;
    this.#free[this.#freeCount++] = index;
  }
}
