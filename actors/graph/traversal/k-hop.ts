/**
 * The vertices within k edges of some vertices.
 *
 * Invariant: every vertex is given with its least number of edges from a start. Vertices come in order of that number, those of one number
 * in the order in which their first neighbours did; a bound on the vertices cuts the end of this order off, and nothing before.
 * Cost: one question for every `batchSize` vertices of a depth, each vertex once.
 */
import type { VertexKey } from "../vertex-key.ts";
import {
  type Adjacency,
  batches,
  checkBound,
  type Direction,
  NeighbourReader,
  type TraversalOptions,
  type Truncation,
} from "./adjacency.ts";

export interface KHopOptions extends TraversalOptions {
  /** Edges from a start at most, ≥ 0. */
  readonly hops: number;
  /** @default "out" */
  readonly direction?: Direction | undefined;
  /** Most vertices of the result, starts among them. @default 1_000_000 */
  readonly maxVertices?: number | undefined;
}

export interface KHopResult {
  /** Vertex → edges from the nearest start, in order of the distance. */
  readonly depths: ReadonlyMap<VertexKey, number>;
  /** Neighbours read. */
  readonly edges: number;
  /** Set when there may be more. */
  readonly truncated: Truncation | undefined;
}

const DEFAULT_MAX_VERTICES = 1_000_000;

/**
 * Finds what is within k edges.
 *
 * @throws {ShardloomError} `ERR_UNKNOWN_VERTEX` for a start that is not in the graph; `ERR_INVALID_ARGUMENT`; `ERR_ABORTED`
 */
export async function kHop(
  adjacency: Adjacency,
  starts: readonly VertexKey[],
  options: KHopOptions,
): Promise<KHopResult> {
  const { direction = "out" } = options;
  const hops = checkBound("hops", options.hops, 0);
  const maxVertices = checkBound("maxVertices", options.maxVertices ?? DEFAULT_MAX_VERTICES);
  const reader = new NeighbourReader(adjacency, options);
  await reader.assertThere("start", starts, direction);
  const depths = new Map<VertexKey, number>();
  let truncated: Truncation | undefined;
  let frontier: VertexKey[] = [];
  const reach = (key: VertexKey, depth: number): boolean => {
    if (depths.has(key)) return true;
    if (depths.size === maxVertices) {
      truncated = { by: "vertices", limit: maxVertices };
      return false;
    }
    depths.set(key, depth);
    frontier.push(key);
    return true;
  };
  const result = (): KHopResult => ({ depths, edges: reader.edges, truncated: truncated ?? reader.truncated });

  for (const start of starts) if (!reach(start, 0)) return result();
  for (let depth = 1; depth <= hops && frontier.length > 0; depth++) {
    const before = frontier;
    frontier = [];
    for (const batch of batches(before, reader.batchSize)) {
      const lists = await reader.read(batch, direction);
      if (lists === undefined) return result();
      for (const { keys } of lists) for (const key of keys) if (!reach(key, depth)) return result();
    }
  }
  return result();
}
