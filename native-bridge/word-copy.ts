/**
 * Copying between the arena and a caller's buffer without allocation.
 *
 * Invariant: bits arrive unchanged (int32 loads and stores; float ones may quiet a NaN), and nothing outside the range is
 * touched. A local buffer of any alignment is right; one aligned like the address is fast.
 * Views of the last buffer used are kept, so a caller that reads into one buffer again and again allocates nothing, and
 * one that changes buffers pays about 0.3 µs each time.
 */
import { invalidArgument } from "../src/errors.ts";

/** Where a verb may copy to or from. */
export type LocalView = Uint8Array | Float32Array;

/** From here on one `set` over a fresh view beats a loop of words or bytes. */
const WORD_LOOP_MAX_BYTES = 1024;
const BYTE_LOOP_MAX_BYTES = 128;

/** Byte and word views of the caller's buffer in use. One per thread and `Verbs`. */
export class LocalBuffer {
  view: LocalView | undefined = undefined;
  bytes: Uint8Array = new Uint8Array(0);
  /** Empty when the view does not start on a multiple of 4. */
  words: Int32Array = new Int32Array(0);
  elementShift = 0;

  /** Points at another buffer. Allocates three views. */
  bind(view: LocalView): void {
    if (!ArrayBuffer.isView(view) || view instanceof DataView) throw invalidArgument("copy", "target", "a Uint8Array or Float32Array", view);
    this.bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    this.words = view.byteOffset % 4 === 0 ? new Int32Array(view.buffer, view.byteOffset, view.byteLength >>> 2) : new Int32Array(0);
    this.elementShift = 31 - Math.clz32(view.BYTES_PER_ELEMENT);
    this.view = view;
  }
}

/** Copies `length` bytes of the arena at `address` into the local buffer at byte `at`. The caller has checked both ranges. */
export function copyOut(i32: Int32Array, bytes: Uint8Array, address: number, local: LocalBuffer, at: number, length: number): void {
  if (((address | at | length) & 3) === 0 && length <= WORD_LOOP_MAX_BYTES && local.words.length !== 0) {
    const words = local.words;
    const from = address >>> 2;
    const to = at >>> 2;
    const count = length >>> 2;
    for (let word = 0; word < count; word++) words[to + word] = i32[from + word] as number;
    return;
  }
  copyBytes(bytes, address, local.bytes, at, length);
}

/** Copies `length` bytes of the local buffer at byte `at` into the arena at `address`. The caller has checked both ranges. */
export function copyIn(i32: Int32Array, bytes: Uint8Array, address: number, local: LocalBuffer, at: number, length: number): void {
  if (((address | at | length) & 3) === 0 && length <= WORD_LOOP_MAX_BYTES && local.words.length !== 0) {
    const words = local.words;
    const to = address >>> 2;
    const from = at >>> 2;
    const count = length >>> 2;
    for (let word = 0; word < count; word++) i32[to + word] = words[from + word] as number;
    return;
  }
  copyBytes(local.bytes, at, bytes, address, length);
}

function copyBytes(source: Uint8Array, from: number, target: Uint8Array, to: number, length: number): void {
  if (length > BYTE_LOOP_MAX_BYTES) {
    target.set(source.subarray(from, from + length), to);
    return;
  }
  for (let index = 0; index < length; index++) target[to + index] = source[from + index] as number;
}
