/**
 * Copying between the arena and a caller's buffer without allocation.
 *
 * Invariant: bits arrive unchanged, and nothing outside the range is touched. Moves are 8 bytes wide where both sides are
 * aligned, else 4, else single bytes; any alignment is right. Eight bytes go as float64: V8 moves those in all tiers without
 * quieting a NaN, which the standard would allow, so `word-copy.test.ts` checks every tier; float32 moves do quiet and are not used.
 * Views of the last buffer used are kept, so a caller that reads into one buffer again and again allocates nothing, and
 * one that changes buffers pays about 0.3 µs each time.
 */
import { invalidArgument } from "../src/errors.ts";
import type { Arena } from "./arena.ts";

/** Where a verb may copy to or from. */
export type LocalView = Uint8Array | Float32Array;

/** From here on one `set` over a fresh view beats a loop of words or bytes. */
export const WORD_LOOP_MAX_BYTES = 1024;
const BYTE_LOOP_MAX_BYTES = 128;

/** Byte and word views of the caller's buffer in use. One per thread and `Verbs`. */
export class LocalBuffer {
  view: LocalView | undefined = undefined;
  bytes: Uint8Array = new Uint8Array(0);
  /** Empty when the view does not start on a multiple of 4. */
  words: Int32Array = new Int32Array(0);
  /** Empty when the view does not start on a multiple of 8. */
  doubles: Float64Array = new Float64Array(0);
  elementShift = 0;

  /** Points at another buffer. Allocates four views. */
  bind(view: LocalView): void {
    if (!ArrayBuffer.isView(view) || view instanceof DataView)
      throw invalidArgument("copy", "target", "a Uint8Array or Float32Array", view);
    this.bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    this.words =
      view.byteOffset % 4 === 0
        ? new Int32Array(view.buffer, view.byteOffset, view.byteLength >>> 2)
        : new Int32Array(0);
    this.doubles =
      view.byteOffset % 8 === 0
        ? new Float64Array(view.buffer, view.byteOffset, view.byteLength >>> 3)
        : new Float64Array(0);
    this.elementShift = 31 - Math.clz32(view.BYTES_PER_ELEMENT);
    this.view = view;
  }

  /** Binds a view, whose `offset` is in elements. @returns byte offset in it, or −1 when the range does not fit */
  rangeOf(view: LocalView, offset: number, length: number): number {
    if (this.view !== view) this.bind(view);
    if (typeof offset !== "number" || offset >>> 0 !== offset) return -1;
    const at = offset * (1 << this.elementShift);
    return at + length > this.bytes.length ? -1 : at;
  }
}

/** Copies `length` bytes of the arena at `address` into the local buffer at byte `at`. The caller has checked both ranges. */
export function copyOut(arena: Arena, address: number, local: LocalBuffer, at: number, length: number): void {
  if (length > WORD_LOOP_MAX_BYTES) local.bytes.set(arena.bytes.subarray(address, address + length), at);
  else if (((address | at | length) & 7) === 0 && local.doubles.length !== 0)
    copyDoubles(arena.f64, address >>> 3, local.doubles, at >>> 3, length >>> 3);
  else if (((address | at | length) & 3) === 0 && local.words.length !== 0)
    copyWords(arena.i32, address >>> 2, local.words, at >>> 2, length >>> 2);
  else copyBytes(arena.bytes, address, local.bytes, at, length);
}

/** Copies `length` bytes of the local buffer at byte `at` into the arena at `address`. The caller has checked both ranges. */
export function copyIn(arena: Arena, address: number, local: LocalBuffer, at: number, length: number): void {
  if (length > WORD_LOOP_MAX_BYTES) arena.bytes.set(local.bytes.subarray(at, at + length), address);
  else if (((address | at | length) & 7) === 0 && local.doubles.length !== 0)
    copyDoubles(local.doubles, at >>> 3, arena.f64, address >>> 3, length >>> 3);
  else if (((address | at | length) & 3) === 0 && local.words.length !== 0)
    copyWords(local.words, at >>> 2, arena.i32, address >>> 2, length >>> 2);
  else copyBytes(local.bytes, at, arena.bytes, address, length);
}

/** Four doubles a turn: the bounds checks and the loop's own test cost more than the moves. */
export function copyDoubles(source: Float64Array, from: number, target: Float64Array, to: number, count: number): void {
  let double = 0;
  for (const last = count - 4; double <= last; double += 4) {
    const read = from + double;
    const write = to + double;
    target[write] = source[read] as number;
    target[write + 1] = source[read + 1] as number;
    target[write + 2] = source[read + 2] as number;
    target[write + 3] = source[read + 3] as number;
  }
  for (; double < count; double++) target[to + double] = source[from + double] as number;
}

/** As {@link copyDoubles}, eight words a turn. */
export function copyWords(source: Int32Array, from: number, target: Int32Array, to: number, count: number): void {
  let word = 0;
  for (const last = count - 8; word <= last; word += 8) {
    const read = from + word;
    const write = to + word;
    target[write] = source[read] as number;
    target[write + 1] = source[read + 1] as number;
    target[write + 2] = source[read + 2] as number;
    target[write + 3] = source[read + 3] as number;
    target[write + 4] = source[read + 4] as number;
    target[write + 5] = source[read + 5] as number;
    target[write + 6] = source[read + 6] as number;
    target[write + 7] = source[read + 7] as number;
  }
  for (; word < count; word++) target[to + word] = source[from + word] as number;
}

function copyBytes(source: Uint8Array, from: number, target: Uint8Array, to: number, length: number): void {
  if (length > BYTE_LOOP_MAX_BYTES) {
    target.set(source.subarray(from, from + length), to);
    return;
  }
  for (let index = 0; index < length; index++) target[to + index] = source[from + index] as number;
}
