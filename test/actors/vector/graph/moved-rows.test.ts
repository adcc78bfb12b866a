/** One-sided searches while the nearest documents have got other vectors, which wait to be linked: what they led to lies elsewhere, and is no reason to stop. */
import { afterEach, expect, it } from "vitest";
import { graphShapeOf } from "../../../../actors/vector/graph/graph-code.ts";
import { GraphRoot } from "../../../../actors/vector/graph/graph-root.ts";
import { type Candidate, LabelSearch } from "../../../../actors/vector/graph/label-search.ts";
import { NOT_KNOWN, TOO_FEW } from "../../../../actors/vector/one-sided-result.ts";
import { SPARE } from "../../../../actors/vector/one-sided-search.ts";
import { payloadFilter } from "../../../../actors/vector/payload-filter.ts";
import type { Slices } from "../../../../actors/vector/slices.ts";
import { COTRA } from "../../../../actors/vector/strategy/cotra-strategy.ts";
import { resolveVectorOptions } from "../../../../actors/vector/vector-options.ts";
import { VectorReader } from "../../../../actors/vector/vector-reader.ts";
import { GraphKernels } from "../../../../native-bridge/graph-kernels.ts";
import { compileKernels } from "../../../../native-bridge/kernels.ts";
import { RegionTable } from "../../../../native-bridge/region-table.ts";
import { STATUS } from "../../../../native-bridge/status.ts";
import { Verbs } from "../../../../native-bridge/verbs.ts";
import { Bed, makeContext, randomFrom } from "../support.ts";

const DIMENSIONS = 8;
const COUNT = 600;
const K = 10;
const payload = { kept: true };

/** Does all the work without a pause. */
function inOneGo<T>(work: Slices<T>): T {
  for (;;) {
    const slice = work.next();
    if (slice.done === true) return slice.value;
  }
}

/** More than the search keeps. */
const MOVED = 100;

let close: (() => void)[] = [];
afterEach(() => {
  for (const each of close.splice(0).reverse()) each();
});

it.each([
  ["l2", "f32"],
  ["cosine", "f32"],
  ["l2", "u8"],
] as const)(
  "by %s of %s finds the nearest of those that stay, and the others where they are now",
  (metric, quantization) => {
    const options = resolveVectorOptions({ dimensions: DIMENSIONS, metric, strategy: "one-sided", quantization });
    const bed = new Bed();
    const { arena } = bed.context;
    const regions = new RegionTable(arena, 9, () => 12_345);
    const root = GraphRoot.create(arena, regions, 1, graphShapeOf(options));
    const rows = bed.open(options, 1, root.ref).root;
    const context = makeContext(bed.memory, 60, 7);
    const reader = new VectorReader(context.arena, new Verbs(context.arena), context.kernels, {
      roots: () => [rows],
      shardOf: () => 0,
      nowMs: () => performance.now(),
      graph: { options, root: () => root.ref },
    });
    close = [
      () => bed.context.kernels.close(),
      () => bed.engine.close(),
      () => context.kernels.close(),
      () => reader.close(),
    ];
    const random = randomFrom(4);
    const vectors = Array.from({ length: COUNT }, () =>
      Float32Array.from({ length: DIMENSIONS }, () => Math.floor(random() * 100)),
    );
    bed.upsert(
      DIMENSIONS,
      vectors.map((vector, id) => ({ id, vector, payload })),
    );
    bed.settle();
    const query = vectors[0] as Float32Array;
    const truth = (k: number): unknown[] => bed.search(query, k, { exact: true }).hits.map(({ id }) => id);
    const expectNearest = (): void => {
      const nearest = new Set(truth(K));
      for (const options of [{}, { filter: payloadFilter({ kept: true }) }]) {
        let result = reader.search(query, K, options);
        while (result.status === NOT_KNOWN) result = reader.search(query, K, options); // what passes is looked up in slices
        const { status, hits } = result;
        expect([status, hits.length]).toEqual([STATUS.SUCCESS, K]);
        expect(hits.filter(({ id }) => nearest.has(id)).length).toBeGreaterThanOrEqual(K - 1);
      }
    };
    /** As many as are the nearest of what a batch gives; undefined: the query is to be searched alone. */
    const batched = (): number | undefined => {
      const batch = reader.batch([query], K, {});
      expect(inOneGo(batch.begin())).toBe(STATUS.SUCCESS);
      inOneGo(batch.search());
      const nearest = new Set(truth(K));
      const [hits] = inOneGo(batch.finish());
      batch.close();
      return hits?.filter(({ id }) => nearest.has(id)).length;
    };
    /** The same of what shards find for this thread to read: as candidates, and as vertices. */
    const byShards = (): (number | undefined)[] => {
      const kernels = new GraphKernels(compileKernels(), arena, root.geometry);
      const search = new LabelSearch(root, new Verbs(arena), kernels);
      const nearest = new Set(truth(K));
      const counts = (["finish", "rank"] as const).map((way) => {
        const halves = reader.halves(query, K, {}, COTRA);
        const waiting = halves.scanWaiting();
        const found = search.run(waiting.bytes, undefined, [], 64, K + SPARE) as Candidate[];
        const vertices = Int32Array.from(found, ({ vertex }) => vertex);
        const distances = Float32Array.from(found, ({ distance }) => distance);
        const result =
          way === "finish" ? halves.finish(waiting, found, false) : halves.rank(waiting, { vertices, distances });
        expect([STATUS.SUCCESS, TOO_FEW]).toContain(result.status);
        return result.status === TOO_FEW ? undefined : result.hits.filter(({ id }) => nearest.has(id)).length;
      });
      kernels.close();
      return counts;
    };
    expectNearest();
    expect(batched()).toBeGreaterThanOrEqual(K - 1);
    for (const count of byShards()) expect(count).toBeGreaterThanOrEqual(K - 1);
    const far = Float32Array.from({ length: DIMENSIONS }, (_, at) => (at % 2 === 0 ? 255 : 0));
    bed.upsert(
      DIMENSIONS,
      truth(MOVED).map((id) => ({ id: id as number, vector: far, payload })),
    );
    expect(bed.status().unindexed).toBe(MOVED);
    expectNearest();
    expect(batched()).toBeUndefined();
    expect(byShards()).toEqual([undefined, undefined]);
    bed.settle();
    expectNearest();
    expect(batched()).toBeGreaterThanOrEqual(K - 1);
    for (const count of byShards()) expect(count).toBeGreaterThanOrEqual(K - 1);
  },
);
