/**
 * A thin seam over usearch: one approximate index per shard and collection, keyed by row.
 *
 * Invariant: every native call goes through `native` (heartbeat, and nobody terminates the thread meanwhile) and uses one
 * thread. usearch sees private copies of vectors, never shared memory; for cosine of length 1, as its own norms overflow or
 * vanish in float32. Its distances are not used: callers score the candidates again from the stored vectors.
 * Known of usearch 2.25: expansions are fixed at construction, but a search uses max(expansion, wanted), so asking for more
 * candidates raises it; adding a key twice throws; removed keys leave the results at once and their nodes are reused. Its table of
 * keys has 1.5 slots for each key of its capacity, rounded up to a power of two, and a slot that was used once never counts as
 * empty again until the table grows: without an empty slot, looking for a key that is not there does not end. Hence `worn`.
 */
import { Index, MetricKind, ScalarKind } from "usearch";
import type { ResolvedVectorOptions } from "./vector-options.ts";

/** Most rows of one `add`, and so the longest native call: about 16 insertions. */
export const INDEX_BATCH_ROWS = 16;

const METRIC_KINDS = { l2: MetricKind.L2sq, cosine: MetricKind.Cos, "inner-product": MetricKind.IP } as const;

export class VectorIndex {
  /** Vectors for the next `add`, to be filled by the caller. Shape: `Float32Array[INDEX_BATCH_ROWS * dimensions]`. */
  readonly staging: Float32Array;
  /** Candidates of the last search, best first. */
  rows: Int32Array = new Int32Array(64);
  readonly #index: Index;
  readonly #native: <T>(call: () => T) => T;
  readonly #dimensions: number;
  readonly #normalises: boolean;
  readonly #query: Float32Array;
  readonly #key: BigUint64Array = new BigUint64Array(1);
  #size = 0;
  /** Slots of the table of keys, and the most of them that can have been used since it last grew. */
  #slots = 0;
  #used = 0;

  constructor(options: ResolvedVectorOptions, native: <T>(call: () => T) => T) {
    this.#native = native;
    this.#dimensions = options.dimensions;
    this.#normalises = options.metric === "cosine";
    this.#query = new Float32Array(options.dimensions);
    this.staging = new Float32Array(INDEX_BATCH_ROWS * options.dimensions);
    this.#index = native(
      () =>
        new Index({
          dimensions: options.dimensions,
          metric: METRIC_KINDS[options.metric],
          quantization: options.quantization === "f16" ? ScalarKind.F16 : ScalarKind.F32,
          connectivity: options.connectivity,
          expansion_add: options.expansionAdd,
          expansion_search: options.expansionSearch,
          multi: false,
        }),
    );
  }

  /** Rows in the index. */
  get size(): number {
    return this.#size;
  }

  /** Whether another batch could use the last empty slot of the table of keys: the index has to be built anew first. */
  get worn(): boolean {
    return this.#slots > 0 && this.#used + INDEX_BATCH_ROWS >= this.#slots;
  }

  /** Adds `count` rows whose vectors are in `staging`. None of them may be in the index. */
  add(rows: ArrayLike<number>, count: number): void {
    const keys = BigUint64Array.from({ length: count }, (_, index) => BigInt(rows[index] as number));
    if (this.#normalises)
      for (let at = 0; at < count; at++) normalise(this.staging, at * this.#dimensions, this.#dimensions);
    const vectors = this.staging.subarray(0, count * this.#dimensions);
    this.#native(() => this.#index.add(keys, vectors, 1));
    this.#size += count;
    this.#used += count;
    const slots = 2 ** Math.ceil(Math.log2(1.5 * Number(this.#index.capacity())));
    if (slots === this.#slots) return;
    this.#slots = slots;
    this.#used = this.#size;
  }

  remove(row: number): void {
    this.#key[0] = BigInt(row);
    this.#native(() => this.#index.remove(this.#key));
    this.#size--;
  }

  /** Finds about `wanted` nearest rows. @returns How many are in `rows`. */
  search(query: Float32Array, wanted: number): number {
    const limit = Math.min(wanted, this.#size);
    if (limit === 0) return 0;
    this.#query.set(query);
    if (this.#normalises) normalise(this.#query, 0, this.#dimensions);
    const { keys } = this.#native(() => this.#index.search(this.#query, limit, 1));
    const words = new Uint32Array(keys.buffer, keys.byteOffset, keys.length * 2); // low words: rows are int32
    if (this.rows.length < keys.length) this.rows = new Int32Array(keys.length * 2);
    for (let i = 0; i < keys.length; i++) this.rows[i] = words[i * 2] as number;
    return keys.length;
  }
}

/** Scales a vector to length 1; a zero vector stays. In float64, where no square of a float32 overflows or vanishes. */
function normalise(vectors: Float32Array, from: number, dimensions: number): void {
  let sum = 0;
  for (let at = from; at < from + dimensions; at++) sum += (vectors[at] as number) ** 2;
  if (sum === 0) return;
  const norm = Math.sqrt(sum);
  for (let at = from; at < from + dimensions; at++) vectors[at] = (vectors[at] as number) / norm;
}
