/**
 * What a shard sees of the graph that all shards share: its own records, and those of others by one-sided reads.
 *
 * Invariant: a view never throws for an id, whatever the id: vertices are only trusted after {@link GraphView.partitionOf}, and
 * adjacency may hold anything. Distances are those of the codes; smaller is closer. A view belongs to one thread.
 */

/** A partition that does not exist: the answer for an id out of range. */
export const NO_PARTITION = -1;
/** The answer of a read when the owner exposes no region; ask it by message instead. */
export const NOT_EXPOSED = -1;

/** One shard's view of the graph. */
export interface GraphView {
  /** The partition, which is the number of the shard, whose records are local here. */
  readonly self: number;
  /** Bytes of one code, which a pull moves. */
  readonly codeBytes: number;
  /** Bytes of one adjacency record, which a pull of neighbours moves. */
  readonly adjacencyBytes: number;
  /** Most neighbours of one vertex. */
  readonly maxDegree: number;

  /** The partition that owns a vertex, or {@link NO_PARTITION} when there is no such vertex. Cost: O(1). */
  partitionOf(vertex: number): number;

  /**
   * Neighbours of a local vertex, as they stand in memory: unvalidated, perhaps out of range, perhaps twice.
   *
   * @param out Shape: `Int32Array[maxDegree]` at least.
   * @returns How many were written, in `[0, maxDegree]`.
   */
  neighbours(vertex: number, out: Int32Array): number;

  /**
   * Distances of local vertices to a query in one batch.
   *
   * @param query The query as the collection encodes it, opaque to the search.
   * @param out `out[i]` is the distance of `vertices[i]`; not a number when the vertex is free.
   */
  distances(query: Uint8Array, vertices: Int32Array, count: number, out: Float64Array): void;

  /**
   * The same for vertices of another partition, by one-sided reads of their codes: the owner takes no part.
   *
   * @returns {@link NOT_EXPOSED} when the owner exposes no region, and `count` otherwise.
   */
  pull(query: Uint8Array, partition: number, vertices: Int32Array, count: number, out: Float64Array): number;

  /**
   * Neighbours of a vertex of another partition by a one-sided read of its adjacency record.
   *
   * @returns How many were written, or {@link NOT_EXPOSED}.
   */
  pullNeighbours(vertex: number, out: Int32Array): number;
}
