/**
 * What every run is held to: planted defects that lose rank, values or vertices end in `ERR_INTERNAL` where they show, whichever way values travel,
 * and the graph is there again.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Cluster, Graph, GraphResult, RunOptions } from "../../src/index.ts";
import { PATIENT_DETECTOR } from "../support/cluster.ts";
import { type MutatedCopy, mutatedCopy } from "../support/mutated.ts";

const VERTICES = 60;
/** Of the vertices that have no edge, from this one on. */
const LOOSE = 50;

/** Each shows in some runs alone, so that all of them can be planted at once. */
const DEFECTS = [
  // Rank of vertices without edges is lost.
  { file: "actors/graph/algorithms", from: "dangling += value;", to: "dangling += 0;" },
  // The last value of a message that is to be combined is lost on its way.
  {
    file: "actors/graph/shard-run",
    from: "taken = accept(algorithm.combine, this.#inbox, f64, valueAt, words, vertexAt, count);",
    to: "taken = accept(algorithm.combine, this.#inbox, f64, valueAt, words, vertexAt, (count = Math.max(0, count - 1)));",
  },
  // Of labels that are pushed one more is said to have been than there were.
  {
    file: "actors/graph/outgoing",
    from: "sent.push(count);",
    to: 'sent.push(count + (outgoing.algorithm.kind === "labels" ? 1 : 0));',
  },
  // The last vertex of each shard is not computed in supersteps that pull, but where values are summed up.
  {
    file: "actors/graph/shard-run",
    from: "const to = Math.min(rows, from + slice);",
    to: 'const to = Math.min(rows - (receive === "pull" && (near || algorithm.combine === "min") ? 1 : 0), from + slice);',
  },
] as const;

let copy: MutatedCopy;
let cluster: Cluster;
let graph: Graph;

beforeAll(async () => {
  copy = mutatedCopy(DEFECTS);
  const { Cluster: Mutated } = (await import(copy.url("src/index"))) as typeof import("../../src/index.ts");
  const options = { workers: 2, memoryBytes: 64 * 1024 * 1024, startTimeoutMs: 60_000 };
  cluster = await Mutated.start({ ...options, ...PATIENT_DETECTOR });
  graph = await cluster.graph("defects", { weighted: true });
  await graph.addVertices(Array.from({ length: VERTICES }, (_, key) => key));
  const edges = Array.from({ length: 3 * LOOSE }, (_, at) => ({
    source: at % LOOSE,
    target: (at * 7 + 1) % LOOSE,
    weight: 1,
  }));
  await graph.addEdges(edges);
}, 60_000);
afterAll(async () => {
  await cluster.close();
  copy.remove();
});

const RUNS: Readonly<Record<string, (options: RunOptions) => Promise<GraphResult>>> = {
  pageRank: (options) => graph.pageRank({ ...options, iterations: 6 }),
  bfs: (options) => graph.bfs({ ...options, source: 1 }),
  sssp: (options) => graph.sssp({ ...options, source: 1 }),
  wcc: (options) => graph.wcc(options),
  cdlp: (options) => graph.cdlp({ ...options, iterations: 4 }),
  lcc: (options) => graph.lcc(options),
};

it.each([
  ["pageRank", "pull", 1, /^Cannot accept superstep 1 as the ranks must add up to 1: current value is 0\.8/],
  ["bfs", "push", 1, /^Cannot compute superstep 1 as its inbox must have \d+ values: current value is \d+$/],
  ["sssp", "push", 1, /^Cannot compute superstep 1 as its inbox must have \d+ values/],
  ["wcc", "push", 1, /^Cannot compute superstep 1 as its inbox must have \d+ values/],
  ["cdlp", "push", 1, /^Cannot accept superstep 1 as shard 0 must receive the \d+ values that were sent to it/],
  ["bfs", "pull", 1, /^Cannot accept superstep 1 as shard 0 must compute its \d+ vertices: current value is \d+$/],
  ["sssp", "pull", 1, /^Cannot accept superstep 1 as shard 0 must compute its \d+ vertices/],
  ["wcc", "pull", 1, /^Cannot accept superstep 1 as shard 0 must compute its \d+ vertices/],
  ["cdlp", "pull", 1, /^Cannot accept superstep 1 as shard 0 must compute its \d+ vertices/],
  ["lcc", "pull", 1, /^Cannot accept superstep 1 as shard 0 must compute its \d+ vertices/],
] as const)("%s by %s ends where a defect shows", async (name, exchange, superstep, message) => {
  const run = RUNS[name] as (typeof RUNS)[string];
  for (const superstepsAtOnce of [1, 64]) {
    const steps: number[] = [];
    const onProgress: RunOptions["onProgress"] = (progress) => steps.push(progress.superstep);
    const ended = await run({ exchange, superstepsAtOnce, onProgress }).then(
      () => "a result",
      (error: unknown) => error,
    );
    expect(ended).toMatchObject({
      code: "ERR_INTERNAL",
      message: expect.stringMatching(message),
      details: { superstep },
    });
    expect(steps).toEqual(Array.from({ length: superstep }, (_, at) => at));
    expect((await graph.status()).map(({ runs }) => runs)).toEqual([0, 0]);
  }
});

it("what no defect is in gives its result", async () => {
  const result = await graph.lcc({ exchange: "push" });
  expect((await result.toMap()).size).toBe(VERTICES);
  await result.close();
});
