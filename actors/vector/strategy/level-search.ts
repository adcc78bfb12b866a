/**
 * A search by levels on the shard that is asked: ranks the highest level, then has the chosen clusters of one level after the other read where they
 * are, each shard answering with the nearest of what they are over, and at last the leaves, by their vectors.
 *
 * Invariant: as of routing/multi-level-search.ts: as many dependent rounds as there are levels; a shard that cannot be asked costs a message to the
 * second one that reads its clusters. Leaves have one shard: without it the search ends with a typed error, and so it does where a shard's levels are
 * of another version, or the memory of its leaves cannot be read. What is given is whole.
 */
import { ShardloomError } from "../../../src/errors.ts";
import type { ReplyFrame } from "../../../src/routing/requester.ts";
import { VECTOR_NEAR } from "../../../src/wire/message-types.ts";
import type { EngineContext } from "../../engine.ts";
import type { GraphIndex } from "../graph/graph-index.ts";
import type { Candidate } from "../graph/label-search.ts";
import { LEVEL_DENSITY } from "../graph/level-trainer.ts";
import { leafOfRow } from "../graph/level-view.ts";
import type { RoundRequest } from "../routing/multi-level-node.ts";
import { MultiLevelSearch } from "../routing/multi-level-search.ts";
import { type NearReply, type NearRequest, nearMessage, readNearReply } from "./near-messages.ts";
import { near } from "./near-reads.ts";

/** The time that a shard has for an answer; the caller's own may end sooner. */
const TIMEOUT_MS = 10_000;
const PER_MILLION = 1_000_000;
/** Part of the allowed loss that the leaves may take: the levels above take some. */
const LEAF_LOSS = 0.85;
/** Vectors of a leaf that is half as large as they are made. */
const SMALL_LEAF = 0.5 / LEVEL_DENSITY;
/** What a shard answers that is not asked again elsewhere: it knows something else than this one, its leaves cannot be read now, or its answer is too long. */
const REFUSALS: readonly string[] = [
  "ERR_VERSION_MISMATCH",
  "ERR_INVALID_ARGUMENT",
  "ERR_CORRUPT",
  "ERR_REGION_ACCESS",
  "ERR_RECORD_TOO_LARGE",
];

/** @param request With `ef`, how many neighbours count. @throws {ShardloomError} typed, when it cannot give all. */
export async function searchLevels(
  context: EngineContext,
  graph: GraphIndex,
  request: NearRequest,
  version: number,
): Promise<NearReply> {
  const { wanted, ef: k, recallPpm, code } = request;
  const levels = graph.levels.searched(version, graph.exchange?.tables());
  if (levels === undefined) throw unknownLevels(context, graph, version);
  const { index, calibration } = levels;
  const options = {
    ...{ k, wanted, calibration, recallTarget: 1 - (1 - recallPpm / PER_MILLION) * LEAF_LOSS },
    leastLeaves: 1 + Math.ceil(k / SMALL_LEAF),
  };
  const search = new MultiLevelSearch(index, graph.componentsOf(code), options);
  const found = new Map<number, Candidate>();
  let [messages, bytes] = [0, 0];
  let failure: ShardloomError | undefined;
  const drive = async (round: RoundRequest): Promise<void> => {
    const { sequence, node, level, clusters: leaves, limit } = round;
    const part = { ...request, wanted: limit, ef: limit, version, entries: [], leaves, recallPpm: 0, level };
    if (node !== context.workerIndex) messages++;
    let next: RoundRequest[];
    try {
      const { candidates, distances: read } = await ask(context, graph, node, part, (moved) => {
        bytes += moved;
      });
      if (level === 0) for (const candidate of candidates) found.set(candidate.vertex, candidate);
      const ids = Int32Array.from(candidates, ({ vertex }) => vertex);
      const distances = Float64Array.from(candidates, ({ distance }) => distance);
      next = search.answer({ sequence, node, ids, distances, read, absent: new Int32Array(0) });
    } catch (error) {
      const cause = ShardloomError.from(error);
      if (REFUSALS.includes(cause.code)) throw cause;
      failure = cause;
      next = search.lost(node);
    }
    await Promise.all(next.map(drive));
  };
  await Promise.all(search.start().map(drive));
  const { ids, read, rounds, missing } = search.result();
  if (missing.nodes.length > 0)
    throw new ShardloomError(
      "ERR_UNAVAILABLE",
      `Cannot search by levels as shard ${missing.nodes[0]} does not answer`,
      {
        details: { shards: missing.nodes },
        retryable: true,
        cause: failure,
      },
    );
  const candidates = Array.from(ids, (vertex) => found.get(vertex)).filter((candidate) => candidate !== undefined);
  return { candidates, distances: read, rounds, messages, bytes };
}

/** Not all shards' clusters are known, or some are of another version. */
function unknownLevels({ workerIndex }: EngineContext, { exchange }: GraphIndex, version: number): ShardloomError {
  const other = Array.from(exchange?.tables()?.partitions ?? [], (word) => leafOfRow(word).version).find(
    (of) => of !== version,
  );
  return other === undefined ? unknownLeaves(workerIndex) : otherVersion(version, other);
}

/** What one shard reads for one round, this one included. @param moved Told the bytes of a message and its answer. */
async function ask(
  context: EngineContext,
  graph: GraphIndex,
  shard: number,
  part: NearRequest,
  moved: (bytes: number) => void,
): Promise<NearReply> {
  if (shard === context.workerIndex) return near(graph, shard, part);
  if (context.peers === undefined) throw unknownLeaves(context.workerIndex);
  const { type, payload } = nearMessage(VECTOR_NEAR, part);
  const read = (m: ReplyFrame): NearReply => {
    moved(payload.byteLength + m.length);
    return readNearReply(m, m.offset);
  };
  return context.peers.ask(shard, type, payload, read, TIMEOUT_MS);
}

export function unknownLeaves(shard: number): ShardloomError {
  return new ShardloomError("ERR_UNAVAILABLE", `Cannot search by leaves as shard ${shard} does not know them yet`, {
    details: { shard },
    retryable: true,
  });
}

/** @param of Of what was found. */
export function otherVersion(wanted: number, of: number): ShardloomError {
  return new ShardloomError(
    "ERR_VERSION_MISMATCH",
    `Cannot search by leaves as their table must have version ${wanted}: current value is ${of}`,
    { details: { version: of, wanted }, retryable: true },
  );
}
