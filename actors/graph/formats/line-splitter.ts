/**
 * Cuts blocks of bytes into lines, in place: a line that lies within one block is not copied.
 *
 * Invariant: what lines are given depends on the bytes only, not on how they are cut into blocks. Lines end with a line feed, with a
 * carriage return before it or not, or with the file; a byte order mark at the start is not part of the first line. At most one line of
 * {@link MAX_LINE_BYTES} is held.
 */
import { graphTextError } from "./graph-text-error.ts";

/** Longest line in bytes. */
export const MAX_LINE_BYTES: number = 1024 * 1024;

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf] as const;

/** Takes `bytes[start, end)`, which is valid during the call only. `line` counts from 1. */
export type LineSink = (bytes: Uint8Array, start: number, end: number, line: number) => void;

export class LineSplitter {
  readonly #file: string;
  readonly #sink: LineSink;
  #line = 0;
  /** The beginning of a line whose end has not come: `#held[0, #heldBytes)`. */
  #held: Uint8Array = new Uint8Array(256);
  #heldBytes = 0;

  constructor(file: string, sink: LineSink) {
    this.#file = file;
    this.#sink = sink;
  }

  /** Gives every line that ends in this block. @throws {ShardloomError} `ERR_RECORD_TOO_LARGE`, and what the sink throws */
  push(block: Uint8Array): void {
    let start = 0;
    const { length } = block;
    for (let at = 0; at < length; at++) {
      if (block[at] !== LINE_FEED) continue;
      if (this.#heldBytes === 0) {
        this.#give(block, start, at);
      } else {
        this.#hold(block, start, at);
        this.#giveHeld();
      }
      start = at + 1;
    }
    if (start < length) this.#hold(block, start, length);
  }

  /** Gives the last line, if no line feed ended it. */
  end(): void {
    if (this.#heldBytes > 0) this.#giveHeld();
  }

  #giveHeld(): void {
    const length = this.#heldBytes;
    this.#heldBytes = 0;
    this.#give(this.#held, 0, length);
  }

  #give(bytes: Uint8Array, start: number, end: number): void {
    const line = ++this.#line;
    if (end - start > MAX_LINE_BYTES) throw this.#tooLong(line, end - start);
    let first = start;
    if (line === 1 && BYTE_ORDER_MARK.every((byte, index) => start + index < end && bytes[start + index] === byte)) {
      first += BYTE_ORDER_MARK.length;
    }
    const last = end > first && bytes[end - 1] === CARRIAGE_RETURN ? end - 1 : end;
    this.#sink(bytes, first, last, line);
  }

  #hold(bytes: Uint8Array, start: number, end: number): void {
    const needed = this.#heldBytes + end - start;
    if (needed > MAX_LINE_BYTES) throw this.#tooLong(this.#line + 1, needed);
    if (needed > this.#held.length) {
      const grown = new Uint8Array(Math.max(needed, this.#held.length * 2));
      grown.set(this.#held.subarray(0, this.#heldBytes));
      this.#held = grown;
    }
    this.#held.set(bytes.subarray(start, end), this.#heldBytes);
    this.#heldBytes = needed;
  }

  #tooLong(line: number, length: number): Error {
    return graphTextError(
      "ERR_RECORD_TOO_LARGE",
      this.#file,
      line,
      "a line",
      `at most ${MAX_LINE_BYTES} bytes`,
      length,
    );
  }
}
