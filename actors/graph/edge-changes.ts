/**
 * What can become of the edges of an adjacency when it is built anew: which stay, and what they carry then.
 *
 * Invariant: all of it is a function of the edge and of copies that were made before, so that an adjacency that is counted and then filled,
 * in slices, is the same both times.
 */
import type { Csr, PeerEdges } from "./csr.ts";

/** Edges that were checked, from vertices of this shard. */
export interface ResolvedEdges {
  readonly count: number;
  readonly rows: Uint32Array;
  readonly peers: Uint32Array;
  readonly targets: Uint32Array;
  /** As many as edges carry, weights first; undefined: every edge weighs 1 and has no properties. */
  readonly columns: readonly Float64Array[] | undefined;
}

/** Which vertices were removed, as copies: of this shard, and of each peer. Undefined: none. */
export interface Removals {
  /** Changes with every removal on any shard. */
  readonly stamp: number;
  readonly rows: Uint8Array | undefined;
  readonly targets: readonly (Uint8Array | undefined)[];
}

/** What a decay does to weights. */
export interface Decay {
  /** Higher than those of the decays before; one that was done is not done again. */
  readonly number: number;
  /** What every weight is multiplied by. */
  readonly factor: number;
  /** An edge goes when its weight, whatever its sign, is less than this. */
  readonly below: number;
}

/** Whether an edge stays. @param at Its place in the adjacency; -1: it is not in it yet */
export type Keeps = (row: number, peer: number, target: number, at: number) => boolean;

/** Changes what an edge carries, at a place of the new columns. @param at Its place in the adjacency so far */
export type Edit = (columns: readonly Float64Array[], filled: number, peer: number, at: number) => void;

/** What becomes of the edges of an adjacency. */
export interface Rebuild {
  readonly keeps: Keeps;
  readonly edit?: Edit;
  readonly decays?: number;
}

/** Where the edges between a pair of vertices are. */
export function* placesOf(csr: Csr, edges: ResolvedEdges, at: number): Generator<number> {
  const row = edges.rows[at] as number;
  if (row >= csr.rows) return;
  const { offsets, targets } = csr.peers[edges.peers[at] as number] as PeerEdges;
  for (let place = offsets[row] as number; place < (offsets[row + 1] as number); place++)
    if (targets[place] === edges.targets[at]) yield place;
}

/** All edges stay. */
export const ALL: Keeps = () => true;

/** Edges stay whose ends are there. */
export function keeper({ rows, targets }: Removals): Keeps {
  return (row, peer, target) => rows?.[row] !== 1 && targets[peer]?.[target] !== 1;
}
