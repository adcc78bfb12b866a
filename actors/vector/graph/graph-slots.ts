/**
 * The chunks of one partition and the slots in them: what vertices are where, and which slot is next for a label.
 *
 * Invariant: a slot is handed out once until it is given back, and always in a chunk of the label that was asked for. Owner thread only.
 */
import type { GraphChunk, GraphRoot } from "./graph-root.ts";

/** Slots of one label. */
interface OpenChunk {
  chunk: GraphChunk | undefined;
  /** Slots of the chunk at or above this were never used. */
  used: number;
  /** Slots of all chunks of the label that are free again. */
  readonly free: number[];
}

export class GraphSlots {
  readonly #root: GraphRoot;
  readonly #partition: number;
  readonly #chunks: GraphChunk[] = [];
  /** By chunk number. */
  readonly #addresses: number[] = [];
  readonly #labels: number[] = [];
  readonly #open: Map<number, OpenChunk> = new Map();

  constructor(root: GraphRoot, partition: number) {
    this.#root = root;
    this.#partition = partition;
  }

  /** Slots of all chunks, used or not. */
  get count(): number {
    return this.#chunks.length << this.#root.geometry.chunkShift;
  }

  /** Bytes of all chunks. */
  get bytes(): number {
    return this.#chunks.reduce((sum, { length }) => sum + length, 0);
  }

  /**
   * A slot in a chunk of a label.
   *
   * @param rested Slots that may be taken again since the last call.
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY`, `ERR_REGION_TABLE_FULL`.
   */
  take(label: number, rested: () => readonly number[] | undefined): number {
    const open = this.#openChunk(label);
    if (open.free.length === 0)
      for (const vertex of rested() ?? []) this.#openChunk(this.labelOf(vertex)).free.push(vertex);
    const reused = open.free.pop();
    if (reused !== undefined) return reused;
    const { chunkShift } = this.#root.geometry;
    if (open.chunk === undefined || open.used === 1 << chunkShift) {
      open.chunk = this.#root.allocateChunk(this.#partition, label);
      this.add(open.chunk);
      open.used = 0;
    }
    return ((open.chunk.number << chunkShift) | open.used++) >>> 0;
  }

  /** Takes a chunk in whose slots are given back one by one. */
  add(chunk: GraphChunk): void {
    this.#chunks.push(chunk);
    this.#addresses[chunk.number] = chunk.address;
    this.#labels[chunk.number] = chunk.label;
  }

  /** Forgets all chunks. @returns them */
  clear(): GraphChunk[] {
    this.#addresses.length = this.#labels.length = 0;
    this.#open.clear();
    return this.#chunks.splice(0);
  }

  /** Byte offset of a vertex of this partition, 0 for another's. */
  addressOf(vertex: number): number {
    const { chunkShift, stride } = this.#root.geometry;
    const address = this.#addresses[vertex >>> chunkShift];
    return address === undefined ? 0 : address + (vertex & ((1 << chunkShift) - 1)) * stride;
  }

  /** Label of a vertex of this partition. */
  labelOf(vertex: number): number {
    return this.#labels[vertex >>> this.#root.geometry.chunkShift] ?? this.#partition;
  }

  /** The vertex at an index over all slots. */
  at(index: number): number {
    const { chunkShift } = this.#root.geometry;
    const { number } = this.#chunks[index >>> chunkShift] as GraphChunk;
    return ((number << chunkShift) | (index & ((1 << chunkShift) - 1))) >>> 0;
  }

  *[Symbol.iterator](): Generator<number> {
    for (let index = 0; index < this.count; index++) yield this.at(index);
  }

  #openChunk(label: number): OpenChunk {
    let open = this.#open.get(label);
    if (open === undefined) {
      open = { chunk: undefined, used: 0, free: [] };
      this.#open.set(label, open);
    }
    return open;
  }
}
