/**
 * Memory layout of a bridge: a request ring, a reply ring, the slot table and the words the two sides share; no behaviour.
 *
 * Invariant: a slot's word holds the sequence of its live request and 0 when there is none, so that the server can tell a
 * cancelled request, and the client a late reply, by comparing one word.
 * Source: agrona descriptor files; eRPC (Kalia et al., NSDI 2019, section 4.3) for credits that bound replies.
 *
 * ```
 * bytes  | configuration | client line | server line | slots: int32 * creditMessages | request ring | reply ring |
 *          128             128           128           padded to 128
 *
 * record   ring header 8 | int32 slot (-1: tell) | int32 sequence | payload, 8-aligned
 * ```
 */
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import { initializeRing, maxPayloadBytesOf, ringByteLength } from "./ring-layout.ts";

const LINE_BYTES = 128;
/** `"Brdg"` as little-endian int32. */
export const BRIDGE_MAGIC = 0x67647242;

// Configuration line, int32 each: written once.
const MAGIC_INDEX = 0;
const REQUEST_CAPACITY_INDEX = 1;
const REPLY_CAPACITY_INDEX = 2;
const CREDIT_MESSAGES_INDEX = 3;
const CREDIT_BYTES_INDEX = 4;

// Client line. The sample word is set by the client when it is 0 and cleared by the server.
export const SAMPLE_RECORD_OFFSET: number = LINE_BYTES;
/** Set by a client that was refused for lack of room in the request ring; cleared by the server, which then rings. */
export const WANTS_ROOM_OFFSET: number = LINE_BYTES + 4;
export const SAMPLE_US_OFFSET: number = LINE_BYTES + 8;

// Server line.
/** Set by a server that holds replies back for lack of room in the reply ring; cleared by the client, which then rings. */
export const OVERFLOW_OFFSET: number = 2 * LINE_BYTES;
export const WAIT_COUNT_OFFSET: number = 2 * LINE_BYTES + 8;
export const WAIT_SUM_US_OFFSET: number = 2 * LINE_BYTES + 16;
export const WAIT_MAX_US_OFFSET: number = 2 * LINE_BYTES + 24;
export const SKIPPED_OFFSET: number = 2 * LINE_BYTES + 32;
export const OVERFLOWED_OFFSET: number = 2 * LINE_BYTES + 40;
export const DISCARDED_OFFSET: number = 2 * LINE_BYTES + 48;

export const SLOTS_OFFSET: number = 3 * LINE_BYTES;

/** Bytes before each payload that the bridge owns. */
export const PREFIX_BYTES = 8;
/** Slot of a record that expects no reply. */
export const NO_SLOT = -1;
/** One record in so many has its queue wait measured; a power of two. */
export const SAMPLE_INTERVAL = 64;

/** Sizes and credits of a bridge. */
export interface BridgeOptions {
  /** Bytes of the request ring; a power of two. At the limit requests are refused. @default 1 MiB */
  readonly requestCapacityBytes?: number;
  /** Bytes of the reply ring; a power of two. At the limit replies wait in the server's overflow. @default 1 MiB */
  readonly replyCapacityBytes?: number;
  /** Requests that may be open at once, in `[1, 65536]`. @default 1024 */
  readonly creditMessages?: number;
  /** Payload bytes of open requests; at least the largest request. @default requestCapacityBytes */
  readonly creditBytes?: number;
}

/** Options with every value present, and where each part of the bridge lies. */
export interface BridgeLayout {
  readonly requestCapacityBytes: number;
  readonly replyCapacityBytes: number;
  readonly creditMessages: number;
  readonly creditBytes: number;
  readonly requestRingOffset: number;
  readonly replyRingOffset: number;
  readonly byteLength: number;
}

/** Fills and checks the options of a bridge. */
export function resolveBridgeOptions(options: BridgeOptions = {}): BridgeLayout {
  const requestCapacityBytes = options.requestCapacityBytes ?? 2 ** 20;
  const replyCapacityBytes = options.replyCapacityBytes ?? 2 ** 20;
  const creditMessages = options.creditMessages ?? 1024;
  const creditBytes = options.creditBytes ?? requestCapacityBytes;
  const requestRingBytes = ringByteLength(requestCapacityBytes);
  const replyRingBytes = ringByteLength(replyCapacityBytes);
  if (!Number.isInteger(creditMessages) || creditMessages < 1 || creditMessages > 65_536) {
    throw invalidArgument("create bridge", "creditMessages", "an integer in [1, 65536]", creditMessages);
  }
  const largest = maxPayloadBytesOf(requestCapacityBytes) - PREFIX_BYTES;
  if (!Number.isInteger(creditBytes) || creditBytes < Math.max(1, largest) || creditBytes >= 2 ** 31) {
    throw invalidArgument(
      "create bridge",
      "creditBytes",
      `an integer in [${Math.max(1, largest)}, 2^31), to admit the largest request`,
      creditBytes,
    );
  }
  const requestRingOffset = SLOTS_OFFSET + Math.ceil((creditMessages * 4) / LINE_BYTES) * LINE_BYTES;
  const replyRingOffset = requestRingOffset + requestRingBytes;
  return {
    requestCapacityBytes,
    replyCapacityBytes,
    creditMessages,
    creditBytes,
    requestRingOffset,
    replyRingOffset,
    byteLength: replyRingOffset + replyRingBytes,
  };
}

/** Makes the memory of one bridge, with both rings empty. */
export function createBridge(options: BridgeOptions = {}): SharedArrayBuffer {
  const layout = resolveBridgeOptions(options);
  const memory = new SharedArrayBuffer(layout.byteLength);
  initializeRing(memory, layout.requestRingOffset, layout.requestCapacityBytes);
  initializeRing(memory, layout.replyRingOffset, layout.replyCapacityBytes);
  const words = new Int32Array(memory);
  words[REQUEST_CAPACITY_INDEX] = layout.requestCapacityBytes;
  words[REPLY_CAPACITY_INDEX] = layout.replyCapacityBytes;
  words[CREDIT_MESSAGES_INDEX] = layout.creditMessages;
  words[CREDIT_BYTES_INDEX] = layout.creditBytes;
  Atomics.store(words, MAGIC_INDEX, BRIDGE_MAGIC); // publishes the configuration
  return memory;
}

/** Reads the layout of a bridge that another thread created. */
export function openBridge(memory: SharedArrayBuffer): BridgeLayout {
  const words = new Int32Array(memory, 0, memory.byteLength >= LINE_BYTES ? LINE_BYTES >> 2 : 0);
  if (words.length === 0 || Atomics.load(words, MAGIC_INDEX) !== BRIDGE_MAGIC) {
    // acquires the configuration
    throw new ShardloomError(
      "ERR_CORRUPT",
      `Cannot open bridge as the memory holds none: current byteLength is ${memory.byteLength}`,
    );
  }
  return resolveBridgeOptions({
    requestCapacityBytes: words[REQUEST_CAPACITY_INDEX] as number,
    replyCapacityBytes: words[REPLY_CAPACITY_INDEX] as number,
    creditMessages: words[CREDIT_MESSAGES_INDEX] as number,
    creditBytes: words[CREDIT_BYTES_INDEX] as number,
  });
}
