/**
 * What a shard reads for a near-data search of what it computes for: a part of the graph, leaves whole, or clusters of a level above them.
 *
 * Invariant: a request that names leaves or clusters names the version of their table; of any other version, and of what other shards read, none is
 * read, and the answer is a typed error. So it is where a chunk that others wrote cannot be read now, or could not be all the time.
 */
import { invalidArgument, ShardloomError } from "../../../src/errors.ts";
import type { GraphIndex } from "../graph/graph-index.ts";
import type { Candidate } from "../graph/label-search.ts";
import { serveRound } from "../routing/multi-level-node.ts";
import type { NearReply, NearRequest } from "./near-messages.ts";

/** What a shard finds in what it computes for: in leaves, or by the graph. @throws {ShardloomError} typed, when it cannot. */
export function near(graph: GraphIndex, shard: number, request: NearRequest): NearReply {
  const { wanted, ef, code, entries, leaves, version } = request;
  if (version === 0) {
    const search = graph.search();
    const candidates = search.run(code, shard, Array.from(entries), ef, wanted, request);
    return { ...found(candidates, search.distances, shard), crossings: search.crossings };
  }
  if (version !== graph.placedVersion)
    throw new ShardloomError(
      "ERR_VERSION_MISMATCH",
      `Cannot read leaves as their table must have version ${graph.placedVersion}: current value is ${version}`,
      { details: { version, wanted: graph.placedVersion }, retryable: true },
    );
  if (request.level > 0) return nearClusters(graph, shard, request);
  const foreign = Array.from(leaves).find((leaf) => graph.labelOf(leaf) !== shard);
  if (foreign !== undefined)
    throw invalidArgument("read leaves", "leaves", `leaves that shard ${shard} computes for`, foreign);
  const scan = graph.scan();
  return found(scan.run(code, leaves, version, wanted), scan.distances, shard);
}

function found(candidates: readonly Candidate[] | undefined, distances: number, shard: number): NearReply {
  if (candidates !== undefined) return { candidates, distances, rounds: 0, messages: 0, bytes: 0 };
  throw new ShardloomError("ERR_REGION_ACCESS", `Cannot search near data as shard ${shard} cannot read it all now`, {
    details: { shard },
    retryable: true,
  });
}

/** The nearest of what some clusters are over, each as a candidate of that number. */
function nearClusters(graph: GraphIndex, shard: number, request: NearRequest): NearReply {
  const { wanted: limit, code, leaves, version, level } = request;
  const index = graph.levels.index(version);
  const vectors = index?.levels[0]?.centroids;
  if (index === undefined || vectors === undefined)
    throw new ShardloomError(
      "ERR_UNAVAILABLE",
      `Cannot read clusters as shard ${shard} has no levels of version ${version}`,
      {
        details: { shard, version },
        retryable: true,
      },
    );
  const clusters = Int32Array.from(leaves);
  const query = graph.componentsOf(code);
  const answer = serveRound(index, vectors, { sequence: 0, node: shard, level, clusters, query, limit });
  if (answer.absent.length > 0)
    throw invalidArgument("read clusters", "leaves", `clusters that shard ${shard} reads`, answer.absent[0]);
  const candidates = Array.from(answer.ids, (vertex, at): Candidate => {
    const distance = answer.distances[at] as number;
    return { vertex, distance, address: 0, incarnation: 0, shard };
  });
  return { candidates, distances: answer.read, rounds: 0, messages: 0, bytes: 0 };
}
