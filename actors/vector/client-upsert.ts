/**
 * Writing documents from a client: checks and encodes them, groups them by shard, sends them in as few requests as fit.
 *
 * Invariant: nothing is sent before the whole batch was checked, sizes included, so bad input writes nothing on any shard.
 * Vectors and payloads are copied when they are checked: the caller may reuse them at once.
 * When the arena is nearly full the batch takes two rounds, one batch at a time: every shard first reserves the memory
 * it needs, and only when all have it is anything written, so that ERR_OUT_OF_MEMORY leaves no part of a batch behind.
 */
import { describeValue, invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { Payload } from "../../src/routing/requester.ts";
import { type LoadProgress, withDetails } from "../../src/store/bulk-load.ts";
import { rowStride } from "../../src/store/collection-layout.ts";
import { idWordOf } from "../../src/store/id-codec.ts";
import { encodePayload } from "../../src/store/metadata-codec.ts";
import { type TopologySnapshot, vshardOfHash } from "../../src/topology/snapshot.ts";
import { hashId } from "../../src/topology/stable-hash.ts";
import { VECTOR_UPSERT } from "../../src/wire/message-types.ts";
import type { WriteOptions } from "../call-options.ts";
import { groupByPrimary, packVshards, partsOfWrite, settleAll, withinCall, writeOnce } from "../write-groups.ts";
import type { VectorCollectionParts, VectorDocument } from "./client-collection.ts";
import { copyVector } from "./vector-checks.ts";
import { readUpsertReply, type UpsertReply } from "./vector-replies.ts";
import {
  type Reservation,
  type UpsertItem,
  upsertItemBytes,
  upsertRequestBytes,
  writeUpsertRequest,
} from "./vector-requests.ts";

/** Memory per shard that growth may take at once: a row chunk and a heap chunk, each rounded up to a power of two. */
const GROWTH_BYTES = 40 * 1024 * 1024;

/** Items [from, to) of one shard's list: one request. */
interface Part {
  readonly snapshot: TopologySnapshot;
  readonly shard: number;
  readonly items: readonly UpsertItem[];
  readonly from: number;
  readonly to: number;
  readonly byteLength: number;
  /** Which part of a write with a key; 0 without one. */
  readonly part: number;
}

/** Bytes after which a request is full: its shard may have to index as much first (some 200 ms), and must not hold its thread for longer. */
const REQUEST_BYTES: number = 256 * 1024;

/** Checks one document and takes copies of what it holds. @throws {ShardloomError} naming what is wrong with it. */
export function prepareItem(parts: VectorCollectionParts, document: VectorDocument): UpsertItem {
  if (document === null || typeof document !== "object")
    throw invalidArgument("upsert", "document", "an object with id and vector", document);
  const { id, vector, payload } = document;
  idWordOf(id);
  const hash = hashId(id);
  const copy = copyVector("upsert", parts.options, vector, id);
  const encoded = payload === undefined ? undefined : encodePayload(payload, id);
  return { id, hash, vshard: vshardOfHash(parts.coordinator.snapshot, hash), vector: copy, payload: encoded };
}

/** @throws {ShardloomError} `ERR_DUPLICATE_ID` when an id stands twice. */
export function refuseDuplicates(items: readonly UpsertItem[]): void {
  const seen = new Set<string | number>();
  for (const [position, { id }] of items.entries()) {
    if (seen.has(id)) {
      throw new ShardloomError(
        "ERR_DUPLICATE_ID",
        `Cannot upsert batch as its ids must be distinct: ${describeValue(id)} stands again at position ${position}`,
        {
          details: { id, position },
        },
      );
    }
    seen.add(id);
  }
}

/** Bytes that an item takes in a request. @throws {ShardloomError} `ERR_RECORD_TOO_LARGE` when no request can hold it. */
export function itemBytes(parts: VectorCollectionParts, item: UpsertItem): number {
  const { coordinator, options } = parts;
  const limit = coordinator.maxWriteBytes - upsertRequestBytes(options.dimensions, [], 0, 0);
  const byteLength = upsertItemBytes(options.dimensions, item);
  if (byteLength <= limit) return byteLength;
  throw new ShardloomError(
    "ERR_RECORD_TOO_LARGE",
    `Cannot upsert ${describeValue(item.id)} as a document must take at most ${limit} bytes: current value is ${byteLength}`,
    {
      details: { id: item.id, byteLength, limit },
    },
  );
}

/** Writes checked items with distinct ids. On an error `details.written` tells how many of them were acknowledged. */
export async function upsertItems(
  parts: VectorCollectionParts,
  items: readonly UpsertItem[],
  options: WriteOptions,
  priority: number | undefined,
): Promise<LoadProgress> {
  const keyed = options.idempotencyKey !== undefined;
  const bytesOf = (item: UpsertItem): number => itemBytes(parts, item);
  const requests = partsOfWrite(items, bytesOf, options).flatMap((each) =>
    keyed ? splitKeyed(parts, each.items, each.part) : split(parts, each.items),
  );
  const call = withinCall(parts.coordinator, options);
  if (!isTight(parts, items)) return write(parts, requests, call, priority, keyed);
  const turn = parts.reservations.tail.then(async () => {
    const shards = new Set(requests.map((part) => part.shard));
    await settleAll(
      [...shards].map((shard) =>
        reserve(
          parts,
          requests.filter((part) => part.shard === shard),
          call,
          priority,
        ),
      ),
    );
    return write(parts, requests, call, priority, keyed);
  });
  parts.reservations.tail = turn.catch(() => undefined); // its caller has the error
  return turn;
}

/** Groups by shard, then by what fits one request. */
function split(parts: VectorCollectionParts, items: readonly UpsertItem[]): Part[] {
  const { coordinator, options } = parts;
  const { dimensions } = options;
  const header = upsertRequestBytes(dimensions, [], 0, 0);
  const limit = Math.min(coordinator.maxWriteBytes, REQUEST_BYTES);
  return groupByPrimary(coordinator, items).flatMap(({ snapshot, shard, items: group }) => {
    const requests: Part[] = [];
    for (let from = 0; from < group.length; ) {
      let byteLength = header;
      let to = from;
      for (; to < group.length; to++) {
        const bytes = itemBytes(parts, group[to] as UpsertItem);
        if (to > from && byteLength + bytes > limit) break;
        byteLength += bytes;
      }
      requests.push({ snapshot, shard, items: group, from, to, byteLength, part: 0 });
      from = to;
    }
    return requests;
  });
}

/** The same for a part of a write with a key: the items of a vshard stay together. */
function splitKeyed(parts: VectorCollectionParts, items: readonly UpsertItem[], part: number): Part[] {
  const { coordinator, options } = parts;
  const { dimensions } = options;
  const limit = coordinator.maxWriteBytes - upsertRequestBytes(dimensions, [], 0, 0);
  return groupByPrimary(coordinator, items).flatMap(({ snapshot, shard, items: group }) =>
    packVshards(group, (item) => itemBytes(parts, item), limit).map((packed): Part => {
      const to = packed.length;
      const byteLength = upsertRequestBytes(dimensions, packed, 0, to);
      return { snapshot, shard, items: packed, from: 0, to, byteLength, part };
    }),
  );
}

/** Whether this batch could meet the end of the arena. Memory that blocks gave back is not counted: it may not fit. */
function isTight(parts: VectorCollectionParts, items: readonly UpsertItem[]): boolean {
  const { capacityBytes, touchedBytes } = parts.arena.stats();
  let batchBytes = 0;
  for (const item of items)
    batchBytes += rowStride(parts.options.dimensions) + upsertItemBytes(parts.options.dimensions, item);
  const directoriesBytes = touchedBytes / 2;
  return (
    capacityBytes - touchedBytes < parts.coordinator.snapshot.shards * GROWTH_BYTES + 4 * batchBytes + directoriesBytes
  );
}

/** Reserves memory for all parts of one shard, one after the other, each beyond those before it. */
async function reserve(
  parts: VectorCollectionParts,
  requests: readonly Part[],
  call: () => WriteOptions,
  priority: number | undefined,
): Promise<void> {
  let before: Reservation = { rows: 0, bytes: 0 };
  for (const part of requests) {
    const { inserted, firstVersion: bytes } = await send(parts, part, call, priority, before);
    before = { rows: before.rows + inserted, bytes: before.bytes + bytes };
  }
}

async function write(
  parts: VectorCollectionParts,
  requests: readonly Part[],
  call: () => WriteOptions,
  priority: number | undefined,
  keyed: boolean,
): Promise<LoadProgress> {
  let written = 0;
  let inserted = 0;
  const sendPart = (part: Part): Promise<UpsertReply> => send(parts, part, call, priority);
  const regroup = ({ items, from, to, part }: Part): Part[] => {
    const again = items.slice(from, to);
    return keyed ? splitKeyed(parts, again, part) : split(parts, again);
  };
  const calls = requests.map(async (part) => {
    for (const reply of await writeOnce(part, sendPart, regroup)) {
      written += reply.count;
      inserted += reply.inserted;
    }
  });
  try {
    await settleAll(calls);
  } catch (error) {
    throw withDetails(error, { written });
  }
  return { written, inserted };
}

function send(
  parts: VectorCollectionParts,
  part: Part,
  call: () => WriteOptions,
  priority: number | undefined,
  reserved?: Reservation,
): Promise<UpsertReply> {
  const { coordinator, collectionId } = parts;
  const { dimensions } = parts.options;
  const { snapshot, shard, items, from, to, byteLength } = part;
  const { idempotencyKey, ...options } = call();
  // What only reserves memory is no write.
  const keyed = reserved === undefined && idempotencyKey !== undefined ? { ...options, idempotencyKey } : options;
  const body: Payload = {
    byteLength,
    write: (target, offset) => writeUpsertRequest(target, offset, collectionId, dimensions, items, from, to, reserved),
  };
  return coordinator.write(snapshot, shard, VECTOR_UPSERT, body, readUpsertReply, keyed, priority, part.part);
}
