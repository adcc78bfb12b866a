/**
 * Bodies of the graph's messages, both directions.
 *
 * What is many is fixed binary; the rest are plain values under the value codec.
 * ```
 *  keys           i32 collection | flags | count | 0, then f64[count] keys; with LIST.PLAIN: the count is of bytes, a plain value
 *  edges          i32 collection | flags | count | columns, then f64[count] sources, f64[count] targets, f64[columns][count] values
 *  contributions  i32 collection | run | attempt | superstep | source | count | total | 0, f64[count] values, u32[count] vertices
 *  results        i32 count | fields | plain | next page, then f64[count] keys unless plain, f64[count] of every field
 * ```
 * Invariant: readers check every length before they use it (`ERR_CORRUPT`).
 */
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { Payload } from "../../src/routing/requester.ts";
import { createValueCodec, type ValueCodec } from "../../src/wire/value-codec.ts";
import type { EngineReply, EngineRequest, HeldReply, HeldTimes, WireMemory } from "../engine.ts";
import { checkKey, type VertexKey } from "./vertex-key.ts";

const LIST_HEADER = 16;
const CONTRIBUTIONS_HEADER = 32;
/** Flags of lists of keys and edges. */
export const LIST = { PLAIN: 1, IF_MISSING: 2, REMOVE: 8, SET: 16 } as const;

const codec: ValueCodec = createValueCodec();

/** The part of a request or reply that readers use. */
export type Frame = Pick<EngineRequest, "bytes" | "i32" | "f64" | "offset" | "length">;

/** A plain value as a message's body. */
export function encodeBody(value: unknown): Uint8Array {
  return codec.encode(value);
}

/** A body as what is sent. */
export function payloadOf(body: Uint8Array): Payload {
  return { byteLength: body.length, write: (target, offset) => target.bytes.set(body, offset) };
}

/** The plain value of a request or reply. */
export function decodeBody<T>(frame: Frame): T {
  return codec.decode(frame.bytes, frame.offset, frame.length) as T;
}

/** Answers with a plain value, at once. */
export function replyBody(reply: EngineReply, value: unknown): void {
  const body = codec.encode(value);
  reply.claim(body.length);
  reply.bytes.set(body, reply.offset);
}

/** Answers with a plain value, later. */
export function sendBody(held: HeldReply | undefined, value: unknown, times?: HeldTimes): void {
  const body = codec.encode(value);
  held?.send(body.length, (memory, offset) => memory.bytes.set(body, offset), times);
}

/** Columns of one message: keys, or sources, targets and what edges carry. */
export interface KeyColumns {
  readonly keys: readonly (readonly VertexKey[])[];
  readonly values?: readonly (readonly number[])[] | undefined;
}

/** A list as it will be sent. */
export interface EncodedList {
  readonly byteLength: number;
  readonly write: (target: WireMemory, offset: number) => void;
}

/** Keys are numbers in place, or a plain value when one of them is text. */
export function encodeList(collection: number, flags: number, { keys, values = [] }: KeyColumns): EncodedList {
  const count = keys[0]?.length ?? 0;
  if (keys.every((column) => column.every((key) => typeof key === "number"))) {
    const columns = [...keys, ...values];
    return {
      byteLength: LIST_HEADER + columns.length * count * 8,
      write(target, offset) {
        target.i32.set([collection, flags, count, values.length], offset >>> 2);
        let at = (offset + LIST_HEADER) >>> 3;
        for (const column of columns) {
          target.f64.set(column, at);
          at += count;
        }
      },
    };
  }
  const body = codec.encode({ keys, values });
  return {
    byteLength: LIST_HEADER + body.length,
    write(target, offset) {
      target.i32.set([collection, flags | LIST.PLAIN, body.length, 0], offset >>> 2);
      target.bytes.set(body, offset + LIST_HEADER);
    },
  };
}

/** A list that has come. Numbers are views of the message: valid during the call only. */
export interface ReceivedList {
  readonly collection: number;
  readonly flags: number;
  readonly count: number;
  readonly keys: readonly ArrayLike<VertexKey>[];
  /** What edges carry; none: nothing but what is so by default. */
  readonly values: readonly ArrayLike<number>[];
}

/** @param columns Columns of keys that the message has. @throws {ShardloomError} `ERR_CORRUPT`. */
export function readList(frame: Frame, columns: number): ReceivedList {
  if (frame.length < LIST_HEADER) throw malformed("list", frame.length);
  const word = frame.offset >>> 2;
  const collection = frame.i32[word] as number;
  const flags = frame.i32[word + 1] as number;
  const count = frame.i32[word + 2] as number;
  if ((flags & LIST.PLAIN) !== 0) return readPlainList(frame, columns, collection, flags, count);
  const carried = frame.i32[word + 3] as number;
  if (count < 0 || carried < 0 || LIST_HEADER + count * 8 * (columns + carried) > frame.length)
    throw malformed("list", count);
  const first = (frame.offset + LIST_HEADER) >>> 3;
  const column = (at: number): Float64Array => frame.f64.subarray(first + at * count, first + (at + 1) * count);
  const keys = Array.from({ length: columns }, (_, at) => column(at));
  for (const list of keys) for (const key of list) if (!(key >= 0)) throw malformed("key", key);
  return { collection, flags, count, keys, values: Array.from({ length: carried }, (_, at) => column(columns + at)) };
}

function readPlainList(frame: Frame, columns: number, collection: number, flags: number, bytes: number): ReceivedList {
  if (bytes < 0 || LIST_HEADER + bytes > frame.length) throw malformed("list", bytes);
  const body = codec.decode(frame.bytes, frame.offset + LIST_HEADER, bytes) as {
    readonly keys: readonly (readonly VertexKey[])[];
    readonly values: readonly (readonly number[])[];
  };
  const count = body.keys[0]?.length ?? 0;
  if (body.keys.length !== columns || [...body.keys, ...body.values].some((column) => column.length !== count))
    throw malformed("list", count);
  for (const column of body.keys) for (const key of column) checkKey("read list", "key", key);
  return { collection, flags, count, keys: body.keys, values: body.values };
}

/** Most contributions in a message with this much room. */
export function maxContributions(bytes: number): number {
  return Math.max(1, Math.floor((bytes - CONTRIBUTIONS_HEADER - 8) / 12));
}

/** What a message of contributions says of itself. */
export interface ContributionsHead {
  readonly collection: number;
  readonly run: number;
  readonly attempt: number;
  /** In which they are received. */
  readonly superstep: number;
  readonly source: number;
  readonly count: number;
  /** In the last message of a source for a superstep: how many values it has sent in all; -1 in the others. */
  readonly total: number;
}

/** The first `count` of the values and vertices as a body of its own. */
export function encodeContributions(head: ContributionsHead, values: Float64Array, vertices: Uint32Array): Uint8Array {
  const { count } = head;
  const body = new Uint8Array(CONTRIBUTIONS_HEADER + count * 8 + ((count * 4 + 7) & ~7));
  const words = new Int32Array(body.buffer);
  words.set([head.collection, head.run, head.attempt, head.superstep, head.source, count, head.total]);
  new Float64Array(body.buffer, CONTRIBUTIONS_HEADER, count).set(values.subarray(0, count));
  new Uint32Array(body.buffer, CONTRIBUTIONS_HEADER + count * 8, count).set(vertices.subarray(0, count));
  return body;
}

/** @throws {ShardloomError} `ERR_CORRUPT`. */
export function readContributions(frame: Frame): ContributionsHead {
  if (frame.length < CONTRIBUTIONS_HEADER) throw malformed("contributions", frame.length);
  const [collection, run, attempt, superstep, source, count, total] = frame.i32.subarray(
    frame.offset >>> 2,
  ) as never as [number, number, number, number, number, number, number];
  if (count < 0 || CONTRIBUTIONS_HEADER + count * 12 > frame.length) throw malformed("contributions", count);
  return { collection, run, attempt, superstep, source, count, total };
}

/** Word index of the first value (in float64) and of the first vertex (in int32). */
export function contributionsAt(frame: Frame, count: number): { readonly value: number; readonly vertex: number } {
  const at = frame.offset + CONTRIBUTIONS_HEADER;
  return { value: at >>> 3, vertex: (at + count * 8) >>> 2 };
}

/** A region reference as a plain value. */
export type PlainRef = readonly [address: number, rkey: number, length: number];

export function plainRef({ address, rkey, length }: RegionRef): PlainRef {
  return [address, rkey, length];
}

export function refOf([address, rkey, length]: PlainRef): RegionRef {
  return { address, rkey, length };
}

function malformed(what: string, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot read graph message as its ${what} is malformed: current value is ${value}`,
    {
      details: { what, value },
    },
  );
}
