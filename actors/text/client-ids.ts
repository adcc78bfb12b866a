/**
 * Requests that name ids (get, delete), from a client: grouped by shard, split into what fits one request and one reply.
 *
 * Invariant: all ids are checked before the first request is sent. A get whose reply would not fit is halved until it does.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { Payload, ReplyFrame } from "../../src/routing/requester.ts";
import { type DocumentId, idWordOf } from "../../src/store/id-codec.ts";
import { vshardOfHash } from "../../src/topology/snapshot.ts";
import { hashId } from "../../src/topology/stable-hash.ts";
import { VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { TEXT_DELETE, TEXT_GET } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../coordinator.ts";
import type { TextCollectionParts } from "./client-collection.ts";
import { readCountReply, readGetReply, type StoredBody } from "./text-replies.ts";
import { idsRequestBytes, writeIdsRequest } from "./text-requests.ts";
import { shardOf } from "./text-routing.ts";

/** Ids of one shard, with their places in the caller's list. */
interface Group {
  readonly shard: number;
  readonly ids: DocumentId[];
  readonly hashes: number[];
  readonly places: number[];
}

/** Calls `take` for each document that exists, with the place of its id. */
export async function getIds(
  parts: TextCollectionParts,
  ids: readonly DocumentId[],
  options: CallOptions,
  take: (place: number, stored: StoredBody) => void,
): Promise<void> {
  const get = async (group: Group): Promise<void> => {
    try {
      const decode = (frame: ReplyFrame): (StoredBody | undefined)[] => readGetReply(frame, frame.offset, frame.length);
      const found = await askIds(parts, group, TEXT_GET, options, decode);
      for (const [at, stored] of found.entries()) if (stored !== undefined) take(group.places[at] as number, stored);
    } catch (error) {
      if (!ShardloomError.is(error) || error.code !== "ERR_RECORD_TOO_LARGE" || group.ids.length === 1) throw error;
      const middle = group.ids.length >> 1;
      await Promise.all([get(slice(group, 0, middle)), get(slice(group, middle))]);
    }
  };
  await Promise.all(groupIds(parts, ids, "get").map(get));
}

/** Removes documents. @returns how many were there */
export async function deleteIds(
  parts: TextCollectionParts,
  ids: readonly DocumentId[],
  options: CallOptions,
): Promise<number> {
  const groups = groupIds(parts, ids, "delete");
  const counts = await Promise.all(
    groups.map((group) => askIds(parts, group, TEXT_DELETE, options, (frame) => readCountReply(frame, frame.offset))),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

function askIds<T>(
  { coordinator, collectionId }: TextCollectionParts,
  group: Group,
  type: number,
  options: CallOptions,
  decode: (frame: ReplyFrame) => T,
): Promise<T> {
  const payload: Payload = {
    byteLength: idsRequestBytes(group.ids),
    write: (target, offset) => writeIdsRequest(target, offset, collectionId, group.ids, group.hashes, 0),
  };
  return coordinator.ask(group.shard, type, VSHARD_LISTED, payload, decode, options);
}

function groupIds(parts: TextCollectionParts, ids: readonly DocumentId[], action: string): Group[] {
  if (!Array.isArray(ids)) throw invalidArgument(action, "ids", "an array of ids", ids);
  const { coordinator } = parts;
  const byShard = new Map<number, Group>();
  for (const [place, id] of (ids as readonly DocumentId[]).entries()) {
    idWordOf(id);
    const hash = hashId(id);
    const shard = shardOf(parts, vshardOfHash(coordinator.snapshot, hash));
    const group = byShard.get(shard) ?? { shard, ids: [], hashes: [], places: [] };
    byShard.set(shard, group);
    group.ids.push(id);
    group.hashes.push(hash);
    group.places.push(place);
  }
  return [...byShard.values()].flatMap((group) =>
    fitRequests(group, coordinator.requester(group.shard).maxPayloadBytes),
  );
}

function fitRequests(group: Group, limitBytes: number): Group[] {
  if (group.ids.length === 1 || idsRequestBytes(group.ids) <= limitBytes) return [group];
  const middle = group.ids.length >> 1;
  return [...fitRequests(slice(group, 0, middle), limitBytes), ...fitRequests(slice(group, middle), limitBytes)];
}

function slice({ shard, ids, hashes, places }: Group, from: number, to?: number): Group {
  return { shard, ids: ids.slice(from, to), hashes: hashes.slice(from, to), places: places.slice(from, to) };
}
