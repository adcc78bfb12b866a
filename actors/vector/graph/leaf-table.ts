/**
 * The leaf table of a graph as the node's own threads use it, in place: made whole, published in the root, and found there.
 *
 * Invariant: the root's version is 0 while its other words change, so who reads the same version before and after them has one table's words.
 * The memory of a table outlives its time in the root (see leaf-layout.ts), so hints may be written to a table that was replaced meanwhile.
 */
import { CELL_HEADER_BYTES } from "../../../native-bridge/cell-layout.ts";
import { ELEMENT, type MetricCode } from "../../../native-bridge/kernels.ts";
import { ACCESS, type AdoptedRegion, type RegionRef } from "../../../native-bridge/region-table.ts";
import { ShardloomError } from "../../../src/errors.ts";
import {
  GRAPH_LEAVES,
  GRAPH_LEAVES_BYTES,
  GRAPH_LEAVES_HOLDER,
  GRAPH_LEAVES_OLD,
  GRAPH_LEAVES_READY,
  GRAPH_LEAVES_RKEY,
  GRAPH_LEAVES_TAKEN,
  GRAPH_LEAVES_VERSION,
  type GraphGeometry,
  PARTITION_MENDED,
  PARTITION_PLACED,
} from "../../../src/store/graph-layout.ts";
import {
  calibrationOffset,
  centroidStride,
  centroidsOffset,
  LEAF_CALIBRATION_BYTES,
  LEAF_CODE_BYTES,
  LEAF_COUNT,
  LEAF_DIMENSIONS,
  LEAF_ELEMENT,
  LEAF_ENTRIES,
  LEAF_LABEL,
  LEAF_LAYOUT,
  LEAF_LAYOUT_WORD,
  LEAF_MAGIC,
  LEAF_MAGIC_WORD,
  LEAF_MEDOID,
  LEAF_MEDOID_DISTANCE,
  LEAF_METRIC,
  LEAF_PREVIOUS,
  LEAF_TRAINED,
  LEAF_VERSION,
  LEAF_VERTICES,
  LEAF_WORDS,
  leafTableBytes,
  MAX_LEAF_VERSION,
} from "../../../src/store/leaf-layout.ts";
import { decodeCalibration, decodeLevelTable } from "../routing/calibration-codec.ts";
import { type CodeHost, type CodeSpace, CodeTable, codeBytes } from "../routing/code-table.ts";
import type { CompassCalibration } from "../routing/compass-calibration.ts";
import type { LevelTable } from "../routing/levels-codec.ts";
import type { GraphRoot } from "./graph-root.ts";

/** What a table is made of. */
export interface LeafContent {
  /** Centroids, one a leaf. */
  readonly centroids: CodeTable;
  readonly labels: Int32Array;
  /** Plain data, as JSON. */
  readonly calibration: Uint8Array;
  /** Vectors of the graph. */
  readonly trained: number;
}

/** Puts a table in the place of the one before. Only by the shard that registered that one, or before there was any. */
export function publishLeaves(root: GraphRoot, content: LeafContent): void {
  const { arena, geometry } = root;
  const { centroids, labels, calibration } = content;
  const byteLength = leafTableBytes(labels.length, geometry.codeBytes, calibration.length);
  const address = arena.allocate(byteLength);
  arena.bytes.fill(0, address, address + byteLength);
  const version = (root.add(GRAPH_LEAVES_TAKEN, 1) % MAX_LEAF_VERSION) + 1;
  writeHeader(root, address, content, version);
  const stride = centroidStride(geometry.codeBytes);
  arena.bytes.copyWithin(
    address + centroidsOffset(labels.length),
    centroids.cells,
    centroids.cells + labels.length * stride,
  );
  arena.bytes.set(calibration, address + calibrationOffset(labels.length, geometry.codeBytes));
  let rkey: number;
  try {
    rkey = registerTable(root, address, byteLength);
  } catch (error) {
    arena.free(address, byteLength);
    throw error;
  }
  const before = currentLeaves(root);
  point(root, { address, length: byteLength, rkey }, version);
  root.set(GRAPH_LEAVES_HOLDER, root.regions.owner);
  if (before !== undefined) setAside(root, before);
}

function writeHeader(root: GraphRoot, address: number, content: LeafContent, version: number): void {
  const { arena, geometry } = root;
  const { labels, calibration, trained } = content;
  const first = (address + CELL_HEADER_BYTES) >>> 2;
  const { i32 } = arena;
  i32[first + LEAF_LAYOUT_WORD] = LEAF_LAYOUT;
  i32[first + LEAF_COUNT] = labels.length;
  i32[first + LEAF_DIMENSIONS] = geometry.dimensions;
  i32[first + LEAF_ELEMENT] = geometry.element;
  i32[first + LEAF_METRIC] = geometry.metric;
  i32[first + LEAF_VERSION] = version;
  i32[first + LEAF_CODE_BYTES] = geometry.codeBytes;
  i32[first + LEAF_CALIBRATION_BYTES] = calibration.length;
  i32[first + LEAF_TRAINED] = trained;
  for (let leaf = 0; leaf < labels.length; leaf++)
    i32[first + LEAF_ENTRIES + leaf * LEAF_WORDS + LEAF_LABEL] = labels[leaf] as number;
  i32[first + LEAF_MAGIC_WORD] = LEAF_MAGIC;
}

/** The region of the table that is there, and its version, as the root's words name it; undefined: none. */
export function currentLeaves(root: GraphRoot): (RegionRef & { readonly version: number }) | undefined {
  const version = root.get(GRAPH_LEAVES_VERSION);
  const address = root.get(GRAPH_LEAVES) >>> 0;
  const length = root.get(GRAPH_LEAVES_BYTES) >>> 0;
  const rkey = root.arena.f64[root.wordOf(GRAPH_LEAVES_RKEY) >>> 1] as number;
  if (version === 0 || root.get(GRAPH_LEAVES_VERSION) !== version) return undefined;
  return { address, length, rkey, version };
}

/** Takes over the table of a dead worker, which is taken out of the regions that were adopted. */
export function adoptLeaves(root: GraphRoot, adopted: Map<number, AdoptedRegion>): void {
  const shard = root.regions.owner;
  const current = currentLeaves(root);
  if (root.get(GRAPH_LEAVES_HOLDER) !== shard || root.get(GRAPH_LEAVES) === 0) return;
  const address = root.get(GRAPH_LEAVES) >>> 0;
  const length = root.get(GRAPH_LEAVES_BYTES) >>> 0;
  const region = adopted.get(address);
  adopted.delete(address);
  if (current === undefined) return; // it died while it replaced the table: the next one takes its place
  const rkey = region?.rkey ?? registerTable(root, address, length);
  point(root, { address, length, rkey }, current.version);
}

/** Takes the table out of the root, when this worker's part of the graph goes and it is the worker's. */
export function dropLeaves(root: GraphRoot): void {
  const current = currentLeaves(root);
  if (current === undefined || root.get(GRAPH_LEAVES_HOLDER) !== root.regions.owner) return;
  root.set(GRAPH_LEAVES_VERSION, 0);
  setAside(root, current);
}

/** After a shard has placed its vertices by a table. @param version Minus that: not all of them, and no more will be. */
export function notePlaced(root: GraphRoot, shard: number, version: number): void {
  root.set(root.partition(shard) + PARTITION_PLACED, version);
}

/** Whether all shards have placed their vertices by a table; undefined: they will not, as one could not. */
export function allPlaced(root: GraphRoot, version: number): boolean | undefined {
  const placed = wordsOfPartitions(root, PARTITION_PLACED);
  return placed.includes(-version) ? undefined : placed.every((by) => by === version);
}

/** After a shard has mended its lists since all had placed their vertices: when it was the last one, says so to everybody. */
export function noteMended(root: GraphRoot, shard: number, version: number): void {
  root.set(root.partition(shard) + PARTITION_MENDED, version);
  if (wordsOfPartitions(root, PARTITION_MENDED).every((by) => by === version)) root.set(GRAPH_LEAVES_READY, version); // publishes
}

/** Until somebody has looked at every vertex of a shard. */
export function forgetPlaced(root: GraphRoot, shard: number): void {
  root.set(root.partition(shard) + PARTITION_PLACED, 0);
  root.set(root.partition(shard) + PARTITION_MENDED, 0);
}

function wordsOfPartitions(root: GraphRoot, word: number): number[] {
  return root.partitionsWithChunks().map((shard) => root.get(root.partition(shard) + word));
}

function setAside(root: GraphRoot, table: RegionRef): void {
  root.regions.deregister(table);
  // Who dies in between leaks the table: it must not be freed twice.
  root.arena.i32[((table.address + CELL_HEADER_BYTES) >>> 2) + LEAF_PREVIOUS] = root.get(GRAPH_LEAVES_OLD);
  root.set(GRAPH_LEAVES_OLD, table.address);
}

function point(root: GraphRoot, table: RegionRef, version: number): void {
  root.set(GRAPH_LEAVES_VERSION, 0); // nobody believes the words below until it is back
  root.set(GRAPH_LEAVES, table.address);
  root.set(GRAPH_LEAVES_BYTES, table.length);
  root.arena.f64[root.wordOf(GRAPH_LEAVES_RKEY) >>> 1] = table.rkey;
  root.set(GRAPH_LEAVES_VERSION, version); // publishes
}

function registerTable({ regions }: GraphRoot, byteOffset: number, byteLength: number): number {
  return regions.register({ byteOffset, byteLength, access: ACCESS.READ, cellStrideBytes: byteLength }).rkey;
}

/** One table in place. */
export class LeafTable {
  readonly version: number;
  /** Vectors that the graph had when the table was made. */
  readonly trained: number;
  readonly count: number;
  /** Over the table's own memory. */
  readonly centroids: CodeTable;
  readonly #host: CodeHost;
  readonly #first: number;
  #labels: number[] | undefined;

  private constructor(root: GraphRoot, host: CodeHost, address: number, version: number) {
    const word = (address + CELL_HEADER_BYTES) >>> 2;
    const { i32 } = root.arena;
    this.version = version;
    this.trained = i32[word + LEAF_TRAINED] as number;
    this.count = i32[word + LEAF_COUNT] as number;
    this.#host = host;
    this.#first = word + LEAF_ENTRIES;
    const space = spaceOfGraph(root.geometry);
    this.centroids = new CodeTable(host, space, this.count, address + centroidsOffset(this.count));
  }

  /** The table that is there now; undefined: none. */
  static open(root: GraphRoot, host: CodeHost): LeafTable | undefined {
    const current = currentLeaves(root);
    return current === undefined ? undefined : new LeafTable(root, host, current.address, current.version);
  }

  /** What was learnt with the table. */
  calibration(): CompassCalibration {
    return decodeCalibration(this.#learnt());
  }

  /** The levels above the leaves; undefined: there are none. */
  levels(): LevelTable | undefined {
    return decodeLevelTable(this.centroids, this.#learnt());
  }

  #learnt(): Uint8Array {
    const { arena } = this.#host;
    const bytes = (arena.i32[this.#first - LEAF_ENTRIES + LEAF_CALIBRATION_BYTES] as number) >>> 0;
    const address = (this.#first - LEAF_ENTRIES) * 4 - CELL_HEADER_BYTES;
    const from = address + calibrationOffset(this.count, codeBytes(this.centroids));
    return arena.bytes.slice(from, from + bytes);
  }

  /** Shards that have leaves, in order. */
  get labels(): number[] {
    this.#labels ??= [...new Set(Array.from({ length: this.count }, (_, leaf) => this.label(leaf)))].sort(
      (a, b) => a - b,
    );
    return this.#labels;
  }

  label(leaf: number): number {
    return this.#host.arena.i32[this.#first + leaf * LEAF_WORDS + LEAF_LABEL] as number;
  }

  /** Vertices of a leaf, as they were counted. */
  vertices(leaf: number): number {
    return Atomics.load(this.#host.arena.i32, this.#first + leaf * LEAF_WORDS + LEAF_VERTICES);
  }

  /** Counts a vertex that came to a leaf, or went. */
  tally(leaf: number, change: 1 | -1): void {
    Atomics.add(this.#host.arena.i32, this.#first + leaf * LEAF_WORDS + LEAF_VERTICES, change);
  }

  /** The vertex where searches for a leaf begin, or −1. */
  medoid(leaf: number): number {
    return Atomics.load(this.#host.arena.i32, this.#first + leaf * LEAF_WORDS + LEAF_MEDOID) - 1;
  }

  /** Makes a vertex its leaf's medoid if it is nearer to the centroid. Of two that come at once either may stay. */
  offerMedoid(leaf: number, vertex: number, distance: number): void {
    const { i32, f32 } = this.#host.arena;
    const word = this.#first + leaf * LEAF_WORDS;
    const known = Atomics.load(i32, word + LEAF_MEDOID) !== 0;
    if (known && !(distance < (f32[word + LEAF_MEDOID_DISTANCE] as number))) return;
    f32[word + LEAF_MEDOID_DISTANCE] = distance;
    Atomics.store(i32, word + LEAF_MEDOID, vertex + 1); // publishes
  }

  /** Puts another vertex in the place of a medoid that goes, or none (−1); any other that is offered later is better. */
  replaceMedoid(leaf: number, vertex: number, by: number): void {
    const { i32, f32 } = this.#host.arena;
    const word = this.#first + leaf * LEAF_WORDS;
    if (Atomics.compareExchange(i32, word + LEAF_MEDOID, vertex + 1, by + 1) === vertex + 1)
      f32[word + LEAF_MEDOID_DISTANCE] = Number.POSITIVE_INFINITY;
  }
}

/** The codes of a graph's vertices, as routing takes them. */
export function spaceOfGraph({ dimensions, metric, element }: GraphGeometry): CodeSpace {
  if (element !== ELEMENT.F32 && element !== ELEMENT.U8)
    throw new ShardloomError("ERR_INTERNAL", `Cannot route codes of element ${element}`);
  return { dimensions, metric: metric as MetricCode, element };
}
