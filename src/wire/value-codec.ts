/**
 * Any plain value ↔ bytes: the seam behind which msgpackr stands.
 *
 * Invariant: what is encoded is decoded equal (objects, arrays, Map, Set, Date, RegExp, bigint, undefined, typed arrays and
 * ArrayBuffer keep their type), and what could not be is refused before a byte is written. A decoded value never refers to
 * the bytes it came from, so a ring record may be reused at once. Encoder and decoder share no state that grows with the
 * traffic: records not in the frozen structure table carry their keys.
 *
 * msgpackr's target buffer is global to the process. We therefore never hand it a buffer of ours (`useBuffer` would let the
 * next user of msgpackr write into a ring); we encode into its scratch, claim space of the known length and copy once.
 * Divergence: -0 becomes 0; lone surrogates become U+FFFD; a class instance becomes a plain object of its own enumerable
 * fields; an Error keeps name, message and cause only (errors that answer a request go through error-codec.ts);
 * two references to one object become two objects.
 */

import { Packr, RESET_BUFFER_MODE, REUSE_BUFFER_MODE, Unpackr } from "msgpackr";
import { describeValue, invalidArgument, ShardloomError } from "../errors.ts";
import { findUnencodable } from "./encodable.ts";

/** Options of a value codec. */
export interface ValueCodecOptions {
  /**
   * Key lists of records that both sides know, in the same order; they travel as one byte. At most 32.
   * @default none
   */
  readonly structures?: readonly (readonly string[])[];
}

/** Encodes and decodes plain values. One per thread; not re-entrant. */
export interface ValueCodec {
  /** Hash of the structure table, for the handshake: two codecs with equal hashes understand each other. */
  readonly structuresHash: number;
  /** A fresh copy of the encoded value, owned by the caller. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the path. */
  encode(value: unknown): Uint8Array;
  /**
   * Encodes into scratch and returns the byte length; {@link ValueCodec.copyPrepared} must follow before anything else on
   * this thread uses msgpackr, with nothing awaited in between.
   */
  prepare(value: unknown): number;
  /** Copies what {@link ValueCodec.prepare} made. */
  copyPrepared(target: Uint8Array, byteOffset: number): void;
  /** Both in one: returns the byte length, or its negative when it does not fit (then nothing was written). */
  encodeInto(value: unknown, target: Uint8Array, byteOffset: number): number;
  /** @throws {ShardloomError} `ERR_CORRUPT` when the range is not exactly one encoded value. */
  decode(bytes: Uint8Array, byteOffset?: number, byteLength?: number): unknown;
}

const MAX_STRUCTURES = 32;
const OWN_STRUCTURES = 32;
const SCRATCH_BYTES = 8192;
/** Scratch larger than this is let go after use. */
const KEPT_SCRATCH_BYTES = 1024 * 1024;
/** `Uint8Array` as msgpackr writes it: ext8, length, type "t", and 1, its index among the typed arrays. */
const EXT8 = 0xc7;
const TYPED_ARRAY_EXT = 0x74;
const UINT8_ARRAY_INDEX = 1;
const BYTES_HEADER = 4;
const MAX_SHORT_BYTES = 0xff - 1;
/** Below this a loop copies faster than a call into the platform. */
const LOOP_COPY_BYTES = 48;
const SCRATCH_MODE: number = REUSE_BUFFER_MODE | RESET_BUFFER_MODE;

/** msgpackr's target in reuse mode: the range that it wrote. */
type PackedTarget = Buffer & { start: number; end: number };

/**
 * Creates a codec.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` if there are more than 32 structures.
 */
export function createValueCodec(options: ValueCodecOptions = {}): ValueCodec {
  const structures = options.structures ?? [];
  if (structures.length > MAX_STRUCTURES) {
    throw invalidArgument("create value codec", "structures", `a list of at most ${MAX_STRUCTURES}`, structures);
  }
  return new MsgpackValueCodec(structures);
}

class MsgpackValueCodec implements ValueCodec {
  readonly structuresHash: number;
  readonly #packr: Packr;
  readonly #unpackr: Unpackr;
  #prepared: PackedTarget | undefined;
  /** A short `Uint8Array` that was prepared: it is copied straight from where it lies. */
  #preparedBytes: Uint8Array | undefined;
  #decodeScratch: Buffer = Buffer.allocUnsafeSlow(SCRATCH_BYTES);

  constructor(structures: readonly (readonly string[])[]) {
    this.structuresHash = hashStructures(structures);
    // Two instances: one would share its table between the records it writes and those it reads.
    this.#packr = new Packr(packrOptions(structures));
    this.#unpackr = new Unpackr(packrOptions(structures));
  }

  encode(value: unknown): Uint8Array {
    const bytes = new Uint8Array(this.prepare(value));
    this.copyPrepared(bytes, 0);
    return bytes;
  }

  prepare(value: unknown): number {
    // Messages that are bytes already need no serializer, which takes 20 times as long as the copy.
    if (value instanceof Uint8Array && value.constructor === Uint8Array && value.length <= MAX_SHORT_BYTES) {
      this.#preparedBytes = value;
      return BYTES_HEADER + value.length;
    }
    this.#preparedBytes = undefined;
    const problem = findUnencodable(value);
    if (problem !== undefined) {
      throw new ShardloomError(
        "ERR_INVALID_ARGUMENT",
        `Cannot encode value as ${problem.path} must be plain data: current value is ${problem.what}`,
        {
          details: { path: problem.path, value: problem.what },
        },
      );
    }
    const target = this.#packr.pack(value, SCRATCH_MODE) as PackedTarget;
    this.#prepared = target;
    if (target.length > KEPT_SCRATCH_BYTES) this.#packr.useBuffer(Buffer.allocUnsafeSlow(SCRATCH_BYTES));
    return target.end - target.start;
  }

  copyPrepared(target: Uint8Array, byteOffset: number): void {
    const source = this.#preparedBytes;
    if (source !== undefined) {
      this.#preparedBytes = undefined;
      target[byteOffset] = EXT8;
      target[byteOffset + 1] = source.length + 1;
      target[byteOffset + 2] = TYPED_ARRAY_EXT;
      target[byteOffset + 3] = UINT8_ARRAY_INDEX;
      target.set(source, byteOffset + BYTES_HEADER);
      return;
    }
    const prepared = this.#prepared;
    if (prepared === undefined) throw new ShardloomError("ERR_INTERNAL", "Cannot copy a value as none was prepared");
    const { start, end } = prepared;
    if (end - start <= LOOP_COPY_BYTES) {
      for (let from = start, to = byteOffset; from < end; from++, to++) target[to] = prepared[from] as number;
    } else {
      prepared.copy(target, byteOffset, start, end);
    }
    if (prepared.length > KEPT_SCRATCH_BYTES) this.#prepared = undefined;
  }

  encodeInto(value: unknown, target: Uint8Array, byteOffset: number): number {
    const byteLength = this.prepare(value);
    if (byteOffset + byteLength > target.length) return -byteLength;
    this.copyPrepared(target, byteOffset);
    return byteLength;
  }

  decode(bytes: Uint8Array, byteOffset: number = 0, byteLength: number = bytes.length - byteOffset): unknown {
    if (!(byteLength > 0 && byteOffset >= 0 && byteOffset + byteLength <= bytes.length)) {
      throw new ShardloomError(
        "ERR_CORRUPT",
        `Cannot decode value as its range must lie within ${bytes.length} bytes: current value is ${describeValue(byteOffset)} + ${describeValue(byteLength)}`,
      );
    }
    if (
      bytes[byteOffset] === EXT8 &&
      bytes[byteOffset + 2] === TYPED_ARRAY_EXT &&
      bytes[byteOffset + 3] === UINT8_ARRAY_INDEX &&
      bytes[byteOffset + 1] === byteLength - 3
    ) {
      const start = byteOffset + BYTES_HEADER;
      // A Buffer's slice would be a view.
      if (bytes.constructor === Uint8Array) return bytes.slice(start, byteOffset + byteLength);
      const value = new Uint8Array(byteLength - BYTES_HEADER);
      for (let at = 0; at < value.length; at++) value[at] = bytes[start + at] as number;
      return value;
    }
    // A private copy: msgpackr hangs a property on the array it reads, which would change the hidden class of a ring's
    // bytes, and its native string reader does not take shared memory.
    const scratch = this.#copyIn(bytes, byteOffset, byteLength);
    try {
      return this.#unpackr.unpack(scratch, byteLength);
    } catch (error) {
      throw new ShardloomError(
        "ERR_CORRUPT",
        `Cannot decode value of ${byteLength} bytes: ${(error as Error).message}`,
        { cause: error },
      );
    }
  }

  #copyIn(bytes: Uint8Array, byteOffset: number, byteLength: number): Buffer {
    let scratch = this.#decodeScratch;
    if (byteLength > scratch.length) {
      scratch = Buffer.allocUnsafeSlow(2 ** Math.ceil(Math.log2(byteLength)));
      if (byteLength <= KEPT_SCRATCH_BYTES) this.#decodeScratch = scratch;
    }
    if (byteLength <= LOOP_COPY_BYTES) {
      for (let index = 0; index < byteLength; index++) scratch[index] = bytes[byteOffset + index] as number;
    } else {
      scratch.set(bytes.subarray(byteOffset, byteOffset + byteLength), 0);
    }
    return scratch;
  }
}

/** Options under which the table stays frozen: there is room for exactly the given structures, all others travel inline. */
function packrOptions(structures: readonly (readonly string[])[]): ConstructorParameters<typeof Packr>[0] {
  return {
    structures: structures.map((keys) => [...keys]),
    maxSharedStructures: structures.length,
    maxOwnStructures: OWN_STRUCTURES,
    moreTypes: true,
    useBigIntExtension: true,
    mapsAsObjects: false,
    useToJSON: false,
    copyBuffers: true,
  };
}

/** FNV-1a over the keys, separated so that `["ab"]` and `["a", "b"]` differ. */
function hashStructures(structures: readonly (readonly string[])[]): number {
  const text = JSON.stringify(structures);
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}
