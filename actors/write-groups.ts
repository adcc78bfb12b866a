/**
 * Writes of many items: grouped by the primary of each item's vshard, under one snapshot.
 *
 * Invariant: an item is written once. A group that its shard refuses because the topology has changed was not written at all; it is
 * grouped again with the newest snapshot. All requests of a call share its deadline. A write with a key is cut into the same parts whenever
 * it is made, whatever the topology, and one vshard's items of a part stand in one request: a vshard takes a part whole or not at all.
 */
import { ShardloomError } from "../src/errors.ts";
import { ownerOf, type TopologySnapshot } from "../src/topology/snapshot.ts";
import type { WriteOptions } from "./call-options.ts";
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

/** Items of a call that are known by the same key and number. */
export interface WritePart<Item> {
  readonly part: number;
  readonly items: readonly Item[];
}

/**
 * Bytes of one vshard in one part of a write with a key. Who repeats a write under another version must meet the same parts: it stays.
 */
const PART_BYTES: number = 16 * 1024;

/** @param bytesOf Bytes of an item, which follow from it alone. */
export function partsOfWrite<Item extends { readonly vshard: number }>(
  items: readonly Item[],
  bytesOf: (item: Item) => number,
  { idempotencyKey }: WriteOptions,
): WritePart<Item>[] {
  if (idempotencyKey === undefined) return [{ part: 0, items }];
  const places = new Map<number, { part: number; bytes: number }>();
  const parts: Item[][] = [];
  for (const item of items) {
    const bytes = bytesOf(item);
    const last = places.get(item.vshard);
    const fits = last !== undefined && last.bytes + bytes <= PART_BYTES;
    const place = fits ? { part: last.part, bytes: last.bytes + bytes } : { part: (last?.part ?? -1) + 1, bytes };
    places.set(item.vshard, place);
    const part = parts[place.part];
    if (part === undefined) parts.push([item]);
    else part.push(item);
  }
  return parts.map((list, part) => ({ part, items: list }));
}

/**
 * Cuts a list into requests that keep the items of a vshard together.
 *
 * @throws {ShardloomError} `ERR_RECORD_TOO_LARGE` when those of one vshard do not fit one request.
 */
export function packVshards<Item extends { readonly vshard: number }>(
  items: readonly Item[],
  bytesOf: (item: Item) => number,
  limitBytes: number,
): Item[][] {
  const byVshard = new Map<number, { items: Item[]; bytes: number }>();
  for (const item of items) {
    const group = byVshard.get(item.vshard) ?? { items: [], bytes: 0 };
    byVshard.set(item.vshard, group);
    group.items.push(item);
    group.bytes += bytesOf(item);
  }
  const requests: Item[][] = [];
  let free = 0;
  for (const [vshard, { items: group, bytes }] of byVshard) {
    if (bytes > limitBytes) {
      throw new ShardloomError(
        "ERR_RECORD_TOO_LARGE",
        `Cannot write with idempotencyKey as what one vshard gets must take at most ${limitBytes} bytes: current value is ${bytes}`,
        { details: { vshard, byteLength: bytes, limit: limitBytes } },
      );
    }
    if (bytes > free || requests.length === 0) {
      requests.push([]);
      free = limitBytes;
    }
    requests.at(-1)?.push(...group);
    free -= bytes;
  }
  return requests;
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

/** Checks the options of a write that begins now. @returns options for each of its requests: what is left of its time. @throws {ShardloomError} `ERR_TIMEOUT`, `ERR_INVALID_ARGUMENT` */
export function withinCall(coordinator: Coordinator, options: WriteOptions): () => WriteOptions {
  coordinator.checkWrite(options);
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
