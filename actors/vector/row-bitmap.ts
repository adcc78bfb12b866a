/**
 * A set of rows as a bitmap in the arena, where the scan kernel reads it.
 *
 * Invariant: bits at and above the rows ever added are 0, and the bitmap covers every row below `ensure`'s argument.
 * Owner thread only. The block is on the root's list of auxiliary blocks, so a successor frees it after a crash.
 */
import type { Auxiliary, CollectionRoot } from "../../src/store/collection-root.ts";

const MIN_BYTES = 512;

export class RowBitmap {
  readonly #root: CollectionRoot;
  #block: Auxiliary;
  #count = 0;

  private constructor(root: CollectionRoot, block: Auxiliary) {
    this.#root = root;
    this.#block = block;
  }

  static create(root: CollectionRoot, rows: number): RowBitmap {
    return new RowBitmap(root, root.allocateAuxiliary(bytesFor(rows)));
  }

  /** The first bitmap of a root's owner: in a dead worker's block, if there is one. */
  static inherit(root: CollectionRoot, rows: number): RowBitmap {
    return new RowBitmap(root, root.inheritAuxiliary(bytesFor(rows)));
  }

  /** Byte offset of the bitmap; changes when it grows. */
  get address(): number {
    return this.#block.address;
  }

  /** Bytes of the bitmap. */
  get byteLength(): number {
    return this.#block.byteLength;
  }

  /** Rows in the set. */
  get count(): number {
    return this.#count;
  }

  /** Makes room for rows below `rows`. @throws {ShardloomError} `ERR_OUT_OF_MEMORY`. */
  ensure(rows: number): void {
    const byteLength = bytesFor(rows);
    const old = this.#block;
    if (byteLength <= old.byteLength) return;
    this.#block = this.#root.allocateAuxiliary(byteLength);
    this.#root.arena.bytes.copyWithin(this.#block.address, old.address, old.address + old.byteLength);
    this.#root.freeAuxiliary(old.index);
  }

  /** Writes into two words of the root where the bitmap is. @param index Of the first */
  tell(index: number): void {
    const word = this.#root.word(index);
    this.#root.change((u32) => {
      u32[word] = this.address;
      u32[word + 1] = this.byteLength;
    });
  }

  has(row: number): boolean {
    return (((this.#root.arena.u32[this.#word(row)] as number) >>> (row & 31)) & 1) === 1;
  }

  add(row: number): void {
    if (this.has(row)) return;
    const { i32 } = this.#root.arena;
    const word = this.#word(row);
    i32[word] = (i32[word] as number) | (1 << (row & 31));
    this.#count++;
  }

  delete(row: number): void {
    if (!this.has(row)) return;
    const { i32 } = this.#root.arena;
    const word = this.#word(row);
    i32[word] = (i32[word] as number) & ~(1 << (row & 31));
    this.#count--;
  }

  /** Adds or deletes. */
  set(row: number, member: boolean): void {
    if (member) this.add(row);
    else this.delete(row);
  }

  /** The smallest member at or above `row`, or −1. */
  next(row: number): number {
    const { u32 } = this.#root.arena;
    const first = this.#block.address >>> 2;
    const end = this.#block.byteLength >>> 2;
    let index = row >>> 5;
    if (index >= end) return -1;
    let bits = (u32[first + index] as number) & (-1 << (row & 31));
    while (bits === 0) {
      if (++index >= end) return -1;
      bits = u32[first + index] as number;
    }
    return index * 32 + (31 - Math.clz32(bits & -bits));
  }

  free(): void {
    this.#root.freeAuxiliary(this.#block.index);
  }

  #word(row: number): number {
    return (this.#block.address >>> 2) + (row >>> 5);
  }
}

function bytesFor(rows: number): number {
  let bytes = MIN_BYTES;
  while (bytes * 8 < rows) bytes *= 2;
  return bytes;
}
