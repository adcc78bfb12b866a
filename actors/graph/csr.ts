/**
 * Adjacency in compressed sparse rows, in one registered block, split by the shard that owns the other end.
 *
 * ```
 *  words   rows | peers | columns | generation | weighted | decays, then per peer: offsets at | targets at | columns at | edges
 *          (word offsets from the block); per peer: u32 offsets[rows + 1], u32 targets[edges], f64 columns[columns][edges]
 * ```
 * Of a weighted graph the first column are the weights, the others are properties of edges.

 * Targets are local numbers at the peer, ascending in each row, so that a loop reads one peer's array at a time without a division per
 * edge. Invariant: a block is written whole before anybody is told of it, and never changes.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { Block, GraphRoot } from "./graph-root.ts";

const HEADER_WORDS = 6;
const PEER_WORDS = 4;

/** Edges to or from the vertices of one shard. */
export interface PeerEdges {
  readonly offsets: Uint32Array;
  readonly targets: Uint32Array;
  /** Undefined: every edge weighs 1. */
  readonly weights: Float64Array | undefined;
  /** What edges carry, weights among it. */
  readonly columns: readonly Float64Array[];
  readonly edges: number;
}

/** What edges carry. */
export interface EdgeShape {
  readonly weighted: boolean;
  /** Numbers of an edge, its weight among them. */
  readonly columns: number;
}

/** Views of one block. */
export interface Csr extends EdgeShape {
  readonly rows: number;
  /** Of the waiting edges that are in it. */
  readonly generation: number;
  /** The last decay of weights that is in it. */
  readonly decays: number;
  readonly peers: readonly PeerEdges[];
  readonly edges: number;
}

/** Edges with one peer, in any order: `rows[i] → targets[i]`. */
export interface EdgeList {
  readonly rows: Uint32Array;
  readonly targets: Uint32Array;
  readonly columns: readonly Float64Array[];
}

/** Views of the block at an address, which the caller knows to be one. */
export function openCsr(arena: Arena, address: number): Csr {
  const { u32, buffer } = arena;
  const word = address >>> 2;
  const [rows = 0, peerCount = 0, columns = 0, generation = 0, flag = 0, decays = 0] = u32.subarray(
    word,
    word + HEADER_WORDS,
  );
  const weighted = flag === 1;
  let edges = 0;
  const peers = Array.from({ length: peerCount }, (_, peer): PeerEdges => {
    const at = word + HEADER_WORDS + peer * PEER_WORDS;
    const count = u32[at + 3] as number;
    edges += count;
    const byte = (offset: number): number => address + (u32[at + offset] as number) * 4;
    const carried = Array.from(
      { length: columns },
      (_none, column) => new Float64Array(buffer, byte(2) + column * count * 8, count),
    );
    return {
      offsets: new Uint32Array(buffer, byte(0), rows + 1),
      targets: new Uint32Array(buffer, byte(1), count),
      weights: weighted ? carried[0] : undefined,
      columns: carried,
      edges: count,
    };
  });
  return { rows, weighted, columns, generation, decays, peers, edges };
}

/** Allocates a block for rows with this many edges to each peer; what is in it is all zero but for its header. */
export function allocateCsr(
  root: GraphRoot,
  rows: number,
  edges: readonly number[],
  { weighted, columns }: EdgeShape,
  generation = 0,
  decays = 0,
): Block {
  let words = HEADER_WORDS + edges.length * PEER_WORDS;
  const starts: number[][] = edges.map((count) => {
    const offsets = words;
    const targets = offsets + rows + 1;
    const values = (targets + count + 1) & ~1;
    words = columns === 0 ? values : values + 2 * count * columns;
    return [offsets, targets, values, count];
  });
  const block = root.allocate(words * 4);
  const { u32 } = root.arena;
  u32.set([rows, edges.length, columns, generation, weighted ? 1 : 0, decays, ...starts.flat()], block.address >>> 2);
  return block;
}

/** Sorts a list into its place, by row and then by target. Yields now and then. */
export function* fillPeer(to: PeerEdges, list: EdgeList, targetRows: number): Generator<boolean> {
  const count = list.rows.length;
  // By target first, then stably by row: two counting sorts.
  const starts = new Uint32Array(targetRows + 1);
  countInto(starts, list.targets, count);
  yield true;
  const order = new Uint32Array(count);
  for (let from = 0; from < count; from += EDGES_A_SLICE) {
    orderByTarget(order, starts, list.targets, from, Math.min(count, from + EDGES_A_SLICE));
    yield true;
  }
  const { offsets } = to;
  countInto(offsets, list.rows, count);
  yield true;
  for (let from = 0; from < count; from += EDGES_A_SLICE) {
    scatter(to, list, order, from, Math.min(count, from + EDGES_A_SLICE));
    yield true;
  }
  shiftBack(offsets);
}

const EDGES_A_SLICE = 1 << 19;

function orderByTarget(order: Uint32Array, starts: Uint32Array, targets: Uint32Array, from: number, to: number): void {
  for (let at = from; at < to; at++) {
    const target = targets[at] as number;
    const place = starts[target] as number;
    starts[target] = place + 1;
    order[place] = at;
  }
}

/** `starts[key]` becomes the first place of the key's entries. */
function countInto(starts: Uint32Array, keys: Uint32Array, count: number): void {
  tally(starts, keys, count);
  sumUp(starts);
}

function tally(starts: Uint32Array, keys: Uint32Array, count: number): void {
  for (let at = 0; at < count; at++) {
    const key = keys[at] as number;
    starts[key] = (starts[key] as number) + 1;
  }
}

function sumUp(starts: Uint32Array): void {
  let sum = 0;
  for (let key = 0; key < starts.length; key++) {
    const entries = starts[key] as number;
    starts[key] = sum;
    sum += entries;
  }
}

function scatter(
  to: PeerEdges,
  { rows, targets, columns }: EdgeList,
  order: Uint32Array,
  first: number,
  end: number,
): void {
  const { offsets } = to;
  for (let at = first; at < end; at++) {
    const from = order[at] as number;
    const row = rows[from] as number;
    const place = offsets[row] as number;
    offsets[row] = place + 1;
    to.targets[place] = targets[from] as number;
    for (let column = 0; column < columns.length; column++)
      (to.columns[column] as Float64Array)[place] = (columns[column] as Float64Array)[from] as number;
  }
}

/** After a scatter `offsets[row]` is the end of the row, which is the start of the next. */
function shiftBack(offsets: Uint32Array): void {
  for (let row = offsets.length - 1; row > 0; row--) offsets[row] = offsets[row - 1] as number;
  offsets[0] = 0;
}

/** Turns what a peer has towards this shard round. `withoutLoops` leaves out edges of a vertex with itself. */
export function* transposeInto(to: PeerEdges, from: PeerEdges, withoutLoops: boolean): Generator<boolean> {
  const rows = from.offsets.length - 1;
  tally(to.offsets, from.targets, from.edges);
  if (withoutLoops) {
    for (let row = 0; row < rows; row++) to.offsets[row] = (to.offsets[row] as number) - loopsOf(from, row);
  }
  sumUp(to.offsets);
  yield true;
  for (let row = 0; row < rows; row += ROWS_A_SLICE) {
    transposeRows(to, from, row, Math.min(rows, row + ROWS_A_SLICE), withoutLoops);
    yield true;
  }
  shiftBack(to.offsets);
}

/** How many edges each row has, of all peers and all these. */
export function degreesOf(ways: readonly Csr[], rows: number): Uint32Array {
  const degrees = new Uint32Array(rows);
  for (const { peers } of ways)
    for (const { offsets } of peers)
      for (let row = 0; row < rows; row++)
        degrees[row] = (degrees[row] as number) + (offsets[row + 1] as number) - (offsets[row] as number);
  return degrees;
}

/** Edges of vertices with themselves, in what a shard has towards itself. */
export function countLoops(own: PeerEdges): number {
  let loops = 0;
  for (let row = 0; row < own.offsets.length - 1; row++) loops += loopsOf(own, row);
  return loops;
}

function loopsOf({ offsets, targets }: PeerEdges, row: number): number {
  let loops = 0;
  const end = offsets[row + 1] as number;
  for (let at = offsets[row] as number; at < end; at++) if (targets[at] === row) loops++;
  return loops;
}

const ROWS_A_SLICE = 65_536;

function transposeRows(to: PeerEdges, from: PeerEdges, first: number, end: number, withoutLoops: boolean): void {
  const { offsets, targets, columns } = to;
  const source = from.targets;
  for (let row = first; row < end; row++) {
    const last = from.offsets[row + 1] as number;
    for (let at = from.offsets[row] as number; at < last; at++) {
      const vertex = source[at] as number;
      if (withoutLoops && vertex === row) continue;
      const place = offsets[vertex] as number;
      offsets[vertex] = place + 1;
      targets[place] = row;
      for (let column = 0; column < columns.length; column++)
        (columns[column] as Float64Array)[place] = (from.columns[column] as Float64Array)[at] as number;
    }
  }
}
