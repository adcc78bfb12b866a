/**
 * How many triangles a graph has: sets of three vertices with an edge between each two, whatever the directions. Parallel edges count once,
 * loops not at all.
 *
 * Invariant: each triangle is counted at its least vertex, so that the sum over any division of the vertices is the count of the graph.
 * With `truncated` the count is that of the triangles whose least vertex is among the first `vertices`.
 * Cost: the neighbours of every neighbour of a batch that comes after one of it, once a batch; memory for the lists of one batch and as many
 * of what follows it. A bound that falls into a batch leaves all of it out.
 */
import type { VertexKey } from "../vertex-key.ts";
import { type Adjacency, batches, NeighbourReader, type TraversalOptions, type Truncation } from "./adjacency.ts";
import { isBefore } from "./key-order.ts";

export interface TriangleCount {
  readonly triangles: number;
  /** Vertices that were done. */
  readonly vertices: number;
  /** Neighbours read. */
  readonly edges: number;
  /** Set when a bound ended the count. */
  readonly truncated: Truncation | undefined;
}

/** Options of {@link countTriangles}. */
export interface TriangleOptions extends TraversalOptions {
  /** Whether a vertex that is not in the graph is an error, rather than one without triangles. @default false */
  readonly mustExist?: boolean | undefined;
}

/**
 * Counts the triangles whose least vertex is one of these: of all vertices of a graph, all its triangles.
 *
 * @param vertices Each once; read a batch at a time.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a bad option; `ERR_UNKNOWN_VERTEX`; `ERR_ABORTED`
 */
export async function countTriangles(
  adjacency: Adjacency,
  vertices: Iterable<VertexKey> | AsyncIterable<VertexKey>,
  options: TriangleOptions = {},
): Promise<TriangleCount> {
  const reader = new NeighbourReader(adjacency, options);
  let triangles = 0;
  let done = 0;
  const result = (): TriangleCount => ({ triangles, vertices: done, edges: reader.edges, truncated: reader.truncated });
  let waiting: VertexKey[] = [];
  const flush = async (): Promise<boolean> => {
    const batch = waiting;
    waiting = [];
    if (options.mustExist === true) await reader.assertThere("vertex", batch, "both");
    const found = await trianglesOf(reader, batch);
    if (found === undefined) return false;
    triangles += found;
    done += batch.length;
    return true;
  };
  for await (const key of vertices) {
    if (waiting.push(key) === reader.batchSize && !(await flush())) return result();
  }
  if (waiting.length > 0) await flush();
  return result();
}

/** Triangles at their least vertices, all of a batch: what follows its vertices is asked for once, whoever of them it follows. */
async function trianglesOf(reader: NeighbourReader, batch: readonly VertexKey[]): Promise<number | undefined> {
  const later = await laterOf(reader, batch);
  if (later === undefined) return undefined;
  const before = new Map<VertexKey, VertexKey[]>();
  for (const [key, others] of later) {
    for (const other of others) {
      const own = before.get(other);
      if (own === undefined) before.set(other, [key]);
      else own.push(key);
    }
  }
  let count = 0;
  for (const seconds of batches([...before.keys()], reader.batchSize)) {
    const lists = await laterOf(reader, seconds);
    if (lists === undefined) return undefined;
    for (const [second, thirds] of lists) {
      for (const first of before.get(second) as readonly VertexKey[]) {
        const own = later.get(first) as ReadonlySet<VertexKey>;
        for (const third of thirds) if (own.has(third)) count++;
      }
    }
  }
  return count;
}

/** Of each vertex the neighbours that come after it. */
async function laterOf(
  reader: NeighbourReader,
  vertices: readonly VertexKey[],
): Promise<Map<VertexKey, ReadonlySet<VertexKey>> | undefined> {
  const lists = await reader.read(vertices, "both");
  if (lists === undefined) return undefined;
  return new Map(
    lists.map(({ keys }, index) => {
      const vertex = vertices[index] as VertexKey;
      return [vertex, new Set(keys.filter((key) => isBefore(vertex, key)))];
    }),
  );
}
