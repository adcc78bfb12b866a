/**
 * Rows of a peer's adjacency, as they come in messages: for algorithms that look at their neighbours' edges and may not read them in place.
 *
 * On the way an edge is a value and a vertex: the shard and number of its far end as one number, and the row. Invariant: once a peer has sent
 * all, the rows that it has sent are whole; the others are empty.
 */
import type { Csr, PeerEdges } from "./csr.ts";

const SHARD = 2 ** 32;
const FIRST_EDGES = 1024;

/** The far end of an edge as a value. */
function endValue(shard: number, vertex: number): number {
  return shard * SHARD + vertex;
}

/** Edges of one peer. */
export class MirroredRows {
  #rows: Uint32Array = new Uint32Array(FIRST_EDGES);
  #ends: Float64Array = new Float64Array(FIRST_EDGES);
  #count = 0;

  /** Takes the edges of one message. @returns false when one has no such row */
  take(
    rows: number,
    f64: Float64Array,
    valueAt: number,
    words: Uint32Array | Int32Array,
    vertexAt: number,
    count: number,
  ): boolean {
    this.#reserve(this.#count + count);
    for (let at = 0; at < count; at++) {
      const row = words[vertexAt + at] as number;
      if (!(row >= 0 && row < rows)) return false;
      this.#rows[this.#count] = row;
      this.#ends[this.#count++] = f64[valueAt + at] as number;
    }
    return true;
  }

  /** @param rows Vertices of the peer; @param shards Number of shards. */
  toCsr(rows: number, shards: number): Csr {
    const peers = Array.from({ length: shards }, (_, shard) => this.#edgesTo(shard, rows));
    return { rows, weighted: false, columns: 0, generation: 0, decays: 0, peers, edges: this.#count };
  }

  #edgesTo(shard: number, rows: number): PeerEdges {
    const offsets = new Uint32Array(rows + 1);
    const least = endValue(shard, 0);
    const mine = (at: number): boolean => {
      const end = this.#ends[at] as number;
      return end >= least && end < least + SHARD;
    };
    for (let at = 0; at < this.#count; at++) {
      const row = this.#rows[at] as number;
      if (mine(at)) offsets[row + 1] = (offsets[row + 1] as number) + 1;
    }
    for (let row = 0; row < rows; row++) offsets[row + 1] = (offsets[row + 1] as number) + (offsets[row] as number);
    const targets = new Uint32Array(offsets[rows] as number);
    const places = offsets.slice();
    for (let at = 0; at < this.#count; at++) {
      if (!mine(at)) continue;
      const row = this.#rows[at] as number;
      const place = places[row] as number;
      places[row] = place + 1;
      targets[place] = (this.#ends[at] as number) - least;
    }
    return { offsets, targets, weights: undefined, columns: [], edges: targets.length };
  }

  #reserve(edges: number): void {
    if (edges <= this.#rows.length) return;
    const size = Math.max(edges, 2 * this.#rows.length);
    const [rows, ends] = [new Uint32Array(size), new Float64Array(size)]; // both, or none
    rows.set(this.#rows);
    ends.set(this.#ends);
    this.#rows = rows;
    this.#ends = ends;
  }
}

/**
 * The edges of all rows that have an edge with a peer, as values and vertices.
 *
 * @param ways Whose edges count.
 * @param links Adjacency that says which rows the peer needs.
 */
export function* mirroredEdges(
  ways: readonly Csr[],
  links: readonly Csr[],
  peer: number,
  values: Float64Array,
  vertices: Uint32Array,
): Generator<number, undefined> {
  let count = 0;
  const rows = ways[0]?.rows ?? 0;
  for (let row = 0; row < rows; row++) {
    if (!links.some(({ peers }) => degreeOf(peers[peer] as PeerEdges, row) > 0)) continue;
    for (const { peers } of ways) {
      for (const [shard, { offsets, targets }] of peers.entries()) {
        for (let at = offsets[row] as number; at < (offsets[row + 1] as number); at++) {
          values[count] = endValue(shard, targets[at] as number);
          vertices[count++] = row;
          if (count < values.length) continue;
          yield count;
          count = 0;
        }
      }
    }
  }
  yield count;
  return undefined;
}

function degreeOf({ offsets }: PeerEdges, row: number): number {
  return (offsets[row + 1] as number) - (offsets[row] as number);
}
