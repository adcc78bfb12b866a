import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { createWorld } from "../../src/sim/create-world.ts";
import type { RunResult, WorldOptions } from "../../src/sim/world-types.ts";

const MODULE = new URL("./probe-workloads.js", import.meta.url).href;
const registers = (options: object = {}) => ({ module: MODULE, export: "registers", options });
const sabotage = (how: string) => ({ module: MODULE, export: "sabotage", options: { how } });
const BAD_THINGS = [
  "pause",
  "worker-crash",
  "worker-slow",
  "wake-dropped",
  "wake-spurious",
  "clock-step",
  "clock-drift",
  "clock-skew",
] as const;
const STORM: WorldOptions = { nodes: 3, shardsPerNode: 2, durationMs: 20_000, faults: [...BAD_THINGS] };

async function once(options: WorldOptions, seed: number): Promise<RunResult> {
  await using world = createWorld({ ...options, seed });
  return await world.run(registers());
}

/** What two runs of one seed must have in common: all but real time. */
const withoutWall = ({ wallMs, ...rest }: RunResult): Omit<RunResult, "wallMs"> => rest;

describe("a world", () => {
  it("gives everything again for a seed: as first run, as third, after other seeds, and in a fresh thread", async () => {
    await using world = createWorld({ ...STORM, seed: 11, keepTrace: true });
    const first = await world.run(registers());
    const other = await world.run(registers(), { seed: 12 });
    const third = await world.run(registers());
    expect(withoutWall(third)).toEqual(withoutWall(first));
    expect(other.traceHash).not.toBe(first.traceHash);
    const fresh = await once(STORM, 11);
    expect(fresh.traceHash).toBe(first.traceHash);
    expect(fresh.history).toEqual(first.history);
    expect(first.trace.length).toBeGreaterThan(100);
    expect(first.faults.length).toBeGreaterThan(0);
  });

  it("gives different traces for different seeds", async () => {
    await using world = createWorld({ nodes: 1, durationMs: 500 });
    const hashes = new Set<string>();
    for (let seed = 0; seed < 20; seed++) hashes.add((await world.run(registers(), { seed })).traceHash);
    expect(hashes.size).toBe(20);
  });

  it("runs a workload over vectors and actors on a real cluster: all operations end well without faults", async () => {
    const { verdict, violations, history, operations, nodes, faults } = await once(
      { nodes: 2, shardsPerNode: 2, durationMs: 10_000 },
      3,
    );
    expect(violations).toEqual([]);
    expect(verdict).toBe("passed");
    expect(faults).toEqual([]);
    const ok = history.filter(({ type }) => type === "ok");
    expect(ok.length).toBeGreaterThan(50);
    expect(history.filter(({ type }) => type === "info" || type === "fail")).toEqual([]);
    expect(ok.length).toBe(nodes.reduce((sum, node) => sum + node.operations, 0));
    expect(operations.length).toBeGreaterThanOrEqual(ok.length);
    // actors count: each key's answers are 1, 2, 3, ... on the node that its process lives on
    const counts = ok.filter(({ f }) => f === "add").map(({ value }) => (value as [number, number])[1]);
    expect(Math.max(...counts)).toBeGreaterThan(3);
    // reads see writes: some read of some key gives a value
    expect(ok.some(({ f, value }) => f === "read" && (value as [number, number | null])[1] !== null)).toBe(true);
  });

  it("survives workers that die, hang and miss wakes, nodes that pause, clocks that drift: it converges, and says what hit", async () => {
    for (const seed of [21, 22, 23]) {
      const { violations, faults, faultsByKind, history, nodes } = await once({ ...STORM, durationMs: 60_000 }, seed);
      expect(violations).toEqual([]);
      const total = Object.values(faultsByKind).reduce((sum, count) => sum + count, 0);
      expect(total).toBe(faults.length);
      expect(total).toBeGreaterThan(20);
      expect(nodes.reduce((sum, node) => sum + node.workerDeaths, 0)).toBeGreaterThan(0);
      expect(history.filter(({ type }) => type === "ok").length).toBeGreaterThan(300);
    }
  });

  it("repeats a run exactly from its operations and faults alone, and another from fewer of them", async () => {
    await using world = createWorld({ ...STORM, seed: 31 });
    const { operations, faults, traceHash } = await world.run(registers());
    const replayed = await world.run(registers(), { replay: { operations, faults } });
    expect(replayed.traceHash).toBe(traceHash);
    expect(replayed.faults).toEqual(faults);
    const fewer = await world.run(registers(), { replay: { operations: operations.slice(0, 5), faults: [] } });
    expect(fewer.faults).toEqual([]);
    expect(fewer.history.filter(({ type }) => type === "invoke")).toHaveLength(5);
    expect(fewer.simulatedMs).toBeLessThan(STORM.durationMs as number); // it ends with its operations
  });

  it("ends what a process has open as info when its node crashes, and lets it go on after the restart", async () => {
    await using world = createWorld({ nodes: 3, replicationFactor: 3, durationMs: 20_000, seed: 41 });
    const crash = { kind: "crash", atMs: 5_000, durationMs: 3_000, targets: ["n1"], size: 0 } as const;
    const poke = (process: number) => ({ process, f: "poke", value: process, afterMs: 1_000 });
    const operations = [poke(0), poke(1), poke(1)];
    const result = await world.run(sabotage("never"), { replay: { faults: [crash], operations } });
    expect(result.faults).toEqual([crash]);
    expect(result.nodes.map(({ starts, crashes }) => [starts, crashes])).toEqual([
      [1, 0],
      [2, 1],
      [1, 0],
    ]);
    expect(result.history.filter(({ process }) => process === 0).map(({ type }) => type)).toEqual(["invoke"]);
    const own = result.history.filter(({ process }) => process === 1);
    expect(own.map(({ type }) => type)).toEqual(["invoke", "info", "invoke"]);
    const [, doubt, after] = own;
    expect(doubt?.error).toBe("ERR_NODE_CRASHED");
    expect((after?.time ?? 0) - (doubt?.time ?? 0)).toBeGreaterThan(3e9);
  });

  it("leaves a lost node lost: its processes end, the others go on", async () => {
    await using world = createWorld({ nodes: 3, replicationFactor: 3, durationMs: 10_000, seed: 43 });
    const loss = { kind: "lose", atMs: 2_000, durationMs: 0, targets: ["n2"], size: 0 } as const;
    const { nodes, history } = await world.run(registers(), { replay: { faults: [loss] } });
    expect(nodes.map(({ lost }) => lost)).toEqual([false, false, true]);
    const lastOf = (process: number): number => history.findLast((entry) => entry.process === process)?.time ?? 0;
    expect(lastOf(2) / 1e6).toBeLessThan(3_000);
    expect(lastOf(0) / 1e6).toBeGreaterThan(8_000);
  });

  it("keeps a paused node from doing anything for as long as it is paused", async () => {
    await using world = createWorld({ nodes: 1, shardsPerNode: 1, durationMs: 10_000, seed: 44 });
    const pause = { kind: "pause", atMs: 3_000, durationMs: 2_000, targets: ["n0"], size: 0 } as const;
    const { history, violations } = await world.run(registers({ pauseMs: 20 }), { replay: { faults: [pause] } });
    const startNs = history[0]?.time ?? 0;
    const during = history.filter(
      ({ type, time }) => type === "ok" && time > startNs + 3.1e9 && time < startNs + 4.8e9,
    );
    expect(during).toEqual([]);
    expect(history.filter(({ type, time }) => type === "ok" && time > startNs + 5.1e9).length).toBeGreaterThan(50);
    expect(violations).toEqual([]);
  });
});

describe("a workload that fails", () => {
  it.each([
    ["generate", "generate operations"],
    ["invoke", "invoke poke of process 0"],
    ["check", "check run"],
    ["open", "open on n0"],
  ])("in %s ends the run with an error that names workload and operation", async (how, doing) => {
    await using world = createWorld({ nodes: 1, durationMs: 100 });
    await expect(world.run(sabotage(how))).rejects.toMatchObject({
      code: "ERR_WORKLOAD_FAILED",
      message: `Cannot ${doing} as workload sabotage failed: planted in ${how}`,
      details: { workload: "sabotage", doing },
    });
    expect((await world.run(sabotage("nothing"))).verdict).toBe("passed"); // and the world can go on
  });

  it("by a violation that is none is refused, and what it lacks is named", async () => {
    await using world = createWorld({ nodes: 1, durationMs: 100 });
    await expect(world.run(sabotage("malformed"))).rejects.toMatchObject({
      code: "ERR_WORKLOAD_FAILED",
      message: expect.stringContaining("violation 0 of check has entries undefined, no array"),
    });
  });

  it("by an answer that is no plain data is refused by name", async () => {
    await using world = createWorld({ nodes: 1, durationMs: 100 });
    await expect(world.run(sabotage("cyclic"))).rejects.toMatchObject({
      code: "ERR_WORKLOAD_FAILED",
      details: { doing: "invoke poke of process 0" },
    });
  });

  it("by an operation that never ends is told as a violation, with the operation", async () => {
    await using world = createWorld({ nodes: 2, durationMs: 100 });
    const { violations, verdict } = await world.run(sabotage("never"));
    expect(verdict).toBe("failed");
    expect(violations.map(({ rule, entries }) => `${rule}: ${entries[0]?.process}`).sort()).toEqual([
      "no operation waits for ever: 0",
      "no operation waits for ever: 1",
    ]);
  });

  it("in its check is told as it says, and a refusal that is certain counts as fail", async () => {
    await using world = createWorld({ nodes: 1, durationMs: 100 });
    expect((await world.run(sabotage("violation"))).violations).toMatchObject([{ rule: "planted" }]);
    const { history } = await world.run(sabotage("refused"));
    expect(history.filter(({ type }) => type === "fail")).toMatchObject([
      { error: "ERR_OVERLOADED" },
      { error: "ERR_OVERLOADED" },
    ]);
  });

  it("by its module or export is told before anything runs", async () => {
    await using world = createWorld({ nodes: 1, durationMs: 100 });
    const missing = new URL("./no-such-module.js", import.meta.url).href;
    await expect(world.run({ module: missing, export: "x", options: {} })).rejects.toMatchObject({
      code: "ERR_MODULE_NOT_LOADED",
    });
    await expect(world.run({ module: MODULE, export: "nothing", options: {} })).rejects.toMatchObject({
      code: "ERR_WORKLOAD_FAILED",
    });
    await expect(world.run({ module: "nowhere", export: "x", options: {} })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
    });
    await expect(world.run({ module: MODULE, export: "registers", options: () => 1 })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
    });
  });
});

describe("limits and refusals", () => {
  it.each([
    [{ seed: -1 }, "seed"],
    [{ seed: 1.5 }, "seed"],
    [{ nodes: 0 }, "nodes"],
    [{ nodes: 33 }, "nodes"],
    [{ shardsPerNode: 0 }, "shardsPerNode"],
    [{ nodes: 2, replicationFactor: 3 }, "replicationFactor"],
    [{ consistency: "sometimes" }, "consistency"],
    [{ vshards: 48 }, "vshards"],
    [{ memoryBytes: 100 }, "memoryBytes"],
    [{ durationMs: 0 }, "durationMs"],
    [{ minutes: -1 }, "minutes"],
    [{ minutes: 1, durationMs: 1 }, "minutes"],
    [{ wallLimitMs: 0 }, "wallLimitMs"],
    [{ keepTrace: -5 }, "keepTrace"],
    [{ faults: { flood: 1 } }, "faults"],
    [{ faults: ["flood"] }, "faults"],
    [{ faults: { drop: 2 } }, "faults"],
    [{ colour: "red" }, "colour"],
  ])("refuses the options %j by the name %s", (options, name) => {
    expect(() => createWorld(options as WorldOptions)).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", message: expect.stringContaining(name) }),
    );
  });

  it("refuses faults that are no list", async () => {
    await using world = createWorld({ nodes: 1 });
    const faults = 3 as unknown as [];
    await expect(world.run(registers(), { replay: { faults } })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      message: "Cannot create world as faults must be an array of faults: current value is 3",
    });
  });

  it("refuses to crash more nodes than may be down", async () => {
    await using world = createWorld({ nodes: 3, replicationFactor: 3 });
    const crash = (node: string) => ({ kind: "crash", atMs: 10, durationMs: 1_000, targets: [node], size: 0 }) as const;
    await expect(world.run(registers(), { replay: { faults: [crash("n0"), crash("n1")] } })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      message: expect.stringContaining("faults[1]"),
    });
    await expect(world.run(registers(), { replay: { faults: [crash("n7")] } })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      message: expect.stringContaining("n7"),
    });
  });

  it("gives a run up at its wall limit, by its signal, and when the world is closed; reports progress meanwhile", async () => {
    await using short = createWorld({ nodes: 3, minutes: 1_000, wallLimitMs: 300 });
    await expect(short.run(registers())).rejects.toMatchObject({
      code: "ERR_TIMEOUT",
      details: { limitMs: expect.any(Number) },
    });

    await using long = createWorld({ nodes: 3, minutes: 1_000 });
    const abort = new AbortController();
    const phases = new Set<string>();
    const aborted = long.run(registers(), {
      signal: abort.signal,
      onProgress: ({ phase, events, totalMs }) => {
        phases.add(phase);
        expect(totalMs).toBe(60_000_000);
        if (phase === "workload" && events > 100) abort.abort();
      },
    });
    await expect(aborted).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(phases).toContain("workload");

    const open = long.run(registers(), { onProgress: () => void long.close() });
    await expect(open).rejects.toMatchObject({ code: "ERR_CLOSED" });
    await expect(long.run(registers())).rejects.toMatchObject({ code: "ERR_CLOSED" });
  });
});

describe("a world whose thread is stuck", () => {
  it("ends the thread after an abort, and starts another for the next run", async () => {
    await using world = createWorld({ nodes: 1, durationMs: 500 });
    const abort = new AbortController();
    const stuck = world.run(sabotage("endless"), { signal: abort.signal, onProgress: () => abort.abort() });
    const waiting = world.run(registers());
    setTimeout(() => abort.abort(), 30_000); // it has begun by then
    const [one, other] = await Promise.allSettled([stuck, waiting]);
    expect(one).toMatchObject({ reason: { code: "ERR_ABORTED", message: expect.stringContaining("does not return") } });
    expect(other).toMatchObject({ reason: { code: "ERR_WORKER_LOST" } });
    expect((await world.run(registers())).verdict).toBe("passed");
  });

  it("ends the thread at the wall limit", async () => {
    await using world = createWorld({ nodes: 1, durationMs: 500, wallLimitMs: 5_000 });
    await expect(world.run(sabotage("endless"))).rejects.toMatchObject({
      code: "ERR_TIMEOUT",
      message: expect.stringContaining("5000 ms of real time"),
    });
  });
});

describe("a script", () => {
  it("comes to its end after it closed a world in the middle of a run", async () => {
    const sim = new URL("../../src/sim.js", import.meta.url).href;
    const script = `
      import { createWorld } from ${JSON.stringify(sim)};
      const world = createWorld({ nodes: 2, minutes: 1000 });
      const open = world.run(${JSON.stringify(registers())}).catch(({ code }) => code);
      await new Promise((resolve) => setTimeout(resolve, 200));
      await Promise.all([world.close(), world.close()]);
      console.log(await open);
    `;
    const folder = mkdtempSync(join(tmpdir(), "shardloom-world-"));
    const file = join(folder, "script.mjs");
    writeFileSync(file, script);
    const { stdout } = await promisify(execFile)(process.execPath, [file]).finally(() =>
      rmSync(folder, { recursive: true }),
    );
    expect(stdout).toBe("ERR_CLOSED\n");
  });
});

describe("speed", () => {
  it("simulates five nodes at low load, and shows how fast", async () => {
    await using world = createWorld({ nodes: 5, minutes: 10, seed: 1 });
    await world.run(registers({ processes: 5, pauseMs: 1_000 })); // warm
    const { simulatedMs, wallMs, events, violations } = await world.run(registers({ processes: 5, pauseMs: 1_000 }), {
      seed: 2,
    });
    console.log(
      `5 nodes, 5 operations a second: ${Math.round(simulatedMs / wallMs)} times real time, ${Math.round(events / wallMs)} k events/s`,
    );
    expect(violations).toEqual([]);
    expect(simulatedMs / wallMs).toBeGreaterThan(5); // the bench measures; this only notices that something has gone wrong
  });
});
