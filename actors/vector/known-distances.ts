/**
 * When the distance of a vertex's code is the score of its document, so that the document's vector need not be read; and when it is no more.
 *
 * Invariant: a score that is taken from a code is the one that the row would give, bit for bit: codes are the vectors' own bytes, the metric is l2, and
 * the sum is a whole number that f32 holds, whatever the order it was summed in. The code is that of the row's version (graph-layout.ts), and what was
 * compared was that code: a slot that was freed meanwhile is not taken again for {@link GRACE_MS}, so a search that took less met nothing else there.
 */
import { GRACE_MS } from "./graph/graph-deletions.ts";
import { isExactCode, type ResolvedVectorOptions } from "./vector-options.ts";

/** Sums below are whole numbers of 24 bits, and so is each of their parts. */
const MOST_EXACT = 2 ** 24;
/** Of the grace time, for what clocks and the time between reading them differ by. */
const SHARE = 0.5;
/** By how much a score may be more than the distance of a code that is the same vector: by cosine vertices do not tell their versions. */
const SLACK = { l2: 0, "inner-product": 0, cosine: 2 ** -10 } as const;

export class KnownDistances {
  readonly #areVectors: boolean;
  readonly #slack: number;
  readonly #nowMs: (() => number) | undefined;
  #isOn = false;
  /** Documents that were read, and those among them that have moved away. */
  #read = 0;
  #moved = 0;

  /** @param nowMs @default nothing is known */
  constructor(options: ResolvedVectorOptions, nowMs: (() => number) | undefined) {
    const { metric, quantization } = options;
    this.#slack = isExactCode(options) ? SLACK[metric] : Number.POSITIVE_INFINITY;
    this.#areVectors = metric === "l2" && (quantization === "u8" || quantization === "i8");
    this.#nowMs = nowMs;
  }

  /** When distances are beginning to be computed. */
  now(): number {
    return this.#nowMs?.() ?? 0;
  }

  /** Reads documents, and again by their rows alone when that took too long. @param beganMs As {@link now} told it */
  whileGood<T>(beganMs: number, read: () => T): T {
    this.#isOn = this.#areVectors && this.#nowMs !== undefined;
    const result = read();
    if (!this.#isOn || this.now() - beganMs < SHARE * GRACE_MS) return result;
    this.stop();
    return read();
  }

  /** From here on every row is read. */
  stop(): void {
    this.#isOn = false;
  }

  /** Whether some are taken. */
  get areOn(): boolean {
    return this.#isOn;
  }

  /** Whether a code's distance is the score of a row of its version. */
  has(version: number, distance: number): boolean {
    return this.#isOn && version !== 0 && distance < MOST_EXACT;
  }

  /** From here on documents are counted. */
  begin(): void {
    this.#read = this.#moved = 0;
  }

  /** Whether a row lies farther away than its vertex, as it has another vector by now. @param isSame Whether it is of the version that the vertex tells */
  hasMoved(isSame: boolean, score: number, distance: number): boolean {
    const hasMoved = !isSame && score > distance + this.#slack;
    this.#read++;
    if (hasMoved) this.#moved++;
    return hasMoved;
  }

  /** Whether so many of the nearest vertices' documents have moved away that others, which were not read, may be nearer than those are now. */
  hideOthers(wanted: number): boolean {
    return this.#moved > 0 && this.#read - this.#moved < wanted;
  }
}
