/**
 * The shadow of a collection's root: where a change of an acknowledged row is announced whole before the row is touched.
 *
 * Invariant: while the state is not EMPTY, redoing the announced change from here gives the new row, however far the writer
 * got; while it is EMPTY, the rows are as acknowledged. One change at a time. Behind the root's registered cell.
 */
import { beginWrite, endWrite, isOdd } from "../../native-bridge/cell.ts";
import { CELL_HEADER_BYTES, USER0 } from "../../native-bridge/cell-layout.ts";
import { SHADOW, SHADOW_HEADER_BYTES } from "./collection-layout.ts";
import type { CollectionRoot } from "./collection-root.ts";

const TWO_32 = 2 ** 32;
const STATE = 0;
const ROW = 1;
/** From here the shadow's words are the user words of the row. */
const RECORD = 2;
const USER_WORDS = 5;

export class Shadow {
  readonly #root: Pick<CollectionRoot, "arena" | "shadow">;
  readonly #dimensions: number;

  constructor(root: Pick<CollectionRoot, "arena" | "shadow">, dimensions: number) {
    this.#root = root;
    this.#dimensions = dimensions;
  }

  /** Byte offset of the vector in the shadow, to be filled before {@link announceUpdate}. */
  get vectorOffset(): number {
    return this.#root.shadow + SHADOW_HEADER_BYTES;
  }

  /** From here a crash ends in the new value. */
  announceUpdate(row: number, record: number, version: number, vshard: number, norm: number): void {
    const { i32, f32 } = this.#root.arena;
    const word = this.#root.shadow >>> 2;
    i32[word + ROW] = row;
    i32[word + RECORD] = record;
    i32[word + RECORD + 1] = version | 0;
    i32[word + RECORD + 2] = Math.floor(version / TWO_32);
    i32[word + RECORD + 3] = vshard;
    f32[word + RECORD + 4] = norm;
    Atomics.store(i32, word + STATE, SHADOW.UPDATE);
  }

  /** From here a crash ends in the new address. */
  announceRepoint(row: number, record: number): void {
    const { i32 } = this.#root.arena;
    const word = this.#root.shadow >>> 2;
    i32[word + ROW] = row;
    i32[word + RECORD] = record;
    Atomics.store(i32, word + STATE, SHADOW.REPOINT);
  }

  /** Makes the announced change to its row's cell, then forgets it. Doing it twice is harmless. */
  apply(cell: number): void {
    const { i32, bytes } = this.#root.arena;
    const word = this.#root.shadow >>> 2;
    if (!isOdd(i32, cell)) beginWrite(i32, cell); // odd: the dead writer had begun
    if (i32[word + STATE] === SHADOW.UPDATE) {
      for (let user = 0; user < USER_WORDS; user++) {
        i32[(cell >>> 2) + USER0 + user] = i32[word + RECORD + user] as number;
      }
      const from = this.vectorOffset;
      bytes.copyWithin(cell + CELL_HEADER_BYTES, from, from + this.#dimensions * 4);
    } else i32[(cell >>> 2) + USER0] = i32[word + RECORD] as number;
    endWrite(i32, cell);
    Atomics.store(i32, word + STATE, SHADOW.EMPTY);
  }

  /** After a crash: the row that a change was announced for, or −1. */
  announcedRow(): number {
    const { i32, u32 } = this.#root.arena;
    const word = this.#root.shadow >>> 2;
    return i32[word + STATE] === SHADOW.EMPTY ? -1 : (u32[word + ROW] as number);
  }
}
