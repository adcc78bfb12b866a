/** Several supersteps at one order: the same results with fewer messages of the coordinator. */
import { expect, it } from "vitest";
import type { Graph, GraphResult, RunOptions, SuperstepExplanation, VertexKey } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { startTestCluster } from "../support/cluster.ts";
import { codeOf } from "../support/copies.ts";

const VERTICES = 300;
const EDGES = 1500;
const SEED = Number(process.env["SEED"] ?? 27_411);

/** A run, and where each of its orders began. */
interface Ordered {
  readonly values: Map<VertexKey, number>;
  readonly supersteps: readonly SuperstepExplanation[];
  readonly orders: readonly number[];
}

async function load(graph: Graph): Promise<void> {
  const random = createSeededRandom(SEED);
  const draw = (): number => Math.floor(VERTICES * random.float() ** 2);
  await graph.addVertices(Array.from({ length: VERTICES }, (_, key) => key));
  await graph.addEdges(Array.from({ length: EDGES }, () => ({ source: draw(), target: draw() })));
}

async function ordered(start: Promise<GraphResult>): Promise<Ordered> {
  await using result = await start;
  const values = new Map<VertexKey, number>();
  for await (const { key, value } of result) values.set(key, value);
  const supersteps = result.explain?.supersteps ?? [];
  return { values, supersteps, orders: [...new Set(supersteps.map(({ orderedWith }) => orderedWith))] };
}

for (const workers of [1, 2, 3, 5]) {
  for (const exchange of ["push", "pull"] as const) {
    it(`gives the same on ${workers} shards by ${exchange}`, async () => {
      await using cluster = await startTestCluster({ workers });
      const graph = await cluster.graph("orders", {});
      await load(graph);
      const runs: readonly ((options: RunOptions) => Promise<GraphResult>)[] = [
        (options) => graph.pageRank({ ...options, iterations: 21 }),
        (options) => graph.pageRank({ ...options, tolerance: 1e-4 }),
        (options) => graph.cdlp({ ...options, iterations: 9 }),
      ];
      for (const run of runs) {
        const alone = await ordered(run({ exchange, explain: true, superstepsAtOnce: 1 }));
        const progress: number[] = [];
        const onProgress: RunOptions["onProgress"] = ({ superstep }) => progress.push(superstep);
        const together = await ordered(
          run({ exchange, explain: true, superstepsAtOnce: 5, checkpointEvery: 7, onProgress }),
        );
        // What is pushed is summed up as it comes.
        if (exchange === "pull") expect(together.values).toEqual(alone.values);
        else for (const [key, value] of together.values) expect(value).toBeCloseTo(alone.values.get(key) as number, 12);
        expect(together.values.size).toBe(VERTICES);
        const numbers = alone.supersteps.map(({ superstep }) => superstep);
        expect(alone.orders).toEqual(numbers);
        expect(together.supersteps.map(({ superstep }) => superstep)).toEqual(numbers);
        expect(progress).toEqual(numbers);
        for (const { superstep, orderedWith, shards } of together.supersteps) {
          expect(superstep - orderedWith).toBeLessThan(5);
          const counts = shards.map(({ active, sent, received }) => [active, sent, received]);
          const expected = alone.supersteps[superstep]?.shards.map(({ active, sent, received }) => [
            active,
            sent,
            received,
          ]);
          expect(counts, `superstep ${superstep}`).toEqual(expected);
        }
        const saved = together.supersteps.flatMap(({ saved: is, superstep }) => (is ? [superstep] : []));
        expect(saved).toEqual(numbers.filter((superstep) => superstep > 0 && superstep % 7 === 0));
        expect(together.orders.length, "fewer orders").toBeLessThan(alone.orders.length);
      }
    });
  }
}

it("ends in the middle of an order when the caller gives up, and the graph is there", async () => {
  await using cluster = await startTestCluster({ workers: 3 });
  const graph = await cluster.graph("orders", {});
  await load(graph);
  const caller = new AbortController();
  let last = 0;
  const run = graph.pageRank({
    iterations: 100_000,
    checkpointEvery: 0,
    signal: caller.signal,
    onProgress: ({ superstep }) => {
      last = superstep;
      if (superstep === 2) setTimeout(() => caller.abort(new Error("enough")), 20);
    },
  });
  expect(await run.then(() => "ok", codeOf)).toBe("ERR_ABORTED");
  expect(last).toBeLessThan(100_000);
  await using ranks = await graph.pageRank({ iterations: 2 });
  expect(ranks.supersteps).toBe(3);
});

it("refuses an order of less than one superstep", async () => {
  await using cluster = await startTestCluster({ workers: 2 });
  const graph = await cluster.graph("orders", {});
  await load(graph);
  for (const wrong of [0, -1, 1.5, Number.NaN, "2" as never]) {
    const run = graph.pageRank({ superstepsAtOnce: wrong });
    expect(await run.then(() => "ok", codeOf)).toBe("ERR_INVALID_ARGUMENT");
  }
});
