/**
 * How an engine's effects read as changes of single documents, for those who keep documents outside of the engine.
 *
 * Invariant: pure functions of bytes: applying the changes of effects in order, and the body of each document that is left to an empty
 * engine, gives the engine what the effects themselves would have, versions included.
 */
import { ShardloomError } from "../src/errors.ts";
import type { DocumentChange } from "../src/store/document-batch.ts";
import type { EngineRequest } from "./engine.ts";

export interface DocumentCodec {
  /** Message types of the effects that it reads. */
  readonly types: readonly number[];
  /** @throws {ShardloomError} `ERR_CORRUPT` */
  changes(vshard: number, type: number, body: Uint8Array): readonly DocumentChange[];
  /** One effect body that writes what these do: bodies of documents of one collection, all of that type. */
  join(type: number, bodies: readonly Uint8Array[]): Uint8Array;
}

/** A body as a request; copied when it does not begin at a multiple of 8. */
export function requestOver(body: Uint8Array): EngineRequest {
  const bytes = body.byteOffset % 8 === 0 ? body : body.slice();
  const { buffer, byteOffset: from, length } = bytes;
  return {
    bytes,
    i32: new Int32Array(buffer, from, length >>> 2),
    f32: new Float32Array(buffer, from, length >>> 2),
    f64: new Float64Array(buffer, from, length >>> 3),
    offset: 0,
    length,
  };
}

/** Views over one new buffer. */
export function newBody(length: number): { bytes: Uint8Array; i32: Int32Array } {
  const buffer = new ArrayBuffer(length);
  return { bytes: new Uint8Array(buffer), i32: new Int32Array(buffer, 0, length >>> 2) };
}

/**
 * Joins bodies of one document each: a header whose second word counts items, the item, and its version in the last 8 bytes.
 *
 * Cost: two copies of each body, nothing else.
 */
export function joinItems(headerBytes: number, bodies: readonly Uint8Array[]): Uint8Array {
  const [first] = bodies;
  if (first === undefined) return new Uint8Array(0);
  const overhead = headerBytes + VERSION_BYTES;
  const total = bodies.reduce((sum, body) => sum + body.length - headerBytes, headerBytes);
  const { bytes, i32 } = newBody(total);
  bytes.set(first.subarray(0, headerBytes));
  i32[1] = bodies.length;
  let at = headerBytes;
  let version = total - VERSION_BYTES * bodies.length;
  for (const body of bodies) {
    if (body.length < overhead) throw notAnItem("length", body.length);
    const end = body.length - VERSION_BYTES;
    bytes.set(body.subarray(headerBytes, end), at);
    bytes.set(body.subarray(end), version);
    at += end - headerBytes;
    version += VERSION_BYTES;
  }
  return bytes;
}

const VERSION_BYTES = 8;

/** Something in an effect that does not fit it. */
export function notAnItem(name: string, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot read documents of effect as its ${name} must fit it: current value is ${value}`,
    { details: { name, value } },
  );
}
