/**
 * SPIRE on the shard that is asked: ranks all shards' leaves by the tables that were exchanged, has the chosen ones read where they are, and answers
 * with the best of all.
 *
 * Two dependent rounds: the tables' upper level and their leaves here, the vectors near the data, each shard answering with its top n. A collection
 * with levels goes by them instead (level-search.ts).
 * Invariant: a shard whose table is not held searches what it computes for by the graph, so a missing table costs work, never an answer; a table of
 * another version, or a shard that does not answer, ends the search with a typed error.
 */
import type { ReplyFrame } from "../../../src/routing/requester.ts";
import { VECTOR_NEAR } from "../../../src/wire/message-types.ts";
import type { EngineContext, EngineReply } from "../../engine.ts";
import type { GraphIndex } from "../graph/graph-index.ts";
import { leafOfRow } from "../graph/level-view.ts";
import { assertReplyFits } from "../vector-replies.ts";
import { routingTarget } from "./compass-strategy.ts";
import { otherVersion, searchLevels, unknownLeaves } from "./level-search.ts";
import {
  type NearReply,
  type NearRequest,
  nearMessage,
  nearReplyBytes,
  readNearReply,
  writeCandidates,
} from "./near-messages.ts";
import { near } from "./near-reads.ts";

/** The time that shards have for each other; the caller's own may end sooner. */
const TIMEOUT_MS = 10_000;
const PER_MILLION = 1_000_000;

/** Leaves of each shard that are to be read; empty: it searches as it likes. */
type Plan = Map<number, number[]>;

export function answerSpire(context: EngineContext, graph: GraphIndex, request: NearRequest, reply: EngineReply): void {
  const version = graph.placedVersion;
  if (version === 0) throw unknownLeaves(context.workerIndex);
  const byLevels = graph.levels.index(version) !== undefined && request.recallPpm < PER_MILLION;
  const search = byLevels ? searchLevels : searchLeaves;
  const { limitBytes } = reply;
  const held = reply.hold();
  if (held === undefined) return;
  search(context, graph, request, version)
    .then((found) => {
      const byteLength = nearReplyBytes(found.candidates.length);
      assertReplyFits(byteLength, { limitBytes });
      held.send(byteLength, (memory, offset) => writeCandidates(memory, offset, found));
    })
    .catch((error: unknown) => held.fail(error));
}

function choose(
  context: EngineContext,
  graph: GraphIndex,
  { code, ef, recallPpm }: NearRequest,
  version: number,
): Plan {
  if (graph.levels.index(version) !== undefined) return everything(graph);
  const router = graph.router(version);
  if (router === undefined) throw unknownLeaves(context.workerIndex);
  const { compass, table } = router;
  const { partitions } = table;
  const components = graph.componentsOf(code);
  const { leaves } = compass.selectLeaves(components, { k: ef, recallTarget: routingTarget(recallPpm / PER_MILLION) });
  const plan: Plan = new Map((graph.exchange?.missing() ?? []).map((shard) => [shard, []]));
  for (const row of leaves) {
    const { leaf, version: of } = leafOfRow(partitions[row] as number);
    if (of !== version) throw otherVersion(version, of);
    const shard = compass.shardOf(row);
    const own = plan.get(shard);
    if (own === undefined) plan.set(shard, [leaf]);
    else own.push(leaf);
  }
  return plan;
}

/** All leaves there are, for who wants all there is. */
function everything(graph: GraphIndex): Plan {
  const plan: Plan = new Map();
  for (let leaf = 0, shard = graph.labelOf(0); shard >= 0; shard = graph.labelOf(++leaf)) {
    const own = plan.get(shard);
    if (own === undefined) plan.set(shard, [leaf]);
    else own.push(leaf);
  }
  return plan;
}

async function searchLeaves(
  context: EngineContext,
  graph: GraphIndex,
  request: NearRequest,
  version: number,
): Promise<NearReply> {
  const plan = choose(context, graph, request, version);
  const { collectionId, wanted, ef, code } = request;
  let bytes = 0;
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
      level: 0,
    };
    const { type, payload } = nearMessage(VECTOR_NEAR, part);
    if (context.peers === undefined) throw unknownLeaves(context.workerIndex);
    const read = (m: ReplyFrame): NearReply => {
      bytes += payload.byteLength + m.length;
      return readNearReply(m, m.offset);
    };
    return context.peers.ask(shard, type, payload, read, TIMEOUT_MS);
  });
  const replies = await Promise.all(parts);
  const candidates = replies
    .flatMap((reply) => reply.candidates)
    .sort((a, b) => a.distance - b.distance || a.vertex - b.vertex)
    .slice(0, wanted);
  const distances = replies.reduce((sum, reply) => sum + reply.distances, 0);
  return { candidates, distances, rounds: 1, messages: plan.size - (plan.has(context.workerIndex) ? 1 : 0), bytes };
}
