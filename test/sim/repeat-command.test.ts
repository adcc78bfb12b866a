/** The line that repeats a run, read by the command itself: it makes the same world with the same workload, whatever option was given. */
import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { runProgram } from "../../src/cli/program.ts";
import { createSimCommand } from "../../src/cli/sim.ts";
import { BUILT_IN_WORKLOADS } from "../../src/sim/built-in-workloads.ts";
import { repeatCommand } from "../../src/sim/repeat-command.ts";
import type { RunWorld } from "../../src/sim/run-world.ts";
import type { WorkloadRef } from "../../src/sim/workload-types.ts";
import { resolveWorldOptions } from "../../src/sim/world-options.ts";
import type { ResolvedWorldOptions, WorldOptions } from "../../src/sim/world-types.ts";
import { fakeWorld } from "./fake-run.ts";

/** What decides how long a run may take and what is kept of it, and nothing that happens in it. */
type OnlyLimits = "wallLimitMs" | "keepTrace";

/** Values of every option, none of them its default. A new option does not compile until it stands here. */
const OTHER: Required<Omit<WorldOptions, OnlyLimits | "minutes">> = {
  seed: 4_000_000_000,
  nodes: 4,
  shardsPerNode: 2,
  replicationFactor: 5,
  consistency: "session",
  vshards: 64,
  memoryBytes: 2_097_152,
  requestTimeoutMs: 1_234,
  durability: "os",
  leases: true,
  heal: "majority",
  faults: { drop: 0.25, crash: 2 },
  durationMs: 12_345,
};

const REGISTER: WorkloadRef = { ...(BUILT_IN_WORKLOADS["register"] as WorkloadRef), options: {} };

/** The words that a shell makes of a line. */
function wordsOf(line: string): string[] {
  return execFileSync("sh", ["-c", `printf '%s\\0' ${line}`], { encoding: "utf8" })
    .split("\0")
    .slice(0, -1);
}

/** What the command asks a world for when it is given the line. */
async function asked(line: string): Promise<{ world: ResolvedWorldOptions; workload: WorkloadRef }> {
  const [npx, name, ...argv] = wordsOf(line);
  expect([npx, name, argv[0]]).toEqual(["npx", "shardloom", "sim"]);
  const { run, asked: calls } = fakeWorld(() => false);
  let stderr = "";
  const code = await runProgram(argv, {
    commands: [createSimCommand(run)],
    defaultCommand: "sim",
    version: "1.2.3",
    stdout: { write: () => true },
    stderr: { write: (text: string) => (stderr += text) },
    signal: new AbortController().signal,
  });
  expect(code, stderr).toBe(0);
  const [options, workload] = calls[0] as Parameters<RunWorld>;
  return { world: resolveWorldOptions(options), workload };
}

describe("the command that repeats a run", () => {
  it.each(Object.entries(OTHER))("says %s", async (name, value) => {
    const options = { [name]: value };
    const resolved = resolveWorldOptions(options);
    expect(resolved).not.toEqual(resolveWorldOptions({})); // else nothing is shown
    const again = await asked(repeatCommand(options, REGISTER));
    expect(again).toEqual({ world: resolved, workload: REGISTER });
  });

  it("says all of them at once, with a workload of one's own", async () => {
    const workload = { module: "file:///a b/it's.js", export: "bank", options: { teller: '$(x) "q"' } };
    expect(await asked(repeatCommand(OTHER, workload))).toEqual({ world: resolveWorldOptions(OTHER), workload });
  });

  it.each(["none", "all", "swarm"] as const)("says what goes wrong: %s", async (faults) => {
    expect((await asked(repeatCommand({ faults }, REGISTER))).world.faults).toEqual(faults);
  });

  it("says nothing that was not given", async () => {
    expect((await asked(repeatCommand({}, REGISTER))).world).toEqual(resolveWorldOptions({}));
    expect((await asked(repeatCommand({ minutes: 0.5 }, REGISTER))).world).toEqual(
      resolveWorldOptions({ minutes: 0.5 }),
    );
  });
});
