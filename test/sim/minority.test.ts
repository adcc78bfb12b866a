/** Which nodes stay cut off when faults are over: never so many that a vshard lacks a majority of copies which remember. */
import { describe, expect, it } from "vitest";
import type { Fault, TimedFault } from "../../src/sim/fault-types.ts";
import { drawMinority, type MinorityOptions } from "../../src/sim/minority.ts";

const NOW_MS = 100_000;

const crash = (target: string, atMs: number, durationMs = 1_000): TimedFault => ({
  ...{ kind: "crash", atMs, durationMs, targets: [target], size: 0 },
});

function draw(
  faults: readonly Fault[],
  {
    deaths = {},
    draw: at = 0,
    ...shape
  }: Partial<MinorityOptions["shape"]> & {
    deaths?: Readonly<Record<string, number>>;
    draw?: number;
  } = {},
): readonly string[] {
  const nodes = ["n0", "n1", "n2", "n3", "n4"].map((name) => ({
    name,
    workerDiedAtMs: deaths[name] ?? Number.NEGATIVE_INFINITY,
  }));
  const whole = { acks: 2, recoveryMs: 15_000, survives: [], ...shape };
  return drawMinority({ nodes, faults, shape: whole, nowMs: NOW_MS, random: { float: () => at } });
}

describe("the minority that stays cut off", () => {
  it("is as large as every vshard can spare, from the node that is drawn on", () => {
    expect(draw([])).toEqual(["n0"]);
    expect(draw([], { draw: 0.99 })).toEqual(["n4"]);
    expect(draw([], { draw: 0.99, acks: 3 })).toEqual(["n4", "n0"]);
    expect(draw([], { acks: 9 })).toEqual(["n0", "n1"]);
    expect(draw([], { acks: 1 })).toEqual([]);
  });

  it("has every node that may not have its memory back, and nobody else is spared then", () => {
    expect(draw([crash("n3", 99_000)])).toEqual(["n3"]);
    expect(draw([crash("n3", 99_000)], { acks: 3 })).toEqual(["n0", "n3"]);
    expect(draw([crash("n3", 80_000)])).toEqual(["n0"]);
    // Cut off all the while, it could not get it back.
    const cut: TimedFault = { kind: "partition", atMs: 81_000, durationMs: 10_000, targets: ["n3"], size: 0 };
    expect(draw([crash("n3", 80_000), cut])).toEqual(["n3"]);
    expect(draw([crash("n3", 99_000)], { survives: ["crash"] })).toEqual(["n0"]);
  });

  it("is nobody where more have lost their memory than can be spared", () => {
    expect(draw([crash("n3", 99_000), crash("n1", 98_000)])).toEqual([]);
    expect(draw([crash("n3", 99_000)], { deaths: { n1: 99_500 } })).toEqual([]);
  });

  it("counts workers that have just died, but for those that left all on disks", () => {
    expect(draw([], { deaths: { n2: 99_500 } })).toEqual(["n2"]);
    expect(draw([], { deaths: { n2: 90_000 } })).toEqual(["n0"]);
    expect(draw([], { deaths: { n2: 99_500 }, survives: ["node-kill"] })).toEqual(["n0"]);
  });
});
