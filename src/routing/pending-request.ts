/**
 * One request on its way: what it says, where it ends, and where it stands.
 *
 * Invariant: of a sink exactly one method is called, exactly once. A payload that borrows what it writes (`hold`) is written
 * in the call that it was given in, or replaced by one that owns it.
 */
import type { ShardloomError } from "../errors.ts";

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
  /** Writes exactly `byteLength` bytes at `offset`, which is 8-aligned. */
  write(target: MemoryViews, offset: number): void;
  /** The same message for a later `write`: called when it must wait. Absent when the payload owns what it writes. */
  hold?(): Payload;
}

/** A reply's payload; valid only during `onReply`. */
export interface ReplyFrame extends MemoryViews {
  readonly offset: number;
  readonly length: number;
  /** How long the shard's handler ran, in us; 0 when the shard did not measure it. */
  readonly serviceUs: number;
  /** How long the request waited before that, from its sending, in us. */
  readonly queueUs: number;
}

/** What a planned request says about its plan in the envelope. */
export interface RequestHeader {
  readonly topologyEpoch: number;
  /** Earlier attempts of the same part of the plan, `0..65535`. */
  readonly attempt: number;
  /** Whose request it is; 0: nobody's. */
  readonly tenant: number;
}

/** Where a request ends: exactly one of the two is called, exactly once. */
export interface ReplySink {
  onReply(frame: ReplyFrame): void;
  onFailure(error: ShardloomError): void;
}

/** One message that is open, or a tell that waits for room. Opaque to callers, who may only cancel it. */
export class PendingRequest {
  state: "queued" | "sent" | "settled" = "queued";
  slot = -1;
  sequence = 0;
  /** How many records had been sent to the peer when this one was. */
  record = 0;
  payload: Payload;
  readonly type: number;
  readonly vshard: number;
  readonly priority: number;
  readonly deadlineAtMs: number;
  /** Undefined for a tell. */
  readonly sink: ReplySink | undefined;
  /** Tells that wait for room: called when it has left, or with the reason why it never will. */
  readonly onSent: ((error?: ShardloomError) => void) | undefined;
  /** Undefined: sent under the newest topology. */
  readonly header: RequestHeader | undefined;

  constructor(
    type: number,
    vshard: number,
    priority: number,
    deadlineAtMs: number,
    payload: Payload,
    sink: ReplySink | undefined,
    onSent: ((error?: ShardloomError) => void) | undefined,
    header: RequestHeader | undefined,
  ) {
    this.header = header;
    this.type = type;
    this.vshard = vshard;
    this.priority = priority;
    this.deadlineAtMs = deadlineAtMs;
    this.payload = payload;
    this.sink = sink;
    this.onSent = onSent;
  }
}

/** Body of `runtime.cancel`: `i32 slot | i32 sequence` of a request of the same bridge. */
export function cancelNotice({ slot, sequence }: PendingRequest): Payload {
  return {
    byteLength: 8,
    write(target, offset) {
      target.i32[offset >> 2] = slot;
      target.i32[(offset >> 2) + 1] = sequence;
    },
  };
}
