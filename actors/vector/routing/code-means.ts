/**
 * Means of codes: sums in f64, given back as a code of the same kind.
 *
 * Invariant: for l2 and inner product a mean minimises the sum of squared distances of what was added; for cosine each code counts
 * by its direction only, and the mean's length means nothing. A group to which nothing was added has no mean.
 */
import { ELEMENT, METRIC } from "../../../native-bridge/kernels.ts";
import { type Code, type CodeSpace, newCode } from "./code-table.ts";

const LARGEST_BYTE = 255;

export class CodeMeans {
  readonly #space: CodeSpace;
  readonly #sums: Float64Array;
  readonly #counts: Int32Array;
  readonly #mean: Code;

  constructor(space: CodeSpace, groups: number) {
    this.#space = space;
    this.#sums = new Float64Array(groups * space.dimensions);
    this.#counts = new Int32Array(groups);
    this.#mean = newCode(space);
  }

  clear(): void {
    this.#sums.fill(0);
    this.#counts.fill(0);
  }

  count(group: number): number {
    return this.#counts[group] as number;
  }

  /** @param weight How often the code counts. @default 1 */
  add(group: number, code: Code, weight = 1): void {
    const { dimensions, metric } = this.#space;
    const sums = this.#sums;
    const at = group * dimensions;
    const scale = metric === METRIC.COSINE ? weight * inverseLength(code) : weight;
    for (let i = 0; i < dimensions; i++) sums[at + i] = (sums[at + i] as number) + scale * (code[i] as number);
    this.#counts[group] = (this.#counts[group] as number) + weight;
  }

  /** The mean of a group that is not empty; the view is valid until the next call. */
  mean(group: number): Code {
    const { dimensions, element, metric } = this.#space;
    const sums = this.#sums;
    const mean = this.#mean;
    const at = group * dimensions;
    let scale = 1 / (this.#counts[group] as number);
    if (metric === METRIC.COSINE && element === ELEMENT.U8) {
      // Directions of bytes have no scale: the whole range is used, so that rounding costs least.
      let largest = 0;
      for (let i = 0; i < dimensions; i++) largest = Math.max(largest, sums[at + i] as number);
      scale = largest > 0 ? LARGEST_BYTE / largest : 0;
    }
    for (let i = 0; i < dimensions; i++) {
      const value = (sums[at + i] as number) * scale;
      mean[i] = element === ELEMENT.U8 ? Math.round(value) : value;
    }
    return mean;
  }
}

function inverseLength(code: Code): number {
  let sum = 0;
  for (let i = 0; i < code.length; i++) sum += (code[i] as number) ** 2;
  return sum > 0 ? 1 / Math.sqrt(sum) : 0;
}
