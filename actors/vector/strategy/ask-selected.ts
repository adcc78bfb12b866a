/**
 * Asks the shards that a strategy has selected, each what it computes for, of every vshard: in the outcomes the vshards are shared out among the shards.
 *
 * Invariant: a shard is asked once. One that follows another is asked when that one has answered, or has failed, or a part of the time has gone by: so
 * a shard that is slow keeps no other from being asked. When it has ended none of its requests is left, nor a timer.
 */
import { ShardloomError } from "../../../src/errors.ts";
import { GIVEN_UP, notNeeded } from "../../../src/routing/execution-errors.ts";
import { type Gather, type Gathered, plainOutcome, type ShardOutcome } from "../../../src/routing/gather.ts";
import type { ReplyFrame } from "../../../src/routing/requester.ts";
import { VSHARD_LISTED } from "../../../src/wire/envelope-layout.ts";
import { onAbort } from "../../call-options.ts";
import type { Coordinator } from "../../coordinator.ts";
import type { ShardSearchOptions } from "../client-search.ts";
import { type NearReply, readNearReply } from "./near-messages.ts";
import type { AskingStrategy, Lead, RoutedQuery, SelectedShard } from "./vector-strategy.ts";

/** Part of the time after which followers go without what they would follow. */
const LEAD_SHARE = 0.25;
/** What a shard is told at least, where no time is left. */
export const LEAST_MS = 0.001;

/** Where the time of an answer went, and its length. */
type Took = Pick<ShardOutcome, "queueUs" | "serviceUs" | "bytes">;

/** How a search asks. */
export interface Asking {
  readonly strategy: AskingStrategy<RoutedQuery>;
  readonly query: RoutedQuery;
  readonly selected: readonly SelectedShard[];
  readonly options: Pick<ShardSearchOptions, "signal" | "priority" | "tenant">;
}

/** @throws {ShardloomError} when fewer answer than the caller's policy asks for, an answer is too long, or a message cannot be made. */
export async function askSelected(
  coordinator: Coordinator,
  { strategy, query, selected, options: { signal, priority, tenant } }: Asking,
  gather: Gather<NearReply>,
): Promise<Gathered<NearReply>> {
  const rest = new AbortController();
  const unlisten = signal === undefined ? undefined : onAbort(signal, (error) => gather.abort(error));
  const { vshards } = coordinator.snapshot;
  const upTo = (index: number): number => Math.floor((vshards * index) / selected.length);
  const startedMs = coordinator.nowMs();
  const waiting = new Set(selected.flatMap(({ followers = [] }) => followers));
  const asked = new Set<number>();
  let open = 0;
  const end = (index: number, answers: readonly NearReply[], error?: ShardloomError, took?: Took): void => {
    const count = answers.reduce((sum, { candidates }) => sum + candidates.length, 0);
    const { shard } = selected[index] as SelectedShard;
    const outcome = plainOutcome(shard, count, error, upTo(index + 1) - upTo(index));
    const attempts = asked.has(index) ? 1 : 0;
    gather.end(index, { ...outcome, ...took, attempts, latencyUs: (coordinator.nowMs() - startedMs) * 1000 }, answers);
  };
  const ask = (index: number, lead?: Lead): void => {
    const { shard, followers = [] } = selected[index] as SelectedShard;
    const { type, payload } = strategy.directMessage(selected[index] as SelectedShard, query, lead);
    const leftMs = query.timeoutMs - (coordinator.nowMs() - startedMs);
    const limits = {
      ...{ timeoutMs: Math.max(LEAST_MS, leftMs), signal: rest.signal },
      ...(priority === undefined ? {} : { priority }),
      ...(tenant === undefined ? {} : { tenant }),
    };
    let took: Took | undefined;
    const read = (frame: ReplyFrame): NearReply => {
      took = { queueUs: frame.queueUs, serviceUs: frame.serviceUs, bytes: frame.length };
      return readNearReply(frame, frame.offset);
    };
    const answered = coordinator.ask(shard, type, VSHARD_LISTED, payload, read, limits);
    asked.add(index);
    open++;
    const cancel =
      followers.length === 0 ? undefined : coordinator.after(leftMs * LEAD_SHARE, () => askFollowers(followers));
    const onEnd = (): void => {
      open--;
      cancel?.();
    };
    answered.then(
      (reply) => {
        onEnd();
        end(index, [reply], undefined, took);
        if (gather.enough) for (const other of selected.keys()) end(other, [], notNeeded()); // those that have ended stay so
        askFollowers(followers, reply);
      },
      (cause: unknown) => {
        onEnd();
        const error = ShardloomError.from(cause);
        // The shard is there, and who allows that one is missing does not ask for less of the others.
        if (error.code === "ERR_RECORD_TOO_LARGE") gather.abort(error);
        else end(index, [], error);
        askFollowers(followers);
      },
    );
  };
  /** What cannot be sent ends the search: those who call have nobody to tell. */
  const askEach = (which: (shard: number) => boolean, lead?: Lead): void => {
    try {
      for (const [index, { shard }] of selected.entries()) if (!gather.settled && which(shard)) ask(index, lead);
    } catch (error) {
      gather.abort(ShardloomError.from(error));
    }
  };
  const askFollowers = (followers: readonly number[], lead?: Lead): void =>
    askEach((shard) => followers.includes(shard) && waiting.delete(shard), lead);
  try {
    const first = new Set(selected.flatMap(({ shard }) => (waiting.has(shard) ? [] : [shard])));
    askEach((shard) => first.has(shard));
    return await gather.promise;
  } finally {
    unlisten?.();
    if (open > 0) rest.abort(GIVEN_UP);
  }
}
