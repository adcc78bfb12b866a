/**
 * Requests that name ids (get, delete), from a client: one plan per list that fits, one request per shard of it.
 *
 * Invariant: all ids are checked before the first request is sent. A get whose reply would not fit is halved until it does.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { PlanTarget } from "../../src/routing/plan.ts";
import type { Payload } from "../../src/routing/requester.ts";
import { assertBatch } from "../../src/store/bulk-load.ts";
import { type DocumentId, idWordOf } from "../../src/store/id-codec.ts";
import { vshardOfHash } from "../../src/topology/snapshot.ts";
import { hashId } from "../../src/topology/stable-hash.ts";
import { TEXT_DELETE, TEXT_GET } from "../../src/wire/message-types.ts";
import type { ReadOptions, WriteOptions } from "../call-options.ts";
import { scopeOf } from "../planned-read.ts";
import {
  groupByPrimary,
  packVshards,
  partsOfWrite,
  settleAll,
  type WriteGroup,
  type WritePart,
  withinCall,
  writeOnce,
} from "../write-groups.ts";
import type { TextCollectionParts } from "./client-collection.ts";
import { readCountReply, readGetReply, type StoredBody } from "./text-replies.ts";
import { idsRequestBytes, writeIdsRequest } from "./text-requests.ts";

/** Bytes of ids in one request with a key: its answer must fit, as it is not halved. */
const MAX_KEYED_BYTES: number = 16 * 1024;

/** An id of the caller's list. */
interface Wanted {
  readonly id: DocumentId;
  readonly hash: number;
  readonly vshard: number;
  /** Its place in the list. */
  readonly place: number;
}

/** What one shard found of the ids that it was asked for. */
interface Found {
  readonly wanted: readonly Wanted[];
  readonly documents: readonly (StoredBody | undefined)[];
}

/** Calls `take` for each document that exists, with the place of its id, and how far it may be behind. */
export async function getIds(
  parts: TextCollectionParts,
  ids: readonly DocumentId[],
  options: ReadOptions,
  take: (place: number, stored: StoredBody, stalenessMs: number) => void,
): Promise<void> {
  const wanted = toWanted(parts, ids, "get");
  await Promise.all(fitRequests(parts, wanted).map((list) => getList(parts, list, options, take)));
}

/** Ids for one shard, of one part of a delete. */
type Group = WriteGroup<Wanted> & WritePart<Wanted>;

/** Removes documents. @returns how many were there */
export async function deleteIds(
  parts: TextCollectionParts,
  ids: readonly DocumentId[],
  options: WriteOptions,
): Promise<number> {
  const { coordinator } = parts;
  const call = withinCall(coordinator, options);
  const send = ({ snapshot, shard, items, part }: Group): Promise<number> => {
    const body = idsPayload(parts, items);
    return coordinator.write(snapshot, shard, TEXT_DELETE, body, readCountReply, call(), undefined, part);
  };
  const regroup = ({ items, part }: WritePart<Wanted>): Group[] =>
    groupByPrimary(coordinator, items).flatMap((group) =>
      fitWrites(parts, group.items, options).map((fitting) => ({ ...group, items: fitting, part })),
    );
  const requests = partsOfWrite(toDelete(parts, ids, options), bytesOf, options)
    .flatMap(regroup)
    .map((group) => writeOnce(group, send, regroup));
  return (await settleAll(requests)).flat().reduce((sum, count) => sum + count, 0);
}

async function getList(
  parts: TextCollectionParts,
  list: readonly Wanted[],
  options: ReadOptions,
  take: (place: number, stored: StoredBody, stalenessMs: number) => void,
): Promise<void> {
  const { coordinator } = parts;
  try {
    const { answers, stalenessMs } = await coordinator.read<Found>(
      scopeOf(list.map(({ vshard }) => vshard)),
      {
        type: TEXT_GET,
        body: (target) => idsPayload(parts, ofTarget(list, target)),
        decode: (frame, offset, length, target) => ({
          wanted: ofTarget(list, target),
          documents: readGetReply(frame, offset, length),
        }),
        count: ({ documents }) => documents.length,
      },
      options,
    );
    for (const { wanted, documents } of answers) {
      for (const [at, stored] of documents.entries())
        if (stored !== undefined) take((wanted[at] as Wanted).place, stored, stalenessMs);
    }
  } catch (error) {
    if (!ShardloomError.is(error) || error.code !== "ERR_RECORD_TOO_LARGE" || list.length === 1) throw error;
    const middle = list.length >> 1;
    await Promise.all([list.slice(0, middle), list.slice(middle)].map((half) => getList(parts, half, options, take)));
  }
}

/** The items of a batch that one target is asked for; after a failure it may be fewer than were planned. */
function ofTarget(list: readonly Wanted[], { items, vshards }: PlanTarget): readonly Wanted[] {
  if (items !== undefined) return Array.from(items, (at) => list[at] as Wanted);
  const asked = new Set(vshards);
  return list.filter(({ vshard }) => asked.has(vshard));
}

function idsPayload(parts: TextCollectionParts, wanted: readonly Wanted[]): Payload {
  const ids = wanted.map(({ id }) => id);
  return {
    byteLength: idsRequestBytes(ids),
    write: (target, offset) =>
      writeIdsRequest(
        target,
        offset,
        parts.collectionId,
        ids,
        wanted.map(({ hash }) => hash),
        0,
      ),
  };
}

function toWanted({ coordinator }: TextCollectionParts, ids: readonly DocumentId[], action: string): Wanted[] {
  if (!Array.isArray(ids)) throw invalidArgument(action, "ids", "an array of ids", ids);
  assertBatch(action, "ids", ids);
  const { snapshot } = coordinator;
  return (ids as readonly DocumentId[]).map((id, place) => {
    idWordOf(id);
    const hash = hashId(id);
    return { id, hash, vshard: vshardOfHash(snapshot, hash), place };
  });
}

/** Lists that fit one request each, whichever shards they go to. */
function fitRequests(parts: TextCollectionParts, list: readonly Wanted[]): (readonly Wanted[])[] {
  if (list.length === 0) return [];
  if (list.length === 1 || idsRequestBytes(list.map(({ id }) => id)) <= parts.coordinator.maxBodyBytes) return [list];
  const middle = list.length >> 1;
  return [...fitRequests(parts, list.slice(0, middle)), ...fitRequests(parts, list.slice(middle))];
}

/** What a delete is of. One with a key counts each id once, whichever of its requests is repeated. */
function toDelete(parts: TextCollectionParts, ids: readonly DocumentId[], { idempotencyKey }: WriteOptions): Wanted[] {
  const wanted = toWanted(parts, ids, "delete");
  if (idempotencyKey === undefined) return wanted;
  return [...new Map(wanted.map((each) => [each.id, each])).values()];
}

function bytesOf({ id }: Wanted): number {
  return idsRequestBytes([id]);
}

/** Lists that fit one request each; with a key the ids of a vshard stay together. */
function fitWrites(
  parts: TextCollectionParts,
  list: readonly Wanted[],
  { idempotencyKey }: WriteOptions,
): readonly (readonly Wanted[])[] {
  if (idempotencyKey === undefined) return fitRequests(parts, list);
  return packVshards(list, bytesOf, Math.min(MAX_KEYED_BYTES, parts.coordinator.maxWriteBytes));
}
