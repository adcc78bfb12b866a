/**
 * The asking side of a bridge: requests with credits, pressure and cancellation. The answering side is `bridge-server.ts`.
 *
 * Invariants: open requests never exceed the credits in messages and bytes; a request and its reply are paired by
 * (slot, sequence); cancel() frees slot and credit at once, and a late reply of that pair is recognised as stale.
 * A refusal is always visible as a negative code, and always publishes and rings what was sent before it.
 * Source: eRPC (Kalia et al., NSDI 2019) for session credits; DESIGN.md, "Delivery".
 * Divergence: a slot is taken at commit, not at claim, so that a caller that throws while it encodes leaks nothing.
 */
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import {
  DISCARDED_OFFSET,
  NO_SLOT,
  OVERFLOW_OFFSET,
  OVERFLOWED_OFFSET,
  openBridge,
  PREFIX_BYTES,
  SAMPLE_INTERVAL,
  SAMPLE_RECORD_OFFSET,
  SAMPLE_US_OFFSET,
  SKIPPED_OFFSET,
  SLOTS_OFFSET,
  WAIT_COUNT_OFFSET,
  WAIT_MAX_US_OFFSET,
  WAIT_SUM_US_OFFSET,
  WANTS_ROOM_OFFSET,
} from "./bridge-layout.ts";
import type { Doorbell } from "./doorbell.ts";
import { fullFence } from "./memory-order.ts";
import { nextPressure, PRESSURE_OPEN, PRESSURE_THROTTLED, pressureName } from "./pressure.ts";
import { INSUFFICIENT_CAPACITY, RingConsumer, type RingCounters, RingProducer } from "./spsc-ring.ts";

export { type BridgeOptions, createBridge } from "./bridge-layout.ts";
export { BridgeServer, type RequestHandler } from "./bridge-server.ts";

/** No slot or not enough byte credit is free: as many requests as allowed are open. */
export const NO_CREDIT = -4;
/** The bridge is at 95 % of a limit: only control (priority 2) passes. */
export const SUSPENDED = -5;
/** The bridge is at 85 % of a limit: bulk (priority 0) is held back. */
export const THROTTLED = -6;

const NO_CLAIM = -1;

/** Called once a reply; the payload may be read during the call only. */
export type ReplyHandler = (type: number, offset: number, lengthBytes: number, slot: number, sequence: number) => void;

/** What a bridge did since it was created, as seen by its client. */
export interface BridgeStats {
  readonly pressure: "open" | "throttled" | "suspended";
  readonly openMessages: number;
  readonly openBytes: number;
  readonly requests: RingCounters;
  readonly replies: RingCounters;
  readonly refused: {
    readonly noCredit: number;
    readonly throttled: number;
    readonly suspended: number;
    readonly full: number;
  };
  readonly cancelled: number;
  readonly staleReplies: number;
  /** Cancelled requests that the server never started. */
  readonly skipped: number;
  /** Replies that waited in the server's overflow. */
  readonly overflowed: number;
  /** Replies to cancelled requests, or to a closed client, that the server let go. */
  readonly discarded: number;
  /** Time between commit and dispatch, of one record in 64. */
  readonly queueWait: { readonly samples: number; readonly meanUs: number; readonly maxUs: number };
}

export interface BridgeClientOptions {
  /** Clock in µs, on the same scale as the server's; without it no queue wait is measured. */
  readonly nowUs?: () => number;
}

/** One per bridge, on the asking thread. */
export class BridgeClient {
  readonly requests: RingProducer;
  readonly replies: RingConsumer;
  /** Largest payload of a request or tell. */
  readonly maxRequestBytes: number;
  readonly creditMessages: number;
  readonly creditBytes: number;
  /** Slot and sequence of the request that tryRequest() claimed last. */
  lastSlot: number = NO_SLOT;
  lastSequence: number = 0;
  readonly #bell: Doorbell;
  readonly #nowUs: (() => number) | undefined;
  readonly #i32: Int32Array;
  readonly #f64: Float64Array;
  /** Stack of free slots; the top is the next to be used. */
  readonly #free: Int32Array;
  #freeCount: number;
  /** Sequence of the live request per slot, 0 when none. */
  readonly #live: Int32Array;
  readonly #sequences: Int32Array;
  readonly #bytesOfSlot: Int32Array;
  #openBytes: number = 0;
  #claimBytes: number = 0;
  #claimOffset: number = NO_CLAIM;
  #pressure: number = PRESSURE_OPEN;
  #unrung: boolean = false;
  #record: number;
  #cancelled: number = 0;
  #stale: number = 0;
  #noCredit: number = 0;
  #throttled: number = 0;
  #suspended: number = 0;
  #full: number = 0;
  readonly #guardMessages: number;
  readonly #guardBytes: number;
  readonly #guardRing: number;
  #replyHandler: ReplyHandler = () => undefined;
  readonly #onReply = (type: number, offset: number, lengthBytes: number): void => {
    const at = offset >> 2;
    if (lengthBytes < PREFIX_BYTES) return;
    this.#replyHandler(
      type,
      offset + PREFIX_BYTES,
      lengthBytes - PREFIX_BYTES,
      this.#i32[at] as number,
      this.#i32[at + 1] as number,
    );
  };

  /** @param serverBell The bell of the answering thread. */
  constructor(memory: SharedArrayBuffer, serverBell: Doorbell, options: BridgeClientOptions = {}) {
    const layout = openBridge(memory);
    this.requests = new RingProducer(memory, layout.requestRingOffset);
    this.replies = new RingConsumer(memory, layout.replyRingOffset);
    this.maxRequestBytes = this.requests.maxPayloadBytes - PREFIX_BYTES;
    this.creditMessages = layout.creditMessages;
    this.creditBytes = layout.creditBytes;
    this.#bell = serverBell;
    this.#nowUs = options.nowUs;
    this.#i32 = this.requests.i32;
    this.#f64 = this.requests.f64;
    this.#free = Int32Array.from({ length: layout.creditMessages }, (_, index) => layout.creditMessages - 1 - index);
    this.#freeCount = layout.creditMessages;
    this.#live = new Int32Array(layout.creditMessages);
    this.#sequences = new Int32Array(layout.creditMessages);
    this.#bytesOfSlot = new Int32Array(layout.creditMessages);
    this.#record = this.requests.counters().produced | 0;
    // Below these uses the state is certainly open and stays so: the hot path compares three integers.
    this.#guardMessages = Math.floor(0.75 * layout.creditMessages);
    this.#guardBytes = Math.floor(0.75 * layout.creditBytes);
    this.#guardRing = Math.floor(0.75 * layout.requestCapacityBytes);
  }

  /**
   * Claims space for a request that expects a reply; its pair is in `lastSlot` and `lastSequence`.
   *
   * @param priority 0 = bulk (refused when throttled), 1 = normal (refused when suspended), 2 = control.
   * @returns Payload offset, or `THROTTLED`, `SUSPENDED`, `NO_CREDIT`, `INSUFFICIENT_CAPACITY`, `RING_CLOSED`, `RING_POISONED`.
   * @throws {ShardloomError} `ERR_RECORD_TOO_LARGE`, `ERR_INVALID_ARGUMENT`.
   */
  tryRequest(type: number, lengthBytes: number, priority: number): number {
    this.#checkLength(lengthBytes);
    const admitted = this.#admit(priority);
    if (admitted < 0) return admitted;
    if (this.#freeCount === 0 || this.#openBytes + lengthBytes > this.creditBytes) {
      this.#noCredit++;
      this.flush();
      return NO_CREDIT;
    }
    const slot = this.#free[this.#freeCount - 1] as number;
    const next = ((this.#sequences[slot] as number) + 1) | 0;
    return this.#claim(type, lengthBytes, slot, next === 0 ? 1 : next);
  }

  /** Claims space for a message without reply. Codes and errors as {@link tryRequest}, without `NO_CREDIT`. */
  tryTell(type: number, lengthBytes: number, priority: number): number {
    this.#checkLength(lengthBytes);
    const admitted = this.#admit(priority);
    return admitted < 0 ? admitted : this.#claim(type, lengthBytes, NO_SLOT, 0);
  }

  /** Sends what was claimed last. Visible to the server now or, at the latest, at flush(). */
  commit(offset: number): void {
    if (offset !== this.#claimOffset)
      throw invalidArgument("commit request", "offset", "that of the open claim", offset);
    this.#claimOffset = NO_CLAIM;
    const slot = this.lastSlot;
    if (slot !== NO_SLOT) {
      const sequence = this.lastSequence;
      this.#freeCount--;
      this.#sequences[slot] = sequence;
      this.#live[slot] = sequence;
      this.#bytesOfSlot[slot] = this.#claimBytes;
      this.#openBytes += this.#claimBytes;
      this.#i32[(SLOTS_OFFSET >> 2) + slot] = sequence; // published with the record
    }
    this.#record = (this.#record + 1) | 0;
    if ((this.#record & (SAMPLE_INTERVAL - 1)) === 1) this.#sample();
    this.#unrung = true;
    this.requests.commit(offset - PREFIX_BYTES);
  }

  /** Gives the claim back. */
  abort(offset: number): void {
    this.#claimOffset = NO_CLAIM;
    this.requests.abort(offset - PREFIX_BYTES);
  }

  /** Publishes everything committed and rings the server's bell at most once. Call it at the end of each batch. */
  flush(): void {
    this.requests.flush();
    if (this.#unrung) {
      this.#unrung = false;
      this.#bell.ring();
    }
  }

  /**
   * Ends interest in a request: slot and credit are free at once, and the server skips it if it has not started.
   *
   * @returns Whether it was still open.
   */
  cancel(slot: number, sequence: number): boolean {
    if (!this.#end(slot, sequence)) return false;
    this.#cancelled++;
    Atomics.store(this.#i32, (SLOTS_OFFSET >> 2) + slot, 0); // publishes the cancellation
    return true;
  }

  /** Ends a request whose reply has come. False for the late reply of a cancelled request, which must be ignored. */
  complete(slot: number, sequence: number): boolean {
    if (this.#end(slot, sequence)) return true;
    this.#stale++;
    return false;
  }

  /** Hands over up to `limit` replies; codes and exceptions as `RingConsumer.drain`. */
  drainReplies(handler: ReplyHandler, limit: number): number {
    this.#replyHandler = handler;
    let handled = 1;
    try {
      handled = this.replies.drain(this.#onReply, limit);
      return handled;
    } finally {
      if (handled !== 0) fullFence(); // the room is visible before the look whether somebody waits for it
      if (this.#i32[OVERFLOW_OFFSET >> 2] !== 0 && Atomics.exchange(this.#i32, OVERFLOW_OFFSET >> 2, 0) !== 0)
        this.#bell.ring();
    }
  }

  /** The state that the next claim meets. */
  pressure(): "open" | "throttled" | "suspended" {
    return pressureName(this.#updatePressure());
  }

  stats(): BridgeStats {
    const f64 = this.#f64;
    const samples = f64[WAIT_COUNT_OFFSET >> 3] as number;
    return {
      pressure: this.pressure(),
      openMessages: this.creditMessages - this.#freeCount,
      openBytes: this.#openBytes,
      requests: this.requests.counters(),
      replies: this.replies.counters(),
      refused: { noCredit: this.#noCredit, throttled: this.#throttled, suspended: this.#suspended, full: this.#full },
      cancelled: this.#cancelled,
      staleReplies: this.#stale,
      skipped: f64[SKIPPED_OFFSET >> 3] as number,
      overflowed: f64[OVERFLOWED_OFFSET >> 3] as number,
      discarded: f64[DISCARDED_OFFSET >> 3] as number,
      queueWait: {
        samples,
        meanUs: samples === 0 ? 0 : (f64[WAIT_SUM_US_OFFSET >> 3] as number) / samples,
        maxUs: f64[WAIT_MAX_US_OFFSET >> 3] as number,
      },
    };
  }

  /** No more requests and no more replies taken; wakes the server so that it sees this. Idempotent. */
  close(): void {
    this.requests.close();
    this.replies.close();
    this.#bell.ring();
  }

  #claim(type: number, lengthBytes: number, slot: number, sequence: number): number {
    let at = this.requests.tryClaim(type, lengthBytes + PREFIX_BYTES);
    if (at === INSUFFICIENT_CAPACITY) {
      this.#wantRoom();
      at = this.requests.tryClaim(type, lengthBytes + PREFIX_BYTES);
    }
    if (at < 0) {
      this.#full++;
      this.flush();
      return at;
    }
    this.#i32[at >> 2] = slot;
    this.#i32[(at >> 2) + 1] = sequence;
    this.lastSlot = slot;
    this.lastSequence = sequence;
    this.#claimBytes = lengthBytes;
    this.#claimOffset = at + PREFIX_BYTES;
    return this.#claimOffset;
  }

  #admit(priority: number): number {
    if (this.#pressure === PRESSURE_OPEN && this.#isCalm()) return 0;
    if (priority >= this.#updatePressure()) return 0;
    this.#wantRoom();
    const state = this.#updatePressure();
    if (priority >= state) return 0;
    this.flush();
    if (state === PRESSURE_THROTTLED) {
      this.#throttled++;
      return THROTTLED;
    }
    this.#suspended++;
    return SUSPENDED;
  }

  #isCalm(): boolean {
    return (
      this.creditMessages - this.#freeCount < this.#guardMessages &&
      this.#openBytes < this.#guardBytes &&
      this.requests.usedBytesHint() < this.#guardRing
    );
  }

  #updatePressure(): number {
    const messages = (this.creditMessages - this.#freeCount) / this.creditMessages;
    const bytes = this.#openBytes / this.creditBytes;
    const ring = this.requests.usedBytes() / this.requests.capacityBytes;
    this.#pressure = nextPressure(this.#pressure, Math.max(messages, bytes, ring));
    return this.#pressure;
  }

  /** Asks the server to ring when it has drained. The caller must look once more afterwards. */
  #wantRoom(): void {
    if (this.#i32[WANTS_ROOM_OFFSET >> 2] === 0) Atomics.store(this.#i32, WANTS_ROOM_OFFSET >> 2, 1); // publishes the wish, before the second look
  }

  #end(slot: number, sequence: number): boolean {
    if (sequence === 0 || this.#live[slot] !== sequence) return false;
    this.#live[slot] = 0;
    this.#openBytes -= this.#bytesOfSlot[slot] as number;
    this.#free[this.#freeCount++] = slot;
    return true;
  }

  #sample(): void {
    if (this.#nowUs === undefined || this.#i32[SAMPLE_RECORD_OFFSET >> 2] !== 0) return;
    this.#f64[SAMPLE_US_OFFSET >> 3] = this.#nowUs();
    this.#i32[SAMPLE_RECORD_OFFSET >> 2] = this.#record; // published with the record
  }

  #checkLength(lengthBytes: number): void {
    if (lengthBytes >>> 0 <= this.maxRequestBytes && (lengthBytes | 0) === lengthBytes) return;
    if (Number.isInteger(lengthBytes) && lengthBytes > this.maxRequestBytes) {
      throw new ShardloomError(
        "ERR_RECORD_TOO_LARGE",
        `Cannot send request as lengthBytes must be at most ${this.maxRequestBytes}: current value is ${lengthBytes}`,
        { details: { lengthBytes, maxRequestBytes: this.maxRequestBytes } },
      );
    }
    throw invalidArgument("send request", "lengthBytes", `an integer in [0, ${this.maxRequestBytes}]`, lengthBytes);
  }
}
