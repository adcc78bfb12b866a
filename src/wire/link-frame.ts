/**
 * Layout of the frames that two nodes exchange: header, body, checksum; no behaviour beyond packing and checking.
 *
 * ```
 *  word  bits 31..16        15..8       7..0
 *   0    CRC-32 of all bytes that follow; 0 where the connection checks what it carries
 *   1    length of the whole frame in bytes
 *   2    message type       flags       kind
 *   3    call id (the asking node's counter)
 *   4    shard of the receiving node; of the sending one in shard-up and shard-lost
 *   5    incarnation of the shard's worker in shard-up and shard-lost, else 0
 *   6    body ...
 * ```
 *
 * Invariant: `openFrame` accepts a frame only when its checksum, its own length and its kind are right, so a body that is read is the
 * body that was sent, or what the connection vouches for. Bodies start 8-aligned. Little-endian, as all of our layouts.
 */
import { ShardloomError } from "../errors.ts";
import { crc32 } from "../runtime/checksum.ts";
import { payloadMemory } from "../runtime/payload-memory.ts";

/** What a frame is. Numbers are part of the wire format and are never reused. */
export const LINK_FRAME = {
  /** First frame of each side; body: a {@link LinkHello}, encoded. */
  HELLO: 1,
  /** Body: a request's envelope and payload; its epoch word is a map epoch, its deadline counts from the sending. */
  REQUEST: 2,
  /** As a request, without an answer. */
  TELL: 3,
  /** Body: the reply's envelope and payload as the shard wrote them. */
  REPLY: 4,
  /** Body: the error that a request ends with, encoded. */
  FAILURE: 5,
  /** Nobody waits for a call's answer any more. No body. */
  CANCEL: 6,
  /** What became of tells since the last such frame; body: `u32 in a worker's ring | u32 refused`. */
  TOLD: 7,
  /** A worker serves, or will serve, the shard. No body. */
  SHARD_UP: 8,
  /** The shard has no worker; body: why, an encoded error. */
  SHARD_LOST: 9,
  /** A thread of the sending node has ended; body: its name as UTF-8. */
  THREAD_GONE: 10,
  /** A map of the cluster that the sending node has; body: see cluster-map.ts. */
  MAP: 11,
  /** Collections that the sending node has, or that were dropped; body: see collection-exchange.ts. */
  COLLECTIONS: 12,
} as const;
export type LinkFrameKind = (typeof LINK_FRAME)[keyof typeof LINK_FRAME];

/** Of a failure: whether the shard may have done what was asked is not known. */
export const FLAG_IN_DOUBT = 1;
/** Of a failure: the request never reached the shard. */
export const FLAG_REJECTED = 2;
/** Of collections: with those before it on the connection these are all. */
export const FLAG_ALL = 1;

export const LINK_HEADER_BYTES = 24;
const KINDS: ReadonlySet<number> = new Set(Object.values(LINK_FRAME));
const WORD_CRC = 0;
const WORD_LENGTH = 1;
const WORD_KIND = 2;
const WORD_CALL = 3;
const WORD_SHARD = 4;
const WORD_INCARNATION = 5;

/** What a frame says besides its body. */
export interface LinkHeader {
  readonly kind: LinkFrameKind;
  readonly flags?: number;
  /** Message type of what is carried, `0..65535`. */
  readonly type?: number;
  readonly call?: number;
  readonly shard?: number;
  readonly incarnation?: number;
}

/** A frame in memory of its own. The body lies at `bytes[LINK_HEADER_BYTES ...]`, in words at `words[LINK_HEADER_BYTES >> 2 ...]`. */
export interface LinkFrame extends Required<LinkHeader> {
  readonly bytes: Uint8Array;
  /** Whole words of the frame. */
  readonly words: Int32Array;
  readonly bodyBytes: number;
}

/** A frame with room for a body, all of which the caller writes before {@link sealFrame}. */
export function createFrame(header: LinkHeader, bodyBytes: number): LinkFrame {
  const { kind, flags = 0, type = 0, call = 0, shard = 0, incarnation = 0 } = header;
  const length = LINK_HEADER_BYTES + bodyBytes;
  const bytes = payloadMemory(length);
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, (length + 3) >>> 2);
  words[WORD_CRC] = 0;
  words[WORD_LENGTH] = length;
  words[WORD_KIND] = kind | (flags << 8) | (type << 16);
  words[WORD_CALL] = call;
  words[WORD_SHARD] = shard;
  words[WORD_INCARNATION] = incarnation;
  return { kind, flags, type, call, shard, incarnation, bytes, words, bodyBytes };
}

/** A frame with a copy of `body`. */
export function frameOf(header: LinkHeader, body: Uint8Array): LinkFrame {
  const frame = createFrame(header, body.length);
  frame.bytes.set(body, LINK_HEADER_BYTES);
  return frame;
}

/**
 * Writes the checksum.
 *
 * @param isChecked Whether the connection has a checksum of its own: then there is none here. @default false
 * @returns the bytes to send; they must not change any more
 */
export function sealFrame({ bytes, words }: LinkFrame, isChecked = false): Uint8Array {
  words[WORD_CRC] = isChecked ? 0 : crc32(bytes.subarray(4)) | 0;
  return bytes;
}

/**
 * Checks a frame that has arrived.
 *
 * @param isChecked As in {@link sealFrame}.
 * @throws {ShardloomError} `ERR_CORRUPT` saying what is wrong with it.
 */
export function openFrame(received: Uint8Array, isChecked = false): LinkFrame {
  const { length } = received;
  if (length < LINK_HEADER_BYTES) throw corrupt("at least as long as its header", length);
  const bytes = (received.byteOffset & 7) === 0 ? received : received.slice();
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, length >> 2);
  if (words[WORD_LENGTH] !== length) throw corrupt(`of ${length} bytes as it arrived`, words[WORD_LENGTH]);
  const sum = isChecked ? 0 : crc32(bytes.subarray(4));
  if ((words[WORD_CRC] as number) >>> 0 !== sum) throw corrupt("what its checksum says", sum);
  const kind = (words[WORD_KIND] as number) & 0xff;
  if (!KINDS.has(kind)) throw corrupt("of a known kind", kind);
  return {
    kind: kind as LinkFrameKind,
    flags: ((words[WORD_KIND] as number) >>> 8) & 0xff,
    type: (words[WORD_KIND] as number) >>> 16,
    call: words[WORD_CALL] as number,
    shard: words[WORD_SHARD] as number,
    incarnation: words[WORD_INCARNATION] as number,
    bytes,
    words,
    bodyBytes: length - LINK_HEADER_BYTES,
  };
}

/** The bytes after the header, not copied. */
export function bodyOf({ bytes }: LinkFrame): Uint8Array {
  return bytes.subarray(LINK_HEADER_BYTES);
}

/** A datagram as it travels: `CRC-32 | bytes`. */
export function sealDatagram(bytes: Uint8Array): Uint8Array {
  const sealed = new Uint8Array(4 + bytes.length);
  sealed.set(bytes, 4);
  new DataView(sealed.buffer).setUint32(0, crc32(bytes), true);
  return sealed;
}

/** What a datagram carries, or undefined when it was damaged. */
export function openDatagram(sealed: Uint8Array): Uint8Array | undefined {
  if (sealed.length < 4) return undefined;
  const bytes = sealed.subarray(4);
  const sum = new DataView(sealed.buffer, sealed.byteOffset).getUint32(0, true);
  return sum === crc32(bytes) ? bytes : undefined;
}

function corrupt(rule: string, value: unknown): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot read frame as it must be ${rule}: current value is ${String(value)}`,
  );
}
