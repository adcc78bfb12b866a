/** Building, changing and searching one graph from several real threads at once. */

import { describe, expect, test } from "vitest";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { ELEMENT, METRIC } from "../../../../native-bridge/kernels.ts";
import { LONG, runWorker, seedOf } from "../../../native-bridge/memory-support.ts";
import type { GraphWorkerData } from "./graph.worker.ts";
import { clusters, recallOf, Site, unreached } from "./graph-support.ts";

const SEED = seedOf("graph threads");
const DIMENSIONS = 48;
const SHAPE = { dimensions: DIMENSIONS, element: ELEMENT.U8, metric: METRIC.L2, degree: 24, chunkShift: 8 };

function makeSite(documents: number): Site {
  return Site.create(new Arena(createArena({ capacityBytes: 64 * 1_048_576 })), SHAPE, documents, 1000);
}

function start<T>(
  site: Site,
  control: SharedArrayBuffer,
  part: Pick<GraphWorkerData, "owner" | "role" | "from" | "to">,
): Promise<T> {
  const data: GraphWorkerData = {
    memory: site.arena.memory,
    root: site.root.ref,
    rows: site.rows.ref,
    seed: SEED,
    control,
    ...part,
  };
  return runWorker<T>(new URL("./graph.worker.js", import.meta.url), data, 120_000).result;
}

/** Mean recall@10 of 200 queries, and distances per query. */
function measure(site: Site, documents: number, ef: number): { recall: number; distances: number } {
  const vectors = clusters(SEED, DIMENSIONS);
  for (let skip = 0; skip < documents; skip++) vectors();
  const search = site.search();
  let [recall, distances] = [0, 0];
  for (let query = 0; query < 200; query++) {
    const vector = vectors();
    const result = search.search(site.root.ref, { code: site.codeOf(vector), vector }, 10, { ef });
    distances += result.distances;
    const found = result.hits.map(({ address }) => site.rows.rowOf(address));
    recall += recallOf(site.rows, documents, vector, found, 10);
  }
  search.close();
  return { recall: recall / 200, distances: distances / 200 };
}

function fillRows(site: Site, documents: number): void {
  const vectors = clusters(SEED, DIMENSIONS);
  for (let row = 0; row < documents; row++) site.rows.put(row, vectors());
}

describe("threads", () => {
  test("two threads build a graph at once that is as good as one thread's, and finds .95 and more", async () => {
    const documents = 2048;
    const recalls: { recall: number; distances: number }[] = [];
    for (const threads of [1, 2]) {
      const site = makeSite(documents);
      fillRows(site, documents);
      const control = new SharedArrayBuffer(8);
      const share = documents / threads;
      const results = await Promise.all(
        Array.from({ length: threads }, (_, thread) =>
          start<{ linked: number }>(site, control, {
            owner: thread + 1,
            role: "build",
            from: thread * share,
            to: (thread + 1) * share,
          }),
        ),
      );
      expect(results.reduce((sum, { linked }) => sum + linked, 0)).toBe(documents);
      expect(measure(site, documents, 64).recall).toBeGreaterThanOrEqual(0.95);
      expect(unreached(site)).toEqual([]);
      recalls.push(measure(site, documents, 12)); // few enough that a worse graph shows
    }
    const [one, two] = recalls as [{ recall: number; distances: number }, { recall: number; distances: number }];
    console.log(`one thread ${JSON.stringify(one)}, two threads ${JSON.stringify(two)}`);
    expect(two.recall).toBeGreaterThanOrEqual(one.recall - 0.01);
    expect(two.distances).toBeLessThan(documents / 4); // else it is a scan
  }, 120_000);

  test("searches beside insertions and deletions find nothing that was deleted before, and the graph stays good", async () => {
    const documents = 1024;
    const site = makeSite(documents);
    const control = new SharedArrayBuffer(16);
    const words = new Int32Array(control);
    const half = documents / 2;
    const churners = [0, 1].map((thread) =>
      start<{ added: number; deleted: number; freed: number; rows: number[] }>(site, control, {
        owner: thread + 1,
        role: "churn",
        from: thread * half,
        to: (thread + 1) * half,
      }),
    );
    const searcher = start<{ searches: number; hits: number; statuses: number; faults: string[] }>(site, control, {
      owner: 3,
      role: "search",
      from: 0,
      to: documents,
    });
    while (Atomics.load(words, 0) < 3) await new Promise((resolve) => setTimeout(resolve, 20));
    const until = performance.now() + 60_000;
    // Searches, and the two churners that have freed what they deleted.
    const isEnough = (): boolean => !LONG && Atomics.load(words, 2) > 200 && Atomics.load(words, 3) === 2;
    while (!isEnough() && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
    Atomics.store(words, 1, 1);
    const results = await Promise.all(churners);
    const { searches, hits, statuses, faults } = await searcher;
    console.log(
      `${searches} searches, ${hits} hits beside ${JSON.stringify(results.map(({ added, deleted, freed }) => [added, deleted, freed]))}`,
    );
    expect(faults).toEqual([]);
    expect(statuses).toBe(0);
    expect(searches).toBeGreaterThan(50);
    expect(hits).toBeGreaterThan(searches);
    for (const { added, deleted, freed } of results) expect(Math.min(added, deleted, freed)).toBeGreaterThan(20);

    // What is left is found, and nothing else is.
    const left = results.flatMap(({ rows }) => rows);
    const vectors = clusters(SEED + 1, DIMENSIONS);
    const search = site.search();
    let recall = 0;
    for (let query = 0; query < 50; query++) {
      const vector = vectors();
      const found = site.find(search, vector, 10, { ef: 64 });
      expect(found.every((row) => left.includes(row))).toBe(true);
      recall += recallOf(site.rows, documents, vector, found, 10);
    }
    expect(recall / 50).toBeGreaterThanOrEqual(0.95);
    expect(unreached(site), "vertices to which nothing leads").toEqual([]);
  }, 120_000);
});
