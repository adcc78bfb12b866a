/**
 * How the vectors of a collection are written into the vertices of its graph: as they are, or in fewer bytes.
 *
 * f16: components to 2^-11 of themselves, for cosine those of the vector of length 1. i8: whole numbers from −128 to 127 as they are; for cosine any
 * vector, its largest component as 127, since cosine does not mind a vector's length. b1: signs, for cosine alone.
 * Invariant: a code depends on its vector alone, so equal codes of an exact kind are equal vectors. Where codes are not exact, more candidates are
 * ranked again by their documents' vectors; see {@link rankedAgain}.
 * Divergence: no range and no mean is learnt, as the codes of other shards, and of a collection that was read from disk, would have to follow.
 */
import { ELEMENT, type ElementCode } from "../../../native-bridge/kernels.ts";
import type { GraphShape } from "../../../src/store/graph-layout.ts";
import { fromHalf, MAX_HALF, toHalf } from "../codes/half.ts";
import {
  firstBeyondByte,
  firstBeyondSignedByte,
  isExactCode,
  metricCode,
  type QuantizationName,
  type ResolvedVectorOptions,
} from "../vector-options.ts";

const ELEMENTS: Readonly<Record<QuantizationName, ElementCode>> = {
  f32: ELEMENT.F32,
  f16: ELEMENT.F16,
  u8: ELEMENT.U8,
  i8: ELEMENT.I8,
  b1: ELEMENT.B1,
};
/**
 * Candidates for each wanted hit that are worth an exact distance. Measured, 20,000 vectors, k = 10: candidates that hold 99 % of the true ten, for each
 * metric of clusters (64 and 128 dimensions), one Gaussian (96), a flat one (256 dimensions, 40 of them strong) and MNIST: f16 10, i8 10 to 13.
 * b1: 180 of clusters of 128 dimensions, 266 of MNIST, thousands of data with fewer dimensions or no structure.
 */
const OVER_FETCH: Readonly<Record<QuantizationName, number>> = { f32: 1, f16: 1.2, u8: 1, i8: 1.5, b1: 20 };
const LARGEST = 127;

/** The shape of the graph over a collection. */
export function graphShapeOf(options: ResolvedVectorOptions): GraphShape {
  const { dimensions, metric, quantization, connectivity } = options;
  // The lowest level of the usual graph of that connectivity has as many.
  const degree = 2 * connectivity;
  return {
    ...{ dimensions, degree, metric: metricCode(metric) },
    element: ELEMENTS[quantization],
    codeBytes: codeBytesOf(options),
  };
}

/** Candidates that are ranked again by their documents' vectors, for so many hits. */
export function rankedAgain(options: ResolvedVectorOptions, k: number): number {
  return isExactCode(options) ? k : Math.ceil(OVER_FETCH[options.quantization] * k);
}

function codeBytesOf({ dimensions, quantization }: ResolvedVectorOptions): number {
  if (quantization === "b1") return (dimensions + 7) >>> 3;
  return dimensions * (quantization === "f32" ? 4 : quantization === "f16" ? 2 : 1);
}

/** Writes codes of one collection into a buffer of its own. */
export class GraphCode {
  /** The last code. */
  readonly bytes: Uint8Array;
  /** By cosine: 1 / its length, where the vector's own is another; 0: it has none. */
  inverseNorm = 0;
  readonly #floats: Float32Array | undefined;
  readonly #options: ResolvedVectorOptions;

  constructor(options: ResolvedVectorOptions) {
    this.#options = options;
    this.#floats = options.quantization === "f32" ? new Float32Array(options.dimensions) : undefined;
    this.bytes = new Uint8Array(this.#floats?.buffer ?? new ArrayBuffer(codeBytesOf(options)));
  }

  /** The last code, by its components, where codes are exact and leaves are learnt from them. */
  get components(): Float32Array | Uint8Array {
    return this.#floats ?? this.bytes;
  }

  /** @returns whether the vector has a code: with bytes only whole numbers in their range do, with f16 only what that can hold */
  encode(vector: Float32Array): boolean {
    switch (this.#options.quantization) {
      case "f32":
        this.#floats?.set(vector);
        return true;
      case "u8":
        if (firstBeyondByte(vector) >= 0) return false;
        this.bytes.set(vector);
        return true;
      case "f16":
        return this.#encodeHalves(vector);
      case "i8":
        return this.#encodeSigned(vector);
      case "b1":
        this.#encodeSigns(vector);
        return true;
    }
  }

  #encodeHalves(vector: Float32Array): boolean {
    const isCosine = this.#options.metric === "cosine";
    const factor = isCosine ? inverseLength(vector) : 1;
    let sum = 0;
    for (let at = 0; at < vector.length; at++) {
      const value = (vector[at] as number) * factor;
      if (Math.abs(value) > MAX_HALF) return false;
      const half = toHalf(value);
      this.bytes[2 * at] = half;
      this.bytes[2 * at + 1] = half >>> 8;
      if (isCosine) sum += fromHalf(half) ** 2;
    }
    this.inverseNorm = sum > 0 ? 1 / Math.sqrt(sum) : 0;
    return true;
  }

  #encodeSigned(vector: Float32Array): boolean {
    if (this.#options.metric !== "cosine") {
      if (firstBeyondSignedByte(vector) >= 0) return false;
      this.bytes.set(vector);
      return true;
    }
    let largest = 0;
    for (let at = 0; at < vector.length; at++) largest = Math.max(largest, Math.abs(vector[at] as number));
    let sum = 0;
    for (let at = 0; at < vector.length; at++) {
      const code = largest === 0 ? 0 : Math.round(((vector[at] as number) / largest) * LARGEST);
      this.bytes[at] = code;
      sum += code * code;
    }
    this.inverseNorm = sum > 0 ? 1 / Math.sqrt(sum) : 0;
    return true;
  }

  #encodeSigns(vector: Float32Array): void {
    this.bytes.fill(0);
    for (let at = 0; at < vector.length; at++)
      if ((vector[at] as number) > 0) this.bytes[at >>> 3] = (this.bytes[at >>> 3] as number) | (1 << (at & 7));
    this.inverseNorm = 1 / Math.sqrt(vector.length);
  }
}

/** 1 / |vector|, 1 for the zero vector. Components may be so large that their squares are no float32. */
function inverseLength(vector: Float32Array): number {
  let sum = 0;
  for (let at = 0; at < vector.length; at++) sum += (vector[at] as number) ** 2;
  return sum === 0 ? 1 : 1 / Math.sqrt(sum);
}
