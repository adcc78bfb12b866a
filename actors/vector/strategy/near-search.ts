/**
 * The shard's side of a near-data search: checks a request, and answers it by what the shard computes for, or with others.
 *
 * Invariant: a request is checked before anything is searched; what cannot be read now ends in a typed error, never in few candidates.
 */
import { invalidArgument, ShardloomError } from "../../../src/errors.ts";
import type { EngineReply } from "../../engine.ts";
import type { GraphIndex } from "../graph/graph-index.ts";
import { type NearRequest, writeNearReply } from "./near-messages.ts";
import { near } from "./near-reads.ts";

const MOST_CANDIDATES = 65_536;
const PER_MILLION = 1_000_000;
const MOST_LEVELS = 16;

/** @param shard Whose vertices are searched. */
export function answerNear(
  graph: GraphIndex | undefined,
  shard: number,
  request: NearRequest,
  reply: EngineReply,
): void {
  writeNearReply(reply, near(checkedGraph(graph, shard, request), shard, request));
}

/** @throws {ShardloomError} `ERR_REGION_ACCESS`, `ERR_INVALID_ARGUMENT`. */
export function checkedGraph(graph: GraphIndex | undefined, shard: number, request: NearRequest): GraphIndex {
  const { wanted, ef, code, recallPpm, level, known = [] } = request;
  if (graph === undefined)
    throw new ShardloomError(
      "ERR_REGION_ACCESS",
      `Cannot search near data as shard ${shard} has no part of the graph`,
      {
        details: { shard },
        retryable: true,
      },
    );
  for (const [name, value] of [
    ["wanted", wanted],
    ["ef", ef],
  ] as const)
    if (!Number.isInteger(value) || value < 1 || value > MOST_CANDIDATES)
      throw invalidArgument("search near data", name, `an integer in [1, ${MOST_CANDIDATES}]`, value);
  if (code.length !== graph.codeBytes)
    throw invalidArgument("search near data", "code.length", `${graph.codeBytes}`, code.length);
  if (recallPpm < 0 || recallPpm > PER_MILLION)
    throw invalidArgument("search near data", "recallPpm", `in [0, ${PER_MILLION}]`, recallPpm);
  if (level < 0 || level > MOST_LEVELS)
    throw invalidArgument("search near data", "level", `in [0, ${MOST_LEVELS}]`, level);
  const odd = known.findIndex(({ distance }, index) => !(distance >= (known[index - 1]?.distance ?? -Infinity)));
  if (odd >= 0)
    throw invalidArgument(
      "search near data",
      `known[${odd}].distance`,
      "a number, none less than the one before",
      known[odd]?.distance,
    );
  return graph;
}
