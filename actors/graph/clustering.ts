/**
 * The local clustering coefficient of vertices: edges among a vertex's neighbours, of those that there could be.
 *
 * Neighbours are those of either direction, each once and without the vertex itself; edges among them count by direction, twice in an
 * undirected graph. Invariant: parallel edges count once, so the coefficient is at most 1.
 */
import type { RunView } from "./algorithm.ts";
import type { Csr, PeerEdges } from "./csr.ts";

/** Marks of one view: which vertices of each shard are neighbours of the vertex at hand, and which were counted for one of them. */
class Marks {
  readonly near: Uint32Array[];
  readonly seen: Uint32Array[];
  stamp = 0;
  counter = 0;

  constructor(rowsOf: readonly number[]) {
    this.near = rowsOf.map((rows) => new Uint32Array(rows));
    this.seen = rowsOf.map((rows) => new Uint32Array(rows));
  }
}

const MARKS: WeakMap<readonly number[], Marks> = new WeakMap();

/** Writes the coefficients of vertices `[from, to)`. */
export function clusteringOf(view: RunView, into: Float64Array, from: number, to: number): void {
  const marks = MARKS.get(view.rowsOf) ?? new Marks(view.rowsOf);
  MARKS.set(view.rowsOf, marks);
  const shards: number[] = [];
  const rows: number[] = [];
  for (let row = from; row < to; row++) {
    shards.length = 0;
    rows.length = 0;
    marks.stamp++;
    const own = view.neighbours[view.shard] as { readonly out: Csr; readonly in: Csr };
    mark(own.out, row, view.shard, marks, shards, rows);
    mark(own.in, row, view.shard, marks, shards, rows);
    let edges = 0;
    for (let at = 0; at < rows.length; at++) {
      marks.counter++;
      const shard = shards[at] as number;
      const near = view.neighbours[shard] as { readonly out: Csr; readonly in: Csr };
      edges += countNear(near.out, rows[at] as number, shard, marks);
      if (!view.directed) edges += countNear(near.in, rows[at] as number, shard, marks);
    }
    into[row] = rows.length < 2 ? 0 : edges / (rows.length * (rows.length - 1));
  }
}

function mark(csr: Csr, row: number, self: number, marks: Marks, shards: number[], rows: number[]): void {
  for (let peer = 0; peer < csr.peers.length; peer++) {
    const { offsets, targets } = csr.peers[peer] as PeerEdges;
    const near = marks.near[peer] as Uint32Array;
    for (let at = offsets[row] as number; at < (offsets[row + 1] as number); at++) {
      const target = targets[at] as number;
      if (near[target] === marks.stamp || (peer === self && target === row)) continue;
      near[target] = marks.stamp;
      shards.push(peer);
      rows.push(target);
    }
  }
}

function countNear(csr: Csr, row: number, self: number, marks: Marks): number {
  let count = 0;
  for (let peer = 0; peer < csr.peers.length; peer++) {
    const { offsets, targets } = csr.peers[peer] as PeerEdges;
    const near = marks.near[peer] as Uint32Array;
    const seen = marks.seen[peer] as Uint32Array;
    const end = offsets[row + 1] as number;
    for (let at = offsets[row] as number; at < end; at++) {
      const target = targets[at] as number;
      if (near[target] !== marks.stamp || seen[target] === marks.counter || (peer === self && target === row)) continue;
      seen[target] = marks.counter;
      count++;
    }
  }
  return count;
}
