/**
 * Ids of documents as bytes: a string as UTF-8, a number as float64. The kind is kept, so `1` and `"1"` are two ids.
 *
 * Invariant: equal ids have equal (kind, bytes), so that owner and one-sided readers compare bytes and never decode.
 * An id word packs both: byte length in bits 0–23, kind in bits 24–31.
 */
import { describeValue, invalidArgument, ShardloomError } from "../errors.ts";

export type DocumentId = string | number;
export type VectorId = DocumentId;

export const ID_STRING = 0;
export const ID_NUMBER = 1;
/** Longest id in UTF-8 bytes. */
export const MAX_ID_BYTES = 512;

const LENGTH_MASK = 0xffffff;
const KIND_SHIFT = 24;
const SHORT_ASCII = 24;
const LONE_SURROGATE = /\p{Surrogate}/u;

const float = new Float64Array(1);
const floatBytes = new Uint8Array(float.buffer);
const buffers = new WeakMap<Uint8Array, Buffer>();

/** A Buffer over the same bytes: its UTF-8 methods work on shared memory, TextDecoder's need not. */
export function bufferOver(bytes: Uint8Array): Buffer {
  let buffer = buffers.get(bytes);
  if (buffer === undefined) {
    buffer = Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength);
    buffers.set(bytes, buffer);
  }
  return buffer;
}

export function idLengthOf(idWord: number): number {
  return idWord & LENGTH_MASK;
}

export function idKindOf(idWord: number): number {
  return idWord >>> KIND_SHIFT;
}

/**
 * The id word of an id, which is also its check.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` if the id is no string of 1 to {@link MAX_ID_BYTES} bytes and no finite number.
 */
export function idWordOf(id: VectorId): number {
  if (typeof id === "string") {
    const length = isShortAscii(id) ? id.length : Buffer.byteLength(id, "utf8");
    if (length < 1 || length > MAX_ID_BYTES) throw badLength(length);
    // Lone surrogates all have the same UTF-8 bytes, so that two such ids would be one.
    if (length !== id.length && LONE_SURROGATE.test(id))
      throw invalidArgument("use id", "id", "well-formed Unicode", id);
    return length;
  }
  if (typeof id === "number" && Number.isFinite(id)) return 8 | (ID_NUMBER << KIND_SHIFT);
  throw invalidArgument("use id", "id", "a string or a finite number", typeof id === "number" ? id : describeValue(id));
}

function badLength(length: number): ShardloomError {
  const { code, message, details } = invalidArgument(
    "use id",
    "its UTF-8 length",
    `in [1, ${MAX_ID_BYTES}] bytes`,
    length,
  );
  return new ShardloomError(code, message, { details: { ...details, limit: MAX_ID_BYTES } });
}

function isShortAscii(text: string): boolean {
  if (text.length > SHORT_ASCII) return false;
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) > 127) return false;
  return true;
}

/** Writes the bytes of an id whose word is `idWord`. */
export function writeId(bytes: Uint8Array, byteOffset: number, id: VectorId, idWord: number): void {
  if (typeof id === "number") {
    float[0] = id === 0 ? 0 : id; // −0 and 0 are one id
    bytes.set(floatBytes, byteOffset);
  } else if (id.length === idLengthOf(idWord) && id.length <= SHORT_ASCII) {
    for (let i = 0; i < id.length; i++) bytes[byteOffset + i] = id.charCodeAt(i);
  } else {
    bufferOver(bytes).write(id, byteOffset, idLengthOf(idWord), "utf8");
  }
}

/** The id at a place that was checked to hold it. */
export function readId(bytes: Uint8Array, byteOffset: number, idWord: number): VectorId {
  const length = idLengthOf(idWord);
  if (idKindOf(idWord) === ID_NUMBER) {
    for (let i = 0; i < 8; i++) floatBytes[i] = bytes[byteOffset + i] as number;
    return float[0] as number;
  }
  return bufferOver(bytes).toString("utf8", byteOffset, byteOffset + length);
}

/** Whether two ids, of the same id word, have the same bytes. */
export function sameIdBytes(a: Uint8Array, aOffset: number, b: Uint8Array, bOffset: number, length: number): boolean {
  for (let i = 0; i < length; i++) {
    if (a[aOffset + i] !== b[bOffset + i]) return false;
  }
  return true;
}

/** Whether an id word from outside can be one. */
export function isIdWord(idWord: number): boolean {
  const length = idLengthOf(idWord);
  const kind = idKindOf(idWord);
  return kind === ID_STRING ? length >= 1 && length <= MAX_ID_BYTES : kind === ID_NUMBER && length === 8;
}
