/**
 * Writes of many items: grouped by the primary of each item's vshard, under one snapshot.
 *
 * Invariant: an item is written once. A group that its shard refuses because the topology has changed was not written at all; it is
 * grouped again with the newest snapshot. All requests of a call share its deadline.
 */
import { ShardloomError } from "../src/errors.ts";
import { ownerOf, type TopologySnapshot } from "../src/topology/snapshot.ts";
import type { CallOptions } from "./call-options.ts";
import type { Coordinator } from "./coordinator.ts";

/** Items whose primary is one shard. */
export interface WriteGroup<Item> {
  readonly snapshot: TopologySnapshot;
  readonly shard: number;
  readonly items: readonly Item[];
}

/** Groups items by the primary of their vshard, under the newest topology; items keep their order. */
export function groupByPrimary<Item extends { readonly vshard: number }>(
  coordinator: Coordinator,
  items: readonly Item[],
): WriteGroup<Item>[] {
  const { snapshot } = coordinator;
  const groups = new Map<number, Item[]>();
  for (const item of items) {
    const shard = ownerOf(snapshot, item.vshard);
    const group = groups.get(shard);
    if (group === undefined) groups.set(shard, [item]);
    else group.push(item);
  }
  return [...groups].map(([shard, members]) => ({ snapshot, shard, items: members }));
}

/** Newer maps that one group may meet. While a shard dies and returns several follow each other. */
const MAX_REGROUPS = 16;

/**
 * Sends a group; when it was stale, its items are grouped anew and sent once more, as long as there is a newer map.
 *
 * @param regroup Makes groups of a stale group's items, under the newest topology.
 * @returns one result per group that was written
 */
export async function writeOnce<Group extends { readonly snapshot: TopologySnapshot }, Result>(
  group: Group,
  send: (group: Group) => Promise<Result>,
  regroup: (group: Group) => readonly Group[],
  regroups = 0,
): Promise<Result[]> {
  try {
    return [await send(group)];
  } catch (error) {
    if (!ShardloomError.is(error) || error.code !== "ERR_STALE_EPOCH" || regroups >= MAX_REGROUPS) throw error;
    const anew = regroup(group);
    const isNewer = anew.every(({ snapshot }) => snapshot.topologyEpoch > group.snapshot.topologyEpoch);
    if (regroups > 0 && !isNewer) throw error;
    return (await settleAll(anew.map((next) => writeOnce(next, send, regroup, regroups + 1)))).flat();
  }
}

/** Options of the requests of one call, which begins now: what is left of its time. @throws {ShardloomError} `ERR_TIMEOUT`, `ERR_INVALID_ARGUMENT` */
export function withinCall<Options extends CallOptions>(coordinator: Coordinator, options: Options): () => Options {
  const deadlineAtMs = coordinator.deadlineAtMs(options);
  return () => {
    const timeoutMs = deadlineAtMs - coordinator.nowMs();
    if (timeoutMs > 0) return { ...options, timeoutMs };
    throw new ShardloomError("ERR_TIMEOUT", "Cannot send write as the deadline of its call has passed", {
      details: { sent: false },
    });
  };
}

/** Waits for all, also when one fails, then throws the first failure: an answer must not come before the state is settled. */
export async function settleAll<Result>(calls: readonly Promise<Result>[]): Promise<Result[]> {
  const settled = await Promise.allSettled(calls);
  return settled.map((entry) => {
    if (entry.status === "rejected") throw entry.reason;
    return entry.value;
  });
}
