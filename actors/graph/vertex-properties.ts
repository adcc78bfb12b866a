/**
 * What the vertices of one shard carry, by name: a registered column of float64 for each property, and one heap for all text.
 *
 * ```
 *  column   f64 by local number; NaN: none. Of text: where it begins in the heap
 *  heap     u32 byte length | UTF-8, padded to 4
 * ```
 * Invariant: a list of values is taken whole or not at all; text is written before a column names it. Text that is replaced by longer text
 * keeps its room until the graph is dropped.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { PropertyKind } from "./graph-options.ts";
import { type GraphRoot, ROOT_WORD } from "./graph-root.ts";

const FIRST_ROWS = 256;
const FIRST_HEAP_BYTES = 4096;
/** Most bytes of one text, as UTF-8. */
export const MAX_TEXT_BYTES = 4096;

/** A value of a vertex. */
export type PropertyValue = number | string;

/** Values of some rows, by property: `null` takes a value away, `undefined` leaves it. */
export interface PropertyColumns {
  readonly [name: string]: readonly (PropertyValue | null | undefined)[];
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class VertexProperties {
  readonly names: readonly string[];
  readonly #kinds: readonly PropertyKind[];
  readonly #root: GraphRoot;

  constructor(root: GraphRoot, kinds: Readonly<Record<string, PropertyKind>>) {
    this.#root = root;
    this.names = Object.keys(kinds);
    this.#kinds = Object.values(kinds);
  }

  /** Where a property is among {@link names}. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for one that the graph does not have. */
  place(name: string): number {
    const place = this.names.indexOf(name);
    if (place >= 0) return place;
    throw invalidArgument("use properties", "property", `one of ${this.names.join(", ")}`, name);
  }

  /** A value of a row; undefined: it has none. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a name that the graph does not have. */
  get(row: number, name: string): PropertyValue | undefined {
    const place = this.place(name);
    const column = this.#column(place);
    const value = column === undefined || row >= column.length ? Number.NaN : (column[row] as number);
    if (Number.isNaN(value)) return undefined;
    return this.#kinds[place] === "text" ? this.#textAt(value) : value;
  }

  /**
   * Sets values of rows.
   *
   * @param rows The row of each value; a column is as long.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` with name and place, `ERR_OUT_OF_MEMORY`; then nothing has changed.
   */
  set(rows: readonly number[], columns: PropertyColumns): void {
    const texts = new Map<string, readonly (Uint8Array | undefined)[]>();
    let textBytes = 0;
    for (const [name, values] of Object.entries(columns)) {
      const encoded = this.#check(name, values, rows.length);
      texts.set(name, encoded);
      for (const text of encoded) textBytes += text === undefined ? 0 : 4 + ((text.length + 3) & ~3);
    }
    this.#reserve(
      rows.reduce((most, row) => Math.max(most, row + 1), 0),
      Object.keys(columns),
      textBytes,
    );
    for (const [name, values] of Object.entries(columns)) {
      const column = this.#column(this.place(name)) as Float64Array;
      for (const [at, value] of values.entries()) {
        const text = texts.get(name)?.[at];
        if (value === undefined) continue;
        column[rows[at] as number] = text === undefined ? ((value ?? Number.NaN) as number) : this.#write(text);
      }
    }
  }

  /** @returns texts as bytes */
  #check(name: string, values: PropertyColumns[string], count: number): (Uint8Array | undefined)[] {
    const kind = this.#kinds[this.place(name)];
    if (values.length !== count)
      throw invalidArgument("set properties", name, `of one length, ${count}`, values.length);
    return values.map((value, at) => {
      if (value === null || value === undefined) return undefined;
      const what = `${name} of vertex ${at}`;
      if (kind === "number") {
        if (Number.isFinite(value)) return undefined;
        throw invalidArgument("set properties", what, "a finite number", value);
      }
      const bytes = typeof value === "string" ? encoder.encode(value) : undefined;
      if (bytes !== undefined && bytes.length <= MAX_TEXT_BYTES) return bytes;
      throw invalidArgument("set properties", what, `text of at most ${MAX_TEXT_BYTES} bytes`, value);
    });
  }

  #column(place: number): Float64Array | undefined {
    const block = this.#root.block(ROOT_WORD.properties + 2 * place);
    return block && new Float64Array(this.#root.arena.buffer, block.address, block.byteLength / 8);
  }

  #textAt(offset: number): string {
    const address = this.#root.block(ROOT_WORD.text)?.address;
    if (address === undefined) throw new ShardloomError("ERR_CORRUPT", "Cannot read property as its text is not there");
    const { bytes, u32 } = this.#root.arena;
    const from = address + offset + 4;
    return decoder.decode(bytes.slice(from, from + (u32[(address + offset) >>> 2] as number)));
  }

  /** Room is there. @returns where it begins */
  #write(text: Uint8Array): number {
    const root = this.#root;
    const offset = root.get(ROOT_WORD.textUsed);
    const address = (root.block(ROOT_WORD.text)?.address as number) + offset;
    root.arena.u32[address >>> 2] = text.length;
    root.arena.bytes.set(text, address + 4);
    root.set(ROOT_WORD.textUsed, offset + 4 + ((text.length + 3) & ~3));
    return offset;
  }

  /** Each block is copied before it is named, so that what is there stays whatever fails. */
  #reserve(rows: number, names: readonly string[], textBytes: number): void {
    const root = this.#root;
    for (const name of names) {
      const place = this.place(name);
      const old = this.#column(place);
      if (old !== undefined && old.length >= rows) continue;
      const block = root.allocate(grownTo(old?.length ?? FIRST_ROWS, rows) * 8);
      const column = new Float64Array(root.arena.buffer, block.address, block.byteLength / 8).fill(Number.NaN);
      if (old !== undefined) column.set(old);
      const before = root.name(ROOT_WORD.properties + 2 * place, block);
      if (before !== undefined) root.release(before);
    }
    const heap = root.block(ROOT_WORD.text);
    const wanted = root.get(ROOT_WORD.textUsed) + textBytes;
    if (textBytes === 0 || (heap?.byteLength ?? 0) >= wanted) return;
    const block = root.allocate(grownTo(heap?.byteLength ?? FIRST_HEAP_BYTES, wanted));
    if (heap !== undefined) root.arena.bytes.copyWithin(block.address, heap.address, heap.address + heap.byteLength);
    root.name(ROOT_WORD.text, block);
    if (heap !== undefined) root.release(heap);
  }
}

function grownTo(from: number, wanted: number): number {
  let size = from;
  while (size < wanted) size *= 2;
  return size;
}
