/**
 * Loads of memory that is about to be read: such loads miss the cache side by side, those of a read that waits for what it finds one after the other.
 *
 * Invariant: nothing depends on what is loaded, and beyond the memory nothing is. One thread only.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import { USER0 } from "../../native-bridge/cell-layout.ts";

/** Words of a cache line. */
const LINE_WORDS = 16;

export class Prefetch {
  /** What was loaded: of no use but that the loads have one. */
  touched = 0;
  readonly #arena: Pick<Arena, "i32" | "u32">;

  constructor(arena: Pick<Arena, "i32" | "u32">) {
    this.#arena = arena;
  }

  /** A word of every line of a range. */
  range(address: number, byteLength: number): void {
    const { i32 } = this.#arena;
    const end = (address + byteLength) >>> 2;
    for (let word = address >>> 2; word < end; word += LINE_WORDS) this.#touch(i32[word]);
  }

  /** The record that a row names, whose own line should have come by now. */
  recordOf(row: number): void {
    const { i32, u32 } = this.#arena;
    this.#touch(i32[(u32[(row >>> 2) + USER0] ?? 0) >>> 2]);
  }

  #touch(word = 0): void {
    this.touched = (this.touched + word) | 0;
  }
}
