/** What heals when the faults are over: with `majority` some nodes stay cut off until the others have converged and, with leases, taken over. */
import { describe, expect, it } from "vitest";
import { createWorld } from "../../src/sim/create-world.ts";
import { registerWorkload } from "../../src/sim/workloads/register-workload.ts";
import type { RunResult, WorldOptions } from "../../src/sim/world-types.ts";

async function run(options: WorldOptions): Promise<RunResult> {
  await using world = createWorld({ nodes: 3, durationMs: 3_000, keepTrace: true, ...options });
  return await world.run(registerWorkload({ clients: 3 }));
}

const cutOff = ({ trace }: RunResult): string[] =>
  trace.filter(({ kind }) => kind === "cut off").map(({ where }) => where);

describe("a world whose faults are over", () => {
  it("keeps one of three nodes cut off until the others have taken over, by leases", async () => {
    const whole = await run({ leases: true });
    const result = await run({ leases: true, heal: "majority" });
    expect(result.violations).toEqual([]);
    expect(cutOff(result)).toEqual([expect.stringMatching(/^n[012]$/)]);
    expect(cutOff(whole)).toEqual([]);
    // Leases end before anybody takes over: that takes its time.
    expect(result.simulatedMs).toBeGreaterThan(whole.simulatedMs + 1_000);
  });

  it("cuts nobody off where no vshard can spare a copy", async () => {
    expect(cutOff(await run({ heal: "majority", replicationFactor: 1 }))).toEqual([]);
    expect(cutOff(await run({ heal: "majority", nodes: 2 }))).toEqual([]);
  });

  it("has every shard, as no worker was killed so often that its shard was given up", async () => {
    const { violations, nodes } = await run({ durationMs: 20_000, faults: { "worker-crash": 120 } });
    expect(violations).toEqual([]);
    expect(Math.max(...nodes.map(({ workerDeaths }) => workerDeaths))).toBe(6);
  });

  it("refuses to heal anything else", () => {
    expect(() => createWorld({ heal: "some" as "all" })).toThrow(
      /heal must be one of all, majority: current value is .*some/,
    );
  });
});
