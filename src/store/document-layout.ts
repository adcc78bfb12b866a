/**
 * Keys and values of the documents' LMDB environment.
 *
 * ```
 *  meta      00                                              → crc, JSON
 *  vshard    01 | u16 vshard                                 → crc, JSON
 *  key       02 | f64 position | u32 index                   → crc, JSON
 *  document  10 | u32 collection | u16 vshard | u8 kind | id → u32 crc | u32 type | f64 position | f64 version | u32 index | 0, body
 * ```
 *
 * Numbers in keys are big-endian, so that the order of bytes is theirs; those in values little-endian. A document's body is that of an effect
 * which writes exactly this document. Position and index say which entry of the shard's log wrote it last.
 * Invariant: every value begins with the checksum of its key and of the rest of it: a value that was flipped, or that lies under another
 * key, is found. A key takes at most {@link MAX_KEY_BYTES}, which LMDB admits with its pages of 4 KiB.
 */
import { ShardloomError } from "../errors.ts";
import { crc32 } from "../runtime/checksum.ts";
import { idKindOf, idLengthOf, isIdWord } from "./id-codec.ts";

/** Version of this layout. A newer one is refused. */
export const DOCUMENTS_FORMAT = 1;
export const MAX_KEY_BYTES = 1978;

export const META_KEY: Buffer = Buffer.from([0x00]);
const VSHARD = 0x01;
const IDEMPOTENCY = 0x02;
const DOCUMENT = 0x10;
const CRC_BYTES = 4;
const DOCUMENT_HEADER = 32;
const ID_AT = 8;

/** What an environment says of itself. */
export interface DocumentsMeta {
  readonly format: number;
  readonly clusterId: string;
  readonly shard: number;
  /** Everything up to this position of the shard's log is in the documents. */
  readonly appliedPosition: number;
  /** The documents are as at one position only when the log was applied up to here; before, some may be newer than others. */
  readonly wholeAt: number;
  /** Documents are being taken over from a snapshot: without all of them the environment is worth nothing. */
  readonly building: boolean;
  /** Number of all other records, and the sum of their checksums modulo 2^52. */
  readonly records: number;
  readonly sum: number;
}

/** Whether all of a vshard is there, is being filled in, or nobody knows. */
export type DocumentsState = "whole" | "restoring" | "unknown";

/** How far a vshard is. */
export interface VshardRecord {
  readonly lsn: number;
  readonly state: DocumentsState;
  /** The highest lease epoch under which an entry of it was written. */
  readonly leaseEpoch: number;
  /** Where in the log the restore that goes on began. */
  readonly restoreFrom?: LogPlace;
}

/** An entry of a shard's log: its frame, and which one it is there. */
export interface LogPlace {
  readonly position: number;
  readonly index: number;
}

/** What makes a repetition of a write known. */
export interface IdempotencyRecord extends LogPlace {
  readonly vshard: number;
  readonly lsn: number;
  readonly key: string;
  readonly result: Uint8Array;
}

/** A document as it is stored. */
export interface StoredDocument {
  readonly collection: number;
  readonly vshard: number;
  /** Message type of the effect that `body` is. */
  readonly type: number;
  readonly version: number;
  readonly place: LogPlace;
  readonly body: Uint8Array;
}

/** A key as it was read. */
export type ReadKey =
  | { readonly kind: "meta" }
  | { readonly kind: "vshard"; readonly vshard: number }
  | { readonly kind: "key" }
  | { readonly kind: "document"; readonly collection: number; readonly vshard: number };

export function vshardKey(vshard: number): Buffer {
  const key = Buffer.alloc(3, VSHARD);
  key.writeUInt16BE(vshard, 1);
  return key;
}

export function idempotencyKey({ position, index }: LogPlace): Buffer {
  const key = Buffer.alloc(13, IDEMPOTENCY);
  key.writeDoubleBE(position, 1); // of numbers ≥ 0 the bytes are in the numbers' order
  key.writeUInt32BE(index, 9);
  return key;
}

/**
 * @param id Bytes of the id whose word is `idWord`.
 * @throws {ShardloomError} `ERR_RECORD_TOO_LARGE` when the id is longer than a key can be.
 */
export function documentKey(collection: number, vshard: number, idWord: number, id: Uint8Array): Buffer {
  const length = ID_AT + idLengthOf(idWord);
  if (length > MAX_KEY_BYTES) throw tooLong(id.length);
  const key = Buffer.allocUnsafe(length);
  key[0] = DOCUMENT;
  key.writeUInt32BE(collection, 1);
  key.writeUInt16BE(vshard, 5);
  key[7] = idKindOf(idWord);
  key.set(id.subarray(0, length - ID_AT), ID_AT);
  return key;
}

/** Keys of the documents of a vshard in a collection: from the first one on, below the second. */
export function vshardRange(collection: number, vshard: number): { start: Buffer; end: Buffer } {
  const start = Buffer.alloc(7, DOCUMENT);
  start.writeUInt32BE(collection, 1);
  start.writeUInt16BE(vshard, 5);
  const end = Buffer.concat([start, Buffer.alloc(1, 0xff)]);
  return { start, end };
}

/** Keys of the documents of all collections from one on. */
export function documentsRange(fromCollection = 0): { start: Buffer; end: Buffer } {
  const start = Buffer.alloc(5, DOCUMENT);
  start.writeUInt32BE(fromCollection, 1);
  return { start, end: Buffer.from([DOCUMENT + 1]) };
}

export function vshardsRange(): { start: Buffer; end: Buffer } {
  return { start: Buffer.from([VSHARD]), end: Buffer.from([VSHARD + 1]) };
}

export function idempotencyRange(): { start: Buffer; end: Buffer } {
  return { start: Buffer.from([IDEMPOTENCY]), end: Buffer.from([IDEMPOTENCY + 1]) };
}

/** @throws {ShardloomError} `ERR_CORRUPT` */
export function readKey(key: Buffer): ReadKey {
  if (key[0] === 0 && key.length === 1) return { kind: "meta" };
  if (key[0] === VSHARD && key.length === 3) return { kind: "vshard", vshard: key.readUInt16BE(1) };
  if (key[0] === IDEMPOTENCY && key.length === 13) return { kind: "key" };
  const kind = key[7] as number;
  if (key[0] !== DOCUMENT || key.length <= ID_AT || !isIdWord((kind << 24) | (key.length - ID_AT)))
    throw damaged("key", key.subarray(0, 16).toString("hex"));
  return { kind: "document", collection: key.readUInt32BE(1), vshard: key.readUInt16BE(5) };
}

/** The collection and vshard of a document's key. */
export function placeOf(key: Buffer): { collection: number; vshard: number } {
  return { collection: key.readUInt32BE(1), vshard: key.readUInt16BE(5) };
}

export function encodeDocument(key: Buffer, document: Omit<StoredDocument, "collection" | "vshard">): Buffer {
  const { type, version, place, body } = document;
  const value = Buffer.allocUnsafe(DOCUMENT_HEADER + body.length);
  value.writeUInt32LE(type, 4);
  value.writeDoubleLE(place.position, 8);
  value.writeDoubleLE(version, 16);
  value.writeUInt32LE(place.index, 24);
  value.writeUInt32LE(0, 28);
  value.set(body, DOCUMENT_HEADER);
  return seal(key, value);
}

/**
 * The document of a record; its body is a part of the value.
 *
 * @throws {ShardloomError} `ERR_CORRUPT`
 */
export function decodeDocument(key: Buffer, value: Buffer): StoredDocument {
  checkValue(key, value);
  return {
    ...placeOf(key),
    type: value.readUInt32LE(4),
    version: value.readDoubleLE(16),
    place: documentPlace(value),
    body: value.subarray(DOCUMENT_HEADER),
  };
}

/** What a document's effect is on. */
export interface DocumentHead {
  readonly collection: number;
  readonly vshard: number;
  readonly type: number;
}

/** As {@link decodeDocument}, for those that load many. @throws {ShardloomError} `ERR_CORRUPT` */
export function decodeHead(key: Buffer, value: Buffer): DocumentHead {
  checkValue(key, value);
  return { collection: key.readUInt32BE(1), vshard: key.readUInt16BE(5), type: value.readUInt32LE(4) };
}

/** The body of a document's value, as a part of it. */
export function documentBody(value: Buffer): Uint8Array {
  return value.subarray(DOCUMENT_HEADER);
}

/** Which entry of the log wrote a document, by its value. */
export function documentPlace(value: Buffer): LogPlace {
  return { position: value.readDoubleLE(8), index: value.readUInt32LE(24) };
}

export function isBefore(a: LogPlace, b: LogPlace): boolean {
  return a.position < b.position || (a.position === b.position && a.index < b.index);
}

/** Any other value. */
export function encodeJson(key: Buffer, json: unknown): Buffer {
  const text = Buffer.from(JSON.stringify(json));
  return seal(key, Buffer.concat([Buffer.alloc(CRC_BYTES), text]));
}

/** @throws {ShardloomError} `ERR_CORRUPT` */
export function decodeJson<T>(key: Buffer, value: Buffer): T {
  checkValue(key, value);
  return JSON.parse(value.toString("utf8", CRC_BYTES)) as T;
}

/** The checksum that a value begins with. */
export function checksumOf(value: Buffer): number {
  return value.readUInt32LE(0);
}

/**
 * @throws {ShardloomError} `ERR_CORRUPT` when the value is not the one that was stored under the key.
 */
export function checkValue(key: Buffer, value: Buffer): void {
  const least = key[0] === DOCUMENT ? DOCUMENT_HEADER : CRC_BYTES;
  if (value.length < least || checksumOf(value) !== checksum(key, value))
    throw damaged("value", key.subarray(0, 16).toString("hex"));
}

/** Adds a checksum to the sum of all, or takes it away. */
export function addChecksum(sum: number, checksum: number, sign: 1 | -1): number {
  const total = (sum + sign * checksum) % SUM_MODULUS;
  return total < 0 ? total + SUM_MODULUS : total;
}

const SUM_MODULUS: number = 2 ** 52;

function seal(key: Buffer, value: Buffer): Buffer {
  value.writeUInt32LE(checksum(key, value), 0);
  return value;
}

function checksum(key: Buffer, value: Buffer): number {
  return crc32(value.subarray(CRC_BYTES), crc32(key));
}

export function damaged(name: string, value: unknown): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot read documents as each ${name} must be as it was written: current value is ${value}`,
    { details: { name, value } },
  );
}

function tooLong(length: number): ShardloomError {
  return new ShardloomError(
    "ERR_RECORD_TOO_LARGE",
    `Cannot store document as its id must have at most ${MAX_KEY_BYTES - ID_AT} bytes: current value is ${length}`,
    { details: { limit: MAX_KEY_BYTES - ID_AT, value: length } },
  );
}
