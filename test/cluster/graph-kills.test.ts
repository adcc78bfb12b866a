/**
 * A worker that dies in any superstep of any run: the same answer, and nothing done again that was saved.
 *
 * What runs is the program as it is but for one place: a shard that has computed the superstep it is to die in, and has told nobody, waits until every
 * run that has such a superstep is there, and ends its thread. So each death hits all runs, in the superstep that is meant, for certain. And workers
 * may die as often as they like, at once.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Cluster, Graph, GraphResult, RunOptions, RunProgress, VertexKey } from "../../src/index.ts";
import { type AlarmState, alarm } from "../../src/sim/workloads/graph-program.ts";
import { PATIENT_DETECTOR } from "../support/cluster.ts";
import { type MutatedCopy, mutatedCopy } from "../support/mutated.ts";

const WORKERS = 3;
const VERTICES = 24;
const SAVED_EVERY = 2;

const folder = mkdtempSync(join(tmpdir(), "shardloom-kills-"));
/** While it is there, the shard is to die in the superstep; it holds how many runs there are in it. Nobody else looks at it. */
const orderFor = (superstep: number, shard: number): string => join(folder, `${superstep}-${shard}`);

const DEATHS = [
  {
    file: "actors/graph/shard-run",
    from: "if (request.save) {",
    to: `{
      const { existsSync, readFileSync, rmSync } = process.getBuiltinModule("node:fs");
      const path = ${JSON.stringify(join(folder, "/"))} + superstep + "-" + view.shard;
      if (existsSync(path)) {
        const runs = Number(readFileSync(path, "utf8"));
        globalThis.waiting ??= new Set();
        if (globalThis.waiting.add(this.id).size === runs) {
          rmSync(path);
          process.exit(1);
        }
        for (;;) yield false;
      }
    }
    if (request.save) {`,
  },
  { file: "src/plane/restart-budget", from: "const LIMIT = 8;", to: "const LIMIT = 1000;" },
  { file: "src/plane/restart-budget", from: "const PAUSE_MS = 50;", to: "const PAUSE_MS = 0;" },
] as const;

type Result = GraphResult<number | AlarmState>;

const RUNS: readonly ((options: RunOptions) => Promise<Result>)[] = [
  (options) => graph.pageRank({ ...options, iterations: 5 }),
  (options) => graph.cdlp({ ...options, iterations: 5 }),
  (options) => graph.lcc(options),
  (options) => graph.sssp({ ...options, source: keyAt(1) }),
  (options) => graph.wcc(options),
  (options) => graph.bfs({ ...options, source: keyAt(1) }),
  (options) => graph.run<AlarmState>(alarm.name, {}, options),
];

/** Of these the program's vertices ring in the first five supersteps. */
const keyAt = (place: number): number => 13 * Math.floor(place / 5) + (place % 5);

let copy: MutatedCopy;
let cluster: Cluster;
let graph: Graph;

beforeAll(async () => {
  copy = mutatedCopy(DEATHS);
  const { Cluster: Mutated } = (await import(copy.url("src/index"))) as typeof import("../../src/index.ts");
  cluster = await Mutated.start({
    workers: WORKERS,
    memoryBytes: 64 * 1024 * 1024,
    startTimeoutMs: 60_000,
    actors: [new URL(copy.url("src/sim/workloads/graph-program"))],
    ...PATIENT_DETECTOR,
  });
  graph = await cluster.graph("kills", { weighted: true });
  await graph.addVertices(Array.from({ length: VERTICES }, (_, place) => keyAt(place)));
  const lead = (from: number, to: number, weight: number) => ({ source: keyAt(from), target: keyAt(to), weight });
  // A ring with chords, ways through which are shorter by weight than by edges, and some vertices without edges.
  const edges = Array.from({ length: VERTICES - 4 }, (_, at) => [
    lead(at, (at + 1) % (VERTICES - 4), 1),
    lead(at, (at * 5 + 3) % (VERTICES - 4), 2 + (at % 3)),
  ]);
  await graph.addEdges(edges.flat());
}, 60_000);
afterAll(async () => {
  await cluster.close();
  copy.remove();
  rmSync(folder, { recursive: true, force: true });
});

interface Ended {
  readonly values: Map<VertexKey, number | AlarmState>;
  readonly supersteps: number;
  readonly attempts: number;
  /** Where it went on after each loss. */
  readonly resumed: readonly number[];
}

/** Results are read when all runs have ended: some end before others lose a worker. */
async function runAll(options: RunOptions): Promise<Ended[]> {
  const progress: RunProgress[][] = RUNS.map(() => []);
  const onProgress = (at: number) => (told: RunProgress) => void progress[at]?.push(told);
  const results = await Promise.all(RUNS.map((run, at) => run({ ...options, onProgress: onProgress(at) })));
  const ended: Ended[] = [];
  for (const [at, result] of results.entries()) {
    const { supersteps, attempts } = result;
    const told = progress[at] as RunProgress[];
    const isLater = ({ attempt }: RunProgress, place: number): boolean => attempt > (told[place - 1]?.attempt ?? 1);
    const resumed = told.filter(isLater).map(({ superstep }) => superstep);
    ended.push({ values: await result.toMap(), supersteps, attempts, resumed });
    await result.close();
  }
  return ended;
}

function expectSame(found: Ended, expected: Ended, what: string): void {
  expect(found.supersteps, what).toBe(expected.supersteps);
  expect(new Set(found.values.keys()), what).toEqual(new Set(expected.values.keys()));
  // Values that are pushed are summed up as they come.
  const isSame = (one: unknown, other: unknown): boolean =>
    one === other || Math.abs((one as number) - (other as number)) <= 1e-12;
  for (const [key, value] of expected.values) {
    const other = found.values.get(key);
    if (typeof value === "object") expect(other, `${what}, ${key}`).toEqual(value);
    else if (!isSame(other, value)) expect(other, `${what}, ${key}`).toBe(value);
  }
}

it.each([
  ["push", 1],
  ["pull", 64],
] as const)(
  "gives the same by %s whichever superstep a worker dies in, with %i ordered at once",
  async (exchange, superstepsAtOnce) => {
    const options = { exchange, superstepsAtOnce, checkpointEvery: SAVED_EVERY };
    const expected = await runAll(options);
    expect(expected.map(({ attempts }) => attempts)).toEqual(RUNS.map(() => 1));
    const last = Math.max(...expected.map(({ supersteps }) => supersteps)) - 1;
    expect(last).toBeGreaterThan(5);
    for (let superstep = 0; superstep <= last; superstep++) {
      const hit = expected.map(({ supersteps }) => superstep < supersteps);
      const order = orderFor(superstep, superstep % WORKERS);
      writeFileSync(order, `${hit.filter(Boolean).length}`);
      const found = await runAll(options);
      expect(existsSync(order), `nobody died in superstep ${superstep}`).toBe(false);
      const saved = superstep - 1 - ((superstep - 1) % SAVED_EVERY);
      for (const [at, { attempts, resumed }] of found.entries()) {
        const what = `run ${at}, superstep ${superstep}`;
        if (hit[at] === true) expect(attempts, what).toBeGreaterThanOrEqual(2);
        if (hit[at] === true) expect(resumed, what).toContain(saved > 0 ? saved + 1 : 0);
        expectSame(found[at] as Ended, expected[at] as Ended, what);
      }
    }
    expect((await graph.status()).map(({ runs }) => runs)).toEqual([0, 0, 0]);
  },
  120_000,
);
