/**
 * Layout of the envelope header: sixteen little-endian int32 words before every payload.
 *
 * ```
 *  word  bits 31..24   23..16      15..8       7..0
 *   0    header words  version     magic "SL" (0x4C53)
 *   1    priority      flags       message type
 *   2    request id (sender's counter, wraps)
 *   3    vshard                    attempt
 *   4    source shard              source node
 *   5    source incarnation
 *   6    target shard              target node
 *   7    topology epoch
 *   8    remaining deadline in ms at the moment of sending; NO_DEADLINE_MS: none
 *   9    sent at, low 32 bits of the host's monotonic clock in us (same host only)
 *        In replies, words 8 and 9 are the us that the request was served for and waited for before that.
 *  10    tenant
 *  11    trace id, low word
 *  12    trace id, high word
 *  13    payload length in bytes
 *  14    reserved, zero
 *  15    reserved, zero
 * ```
 *
 * Invariant: the header is 64 bytes, so a payload that starts 8-aligned in a ring stays 8-aligned after it.
 */

export const ENVELOPE_MAGIC = 0x4c53;
export const ENVELOPE_VERSION = 1;
export const ENVELOPE_WORDS = 16;
export const ENVELOPE_BYTES = 64;

export const WORD_MAGIC = 0;
export const WORD_TYPE = 1;
export const WORD_REQUEST = 2;
export const WORD_VSHARD = 3;
export const WORD_SOURCE = 4;
export const WORD_INCARNATION = 5;
export const WORD_TARGET = 6;
export const WORD_EPOCH = 7;
export const WORD_DEADLINE = 8;
export const WORD_SENT_AT = 9;
export const WORD_TENANT = 10;
export const WORD_TRACE_LOW = 11;
export const WORD_TRACE_HIGH = 12;
export const WORD_LENGTH = 13;
export const WORD_RESERVED = 14;

/** First word of every envelope of this version. */
export const MAGIC_WORD: number = ENVELOPE_MAGIC | (ENVELOPE_VERSION << 16) | (ENVELOPE_WORDS << 24);

/** Remaining deadline of a message that never expires; `sent at` means nothing then. */
export const NO_DEADLINE_MS = 0x7fffffff;

/** The envelope answers a request. */
export const FLAG_REPLY = 1;
/** The reply's payload is an encoded error. */
export const FLAG_ERROR = 2;
/** The request was planned with another topology epoch; the reply's payload is the receiver's map, or empty. */
export const FLAG_STALE = 4;

/** vshard value of an envelope whose vshards are listed in the body, or that concerns every vshard of its shard. */
export const VSHARD_LISTED = 0xffff;

/** How early work is shed under load, by name: `bulk` first, `control` last. */
export type Priority = "bulk" | "normal" | "control";

/** Priorities, lowest first. Bulk is held back by a throttled bridge, normal by a suspended one. */
export const PRIORITY = { BULK: 0, NORMAL: 1, CONTROL: 2 } as const;
