/**
 * Requests that wait until a collection's index is whole again: copies of them, and the replies that are owed.
 *
 * Invariant: every request that was taken ends in exactly one reply, in the order they came.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { EngineHandler, EngineReply, EngineRequest, HeldReply } from "../engine.ts";

/** Most requests of one collection that may wait. */
const MAX_WAITING = 1024;

interface Waiting {
  readonly request: EngineRequest;
  readonly held: HeldReply;
  readonly limitBytes: number;
  readonly handle: EngineHandler;
}

export class WaitingSearches {
  readonly #waiting: Waiting[] = [];

  get count(): number {
    return this.#waiting.length;
  }

  /** @throws {ShardloomError} `ERR_OVERLOADED` when too many wait already. */
  add(request: EngineRequest, reply: EngineReply, handle: EngineHandler): void {
    if (this.#waiting.length === MAX_WAITING) {
      throw new ShardloomError(
        "ERR_OVERLOADED",
        `Cannot search as at most ${MAX_WAITING} searches may wait for a collection that is being indexed again`,
        { details: { limit: MAX_WAITING } },
      );
    }
    const { limitBytes } = reply;
    const copy = copyOf(request); // hold() may be the last moment that the request's memory is ours
    const held = reply.hold();
    if (held !== undefined) this.#waiting.push({ request: copy, held, limitBytes, handle });
  }

  /** Answers everybody who waits. */
  run(): void {
    for (const { request, held, limitBytes, handle } of this.#waiting.splice(0)) {
      if (held.cancelled) held.fail(new ShardloomError("ERR_ABORTED", "Cannot search as the caller has given up"));
      else answer(request, held, limitBytes, handle);
    }
  }

  /** Fails everybody who waits. */
  fail(error: ShardloomError): void {
    for (const { held } of this.#waiting.splice(0)) held.fail(error);
  }
}

function answer(request: EngineRequest, held: HeldReply, limitBytes: number, handle: EngineHandler): void {
  const reply = new LocalReply(limitBytes);
  try {
    handle(request, reply);
  } catch (error) {
    held.fail(error);
    return;
  }
  held.send(reply.bytes.length, (memory, offset) => memory.bytes.set(reply.bytes, offset));
}

/** A reply in memory of its own. */
class LocalReply implements EngineReply {
  readonly limitBytes: number;
  readonly offset = 0;
  bytes: Uint8Array = new Uint8Array(0);
  i32: Int32Array = new Int32Array(0);
  f32: Float32Array = new Float32Array(0);
  f64: Float64Array = new Float64Array(0);

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  claim(lengthBytes: number): void {
    if (lengthBytes > this.limitBytes) {
      throw new ShardloomError(
        "ERR_RECORD_TOO_LARGE",
        `Cannot reply as a reply must take at most ${this.limitBytes} bytes: current value is ${lengthBytes}`,
        { details: { lengthBytes, limitBytes: this.limitBytes } },
      );
    }
    const buffer = new ArrayBuffer((lengthBytes + 7) & ~7);
    this.bytes = new Uint8Array(buffer, 0, lengthBytes);
    this.i32 = new Int32Array(buffer);
    this.f32 = new Float32Array(buffer);
    this.f64 = new Float64Array(buffer);
  }

  hold(): undefined {
    throw new ShardloomError("ERR_INTERNAL", "Cannot hold a reply again");
  }
}

function copyOf(request: EngineRequest): EngineRequest {
  const buffer = new ArrayBuffer((request.length + 7) & ~7);
  const bytes = new Uint8Array(buffer);
  bytes.set(request.bytes.subarray(request.offset, request.offset + request.length));
  return {
    vshards: request.vshards,
    partial: request.partial ?? false,
    bytes,
    i32: new Int32Array(buffer),
    f32: new Float32Array(buffer),
    f64: new Float64Array(buffer),
    offset: 0,
    length: request.length,
  };
}
