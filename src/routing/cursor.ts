/**
 * The opaque cursor between two pages of one ranking: a URL-safe string that says after which position the next begins.
 *
 * Invariant: `decodeCursor(encodeCursor(c), c)` gives `c` back bit by bit, and every string has at most one reading: whatever is
 * not exactly what `encodeCursor` writes is refused. The checksum finds damage, not forgery: a cursor tells and
 * proves nothing that its holder could not ask for without it.
 *
 * Layout, before base64url: byte version | byte flags | u32 topology epoch | u32 fingerprint | f64 score | id | u32 checksum over all
 * before it; little-endian. The id is a float64, or UTF-16 code units, or Latin-1 ones where all fit: every string
 * survives, lone surrogates too.
 */
import { Buffer } from "node:buffer";
import { invalidArgument, ShardloomError } from "../errors.ts";
import { hashBytes, hashString } from "../topology/stable-hash.ts";
import { type RankDirection, type RankPosition, signOf } from "./ranked.ts";

/** Where a page ended, and of which query. */
export interface PageCursor extends RankPosition {
  readonly direction: RankDirection;
  /** Topology under which the page was read, an unsigned 32-bit integer. The position means the same under any other. */
  readonly topologyEpoch: number;
  /** Fingerprint of the query, see {@link fingerprintOf}. */
  readonly fingerprint: number;
}

const VERSION = 1;
const FLAG_DESCENDING = 1;
const FLAG_STRING = 2;
const FLAG_WIDE = 4;
const OFFSET_EPOCH = 2;
const OFFSET_FINGERPRINT = 6;
const OFFSET_SCORE = 10;
const OFFSET_ID = 18;
const CHECKSUM_BYTES = 4;
/** Longest id, in code units; ids of the engines are shorter. */
const MAX_ID_UNITS = 4096;
const MAX_CHARS = Math.ceil(((OFFSET_ID + 2 * MAX_ID_UNITS + CHECKSUM_BYTES) * 4) / 3);
const U32_LIMIT = 2 ** 32;

const ACTION_MAKE = "make cursor";
const ACTION_READ = "continue after cursor";

/**
 * A 32-bit fingerprint of whatever makes a query what it is: its collection, vector bytes, terms, filter. `k` stays out, as pages may
 * differ in size.
 *
 * @param parts In a fixed order; bytes and strings of one content differ.
 */
export function fingerprintOf(parts: readonly (string | Uint8Array)[]): number {
  let hash = parts.length;
  for (const part of parts)
    hash = typeof part === "string" ? hashString(part, hash) : hashBytes(part, 0, part.length, ~hash);
  return hash;
}

/**
 * Encodes a cursor as a string of `A–Z a–z 0–9 - _`.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a NaN score, an id of another type or too long, or an epoch or fingerprint
 *   that is not unsigned 32-bit.
 */
export function encodeCursor(cursor: PageCursor): string {
  const { id, score, direction, topologyEpoch, fingerprint } = cursor;
  const descending = signOf(ACTION_MAKE, direction) === -1;
  if (typeof score !== "number" || Number.isNaN(score))
    throw invalidArgument(ACTION_MAKE, "score", "a number other than NaN", score);
  if (typeof id !== "string" && (typeof id !== "number" || Number.isNaN(id)))
    throw invalidArgument(ACTION_MAKE, "id", "a string, or a number other than NaN", id);
  if (typeof id === "string" && id.length > MAX_ID_UNITS)
    throw invalidArgument(ACTION_MAKE, "the id's length", `at most ${MAX_ID_UNITS}`, id.length);
  assertU32("topologyEpoch", topologyEpoch);
  assertU32("fingerprint", fingerprint);
  const wide = typeof id === "string" && isWide(id);
  const idBytes = typeof id === "number" ? 8 : id.length * (wide ? 2 : 1);
  const bytes = Buffer.alloc(OFFSET_ID + idBytes + CHECKSUM_BYTES);
  bytes[0] = VERSION;
  bytes[1] = (descending ? FLAG_DESCENDING : 0) | (typeof id === "string" ? FLAG_STRING : 0) | (wide ? FLAG_WIDE : 0);
  bytes.writeUInt32LE(topologyEpoch, OFFSET_EPOCH);
  bytes.writeUInt32LE(fingerprint, OFFSET_FINGERPRINT);
  bytes.writeDoubleLE(score, OFFSET_SCORE);
  if (typeof id === "number") bytes.writeDoubleLE(id, OFFSET_ID);
  else bytes.write(id, OFFSET_ID, wide ? "utf16le" : "latin1");
  const end = OFFSET_ID + idBytes;
  bytes.writeUInt32LE(hashBytes(bytes, 0, end), end);
  return bytes.toString("base64url");
}

/**
 * Decodes a cursor for the query that is to be continued.
 *
 * @throws {ShardloomError} `ERR_VERSION_MISMATCH` for a cursor of another version, `ERR_INVALID_ARGUMENT` for whatever is no
 *   cursor, is damaged, or belongs to another query or direction.
 */
export function decodeCursor(text: string, query: Pick<PageCursor, "direction" | "fingerprint">): PageCursor {
  const bytes = readBytes(text);
  const end = bytes.length - CHECKSUM_BYTES;
  if (end < OFFSET_ID || hashBytes(bytes, 0, end) !== bytes.readUInt32LE(end)) throw notOurs(text);
  if (bytes[0] !== VERSION) {
    throw new ShardloomError(
      "ERR_VERSION_MISMATCH",
      `Cannot ${ACTION_READ} as its version must be ${VERSION}: current value is ${bytes[0]}`,
      { details: { version: bytes[0], expected: VERSION } },
    );
  }
  const flags = bytes[1] as number;
  const direction = (flags & FLAG_DESCENDING) === 0 ? "ascending" : "descending";
  const score = bytes.readDoubleLE(OFFSET_SCORE);
  const topologyEpoch = bytes.readUInt32LE(OFFSET_EPOCH);
  const fingerprint = bytes.readUInt32LE(OFFSET_FINGERPRINT);
  const cursor: PageCursor = { id: readId(bytes, flags, end, text), score, direction, topologyEpoch, fingerprint };
  // Whoever makes checksums may still write a NaN, unknown flags or wide units where narrow ones do.
  if (Number.isNaN(score) || Number.isNaN(cursor.id) || encodeCursor(cursor) !== text) throw notOurs(text);
  if (fingerprint !== query.fingerprint)
    throw invalidArgument(ACTION_READ, "cursor", "that of a page of the same query", text);
  if (direction !== query.direction)
    throw invalidArgument(ACTION_READ, "cursor", `that of a page in ${query.direction} order`, text);
  return cursor;
}

function readBytes(text: string): Buffer {
  if (typeof text !== "string" || text.length > MAX_CHARS) throw notOurs(text);
  const bytes = Buffer.from(text, "base64url");
  // Node's decoder passes over what is not base64url.
  if (bytes.toString("base64url") !== text) throw notOurs(text);
  return bytes;
}

function readId(bytes: Buffer, flags: number, end: number, text: string): string | number {
  if ((flags & FLAG_STRING) !== 0)
    return bytes.toString((flags & FLAG_WIDE) === 0 ? "latin1" : "utf16le", OFFSET_ID, end);
  if (end - OFFSET_ID !== 8) throw notOurs(text);
  return bytes.readDoubleLE(OFFSET_ID);
}

function notOurs(value: unknown): ShardloomError {
  return invalidArgument(ACTION_READ, "cursor", "one that a page of results gave, unchanged", value);
}

function isWide(id: string): boolean {
  for (let at = 0; at < id.length; at++) if (id.charCodeAt(at) > 0xff) return true;
  return false;
}

function assertU32(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 0 || value >= U32_LIMIT)
    throw invalidArgument(ACTION_MAKE, name, "an unsigned 32-bit integer", value);
}
