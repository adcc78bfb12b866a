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
/** Keys longer than this are not remembered by a {@link KeyReader}. */
const SHORT_KEY_BYTES = 32;
/** Keys that a {@link KeyReader} remembers; a power of two. */
const KEY_SLOTS = 1024;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: false });

/** An actor's key as it travels. */
export function encodeKey(key: string): Uint8Array {
  return encoder.encode(key);
}

/** How an {@link ActorMessage} comes by its value: `value-codec` fits. */
export interface ValueWriter {
  prepare(value: unknown): number;
  copyPrepared(target: Uint8Array, byteOffset: number): void;
}

/**
 * The message that is being sent: one object for all of a thread's messages.
 *
 * Between `set` and `write` or `hold`, which follow in the same call, the value lies in the codec's scratch; it is written
 * straight into the ring, and copied only if it has to wait.
 */
export class ActorMessage {
  byteLength = 0;
  readonly #codec: ValueWriter;
  #actor = 0;
  #handler = 0;
  #key: Uint8Array = new Uint8Array(0);
  #valueLength = 0;

  constructor(codec: ValueWriter) {
    this.#codec = codec;
  }

  /** Begins a message. `undefined` travels as no bytes at all. */
  set(actor: number, handler: number, key: Uint8Array, value: unknown): this {
    this.#valueLength = value === undefined ? 0 : this.#codec.prepare(value);
    this.#actor = actor;
    this.#handler = handler;
    this.#key = key;
    this.byteLength = HEADER_BYTES + key.length + this.#valueLength;
    return this;
  }

  write(target: { readonly bytes: Uint8Array; readonly i32: Int32Array }, offset: number): void {
    const { bytes, i32 } = target;
    const key = this.#key;
    const keyLength = key.length;
    i32[offset >> 2] = this.#actor | (this.#handler << 16);
    i32[(offset >> 2) + 1] = keyLength;
    if (keyLength <= SHORT_KEY_BYTES)
      for (let at = 0; at < keyLength; at++) bytes[offset + HEADER_BYTES + at] = key[at] as number;
    else bytes.set(key, offset + HEADER_BYTES);
    if (this.#valueLength > 0) this.#codec.copyPrepared(bytes, offset + HEADER_BYTES + keyLength);
  }

  /** A copy that may wait. */
  hold(): HeldMessage {
    const words = new Int32Array((this.byteLength + 3) >> 2);
    const bytes = new Uint8Array(words.buffer);
    this.write({ bytes, i32: words }, 0);
    return new HeldMessage(bytes.subarray(0, this.byteLength));
  }
}

/** A message that had to wait, encoded. */
class HeldMessage {
  readonly byteLength: number;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.byteLength = bytes.length;
    this.#bytes = bytes;
  }

  write(target: { readonly bytes: Uint8Array }, offset: number): void {
    target.bytes.set(this.#bytes, offset);
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
  keys: KeyReader,
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
  view.key = keys.read(bytes, offset + HEADER_BYTES, keyLength);
  view.valueOffset = offset + HEADER_BYTES + keyLength;
  view.valueLength = length - HEADER_BYTES - keyLength;
  return true;
}

/**
 * Reads keys, and remembers short ones: an actor's key comes with every message to it, and a string that was seen before
 * costs neither a decoder call nor a hash at the table of activations.
 */
export class KeyReader {
  readonly #texts: string[] = new Array<string>(KEY_SLOTS).fill("");
  readonly #lengths: Uint8Array = new Uint8Array(KEY_SLOTS);
  readonly #bytes: Uint8Array = new Uint8Array(KEY_SLOTS * SHORT_KEY_BYTES);
  #lastSlot = 0;

  read(bytes: Uint8Array, start: number, length: number): string {
    if (this.#isAt(this.#lastSlot, bytes, start, length)) return this.#texts[this.#lastSlot] as string;
    if (length > SHORT_KEY_BYTES || length === 0) return decoder.decode(bytes.slice(start, start + length));
    let hash = length;
    for (let at = start; at < start + length; at++) hash = (Math.imul(hash, 31) + (bytes[at] as number)) | 0;
    const slot = (hash ^ (hash >>> 15)) & (KEY_SLOTS - 1);
    this.#lastSlot = slot;
    return this.#isAt(slot, bytes, start, length)
      ? (this.#texts[slot] as string)
      : this.#learn(slot, bytes, start, length);
  }

  #isAt(slot: number, bytes: Uint8Array, start: number, length: number): boolean {
    if (this.#lengths[slot] !== length) return false;
    const known = this.#bytes;
    const from = slot * SHORT_KEY_BYTES;
    for (let at = 0; at < length; at++) if (known[from + at] !== bytes[start + at]) return false;
    return true;
  }

  #learn(slot: number, bytes: Uint8Array, start: number, length: number): string {
    const copy = bytes.slice(start, start + length);
    const text = decoder.decode(copy);
    this.#texts[slot] = text;
    this.#lengths[slot] = length;
    this.#bytes.set(copy, slot * SHORT_KEY_BYTES);
    return text;
  }
}
