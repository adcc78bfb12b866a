/**
 * Messages of a shard log in a stream of NATS: a header, and a piece of the records of a batch (see segment-format.ts). No I/O, no state.
 *
 * Invariant: the parts of a batch are messages with sequences that follow each other, and the batch counts when the last of them is there. All
 * of a message is under checksums. Whoever opens a log puts a message without records before its own, so that what follows an unfinished batch
 * is a first part.
 *
 * Layout, little endian: magic (4) | u16 version | u16 0 | 2 × u32 writer | u32 batch | u32 part | u32 parts | u32 bytes of the batch |
 *   f64 first position | f64 last position | f64 lease epoch | u32 CRC of the piece | u32 CRC of all before it | piece.
 * A batch without frames has the position after the last frame as its first, and that of the last frame as its last.
 */
import { ShardloomError } from "../errors.ts";
import { crc32 } from "../runtime/checksum.ts";
import { viewOf } from "./segment-format.ts";

export const MESSAGE_HEADER_BYTES = 64;
/** What records are stamped with: streams have no segments. */
export const RECORD_STAMP = { log: 1, generation: 1, durable: 0 } as const;

const VERSION = 1;
const MAGIC = 0x4e_44_48_53; // "SHDN"
const PIECE_CRC = 56;
const HEADER_CRC = 60;

/** Who opened a log: two numbers by chance. */
export type WriterId = readonly [number, number];

/** What a message says of itself. */
export interface MessageHeader {
  readonly writer: WriterId;
  /** Counts the batches of a writer. */
  readonly batch: number;
  readonly part: number;
  readonly parts: number;
  /** Of all parts. */
  readonly batchBytes: number;
  readonly first: number;
  readonly last: number;
  /** The highest lease epoch that its writer knew. */
  readonly leaseEpoch: number;
}

/** A message, verified. */
export interface Message {
  readonly header: MessageHeader;
  readonly piece: Uint8Array;
}

export function encodeMessage(header: MessageHeader, piece: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(MESSAGE_HEADER_BYTES + piece.length);
  const view = viewOf(bytes);
  view.setUint32(0, MAGIC, true);
  view.setUint16(4, VERSION, true);
  view.setUint32(8, header.writer[0], true);
  view.setUint32(12, header.writer[1], true);
  view.setUint32(16, header.batch, true);
  view.setUint32(20, header.part, true);
  view.setUint32(24, header.parts, true);
  view.setUint32(28, header.batchBytes, true);
  view.setFloat64(32, header.first, true);
  view.setFloat64(40, header.last, true);
  view.setFloat64(48, header.leaseEpoch, true);
  view.setUint32(PIECE_CRC, crc32(piece), true);
  view.setUint32(HEADER_CRC, crc32(bytes.subarray(0, HEADER_CRC)), true);
  bytes.set(piece, MESSAGE_HEADER_BYTES);
  return bytes;
}

/**
 * @returns undefined when the bytes are no whole message.
 * @throws {ShardloomError} `ERR_UNSUPPORTED_FORMAT` when they are one of another version.
 */
export function decodeMessage(bytes: Uint8Array): Message | undefined {
  if (bytes.length < MESSAGE_HEADER_BYTES) return undefined;
  const view = viewOf(bytes);
  if (view.getUint32(0, true) !== MAGIC) return undefined;
  if (crc32(bytes.subarray(0, HEADER_CRC)) !== view.getUint32(HEADER_CRC, true)) return undefined;
  const version = view.getUint16(4, true);
  if (version !== VERSION) {
    throw new ShardloomError(
      "ERR_UNSUPPORTED_FORMAT",
      `Cannot read log as the version of its messages must be ${VERSION}: current value is ${version}`,
      { details: { version, supported: VERSION } },
    );
  }
  const piece = bytes.subarray(MESSAGE_HEADER_BYTES);
  if (crc32(piece) !== view.getUint32(PIECE_CRC, true)) return undefined;
  return {
    header: {
      writer: [view.getUint32(8, true), view.getUint32(12, true)],
      batch: view.getUint32(16, true),
      part: view.getUint32(20, true),
      parts: view.getUint32(24, true),
      batchBytes: view.getUint32(28, true),
      first: view.getFloat64(32, true),
      last: view.getFloat64(40, true),
      leaseEpoch: view.getFloat64(48, true),
    },
    piece,
  };
}

/** Whether a message is the one that a writer has sent: nobody else gives it those numbers. */
export function isSame(one: MessageHeader, other: Pick<MessageHeader, "writer" | "batch" | "part">): boolean {
  return (
    one.writer[0] === other.writer[0] &&
    one.writer[1] === other.writer[1] &&
    one.batch === other.batch &&
    one.part === other.part
  );
}
