/**
 * Requests that name ids (get, delete), from a client: grouped by shard, split into what fits one request and one reply.
 *
 * Invariant: all ids are checked before the first request is sent. A get whose reply would not fit is halved until it does.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { Payload, ReplyFrame } from "../../src/routing/requester.ts";
import { ownerOf, vshardOfHash } from "../../src/topology/snapshot.ts";
import { hashId } from "../../src/topology/stable-hash.ts";
import { VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { VECTOR_DELETE, VECTOR_GET } from "../../src/wire/message-types.ts";
import { ROUTED_HEADER_BYTES } from "../../src/wire/routed-codec.ts";
import type { CallOptions } from "../coordinator.ts";
import { PRIMARY_WRITE, readComplete, routedPayload, STRONG_READ } from "../routed-payload.ts";
import type { VectorCollectionParts } from "./client-collection.ts";
import { idWordOf, type VectorId } from "./id-codec.ts";
import { readDeleteReply, readGetReply, type StoredVector } from "./vector-replies.ts";
import { idsRequestBytes, writeIdsRequest } from "./vector-requests.ts";

/** Ids of one shard, with their places in the caller's list. */
interface Group {
  readonly shard: number;
  readonly ids: VectorId[];
  readonly hashes: number[];
  readonly places: number[];
}

/** Calls `take` for each document that exists, with the place of its id. */
export async function getIds(
  parts: VectorCollectionParts,
  ids: readonly VectorId[],
  flags: number,
  options: CallOptions,
  take: (place: number, stored: StoredVector) => void,
): Promise<void> {
  const get = async (group: Group): Promise<void> => {
    try {
      const found = await askIds(parts, group, VECTOR_GET, flags, options, (frame) =>
        readGetReply(frame, frame.offset, frame.length),
      );
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
  parts: VectorCollectionParts,
  ids: readonly VectorId[],
  options: CallOptions,
): Promise<number> {
  const groups = groupIds(parts, ids, "delete");
  const counts = await Promise.all(
    groups.map((group) =>
      askIds(parts, group, VECTOR_DELETE, 0, options, (frame) => readDeleteReply(frame, frame.offset).deleted),
    ),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

function askIds<T>(
  parts: VectorCollectionParts,
  group: Group,
  type: number,
  flags: number,
  options: CallOptions,
  decode: (frame: ReplyFrame) => T,
): Promise<T> {
  const payload: Payload = {
    byteLength: idsRequestBytes(group.ids),
    write: (target, offset) => writeIdsRequest(target, offset, parts.collectionId, group.ids, group.hashes, flags),
  };
  const routed = routedPayload(type === VECTOR_GET ? STRONG_READ : PRIMARY_WRITE, payload);
  return parts.coordinator.ask(
    group.shard,
    type,
    VSHARD_LISTED,
    routed,
    (frame) => readComplete(frame, decode),
    options,
  );
}

function groupIds(parts: VectorCollectionParts, ids: readonly VectorId[], action: string): Group[] {
  if (!Array.isArray(ids)) throw invalidArgument(action, "ids", "an array of ids", ids);
  const { coordinator } = parts;
  const byShard = new Map<number, Group>();
  for (const [place, id] of (ids as readonly VectorId[]).entries()) {
    idWordOf(id);
    const hash = hashId(id);
    const shard = ownerOf(coordinator.snapshot, vshardOfHash(coordinator.snapshot, hash));
    const group = byShard.get(shard) ?? { shard, ids: [], hashes: [], places: [] };
    byShard.set(shard, group);
    group.ids.push(id);
    group.hashes.push(hash);
    group.places.push(place);
  }
  return [...byShard.values()].flatMap((group) =>
    fitRequests(group, coordinator.requester(group.shard).maxPayloadBytes - ROUTED_HEADER_BYTES),
  );
}

function fitRequests(group: Group, limitBytes: number): Group[] {
  if (group.ids.length === 1 || idsRequestBytes(group.ids) <= limitBytes) return [group];
  const middle = group.ids.length >> 1;
  return [...fitRequests(slice(group, 0, middle), limitBytes), ...fitRequests(slice(group, middle), limitBytes)];
}

function slice(group: Group, from: number, to?: number): Group {
  const { shard, ids, hashes, places } = group;
  return { shard, ids: ids.slice(from, to), hashes: hashes.slice(from, to), places: places.slice(from, to) };
}
