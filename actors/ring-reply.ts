/**
 * A reply that is written in place in a reply ring: header first, then whatever the handler writes after it.
 *
 * Invariant: one reply is open at a time; it ends with `end` or `abort`, and a claim is made at most once in between.
 */
import type { BridgeServer } from "../native-bridge/bridge.ts";
import { ShardloomError } from "../src/errors.ts";
import { type EnvelopeOrigin, writeEnvelope } from "../src/wire/envelope.ts";
import { ENVELOPE_BYTES, PRIORITY, VSHARD_LISTED } from "../src/wire/envelope-layout.ts";
import { messageTypeName } from "../src/wire/message-types.ts";
import type { EngineReply } from "./engine.ts";

/** Writes a reply's header in place and hands the rest of the claimed record to the handler. */
export class RingReply implements EngineReply {
  readonly #origin: EnvelopeOrigin;
  readonly #topologyEpoch: number;
  #server!: BridgeServer;
  #type = 0;
  #slot = -1;
  #sequence = 0;
  #flags = 0;
  #claimed = false;

  constructor(origin: EnvelopeOrigin, topologyEpoch: number) {
    this.#origin = origin;
    this.#topologyEpoch = topologyEpoch;
  }

  get bytes(): Uint8Array {
    return this.#server.replyBytes;
  }

  get i32(): Int32Array {
    return this.#server.replyI32;
  }

  get f32(): Float32Array {
    return this.#server.replyF32;
  }

  get f64(): Float64Array {
    return this.#server.replyF64;
  }

  get offset(): number {
    return this.#server.replyOffset + ENVELOPE_BYTES;
  }

  get limitBytes(): number {
    return this.#server.maxReplyBytes - ENVELOPE_BYTES;
  }

  begin(server: BridgeServer, type: number, slot: number, sequence: number, flags: number): void {
    this.#server = server;
    this.#type = type;
    this.#slot = slot;
    this.#sequence = sequence;
    this.#flags = flags;
    this.#claimed = false;
  }

  claim(lengthBytes: number): void {
    if (this.#claimed)
      throw new ShardloomError("ERR_INTERNAL", `Cannot claim a second reply to ${messageTypeName(this.#type)}`);
    const server = this.#server;
    server.claimReply(this.#type, ENVELOPE_BYTES + lengthBytes, this.#slot, this.#sequence);
    this.#claimed = true;
    writeEnvelope(
      server.replyI32,
      server.replyOffset,
      this.#origin,
      this.#type,
      this.#flags,
      PRIORITY.NORMAL,
      this.#sequence,
      VSHARD_LISTED,
      VSHARD_LISTED,
      this.#topologyEpoch,
      0,
      0,
      lengthBytes,
    );
  }

  abort(): void {
    if (this.#claimed) this.#server.abortReply();
    this.#claimed = false;
  }

  /** Sends the reply; a handler that claimed nothing answers with an empty one. */
  end(): void {
    if (!this.#claimed) this.claim(0);
    this.#claimed = false;
    this.#server.commitReply();
  }
}
