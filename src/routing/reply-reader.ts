/**
 * Reads the header of a reply: a result, an error, or the answer that the request was planned with another topology.
 *
 * Invariant: the frame is valid until the next `read`; whatever is wrong with a reply ends as a typed error, never as a throw.
 */
import { ShardloomError } from "../errors.ts";
import { decodeSnapshot } from "../topology/snapshot.ts";
import type { TopologySource } from "../topology/topology-source.ts";
import { checkEnvelope, ENVELOPE_FAULTS, ENVELOPE_OK, envelopeFlags, envelopeWord } from "../wire/envelope.ts";
import { ENVELOPE_BYTES, FLAG_ERROR, FLAG_STALE, WORD_DEADLINE, WORD_SENT_AT } from "../wire/envelope-layout.ts";
import { messageTypeName } from "../wire/message-types.ts";
import type { MemoryViews, ReplyFrame } from "./pending-request.ts";

/** What a reader needs from its requester. */
export interface ReplyReaderOptions {
  readonly targetShard: number;
  readonly topology: TopologySource;
  /** Turns an error reply's payload into the error. */
  readonly decodeError: (bytes: Uint8Array, offset: number, length: number) => ShardloomError;
}

/** The replies of one ring, one at a time. */
export class ReplyReader {
  /** The reply that was read last. */
  readonly frame: ReplyFrame;
  readonly #frame: { -readonly [K in keyof ReplyFrame]: ReplyFrame[K] };
  readonly #options: ReplyReaderOptions;

  constructor({ bytes, i32, f32, f64 }: MemoryViews, options: ReplyReaderOptions) {
    this.#options = options;
    this.#frame = { bytes, i32, f32, f64, offset: 0, length: 0, serviceUs: 0, queueUs: 0 };
    this.frame = this.#frame;
  }

  /** @returns undefined for a result, whose payload is the frame; else the error that the request ends with */
  read(type: number, offset: number, length: number): ShardloomError | undefined {
    const frame = this.#frame;
    const { i32 } = frame;
    const fault = checkEnvelope(i32, offset, length);
    if (fault !== ENVELOPE_OK) {
      const reason = `Cannot decode reply to ${messageTypeName(type)} as it is ${ENVELOPE_FAULTS[fault]}`;
      return new ShardloomError("ERR_CORRUPT", reason, { details: { length, fault } });
    }
    frame.offset = offset + ENVELOPE_BYTES;
    frame.length = length - ENVELOPE_BYTES;
    frame.serviceUs = envelopeWord(i32, offset, WORD_DEADLINE) >>> 0;
    frame.queueUs = envelopeWord(i32, offset, WORD_SENT_AT) >>> 0;
    const flags = envelopeFlags(i32, offset);
    if ((flags & FLAG_STALE) !== 0) return this.#learn(type);
    if ((flags & FLAG_ERROR) !== 0) return this.#options.decodeError(frame.bytes, frame.offset, frame.length);
    return undefined;
  }

  /** Takes the newer map that a stale request was answered with. An empty one was too large: shared memory has it. */
  #learn(type: number): ShardloomError {
    const { topology, targetShard } = this.#options;
    const { bytes, offset, length } = this.#frame;
    try {
      if (length > 0) topology.learn(decodeSnapshot(bytes.subarray(offset, offset + length)));
    } catch (error) {
      return ShardloomError.from(error);
    }
    const { topologyEpoch } = topology.current();
    return new ShardloomError(
      "ERR_STALE_EPOCH",
      `Cannot handle ${messageTypeName(type)} on shard ${targetShard} as it must be planned with its topology: the newest epoch is ${topologyEpoch}`,
      { details: { shard: targetShard, topologyEpoch } },
    );
  }
}
