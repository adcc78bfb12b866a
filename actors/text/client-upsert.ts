/**
 * Writing documents from a client: checks and encodes them, groups them by shard, sends them in requests of bounded size.
 *
 * Invariant: nothing is sent before the whole batch was checked, sizes included, so bad input writes nothing on any shard.
 * Texts and payloads are copied when they are checked: the caller may reuse them at once.
 */
import { describeValue, invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { Payload } from "../../src/routing/requester.ts";
import { type LoadProgress, withDetails } from "../../src/store/bulk-load.ts";
import { idWordOf } from "../../src/store/id-codec.ts";
import { encodePayload } from "../../src/store/metadata-codec.ts";
import { vshardOfHash } from "../../src/topology/snapshot.ts";
import { hashId } from "../../src/topology/stable-hash.ts";
import { VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { TEXT_UPSERT } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../coordinator.ts";
import type { TextCollectionParts, TextDocument } from "./client-collection.ts";
import { encodeBody } from "./document-body.ts";
import { readUpsertReply } from "./text-replies.ts";
import { UPSERT_HEADER, type UpsertItem, upsertItemBytes, writeUpsertRequest } from "./text-requests.ts";
import { shardOf } from "./text-routing.ts";

/** Bytes after which a request is full: a shard indexes some 10 MB a second, and must not hold its thread for long. */
const REQUEST_BYTES = 256 * 1024;

interface Part {
  readonly shard: number;
  readonly items: readonly UpsertItem[];
  readonly byteLength: number;
}

/** Checks one document and takes copies of what it holds. @throws {ShardloomError} naming what is wrong with it. */
export function prepareItem(parts: TextCollectionParts, document: TextDocument): UpsertItem {
  if (document === null || typeof document !== "object")
    throw invalidArgument("upsert", "document", "an object with id and fields or text", document);
  const { id, payload } = document;
  idWordOf(id);
  const hash = hashId(id);
  const body = encodeBody(textsOf(parts, document), payload === undefined ? undefined : encodePayload(payload, id));
  const item: UpsertItem = { id, hash, vshard: vshardOfHash(parts.coordinator.snapshot, hash), body };
  const { maxPayloadBytes } = parts.coordinator.requester(shardOf(parts, item.vshard));
  const byteLength = itemBytes(item);
  const limit = maxPayloadBytes - UPSERT_HEADER;
  if (byteLength <= limit) return item;
  throw new ShardloomError(
    "ERR_RECORD_TOO_LARGE",
    `Cannot upsert ${describeValue(id)} as a document must take at most ${limit} bytes: current value is ${byteLength}`,
    { details: { id, byteLength, limit } },
  );
}

/** Bytes that an item takes in a request. */
export function itemBytes(item: UpsertItem): number {
  return upsertItemBytes(item);
}

/** @throws {ShardloomError} `ERR_DUPLICATE_ID` when an id stands twice. */
export function refuseDuplicates(items: readonly UpsertItem[]): void {
  const seen = new Set<string | number>();
  for (const [position, { id }] of items.entries()) {
    if (seen.has(id)) {
      throw new ShardloomError(
        "ERR_DUPLICATE_ID",
        `Cannot upsert batch as its ids must be distinct: ${describeValue(id)} stands again at position ${position}`,
        { details: { id, position } },
      );
    }
    seen.add(id);
  }
}

/** Writes checked items with distinct ids. On an error `details.written` tells how many of them were acknowledged. */
export async function upsertItems(
  parts: TextCollectionParts,
  items: readonly UpsertItem[],
  options: CallOptions,
  priority: number,
): Promise<LoadProgress> {
  let written = 0;
  let inserted = 0;
  const calls = split(parts, items).map(async (part) => {
    const reply = await send(parts, part, options, priority);
    written += reply.count;
    inserted += reply.inserted;
  });
  // All are waited for, also when one fails: an answer must not come before the state is settled.
  const settled = await Promise.allSettled(calls);
  const failed = settled.find((entry) => entry.status === "rejected");
  if (failed !== undefined) throw withDetails(failed.reason, { written });
  return { written, inserted };
}

function textsOf({ options }: TextCollectionParts, { id, fields, text }: TextDocument): (string | undefined)[] {
  const given: unknown = fields ?? (text === undefined ? undefined : { text });
  if (typeof given !== "object" || given === null || (fields !== undefined && text !== undefined))
    throw invalidArgument("upsert", `document ${describeValue(id)}`, "given either fields or text", fields ?? text);
  for (const [name, value] of Object.entries(given)) {
    if (!options.fields.includes(name))
      throw invalidArgument(
        "upsert",
        `field of document ${describeValue(id)}`,
        `one of ${options.fields.join(", ")}`,
        name,
      );
    if (value !== undefined && typeof value !== "string")
      throw invalidArgument("upsert", `field ${name} of document ${describeValue(id)}`, "a string", value);
  }
  return options.fields.map((name) => (given as Readonly<Record<string, string | undefined>>)[name]);
}

/** Groups by shard, then by what fits one request. */
function split(parts: TextCollectionParts, items: readonly UpsertItem[]): Part[] {
  const byShard = new Map<number, UpsertItem[]>();
  for (const item of items) {
    const shard = shardOf(parts, item.vshard);
    const group = byShard.get(shard) ?? [];
    byShard.set(shard, group);
    group.push(item);
  }
  return [...byShard].flatMap(([shard, group]) => {
    const limit = Math.min(parts.coordinator.requester(shard).maxPayloadBytes, REQUEST_BYTES);
    const requests: Part[] = [];
    for (let from = 0; from < group.length; ) {
      let to = from;
      let byteLength = UPSERT_HEADER;
      do byteLength += itemBytes(group[to++] as UpsertItem);
      while (to < group.length && byteLength + itemBytes(group[to] as UpsertItem) <= limit);
      requests.push({ shard, items: group.slice(from, to), byteLength });
      from = to;
    }
    return requests;
  });
}

function send(
  { coordinator, collectionId }: TextCollectionParts,
  { shard, items, byteLength }: Part,
  options: CallOptions,
  priority: number,
): Promise<{ count: number; inserted: number }> {
  const payload: Payload = {
    byteLength,
    write: (target, offset) => writeUpsertRequest(target, offset, collectionId, items),
  };
  const decode = (frame: Parameters<typeof readUpsertReply>[0] & { readonly offset: number }) =>
    readUpsertReply(frame, frame.offset);
  return coordinator.ask(shard, TEXT_UPSERT, VSHARD_LISTED, payload, decode, options, priority);
}
