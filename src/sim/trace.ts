/**
 * What happened in a world, folded into a hash and, where that is asked for, kept.
 *
 * Invariant: the hash depends on every event's time, kind, place and detail and on their order; the kept part does not change it.
 * Not for secrets: two 32-bit lanes, mixed as in MurmurHash3's finaliser.
 */
import type { TraceEvent } from "./world-types.ts";

const PRIME_1 = 0x85ebca6b | 0;
const PRIME_2 = 0xc2b2ae35 | 0;
const U32 = 2 ** 32;

/** FNV-1a over UTF-16 units. */
export function hashText(text: string): number {
  let hash = 0x811c9dc5 | 0;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash;
}

/** The trace of one run. */
export class Trace {
  readonly #words: Map<string, number> = new Map();
  readonly #kept: TraceEvent[] = [];
  readonly #limit: number;
  #first = 0;
  #low = 0x9e3779b9 | 0;
  #high = 0x7f4a7c15 | 0;

  /** @param limit How many of the last recorded events are kept. */
  constructor(limit = 0) {
    this.#limit = limit;
  }

  /** A number for a word that comes again and again. */
  word(text: string): number {
    let hash = this.#words.get(text);
    if (hash === undefined) {
      hash = hashText(text);
      this.#words.set(text, hash);
    }
    return hash;
  }

  /** Folds an event whose words are numbers already. Cost: no allocation. */
  fold(timeUs: number, kind: number, where: number, detail: number): void {
    this.#mix(timeUs | 0);
    this.#mix((timeUs / U32) | 0);
    this.#mix(kind);
    this.#mix(where);
    this.#mix(detail);
  }

  /** Folds an event, and keeps it. */
  record(timeUs: number, kind: string, where: string, detail?: string | number): void {
    const number = typeof detail === "string" ? hashText(detail) : detail === undefined ? 0 : hashNumber(detail);
    this.fold(timeUs, this.word(kind), this.word(where), number);
    if (this.#limit === 0) return;
    const event = detail === undefined ? { timeUs, kind, where } : { timeUs, kind, where, detail };
    if (this.#kept.length < this.#limit) this.#kept.push(event);
    else {
      this.#kept[this.#first] = event;
      this.#first = (this.#first + 1) % this.#limit;
    }
  }

  /** 16 hexadecimal digits. */
  get hash(): string {
    return hex(this.#high) + hex(this.#low);
  }

  /** The recorded events that were kept, in order. */
  kept(): readonly TraceEvent[] {
    return [...this.#kept.slice(this.#first), ...this.#kept.slice(0, this.#first)];
  }

  #mix(value: number): void {
    let low = Math.imul(this.#low ^ value, PRIME_1);
    low ^= low >>> 15;
    let high = Math.imul(this.#high + low, PRIME_2);
    high ^= high >>> 13;
    this.#low = (low + high) | 0;
    this.#high = high;
  }
}

/** Both halves of a float64, so that a fraction counts. */
function hashNumber(value: number): number {
  if (Number.isInteger(value)) return (value | 0) ^ ((value / U32) | 0);
  NUMBER[0] = value;
  return (HALVES[0] as number) ^ (HALVES[1] as number);
}

const NUMBER: Float64Array = new Float64Array(1);
const HALVES: Int32Array = new Int32Array(NUMBER.buffer);

function hex(value: number): string {
  return (value >>> 0).toString(16).padStart(8, "0");
}
