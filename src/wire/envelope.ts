/**
 * Writes and checks envelope headers in place, in any int32 view of shared or private memory.
 *
 * Invariant: `checkEnvelope` accepts a header only if every later read of its payload stays inside the record, so a
 * decoder that trusts a checked envelope never reads another record's bytes.
 */
import {
  ENVELOPE_BYTES,
  MAGIC_WORD,
  WORD_DEADLINE,
  WORD_EPOCH,
  WORD_INCARNATION,
  WORD_LENGTH,
  WORD_MAGIC,
  WORD_REQUEST,
  WORD_RESERVED,
  WORD_SENT_AT,
  WORD_SOURCE,
  WORD_TARGET,
  WORD_TENANT,
  WORD_TRACE_HIGH,
  WORD_TRACE_LOW,
  WORD_TYPE,
  WORD_VSHARD,
} from "./envelope-layout.ts";

/** Who sends: constant for one sender, so that the hot path passes one object. */
export interface EnvelopeOrigin {
  readonly node: number;
  readonly shard: number;
  readonly incarnation: number;
}

export const ENVELOPE_OK = 0;
export const ENVELOPE_TOO_SHORT = 1;
export const ENVELOPE_BAD_MAGIC = 2;
export const ENVELOPE_BAD_LENGTH = 3;
export const ENVELOPE_BAD_RESERVED = 4;

/** What a check found, in words, by its code. */
export const ENVELOPE_FAULTS: readonly string[] = [
  "valid",
  "shorter than its header",
  "of another magic or version",
  "of another length than its record",
  "with reserved words in use",
];

/**
 * Writes a request header. `offset` is a byte offset, a multiple of 4.
 *
 * Cost: sixteen int32 stores, no allocation.
 */
export function writeEnvelope(
  words: Int32Array,
  offset: number,
  origin: EnvelopeOrigin,
  type: number,
  flags: number,
  priority: number,
  requestId: number,
  vshard: number,
  targetShard: number,
  topologyEpoch: number,
  deadlineMs: number,
  sentAtUs: number,
  payloadBytes: number,
  attempt: number = 0,
  tenant: number = 0,
): void {
  const base = offset >> 2;
  words[base + WORD_MAGIC] = MAGIC_WORD;
  words[base + WORD_TYPE] = type | (flags << 16) | (priority << 24);
  words[base + WORD_REQUEST] = requestId;
  words[base + WORD_VSHARD] = (vshard << 16) | attempt;
  words[base + WORD_SOURCE] = origin.node | (origin.shard << 16);
  words[base + WORD_INCARNATION] = origin.incarnation;
  words[base + WORD_TARGET] = origin.node | (targetShard << 16);
  words[base + WORD_EPOCH] = topologyEpoch;
  words[base + WORD_DEADLINE] = deadlineMs;
  words[base + WORD_SENT_AT] = sentAtUs;
  words[base + WORD_TENANT] = tenant;
  words[base + WORD_TRACE_LOW] = 0;
  words[base + WORD_TRACE_HIGH] = 0;
  words[base + WORD_LENGTH] = payloadBytes;
  words[base + WORD_RESERVED] = 0;
  words[base + WORD_RESERVED + 1] = 0;
}

/**
 * Checks the header of a record before anything else of it is read.
 *
 * @param lengthBytes Length of the whole record, header included.
 * @returns {@link ENVELOPE_OK} or the fault's code, an index of {@link ENVELOPE_FAULTS}.
 */
export function checkEnvelope(words: Int32Array, offset: number, lengthBytes: number): number {
  if (lengthBytes < ENVELOPE_BYTES) return ENVELOPE_TOO_SHORT;
  const base = offset >> 2;
  if (words[base + WORD_MAGIC] !== MAGIC_WORD) return ENVELOPE_BAD_MAGIC;
  if (words[base + WORD_LENGTH] !== lengthBytes - ENVELOPE_BYTES) return ENVELOPE_BAD_LENGTH;
  if (((words[base + WORD_RESERVED] as number) | (words[base + WORD_RESERVED + 1] as number)) !== 0) {
    return ENVELOPE_BAD_RESERVED;
  }
  return ENVELOPE_OK;
}

/** Message type of a checked envelope. */
export function envelopeType(words: Int32Array, offset: number): number {
  return (words[(offset >> 2) + WORD_TYPE] as number) & 0xffff;
}

/** Flags of a checked envelope, see `FLAG_*`. */
export function envelopeFlags(words: Int32Array, offset: number): number {
  return ((words[(offset >> 2) + WORD_TYPE] as number) >> 16) & 0xff;
}

/** One word of a checked envelope, by its `WORD_*` index. */
export function envelopeWord(words: Int32Array, offset: number, word: number): number {
  return words[(offset >> 2) + word] as number;
}

/** vshard of a checked envelope. */
export function envelopeVshard(words: Int32Array, offset: number): number {
  return (words[(offset >> 2) + WORD_VSHARD] as number) >>> 16;
}

/** Shard index of the sender of a checked envelope. */
export function envelopeSourceShard(words: Int32Array, offset: number): number {
  return (words[(offset >> 2) + WORD_SOURCE] as number) >>> 16;
}

/** Shard index that a checked envelope is addressed to. */
export function envelopeTargetShard(words: Int32Array, offset: number): number {
  return (words[(offset >> 2) + WORD_TARGET] as number) >>> 16;
}
