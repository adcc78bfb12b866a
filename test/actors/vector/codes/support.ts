/** Clustered vectors, and a scan of their codes as an index does it: distances of codes first, exact distances of the best after. */
import { createCode, learnCode } from "../../../../actors/vector/codes/code-choice.ts";
import { candidatesFor, rerank } from "../../../../actors/vector/codes/rerank.ts";
import type { CodeName, VectorCode } from "../../../../actors/vector/codes/vector-code.ts";
import { compileKernels, Kernels, type MetricCode } from "../../../../native-bridge/kernels.ts";
import { plainDistance } from "../../../native-bridge/kernels-support.ts";

/** mulberry32 */
export function random(seed: number): () => number {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function gaussian(next: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
}

/** Vectors around 40 centres. */
export function clustered(count: number, dimensions: number, next: () => number, spread = 0.5): Float32Array[] {
  const centres = Array.from({ length: 40 }, () => Float32Array.from({ length: dimensions }, () => gaussian(next)));
  return Array.from({ length: count }, () =>
    (centres[Math.floor(next() * 40)] as Float32Array).map((x) => x + spread * gaussian(next)),
  );
}

export interface Coded {
  readonly code: VectorCode;
  /** Distances of the codes of all vectors to the query's. */
  distancesTo(query: Float32Array): Float64Array;
  /** Hits of a search that ranks its candidates again. */
  search(query: Float32Array, k: number): number[];
}

/** Encodes vectors into records of an arena of their own. */
export function encodeAll(name: CodeName | "auto", metric: MetricCode, vectors: readonly Float32Array[]): Coded {
  const dimensions = (vectors[0] as Float32Array).length;
  const code = createCode(learnCode(name, dimensions, metric, vectors.slice(0, 1000)));
  const stride = (32 + code.bytesPerVector + 15) & ~15;
  const pages = Math.ceil((vectors.length * (stride + 16) + 4 * dimensions) / 65_536) + 4;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  let end = 64;
  const allocate = (byteLength: number): number => {
    const at = end;
    end += (byteLength + 63) & ~63;
    return at;
  };
  const kernels = new Kernels(compileKernels(), { memory, allocate, free: () => undefined }, 1024);
  const bytes = new Uint8Array(memory.buffer);
  const f32 = new Float32Array(memory.buffer);
  const ids = allocate(vectors.length * 4);
  new Int32Array(memory.buffer, ids, vectors.length).forEach((_, i, all) => {
    all[i] = i;
  });
  const [out, queryAt, base] = [allocate(vectors.length * 8), allocate(code.bytesPerQuery), end];
  vectors.forEach((vector, i) => {
    const record = base + i * stride;
    code.encode(vector, bytes, record + 32);
    f32[(record + 28) >> 2] = kernels.inverseNorm(code.element, record + 32, dimensions);
  });
  const distancesTo = (query: Float32Array): Float64Array => {
    code.encodeQuery(query, bytes, queryAt);
    const norm = kernels.inverseNorm(code.searchElement, queryAt, dimensions);
    const args = [metric, code.searchElement, dimensions, queryAt, norm] as const;
    kernels.distances(...args, base, stride, 32, ids, vectors.length, out);
    return new Float64Array(memory.buffer.slice(out, out + vectors.length * 8));
  };
  return {
    code,
    distancesTo,
    search(query, k) {
      const distances = distancesTo(query);
      const order = Array.from(distances.keys()).sort(
        (a, b) => (distances[a] as number) - (distances[b] as number) || a - b,
      );
      const candidates = order.slice(0, candidatesFor(code, k)).map((id) => ({ id }));
      const exact = ({ id }: { id: number }): number => plainDistance(metric, query, vectors[id] as Float32Array);
      return rerank(candidates, k, exact).map(({ candidate }) => candidate.id);
    },
  };
}

/** Share of the true k nearest among the answers. */
export function recall(
  coded: Coded,
  metric: MetricCode,
  vectors: readonly Float32Array[],
  queries: readonly Float32Array[],
  k: number,
): number {
  let found = 0;
  for (const query of queries) {
    const exact = vectors.map((vector) => plainDistance(metric, query, vector));
    const order = Array.from(exact.keys()).sort((a, b) => (exact[a] as number) - (exact[b] as number) || a - b);
    const truth = new Set(order.slice(0, k));
    found += coded.search(query, k).filter((id) => truth.has(id)).length;
  }
  return found / (queries.length * k);
}
