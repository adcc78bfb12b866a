/**
 * What one client has written and seen, as an LSN per vshard: a copy that has applied these shows the client its own writes.
 *
 * Invariant: an LSN only grows. A token is `s1.` and the base64url of its entries, ascending by vshard (varint step of the vshard,
 * varint LSN), and a hash of them: what was cut short or altered is refused, as it would silently ask for less.
 */
import { Buffer } from "node:buffer";
import { describeValue, invalidArgument, ShardloomError } from "../errors.ts";
import { MAX_VSHARDS } from "./snapshot.ts";
import { hashBytes } from "./stable-hash.ts";

const VERSION = "s1.";
const HASH_BYTES = 4;
/** Most characters of a token: every vshard with the largest LSN. */
const MAX_TOKEN_LENGTH: number = VERSION.length + Math.ceil(((MAX_VSHARDS * 11 + HASH_BYTES) * 4) / 3);

/** LSNs by vshard. Shape: both arrays have the same length. */
export interface SessionLsns {
  readonly vshards: Uint16Array;
  readonly lsns: Float64Array;
}

/** LSNs of the vshards that a client depends on. */
export class Session {
  readonly #lsns: Map<number, number> = new Map();

  /** Vshards with an LSN. */
  get size(): number {
    return this.#lsns.size;
  }

  /** The LSN that a copy of this vshard must have applied; 0 when any will do. */
  lsnOf(vshard: number): number {
    return this.#lsns.get(vshard) ?? 0;
  }

  /**
   * Takes an LSN in; a lower one than is known changes nothing.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a vshard outside [0, 32768) or an LSN that is no integer in [0, 2^53).
   */
  merge(vshard: number, lsn: number): void {
    if (!Number.isInteger(vshard) || vshard < 0 || vshard >= MAX_VSHARDS)
      throw invalidArgument("merge session", "vshard", `an integer in [0, ${MAX_VSHARDS})`, vshard);
    if (!Number.isSafeInteger(lsn) || lsn < 0)
      throw invalidArgument("merge session", "lsn", "an integer in [0, 2^53)", lsn);
    if (lsn > this.lsnOf(vshard)) this.#lsns.set(vshard, lsn);
  }

  /** Takes all LSNs of another session in. */
  mergeAll(other: Session): void {
    for (const [vshard, lsn] of other.#lsns) this.merge(vshard, lsn);
  }

  /** Whether a copy of a vshard that has applied everything up to `lsn` has all that this session depends on. */
  covers(vshard: number, lsn: number): boolean {
    return lsn >= this.lsnOf(vshard);
  }

  /**
   * The LSNs of the given vshards, or of all, ascending by vshard; vshards without one are left out.
   *
   * @param vshards The vshards that one request is for. @default all
   */
  lsns(vshards?: ArrayLike<number>): SessionLsns {
    const wanted = vshards === undefined ? [...this.#lsns.keys()] : Array.from(vshards);
    const held = wanted.filter((vshard) => this.#lsns.has(vshard)).sort((a, b) => a - b);
    return { vshards: Uint16Array.from(held), lsns: Float64Array.from(held, (vshard) => this.lsnOf(vshard)) };
  }

  /** The session as text of letters, digits, `-`, `_` and `.`. */
  toString(): string {
    const { vshards, lsns } = this.lsns();
    const bytes: number[] = [];
    let previous = -1;
    for (const [i, vshard] of vshards.entries()) {
      writeVarint(bytes, vshard - previous - 1);
      writeVarint(bytes, lsns[i] as number);
      previous = vshard;
    }
    const hash = hashBytes(Uint8Array.from(bytes), 0, bytes.length);
    for (let shift = 0; shift < 32; shift += 8) bytes.push((hash >>> shift) & 0xff);
    return VERSION + Buffer.from(bytes).toString("base64url");
  }

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the text is not what {@link Session.toString} made. */
  static parse(token: string): Session {
    if (typeof token !== "string" || !token.startsWith(VERSION) || token.length > MAX_TOKEN_LENGTH)
      throw malformed(token, `text that begins with ${VERSION}`);
    const text = token.slice(VERSION.length);
    const bytes = Buffer.from(text, "base64url");
    // Buffer skips what is not base64url: only a text that comes out again was whole.
    if (bytes.toString("base64url") !== text) throw malformed(token, "base64url after its version");
    const end = bytes.length - HASH_BYTES;
    if (end < 0 || bytes.readUInt32LE(end) !== hashBytes(bytes, 0, end)) throw malformed(token, "whole and unaltered");
    return readEntries(bytes.subarray(0, end), token);
  }
}

function readEntries(bytes: Uint8Array, token: string): Session {
  const session = new Session();
  const reader = { bytes, at: 0 };
  let previous = -1;
  while (reader.at < bytes.length) {
    const vshard = previous + 1 + readVarint(reader);
    const lsn = readVarint(reader);
    if (!(vshard < MAX_VSHARDS) || !Number.isSafeInteger(lsn)) throw malformed(token, "of known vshards and LSNs");
    session.merge(vshard, lsn);
    previous = vshard;
  }
  return session;
}

function writeVarint(bytes: number[], value: number): void {
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes.push((rest % 0x80) | 0x80);
  bytes.push(rest);
}

/** @returns NaN when the bytes end before the number does */
function readVarint(reader: { readonly bytes: Uint8Array; at: number }): number {
  let value = 0;
  for (let scale = 1; ; scale *= 0x80) {
    const byte = reader.bytes[reader.at++];
    if (byte === undefined) return Number.NaN;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return value;
  }
}

function malformed(token: unknown, rule: string): ShardloomError {
  return new ShardloomError(
    "ERR_INVALID_ARGUMENT",
    `Cannot parse session as its token must be ${rule}: current value is ${describeValue(token)}`,
    { details: { name: "token" } },
  );
}
