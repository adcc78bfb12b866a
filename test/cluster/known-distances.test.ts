/** Searches of bytes take the distances of codes for scores where those are the rows', and nowhere else; over real threads. */
import { afterEach, expect, it } from "vitest";
import { KnownDistances } from "../../actors/vector/known-distances.ts";
import { resolveVectorOptions } from "../../actors/vector/vector-options.ts";
import type { Cluster, VectorCollection } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { startTestCluster } from "../support/cluster.ts";

/** So many that vectors may be further apart than float32 has whole numbers. */
const DIMENSIONS = 280;
const DOCUMENTS = 400;
const K = 10;
const seed = Number(process.env["SEED"] ?? 1);
const random = createSeededRandom(seed);

let cluster: Cluster | undefined;
afterEach(async () => {
  await cluster?.close();
  cluster = undefined;
});

/** Bytes around one of three values, which lie far apart. */
function next(): Float32Array {
  const middle = [20, 128, 235][random.u32() % 3] as number;
  return Float32Array.from({ length: DIMENSIONS }, () => middle + (random.u32() % 40) - 20);
}

/** In whole numbers. */
function squaredDistance(a: Float32Array, b: Float32Array | undefined): number {
  return a.reduce((sum, component, at) => sum + (component - (b?.[at] ?? Number.NaN)) ** 2, 0);
}

async function assertExact(docs: VectorCollection, query: Float32Array, k: number): Promise<void> {
  const truth = await docs.search(query, { by: "scatter", exact: true, k: 2 * DOCUMENTS });
  const scores = new Map(truth.hits.map(({ id, score }) => [id, score]));
  for (const by of ["one-sided", "cotra"] as const) {
    const { hits } = await docs.search(query, { by, k, ef: 64 });
    expect(hits).toHaveLength(k);
    for (const { id, score } of hits) expect(score, `SEED=${seed}, ${by}, document ${id}`).toBe(scores.get(id));
  }
}

it("scores are those of the rows, also of far vectors and of rows that were replaced a moment ago, and no row's vector is read", async () => {
  cluster = await startTestCluster({ workers: 3, requestTimeoutMs: 20_000 });
  const docs = await cluster.vectors("docs", {
    dimensions: DIMENSIONS,
    metric: "l2",
    strategy: "one-sided",
    quantization: "u8",
  });
  const vectors = new Map(Array.from({ length: DOCUMENTS }, (_, id) => [id, next()]));
  await docs.upsert(Array.from(vectors, ([id, vector]) => ({ id, vector })));
  await docs.indexed();
  for (let query = 0; query < 5; query++) await assertExact(docs, next(), K);
  await assertExact(docs, new Float32Array(DIMENSIONS).fill(255), DOCUMENTS);
  const { bytes, hits } = docs.reader().search(next(), K, {});
  expect(hits).toHaveLength(K);
  expect(bytes).toBeGreaterThan(K * 64);
  expect(bytes, "of headers alone").toBeLessThan(K * DIMENSIONS * 4);
  for (let round = 0; round < 4; round++) {
    const replaced = new Map(Array.from({ length: 200 }, () => [random.u32() % DOCUMENTS, next()]));
    await docs.upsert(Array.from(replaced, ([id, vector]) => ({ id, vector })));
    // The vertices of the old vectors are there while the new ones wait to be linked, which this thread looks at before.
    for (const id of replaced.keys()) {
      const before = vectors.get(id) as Float32Array;
      const { hits: near } = docs.reader().search(before, 3 * K, { ef: 64 });
      for (const hit of near) {
        const now = replaced.get(hit.id as number) ?? vectors.get(hit.id as number);
        expect(hit.score, `SEED=${seed}, document ${hit.id}`).toBe(squaredDistance(before, now));
      }
    }
    for (const [id, vector] of replaced) vectors.set(id, vector);
    await assertExact(docs, next(), K);
    const [id, vector] = [...replaced][0] as [number, Float32Array];
    const { hits: own } = await docs.search(vector, { k: 1, ef: 64 });
    expect([own[0]?.id, own[0]?.score]).toEqual([id, 0]);
  }
}, 60_000);

it("are taken for bytes by l2 alone, below 2^24, with a version, and not when it took long", () => {
  let nowMs = 0;
  const known = (options: object, clock = true): KnownDistances =>
    new KnownDistances(
      resolveVectorOptions({ dimensions: 4, metric: "l2", strategy: "one-sided", ...options }),
      clock ? () => nowMs : undefined,
    );
  const taken = (one: KnownDistances): boolean[] =>
    one.whileGood(one.now(), () => [
      one.has(7, 2 ** 24 - 1),
      one.has(7, 2 ** 24),
      one.has(0, 5),
      one.has(7, Number.NaN),
    ]);
  for (const quantization of ["u8", "i8"])
    expect(taken(known({ quantization })), quantization).toEqual([true, false, false, false]);
  for (const options of [{ quantization: "f32" }, { quantization: "f16" }, { quantization: "u8", metric: "cosine" }])
    expect(taken(known(options)), JSON.stringify(options)).toEqual([false, false, false, false]);
  expect(taken(known({ quantization: "u8" }, false)), "without a clock").toEqual([false, false, false, false]);
  const slow = known({ quantization: "u8" });
  const tries: boolean[] = [];
  slow.whileGood(slow.now(), () => {
    tries.push(slow.has(7, 5));
    nowMs += 600; // longer than half of the time that a freed slot rests
  });
  expect(tries).toEqual([true, false]);
});
