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
import { ShardloomError } from "../errors.ts";
import { type BridgeClient, NO_CREDIT, SUSPENDED, THROTTLED } from "../../native-bridge/bridge.ts";
import { INSUFFICIENT_CAPACITY } from "../../native-bridge/spsc-ring.ts";
import type { Clock } from "../runtime/clock.ts";
import { checkEnvelope, ENVELOPE_FAULTS, ENVELOPE_OK, envelopeFlags, type EnvelopeOrigin, writeEnvelope } from "../wire/envelope.ts";
import { ENVELOPE_BYTES, FLAG_ERROR } from "../wire/envelope-layout.ts";
import { messageTypeName } from "../wire/message-types.ts";

/** Typed views over one block of memory; all of them start at byte 0 of the same buffer. */
export interface MemoryViews {
  readonly bytes: Uint8Array;
  readonly i32: Int32Array;
  readonly f32: Float32Array;
  readonly f64: Float64Array;
}

/** A message body that knows its size and writes itself in place. */
export interface Payload {
  readonly byteLength: number;
  /** Writes exactly `byteLength` bytes at `offset`, which is 8-aligned. May be called later than it was given. */
  write(target: MemoryViews, offset: number): void;
}

/** A reply's payload; valid only during `onReply`. */
export interface ReplyFrame extends MemoryViews {
  readonly offset: number;
  readonly length: number;
}

/** Where a request ends: exactly one of the two is called, exactly once. */
export interface ReplySink {
  onReply(frame: ReplyFrame): void;
  onFailure(error: ShardloomError): void;
}

/** One request on its way. Opaque to callers, who may only cancel it. */
export class PendingRequest {
  state: "queued" | "sent" | "settled" = "queued";
  slot = -1;
  sequence = 0;
  readonly type: number;
  readonly vshard: number;
  readonly priority: number;
  readonly deadlineAtMs: number;
  readonly payload: Payload;
  /** Undefined for a tell. */
  readonly sink: ReplySink | undefined;

  constructor(
    type: number,
    vshard: number,
    priority: number,
    deadlineAtMs: number,
    payload: Payload,
    sink: ReplySink | undefined,
  ) {
    this.type = type;
    this.vshard = vshard;
    this.priority = priority;
    this.deadlineAtMs = deadlineAtMs;
    this.payload = payload;
    this.sink = sink;
  }
}

/** What a requester needs from its thread. */
export interface RequesterOptions {
  readonly clock: Clock;
  readonly origin: EnvelopeOrigin;
  /** Shard at the other end of the bridge. */
  readonly targetShard: number;
  readonly topologyEpoch: number;
  /** Turns an error reply's payload into the error. */
  readonly decodeError: (bytes: Uint8Array, offset: number, length: number) => ShardloomError;
  /** Called when something waits to be flushed; the owner flushes once per turn. */
  readonly onDirty: () => void;
  /** Requests that may wait for credit before new ones are refused. @default 4096 */
  readonly maxQueued?: number;
}

/** Counters of one requester; they only grow. */
export interface RequesterStats {
  sent: number;
  replied: number;
  failed: number;
  timedOut: number;
  cancelled: number;
  rejected: number;
  late: number;
  inDoubt: number;
}

const DEADLINE_LIMIT_MS = 0x7fffffff;

/** Sends requests over one bridge and settles each exactly once. */
export class Requester {
  readonly targetShard: number;
  readonly stats: RequesterStats = {
    sent: 0,
    replied: 0,
    failed: 0,
    timedOut: 0,
    cancelled: 0,
    rejected: 0,
    late: 0,
    inDoubt: 0,
  };
  readonly #bridge: BridgeClient;
  readonly #options: RequesterOptions;
  readonly #maxQueued: number;
  readonly #bySlot: (PendingRequest | undefined)[] = [];
  readonly #queue: PendingRequest[] = [];
  readonly #frame: { bytes: Uint8Array; i32: Int32Array; f32: Float32Array; f64: Float64Array; offset: number; length: number };
  readonly #onReply: (type: number, offset: number, length: number, slot: number, sequence: number) => void;
  #pending = 0;
  #earliestDeadlineMs = Number.POSITIVE_INFINITY;
  #lost: ShardloomError | undefined;

  constructor(bridge: BridgeClient, options: RequesterOptions) {
    this.#bridge = bridge;
    this.#options = options;
    this.#maxQueued = options.maxQueued ?? 4096;
    this.targetShard = options.targetShard;
    const { bytes, i32, f32, f64 } = bridge.replies;
    this.#frame = { bytes, i32, f32, f64, offset: 0, length: 0 };
    this.#onReply = (type, offset, length, slot, sequence) => this.#settleReply(type, offset, length, slot, sequence);
  }

  /** Requests without an outcome yet, queued ones included. */
  get pending(): number {
    return this.#pending;
  }

  /** A time at or before the earliest deadline of any open request. */
  get earliestDeadlineMs(): number {
    return this.#earliestDeadlineMs;
  }

  /** The largest payload that one message to this peer may have. */
  get maxPayloadBytes(): number {
    return this.#bridge.maxRequestBytes - ENVELOPE_BYTES;
  }

  /** Whether a reply has arrived that `drain` would settle. */
  hasReply(): boolean {
    return !this.#bridge.replies.isEmpty();
  }

  /** Whether the peer was declared lost. */
  get lost(): boolean {
    return this.#lost !== undefined;
  }

  /** Whether bulk senders should wait before they hand over more. */
  get congested(): boolean {
    return this.#queue.length > 0 || this.#bridge.pressure() !== "open";
  }

  /**
   * Sends a request, or queues it behind those that wait for credit.
   *
   * @throws {ShardloomError} `ERR_RECORD_TOO_LARGE`, `ERR_OVERLOADED` when the queue is full, or the reason why the peer is lost.
   */
  request(
    type: number,
    vshard: number,
    priority: number,
    deadlineAtMs: number,
    payload: Payload,
    sink: ReplySink,
  ): PendingRequest {
    const pending = new PendingRequest(type, vshard, priority, deadlineAtMs, payload, sink);
    this.#admit(pending);
    this.#pending++;
    if (deadlineAtMs < this.#earliestDeadlineMs) this.#earliestDeadlineMs = deadlineAtMs;
    return pending;
  }

  /** Sends a message that has no reply. Same errors as {@link request}. */
  tell(type: number, vshard: number, priority: number, payload: Payload): void {
    this.#admit(new PendingRequest(type, vshard, priority, Number.POSITIVE_INFINITY, payload, undefined));
  }

  /** Publishes what was sent since the last flush and rings the peer at most once. */
  flush(): void {
    this.#bridge.flush();
  }

  /** Settles replies that have arrived and sends queued requests that now have credit. @returns replies handled */
  drain(limit: number): number {
    const handled = this.#bridge.drainReplies(this.#onReply, limit);
    if (this.#queue.length > 0) this.sendQueued();
    return handled < 0 ? 0 : handled;
  }

  /** Sends queued requests for which there is credit again. @returns how many left the queue */
  sendQueued(): number {
    let sent = 0;
    for (const pending of this.#queue) {
      if (pending.state !== "settled" && !this.#trySend(pending)) break;
      sent++;
    }
    if (sent > 0) this.#queue.splice(0, sent);
    return sent;
  }

  /** Ends a request with `error` now; its slot is free at once and the peer skips it when it has not started. */
  cancel(pending: PendingRequest, error: ShardloomError): boolean {
    if (pending.state === "settled") return false;
    this.#release(pending);
    this.stats.cancelled++;
    pending.sink?.onFailure(error);
    return true;
  }

  /** Fails every request whose deadline has passed. @returns the next deadline, or infinity */
  sweep(nowMs: number): number {
    if (nowMs < this.#earliestDeadlineMs) return this.#earliestDeadlineMs;
    let earliest = Number.POSITIVE_INFINITY;
    const due: PendingRequest[] = [];
    for (const pending of [...this.#bySlot, ...this.#queue]) {
      if (pending?.sink === undefined || pending.state === "settled") continue;
      if (pending.deadlineAtMs <= nowMs) due.push(pending);
      else if (pending.deadlineAtMs < earliest) earliest = pending.deadlineAtMs;
    }
    this.#earliestDeadlineMs = earliest;
    for (const pending of due) this.#expire(pending);
    return earliest;
  }

  /** Declares the peer lost: every open request ends with `error`, those already sent are in doubt. */
  fail(error: ShardloomError): void {
    this.#lost = error;
    const open = [...this.#bySlot.filter((entry) => entry !== undefined), ...this.#queue];
    this.#queue.length = 0;
    for (const pending of open) {
      if (pending.state === "settled") continue;
      if (pending.state === "sent") this.stats.inDoubt++;
      this.#release(pending);
      this.stats.failed++;
      pending.sink?.onFailure(error);
    }
  }

  #admit(pending: PendingRequest): void {
    if (this.#lost !== undefined) throw this.#lost;
    if (pending.payload.byteLength > this.maxPayloadBytes) {
      this.stats.rejected++;
      throw new ShardloomError(
        "ERR_RECORD_TOO_LARGE",
        `Cannot send ${messageTypeName(pending.type)} as its payload must be at most ${this.maxPayloadBytes} bytes: current value is ${pending.payload.byteLength}`,
        { details: { byteLength: pending.payload.byteLength, limit: this.maxPayloadBytes } },
      );
    }
    if (this.#queue.length === 0 && this.#trySend(pending)) return;
    if (this.#queue.length >= this.#maxQueued) {
      this.stats.rejected++;
      throw new ShardloomError(
        "ERR_OVERLOADED",
        `Cannot send ${messageTypeName(pending.type)} to shard ${this.targetShard} as at most ${this.#maxQueued} requests may wait for credit`,
        { details: { shard: this.targetShard, queued: this.#queue.length } },
      );
    }
    this.#queue.push(pending);
    this.#options.onDirty();
  }

  #trySend(pending: PendingRequest): boolean {
    const bridge = this.#bridge;
    const lengthBytes = ENVELOPE_BYTES + pending.payload.byteLength;
    const offset =
      pending.sink === undefined
        ? bridge.tryTell(pending.type, lengthBytes, pending.priority)
        : bridge.tryRequest(pending.type, lengthBytes, pending.priority);
    if (offset < 0) {
      if (offset === NO_CREDIT || offset === SUSPENDED || offset === THROTTLED || offset === INSUFFICIENT_CAPACITY) return false;
      throw new ShardloomError("ERR_WORKER_LOST", `Cannot send to shard ${this.targetShard} as its ring is closed`, {
        details: { shard: this.targetShard, code: offset },
      });
    }
    const requests = bridge.requests;
    this.#writeHeader(pending, offset);
    pending.payload.write(requests, offset + ENVELOPE_BYTES);
    if (pending.sink === undefined) {
      pending.state = "settled";
    } else {
      pending.state = "sent";
      pending.slot = bridge.lastSlot;
      pending.sequence = bridge.lastSequence;
      this.#bySlot[pending.slot] = pending;
    }
    bridge.commit(offset);
    this.stats.sent++;
    this.#options.onDirty();
    return true;
  }

  #writeHeader(pending: PendingRequest, offset: number): void {
    const { clock, origin, targetShard, topologyEpoch } = this.#options;
    const nowUs = clock.nowUs();
    const remainingMs = Math.ceil(pending.deadlineAtMs - nowUs / 1000);
    writeEnvelope(
      this.#bridge.requests.i32,
      offset,
      origin,
      pending.type,
      0,
      pending.priority,
      this.#bridge.lastSequence,
      pending.vshard,
      targetShard,
      topologyEpoch,
      remainingMs > DEADLINE_LIMIT_MS ? DEADLINE_LIMIT_MS : remainingMs,
      nowUs % 0x1_0000_0000 | 0,
      pending.payload.byteLength,
    );
  }

  #settleReply(type: number, offset: number, length: number, slot: number, sequence: number): void {
    const pending = this.#bySlot[slot];
    if (pending === undefined || pending.sequence !== sequence || !this.#bridge.complete(slot, sequence)) {
      this.stats.late++;
      return;
    }
    this.#bySlot[slot] = undefined;
    pending.state = "settled";
    this.#pending--;
    const sink = pending.sink as ReplySink;
    const frame = this.#frame;
    const fault = checkEnvelope(frame.i32, offset, length);
    if (fault !== ENVELOPE_OK) {
      this.stats.failed++;
      const reason = `Cannot decode reply to ${messageTypeName(type)} as it is ${ENVELOPE_FAULTS[fault]}`;
      sink.onFailure(new ShardloomError("ERR_CORRUPT", reason, { details: { length, fault } }));
      return;
    }
    frame.offset = offset + ENVELOPE_BYTES;
    frame.length = length - ENVELOPE_BYTES;
    if ((envelopeFlags(frame.i32, offset) & FLAG_ERROR) !== 0) {
      this.stats.failed++;
      sink.onFailure(this.#options.decodeError(frame.bytes, frame.offset, frame.length));
      return;
    }
    this.stats.replied++;
    sink.onReply(frame);
  }

  #expire(pending: PendingRequest): void {
    if (pending.state === "settled") return;
    const wasSent = pending.state === "sent";
    this.#release(pending);
    this.stats.timedOut++;
    pending.sink?.onFailure(
      new ShardloomError(
        "ERR_TIMEOUT",
        `Cannot finish ${messageTypeName(pending.type)} on shard ${this.targetShard} before its deadline`,
        { details: { shard: this.targetShard, type: messageTypeName(pending.type), sent: wasSent } },
      ),
    );
  }

  #release(pending: PendingRequest): void {
    if (pending.state === "sent") {
      this.#bySlot[pending.slot] = undefined;
      this.#bridge.cancel(pending.slot, pending.sequence);
    }
    if (pending.sink !== undefined) this.#pending--;
    pending.state = "settled";
  }
}
