/** Who learns the leaves of a graph: one shard, also where another one with vertices comes while the first one learns. */
import { expect, test } from "vitest";
import { LabelSearch } from "../../../../actors/vector/graph/label-search.ts";
import { currentLeaves } from "../../../../actors/vector/graph/leaf-table.ts";
import { LeafTrainer } from "../../../../actors/vector/graph/leaf-trainer.ts";
import { MOST_SLICE_DISTANCES } from "../../../../actors/vector/routing/steps.ts";
import type { IndexName } from "../../../../actors/vector/vector-options.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { compileKernels, ELEMENT, Kernels, METRIC } from "../../../../native-bridge/kernels.ts";
import { GRAPH_LEAVES_HOLDER } from "../../../../src/store/graph-layout.ts";
import { countingHost } from "../routing/support.ts";
import { clusters, Site } from "./graph-support.ts";

const DIMENSIONS = 12;
const DOCUMENTS = 1_200;
const MODULE = compileKernels();

/** A shard's trainer, and what puts documents into its part of the graph. */
function shardOf(
  site: Site,
  index: IndexName = "leaves",
): { host: { readonly computed: number }; trainer: LeafTrainer; fill: (from: number, to: number) => void } {
  const partition = site.partition(site.owner);
  const writer = site.writer();
  const search = new LabelSearch(site.root, site.verbs, writer.searchKernels(MODULE));
  const host = countingHost({ arena: site.arena, kernels: new Kernels(MODULE, site.arena) });
  const next = clusters(site.owner + 5, DIMENSIONS);
  const fill = (from: number, to: number): void => {
    for (let row = from; row < to; row++) {
      site.rows.put(row, next());
      const vertex = site.take(partition, row);
      expect(writer.insert(vertex)).toBe(true);
      partition.markLinked(vertex);
    }
  };
  return { host, trainer: new LeafTrainer(site.root, host, () => search, site.owner, index), fill };
}

test("a shard that learns while a lower one gets its first vertices leaves the table to that one, whoever is ready first", () => {
  for (const first of ["lower", "higher"] as const) {
    const arena = new Arena(createArena({ capacityBytes: 64 * 1024 * 1024 }));
    const shape = { dimensions: DIMENSIONS, element: ELEMENT.F32, metric: METRIC.L2, chunkShift: 6 };
    const site = Site.create(arena, shape, DOCUMENTS, 0);
    const high = shardOf(Site.open(arena.memory, site.root.ref, site.rows.ref, 1));
    high.fill(0, 1_100);
    expect(high.trainer.isDue(0, [], true)).toBe(true);
    expect(high.trainer.progress, "nothing is under way").toBe(1);
    high.trainer.run(0, () => 0); // one slice
    expect(high.trainer.progress).toBeLessThan(0.5);
    const low = shardOf(site);
    low.fill(1_100, DOCUMENTS);
    expect(low.trainer.isDue(0, [], true)).toBe(true);
    const order = first === "lower" ? [low, high] : [high, low];
    for (const { trainer } of order) trainer.run(Number.POSITIVE_INFINITY, () => 0);
    expect([currentLeaves(site.root)?.version, site.root.get(GRAPH_LEAVES_HOLDER)], first).toEqual([1, 0]);
    expect(high.trainer.isDue(0, [], true)).toBe(false);
    expect([low.trainer.progress, high.trainer.progress]).toEqual([1, 1]);
  }
});

test("a training of levels goes on in small slices, each with some progress, calibration and all", () => {
  const arena = new Arena(createArena({ capacityBytes: 64 * 1024 * 1024 }));
  const shape = { dimensions: DIMENSIONS, element: ELEMENT.F32, metric: METRIC.L2, chunkShift: 6 };
  const { host, trainer, fill } = shardOf(Site.create(arena, shape, DOCUMENTS, 0), "levels");
  fill(0, DOCUMENTS);
  const progress: number[] = [];
  for (
    let before = 0;
    trainer.isDue(0, [], true) && trainer.progress < 1 === progress.length > 0;
    before = host.computed
  ) {
    trainer.run(0, () => 0);
    expect(host.computed - before).toBeLessThan(MOST_SLICE_DISTANCES / 4);
    progress.push(trainer.progress);
  }
  expect([...progress].sort((a, b) => a - b)).toEqual(progress);
  expect(progress.at(-1)).toBe(1);
  expect(progress.length).toBeGreaterThan(1_000); // 200 training queries alone are weighed in dozens of slices, many times
});
