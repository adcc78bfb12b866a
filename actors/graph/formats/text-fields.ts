/**
 * The fields of one line, as ranges of its bytes: split at blanks or as CSV, and read as keys and weights.
 *
 * Invariant: splitting allocates nothing, and a field becomes a string only if it is no canonical integer and no short decimal.
 * Source: RFC 4180 for CSV. **Divergence**: a quoted field ends in its line, and a field may hold quotes that it does not begin with.
 * A short decimal is exact: its digits, as a whole number below 2^53, over a power of ten below 10^22 (Clinger, "How to Read Floating
 * Point Numbers Accurately", PLDI 1990).
 */
import { MAX_ID_BYTES } from "../../../src/store/id-codec.ts";
import type { VertexKey } from "../vertex-key.ts";
import { graphTextError } from "./graph-text-error.ts";

/** Most fields of one line. */
export const MAX_FIELDS = 1024;

/** Which texts are keys: canonical integers only, all as strings, or integers where they are canonical and strings where not. */
export type KeyKind = "integer" | "string" | "auto";

const SPACE = 0x20;
const TAB = 0x09;
const COMMA = 0x2c;
const QUOTE = 0x22;
const ZERO = 0x30;
const NINE = 0x39;
const MINUS = 0x2d;
const PLUS = 0x2b;
const POINT = 0x2e;
/** Digits whose value is below 2^53 whatever they are. */
const EXACT_DIGITS = 15;
const POWERS_OF_TEN = Array.from({ length: EXACT_DIGITS + 1 }, (_, power) => 10 ** power);
const NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;
const NOT_FINITE = /^[+-]?(?:nan|inf|infinity)$/i;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const LATIN = new TextDecoder("latin1");

export class TextFields {
  readonly #file: string;
  /** Fields of the current line. */
  count = 0;
  line = 0;
  #bytes: Uint8Array = new Uint8Array(0);
  readonly #starts = new Int32Array(MAX_FIELDS);
  readonly #ends = new Int32Array(MAX_FIELDS);
  /** 1 for a field with doubled quotes in it. */
  readonly #doubled = new Uint8Array(MAX_FIELDS);

  constructor(file: string) {
    this.#file = file;
  }

  /** Splits at runs of spaces and tabs; a blank line has no fields. */
  splitBlanks(bytes: Uint8Array, start: number, end: number, line: number): void {
    this.#begin(bytes, line);
    let at = start;
    for (;;) {
      while (at < end && (bytes[at] === SPACE || bytes[at] === TAB)) at++;
      if (at >= end) return;
      const first = at;
      while (at < end && bytes[at] !== SPACE && bytes[at] !== TAB) at++;
      this.#push(first, at, 0);
    }
  }

  /** Splits at commas outside quotes; an empty line has no fields. Blanks around a field are not part of it, unless it is quoted. */
  splitCommas(bytes: Uint8Array, start: number, end: number, line: number): void {
    this.#begin(bytes, line);
    let at = skipBlanks(bytes, start, end);
    if (at === end) return;
    for (;;) {
      at = skipBlanks(bytes, at, end);
      at = bytes[at] === QUOTE && at < end ? this.#quoted(at, end) : this.#plain(at, end);
      if (at >= end) return;
      at++;
    }
  }

  /** The first byte of the first field. */
  get firstByte(): number {
    return this.#bytes[this.#starts[0] as number] as number;
  }

  text(index: number): string {
    const text = this.#decode(index);
    return this.#doubled[index] === 1 ? text.replaceAll('""', '"') : text;
  }

  /** @throws {ShardloomError} `ERR_CORRUPT` if the field can be no key */
  key(index: number, kind: KeyKind, name: string): VertexKey {
    const start = this.#starts[index] as number;
    const end = this.#ends[index] as number;
    const integer = kind === "string" ? -1 : integerOf(this.#bytes, start, end);
    if (integer >= 0) return integer;
    if (kind === "integer") throw this.error(index, name, "a safe integer ≥ 0 without leading zeros");
    const text = this.text(index);
    // A character is at most three bytes for each of its UTF-16 units.
    const isShort = text.length * 3 <= MAX_ID_BYTES || Buffer.byteLength(text) <= MAX_ID_BYTES;
    if (text.length === 0 || !isShort) throw this.error(index, name, `1 to ${MAX_ID_BYTES} bytes`);
    return text;
  }

  /** @throws {ShardloomError} `ERR_CORRUPT` for no number, `ERR_NOT_FINITE` for NaN, an infinity and what is too large for f64 */
  weight(index: number): number {
    const start = this.#starts[index] as number;
    const end = this.#ends[index] as number;
    const short = shortDecimalOf(this.#bytes, start, end);
    if (!Number.isNaN(short)) return short;
    const text = this.text(index);
    const value = NUMBER.test(text) ? Number(text) : Number.NaN;
    if (Number.isFinite(value)) return value;
    const code = NUMBER.test(text) || NOT_FINITE.test(text) ? "ERR_NOT_FINITE" : "ERR_CORRUPT";
    throw graphTextError(code, this.#file, this.line, "weight", "a finite number", text);
  }

  error(index: number, name: string, rule: string): Error {
    return graphTextError("ERR_CORRUPT", this.#file, this.line, name, rule, this.text(index));
  }

  #begin(bytes: Uint8Array, line: number): void {
    this.#bytes = bytes;
    this.line = line;
    this.count = 0;
  }

  #push(start: number, end: number, doubled: number): void {
    const index = this.count;
    if (index === MAX_FIELDS) {
      const rule = `at most ${MAX_FIELDS}`;
      throw graphTextError("ERR_CORRUPT", this.#file, this.line, "number of fields", rule, `more than ${MAX_FIELDS}`);
    }
    this.#starts[index] = start;
    this.#ends[index] = end;
    this.#doubled[index] = doubled;
    this.count = index + 1;
  }

  /** @returns Where the field's comma is, or the end. */
  #plain(start: number, end: number): number {
    let at = start;
    while (at < end && this.#bytes[at] !== COMMA) at++;
    let last = at;
    while (last > start && isBlank(this.#bytes[last - 1])) last--;
    this.#push(start, last, 0);
    return at;
  }

  #quoted(start: number, end: number): number {
    const bytes = this.#bytes;
    let doubled = 0;
    let at = start + 1;
    for (; ; at++) {
      if (at >= end) throw this.#badQuote("closed in its line", start, end);
      if (bytes[at] !== QUOTE) continue;
      if (at + 1 >= end || bytes[at + 1] !== QUOTE) break;
      doubled = 1;
      at++;
    }
    this.#push(start + 1, at, doubled);
    const after = skipBlanks(bytes, at + 1, end);
    if (after < end && bytes[after] !== COMMA) throw this.#badQuote("followed by a comma", start, end);
    return after;
  }

  #badQuote(rule: string, start: number, end: number): Error {
    const text = LATIN.decode(this.#bytes.slice(start, Math.min(end, start + 80)));
    return graphTextError("ERR_CORRUPT", this.#file, this.line, "a quoted field", rule, text);
  }

  #decode(index: number): string {
    const start = this.#starts[index] as number;
    const end = this.#ends[index] as number;
    const bytes = this.#bytes;
    let at = start;
    while (at < end && (bytes[at] as number) < 0x80) at++;
    if (at === end && end - start <= 32) {
      let text = "";
      for (let i = start; i < end; i++) text += String.fromCharCode(bytes[i] as number);
      return text;
    }
    const field = bytes.subarray(start, end);
    try {
      return UTF8.decode(field);
    } catch {
      // The decoder says only that it failed; the text says more.
      throw graphTextError("ERR_CORRUPT", this.#file, this.line, "a field", "UTF-8", LATIN.decode(field));
    }
  }
}

function isBlank(byte: number | undefined): boolean {
  return byte === SPACE || byte === TAB;
}

function skipBlanks(bytes: Uint8Array, start: number, end: number): number {
  let at = start;
  while (at < end && isBlank(bytes[at])) at++;
  return at;
}

/** The value of a canonical decimal safe integer ≥ 0, or -1. */
function integerOf(bytes: Uint8Array, start: number, end: number): number {
  const digits = end - start;
  if (digits === 0 || digits > 16 || (digits > 1 && bytes[start] === ZERO)) return -1;
  let value = 0;
  for (let at = start; at < end; at++) {
    const byte = bytes[at] as number;
    if (byte < ZERO || byte > NINE) return -1;
    value = value * 10 + (byte - ZERO);
  }
  return value <= Number.MAX_SAFE_INTEGER ? value : -1;
}

/** The value of a decimal of at most {@link EXACT_DIGITS} digits without an exponent, or NaN. */
function shortDecimalOf(bytes: Uint8Array, start: number, end: number): number {
  const sign = bytes[start];
  let at = end > start && (sign === MINUS || sign === PLUS) ? start + 1 : start;
  if (end - at > EXACT_DIGITS + 1) return Number.NaN;
  let value = 0;
  let digits = 0;
  let fraction = -1;
  for (; at < end; at++) {
    const byte = bytes[at] as number;
    if (byte === POINT && fraction < 0) {
      fraction = digits;
      continue;
    }
    if (byte < ZERO || byte > NINE) return Number.NaN;
    value = value * 10 + (byte - ZERO);
    digits++;
  }
  if (digits === 0 || digits > EXACT_DIGITS) return Number.NaN;
  if (fraction >= 0) value /= POWERS_OF_TEN[digits - fraction] as number;
  return sign === MINUS ? -value : value;
}
