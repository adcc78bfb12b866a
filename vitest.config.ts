/**
 * Runs the compiled tests. Workers cannot load `.ts`, so tsc compiles everything first and vitest runs `dist`.
 *
 * Invariant: nothing under `dist` is rewritten by vitest (`server.deps.external`), so that hot loops run at the
 * speed that users get. Tests run in forks, since worker threads of our own are what is tested.
 * Files that judge time limits over real threads (`JUDGES_TIME`) run one by one after all others: beside another file on two cores they would
 * judge the machine. Only files whose time is simulated (`NO_CLOCK`) run beside them, on what they leave of the machine. In the long mode the one
 * that judges how long all its simulated runs take together comes last, with the machine to itself (`LAST`).
 * Files that start no threads that outlive them (`UNITS`) share their process with others of their kind: starting one takes 0.3 s of a core.
 */
import { existsSync } from "node:fs";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

const long = process.env["SHARDLOOM_LONG"] === "1";

const JUDGES_TIME = [
  "actors/replication/replication",
  "cluster/call-options",
  "cluster/consistency",
  "cluster/damaged-rings",
  "cluster/durable-failover",
  "cluster/failover",
  "cluster/failover-defaults",
  "cluster/failover-promotion",
  "cluster/failures",
  "cluster/linearizable-failover",
  "cluster/membership",
  "cluster/overload",
  "cluster/read-fallback",
  "cluster/stale-map",
  "cluster/supervision",
  "cluster/texts-replicated",
  "cluster/vector-failures",
].map(compiled);

const NO_CLOCK = [
  "actors/replication/world",
  "sim/log-workload",
  "sim/world",
  "sim/world-faults",
  "simulation/cotra",
  ...(long ? [] : ["simulation/durable"]),
  "simulation/mutants/mutants",
].map(compiled);

/** Folders whose files may share a process. */
const UNITS = [
  "actor",
  "actors/documents",
  "actors/graph",
  "actors/replication",
  "actors/storage",
  "actors/text",
  "actors/vector",
  "cli/formats",
  "routing",
  "runtime",
  "sim",
  "store",
  "topology",
  "wire",
].map((folder) => `dist/test/${folder}/**/*.test.js`);

/** Judges how long very many simulated runs take together: last and alone. */
const LAST = long ? ["simulation/durable"].map(compiled) : [];

/**
 * Files of those two kinds that run at once: one judges time, and what it leaves goes to simulated time. Vitest takes projects by their names, so
 * that those which are simulated begin first, the longest of them before all (`LongestFirst`).
 */
const AT_ONCE = 5;

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const isLong = ({ moduleId }: TestSpecification): boolean => moduleId.includes("/simulation/mutants/");
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))];
  }
}

function compiled(file: string): string {
  if (!existsSync(`test/${file}.test.ts`))
    throw new Error(`vitest.config.ts names a test file that is not there: ${file}`);
  return `dist/test/${file}.test.js`;
}

export default defineConfig({
  test: {
    pool: "forks",
    execArgv: ["--expose-gc"],
    server: { deps: { external: [/\/dist\//] } },
    globalSetup: ["./test/tools/seed.mjs"],
    setupFiles: ["./test/tools/setup.mjs"],
    // Long enough for a machine that is several times slower: nothing waits for it that goes well.
    testTimeout: long ? 1_800_000 : 90_000,
    hookTimeout: 90_000,
    teardownTimeout: 10_000,
    passWithNoTests: false,
    sequence: { sequencer: LongestFirst },
    allowOnly: false,
    projects: [
      {
        extends: true,
        test: {
          name: "beside",
          include: ["dist/test/**/*.test.js"],
          exclude: ["node_modules/**", ...JUDGES_TIME, ...NO_CLOCK, ...LAST, ...UNITS],
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: "units",
          include: UNITS,
          exclude: ["node_modules/**", ...JUDGES_TIME, ...NO_CLOCK, ...LAST],
          isolate: false,
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: "timed",
          include: JUDGES_TIME,
          setupFiles: ["./test/tools/alone.mjs"],
          maxWorkers: AT_ONCE,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: "simulated",
          include: NO_CLOCK,
          setupFiles: ["./test/tools/stand-back.mjs"],
          testTimeout: long ? 1_800_000 : 600_000, // they stand back behind all others, and their time is simulated
          maxWorkers: AT_ONCE,
          sequence: { groupOrder: 1 },
        },
      },
      ...LAST.map((file) => ({
        extends: true as const,
        test: { name: "last", include: [file], testTimeout: 1_800_000, maxWorkers: 1, sequence: { groupOrder: 2 } },
      })),
    ],
  },
});
