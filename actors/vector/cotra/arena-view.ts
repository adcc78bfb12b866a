/**
 * What one shard of a node sees of the graph in the node's memory: the vertices of its own partition, and those of others as long as their
 * regions are the ones that it knows.
 *
 * Invariant: a vertex belongs to the partition of its chunk, and chunks to shards of this node. A read of another partition counts only when
 * the stamps of its chunks are the same after it as before; otherwise it is not exposed, and its owner has to be asked. The own partition is
 * read wherever its chunks lie: whoever registered them, the shard serves them. One thread only.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { USER0, USER3 } from "../../../native-bridge/cell-layout.ts";
import type { KernelChunk } from "../../../native-bridge/graph-kernels.ts";
import type { RegionRef } from "../../../native-bridge/region-layout.ts";
import { STATUS } from "../../../native-bridge/status.ts";
import type { Verbs } from "../../../native-bridge/verbs.ts";
import { type GraphGeometry, VERTEX_DEGREE, VERTEX_NEIGHBOURS } from "../../../src/store/graph-layout.ts";
import { GraphView as ChunkTable } from "../graph/graph-view.ts";
import { type GraphView, NO_PARTITION, NOT_EXPOSED } from "./graph-view.ts";
import type { Pairs } from "./message-bytes.ts";
import { MOST_RECORDS, type RecordDistances } from "./record-distances.ts";

/** What a view reads with. */
export interface ArenaViewOptions {
  readonly self: number;
  readonly arena: Arena;
  readonly verbs: Verbs;
  readonly distances: RecordDistances;
  /** Root of the graph, as its collection knows it now. */
  readonly root: () => RegionRef | undefined;
  /** Whether a number is that of a shard of this node: others cannot own what lies in its memory. */
  readonly isShard: (partition: number) => boolean;
}

export class ArenaView implements GraphView {
  readonly self: number;
  readonly #options: ArenaViewOptions;
  readonly #table: ChunkTable;
  readonly #records: Uint32Array = new Uint32Array(MOST_RECORDS);
  readonly #places: Int32Array = new Int32Array(MOST_RECORDS);
  readonly #computed: Float64Array = new Float64Array(MOST_RECORDS);
  #chunks: readonly KernelChunk[] = [];

  constructor(options: ArenaViewOptions) {
    this.self = options.self;
    this.#options = options;
    this.#table = new ChunkTable(options.arena, options.verbs);
  }

  get codeBytes(): number {
    return this.#table.geometry?.codeBytes ?? 0;
  }

  get adjacencyBytes(): number {
    return 4 + this.maxDegree * 4;
  }

  get maxDegree(): number {
    return this.#table.geometry?.degree ?? 0;
  }

  /** Shape of the graph, once it is known. */
  get geometry(): GraphGeometry | undefined {
    return this.#table.geometry;
  }

  /** Partitions that have chunks. */
  get partitions(): number {
    const known = new Set(this.#chunks.filter(({ address }) => address !== 0).map(({ partition }) => partition));
    return known.size;
  }

  /** Looks which chunks there are now. @returns Whether there is a graph; without one no vertex is known. */
  refresh(): boolean {
    const known = this.#table.refresh(this.#options.root(), true) === STATUS.SUCCESS;
    this.#chunks = known ? this.#table.chunks : [];
    return known;
  }

  /** Grows whenever there are other chunks. */
  get generation(): number {
    return this.#table.generation;
  }

  /** Vertices that stand for documents, spread evenly over all chunks. @param share One of so many slots is looked at */
  spread(share: number, most: number): Int32Array {
    const slots = 1 << (this.#table.geometry?.chunkShift ?? 0);
    const step = Math.max(share, Math.ceil((this.#chunks.length * slots) / most));
    const found: number[] = [];
    for (let vertex = 0; vertex < this.#chunks.length * slots; vertex += step)
      if (this.usedRecordOf(vertex) !== 0) found.push(vertex);
    return Int32Array.from(found);
  }

  /** Vertices that partitions offer as entries, each once. */
  offered(): Int32Array {
    return Int32Array.from(new Set(this.#table.readEntries()));
  }

  /** Landmarks of the graph; another array whenever they are others. */
  landmarks(): readonly number[] {
    return this.#table.readLandmarks();
  }

  /** The nearest of some vertices, with their distances: read by this thread wherever they lie, as what leads a search may be wrong. */
  nearest(query: Uint8Array, vertices: Int32Array, most: number): Pairs {
    const distances = new Float64Array(vertices.length);
    this.#compute(query, vertices, vertices.length, distances);
    const ranked = [...vertices.keys()].filter((at) => Number.isFinite(Math.fround(distances[at] as number)));
    ranked.sort((a, b) => (distances[a] as number) - (distances[b] as number));
    const kept = ranked.slice(0, most);
    return {
      vertices: Int32Array.from(kept, (at) => vertices[at] as number),
      distances: Float32Array.from(kept, (at) => distances[at] as number),
    };
  }

  partitionOf(vertex: number): number {
    const chunk = this.#chunkOf(vertex);
    return chunk === undefined || !this.#options.isShard(chunk.partition) ? NO_PARTITION : chunk.partition;
  }

  neighbours(vertex: number, out: Int32Array): number {
    const record = this.#recordOf(vertex);
    if (record === 0) return 0;
    const { i32 } = this.#options.arena;
    const most = this.maxDegree;
    const degree = Math.max(0, Math.min(most, Atomics.load(i32, (record + VERTEX_DEGREE) >>> 2))); // acquires
    const first = (record + VERTEX_NEIGHBOURS) >>> 2;
    for (let at = 0; at < degree; at++) out[at] = i32[first + at] as number;
    return degree;
  }

  distances(query: Uint8Array, vertices: Int32Array, count: number, out: Float64Array): void {
    this.#compute(query, vertices, count, out);
  }

  pull(query: Uint8Array, _partition: number, vertices: Int32Array, count: number, out: Float64Array): number {
    if (!this.#areExposed(vertices, count)) return NOT_EXPOSED;
    this.#compute(query, vertices, count, out);
    return this.#areExposed(vertices, count) ? count : NOT_EXPOSED;
  }

  pullNeighbours(vertex: number, out: Int32Array): number {
    if (!this.#isExposed(vertex)) return NOT_EXPOSED;
    const count = this.neighbours(vertex, out);
    return this.#isExposed(vertex) ? count : NOT_EXPOSED;
  }

  /** Byte offset of a vertex that stands for a document, else 0. */
  usedRecordOf(vertex: number): number {
    const record = this.#recordOf(vertex);
    // Acquires: a vertex that has a document has its code.
    return record === 0 || Atomics.load(this.#options.arena.i32, (record >>> 2) + USER0) === 0 ? 0 : record;
  }

  /** Its word of flags, 0 when it stands for no document. */
  flagsOf(vertex: number): number {
    const record = this.usedRecordOf(vertex);
    return record === 0 ? 0 : (this.#options.arena.i32[(record >>> 2) + USER3] as number);
  }

  #compute(query: Uint8Array, vertices: Int32Array, count: number, out: Float64Array): void {
    const { geometry } = this.#table;
    const { distances } = this.#options;
    let batch = 0;
    const flush = (): void => {
      if (geometry === undefined || batch === 0) return;
      distances.compute(geometry, query, this.#records, batch, this.#computed);
      for (let at = 0; at < batch; at++) out[this.#places[at] as number] = this.#computed[at] as number;
      batch = 0;
    };
    for (let at = 0; at < count; at++) {
      const record = this.usedRecordOf(vertices[at] as number);
      out[at] = Number.NaN;
      if (record === 0) continue;
      this.#records[batch] = record;
      this.#places[batch++] = at;
      if (batch === MOST_RECORDS) flush();
    }
    flush();
  }

  #areExposed(vertices: Int32Array, count: number): boolean {
    for (let at = 0; at < count; at++) if (!this.#isExposed(vertices[at] as number)) return false;
    return true;
  }

  #isExposed(vertex: number): boolean {
    const chunk = this.#chunkOf(vertex);
    if (chunk === undefined || chunk.stampAddress === 0) return false;
    return Atomics.load(this.#options.arena.i32, chunk.stampAddress >>> 2) === chunk.stamp; // acquires
  }

  #chunkOf(vertex: number): KernelChunk | undefined {
    const { geometry } = this.#table;
    if (geometry === undefined || vertex < 0) return undefined;
    const chunk = this.#chunks[vertex >>> geometry.chunkShift];
    return chunk === undefined || chunk.address === 0 ? undefined : chunk;
  }

  #recordOf(vertex: number): number {
    const { geometry } = this.#table;
    const chunk = this.#chunkOf(vertex);
    if (chunk === undefined || geometry === undefined) return 0;
    return chunk.address + (vertex & ((1 << geometry.chunkShift) - 1)) * geometry.stride;
  }
}
