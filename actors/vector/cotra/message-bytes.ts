/**
 * Reading and writing the parts of a message: little-endian, unaligned, everything read is a copy.
 *
 * ```
 *  code    u32 bytes | u8 form, the bytes as they are (0); or a bit for each, the lowest first, then those that are not 0 (1)
 * ```
 * Invariant: a reader never reads outside its bytes and allocates at most eight times as many, whatever counts they hold; what breaks the
 * layout is refused with `ERR_CORRUPT`. A code is written in its shorter form: those of pictures, and numbers that are whole, are full of zeros.
 */
import { ShardloomError } from "../../../src/errors.ts";
import { type CotraTally, TALLY_BYTES } from "./cotra-tally.ts";

/** Most entries of any one list in a message. */
const MAX_LIST = 65_535;
/** Most entries that a search puts into one list of a sync message or an ask: more go into several, of at most 50 KB. */
export const MAX_BATCH = 4096;

/** Vertices with their distances; the arrays have the same length. */
export interface Pairs {
  readonly vertices: Int32Array;
  readonly distances: Float32Array;
}

/** The pairs whose distance is within a bound. */
export function pairsOf(vertices: readonly number[], distances: readonly number[], bound: number): Pairs {
  const kept: number[] = [];
  for (let at = 0; at < distances.length; at++) if ((distances[at] as number) <= bound) kept.push(at);
  return {
    vertices: Int32Array.from(kept, (at) => vertices[at] as number),
    distances: Float32Array.from(kept, (at) => distances[at] as number),
  };
}

/** The refusal of bytes that are no message. */
export function corrupt(rule: string): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", `Cannot read message of a collaborative search as ${rule}`);
}

const CODE_HEAD_BYTES = 5;
const CODE_PACKED = 1;

/** Bytes that a code takes in a message. */
export function codeLength(code: Uint8Array): number {
  let packed = (code.length + 7) >>> 3;
  for (let at = 0; at < code.length; at++) if (code[at] !== 0) packed++;
  return CODE_HEAD_BYTES + Math.min(code.length, packed);
}

/** Writes a code at an offset. @returns The offset behind it */
export function writeCode(target: Uint8Array, offset: number, code: Uint8Array): number {
  const length = codeLength(code);
  const isPacked = length < CODE_HEAD_BYTES + code.length;
  new DataView(target.buffer, target.byteOffset).setUint32(offset, code.length, true);
  target[offset + 4] = isPacked ? CODE_PACKED : 0;
  const bits = offset + CODE_HEAD_BYTES;
  if (!isPacked) {
    target.set(code, bits);
    return offset + length;
  }
  let end = bits + ((code.length + 7) >>> 3);
  target.fill(0, bits, end);
  for (let at = 0; at < code.length; at++) {
    const value = code[at] as number;
    if (value === 0) continue;
    const byte = bits + (at >>> 3);
    target[byte] = (target[byte] as number) | (1 << (at & 7));
    target[end++] = value;
  }
  return end;
}

/** Writes one message, whose length is known beforehand. */
export class MessageWriter {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  #at = 0;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
    this.#view = new DataView(this.bytes.buffer);
  }

  u8(value: number): void {
    this.#view.setUint8(this.#at++, value);
  }

  u16(value: number): void {
    this.#view.setUint16(this.#at, value, true);
    this.#at += 2;
  }

  u32(value: number): void {
    this.#view.setUint32(this.#at, value, true);
    this.#at += 4;
  }

  i32(value: number): void {
    this.#view.setInt32(this.#at, value, true);
    this.#at += 4;
  }

  f32(value: number): void {
    this.#view.setFloat32(this.#at, value, true);
    this.#at += 4;
  }

  /** @throws {ShardloomError} `ERR_RECORD_TOO_LARGE` for a list that the layout cannot count. */
  count(value: number): void {
    if (value > MAX_LIST) {
      throw new ShardloomError(
        "ERR_RECORD_TOO_LARGE",
        `Cannot write message of a collaborative search as a list must have at most ${MAX_LIST} entries: current value is ${value}`,
      );
    }
    this.u16(value);
  }

  raw(bytes: Uint8Array): void {
    this.bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  code(code: Uint8Array): void {
    this.#at = writeCode(this.bytes, this.#at, code);
  }

  peers(peers: readonly number[]): void {
    for (const peer of peers) this.u16(peer);
  }

  ids(ids: Int32Array): void {
    for (const id of ids) this.i32(id);
  }

  tally({ computations, pulled, stolen, listReads, pushes, messages, bytes }: CotraTally): void {
    for (const count of [computations, pulled, stolen, listReads, pushes, messages, bytes]) this.u32(count);
  }

  pairs({ vertices, distances }: Pairs): void {
    for (let at = 0; at < vertices.length; at++) {
      this.i32(vertices[at] as number);
      this.f32(distances[at] as number);
    }
  }
}

/** Reads one message; every read is checked against its end. */
export class MessageReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  i32(): number {
    return this.#view.getInt32(this.#take(4), true);
  }

  /** A float32 that is a number, perhaps infinite. */
  bound(): number {
    const value = this.#view.getFloat32(this.#take(4), true);
    if (Number.isNaN(value)) throw corrupt("a bound must be a number");
    return value;
  }

  raw(length: number): Uint8Array<ArrayBuffer> {
    const at = this.#take(length);
    const copy = new Uint8Array(length);
    copy.set(this.#bytes.subarray(at, at + length));
    return copy;
  }

  code(): Uint8Array<ArrayBuffer> {
    const length = this.u32();
    const form = this.u8();
    const start = this.#at;
    const code = form === CODE_PACKED ? this.#packed(length) : this.raw(length);
    if (form > CODE_PACKED || CODE_HEAD_BYTES + this.#at - start !== codeLength(code))
      throw corrupt(`a code must be in the shorter of its forms: current value is form ${form}`);
    return code;
  }

  #packed(length: number): Uint8Array<ArrayBuffer> {
    const bitmap = Math.ceil(length / 8);
    const bits = this.#take(bitmap);
    const code = new Uint8Array(length);
    for (let at = 0; at < bitmap * 8; at++) {
      if (((this.#bytes[bits + (at >>> 3)] as number) & (1 << (at & 7))) === 0) continue;
      const value = this.u8();
      if (at >= length || value === 0) throw corrupt("a packed code must name bytes that it has, none of them 0");
      code[at] = value;
    }
    return code;
  }

  tally(): CotraTally {
    this.#need(TALLY_BYTES);
    const [computations, pulled, stolen, listReads] = [this.u32(), this.u32(), this.u32(), this.u32()];
    return { computations, pulled, stolen, listReads, pushes: this.u32(), messages: this.u32(), bytes: this.u32() };
  }

  peers(count: number): number[] {
    this.#need(count * 2);
    return Array.from({ length: count }, () => this.u16());
  }

  ids(count: number): Int32Array {
    this.#need(count * 4);
    return Int32Array.from({ length: count }, () => this.#vertex());
  }

  /** @param unknown Whether a distance may be not a number. */
  pairs(count: number, unknown: boolean): Pairs {
    this.#need(count * 8);
    const vertices = new Int32Array(count);
    const distances = new Float32Array(count);
    for (let at = 0; at < count; at++) {
      vertices[at] = this.#vertex();
      const distance = this.#view.getFloat32(this.#take(4), true);
      if (!Number.isFinite(distance) && !(unknown && Number.isNaN(distance)))
        throw corrupt("a distance must be finite");
      distances[at] = distance;
    }
    return { vertices, distances };
  }

  end(): void {
    if (this.#at !== this.#bytes.length) throw corrupt(`it must end after ${this.#at} bytes`);
  }

  #vertex(): number {
    const vertex = this.i32();
    if (vertex < 0) throw corrupt(`a vertex must not be negative: current value is ${vertex}`);
    return vertex;
  }

  #need(length: number): void {
    if (this.#at + length > this.#bytes.length) throw corrupt(`it must hold at least ${this.#at + length} bytes`);
  }

  #take(length: number): number {
    this.#need(length);
    const at = this.#at;
    this.#at += length;
    return at;
  }
}
