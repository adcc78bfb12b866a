/**
 * The arena as a thread has it that others survive: what it takes stands in a ledger, by which they give back what it left when it died.
 *
 * Invariant: a range stands in the ledger from before it is used until before it is freed; so it is freed once, and who dies in between leaks the
 * one block in hand. While the thread lives nobody else frees what is there. Whoever makes a ledger frees it, once the thread has stopped or closed.
 * Layout of a page of the ledger: ranges of 8 bytes, as in a scratch entry, 0 = none; the first one is the next page.
 */
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import { Arena } from "./arena.ts";
import { UNIT_BYTES } from "./arena-layout.ts";

const PAGE_BYTES = 4096;
const RANGE_BYTES = 8;

/** Makes a ledger for one thread. @throws {ShardloomError} `ERR_OUT_OF_MEMORY` */
export function createLedger(arena: Arena): number {
  return arena.allocate(PAGE_BYTES);
}

/** Frees a ledger and all that stands in it. Its thread must have stopped, or have closed its {@link OwnedArena}. */
export function freeLedger(arena: Arena, ledger: number): void {
  const longs = new BigUint64Array(arena.buffer);
  for (let page = ledger; page !== 0; ) {
    for (let at = page + RANGE_BYTES; at < page + PAGE_BYTES; at += RANGE_BYTES) {
      const range = longs[at / RANGE_BYTES] as bigint;
      if (range !== 0n) arena.free(offsetOf(range), lengthOf(range));
    }
    const next = longs[page / RANGE_BYTES] as bigint;
    arena.free(page, PAGE_BYTES);
    page = offsetOf(next);
  }
}

/** One thread's handle of an arena, with a ledger of what it holds. */
export class OwnedArena extends Arena {
  readonly #ranges: BigUint64Array;
  /** Places in the ledger, by the blocks that stand there, and those without one: byte offsets. */
  readonly #places: Map<number, number> = new Map();
  readonly #spare: number[] = [];
  #lastPage: number;
  #isClosed = false;

  /** @param ledger Of {@link createLedger}, new, and of this thread alone. */
  constructor(memory: WebAssembly.Memory, ledger: number) {
    super(memory);
    if (!Number.isInteger(ledger) || ledger < this.heapByteOffset || ledger % UNIT_BYTES !== 0)
      throw invalidArgument("open arena", "ledger", "what createLedger returned", ledger);
    this.#ranges = new BigUint64Array(this.buffer);
    this.#lastPage = ledger;
    this.#addPlaces(ledger);
  }

  /** @throws {ShardloomError} As of every arena; `ERR_CLOSED`. */
  override allocate(byteLength: number): number {
    if (this.#isClosed)
      throw new ShardloomError("ERR_CLOSED", "Cannot allocate memory as its thread has given it back");
    const place = this.#spare.at(-1) ?? this.#grow();
    const byteOffset = this.take(byteLength, place);
    this.#spare.pop();
    this.#places.set(byteOffset, place);
    return byteOffset;
  }

  /** After {@link close} all is free already, and this does nothing. */
  override free(byteOffset: number, byteLength: number): void {
    if (this.#isClosed) return;
    const place = this.#places.get(byteOffset);
    this.give(byteOffset, byteLength, place);
    if (place === undefined) return;
    this.#places.delete(byteOffset);
    this.#spare.push(place);
  }

  /** Frees all that is held; nothing more can be taken. Idempotent. */
  close(): void {
    for (const [byteOffset, place] of this.#places)
      this.free(byteOffset, lengthOf(this.#ranges[place / RANGE_BYTES] as bigint));
    this.#isClosed = true;
  }

  /** Adds a page. @returns its last place */
  #grow(): number {
    const page = this.take(PAGE_BYTES, this.#lastPage);
    this.#lastPage = page;
    this.#addPlaces(page);
    return this.#spare.at(-1) as number;
  }

  #addPlaces(page: number): void {
    for (let at = page + RANGE_BYTES; at < page + PAGE_BYTES; at += RANGE_BYTES) this.#spare.push(at);
  }
}

function offsetOf(range: bigint): number {
  return Number(range & 0xffff_ffffn) * UNIT_BYTES;
}

function lengthOf(range: bigint): number {
  return Number(range >> 32n);
}
