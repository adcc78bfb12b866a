/** `shardloom sim`: arguments, reports, files and ends, with worlds that only say what they would have found. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { afterAll, describe, expect, it } from "vitest";
import { UsageError } from "../../src/cli/command.ts";
import { runProgram } from "../../src/cli/program.ts";
import { createSimCommand } from "../../src/cli/sim.ts";
import { parseFaults } from "../../src/cli/sim-options.ts";
import { ShardloomError } from "../../src/errors.ts";
import { FAULT_TABLE } from "../../src/sim/fault-table.ts";
import type { RunWorld } from "../../src/sim/run-world.ts";
import { fakeRun, fakeWorld } from "../sim/fake-run.ts";

const folder = mkdtempSync(join(tmpdir(), "shardloom-sim-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Fails on seeds above 8 while it has a crash and the tenth operation of process 1. */
const broken = (): ReturnType<typeof fakeWorld> =>
  fakeWorld(
    (operations, faults) =>
      faults.some(({ kind }) => kind === "crash") &&
      operations.some(({ process, value }) => process === 1 && (value as { value?: number }).value !== undefined),
  );
const passing = (): ReturnType<typeof fakeWorld> => fakeWorld(() => false);

async function run(argv: readonly string[], world: RunWorld, signal: AbortSignal = new AbortController().signal) {
  let [stdout, stderr] = ["", ""];
  const code = await runProgram(["sim", "--workload", "./bank.js#bank", ...argv], {
    commands: [createSimCommand(world)],
    defaultCommand: "sim",
    version: "1.2.3",
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
    signal,
  });
  return { code, stdout, stderr };
}

describe("shardloom sim", () => {
  it("gives the world what it was told", async () => {
    const { run: world, asked } = passing();
    const argv =
      "--seed 9 --nodes 7 --minutes 2.5 --faults drop:0.25,crash --consistency eventual --shards-per-node 2 --memory-kb 2048".split(
        " ",
      );
    expect((await run([...argv, "--workload-options", '{"accounts":3}'], world)).code).toBe(0);
    expect(asked).toHaveLength(1);
    const [options, workload] = asked[0] as Parameters<RunWorld>;
    expect(options).toEqual({
      seed: 9,
      nodes: 7,
      minutes: 2.5,
      faults: { drop: 0.25, crash: FAULT_TABLE.crash.defaultRate },
      consistency: "eventual",
      shardsPerNode: 2,
      memoryBytes: 2_097_152,
    });
    expect(workload).toEqual({ module: pathToFileURL("bank.js").href, export: "bank", options: { accounts: 3 } });
  });

  it("tells of a run that passed, and ends with 0", async () => {
    const { code, stdout } = await run(["--seed", "9"], passing().run);
    expect(code).toBe(0);
    for (const pattern of [
      /seed +9\n/,
      /trace hash +[0-9a-f]{16}\n/,
      /crash 1, /,
      /events .*\/s/,
      /500 × real time/,
      /verdict +passed/,
      / ok, .* fail, .* info/,
    ]) {
      expect(stdout).toMatch(pattern);
    }
  });

  it("tells of a run that failed, how to repeat it, and ends with 1", async () => {
    const { code, stdout } = await run(["--seed", "9", "--nodes", "3", "--faults", "crash"], broken().run);
    expect(code).toBe(1);
    expect(stdout).toMatch(/verdict +FAILED: linearizable/);
    expect(stdout).toContain("linearizable: key k3: read 17 after 21 was read");
    const rate = FAULT_TABLE.crash.defaultRate;
    expect(stdout).toContain(
      `Repeat: npx shardloom sim --seed 9 --nodes 3 --minutes 1 --faults crash:${rate} --workload ${pathToFileURL("bank.js").href}#bank`,
    );
  });

  it("writes one object for each run under --json", async () => {
    const { code, stdout } = await run(["--json", "--seed", "9", "--runs", "2"], broken().run);
    expect(code).toBe(1);
    const objects = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(objects.map(({ seed }) => seed)).toEqual([9, 10]);
    const expected = fakeRun({ seed: 9, violated: true });
    expect(objects[0]).toMatchObject({
      seed: 9,
      traceHash: expected.traceHash,
      events: expected.events,
      faults: expected.faultsByKind,
      verdict: "failed",
      violations: [{ rule: "linearizable" }],
      timesRealTime: 500,
    });
  });

  it("has a line for each seed of many, and notes of progress", async () => {
    const { code, stdout, stderr } = await run(["--runs", "30"], passing().run);
    expect(code).toBe(0);
    expect(stdout.match(/^ +\d+ {2}[0-9a-f]{16}.* passed$/gm)).toHaveLength(30);
    expect(stderr).toMatch(/simulating 50 % \(15 of 30 runs\)/);
    expect(stderr).toMatch(/simulating done: 30 of 30 runs/);
  });

  it("shrinks the first failing run, and writes test, timeline and history of what is left", async () => {
    const { run: world, asked } = broken();
    const [test, html, history] = ["found.test.mjs", "run.html", "history.jsonl"].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    const { code, stdout } = await run(
      ["--seed", "9", "--runs", "3", "--test", test, "--html", html, "--history", history],
      world,
    );
    expect(code).toBe(1);
    expect(stdout).toMatch(
      /Shrunk from \d+ faults and 320 operations to 1 fault and 1 operation on 2 nodes\nin \d+ runs/,
    );
    expect(stdout).toMatch(/\n {2}crash of n1 at 0 ms\n {2}process [01]: write /);
    expect(readFileSync(test, "utf8")).toContain(
      '{ kind: "crash", atMs: 0, durationMs: 0, targets: ["n1"], size: 0 },',
    );
    expect(readFileSync(html, "utf8")).toContain("<title>Simulated run, seed 9</title>");
    const [last] = asked.slice(-1);
    expect(last?.[0]).toMatchObject({ seed: 9, nodes: 2, keepTrace: 400_000 });
    expect(last?.[2].replay?.operations).toHaveLength(1);
    const lines = readFileSync(history, "utf8").trim().split("\n");
    expect(JSON.parse(lines[0] as string)).toMatchObject({ type: "invoke", index: 0 });
  });

  it("says that no run breaks the rule to shrink by, and reports the runs all the same", async () => {
    const { run: world, asked } = broken();
    const argv = ["--seed", "9", "--shrink", "--rule", "no such rule"];
    const { code, stdout, stderr } = await run([...argv, "--json"], world);
    expect([code, asked.length]).toEqual([1, 1]);
    expect(stderr).toContain('Not shrunk: no run breaks the rule "no such rule".');
    expect(JSON.parse(stdout)).toMatchObject({ seed: 9, verdict: "failed" });
  });

  it("reports the runs also when shrinking fails", async () => {
    const { run: world, asked } = broken();
    const once: RunWorld = (...request) =>
      asked.length === 0
        ? world(...request)
        : Promise.reject(new ShardloomError("ERR_MODULE_NOT_LOADED", "it is gone"));
    const { code, stdout } = await run(["--seed", "9", "--shrink", "--json"], once);
    expect(code).toBe(1);
    const objects = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(objects).toMatchObject([{ seed: 9, verdict: "failed" }, { error: { code: "ERR_MODULE_NOT_LOADED" } }]);
  });

  it("finds a world that does not repeat", async () => {
    let runs = 0;
    const world: RunWorld = async () => ({ ...fakeRun({ seed: 9 }), traceHash: String(++runs) });
    expect(await run(["--verify"], passing().run)).toMatchObject({
      code: 0,
      stdout: expect.stringContaining(", twice"),
    });
    const { code, stdout } = await run(["--verify", "--shrink"], world);
    expect([code, runs]).toEqual([1, 2]);
    expect(stdout).toContain("same seed, same trace: 1 and 2");
    expect(stdout).toContain("Not shrunk");
  });

  it("ends at an interrupt, and says what was done until then", async () => {
    const controller = new AbortController();
    const { run: pass } = passing();
    const world: RunWorld = async (...request) => {
      if (request[0].seed !== 3) return pass(...request);
      controller.abort();
      throw new ShardloomError("ERR_ABORTED", "the run was aborted");
    };
    const text = await run(["--runs", "9"], world, controller.signal);
    expect(text.code).toBe(1);
    expect(text.stdout).toMatch(/ 1 {2}[0-9a-f]{16}/);
    expect(text.stdout).toContain("Interrupted after 2 of 9 runs.");
    expect(text.stderr).toContain("simulating stopped: 2 of 9 runs");
    const json = await run(["--runs", "9", "--json"], world, controller.signal);
    expect(JSON.parse(json.stdout.trim().split("\n").at(-1) as string)).toEqual({ interrupted: true, runs: 2, of: 9 });
  });

  it("keeps what was done when a world breaks", async () => {
    const { run: pass } = passing();
    const world: RunWorld = async (...request) => {
      if (request[0].seed === 2) throw new ShardloomError("ERR_TIMEOUT", "Cannot finish run");
      return pass(...request);
    };
    const { code, stdout, stderr } = await run(["--runs", "3"], world);
    expect(code).toBe(1);
    expect(stdout).toMatch(/ 1 {2}[0-9a-f]{16}/);
    expect(stderr).toContain("Cannot finish run (ERR_TIMEOUT)");
  });

  it.each([
    [["--faults", "drop,sabotage"], /--faults must be .*: current value is sabotage/],
    [["--faults", "drop:often"], /--faults must give drop a rate of 0 or more: current value is drop:often/],
    [["--faults", "drop:"], /a rate of 0 or more/],
    [["--faults", "drop:-1"], /a rate of 0 or more/],
    [["--faults", "drop,drop:0.1"], /names? each fault once/],
    [["--faults", ""], /--faults must be/],
    [["--workload", "nonsense"], /--workload must be one of .*, or module.js#export: current value is nonsense/],
    [["--workload", "#bank"], /--workload must be/],
    [["--workload", "bank.js#"], /--workload must be/],
    [["--workload-options", "{"], /--workload-options must be JSON/],
    [["--nodes", "0"], /--nodes must be an integer in \[1, 32\]/],
    [["--minutes", "0"], /--minutes must be a number/],
    [["--seed", "4294967296"], /--seed must be an integer/],
    [["--consistency", "most"], /--consistency must be one of/],
    [["--faults", "drop:2"], /--faults: drop must be a probability in \[0, 1\]: current value is 2/],
    [["--vshards", "3"], /--vshards must be an integer between 5 and 4096/],
    [["--replication-factor", "9"], /--replication-factor must be an integer between 1 and 5: current value is 9/],
    [["--memory-kb", "1025"], /--memory-kb must be a multiple of 64: current value is 1025/],
    [["--rule", "linearizable"], /--rule must come with --shrink or --test/],
    [
      ["--html", join(folder, "none", "x.html")],
      /--html must be a file in a folder that exists: current value is .*none/,
    ],
    [["--test", ""], /--test must be a file in a folder that exists: current value is empty/],
  ])("refuses %j before any world is made", async (argv, message) => {
    const { run: world, asked } = passing();
    const { code, stderr } = await run(argv, world);
    expect([code, asked.length]).toEqual([2, 0]);
    expect(stderr).toMatch(message);
  });

  it("fails typed where a file cannot be written", async () => {
    const { code, stderr } = await run(["--html", folder], passing().run);
    expect(code).toBe(1);
    expect(stderr).toMatch(/Cannot write the timeline to .*\(ERR_INVALID_ARGUMENT\)/);
  });
});

describe("the executable", () => {
  const main = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));

  it("runs a real world twice, with the same trace", async () => {
    const argv = "sim --json --verify --seed 5 --nodes 2 --minutes 0.05 --faults drop,delay --workload register".split(
      " ",
    );
    const { stdout } = await promisify(execFile)(process.execPath, [main, ...argv], { timeout: 60_000 });
    expect(JSON.parse(stdout)).toMatchObject({
      seed: 5,
      traceHash: expect.stringMatching(/^[0-9a-f]{16}$/),
      verified: true,
      verdict: "passed",
      violations: [],
      repeat: expect.stringContaining("--workload register"),
    });
  }, 60_000);

  it("shrinks a real world, and writes test, timeline and history of what is left", async () => {
    const [test, html, history] = ["real.test.mjs", "real.html", "real.jsonl"].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    const module = new URL("../sim/probe-workloads.js", import.meta.url).href;
    const argv = "sim --seed 5 --nodes 2 --minutes 0.05 --faults drop:0.2,clog:60 --shrink".split(" ");
    const workload = ["--workload", `${module}#sabotage`, "--workload-options", '{"how":"violation"}'];
    const files = ["--test", test, "--html", html, "--history", history];
    const failed = promisify(execFile)(process.execPath, [main, ...argv, ...workload, ...files], { timeout: 100_000 });
    const { code, stdout } = await failed.then(
      (output) => ({ code: 0, ...output }),
      (error: unknown) => error as { code: number; stdout: string },
    );
    expect(code).toBe(1);
    expect(stdout).toContain("planted: as asked");
    expect(stdout).toContain("--seed 5");
    // Nothing that went wrong mattered, and of the operations at most one.
    expect(readFileSync(test, "utf8")).toContain("faults: []");
    expect(readFileSync(history, "utf8").trim().split("\n").length).toBeLessThanOrEqual(2);
    const page = readFileSync(html, "utf8");
    expect(page).toMatch(/^<!doctype html>/i);
    expect(page).toContain("as asked");
  }, 120_000);

  it("ends a real world at the first SIGINT", async () => {
    const argv = "sim --nodes 2 --minutes 30 --faults none --workload register".split(" ");
    const child = spawn(process.execPath, [main, ...argv]);
    let [stdout, stderr] = ["", ""];
    child.stdout.on("data", (data: Buffer) => (stdout += data.toString()));
    child.stderr.on("data", (data: Buffer) => (stderr += data.toString()));
    // The bar's first line says that the run is under way.
    child.stderr.once("data", () => child.kill("SIGINT"));
    const [code] = (await once(child, "exit")) as [number];
    expect(code).toBe(1);
    expect(stdout).toContain("Interrupted after 0 of 1 run.");
    expect(stderr).toContain("simulating stopped");
  }, 60_000);
});

describe("parseFaults", () => {
  it("takes words, names, and names with rates", () => {
    expect([parseFaults("none"), parseFaults("all"), parseFaults("swarm")]).toEqual(["none", "all", "swarm"]);
    expect(parseFaults("drop:0.5, pause")).toEqual({ drop: 0.5, pause: FAULT_TABLE.pause.defaultRate });
    expect(parseFaults("drop:0")).toEqual({ drop: 0 });
    expect(() => parseFaults("all,drop")).toThrow(UsageError);
  });
});
