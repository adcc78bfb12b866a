/**
 * The asking half of a link: takes what local threads ask of another node's shards out of their bridges, sends it, and writes what comes
 * back into them.
 *
 * While a shard cannot be reached, what is asked of it is answered with the reason at once, so that callers go on to other copies.
 * Only before the first contact requests wait in their rings: nodes that start together must not fail each other's first calls.
 *
 * Invariant: every request taken ends in exactly one answer on its bridge, unless its asker has gone or wants none; see
 * {@link LinkCounters} for what is counted where.
 */
import { RING_POISONED } from "../../native-bridge/spsc-ring.ts";
import { ShardloomError } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { TopologySource } from "../topology/topology-source.ts";
import { checkEnvelope, ENVELOPE_OK, envelopeType, envelopeWord } from "../wire/envelope.ts";
import { ENVELOPE_BYTES, WORD_DEADLINE, WORD_EPOCH, WORD_SENT_AT } from "../wire/envelope-layout.ts";
import { encodeError } from "../wire/error-codec.ts";
import {
  bodyOf,
  createFrame,
  FLAG_REJECTED,
  LINK_FRAME,
  LINK_HEADER_BYTES,
  type LinkFrame,
  type LinkHeader,
} from "../wire/link-frame.ts";
import { messageTypeName, RUNTIME_CANCEL } from "../wire/message-types.ts";
import { LinkAsker, type LinkCall, remainingMs } from "./link-asker.ts";
import { createLinkCounters, type LinkCounters } from "./link-counters.ts";

/** What the asking half works with. */
export interface LinkCallsOptions {
  readonly peer: string;
  readonly shards: readonly number[];
  readonly clock: Clock;
  readonly topology: TopologySource;
  /** A record of a thread's bridge to a shard is damaged: the two need another bridge. */
  readonly onDamaged: (asker: string, shard: number) => void;
}

/** What is known of a shard of the peer. */
interface RemoteShard {
  incarnation: number;
  state: "unknown" | "up" | "lost";
  /** What requests are answered with while it is lost. */
  refusal: Uint8Array;
}

const NO_REFUSAL = new Uint8Array(0);
/** First word of a frame's body. */
const BODY_WORD = LINK_HEADER_BYTES >> 2;

/** What one node asks of one other. */
export class LinkCalls {
  readonly #options: LinkCallsOptions;
  readonly #shards: ReadonlyMap<number, RemoteShard>;
  readonly #askers: Map<string, LinkAsker> = new Map();
  readonly #open: Map<number, LinkCall> = new Map();
  readonly #counters: LinkCounters = createLinkCounters();
  readonly #take = this.#taken.bind(this);
  #send: ((frame: LinkFrame) => void) | undefined;
  #lastId = 0;
  /** Tells sent over the present connection, and of how many of them the outcome is known. */
  #told = 0;
  #toldKnown = 0;

  constructor(options: LinkCallsOptions) {
    this.#options = options;
    this.#shards = new Map(
      options.shards.map((shard) => [shard, { incarnation: 0, state: "unknown", refusal: NO_REFUSAL }]),
    );
  }

  get counters(): LinkCounters {
    return { ...this.#counters, open: this.#open.size + this.#told - this.#toldKnown };
  }

  /** Whether a shard was never heard of: what is asked of it waits. */
  isUnknown(shard: number): boolean {
    return this.#shards.get(shard)?.state === "unknown";
  }

  /** The worker that serves a shard, or served it last; 0 when none was heard of. */
  incarnationOf(shard: number): number {
    return this.#shards.get(shard)?.incarnation ?? 0;
  }

  /** Answers a thread on a bridge from now on. What the thread's former bridge to the shard held has nobody who waits for it. */
  serve(name: string, shard: number, bridge: SharedArrayBuffer, block: SharedArrayBuffer): void {
    const key = `${shard} ${name}`;
    const former = this.#askers.get(key);
    if (former !== undefined) this.#retire(former);
    this.#askers.set(key, new LinkAsker(name, shard, bridge, block, this.#take));
  }

  /** A thread has ended. */
  withdraw(name: string): void {
    for (const [key, asker] of this.#askers) {
      if (asker.name !== name) continue;
      this.#askers.delete(key);
      this.#retire(asker);
    }
  }

  /** A connection is there. Its shards are told of next. */
  opened(send: (frame: LinkFrame) => void): void {
    this.#send = send;
    this.#told = 0;
    this.#toldKnown = 0;
  }

  /** The connection is lost: what is open is in doubt, and what comes is answered with `refusal`. */
  closed(lost: ShardloomError, refusal: (shard: number) => ShardloomError): void {
    this.#send = undefined;
    const error = encodeError(lost);
    this.#counters.inDoubt += this.#told - this.#toldKnown;
    this.#toldKnown = this.#told;
    for (const call of [...this.#open.values()]) {
      this.#end(call);
      this.#counters.inDoubt++;
      if (call.asker.wants(call)) call.asker.fail(call.type, call.slot, call.sequence, error);
    }
    for (const [shard, remote] of this.#shards) if (remote.state === "up") lose(remote, refusal(shard));
  }

  /** There was time enough for a first contact: what waits for it is refused. */
  giveUpWaiting(refusal: (shard: number) => ShardloomError): void {
    for (const [shard, remote] of this.#shards) if (remote.state === "unknown") lose(remote, refusal(shard));
  }

  shardUp(shard: number, incarnation: number): void {
    const remote = this.#known(shard);
    remote.state = "up";
    remote.incarnation = incarnation;
  }

  shardLost(shard: number, incarnation: number, error: Uint8Array): void {
    const remote = this.#known(shard);
    remote.state = "lost";
    remote.incarnation = incarnation;
    remote.refusal = error;
  }

  /** Takes up to `limit` records of each bridge. @returns how many */
  drain(limit: number): number {
    let taken = 0;
    for (const [key, asker] of this.#askers) {
      if (this.isUnknown(asker.shard)) continue;
      const records = asker.drain(limit);
      if (records === RING_POISONED) {
        this.#askers.delete(key);
        this.#retire(asker);
        this.#options.onDamaged(asker.name, asker.shard);
      }
      taken += Math.max(0, records);
    }
    return taken;
  }

  /** Whether `drain` or `flush` would find anything, be it that a record was lost. Not during a drain. */
  hasWork(): boolean {
    for (const { shard, server } of this.#askers.values()) {
      if (server.canMoveOverflow()) return true;
      if (!this.isUnknown(shard) && (!server.requests.isEmpty() || server.requests.isDamaged())) return true;
    }
    return false;
  }

  /** Publishes the answers that were written. */
  flush(): void {
    for (const { server } of this.#askers.values()) server.flush();
  }

  /** An answer of the shard. @throws {ShardloomError} `ERR_CORRUPT` */
  onReply(frame: LinkFrame): void {
    const fault = checkEnvelope(frame.words, LINK_HEADER_BYTES, frame.bodyBytes);
    if (fault !== ENVELOPE_OK)
      throw new ShardloomError("ERR_CORRUPT", "Cannot take reply as its envelope is damaged", { details: { fault } });
    const call = this.#answered(frame);
    if (call === undefined) return;
    const { asker, type, slot, sequence } = call;
    this.#counters.delivered++;
    try {
      asker.reply(type, slot, sequence, bodyOf(frame));
    } catch (error) {
      asker.fail(type, slot, sequence, encodeError(error));
    }
  }

  /** The peer has an error for a request, its shard's or its own. */
  onFailure(frame: LinkFrame): void {
    const call = this.#answered(frame);
    if (call === undefined) return;
    if ((frame.flags & FLAG_REJECTED) !== 0) this.#counters.rejected++;
    else if (frame.flags === 0) this.#counters.delivered++;
    else this.#counters.inDoubt++;
    call.asker.fail(call.type, call.slot, call.sequence, bodyOf(frame));
  }

  /** What became of tells of this connection: `u32 in a worker's ring | u32 refused` since the last such frame. */
  onTold({ words, bodyBytes }: LinkFrame): void {
    const delivered = words[BODY_WORD] as number;
    const rejected = words[BODY_WORD + 1] as number;
    const known = this.#toldKnown + delivered + rejected;
    if (bodyBytes !== 8 || delivered < 0 || rejected < 0 || known > this.#told)
      throw new ShardloomError("ERR_CORRUPT", "Cannot take counters as they must be two, of tells that were sent");
    this.#counters.delivered += delivered;
    this.#counters.rejected += rejected;
    this.#toldKnown = known;
  }

  #taken(asker: LinkAsker, type: number, offset: number, length: number, slot: number, sequence: number): void {
    const { i32 } = asker.server.requests;
    const fault = checkEnvelope(i32, offset, length);
    if (type === RUNTIME_CANCEL && fault === ENVELOPE_OK && length >= ENVELOPE_BYTES + 8) {
      const at = (offset + ENVELOPE_BYTES) >> 2;
      const call = asker.callAt(i32[at] as number);
      if (call !== undefined && call.sequence === i32[at + 1]) this.#abandon(call);
      return;
    }
    this.#counters.sent++;
    const former = slot < 0 ? undefined : asker.callAt(slot);
    if (former !== undefined) this.#abandon(former);
    const refusal =
      fault === ENVELOPE_OK && envelopeType(i32, offset) === type
        ? this.#forward(asker, type, offset, length, slot, sequence)
        : encodeError(
            new ShardloomError("ERR_CORRUPT", `Cannot send ${messageTypeName(type)} as its envelope is damaged`),
          );
    if (refusal === undefined) return;
    if (slot < 0) this.#counters.dead++;
    else {
      this.#counters.rejected++;
      asker.fail(type, slot, sequence, refusal);
    }
  }

  /** @returns why it cannot be sent, if so */
  #forward(
    asker: LinkAsker,
    type: number,
    offset: number,
    length: number,
    slot: number,
    sequence: number,
  ): Uint8Array | undefined {
    const { shard } = asker;
    const remote = this.#known(shard);
    if (this.#send === undefined || remote.state !== "up") return remote.refusal;
    const { i32, bytes } = asker.server.requests;
    const { clock, topology } = this.#options;
    const sentAtUs = envelopeWord(i32, offset, WORD_SENT_AT);
    const leftMs = remainingMs(envelopeWord(i32, offset, WORD_DEADLINE), sentAtUs, clock.nowMs());
    if (leftMs <= 0) return encodeError(expired(type, shard));
    const header: LinkHeader =
      slot < 0
        ? { kind: LINK_FRAME.TELL, type, shard }
        : { kind: LINK_FRAME.REQUEST, type, shard, call: this.#nextId() };
    const frame = createFrame(header, length);
    frame.bytes.set(bytes.subarray(offset, offset + length), LINK_HEADER_BYTES);
    const { mapEpoch, mapVersion, topologyEpoch } = topology.current();
    const epoch = envelopeWord(i32, offset, WORD_EPOCH);
    // Epochs of states are this node's own; a plan that knows the map is good on every node that has the same map.
    frame.words[BODY_WORD + WORD_EPOCH] = epoch >= mapEpoch && epoch <= topologyEpoch ? mapVersion : 0;
    frame.words[BODY_WORD + WORD_DEADLINE] = leftMs;
    frame.words[BODY_WORD + WORD_SENT_AT] = 0;
    if (slot < 0) this.#told++;
    else {
      const call: LinkCall = { id: frame.call, asker, type, slot, sequence };
      this.#open.set(call.id, call);
      asker.begin(call);
    }
    this.#send(frame);
    return undefined;
  }

  /** The call that a frame is about, taken out of the books; undefined when nobody waits for it. */
  #answered(frame: LinkFrame): LinkCall | undefined {
    const call = this.#open.get(frame.call);
    if (call === undefined) {
      this.#counters.late++;
      return undefined;
    }
    this.#end(call);
    if (call.asker.wants(call)) return call;
    this.#counters.dead++;
    return undefined;
  }

  /** Nobody waits for a call: the peer need not work on it. */
  #abandon(call: LinkCall): void {
    this.#end(call);
    this.#counters.dead++;
    this.#send?.(createFrame({ kind: LINK_FRAME.CANCEL, call: call.id, shard: call.asker.shard, type: call.type }, 0));
  }

  #retire(asker: LinkAsker): void {
    for (const call of asker.open()) this.#abandon(call);
  }

  #end(call: LinkCall): void {
    this.#open.delete(call.id);
    call.asker.end(call);
  }

  #known(shard: number): RemoteShard {
    const remote = this.#shards.get(shard);
    if (remote === undefined)
      throw new ShardloomError("ERR_CORRUPT", `Cannot take frame as node ${this.#options.peer} has no shard ${shard}`);
    return remote;
  }

  /** An id that no open call has: it wraps, and the oldest calls are long gone by then, but one may be. */
  #nextId(): number {
    do this.#lastId = (this.#lastId + 1) | 0;
    while (this.#open.has(this.#lastId));
    return this.#lastId;
  }
}

function lose(remote: RemoteShard, error: ShardloomError): void {
  remote.state = "lost";
  remote.refusal = encodeError(error);
}

function expired(type: number, shard: number): ShardloomError {
  return new ShardloomError(
    "ERR_TIMEOUT",
    `Cannot send ${messageTypeName(type)} to shard ${shard} as its deadline passed while it waited`,
    { details: { shard, sent: false } },
  );
}
