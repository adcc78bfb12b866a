/**
 * The question to a shard whether a vertex program says that its run is done, for a coordinator that has only the program's name.
 *
 * Invariant: one shard is asked, once after each superstep, as one that is given the program asks it: a run comes to the same either way.
 */
import { GRAPH_HALT } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import { askShard, type GraphHandle } from "./client-calls.ts";
import type { HaltRequest } from "./run-messages.ts";
import type { Totals } from "./run-totals.ts";

/** @throws {ShardloomError} `ERR_ACTOR_FAILED` when `halt` throws, or says neither; those of every call. */
export function askHalted(
  handle: GraphHandle,
  of: Pick<HaltRequest, "run" | "program">,
  { superstep, sums }: Totals,
  options: CallOptions,
): Promise<boolean> {
  const { collection } = handle;
  const request: HaltRequest = { ...of, collection, superstep, sums };
  return askShard(handle, 0, GRAPH_HALT, request, options);
}
