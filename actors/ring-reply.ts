/**
 * A reply that is written in place in a reply ring: header first, then whatever the handler writes after it.
 *
 * Invariant: one reply is open at a time; it ends with `end` or `abort`, and a claim is made at most once in between.
 */
import type { BridgeServer } from "../native-bridge/bridge.ts";
import { ShardloomError } from "../src/errors.ts";
import type { TopologySource } from "../src/topology/topology-source.ts";
import { type EnvelopeOrigin, writeEnvelope } from "../src/wire/envelope.ts";
import {
  ENVELOPE_BYTES,
  FLAG_ERROR,
  FLAG_REPLY,
  FLAG_STALE,
  PRIORITY,
  VSHARD_LISTED,
  WORD_DEADLINE,
  WORD_SENT_AT,
} from "../src/wire/envelope-layout.ts";
import { encodeError } from "../src/wire/error-codec.ts";
import { messageTypeName } from "../src/wire/message-types.ts";
import { type LsnList, type RefusedVshard, routedReplyBytes, writeRoutedReply } from "../src/wire/routed-codec.ts";
import type { EngineReply, HeldReply, HeldTimes, WireMemory } from "./engine.ts";

/** What became of the vshards of a planned request. */
export interface RoutedPrefix {
  readonly refused: readonly RefusedVshard[];
  /** LSNs of a write, once it has them; of a session read, what it shows. */
  readonly written: LsnList | undefined;
  /** How far what is answered may be behind its primaries, in ms. @default 0 */
  readonly stalenessMs?: number | undefined;
}

/** Writes a reply's header in place and hands the rest of the claimed record to the handler. */
export class RingReply implements EngineReply {
  readonly #origin: EnvelopeOrigin;
  readonly #topology: TopologySource;
  readonly #onLate: () => void;
  #server!: BridgeServer;
  #type = 0;
  #slot = -1;
  #sequence = 0;
  #flags = 0;
  #claimed = false;
  #held = false;
  /** Of the reply that was held last: how long its request had waited. */
  #owed = { waitedUs: 0 };
  /** What stands before the body of the reply to a planned request. */
  #prefix: RoutedPrefix | undefined;
  #prefixBytes = 0;
  #late: RingReply | undefined;

  /** @param onLate Called after a held reply was written: it has to be flushed. */
  constructor(origin: EnvelopeOrigin, topology: TopologySource, onLate: () => void) {
    this.#origin = origin;
    this.#topology = topology;
    this.#onLate = onLate;
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
    return this.#server.replyOffset + ENVELOPE_BYTES + this.#prefixBytes;
  }

  get limitBytes(): number {
    return this.#server.maxReplyBytes - ENVELOPE_BYTES - this.#bytesOfPrefix();
  }

  begin(server: BridgeServer, type: number, slot: number, sequence: number, flags: number): void {
    this.#server = server;
    this.#type = type;
    this.#slot = slot;
    this.#sequence = sequence;
    this.#flags = flags;
    this.#claimed = false;
    this.#held = false;
    this.#prefix = undefined;
    this.#prefixBytes = 0;
  }

  /** The reply that was begun answers a planned request: this is written before its body. */
  route(prefix: RoutedPrefix): void {
    this.#prefix = prefix;
  }

  hold(): HeldReply | undefined {
    if (this.#claimed)
      throw new ShardloomError("ERR_INTERNAL", `Cannot hold a reply to ${messageTypeName(this.#type)} that is claimed`);
    this.#held = true;
    if (this.#slot < 0) return undefined;
    const prefix = this.#prefix === undefined ? undefined : { ...this.#prefix };
    return this.#owe(this.#server, this.#type, this.#slot, this.#sequence, prefix);
  }

  claim(lengthBytes: number): void {
    if (this.#claimed || this.#held)
      throw new ShardloomError("ERR_INTERNAL", `Cannot claim a second reply to ${messageTypeName(this.#type)}`);
    const server = this.#server;
    const prefixBytes = this.#bytesOfPrefix();
    server.claimReply(this.#type, ENVELOPE_BYTES + prefixBytes + lengthBytes, this.#slot, this.#sequence);
    this.#claimed = true;
    this.#prefixBytes = prefixBytes;
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
      this.#topology.current().topologyEpoch,
      0,
      0,
      prefixBytes + lengthBytes,
    );
    if (this.#prefix !== undefined)
      writeRoutedReply(
        this,
        this.offset - prefixBytes,
        this.#prefix.refused,
        this.#prefix.written,
        this.#prefix.stalenessMs,
      );
  }

  abort(): void {
    if (this.#claimed) this.#server.abortReply();
    this.#claimed = false;
  }

  /**
   * Sends the reply; a handler that claimed nothing answers with an empty one, and one that holds it with none yet.
   *
   * @param serviceUs How long the handler ran, and how long the request had waited before that.
   */
  end(serviceUs = 0, queueUs = 0): void {
    if (this.#held) {
      this.#owed.waitedUs = queueUs;
      return;
    }
    if (!this.#claimed) this.claim(0);
    this.#claimed = false;
    const word = this.#server.replyOffset >> 2;
    this.#server.replyI32[word + WORD_DEADLINE] = serviceUs;
    this.#server.replyI32[word + WORD_SENT_AT] = queueUs;
    this.#server.commitReply();
  }

  /** Writes an error as the whole reply. */
  fail(server: BridgeServer, type: number, slot: number, sequence: number, error: unknown): void {
    const body = encodeError(error);
    const lengthBytes = Math.min(body.length, server.maxReplyBytes - ENVELOPE_BYTES);
    this.begin(server, type, slot, sequence, FLAG_REPLY | FLAG_ERROR);
    this.claim(lengthBytes);
    this.bytes.set(body.subarray(0, lengthBytes), this.offset);
    this.end();
  }

  /** Answers that the request was planned with another topology; a map too large for the ring is left out. */
  stale(server: BridgeServer, type: number, slot: number, sequence: number, map: Uint8Array): void {
    const fits = map.length <= server.maxReplyBytes - ENVELOPE_BYTES;
    this.begin(server, type, slot, sequence, FLAG_REPLY | FLAG_STALE);
    this.claim(fits ? map.length : 0);
    if (fits) this.bytes.set(map, this.offset);
    this.end();
  }

  #bytesOfPrefix(): number {
    const prefix = this.#prefix;
    return prefix === undefined ? 0 : routedReplyBytes(prefix.refused.length, prefix.written?.vshards.length ?? 0);
  }

  /** Held replies are written by an object of their own: another request's reply may be open meanwhile, unclaimed. */
  #owe(
    server: BridgeServer,
    type: number,
    slot: number,
    sequence: number,
    prefix: RoutedPrefix | undefined,
  ): HeldReply {
    this.#late ??= new RingReply(this.#origin, this.#topology, this.#onLate);
    const late = this.#late;
    const debt = { waitedUs: 0 };
    this.#owed = debt;
    let owed = true;
    const settle = (answer: () => void): void => {
      if (!owed) return;
      owed = false;
      answer();
      this.#onLate();
    };
    const fail = (error: unknown): void => late.fail(server, type, slot, sequence, error);
    return {
      get cancelled() {
        return server.isCancelled(slot, sequence);
      },
      send: (lengthBytes: number, write: (memory: WireMemory, offset: number) => void, times?: HeldTimes) =>
        settle(() => {
          try {
            late.begin(server, type, slot, sequence, FLAG_REPLY);
            if (prefix !== undefined) late.route(prefix);
            late.claim(lengthBytes);
            write(late, late.offset);
            if (times === undefined) late.end();
            else late.end(times.serviceUs, debt.waitedUs + times.queueUs);
          } catch (error) {
            late.abort();
            fail(error);
          }
        }),
      fail: (error: unknown) => settle(() => fail(error)),
    };
  }
}
