/**
 * Writes of many items: grouped by the primary of each item's vshard, under one snapshot.
 *
 * Invariant: an item is written once. A group that its shard refuses because the topology has changed was not written at all; it is
 * grouped again with the newest snapshot, once.
 */
import { ShardloomError } from "../src/errors.ts";
import { ownerOf, type TopologySnapshot } from "../src/topology/snapshot.ts";
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

/** Sends a group; when it was stale, its items are grouped anew and sent once more. @returns one result per group that was written */
export async function writeOnce<Item extends { readonly vshard: number }, Result>(
  coordinator: Coordinator,
  group: WriteGroup<Item>,
  send: (group: WriteGroup<Item>) => Promise<Result>,
): Promise<Result[]> {
  try {
    return [await send(group)];
  } catch (error) {
    if (!ShardloomError.is(error) || error.code !== "ERR_STALE_EPOCH") throw error;
    return settleAll(groupByPrimary(coordinator, group.items).map(send));
  }
}

/** Waits for all, also when one fails, then throws the first failure: an answer must not come before the state is settled. */
export async function settleAll<Result>(calls: readonly Promise<Result>[]): Promise<Result[]> {
  const settled = await Promise.allSettled(calls);
  return settled.map((entry) => {
    if (entry.status === "rejected") throw entry.reason;
    return entry.value;
  });
}
