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
import { TEXT_UPSERT } from "../../src/wire/message-types.ts";
import type { WriteOptions } from "../call-options.ts";
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
import type { TextCollectionParts, TextDocument } from "./client-collection.ts";
import { encodeBody } from "./document-body.ts";
import { readUpsertReply, type UpsertReply } from "./text-replies.ts";
import { UPSERT_HEADER, type UpsertItem, upsertItemBytes, writeUpsertRequest } from "./text-requests.ts";

/** Bytes after which a request is full: a shard indexes some 10 MB a second, and must not hold its thread for long. */
const REQUEST_BYTES = 64 * 1024;

/** Documents for one shard, of one part of a write. */
type Group = WriteGroup<UpsertItem> & WritePart<UpsertItem>;

/** Checks one document and takes copies of what it holds. @throws {ShardloomError} naming what is wrong with it. */
export function prepareItem(parts: TextCollectionParts, document: TextDocument): UpsertItem {
  if (document === null || typeof document !== "object")
    throw invalidArgument("upsert", "document", "an object with id and fields or text", document);
  const { id, payload } = document;
  idWordOf(id);
  const hash = hashId(id);
  const body = encodeBody(textsOf(parts, document), payload === undefined ? undefined : encodePayload(payload, id));
  const item: UpsertItem = { id, hash, vshard: vshardOfHash(parts.coordinator.snapshot, hash), body };
  const byteLength = upsertItemBytes(item);
  const limit = parts.coordinator.maxWriteBytes - UPSERT_HEADER;
  if (byteLength <= limit) return item;
  throw new ShardloomError(
    "ERR_RECORD_TOO_LARGE",
    `Cannot upsert ${describeValue(id)} as a document must take at most ${limit} bytes: current value is ${byteLength}`,
    { details: { id, byteLength, limit } },
  );
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
  options: WriteOptions,
  priority: number | undefined,
): Promise<LoadProgress> {
  let written = 0;
  let inserted = 0;
  const call = withinCall(parts.coordinator, options);
  const keyed = options.idempotencyKey !== undefined;
  const sendGroup = (group: Group): Promise<UpsertReply> => send(parts, group, call(), priority);
  const regroup = (part: WritePart<UpsertItem>): Group[] =>
    groupByPrimary(parts.coordinator, part.items).flatMap((next) => split(parts, { ...next, part: part.part }, keyed));
  const calls = partsOfWrite(items, upsertItemBytes, options)
    .flatMap(regroup)
    .map(async (group) => {
      for (const reply of await writeOnce(group, sendGroup, regroup)) {
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

/** Cuts a group into what fits one request. */
function split({ coordinator }: TextCollectionParts, group: Group, keyed: boolean): Group[] {
  const limit = Math.min(coordinator.maxWriteBytes, REQUEST_BYTES) - UPSERT_HEADER;
  const { items } = group;
  if (keyed) {
    const largest = items.reduce((most, item) => Math.max(most, upsertItemBytes(item)), limit); // alone it may be larger
    return packVshards(items, upsertItemBytes, largest).map((packed) => ({ ...group, items: packed }));
  }
  const requests: Group[] = [];
  for (let from = 0; from < items.length; ) {
    let to = from;
    let byteLength = 0;
    do byteLength += upsertItemBytes(items[to++] as UpsertItem);
    while (to < items.length && byteLength + upsertItemBytes(items[to] as UpsertItem) <= limit);
    requests.push({ ...group, items: items.slice(from, to) });
    from = to;
  }
  return requests;
}

function send(
  { coordinator, collectionId }: TextCollectionParts,
  { snapshot, shard, items, part }: Group,
  options: WriteOptions,
  priority: number | undefined,
): Promise<UpsertReply> {
  const body: Payload = {
    byteLength: items.reduce((sum, item) => sum + upsertItemBytes(item), UPSERT_HEADER),
    write: (target, offset) => writeUpsertRequest(target, offset, collectionId, items),
  };
  return coordinator.write(snapshot, shard, TEXT_UPSERT, body, readUpsertReply, options, priority, part);
}
