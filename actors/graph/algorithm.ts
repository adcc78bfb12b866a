/**
 * What an algorithm is to the runtime of supersteps: how values travel, and what each vertex does with what has come.
 *
 * Invariant: `compute` looks at vertices `[from, to)` only, and at nothing that `compute` of another range writes; so it may be cut
 * into slices, and gives the same on any number of shards.
 */
import type { Csr } from "./csr.ts";
import type { Way } from "./propagate.ts";
import type { Combiner } from "./vertex-program.ts";
import type { VertexProperties } from "./vertex-properties.ts";
import type { VertexTable } from "./vertex-table.ts";

/** One shard's part of a run, as algorithms see it. */
export interface RunView {
  readonly shard: number;
  /** Vertices of this shard, of the whole graph, and of each shard. */
  readonly rows: number;
  readonly vertices: number;
  readonly rowsOf: readonly number[];
  readonly superstep: number;
  readonly params: Readonly<Record<string, unknown>>;
  readonly table: VertexTable;
  /** What vertices carry. */
  readonly properties: VertexProperties;
  /** Arrays by vertex: the state. */
  readonly fields: readonly Float64Array[];
  /** What each vertex sends now. */
  readonly outbox: Float64Array;
  /** What has come, combined; of `labels`: unused. */
  readonly incoming: Float64Array;
  /** What each peer's vertices have sent; of `labels` only. */
  readonly sources: readonly Float64Array[];
  /** Edges along which a vertex sends, in number. */
  readonly degrees: Uint32Array;
  /** Adjacency of this shard, one entry a direction that messages take: `[out]`, or `[out, in]`. */
  readonly ways: readonly Csr[];
  /** Adjacency of this shard against the messages: where they come from. */
  readonly origins: readonly Csr[];
  /** Adjacency of every shard, both directions; of `neighbourhoods` only. */
  readonly neighbours: readonly { readonly out: Csr; readonly in: Csr }[];
  readonly directed: boolean;
  /** Reductions of the superstep before, and of this one so far. */
  readonly before: Float64Array;
  readonly sums: Float64Array;
  /** Vertices that have sent or will compute anyway, and their edges. */
  active: number;
  activeEdges: number;
}

/** An algorithm on one shard. */
export interface ShardAlgorithm {
  /** Arrays of state; the first `results` are what the run gives. */
  readonly fields: number;
  readonly results: number;
  /**
   * `combined`: a vertex gets one value. `labels`: it looks at what every neighbour has sent. `neighbourhoods`: at its neighbours' edges, once.
   */
  readonly kind: "combined" | "labels" | "neighbourhoods";
  readonly combine: Combiner;
  readonly way: Way;
  readonly direction: "out" | "both";
  readonly aggregates: readonly Combiner[];
  /** Vertices that are computed at once, before messages have their turn; few where one takes long. @default 16384 */
  readonly slice?: number;
  /** Of a search by breadth: only vertices without a level are looked at when values are pulled. */
  readonly firstOnly?: boolean;
  /** Looks at the run before it begins. @throws {ShardloomError} when it cannot. */
  check?(view: RunView): void;
  compute(view: RunView, from: number, to: number): void;
}
