/** `simulate`: which tests it registers, and what they say when they fail. */
import { afterEach, describe, expect, it, vi } from "vitest";
import type { RunWorld } from "../../src/sim/run-world.ts";
import { type RegisterTest, type SimulateOptions, simulate } from "../../src/sim/vitest.ts";
import { fakeRun, fakeWorld } from "./fake-run.ts";

const WORKLOAD = { module: "file:///bank.js", export: "bank", options: { accounts: 3 } };

interface Registered {
  readonly name: string;
  readonly timeoutMs: number;
  run(context?: unknown): Promise<void>;
}

function register(options: Omit<SimulateOptions, "test">, seed?: string): Registered[] {
  const tests: Registered[] = [];
  const test: RegisterTest = (name, run, timeoutMs) => tests.push({ name, run, timeoutMs });
  vi.stubEnv("SEED", seed);
  simulate("no money is lost", { ...options, test }, WORKLOAD);
  return tests;
}

afterEach(() => vi.unstubAllEnvs());

describe("simulate", () => {
  it("registers a test for each seed, from SEED on", () => {
    const names = (seeds: SimulateOptions["seeds"], seed?: string): string[] =>
      register(seeds === undefined ? {} : { seeds }, seed).map(({ name }) =>
        name.replace("no money is lost, seed ", ""),
      );
    expect(names(3)).toEqual(["1", "2", "3"]);
    expect(names(3, "40")).toEqual(["40", "41", "42"]);
    expect(names(2, "4294967295")).toEqual(["4294967295", "0"]);
    expect(names([7, 9])).toEqual(["7", "9"]);
    expect(names([7, 9], "40")).toEqual(["40"]);
    expect(names(undefined)).toHaveLength(10);
    const [first] = register({ timeoutMs: 5_000, shrinkMs: 1_000 });
    expect(first?.timeoutMs).toBe(6_000);
  });

  it("runs each seed twice in the world that was asked for", async () => {
    const { run, asked } = fakeWorld(() => false);
    const [test] = register({ nodes: 3, faults: ["drop"], seeds: [7], run });
    await test?.run();
    expect(asked.map(([world, workload]) => [world, workload])).toEqual([
      [{ nodes: 3, faults: ["drop"], seed: 7 }, WORKLOAD],
      [{ nodes: 3, faults: ["drop"], seed: 7 }, WORKLOAD],
    ]);
    asked.length = 0;
    await register({ seeds: [7], verify: false, run })[0]?.run();
    expect(asked).toHaveLength(1);
  });

  it("fails with the violation, the commands that repeat it, and the shrunk run as a test", async () => {
    const { run } = fakeWorld((_, faults) => faults.some(({ kind }) => kind === "crash"));
    const [test] = register({ nodes: 5, seeds: [7], run });
    const message = await test
      ?.run({ task: { file: { name: "test/bank (1).test.ts" } } })
      .catch((error: unknown) => (error as Error).message);
    expect(message).toMatch(/^seed 7\nlinearizable: key k3/);
    expect(message).toMatch(/Shrunk from \d+ faults and 320 operations to 1 and 0 in \d+ runs\. As a test:/);
    expect(message).toContain("createWorld({ seed: 7, nodes: 2 })");
    expect(message).toContain("\n  SEED=7 npx vitest run 'test/bank (1).test.ts' -t 'no money is lost, seed 7$'\n");
    expect(message).toContain(
      `\n  npx shardloom sim --seed 7 --nodes 5 --faults none --workload file:///bank.js#bank --workload-options '{"accounts":3}'`,
    );
  });

  it("leaves the failure as it is without time to shrink, and where it does not repeat", async () => {
    const { run, asked } = fakeWorld(() => true);
    await expect(register({ seeds: [7], run, shrinkMs: 0 })[0]?.run()).rejects.toThrow("linearizable");
    expect(asked).toHaveLength(2);
    const once: RunWorld = async (world, workload, options) =>
      options.replay === undefined ? run(world, workload, options) : fakeRun();
    await expect(register({ seeds: [7], run: once })[0]?.run()).rejects.toThrow(
      /linearizable[\s\S]*could not be shrunk/,
    );
  });

  it("fails where the same seed gives two traces", async () => {
    let runs = 0;
    const run: RunWorld = async () => ({ ...fakeRun(), traceHash: `hash ${++runs}` });
    await expect(register({ seeds: [7], run })[0]?.run()).rejects.toThrow(/hash 1 and hash 2 .*something outside/);
  });

  it("refuses seeds that are none, and a file without a test runner", () => {
    for (const seeds of [0, 1.5, [], [-1], [2 ** 32]]) expect(() => register({ seeds })).toThrow(/as seeds must be/);
    expect(() => register({}, "many")).toThrow(/as SEED must be/);
    // This file imports its `it`, so that none is global.
    expect(() => simulate("x", {}, WORKLOAD)).toThrow(/as test must be/);
  });
});
