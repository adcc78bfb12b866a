/**
 * Body of the messages `actor.ask` and `actor.tell`.
 *
 * ```
 *  0  u16 actor index      index of the receiver's table, agreed at the handshake
 *  2  u16 handler index
 *  4  u16 key length in bytes
 *  6  u16 zero
 *  8  key, UTF-8
 *     value, encoded by value-codec, to the end of the body
 * ```
 *
 * Invariant: a body that `readActorMessage` accepts names a range for key and value inside itself.
 */

const HEADER_BYTES = 8;
const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: false });
/** Keys up to this length are read byte by byte, which is faster than a decoder call when they are ASCII. */
const SHORT_KEY_BYTES = 24;

/** A message to an actor, ready to be written in place. */
export class ActorMessage {
  readonly byteLength: number;
  readonly #actor: number;
  readonly #handler: number;
  readonly #key: Uint8Array;
  readonly #value: Uint8Array;

  /** @param value The message, encoded by value-codec. */
  constructor(actor: number, handler: number, key: string, value: Uint8Array) {
    this.#actor = actor;
    this.#handler = handler;
    this.#key = encoder.encode(key);
    this.#value = value;
    this.byteLength = HEADER_BYTES + this.#key.length + value.length;
  }

  write(target: { readonly bytes: Uint8Array; readonly i32: Int32Array }, offset: number): void {
    const word = offset >> 2;
    target.i32[word] = this.#actor | (this.#handler << 16);
    target.i32[word + 1] = this.#key.length;
    target.bytes.set(this.#key, offset + HEADER_BYTES);
    target.bytes.set(this.#value, offset + HEADER_BYTES + this.#key.length);
  }
}

/** A decoded body; one object is reused for every message. */
export interface ActorMessageView {
  actor: number;
  handler: number;
  key: string;
  valueOffset: number;
  valueLength: number;
}

/** Reads a body into `view`. @returns false when it is malformed */
export function readActorMessage(
  view: ActorMessageView,
  bytes: Uint8Array,
  i32: Int32Array,
  offset: number,
  length: number,
): boolean {
  if (length < HEADER_BYTES) return false;
  const names = i32[offset >> 2] as number;
  const keyLength = i32[(offset >> 2) + 1] as number;
  if (keyLength < 0 || keyLength > length - HEADER_BYTES) return false;
  view.actor = names & 0xffff;
  view.handler = names >>> 16;
  view.key = readKey(bytes, offset + HEADER_BYTES, keyLength);
  view.valueOffset = offset + HEADER_BYTES + keyLength;
  view.valueLength = length - HEADER_BYTES - keyLength;
  return true;
}

function readKey(bytes: Uint8Array, start: number, length: number): string {
  if (length <= SHORT_KEY_BYTES) {
    let key = "";
    for (let at = start; at < start + length; at++) {
      const byte = bytes[at] as number;
      if (byte > 127) return decoder.decode(bytes.slice(start, start + length));
      key += String.fromCharCode(byte);
    }
    return key;
  }
  return decoder.decode(bytes.slice(start, start + length));
}
