/**
 * The bodies of the barrier's messages, both directions.
 *
 * ```
 *  arrive   i32 barrier | session | phase | count, f64 tick, i32[count] members, padding to 8
 *  reply    f64 tick, i32 phase | arrived | members | 0
 * ```
 *
 * All others are plain values under the value codec, request and reply. Invariant: readers check every length and shape before
 * they use it, so that no mutated request reads outside its record (`ERR_CORRUPT`).
 */
import { ShardloomError } from "../../src/errors.ts";
import { MAX_MEMBERS } from "../../src/routing/barrier-options.ts";
import { createValueCodec, type ValueCodec } from "../../src/wire/value-codec.ts";
import type { EngineReply, EngineRequest, WireMemory } from "../engine.ts";

const ARRIVE_HEADER_BYTES = 24;
export const ARRIVE_REPLY_BYTES = 24;

/** The arrivals of one message; `ids` are `i32[from, from + count)` of the request. */
export interface ReceivedArrivals {
  barrier: number;
  session: number;
  phase: number;
  count: number;
  tick: number;
  from: number;
}

/** Bytes of a message with the arrivals of this many members. */
export function arriveBytes(count: number): number {
  return ARRIVE_HEADER_BYTES + ((4 * count + 7) & -8);
}

/** Writes the arrivals of `ids[0, count)`. */
export function writeArrive(
  target: Pick<WireMemory, "i32" | "f64">,
  offset: number,
  barrier: number,
  session: number,
  tick: number,
  phase: number,
  ids: readonly number[],
  count: number,
): void {
  const { i32 } = target;
  const word = offset >> 2;
  i32[word] = barrier;
  i32[word + 1] = session;
  i32[word + 2] = phase;
  i32[word + 3] = count;
  target.f64[(offset >> 3) + 2] = tick;
  for (let at = 0; at < count; at++) i32[word + 6 + at] = ids[at] as number;
}

/** @throws {ShardloomError} `ERR_CORRUPT` when the body is shorter than it says. */
export function readArrive(request: EngineRequest, into: ReceivedArrivals): void {
  const { i32, f64, offset, length } = request;
  if (length < ARRIVE_HEADER_BYTES) throw malformed("arrive", length);
  const word = offset >> 2;
  into.barrier = i32[word] as number;
  into.session = i32[word + 1] as number;
  into.phase = i32[word + 2] as number;
  into.count = i32[word + 3] as number;
  into.tick = f64[(offset >> 3) + 2] as number;
  into.from = word + 6;
  if (into.count < 1 || into.count > MAX_MEMBERS || arriveBytes(into.count) > length) throw malformed("arrive", length);
}

/** Writes that a phase is complete. */
export function writeArriveReply(
  target: Pick<WireMemory, "i32" | "f64">,
  offset: number,
  tick: number,
  phase: number,
  arrived: number,
  members: number,
): void {
  target.f64[offset >> 3] = tick;
  const word = offset >> 2;
  target.i32[word + 2] = phase;
  target.i32[word + 3] = arrived;
  target.i32[word + 4] = members;
  target.i32[word + 5] = 0;
}

/** Arrivals and members in the reply to an arrival. */
export function readArriveReply(frame: EngineRequest): { readonly arrived: number; readonly members: number } {
  if (frame.length < ARRIVE_REPLY_BYTES) throw malformed("arrive", frame.length);
  const word = frame.offset >> 2;
  return { arrived: frame.i32[word + 3] as number, members: frame.i32[word + 4] as number };
}

const codec: ValueCodec = createValueCodec();

/** A plain value as a message's body. */
export function encodeBody(value: unknown): Uint8Array {
  return codec.encode(value);
}

/** The plain value of a request or reply. */
export function decodeBody(frame: EngineRequest): unknown {
  return codec.decode(frame.bytes, frame.offset, frame.length);
}

/** Answers with a plain value. */
export function replyBody(reply: EngineReply, value: unknown): void {
  const body = codec.encode(value);
  reply.claim(body.length);
  reply.bytes.set(body, reply.offset);
}

/**
 * The fields of a request, by the type that each must have.
 *
 * @throws {ShardloomError} `ERR_CORRUPT` when one is of another type.
 */
export function readFields<T>(request: EngineRequest, types: Readonly<Record<keyof T & string, string>>): T {
  const body = decodeBody(request) as Record<string, unknown> | null;
  for (const [name, type] of Object.entries<string>(types)) {
    const value = typeof body === "object" && body !== null ? body[name] : undefined;
    if (type !== "any" && !type.split("|").includes(typeof value)) throw malformed(name, request.length);
  }
  return body as T;
}

function malformed(what: string, length: number): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", `Cannot read barrier message as ${what} is malformed`, {
    details: { what, length },
  });
}
