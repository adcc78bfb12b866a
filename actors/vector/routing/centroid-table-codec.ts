/**
 * A shard's centroid table as bytes, to send and to keep.
 *
 * Layout, little-endian, version 1, L leaves of B code bytes:
 * ```
 *   0  u32 magic "SLCT"      16  u32 metric         32  i32 shard
 *   4  u16 version           20  u32 element        36  u32 leaves
 *   6  u16 header bytes      24  u32 dimensions     40  f64 epoch
 *   8  u32 total bytes       28  u32 code bytes     48  f64 table version
 *  12  u32 CRC-32 of everything after this word     56  zero to 64
 *  64  i32 counts[L] | f32 radii[L] | f32 90 % radii[L] | i32 medoids[L] | i32 partitions[L] | codes[L × B]
 * ```
 * Invariant: what decodes without an error has the columns that were encoded, bit by bit; nothing else decodes.
 */
import { ELEMENT, METRIC } from "../../../native-bridge/kernels.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { crc32 } from "../../../src/runtime/checksum.ts";
import { emptyColumns, ROW_BYTES, type ShardCentroids } from "./centroid-table.ts";
import { type Code, type CodeSpace, codeBytes } from "./code-table.ts";

const MAGIC = 0x5443_4c53;
const VERSION = 1;
const HEADER_BYTES = 64;
const CHECKED_FROM = 16;
const MOST_DIMENSIONS = 65_536;

const AT = {
  magic: 0,
  version: 4,
  headerBytes: 6,
  totalBytes: 8,
  checksum: 12,
  metric: 16,
  element: 20,
  dimensions: 24,
  codeBytes: 28,
  shard: 32,
  leaves: 36,
  epoch: 40,
  tableVersion: 48,
} as const;

/** Bytes of an encoded table. */
export function encodedBytes(space: CodeSpace, leaves: number): number {
  return HEADER_BYTES + leaves * (ROW_BYTES + codeBytes(space));
}

export function encodeCentroids(table: ShardCentroids): Uint8Array {
  const { space } = table;
  const leaves = table.counts.length;
  const bytes = new Uint8Array(encodedBytes(space, leaves));
  const view = new DataView(bytes.buffer);
  view.setUint32(AT.magic, MAGIC, true);
  view.setUint16(AT.version, VERSION, true);
  view.setUint16(AT.headerBytes, HEADER_BYTES, true);
  view.setUint32(AT.totalBytes, bytes.length, true);
  view.setUint32(AT.metric, space.metric, true);
  view.setUint32(AT.element, space.element, true);
  view.setUint32(AT.dimensions, space.dimensions, true);
  view.setUint32(AT.codeBytes, codeBytes(space), true);
  view.setInt32(AT.shard, table.shard, true);
  view.setUint32(AT.leaves, leaves, true);
  view.setFloat64(AT.epoch, table.epoch, true);
  view.setFloat64(AT.tableVersion, table.version, true);
  let at = HEADER_BYTES;
  for (const column of columnsOf(table)) {
    bytes.set(new Uint8Array(column.buffer, column.byteOffset, column.byteLength), at);
    at += column.byteLength;
  }
  view.setUint32(AT.checksum, crc32(bytes.subarray(CHECKED_FROM)), true);
  return bytes;
}

/** The checksum in an encoded table: equal tables have equal ones. */
export function checksumOf(encoded: Uint8Array): number {
  return new DataView(encoded.buffer, encoded.byteOffset, encoded.byteLength).getUint32(AT.checksum, true);
}

/**
 * Reads a table; the bytes may be reused after.
 *
 * @throws {ShardloomError} `ERR_TRUNCATED` when bytes are missing, `ERR_VERSION_MISMATCH` for another version of the format,
 *   `ERR_CORRUPT` for anything else that no encoder wrote.
 */
export function decodeCentroids(bytes: Uint8Array): ShardCentroids {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEADER_BYTES) throw truncated(bytes.length, HEADER_BYTES);
  if (view.getUint32(AT.magic, true) !== MAGIC) throw corrupt("its magic number is another");
  const version = view.getUint16(AT.version, true);
  if (version !== VERSION)
    throw new ShardloomError(
      "ERR_VERSION_MISMATCH",
      `Cannot read centroid table as its version must be ${VERSION}: current value is ${version}`,
      { details: { version, wanted: VERSION } },
    );
  const total = view.getUint32(AT.totalBytes, true);
  if (bytes.length < total) throw truncated(bytes.length, total);
  if (bytes.length > total || total < HEADER_BYTES) throw corrupt("its length is not the one it names");
  if (crc32(bytes.subarray(CHECKED_FROM)) !== view.getUint32(AT.checksum, true))
    throw corrupt("its checksum does not hold");
  const space = readSpace(view);
  const leaves = view.getUint32(AT.leaves, true);
  if (view.getUint16(AT.headerBytes, true) !== HEADER_BYTES || encodedBytes(space, leaves) !== total)
    throw corrupt("its header contradicts its length");
  const table: ShardCentroids = {
    ...emptyColumns(space, leaves),
    space,
    shard: view.getInt32(AT.shard, true),
    epoch: view.getFloat64(AT.epoch, true),
    version: view.getFloat64(AT.tableVersion, true),
  };
  let at = HEADER_BYTES;
  for (const column of columnsOf(table)) {
    new Uint8Array(column.buffer).set(bytes.subarray(at, at + column.byteLength));
    at += column.byteLength;
  }
  checkColumns(table);
  return table;
}

function columnsOf(table: ShardCentroids): readonly (Int32Array | Float32Array | Code)[] {
  return [table.counts, table.radii, table.radii90, table.medoids, table.partitions, table.codes];
}

function readSpace(view: DataView): CodeSpace {
  const metric = view.getUint32(AT.metric, true);
  const element = view.getUint32(AT.element, true);
  const dimensions = view.getUint32(AT.dimensions, true);
  const knownMetric = Object.values(METRIC).find((value) => value === metric);
  const knownElement = [ELEMENT.F32, ELEMENT.U8].find((value) => value === element);
  if (knownMetric === undefined || knownElement === undefined) throw corrupt("its metric or element is unknown");
  if (dimensions < 1 || dimensions > MOST_DIMENSIONS) throw corrupt("its number of dimensions is impossible");
  const space = { dimensions, metric: knownMetric, element: knownElement };
  if (view.getUint32(AT.codeBytes, true) !== codeBytes(space))
    throw corrupt("its code bytes contradict its dimensions");
  return space;
}

/** A checksum says that nothing changed on the way, not that the sender was right. */
function checkColumns(table: ShardCentroids): void {
  const { counts, radii, radii90, medoids, partitions, codes, shard, epoch, version } = table;
  const stamps = [epoch, version].every((value) => Number.isSafeInteger(value) && value >= 0);
  if (shard < 0 || !stamps) throw corrupt("its stamp is no number of a shard, an epoch and a version");
  for (let leaf = 0; leaf < counts.length; leaf++) {
    const radius = radii[leaf] as number;
    const within =
      radius >= 0 && Number.isFinite(radius) && (radii90[leaf] as number) >= 0 && (radii90[leaf] as number) <= radius;
    const numbers =
      (counts[leaf] as number) >= 0 && (partitions[leaf] as number) >= 0 && (medoids[leaf] as number) >= -1;
    if (!within || !numbers) throw corrupt(`leaf ${leaf} is impossible`);
  }
  if (codes instanceof Float32Array && !codes.every(Number.isFinite)) throw corrupt("a centroid is not finite");
}

function corrupt(why: string): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", `Cannot read centroid table as ${why}`);
}

function truncated(length: number, wanted: number): ShardloomError {
  return new ShardloomError(
    "ERR_TRUNCATED",
    `Cannot read centroid table as it must have ${wanted} bytes: current value is ${length}`,
  );
}
