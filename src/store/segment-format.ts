/**
 * Bytes of a shard log: the header of a segment, and the records in it. No I/O, no state.
 *
 * Invariant: every byte of a header and of a record is under a checksum, padding too; records begin at multiples of 8 and so do bodies, so
 * that engines read bodies in place. A record is of its segment only when it has the segment's log and generation: what an earlier life or
 * a disk put there by mistake is no record. All numbers are little endian.
 *
 * Layout, segment header: magic (8) | u32 version | u32 log | u32 generation | u32 0 | f64 first position | f64 durable | f64 lease epoch |
 *   f64 first position of the segment before | u32 its owner | u32 CRC of all before it.
 * Record header: u32 length | u32 CRC of the payload | u32 entries, 0 for a mark | u32 log | u32 generation | u32 vshard of the first entry |
 *   f64 position | f64 durable | f64 lease epoch | f64 LSN of the first entry | 4 zeros | u32 CRC of all before it.
 * Entry: f64 LSN | f64 lease epoch | u32 vshard | u32 type | u32 collection | u32 body length | u32 result length | u16 key length |
 *   u8 kind | u8 0 | body, padded to 8 | key, result, together padded to 8.
 * `durable` is the last position known to be synced when the record was written (in a segment's header: when the segment got its name), which is
 * what tells a torn tail from damage. A mark has no entries and the position of the frame before it: it carries `durable` and the lease epoch.
 * Source: Alagappan et al., "Protocol-Aware Recovery for Consensus-Based Storage", FAST 2018.
 */
import { ShardloomError } from "../errors.ts";
import { crc32 } from "../runtime/checksum.ts";
import type { LogEntryKind, LogFrame, ShardLogEntry } from "./log.ts";

export const SEGMENT_HEADER_BYTES = 64;
export const RECORD_HEADER_BYTES = 64;
const ENTRY_HEADER_BYTES = 40;
export const SEGMENT_VERSION = 1;
/** Largest record. */
export const MAX_RECORD_BYTES: number = 32 * 1024 * 1024;

const MAGIC = "SHLDSEG\n";
/** Where the checksum of a header of either kind is: behind all that it is of. */
const HEADER_CRC = 60;
const POSITION_DIGITS = 20;
const OWNER_DIGITS = 10;
const SEGMENT_NAME = /^(\d{20})(?:-(\d{10}))?\.segment$/;
const SEGMENT_SUFFIX = ".segment";
const SPARE_SUFFIX = ".spare";

/** What a segment says of itself. */
export interface SegmentHeader {
  /** Which log it is of: logs that share a disk differ in it. */
  readonly log: number;
  /** Rises with each segment that a log makes. */
  readonly generation: number;
  readonly first: number;
  readonly durable: number;
  readonly leaseEpoch: number;
  /** The segment before this one: its first position, 0 for none, and its owner. */
  readonly previousFirst: number;
  readonly previousOwner: number;
}

/** Header of a record, its own checksum verified. */
export interface RecordHeader {
  readonly length: number;
  readonly payloadCrc: number;
  /** 0: a mark. */
  readonly entries: number;
  readonly position: number;
  readonly durable: number;
  readonly leaseEpoch: number;
  readonly lsn: number;
  readonly vshard: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export const align8 = (bytes: number): number => Math.ceil(bytes / 8) * 8;

/** A view of bytes wherever they lie. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** @param owner Number of the log's opening, see `SegmentLogOptions.owner`. */
export function segmentName(first: number, owner = 0): string {
  return `${String(first).padStart(POSITION_DIGITS, "0")}${ownerPart(owner)}${SEGMENT_SUFFIX}`;
}

/** Name of a file that is to become a segment. */
export function spareName(generation: number, owner = 0): string {
  return `${String(generation).padStart(POSITION_DIGITS, "0")}${ownerPart(owner)}${SPARE_SUFFIX}`;
}

function ownerPart(owner: number): string {
  return owner === 0 ? "" : `-${String(owner).padStart(OWNER_DIGITS, "0")}`;
}

export function isSpare(name: string): boolean {
  return name.endsWith(SPARE_SUFFIX);
}

/** What the name of a segment says; undefined when it is none. */
export function parseSegmentName(
  name: string,
): { readonly name: string; readonly first: number; readonly owner: number } | undefined {
  const [, first, owner = "0"] = SEGMENT_NAME.exec(name) ?? [];
  const position = Number(first);
  if (first === undefined || !Number.isSafeInteger(position) || position <= 0) return undefined;
  return { name, first: position, owner: Number(owner) };
}

/** Segments among the names of a directory, by first position, rising. Of two that begin at one the later owner's counts. */
export function segmentsOf(names: readonly string[]): Map<number, string> {
  const found = names
    .flatMap((name) => parseSegmentName(name) ?? [])
    .sort((one, other) => one.first - other.first || one.owner - other.owner);
  return new Map(found.map(({ first, name }) => [first, name]));
}

export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
  const { log, generation, first, durable, leaseEpoch, previousFirst, previousOwner } = header;
  const bytes = new Uint8Array(SEGMENT_HEADER_BYTES);
  encoder.encodeInto(MAGIC, bytes);
  const view = viewOf(bytes);
  view.setUint32(8, SEGMENT_VERSION, true);
  view.setUint32(12, log, true);
  view.setUint32(16, generation, true);
  view.setFloat64(24, first, true);
  view.setFloat64(32, durable, true);
  view.setFloat64(40, leaseEpoch, true);
  view.setFloat64(48, previousFirst, true);
  view.setUint32(56, previousOwner, true);
  view.setUint32(HEADER_CRC, crc32(bytes.subarray(0, HEADER_CRC)), true);
  return bytes;
}

/**
 * @returns undefined when the bytes are not a whole header.
 * @throws {ShardloomError} `ERR_UNSUPPORTED_FORMAT` when they are one of another version.
 */
export function decodeSegmentHeader(bytes: Uint8Array, path: string): SegmentHeader | undefined {
  if (bytes.length < SEGMENT_HEADER_BYTES || decoder.decode(bytes.subarray(0, 8)) !== MAGIC) return undefined;
  const view = viewOf(bytes);
  if (crc32(bytes.subarray(0, HEADER_CRC)) !== view.getUint32(HEADER_CRC, true)) return undefined;
  const version = view.getUint32(8, true);
  if (version !== SEGMENT_VERSION) {
    throw new ShardloomError(
      "ERR_UNSUPPORTED_FORMAT",
      `Cannot open log as the version of ${path} must be ${SEGMENT_VERSION}: current value is ${version}`,
      { details: { path, version, supported: SEGMENT_VERSION } },
    );
  }
  return {
    log: view.getUint32(12, true),
    generation: view.getUint32(16, true),
    first: view.getFloat64(24, true),
    durable: view.getFloat64(32, true),
    leaseEpoch: view.getFloat64(40, true),
    previousFirst: view.getFloat64(48, true),
    previousOwner: view.getUint32(56, true),
  };
}

/** UTF-8 length of an idempotency key. */
export function keyBytes(key: string): number {
  return key === "" ? 0 : encoder.encode(key).length;
}

/** Length of the record of a frame. */
export function frameBytes(entries: readonly ShardLogEntry[]): number {
  let bytes = RECORD_HEADER_BYTES;
  for (const { body, idempotencyKey, result } of entries) {
    bytes += ENTRY_HEADER_BYTES + align8(body.length) + align8(keyBytes(idempotencyKey) + result.length);
  }
  return bytes;
}

/**
 * Writes a record all but what {@link stampRecord} knows.
 *
 * @param at Where; a multiple of 8 with `frameBytes(entries)` bytes of room.
 * @returns where it ends
 */
export function encodeRecord(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  record: { readonly position: number; readonly leaseEpoch: number; readonly entries: readonly ShardLogEntry[] },
): number {
  const { position, leaseEpoch, entries } = record;
  let end = at + RECORD_HEADER_BYTES;
  for (const entry of entries) end = encodeEntry(bytes, view, end, entry);
  view.setUint32(at, end - at, true);
  view.setUint32(at + 4, crc32(bytes.subarray(at + RECORD_HEADER_BYTES, end)), true);
  view.setUint32(at + 8, entries.length, true);
  view.setUint32(at + 20, entries[0]?.vshard ?? 0, true);
  view.setFloat64(at + 24, position, true);
  view.setFloat64(at + 40, leaseEpoch, true);
  view.setFloat64(at + 48, entries[0]?.lsn ?? 0, true);
  view.setUint32(at + 56, 0, true);
  return end;
}

function encodeEntry(bytes: Uint8Array, view: DataView, at: number, entry: ShardLogEntry): number {
  const { body, idempotencyKey, result } = entry;
  const bodyAt = at + ENTRY_HEADER_BYTES;
  const keyAt = bodyAt + align8(body.length);
  bytes.set(body, bodyAt);
  bytes.fill(0, bodyAt + body.length, keyAt);
  let keyEnd = keyAt;
  if (idempotencyKey !== "") {
    const key = encoder.encode(idempotencyKey);
    bytes.set(key, keyAt);
    keyEnd += key.length;
  }
  bytes.set(result, keyEnd);
  const end = keyAt + align8(keyEnd - keyAt + result.length);
  bytes.fill(0, keyEnd + result.length, end);
  view.setFloat64(at, entry.lsn, true);
  view.setFloat64(at + 8, entry.leaseEpoch, true);
  view.setUint32(at + 16, entry.vshard, true);
  view.setUint32(at + 20, entry.type, true);
  view.setUint32(at + 24, entry.collection, true);
  view.setUint32(at + 28, body.length, true);
  view.setUint32(at + 32, result.length, true);
  view.setUint16(at + 36, keyEnd - keyAt, true);
  view.setUint16(at + 38, entry.kind, true);
  return end;
}

/** Completes the header of an encoded record for the segment that it goes to. */
export function stampRecord(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  { log, generation, durable }: Pick<SegmentHeader, "log" | "generation" | "durable">,
): void {
  view.setUint32(at + 12, log, true);
  view.setUint32(at + 16, generation, true);
  view.setFloat64(at + 32, durable, true);
  view.setUint32(at + HEADER_CRC, crc32(bytes.subarray(at, at + HEADER_CRC)), true);
}

/** Header of the record at an offset, when there is a whole one of that segment. Its payload may be damaged or not all there. */
export function decodeRecordHeader(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  { log, generation }: Pick<SegmentHeader, "log" | "generation">,
): RecordHeader | undefined {
  if (bytes.length - at < RECORD_HEADER_BYTES) return undefined;
  const length = view.getUint32(at, true);
  if (length < RECORD_HEADER_BYTES || length % 8 !== 0) return undefined;
  if (view.getUint32(at + 12, true) !== log || view.getUint32(at + 16, true) !== generation) return undefined;
  if (crc32(bytes.subarray(at, at + HEADER_CRC)) !== view.getUint32(at + HEADER_CRC, true)) return undefined;
  return {
    length,
    payloadCrc: view.getUint32(at + 4, true),
    entries: view.getUint32(at + 8, true),
    position: view.getFloat64(at + 24, true),
    durable: view.getFloat64(at + 32, true),
    leaseEpoch: view.getFloat64(at + 40, true),
    lsn: view.getFloat64(at + 48, true),
    vshard: view.getUint32(at + 20, true),
  };
}

/** Whether the payload of a record is all there and as it was written. */
export function isWhole(bytes: Uint8Array, at: number, { length, payloadCrc }: RecordHeader): boolean {
  if (bytes.length - at < length) return false;
  return crc32(bytes.subarray(at + RECORD_HEADER_BYTES, at + length)) === payloadCrc;
}

/** The frame of a whole record. Bodies are views of the bytes. */
export function decodeFrame(bytes: Uint8Array, view: DataView, at: number, header: RecordHeader): LogFrame {
  const entries: ShardLogEntry[] = [];
  for (let from = at + RECORD_HEADER_BYTES, count = 0; count < header.entries; count++) {
    const bodyAt = from + ENTRY_HEADER_BYTES;
    const bodyLength = view.getUint32(from + 28, true);
    const resultLength = view.getUint32(from + 32, true);
    const keyLength = view.getUint16(from + 36, true);
    const keyAt = bodyAt + align8(bodyLength);
    const resultAt = keyAt + keyLength;
    entries.push({
      kind: view.getUint16(from + 38, true) as LogEntryKind,
      vshard: view.getUint32(from + 16, true),
      lsn: view.getFloat64(from, true),
      leaseEpoch: view.getFloat64(from + 8, true),
      type: view.getUint32(from + 20, true),
      collection: view.getUint32(from + 24, true),
      body: bytes.subarray(bodyAt, bodyAt + bodyLength),
      idempotencyKey: keyLength === 0 ? "" : decoder.decode(bytes.subarray(keyAt, resultAt)),
      result: bytes.subarray(resultAt, resultAt + resultLength),
    });
    from = keyAt + align8(keyLength + resultLength);
  }
  return { position: header.position, entries };
}

/** What can be told of the frame whose record at an offset is damaged: vshard and LSN of its first entry. */
export function describeDamage(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  segment: Pick<SegmentHeader, "log" | "generation">,
): { readonly vshard: number; readonly lsn: number } | undefined {
  const header = decodeRecordHeader(bytes, view, at, segment);
  if (header !== undefined) return { vshard: header.vshard, lsn: header.lsn };
  // The header is damaged. When its length and the payload's checksum are not, the payload tells the same.
  if (bytes.length - at < RECORD_HEADER_BYTES + ENTRY_HEADER_BYTES) return undefined;
  const length = view.getUint32(at, true);
  if (length < RECORD_HEADER_BYTES + ENTRY_HEADER_BYTES || length > bytes.length - at) return undefined;
  const payload = bytes.subarray(at + RECORD_HEADER_BYTES, at + length);
  if (crc32(payload) !== view.getUint32(at + 4, true)) return undefined;
  const entryAt = at + RECORD_HEADER_BYTES;
  return { vshard: view.getUint32(entryAt + 16, true), lsn: view.getFloat64(entryAt, true) };
}

/** The error of a frame that is not as it was written. */
export function corruptFrame(
  operation: string,
  details: { readonly position: number; readonly gone?: true; readonly vshard?: number; readonly lsn?: number },
): ShardloomError {
  const { position, vshard, lsn, gone } = details;
  const where = lsn === undefined ? "" : `, LSN ${lsn} of vshard ${vshard}`;
  const found = gone === true ? "they are gone" : `position ${position}${where} is not`;
  return new ShardloomError("ERR_CORRUPT", `Cannot ${operation} as its frames must be as they were written: ${found}`, {
    details,
  });
}
