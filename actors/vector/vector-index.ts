/**
 * A thin seam over usearch: one approximate index per shard and collection, over rows.
 *
 * Invariant: each row that is in the index has a key there, and each key at most one row. Keys are the index's own and count up from 0, as it can
 * be saved and then be loaded by a shard whose documents lie in other rows. Every native call goes through `native` (heartbeat, and nobody
 * terminates the thread meanwhile) and uses one thread. usearch sees private copies of vectors, never shared memory; for cosine of length 1, as
 * its own norms overflow or vanish in float32. Its distances are not used: callers score the candidates again from the stored vectors.
 *
 * Nothing is removed from usearch 2.25: it would link the next vector into the node of the removed one, whose old neighbours go on leading
 * there, until some nodes cannot be reached any more; and its table of keys would fill up with slots that
 * were used once, until looking for a key that is not there does not end. A removed row leaves its vector behind as a way to others, which
 * searches ask for in addition and leave out. Hence `worn`. Also known of it: expansions are fixed at construction, but a search uses
 * max(expansion, wanted), so asking for more candidates raises it; adding a key twice throws.
 */
import { Index, MetricKind, ScalarKind } from "usearch";
import type { ResolvedVectorOptions } from "./vector-options.ts";

/** Vectors that may stay without a row, however few have one. */
const LEAST_WORN = 256;

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
  /** By row, −1 = not in the index; and by key, −1 = removed. */
  #keyOf: Int32Array = new Int32Array(256).fill(-1);
  #rowOf: Int32Array = new Int32Array(256).fill(-1);
  /** Vectors that usearch holds: their keys are below this. */
  #keys = 0;
  /** Grows with every change. */
  changes = 0;
  /** Its value when the index was last saved; −1 = never. Set by who saves. */
  savedChanges = -1;
  #size = 0;

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

  /** Whether it holds more vectors without a row than with one, and is to be built anew. */
  get worn(): boolean {
    return this.#keys - this.#size > Math.max(this.#size, LEAST_WORN);
  }

  /** Rows of the index with their keys. */
  entries(): { readonly rows: Int32Array; readonly keys: Int32Array } {
    const rows = new Int32Array(this.#size);
    const keys = new Int32Array(this.#size);
    let count = 0;
    for (let row = 0; row < this.#keyOf.length; row++) {
      const key = this.#keyOf[row] as number;
      if (key < 0) continue;
      rows[count] = row;
      keys[count++] = key;
    }
    return { rows, keys };
  }

  /**
   * Writes graph and vectors to a file. Blocks until that is done: about 1 GB/s.
   *
   * @param path Of the operating system.
   */
  save(path: string): void {
    this.#native(() => this.#index.save(path));
  }

  /**
   * Takes over what {@link save} wrote, into an index that is empty. Blocks.
   *
   * A file that is damaged can end the process: the caller has compared its checksum.
   *
   * @param keys Of the vectors in the file that had a row when it was written.
   * @param rows The row of each of these keys; −1: it has none any more.
   */
  load(path: string, keys: Int32Array, rows: Int32Array): void {
    this.#native(() => this.#index.load(path));
    const held = Number(this.#index.size());
    if (
      held < keys.length ||
      keys.some((key) => key < 0 || key >= held) ||
      this.#index.dimensions() !== this.#dimensions
    )
      throw new Error(`the file holds ${held} vectors, which are not those of ${keys.length} keys`);
    this.#keys = held;
    this.#rowOf = new Int32Array(Math.max(256, held)).fill(-1);
    for (const [at, key] of keys.entries()) {
      const row = rows[at] as number;
      if (row < 0) continue;
      this.#map(row, key);
      this.#size++;
    }
  }

  /** Adds `count` rows whose vectors are in `staging`. None of them may be in the index. */
  add(rows: ArrayLike<number>, count: number): void {
    const keys = BigUint64Array.from({ length: count }, (_, at) => BigInt(this.#keys + at));
    if (this.#normalises)
      for (let at = 0; at < count; at++) normalise(this.staging, at * this.#dimensions, this.#dimensions);
    const vectors = this.staging.subarray(0, count * this.#dimensions);
    this.#native(() => this.#index.add(keys, vectors, 1));
    for (let at = 0; at < count; at++) this.#map(rows[at] as number, this.#keys++);
    this.changes++;
    this.#size += count;
  }

  remove(row: number): void {
    const key = this.#keyOf[row] as number;
    this.#keyOf[row] = -1;
    this.#rowOf[key] = -1;
    this.changes++;
    this.#size--;
  }

  /** Finds about `wanted` nearest rows. @returns How many are in `rows`. */
  search(query: Float32Array, wanted: number): number {
    const limit = Math.min(wanted, this.#size);
    if (limit === 0) return 0;
    this.#query.set(query);
    if (this.#normalises) normalise(this.#query, 0, this.#dimensions);
    for (let asked = Math.ceil((limit * this.#keys) / this.#size); ; asked = Math.min(2 * asked, this.#keys)) {
      const { keys } = this.#native(() => this.#index.search(this.#query, asked, 1));
      const words = new Uint32Array(keys.buffer, keys.byteOffset, keys.length * 2); // low words: keys are int32
      if (this.rows.length < keys.length) this.rows = new Int32Array(keys.length * 2);
      let found = 0;
      for (let at = 0; at < keys.length; at++) {
        const row = this.#rowOf[words[at * 2] as number] as number;
        if (row >= 0) this.rows[found++] = row;
      }
      if (found >= limit || asked === this.#keys) return found;
    }
  }

  #map(row: number, key: number): void {
    if (key >= this.#rowOf.length) this.#rowOf = widened(this.#rowOf, key + 1);
    this.#rowOf[key] = row;
    if (row >= this.#keyOf.length) this.#keyOf = widened(this.#keyOf, row + 1);
    this.#keyOf[row] = key;
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

function widened(from: Int32Array, least: number): Int32Array {
  const to = new Int32Array(Math.max(least, from.length * 2)).fill(-1);
  to.set(from);
  return to;
}
