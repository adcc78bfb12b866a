/**
 * Requests over one bridge: credit, queueing, deadlines, cancellation and the pairing of replies with callers.
 *
 * Invariant: every request given to `request` ends at its sink exactly once, with a reply or a typed error: on reply,
 * on its deadline, on cancellation, or when `fail` declares the peer lost. A late reply finds its slot taken by
 * nobody or by another sequence and is counted, never delivered.
 *
 * Thread: one owner thread. Order: requests reach the peer in the order of `request` and `tell` calls, also when some of them
 * had to wait for credit, as nothing overtakes the queue.
 */

import { type BridgeClient, NO_CREDIT, SUSPENDED, THROTTLED } from "../../native-bridge/bridge.ts";
import { INSUFFICIENT_CAPACITY } from "../../native-bridge/spsc-ring.ts";
import { ShardloomError } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import { type EnvelopeOrigin, writeEnvelope } from "../wire/envelope.ts";
import { ENVELOPE_BYTES, NO_DEADLINE_MS, PRIORITY } from "../wire/envelope-layout.ts";
import { ACTOR_ASK, RUNTIME_CANCEL } from "../wire/message-types.ts";
import { cancelNotice, type Payload, PendingRequest, type ReplySink, type RequestHeader } from "./pending-request.ts";
import { ReplyReader, type ReplyReaderOptions } from "./reply-reader.ts";
import { deadlinePassed, tooLarge, tooManyWait } from "./request-errors.ts";
import { createRequesterStats, type RequesterStats } from "./requester-stats.ts";

export type {
  MemoryViews,
  Payload,
  PendingRequest,
  ReplyFrame,
  ReplySink,
  RequestHeader,
} from "./pending-request.ts";
export type { RequesterStats } from "./requester-stats.ts";

/** What a requester needs from its thread. */
export interface RequesterOptions extends ReplyReaderOptions {
  readonly clock: Clock;
  readonly origin: EnvelopeOrigin;
  /**
   * Called when something waits to be flushed; the owner flushes once per turn. `nowMs` is the time when the caller has
   * just read it, else 0.
   */
  readonly onDirty: (nowMs: number) => void;
  /** Called when a reply's record is damaged: none after it will come, so the owner must `fail` this requester. */
  readonly onDamaged: () => void;
  /** Messages that may wait for credit or room before new ones are refused. @default 4096 */
  readonly maxQueued?: number;
}

/** Records after which a burst is published and the peer woken, so that it works while the burst goes on. */
const FLUSH_EVERY = 64;
const MAX_QUEUED = 4096;
/** For messages that nobody is there to take an error for. */
const MAY_WAIT = true;

/** Sends requests over one bridge and settles each exactly once. */
export class Requester {
  readonly targetShard: number;
  readonly #stats: RequesterStats = createRequesterStats();
  readonly #bridge: BridgeClient;
  readonly #options: RequesterOptions;
  readonly #maxPayloadBytes: number;
  readonly #bySlot: (PendingRequest | undefined)[];
  #queue: PendingRequest[] = [];
  readonly #reader: ReplyReader;
  readonly #onReply: (type: number, offset: number, length: number, slot: number, sequence: number) => void;
  #pending = 0;
  #unflushed = 0;
  #earliestDeadlineMs = Number.POSITIVE_INFINITY;
  #lost: ShardloomError | undefined;

  constructor(bridge: BridgeClient, options: RequesterOptions) {
    this.#bridge = bridge;
    this.#options = options;
    this.#maxPayloadBytes = bridge.maxRequestBytes - ENVELOPE_BYTES;
    this.#bySlot = new Array<PendingRequest | undefined>(bridge.creditMessages).fill(undefined);
    this.targetShard = options.targetShard;
    this.#reader = new ReplyReader(bridge.replies, options);
    this.#onReply = (type, offset, length, slot, sequence) => this.#settleReply(type, offset, length, slot, sequence);
  }

  /** Requests without an outcome yet, and tells that wait for room. */
  get pending(): number {
    return this.#pending;
  }

  /** Messages that wait for credit or room. */
  get queued(): number {
    return this.#queue.length;
  }

  /** A time at or before the earliest deadline of any open request. */
  get earliestDeadlineMs(): number {
    return this.#earliestDeadlineMs;
  }

  /** The largest payload that one message to this peer may have. */
  get maxPayloadBytes(): number {
    return this.#maxPayloadBytes;
  }

  /** Whether a reply has arrived that `drain` would settle. */
  hasReply(): boolean {
    return !this.#bridge.replies.isEmpty();
  }

  /** Whether the peer was declared lost. */
  get lost(): boolean {
    return this.#lost !== undefined;
  }

  /** Whether the peer has taken everything that was sent, and nothing waits to be sent. */
  get hasTaken(): boolean {
    return this.#queue.length === 0 && this.#bridge.requests.usedBytes() === 0;
  }

  /** Whether bulk senders should wait before they hand over more. */
  get congested(): boolean {
    return this.#queue.length > 0 || this.#bridge.pressure() !== "open";
  }

  /** A snapshot of the counters. */
  get stats(): RequesterStats {
    return { ...this.#stats, skipped: this.#bridge.stats().skipped };
  }

  /**
   * Sends a request, or queues it behind those that wait for credit.
   *
   * @param nowMs The time, when the caller has just read the clock.
   * @param header What a plan says in the envelope. @default the newest topology epoch, first attempt, nobody's tenant
   * @throws {ShardloomError} `ERR_RECORD_TOO_LARGE`, `ERR_OVERLOADED` when the queue is full, or the reason why the peer is lost.
   */
  request(
    type: number,
    vshard: number,
    priority: number,
    deadlineAtMs: number,
    payload: Payload,
    sink: ReplySink,
    nowMs: number = this.#options.clock.nowMs(),
    header?: RequestHeader,
  ): PendingRequest {
    this.#assertSendable(type, payload);
    const pending = new PendingRequest(type, vshard, priority, deadlineAtMs, payload, sink, undefined, header);
    if (this.#queue.length > 0 || !this.#trySend(pending, nowMs)) this.#enqueue(pending);
    this.#pending++;
    this.#stats.accepted++;
    if (deadlineAtMs < this.#earliestDeadlineMs) this.#earliestDeadlineMs = deadlineAtMs;
    this.#options.onDirty(nowMs);
    return pending;
  }

  /**
   * Sends a message that has no reply. Same errors as {@link request}.
   *
   * @returns undefined when it has left, else a promise that resolves when it has: who awaits it keeps to the peer's pace
   */
  tell(type: number, vshard: number, priority: number, payload: Payload): Promise<void> | undefined {
    this.#assertSendable(type, payload);
    let waiting: Promise<void> | undefined;
    if (this.#queue.length > 0 || !this.#trySendTell(type, vshard, priority, payload)) {
      let onSent!: (error?: ShardloomError) => void;
      waiting = new Promise((resolve, reject) => {
        onSent = (error) => (error === undefined ? resolve() : reject(error));
      });
      this.#enqueue(
        new PendingRequest(type, vshard, priority, Number.POSITIVE_INFINITY, payload, undefined, onSent, undefined),
      );
      this.#pending++;
    }
    this.#stats.accepted++;
    this.#options.onDirty(0);
    return waiting;
  }

  /** Before a sleep, as a damaged ring is silent: looks whether a reply was lost in it. The peer looks after what it reads itself. */
  lookForDamage(): void {
    if (this.#bridge.replies.isDamaged()) this.#options.onDamaged();
  }

  /** Publishes what was sent since the last flush and rings the peer at most once. */
  flush(): void {
    this.#unflushed = 0;
    this.#bridge.flush();
  }

  /** Settles replies that have arrived and sends queued messages that now have room. @returns replies handled */
  drain(limit: number): number {
    const handled = this.#bridge.drainReplies(this.#onReply, limit);
    if (handled < limit && this.#bridge.replies.poisoned) this.#options.onDamaged();
    if (this.#queue.length > 0) this.sendQueued();
    return Math.max(handled, 0);
  }

  /** Sends queued messages for which there is room again. @returns how many left the queue */
  sendQueued(): number {
    const queue = this.#queue;
    let left = 0;
    try {
      const nowMs = queue.length === 0 ? 0 : this.#options.clock.nowMs();
      while (left < queue.length && this.#trySend(queue[left] as PendingRequest, nowMs, MAY_WAIT)) left++;
    } finally {
      queue.splice(0, left);
    }
    if (left > 0) this.#options.onDirty(0);
    return left;
  }

  /** Ends a request with `error` now; its slot is free at once and the peer skips it when it has not started. */
  cancel(pending: PendingRequest, error: ShardloomError): boolean {
    if (pending.state === "settled") return false;
    const mayRun = pending.state === "sent" && pending.type === ACTOR_ASK;
    if (pending.state === "queued") this.#queue.splice(this.#queue.indexOf(pending), 1);
    this.#release(pending);
    this.#stats.cancelled++;
    // Tells a handler that runs already. Without room, or a ring, it is not told, and runs to its end.
    if (
      mayRun &&
      this.#trySendTell(RUNTIME_CANCEL, pending.vshard, PRIORITY.CONTROL, cancelNotice(pending), MAY_WAIT)
    ) {
      this.#stats.accepted++;
      this.#options.onDirty(0);
    }
    pending.sink?.onFailure(error);
    return true;
  }

  /** Fails every request whose deadline has passed. @returns the next deadline, or infinity */
  sweep(nowMs: number): number {
    if (nowMs < this.#earliestDeadlineMs) return this.#earliestDeadlineMs;
    let earliest = Number.POSITIVE_INFINITY;
    const due: PendingRequest[] = [];
    const look = (pending: PendingRequest | undefined): void => {
      if (pending === undefined) return;
      if (pending.deadlineAtMs <= nowMs) due.push(pending);
      else if (pending.deadlineAtMs < earliest) earliest = pending.deadlineAtMs;
    };
    this.#bySlot.forEach(look);
    this.#queue.forEach(look);
    this.#earliestDeadlineMs = earliest;
    if (due.length === 0) return earliest;
    this.#queue = this.#queue.filter((pending) => pending.deadlineAtMs > nowMs);
    for (const pending of due) this.#expire(pending);
    return earliest;
  }

  /** Declares the peer lost: every open message ends with `error`; what was sent and has no outcome is in doubt. */
  fail(error: ShardloomError): void {
    if (this.#lost !== undefined) return;
    this.#lost = error;
    const sent = this.#bySlot.filter((entry) => entry !== undefined);
    const taken = this.#bridge.requests.counters().consumed;
    const queued = this.#queue;
    this.#queue = [];
    this.#stats.inDoubt += Math.max(0, this.#stats.sent - taken) + sent.filter((entry) => entry.record <= taken).length;
    for (const pending of [...sent, ...queued]) {
      if (pending.state === "settled") continue; // by a sink called here
      this.#release(pending);
      this.#stats.failed++;
      pending.sink?.onFailure(error);
      pending.onSent?.(error);
    }
  }

  #assertSendable(type: number, payload: Payload): void {
    if (this.#lost !== undefined) throw this.#lost;
    if (payload.byteLength <= this.#maxPayloadBytes) return;
    this.#stats.rejected++;
    throw tooLarge(type, payload.byteLength, this.#maxPayloadBytes);
  }

  #enqueue(pending: PendingRequest): void {
    const { maxQueued = MAX_QUEUED } = this.#options;
    if (this.#queue.length >= maxQueued) {
      this.#stats.rejected++;
      throw tooManyWait(pending.type, this.targetShard, maxQueued);
    }
    pending.payload = pending.payload.hold?.() ?? pending.payload;
    this.#queue.push(pending);
  }

  #trySend(pending: PendingRequest, nowMs: number, mayWait = false): boolean {
    const { payload, sink } = pending;
    if (sink === undefined) {
      if (!this.#trySendTell(pending.type, pending.vshard, pending.priority, payload, mayWait)) return false;
      pending.state = "settled";
      this.#pending--;
      pending.onSent?.();
      return true;
    }
    const bridge = this.#bridge;
    const offset = bridge.tryRequest(pending.type, ENVELOPE_BYTES + payload.byteLength, pending.priority);
    if (offset < 0) return this.#refused(offset, mayWait);
    const remainingMs = Math.ceil(pending.deadlineAtMs - nowMs);
    this.#writeHeader(
      pending.type,
      pending.vshard,
      pending.priority,
      offset,
      bridge.lastSequence,
      remainingMs >= NO_DEADLINE_MS ? NO_DEADLINE_MS - 1 : remainingMs,
      ((nowMs * 1000) % 0x1_0000_0000) | 0,
      payload.byteLength,
      pending.header,
    );
    payload.write(bridge.requests, offset + ENVELOPE_BYTES);
    pending.state = "sent";
    pending.slot = bridge.lastSlot;
    pending.sequence = bridge.lastSequence;
    this.#bySlot[pending.slot] = pending;
    pending.record = this.#committed(offset);
    return true;
  }

  #trySendTell(type: number, vshard: number, priority: number, payload: Payload, mayWait = false): boolean {
    const bridge = this.#bridge;
    const offset = bridge.tryTell(type, ENVELOPE_BYTES + payload.byteLength, priority);
    if (offset < 0) return this.#refused(offset, mayWait);
    this.#writeHeader(type, vshard, priority, offset, 0, NO_DEADLINE_MS, 0, payload.byteLength);
    payload.write(bridge.requests, offset + ENVELOPE_BYTES);
    this.#committed(offset);
    this.#stats.told++;
    return true;
  }

  /** A refusal that may pass, or an error. What waits meanwhile ends by its deadline, or when the peer is declared lost. */
  #refused(code: number, mayWait: boolean): false {
    if (mayWait) return false;
    if (code === NO_CREDIT || code === SUSPENDED || code === THROTTLED || code === INSUFFICIENT_CAPACITY) return false;
    throw new ShardloomError("ERR_WORKER_LOST", `Cannot send to shard ${this.targetShard} as its ring is closed`, {
      details: { shard: this.targetShard, code },
    });
  }

  #committed(offset: number): number {
    this.#bridge.commit(offset);
    if (++this.#unflushed >= FLUSH_EVERY) this.flush();
    return ++this.#stats.sent;
  }

  #writeHeader(
    type: number,
    vshard: number,
    priority: number,
    offset: number,
    requestId: number,
    remainingMs: number,
    sentAtUs: number,
    payloadBytes: number,
    header?: RequestHeader,
  ): void {
    const { origin, topology } = this.#options;
    const topologyEpoch = header?.topologyEpoch ?? topology.current().topologyEpoch;
    const { i32 } = this.#bridge.requests;
    // biome-ignore format: one call, one line of what and one of where
    writeEnvelope(i32, offset, origin, type, 0, priority, requestId, vshard, this.targetShard,
      topologyEpoch, remainingMs, sentAtUs, payloadBytes, header?.attempt, header?.tenant);
  }

  #settleReply(type: number, offset: number, length: number, slot: number, sequence: number): void {
    const pending = this.#bySlot[slot];
    if (pending === undefined || pending.sequence !== sequence || !this.#bridge.complete(slot, sequence)) {
      this.#stats.late++;
      return;
    }
    this.#bySlot[slot] = undefined;
    pending.state = "settled";
    this.#pending--;
    const sink = pending.sink as ReplySink;
    const error = this.#reader.read(type, offset, length);
    if (error === undefined) {
      this.#stats.replied++;
      sink.onReply(this.#reader.frame);
      return;
    }
    this.#stats.failed++;
    if (error.code === "ERR_STALE_EPOCH") this.#stats.stale++;
    sink.onFailure(error);
  }

  #expire(pending: PendingRequest): void {
    if (pending.state === "settled") return;
    const wasSent = pending.state === "sent";
    this.#release(pending);
    this.#stats.timedOut++;
    pending.sink?.onFailure(deadlinePassed(pending.type, this.targetShard, wasSent));
  }

  /** Takes a message that ends without a reply out of the books. The caller has taken it out of the queue. */
  #release(pending: PendingRequest): void {
    if (pending.state === "sent") {
      this.#bySlot[pending.slot] = undefined;
      this.#bridge.cancel(pending.slot, pending.sequence);
    } else {
      this.#stats.unsent++;
    }
    this.#pending--;
    pending.state = "settled";
  }
}
