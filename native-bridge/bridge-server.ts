/**
 * The answering side of a bridge: drains requests, skips cancelled ones, and never drops a reply.
 *
 * Invariant: replies leave in the order they were claimed; a reply that finds no room waits in an overflow, which never
 * holds more live replies than the bridge has credits, since every reply belongs to an open request.
 * Only replies to requests that were cancelled meanwhile, or to a client that closed, are let go, and counted.
 * Source: DESIGN.md, "Delivery". Divergence: the overflow is private memory of this thread, made only when needed.
 */
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import {
  DISCARDED_OFFSET,
  NO_SLOT,
  OVERFLOW_OFFSET,
  OVERFLOWED_OFFSET,
  openBridge,
  PREFIX_BYTES,
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
import { INSUFFICIENT_CAPACITY, RingConsumer, RingProducer } from "./spsc-ring.ts";

/** Called once a request or tell (slot −1); the payload may be read during the call only. */
export type RequestHandler = (
  type: number,
  offset: number,
  lengthBytes: number,
  slot: number,
  sequence: number,
) => void;

export interface BridgeServerOptions {
  /** Clock in µs, on the same scale as the client's; without it no queue wait is measured. */
  readonly nowUs?: () => number;
}

interface HeldReply {
  readonly type: number;
  readonly slot: number;
  readonly sequence: number;
  readonly bytes: Uint8Array;
}

const NOTHING_CLAIMED = 0;
const CLAIMED_IN_RING = 1;
const CLAIMED_IN_OVERFLOW = 2;
const CLAIMED_TO_DISCARD = 3;

/** One per bridge, on the answering thread. */
export class BridgeServer {
  readonly requests: RingConsumer;
  readonly replies: RingProducer;
  readonly maxReplyBytes: number;
  readonly creditMessages: number;
  /** Where to write the claimed reply: `replyBytes[replyOffset ...]`, `replyI32[replyOffset >> 2]`; set by claimReply(). */
  replyBytes: Uint8Array;
  replyI32: Int32Array;
  replyF32: Float32Array;
  replyF64: Float64Array;
  replyOffset: number = 0;
  readonly #bell: Doorbell;
  readonly #nowUs: (() => number) | undefined;
  readonly #i32: Int32Array;
  readonly #f64: Float64Array;
  readonly #overflow: HeldReply[] = [];
  #held: HeldReply | undefined = undefined;
  #claimed: number = NOTHING_CLAIMED;
  #unrung: boolean = false;
  #record: number;
  #slot: number = NO_SLOT;
  #sequence: number = 0;
  #handler: RequestHandler = () => undefined;
  readonly #onRecord = (type: number, offset: number, lengthBytes: number): void => {
    const at = offset >> 2;
    const slot = this.#i32[at] as number;
    const sequence = this.#i32[at + 1] as number;
    this.#record = (this.#record + 1) | 0;
    if (this.#i32[SAMPLE_RECORD_OFFSET >> 2] === this.#record) this.#takeSample();
    if (lengthBytes < PREFIX_BYTES || (slot !== NO_SLOT && !this.#isLive(slot, sequence))) {
      this.#count(SKIPPED_OFFSET);
      return;
    }
    this.#slot = slot;
    this.#sequence = sequence;
    this.#handler(type, offset + PREFIX_BYTES, lengthBytes - PREFIX_BYTES, slot, sequence);
  };

  /** @param clientBell The bell of the asking thread. */
  constructor(memory: SharedArrayBuffer, clientBell: Doorbell, options: BridgeServerOptions = {}) {
    const layout = openBridge(memory);
    this.requests = new RingConsumer(memory, layout.requestRingOffset);
    this.replies = new RingProducer(memory, layout.replyRingOffset);
    this.maxReplyBytes = this.replies.maxPayloadBytes - PREFIX_BYTES;
    this.creditMessages = layout.creditMessages;
    this.replyBytes = this.replies.bytes;
    this.replyI32 = this.replies.i32;
    this.replyF32 = this.replies.f32;
    this.replyF64 = this.replies.f64;
    this.#bell = clientBell;
    this.#nowUs = options.nowUs;
    this.#i32 = this.replies.i32;
    this.#f64 = this.replies.f64;
    this.#record = this.requests.counters().consumed | 0;
    Atomics.store(this.#i32, SAMPLE_RECORD_OFFSET >> 2, 0); // a predecessor may have left one that would never match
  }

  /**
   * Hands over up to `limit` requests and tells, oldest first; cancelled ones are counted and not handed over.
   *
   * @returns Records taken, skipped ones included; when none, a code as `RingConsumer.drain`.
   */
  drainRequests(handler: RequestHandler, limit: number): number {
    this.#handler = handler;
    let handled = 1;
    try {
      handled = this.requests.drain(this.#onRecord, limit);
      return handled;
    } finally {
      this.#slot = NO_SLOT;
      // The room is visible before the look at the client's wish, which it stored before its second look at the head.
      if (handled !== 0) fullFence();
      if (this.#i32[WANTS_ROOM_OFFSET >> 2] !== 0 && Atomics.exchange(this.#i32, WANTS_ROOM_OFFSET >> 2, 0) !== 0)
        this.#bell.ring();
    }
  }

  /** Whether the client no longer wants this request. A request that is not cancelled may be at any later moment. */
  isCancelled(slot: number, sequence: number): boolean {
    return slot !== NO_SLOT && Atomics.load(this.#i32, (SLOTS_OFFSET >> 2) + slot) !== sequence; // acquires the cancellation
  }

  /**
   * Claims room for the reply to the request that is being handled, or to the one named. Never refuses for lack of room.
   * At most one claim is open; the next one forgets it.
   *
   * @throws {ShardloomError} `ERR_RECORD_TOO_LARGE`, `ERR_INVALID_ARGUMENT` (a tell has no reply).
   */
  claimReply(type: number, lengthBytes: number, slot: number = this.#slot, sequence: number = this.#sequence): void {
    if (slot < 0 || slot >= this.creditMessages)
      throw invalidArgument("claim reply", "slot", "that of a request", slot);
    this.#checkLength(lengthBytes);
    let at = INSUFFICIENT_CAPACITY;
    if (this.#overflow.length === 0) {
      at = this.replies.tryClaim(type, lengthBytes + PREFIX_BYTES);
      if (at >= 0) {
        this.#claimed = CLAIMED_IN_RING;
        this.replyBytes = this.replies.bytes;
        this.replyI32 = this.replies.i32;
        this.replyF32 = this.replies.f32;
        this.replyF64 = this.replies.f64;
        this.#i32[at >> 2] = slot;
        this.#i32[(at >> 2) + 1] = sequence;
        this.replyOffset = at + PREFIX_BYTES;
        return;
      }
    }
    this.#claimAside(type, lengthBytes, slot, sequence, at !== INSUFFICIENT_CAPACITY);
  }

  /** Sends the claimed reply. Visible to the client now or, at the latest, at flush(). */
  commitReply(): void {
    const claimed = this.#claimed;
    this.#claimed = NOTHING_CLAIMED;
    if (claimed === CLAIMED_IN_RING) {
      this.replies.commit(this.replyOffset - PREFIX_BYTES);
      this.#unrung = true;
    } else if (claimed === CLAIMED_IN_OVERFLOW && this.#held !== undefined) {
      if (this.#overflow.length >= this.creditMessages) this.#dropCancelled();
      this.#overflow.push(this.#held);
      this.#count(OVERFLOWED_OFFSET);
    } else if (claimed === CLAIMED_TO_DISCARD) {
      this.#count(DISCARDED_OFFSET);
    } else {
      throw invalidArgument("commit reply", "claim", "open", "none");
    }
    this.#held = undefined;
  }

  /** Gives the claimed reply back. */
  abortReply(): void {
    if (this.#claimed === CLAIMED_IN_RING) this.replies.abort(this.replyOffset - PREFIX_BYTES);
    this.#claimed = NOTHING_CLAIMED;
    this.#held = undefined;
  }

  /** Moves held replies in while there is room, publishes, and rings the client's bell at most once. */
  flush(): void {
    if (this.#overflow.length !== 0) {
      this.#moveOverflow();
      if (this.#overflow.length !== 0) {
        Atomics.store(this.#i32, OVERFLOW_OFFSET >> 2, 1); // publishes that replies wait, before the second look
        this.#moveOverflow();
      }
    }
    this.replies.flush();
    if (this.#unrung) {
      this.#unrung = false;
      this.#bell.ring();
    }
  }

  /** Whether replies wait for room: the thread must flush() again before it parks, and when its bell rings. */
  hasOverflow(): boolean {
    return this.#overflow.length !== 0;
  }

  /** Whether a flush() would move held replies now: part of the predicate with which the thread parks. */
  canMoveOverflow(): boolean {
    const first = this.#overflow[0];
    return (
      first !== undefined &&
      (this.replies.status() !== 0 || this.replies.usedBytes() <= this.replies.capacityBytes >> 1)
    );
  }

  /** No more replies and no more requests taken; wakes the client so that it sees this. Idempotent. */
  close(): void {
    this.flush();
    this.requests.close();
    this.replies.close();
    this.#bell.ring();
  }

  #claimAside(type: number, lengthBytes: number, slot: number, sequence: number, closed: boolean): void {
    const buffer = new ArrayBuffer((lengthBytes + 7) & -8);
    const discard = closed || this.replies.status() !== 0 || this.isCancelled(slot, sequence);
    this.#claimed = discard ? CLAIMED_TO_DISCARD : CLAIMED_IN_OVERFLOW;
    this.#held = { type, slot, sequence, bytes: new Uint8Array(buffer, 0, lengthBytes) };
    this.replyBytes = new Uint8Array(buffer);
    this.replyI32 = new Int32Array(buffer);
    this.replyF32 = new Float32Array(buffer);
    this.replyF64 = new Float64Array(buffer);
    this.replyOffset = 0;
  }

  #moveOverflow(): void {
    const overflow = this.#overflow;
    let moved = 0;
    while (moved < overflow.length) {
      const reply = overflow[moved] as HeldReply;
      if (this.isCancelled(reply.slot, reply.sequence) || this.replies.status() !== 0) {
        this.#count(DISCARDED_OFFSET);
      } else {
        const at = this.replies.tryClaim(reply.type, reply.bytes.length + PREFIX_BYTES);
        if (at < 0) break;
        this.#i32[at >> 2] = reply.slot;
        this.#i32[(at >> 2) + 1] = reply.sequence;
        this.replies.bytes.set(reply.bytes, at + PREFIX_BYTES);
        this.replies.commit(at);
        this.#unrung = true;
      }
      moved++;
    }
    if (moved > 0) overflow.splice(0, moved);
  }

  #dropCancelled(): void {
    const live = this.#overflow.filter((reply) => !this.isCancelled(reply.slot, reply.sequence));
    for (let dropped = this.#overflow.length - live.length; dropped > 0; dropped--) this.#count(DISCARDED_OFFSET);
    this.#overflow.splice(0, this.#overflow.length, ...live);
  }

  #isLive(slot: number, sequence: number): boolean {
    return slot >= 0 && slot < this.creditMessages && Atomics.load(this.#i32, (SLOTS_OFFSET >> 2) + slot) === sequence; // acquires a cancellation
  }

  #takeSample(): void {
    if (this.#nowUs === undefined || this.#record === 0) return;
    const f64 = this.#f64;
    const waitUs = Math.max(0, this.#nowUs() - (f64[SAMPLE_US_OFFSET >> 3] as number));
    f64[WAIT_COUNT_OFFSET >> 3] = (f64[WAIT_COUNT_OFFSET >> 3] as number) + 1;
    f64[WAIT_SUM_US_OFFSET >> 3] = (f64[WAIT_SUM_US_OFFSET >> 3] as number) + waitUs;
    if (waitUs > (f64[WAIT_MAX_US_OFFSET >> 3] as number)) f64[WAIT_MAX_US_OFFSET >> 3] = waitUs;
    Atomics.store(this.#i32, SAMPLE_RECORD_OFFSET >> 2, 0); // gives the sample cell back to the client
  }

  #count(byteOffset: number): void {
    this.#f64[byteOffset >> 3] = (this.#f64[byteOffset >> 3] as number) + 1;
  }

  #checkLength(lengthBytes: number): void {
    if (lengthBytes >>> 0 <= this.maxReplyBytes && (lengthBytes | 0) === lengthBytes) return;
    if (Number.isInteger(lengthBytes) && lengthBytes > this.maxReplyBytes) {
      throw new ShardloomError(
        "ERR_RECORD_TOO_LARGE",
        `Cannot claim reply as lengthBytes must be at most ${this.maxReplyBytes}: current value is ${lengthBytes}`,
        { details: { lengthBytes, maxReplyBytes: this.maxReplyBytes } },
      );
    }
    throw invalidArgument("claim reply", "lengthBytes", `an integer in [0, ${this.maxReplyBytes}]`, lengthBytes);
  }
}
