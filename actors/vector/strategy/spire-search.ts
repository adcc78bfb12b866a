/**
 * SPIRE on the shard that is asked: ranks all shards' leaves by the tables that were exchanged, has the chosen ones read where they are, and answers
 * with the best of all.
 *
 * Two dependent rounds: the tables' upper level and their leaves here, the vectors near the data, each shard answering with its top n.
 * Invariant: a shard whose table is not held searches what it computes for by the graph, so a missing table costs work, never an answer; a table of
 * another version, or a shard that does not answer, ends the search with a typed error.
 */
import { invalidArgument, ShardloomError } from "../../../src/errors.ts";
import { VECTOR_NEAR } from "../../../src/wire/message-types.ts";
import type { EngineContext, EngineReply } from "../../engine.ts";
import type { GraphIndex } from "../graph/graph-index.ts";
import type { Candidate } from "../graph/label-search.ts";
import { leafOfRow } from "./leaf-exchange.ts";
import {
  type NearReply,
  type NearRequest,
  nearMessage,
  nearReplyBytes,
  readNearReply,
  writeCandidates,
} from "./near-messages.ts";

/** The time that shards have for each other; the caller's own may end sooner. */
const TIMEOUT_MS = 10_000;
const PER_MILLION = 1_000_000;

/** Leaves of each shard that are to be read; empty: it searches as it likes. */
type Plan = Map<number, number[]>;

export function answerSpire(context: EngineContext, graph: GraphIndex, request: NearRequest, reply: EngineReply): void {
  const version = graph.placedVersion;
  if (version === 0) throw unknownLeaves(context.workerIndex);
  const plan = choose(context, graph, request, version);
  const room = Math.floor((reply.limitBytes - nearReplyBytes(0)) / (nearReplyBytes(1) - nearReplyBytes(0)));
  const held = reply.hold();
  if (held === undefined) return;
  gather(context, graph, plan, request, version).then(
    ({ candidates, distances }) => {
      const best = candidates.slice(0, room);
      held.send(nearReplyBytes(best.length), (memory, offset) => writeCandidates(memory, offset, best, distances));
    },
    (error: unknown) => held.fail(error),
  );
}

function choose(
  context: EngineContext,
  graph: GraphIndex,
  { code, ef, recallPpm }: NearRequest,
  version: number,
): Plan {
  const router = graph.router(version);
  if (router === undefined) throw unknownLeaves(context.workerIndex);
  const { compass, table } = router;
  const { partitions } = table;
  const components = graph.componentsOf(code);
  const { leaves } = compass.selectLeaves(components, { k: ef, recallTarget: recallPpm / PER_MILLION });
  const plan: Plan = new Map((graph.exchange?.missing() ?? []).map((shard) => [shard, []]));
  for (const row of leaves) {
    const { leaf, version: of } = leafOfRow(partitions[row] as number);
    if (of !== version)
      throw new ShardloomError(
        "ERR_VERSION_MISMATCH",
        `Cannot search by leaves as their table must have version ${version}: current value is ${of}`,
        { details: { version: of, wanted: version }, retryable: true },
      );
    const shard = compass.shardOf(row);
    const own = plan.get(shard);
    if (own === undefined) plan.set(shard, [leaf]);
    else own.push(leaf);
  }
  return plan;
}

async function gather(
  context: EngineContext,
  graph: GraphIndex,
  plan: Plan,
  request: NearRequest,
  version: number,
): Promise<NearReply> {
  const { collectionId, wanted, ef, code } = request;
  const parts = [...plan].map(async ([shard, leaves]): Promise<NearReply> => {
    if (shard === context.workerIndex) return near(graph, shard, { ...request, version, leaves });
    const of = leaves.length === 0 ? 0 : version;
    const part = {
      collectionId,
      wanted,
      ef: Math.max(ef, wanted),
      version: of,
      entries: [],
      leaves,
      code,
      recallPpm: 0,
    };
    const { type, payload } = nearMessage(VECTOR_NEAR, part);
    if (context.peers === undefined) throw unknownLeaves(context.workerIndex);
    return context.peers.ask(shard, type, payload, (m) => readNearReply(m, m.offset), TIMEOUT_MS);
  });
  const replies = await Promise.all(parts);
  const candidates = replies
    .flatMap((reply) => reply.candidates)
    .sort((a, b) => a.distance - b.distance || a.vertex - b.vertex)
    .slice(0, wanted);
  return { candidates, distances: replies.reduce((sum, { distances }) => sum + distances, 0) };
}

/** What a shard finds in what it computes for: in leaves, or by the graph. @throws {ShardloomError} typed, when it cannot. */
export function near(graph: GraphIndex, shard: number, request: NearRequest): NearReply {
  const { wanted, ef, code, entries, leaves, version } = request;
  let candidates: Candidate[] | undefined;
  if (version === 0) {
    const search = graph.search();
    candidates = search.run(code, shard, Array.from(entries), ef, wanted);
    if (candidates !== undefined) return { candidates, distances: search.distances };
    throw new ShardloomError("ERR_REGION_ACCESS", `Cannot search near data as shard ${shard} cannot read it all now`, {
      details: { shard },
      retryable: true,
    });
  }
  if (version !== graph.placedVersion)
    throw new ShardloomError(
      "ERR_VERSION_MISMATCH",
      `Cannot read leaves as their table must have version ${graph.placedVersion}: current value is ${version}`,
      { details: { version, wanted: graph.placedVersion }, retryable: true },
    );
  const foreign = Array.from(leaves).find((leaf) => graph.labelOf(leaf) !== shard);
  if (foreign !== undefined)
    throw invalidArgument("read leaves", "leaves", `leaves that shard ${shard} computes for`, foreign);
  const scan = graph.scan();
  candidates = scan.run(code, leaves, version, wanted);
  return { candidates, distances: scan.distances };
}

function unknownLeaves(shard: number): ShardloomError {
  return new ShardloomError("ERR_UNAVAILABLE", `Cannot search by leaves as shard ${shard} does not know them yet`, {
    details: { shard },
    retryable: true,
  });
}
