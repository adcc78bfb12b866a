/**
 * Layout of a snapshot file: what all vshards of a shard held while it was written, in parts.
 *
 * ```
 *  header  u32 magic | u32 format | f64 position | 0 | 0 | 0 | u32 CRC of the 28 bytes before                     32 bytes
 *  chunk   u32 magic | u32 kind | u32 number, from 0 | u32 payload bytes | u32 parts | u32 CRC of the header | 0 |
 *          u32 CRC of the 28 bytes before and of the payload, then the payload                                      32 bytes + payload
 *  part    i32 vshard | i32 type | i32 collection | u32 body bytes, then the body, padded with zeros to 8
 *  footer  u32 magic | u32 format | f64 position | f64 end position | f64 offset of the table's chunk |
 *          u32 chunks | u32 CRC of the header | f64 parts | 0 | u32 CRC of the 60 bytes before                       64 bytes
 * ```
 *
 * Little-endian. Chunks of parts come first, the table's chunk is the last, and the footer ends the file.
 * Invariant: every byte is under a CRC that the header's CRC enters, so that a chunk of another file, or at another place, is damage
 * too. Everything is a multiple of 8 long, so bodies are 8-aligned.
 */
import { ShardloomError } from "../errors.ts";
import { crc32 } from "../runtime/checksum.ts";

export const SNAPSHOT_FORMAT = 1;
export const HEADER_MAGIC = 0x31534c53; // "SLS1"
export const CHUNK_MAGIC = 0x4b4e4843; // "CHNK"
export const FOOTER_MAGIC = 0x444e4553; // "SEND"
export const HEADER_BYTES = 32;
export const CHUNK_HEADER_BYTES = 32;
export const PART_HEADER_BYTES = 16;
export const FOOTER_BYTES = 64;
/** What a chunk has. */
export const CHUNK_KIND = { PARTS: 1, TABLE: 2 } as const;

export interface SnapshotHeader {
  readonly position: number;
  /** Enters every CRC of the file. */
  readonly crc: number;
}

export interface ChunkHeader {
  readonly kind: number;
  readonly number: number;
  readonly payloadBytes: number;
  readonly parts: number;
}

export interface SnapshotFooter {
  readonly position: number;
  readonly endPosition: number;
  readonly tableOffset: number;
  readonly chunks: number;
  readonly parts: number;
}

/** The smallest multiple of 8 that is not below a length. */
export function aligned(length: number): number {
  return Math.ceil(length / 8) * 8;
}

export function encodeHeader(position: number): { readonly bytes: Uint8Array; readonly crc: number } {
  const view = new DataView(new ArrayBuffer(HEADER_BYTES));
  view.setUint32(0, HEADER_MAGIC, true);
  view.setUint32(4, SNAPSHOT_FORMAT, true);
  view.setFloat64(8, position, true);
  const bytes = new Uint8Array(view.buffer);
  const crc = crc32(bytes.subarray(0, HEADER_BYTES - 4));
  view.setUint32(HEADER_BYTES - 4, crc, true);
  return { bytes, crc };
}

/** @returns undefined for anything that is not a whole header of this format */
export function decodeHeader(bytes: Uint8Array): SnapshotHeader | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const view = viewOf(bytes);
  const crc = view.getUint32(HEADER_BYTES - 4, true);
  if (view.getUint32(0, true) !== HEADER_MAGIC || crc32(bytes.subarray(0, HEADER_BYTES - 4)) !== crc) return undefined;
  return view.getUint32(4, true) === SNAPSHOT_FORMAT ? { position: view.getFloat64(8, true), crc } : undefined;
}

/** Throws when the bytes are a whole header of another format. @throws {ShardloomError} `ERR_UNSUPPORTED_FORMAT` */
export function assertSnapshotFormat(bytes: Uint8Array, path: string): void {
  if (bytes.length < HEADER_BYTES) return;
  const view = viewOf(bytes);
  const isWhole = view.getUint32(HEADER_BYTES - 4, true) === crc32(bytes.subarray(0, HEADER_BYTES - 4));
  const format = view.getUint32(4, true);
  if (view.getUint32(0, true) !== HEADER_MAGIC || !isWhole || format === SNAPSHOT_FORMAT) return;
  throw new ShardloomError(
    "ERR_UNSUPPORTED_FORMAT",
    `Cannot read ${path} as its format must be ${SNAPSHOT_FORMAT}: current value is ${format}`,
    { details: { path, format: SNAPSHOT_FORMAT, value: format } },
  );
}

/** Writes a chunk's header before its payload, both of which lie in `bytes` from 0 on. */
export function sealChunk(bytes: Uint8Array, chunk: ChunkHeader, headerCrc: number): void {
  const view = viewOf(bytes);
  view.setUint32(0, CHUNK_MAGIC, true);
  view.setUint32(4, chunk.kind, true);
  view.setUint32(8, chunk.number, true);
  view.setUint32(12, chunk.payloadBytes, true);
  view.setUint32(16, chunk.parts, true);
  view.setUint32(20, headerCrc, true);
  view.setUint32(24, 0, true);
  view.setUint32(28, crcOfChunk(bytes, chunk.payloadBytes), true);
}

/** What a chunk's header says, unless it cannot be one of this file. Its CRC is checked by {@link isWholeChunk}. */
export function decodeChunkHeader(bytes: Uint8Array, headerCrc: number): ChunkHeader | undefined {
  if (bytes.length < CHUNK_HEADER_BYTES) return undefined;
  const view = viewOf(bytes);
  if (view.getUint32(0, true) !== CHUNK_MAGIC || view.getUint32(20, true) !== headerCrc) return undefined;
  return {
    kind: view.getUint32(4, true),
    number: view.getUint32(8, true),
    payloadBytes: view.getUint32(12, true),
    parts: view.getUint32(16, true),
  };
}

/** @param bytes Header and payload. */
export function isWholeChunk(bytes: Uint8Array, { payloadBytes }: ChunkHeader): boolean {
  if (bytes.length !== CHUNK_HEADER_BYTES + payloadBytes) return false;
  return viewOf(bytes).getUint32(28, true) === crcOfChunk(bytes, payloadBytes);
}

export function encodeFooter(footer: SnapshotFooter, headerCrc: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(FOOTER_BYTES));
  view.setUint32(0, FOOTER_MAGIC, true);
  view.setUint32(4, SNAPSHOT_FORMAT, true);
  view.setFloat64(8, footer.position, true);
  view.setFloat64(16, footer.endPosition, true);
  view.setFloat64(24, footer.tableOffset, true);
  view.setUint32(32, footer.chunks, true);
  view.setUint32(36, headerCrc, true);
  view.setFloat64(40, footer.parts, true);
  const bytes = new Uint8Array(view.buffer);
  view.setUint32(FOOTER_BYTES - 4, crc32(bytes.subarray(0, FOOTER_BYTES - 4)), true);
  return bytes;
}

/** @returns undefined for anything that is not the whole footer of the file with this header */
export function decodeFooter(bytes: Uint8Array, headerCrc: number): SnapshotFooter | undefined {
  if (bytes.length !== FOOTER_BYTES) return undefined;
  const view = viewOf(bytes);
  if (view.getUint32(0, true) !== FOOTER_MAGIC || view.getUint32(36, true) !== headerCrc) return undefined;
  if (view.getUint32(FOOTER_BYTES - 4, true) !== crc32(bytes.subarray(0, FOOTER_BYTES - 4))) return undefined;
  return {
    position: view.getFloat64(8, true),
    endPosition: view.getFloat64(16, true),
    tableOffset: view.getFloat64(24, true),
    chunks: view.getUint32(32, true),
    parts: view.getFloat64(40, true),
  };
}

function crcOfChunk(bytes: Uint8Array, payloadBytes: number): number {
  const payload = bytes.subarray(CHUNK_HEADER_BYTES, CHUNK_HEADER_BYTES + payloadBytes);
  return crc32(payload, crc32(bytes.subarray(0, 28)));
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
