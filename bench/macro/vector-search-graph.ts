/**
 * A graph over rows of a table by the writer of a collection's, one row after the other as a shard links them, then taken out of its memory: what
 * the parts of bench `vector-search` that model several shards in one thread search in.
 *
 * Invariant: links are those that `GraphWriter` made; rows name vertices. A search is best-first with a list of `ef`, as the kernels do it,
 * and counts every distance once, those of its entries too.
 */
import { GraphPartition } from "../../actors/vector/graph/graph-partition.ts";
import { GraphRoot } from "../../actors/vector/graph/graph-root.ts";
import { GraphView } from "../../actors/vector/graph/graph-view.ts";
import { GraphWriter } from "../../actors/vector/graph/graph-writer.ts";
import type { Code, CodeTable } from "../../actors/vector/routing/code-table.ts";
import { TopList } from "../../actors/vector/routing/top-list.ts";
import { Arena, createArena } from "../../native-bridge/arena.ts";
import { compileKernels } from "../../native-bridge/kernels.ts";
import { RegionTable } from "../../native-bridge/region-table.ts";
import { Verbs } from "../../native-bridge/verbs.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { VERTEX_DEGREE, VERTEX_NEIGHBOURS } from "../../src/store/graph-layout.ts";
import { arenaBytes } from "./vector-search-data.ts";

const OWNER = 1;
const COLLECTION = 1;
/** Documents are never read here; their addresses tell rows apart. */
const DOCUMENT_BYTES = 16;
/** Room for the root and chunks that are not full. */
const ROOM = 1.25;
const ROOT_BYTES = 1 << 24;

/** Links of some rows of a table. */
export interface PlainGraph {
  readonly degree: number;
  /** Of vertex v: its count of neighbours at `v * (degree + 1)`, then they. */
  readonly links: Int32Array;
  /** Row of each vertex. */
  readonly rows: Int32Array;
  /** Vertices where searches begin. */
  readonly entries: readonly number[];
}

/** What a search found: rows, nearest first. */
export interface PlainResult {
  readonly rows: Int32Array;
  readonly distances: Float64Array;
  /** Distances computed. */
  readonly computed: number;
}

/** Links the given rows of a table. Cost: as that of a bulk load, in this thread. */
export function buildGraph(table: CodeTable, rows: Int32Array, seed: number): PlainGraph {
  const codeBytes = bytesOf(table.vector(0)).length;
  const { dimensions, element, metric } = table;
  const random = createSeededRandom(seed);
  const capacityBytes = arenaBytes(ROOT_BYTES + ROOM * rows.length * (codeBytes + 256));
  const arena = new Arena(createArena({ capacityBytes }));
  const regions = new RegionTable(arena, OWNER, () => random.u32());
  const root = GraphRoot.create(arena, regions, COLLECTION, { dimensions, element, metric });
  const verbs = new Verbs(arena);
  const partition = GraphPartition.create(root, 0, { nowMs: () => performance.now() });
  const writer = new GraphWriter(root, compileKernels(), verbs, OWNER);
  const documents = arena.allocate(Math.max(1, rows.length) * DOCUMENT_BYTES);
  const vertices: number[] = [];
  for (const [at, row] of rows.entries()) {
    const document = { address: documents + at * DOCUMENT_BYTES, incarnation: 0, shard: 0 };
    const vertex = partition.take(document, bytesOf(table.vector(row)), 0);
    if (!writer.insert(vertex)) throw new Error("vector-search bench: a vertex cannot be linked");
    partition.markLinked(vertex);
    vertices.push(vertex);
  }
  return takeOut(arena, verbs, root, vertices, rows);
}

function takeOut(
  arena: Arena,
  verbs: Verbs,
  root: GraphRoot,
  vertices: readonly number[],
  rows: Int32Array,
): PlainGraph {
  const view = new GraphView(arena, verbs);
  const status = view.refresh(root.ref);
  if (status !== 0) throw new Error(`vector-search bench: the graph cannot be read: status ${status}`);
  const { degree } = root.geometry;
  const numbers = new Map(vertices.map((vertex, at) => [vertex, at]));
  const links = new Int32Array(vertices.length * (degree + 1));
  const ref = { address: 0, rkey: 0, length: 0 };
  for (const [at, vertex] of vertices.entries()) {
    if (!view.vertexRef(vertex, ref)) throw new Error("vector-search bench: a vertex has no place");
    const count = arena.i32[(ref.address + VERTEX_DEGREE) >>> 2] as number;
    const first = (ref.address + VERTEX_NEIGHBOURS) >>> 2;
    links[at * (degree + 1)] = count;
    for (let i = 0; i < count; i++)
      links[at * (degree + 1) + 1 + i] = numbers.get(arena.i32[first + i] as number) as number;
  }
  return { degree, links, rows, entries: view.readEntries().map((vertex) => numbers.get(vertex) as number) };
}

/** Searches in one thread; not for two searches at a time. */
export class PlainSearch {
  readonly #graph: PlainGraph;
  readonly #table: CodeTable;
  readonly #seen: Int32Array;
  readonly #done: Int32Array;
  #mark = 0;

  constructor(graph: PlainGraph, table: CodeTable) {
    this.#graph = graph;
    this.#table = table;
    this.#seen = new Int32Array(graph.rows.length);
    this.#done = new Int32Array(graph.rows.length);
  }

  /** @param entries Vertices to begin at. @default the graph's own */
  search(query: Code, ef: number, entries: readonly number[] = this.#graph.entries): PlainResult {
    const { links, degree, rows } = this.#graph;
    const top = new TopList(ef);
    const mark = ++this.#mark;
    let computed = 0;
    this.#table.begin(query);
    const offer = (vertex: number): void => {
      if (this.#seen[vertex] === mark) return;
      this.#seen[vertex] = mark;
      computed++;
      top.offer(vertex, this.#table.score(rows[vertex] as number));
    };
    for (const entry of entries) offer(entry);
    for (let at = this.#next(top); at >= 0; at = this.#next(top)) {
      const vertex = top.ids[at] as number;
      this.#done[vertex] = mark;
      const first = vertex * (degree + 1);
      for (let i = 1; i <= (links[first] as number); i++) offer(links[first + i] as number);
    }
    const found = top.ids.subarray(0, top.count).map((vertex) => rows[vertex] as number);
    return { rows: found, distances: top.distances.subarray(0, top.count), computed };
  }

  /** Place of the nearest that was not expanded yet, or −1. */
  #next(top: TopList): number {
    for (let at = 0; at < top.count; at++) if (this.#done[top.ids[at] as number] !== this.#mark) return at;
    return -1;
  }
}

/** The bytes of a code, in place. */
export function bytesOf(code: Code): Uint8Array {
  return new Uint8Array(code.buffer, code.byteOffset, code.byteLength);
}
