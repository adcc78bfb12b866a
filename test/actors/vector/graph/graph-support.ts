/** What tests of the graph share: rows of documents in an arena, a site with a root and partitions, clusters, an exact scan. */
import { RowDocuments, type RowPlaces } from "../../../../actors/vector/graph/graph-documents.ts";
import { GraphPartition } from "../../../../actors/vector/graph/graph-partition.ts";
import { GraphRoot } from "../../../../actors/vector/graph/graph-root.ts";
import { GraphSearch, type GraphSearchLimits } from "../../../../actors/vector/graph/graph-search.ts";
import { GraphView } from "../../../../actors/vector/graph/graph-view.ts";
import { GraphWriter, type GraphWriterOptions } from "../../../../actors/vector/graph/graph-writer.ts";
import { Arena } from "../../../../native-bridge/arena.ts";
import { beginWrite, bumpIncarnation, endWrite } from "../../../../native-bridge/cell.ts";
import { CELL_HEADER_BYTES, INCARNATION, USER0, USER3, USER4 } from "../../../../native-bridge/cell-layout.ts";
import { compileKernels, ELEMENT, Kernels, METRIC } from "../../../../native-bridge/kernels.ts";
import { ACCESS, type RegionRef, RegionTable } from "../../../../native-bridge/region-table.ts";
import { STATUS } from "../../../../native-bridge/status.ts";
import { Verbs } from "../../../../native-bridge/verbs.ts";
import { rowStride } from "../../../../src/store/collection-layout.ts";
import {
  GRAPH_TREE_ROOT,
  type GraphShape,
  VERTEX_FLAG,
  VERTEX_FLAG_BITS,
  VERTEX_NEIGHBOURS,
} from "../../../../src/store/graph-layout.ts";
import { generator } from "../../../native-bridge/memory-support.ts";

export const MODULE: WebAssembly.Module = compileKernels();

/** Rows of one shard: cells as a VectorStore has them. Document i is row i. */
export class Rows {
  readonly #arena: Arena;
  readonly #stride: number;
  readonly ref: RegionRef;
  readonly dimensions: number;

  private constructor(arena: Arena, ref: RegionRef, dimensions: number) {
    this.#arena = arena;
    this.ref = ref;
    this.dimensions = dimensions;
    this.#stride = rowStride(dimensions);
  }

  /** @param count A power of two. */
  static create(arena: Arena, regions: RegionTable, dimensions: number, count: number): Rows {
    const stride = rowStride(dimensions);
    const byteOffset = arena.allocate(stride * count);
    const options = { byteOffset, byteLength: stride * count, access: ACCESS.READ, cellStrideBytes: stride };
    return new Rows(arena, regions.register(options), dimensions);
  }

  static open(arena: Arena, ref: RegionRef, dimensions: number): Rows {
    return new Rows(arena, ref, dimensions);
  }

  get places(): RowPlaces {
    const baseShift = Math.log2(this.ref.length / this.#stride);
    const geometry = { stride: this.#stride, baseShift, doublings: 0 };
    return { geometry, chunkAddresses: [this.ref.address], chunkRkeys: [this.ref.rkey] };
  }

  addressOf(row: number): number {
    return this.ref.address + row * this.#stride;
  }

  rowOf(address: number): number {
    return (address - this.ref.address) / this.#stride;
  }

  incarnationOf(row: number): number {
    return this.#arena.i32[(this.addressOf(row) >>> 2) + INCARNATION] as number;
  }

  isThere(row: number): boolean {
    return Atomics.load(this.#arena.i32, (this.addressOf(row) >>> 2) + USER0) !== 0;
  }

  /** Incarnation of a row that is free at one moment; undefined when it is not, or is being written. */
  freeIncarnation(row: number): number | undefined {
    const cell = this.addressOf(row);
    const { i32 } = this.#arena;
    const version = Atomics.load(i32, cell >>> 2);
    const incarnation = this.isThere(row) ? undefined : this.incarnationOf(row);
    return (version & 1) === 0 && Atomics.load(i32, cell >>> 2) === version ? incarnation : undefined;
  }

  /** Writes a new document, or over the one that is there. */
  put(row: number, vector: Float32Array): void {
    const cell = this.addressOf(row);
    const { i32, f32 } = this.#arena;
    beginWrite(i32, cell);
    if (i32[(cell >>> 2) + USER0] === 0) bumpIncarnation(i32, cell);
    f32.set(vector, (cell + CELL_HEADER_BYTES) >>> 2);
    f32[(cell >>> 2) + USER4] = 1 / Math.hypot(...vector);
    i32[(cell >>> 2) + USER0] = 1;
    endWrite(i32, cell);
  }

  remove(row: number): void {
    const cell = this.addressOf(row);
    const { i32 } = this.#arena;
    beginWrite(i32, cell);
    bumpIncarnation(i32, cell);
    i32[(cell >>> 2) + USER0] = 0;
    endWrite(i32, cell);
  }

  squaredDistance(row: number, query: Float32Array): number {
    const first = (this.addressOf(row) + CELL_HEADER_BYTES) >>> 2;
    let sum = 0;
    for (let at = 0; at < query.length; at++)
      sum += ((this.#arena.f32[first + at] as number) - (query[at] as number)) ** 2;
    return sum;
  }

  vector(row: number): Float32Array {
    const first = (this.addressOf(row) + CELL_HEADER_BYTES) >>> 2;
    return this.#arena.f32.slice(first, first + this.dimensions);
  }
}

/** One thread's hands on an arena with rows and a graph. */
export class Site {
  readonly arena: Arena;
  readonly regions: RegionTable;
  readonly verbs: Verbs;
  readonly root: GraphRoot;
  readonly rows: Rows;
  readonly owner: number;
  nowMs: () => number = () => performance.now();

  constructor(arena: Arena, owner: number, make: (regions: RegionTable) => { root: GraphRoot; rows: Rows }) {
    this.arena = arena;
    this.owner = owner;
    this.regions = new RegionTable(arena, owner, generator(owner * 7919 + 13));
    this.verbs = new Verbs(arena);
    const { root, rows } = make(this.regions);
    this.root = root;
    this.rows = rows;
  }

  static create(arena: Arena, shape: GraphShape, documents: number, owner = 1): Site {
    return new Site(arena, owner, (regions) => ({
      root: GraphRoot.create(arena, regions, 1, shape),
      // Another worker's, which does not die.
      rows: Rows.create(arena, new RegionTable(arena, 1000, generator(3)), shape.dimensions, documents),
    }));
  }

  static open(memory: WebAssembly.Memory, root: RegionRef, rows: RegionRef, owner: number): Site {
    const arena = new Arena(memory);
    return new Site(arena, owner, (regions) => {
      const opened = GraphRoot.open(arena, regions, root);
      return { root: opened, rows: Rows.open(arena, rows, opened.geometry.dimensions) };
    });
  }

  partition(number = 0, graceMs = 0): GraphPartition {
    return GraphPartition.create(this.root, number, { nowMs: () => this.nowMs(), graceMs });
  }

  writer(options: GraphWriterOptions = {}, owner = this.owner): GraphWriter {
    return new GraphWriter(this.root, MODULE, this.verbs, owner, options);
  }

  search(owner?: number): GraphSearch {
    const kernels = new Kernels(MODULE, this.arena);
    const { metric } = this.root.geometry;
    const documents = new RowDocuments(this.arena, this.verbs, kernels, metric, () => this.rows.places);
    return new GraphSearch(this.arena, this.verbs, MODULE, documents, owner);
  }

  /** Takes a vertex for a row that is there, its components as the code. */
  take(partition: GraphPartition, row: number): number {
    return partition.take(
      { address: this.rows.addressOf(row), incarnation: this.rows.incarnationOf(row), shard: 0 },
      this.codeOf(this.rows.vector(row)),
      this.normOf(row),
    );
  }

  codeOf(vector: Float32Array): Uint8Array {
    return this.root.geometry.element === ELEMENT.U8
      ? Uint8Array.from(vector)
      : new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
  }

  normOf(row: number): number {
    if (this.root.geometry.metric !== METRIC.COSINE) return 0;
    return 1 / Math.hypot(...this.rows.vector(row));
  }

  /** Rows that a search finds. */
  find(search: GraphSearch, vector: Float32Array, k: number, limits: GraphSearchLimits = {}): number[] {
    const result = search.search(this.root.ref, { code: this.codeOf(vector), vector }, k, limits);
    if (result.status !== 0) throw new Error(`search ended in status ${result.status}`);
    return result.hits.map(({ address }) => this.rows.rowOf(address));
  }
}

/** Linked vertices to which nothing leads that the root of the tree leads to. */
export function unreached(site: Site): number[] {
  const view = new GraphView(site.arena, site.verbs);
  if (view.refresh(site.root.ref) !== STATUS.SUCCESS) throw new Error("the graph cannot be read");
  const { chunkShift, stride, degree } = site.root.geometry;
  const { i32 } = site.arena;
  const wordOf = (vertex: number): number => {
    const address = view.chunks[vertex >>> chunkShift]?.address ?? 0;
    return address === 0 ? 0 : (address + (vertex & ((1 << chunkShift) - 1)) * stride) >>> 2;
  };
  const reached = new Set([site.root.get(GRAPH_TREE_ROOT) - 1]);
  for (const vertex of reached) {
    const word = wordOf(vertex);
    if (word === 0) continue;
    const first = word + VERTEX_NEIGHBOURS / 4;
    const count = Math.min(degree, Math.max(0, i32[first - 1] as number));
    for (const neighbour of i32.subarray(first, first + count)) reached.add(neighbour);
  }
  const vertices = view.chunks.flatMap((_, chunk) =>
    Array.from({ length: 1 << chunkShift }, (_, slot) => (chunk << chunkShift) | slot),
  );
  return vertices.filter((vertex) => {
    const word = wordOf(vertex);
    const flags = (i32[word + USER3] as number) & VERTEX_FLAG_BITS;
    return word !== 0 && i32[word + USER0] !== 0 && flags === VERTEX_FLAG.LINKED && !reached.has(vertex);
  });
}

/** Byte vectors around random centres; the same seed gives the same centres. */
export function clusters(seed: number, dimensions: number, centres = 40): () => Float32Array {
  const random = generator(seed);
  const unit = (): number => random() / 2 ** 32;
  const middle = Array.from({ length: centres }, () => Array.from({ length: dimensions }, () => 40 + unit() * 176));
  return () => {
    const centre = middle[random() % centres] as number[];
    return Float32Array.from(centre, (value) =>
      Math.round(Math.min(255, Math.max(0, value + (unit() + unit() - 1) * 60))),
    );
  };
}

/** Share of the exact k nearest that were found. Equal distances count as found. */
export function recallOf(rows: Rows, count: number, query: Float32Array, found: readonly number[], k: number): number {
  const distance = (row: number): number => rows.squaredDistance(row, query);
  const all = Array.from({ length: count }, (_, row) => row).filter((row) => rows.isThere(row));
  const nearest = all.map(distance).sort((a, b) => a - b);
  const worst = nearest[Math.min(k, nearest.length) - 1] as number;
  return found.filter((row) => distance(row) <= worst).length / Math.min(k, nearest.length);
}
