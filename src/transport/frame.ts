/**
 * Frames in a stream of bytes: a header of eight bytes, a payload, a checksum over both.
 *
 * ```
 *  bytes 0..3   CRC-32 of all bytes that follow, little-endian
 *  bytes 4..7   bits 27..0 length of the payload in bytes, bits 31..28 kind: 1 to 15, so that a run of zeros is no frame
 *  bytes 8..    payload
 * ```
 *
 * Invariant: a payload that is given out is the payload that was written, at an address that is a multiple of 8, in memory that is the
 * receiver's. Whatever bytes arrive, the reader holds at most one frame of the longest that it admits, and gives out nothing after the first error.
 * Source: the framing of issue 7. Divergence: CRC-32 (zlib's, src/runtime/checksum.ts) instead of CRC32C, as every other checksum here is, and
 * the platform computes it faster than any CRC32C from npm.
 */
import { ShardloomError } from "../errors.ts";
import { crc32 } from "../runtime/checksum.ts";
import { payloadMemory } from "../runtime/payload-memory.ts";

export const FRAME_HEADER_BYTES = 8;
/** Longest payload that the header can tell. */
export const FRAME_LENGTH_LIMIT = 0x0fff_ffff;

/** Writes header and payload at `offset`. @returns the offset after them */
export function writeFrame(target: Uint8Array, offset: number, kind: number, payload: Uint8Array): number {
  const start = offset + FRAME_HEADER_BYTES;
  const end = start + payload.length;
  writeU32(target, offset + 4, payload.length | (kind << 28));
  target.set(payload, start);
  writeU32(target, offset, crc32(target.subarray(offset + 4, end)));
  return end;
}

/** Writes the header of a payload that follows in memory of its own. @returns the offset after it */
export function writeFrameHeader(target: Uint8Array, offset: number, kind: number, payload: Uint8Array): number {
  const end = offset + FRAME_HEADER_BYTES;
  writeU32(target, offset + 4, payload.length | (kind << 28));
  writeU32(target, offset, crc32(payload, crc32(target.subarray(offset + 4, end))));
  return end;
}

/** One frame in memory of its own. */
export function frameBytes(kind: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(FRAME_HEADER_BYTES + payload.length);
  writeFrame(bytes, 0, kind, payload);
  return bytes;
}

/** Takes whole frames out of chunks. */
export class FrameReader {
  /** Longest payload that is admitted from now on. */
  maxBytes: number;
  readonly #onFrame: (kind: number, payload: Uint8Array) => void;
  readonly #header = new Uint8Array(FRAME_HEADER_BYTES);
  #headerBytes = 0;
  /** Payload of a frame that has come in part. */
  #payload: Uint8Array | undefined;
  #payloadBytes = 0;
  #stopped = false;

  constructor(maxBytes: number, onFrame: (kind: number, payload: Uint8Array) => void) {
    this.maxBytes = Math.min(maxBytes, FRAME_LENGTH_LIMIT);
    this.#onFrame = onFrame;
  }

  /** Whether a frame has come in part. */
  get isPartial(): boolean {
    return this.#headerBytes > 0;
  }

  /** Gives out no frame any more; may be called from within `onFrame`. */
  stop(): void {
    this.#stopped = true;
  }

  /**
   * Takes a chunk; nothing of it is kept.
   *
   * @returns the offset up to which it was read: less than its length only after {@link stop}
   * @throws {ShardloomError} `ERR_CORRUPT`, `ERR_RECORD_TOO_LARGE`; also what `onFrame` throws
   */
  push(chunk: Uint8Array): number {
    let offset = 0;
    try {
      while (offset < chunk.length && !this.#stopped)
        offset = this.#headerBytes === 0 ? this.#whole(chunk, offset) : this.#part(chunk, offset);
    } catch (error) {
      this.#stopped = true;
      throw error;
    }
    return offset;
  }

  /** A frame begins here; if all of it is here it needs no other memory than its payload's. */
  #whole(chunk: Uint8Array, offset: number): number {
    const left = chunk.length - offset;
    if (left < FRAME_HEADER_BYTES) return this.#part(chunk, offset);
    const word = readU32(chunk, offset + 4);
    const length = this.#check(word);
    if (left < FRAME_HEADER_BYTES + length) return this.#part(chunk, offset);
    const start = offset + FRAME_HEADER_BYTES;
    const end = start + length;
    const sum = crc32(chunk.subarray(offset + 4, end));
    if (sum !== readU32(chunk, offset)) throw damaged(sum, readU32(chunk, offset));
    const payload = payloadMemory(length);
    payload.set(chunk.subarray(start, end));
    this.#onFrame(word >>> 28, payload);
    return end;
  }

  #part(chunk: Uint8Array, from: number): number {
    let offset = from;
    const header = this.#header;
    while (this.#headerBytes < FRAME_HEADER_BYTES && offset < chunk.length)
      header[this.#headerBytes++] = chunk[offset++] as number;
    if (this.#headerBytes < FRAME_HEADER_BYTES) return offset;
    const word = readU32(header, 4);
    this.#payload ??= payloadMemory(this.#check(word));
    const payload = this.#payload;
    const taken = Math.min(payload.length - this.#payloadBytes, chunk.length - offset);
    payload.set(chunk.subarray(offset, offset + taken), this.#payloadBytes);
    this.#payloadBytes += taken;
    if (this.#payloadBytes < payload.length) return offset + taken;
    const sum = crc32(payload, crc32(header.subarray(4)));
    if (sum !== readU32(header, 0)) throw damaged(sum, readU32(header, 0));
    this.#headerBytes = 0;
    this.#payload = undefined;
    this.#payloadBytes = 0;
    this.#onFrame(word >>> 28, payload);
    return offset + taken;
  }

  /** @returns the payload's length */
  #check(word: number): number {
    const length = word & FRAME_LENGTH_LIMIT;
    if (word >>> 28 === 0)
      throw new ShardloomError("ERR_CORRUPT", "Cannot read frame as its kind must be 1 to 15: current value is 0");
    if (length <= this.maxBytes) return length;
    throw new ShardloomError(
      "ERR_RECORD_TOO_LARGE",
      `Cannot read frame as its payload must be at most ${this.maxBytes} bytes: current value is ${length}`,
      { details: { limit: this.maxBytes, value: length } },
    );
  }
}

function damaged(computed: number, stored: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot read frame as its checksum must be ${computed}: current value is ${stored}`,
  );
}

/** Bytes rather than a DataView, as one would have to be made for every chunk. */
export function readU32(bytes: Uint8Array, offset: number): number {
  return (
    ((bytes[offset] as number) |
      ((bytes[offset + 1] as number) << 8) |
      ((bytes[offset + 2] as number) << 16) |
      ((bytes[offset + 3] as number) << 24)) >>>
    0
  );
}

export function writeU32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value;
  bytes[offset + 1] = value >>> 8;
  bytes[offset + 2] = value >>> 16;
  bytes[offset + 3] = value >>> 24;
}
