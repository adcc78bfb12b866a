/**
 * The shard's directory: id hash → row, in a registered region that one-sided readers probe as well.
 *
 * Invariant: a slot's hash is written before its row is published; a slot never goes back to empty, so a reader's probe
 * sequence is never cut short. A full table is rebuilt into a new region, which the root then names; readers that miss
 * in the old one see that the root changed and look again. Hashes may collide: the caller compares ids.
 */

import {
  DIRECTORY_DELETED,
  DIRECTORY_SLOT_WORDS,
  directoryWord,
  ROOT_DIRECTORY,
  seekDirectory,
} from "./collection-layout.ts";
import type { Adopted, Chunk, CollectionRoot } from "./collection-root.ts";

const MIN_SLOTS = 256;

/** Visits every (hash, row) that belongs in the table. */
export type DirectoryEntries = (insert: (hash: number, row: number) => void) => void;

export class Directory {
  readonly #root: CollectionRoot;
  #chunk: Chunk | undefined;
  #slots = 0;
  /** Slots that are not empty, deleted ones included. */
  #used = 0;

  constructor(root: CollectionRoot) {
    this.#root = root;
  }

  get slots(): number {
    return this.#slots;
  }

  /**
   * Makes room for `more` insertions, at a load of at most a half. Throws before anything is written.
   *
   * @param live Rows in the table now. @param entries Called when the table must be rebuilt.
   */
  reserve(more: number, live: number, entries: DirectoryEntries): void {
    if (this.#slots > 0 && (this.#used + more) * 2 <= this.#slots) return;
    let slots = MIN_SLOTS;
    while (slots < (live + more) * 4) slots *= 2;
    const old = this.#chunk;
    const chunk = this.#root.allocateChunk(slots * DIRECTORY_SLOT_WORDS * 4, 0);
    this.#chunk = chunk;
    this.#slots = slots;
    this.#used = 0;
    entries((hash, row) => this.insert(hash, row));
    this.#root.writeEntry(ROOT_DIRECTORY, 0, chunk);
    if (old !== undefined) this.#root.freeChunk(old);
  }

  /** Probe number of the next slot with this hash from `from` on, or −1. */
  seek(hash: number, from: number): number {
    const chunk = this.#chunk;
    return chunk === undefined ? -1 : seekDirectory(this.#root.arena.i32, chunk.address, this.#slots, hash, from);
  }

  /** Row of the slot that `seek` found. */
  rowAt(hash: number, probe: number): number {
    return (this.#root.arena.i32[this.#word(hash, probe) + 1] as number) - 1;
  }

  /** Into reserved space; the pair must not be there. */
  insert(hash: number, row: number): void {
    const { i32 } = this.#root.arena;
    for (let probe = 0; ; probe++) {
      const word = this.#word(hash, probe);
      const held = i32[word + 1] as number;
      if (held !== 0 && held !== DIRECTORY_DELETED) continue;
      if (held === 0) this.#used++;
      i32[word] = hash;
      Atomics.store(i32, word + 1, row + 1); // publishes the hash
      return;
    }
  }

  remove(hash: number, row: number): void {
    for (let probe = this.seek(hash, 0); probe >= 0; probe = this.seek(hash, probe + 1)) {
      if (this.rowAt(hash, probe) !== row) continue;
      Atomics.store(this.#root.arena.i32, this.#word(hash, probe) + 1, DIRECTORY_DELETED);
      return;
    }
  }

  /**
   * After a crash: takes the dead worker's table over and fills it again in place, as it may have been half-written. Needs
   * no memory: the table had room for what lives. Readers hold the dead worker's keys and cannot take the gaps for answers.
   */
  adopt(adopted: Adopted, entries: DirectoryEntries): void {
    const chunk = this.#root.adoptEntry(ROOT_DIRECTORY, 0, 0, adopted);
    if (chunk === undefined) return;
    this.#chunk = chunk;
    this.#slots = chunk.length / (DIRECTORY_SLOT_WORDS * 4);
    this.#used = 0;
    this.#root.arena.bytes.fill(0, chunk.address, chunk.address + chunk.length);
    entries((hash, row) => this.insert(hash, row));
  }

  #word(hash: number, probe: number): number {
    return directoryWord((this.#chunk as Chunk).address, this.#slots, hash, probe);
  }
}
