import { afterAll, describe, expect, it } from "vitest";
import { createWorld } from "../../src/sim/create-world.ts";
import type { RunResult } from "../../src/sim/world-types.ts";
import { WAYS_OUT } from "./escape-workload.ts";

const MODULE = new URL("./escape-workload.js", import.meta.url).href;
const world = createWorld({ seed: 5, nodes: 1, shardsPerNode: 1, durationMs: 1_000 });
afterAll(() => world.close());

const leave = (way: string, swallow: boolean): Promise<RunResult> =>
  world.run({ module: MODULE, export: "leaving", options: { way, swallow } });

describe("the traps of a world", () => {
  it.each(Object.keys(WAYS_OUT))(
    "refuse %s, name the place, and fail the run though the caller swallows it",
    async (way) => {
      const { escapes, verdict, violations, history } = await leave(way, true);
      expect(history.at(-1)).toMatchObject({ type: "ok", value: "swallowed" });
      expect(escapes).toHaveLength(1);
      expect(escapes[0]?.site).toMatch(/test\/sim\/escape-workload\.[jt]s:\d+:\d+$/);
      expect(verdict).toBe("failed");
      expect(violations.map(({ rule }) => rule)).toEqual(["nothing leaves the world"]);
      expect(violations[0]?.message).toContain("escape-workload");
    },
  );

  it("throw a typed error that names call and place, which ends the operation in doubt", async () => {
    const { history, escapes } = await leave("Date.now", false);
    expect(history.at(-1)).toMatchObject({ type: "info", error: "ERR_SIMULATION_ESCAPE" });
    expect(escapes[0]).toMatchObject({ call: "Date" });
  });

  it("refuse to load a module when the world runs, each time it is tried", async () => {
    for (let time = 0; time < 2; time++) {
      const { history, escapes, verdict } = await leave("import", true);
      expect(history.at(-1)).toMatchObject({ type: "ok", value: "swallowed" });
      expect(escapes).toMatchObject([{ call: "import()" }]);
      expect(verdict).toBe("failed");
    }
  });

  it("allow what is deterministic", async () => {
    const { history, verdict, escapes } = await leave("none", false);
    expect(history.at(-1)).toMatchObject({ type: "ok", value: true });
    expect(escapes).toEqual([]);
    expect(verdict).toBe("passed");
  });

  it("give the same hash and the same place when the escape is repeated", async () => {
    const [one, other] = [await leave("Math.random", true), await leave("Math.random", true)];
    expect(other.traceHash).toBe(one.traceHash);
    expect(other.escapes).toEqual(one.escapes);
  });

  it("refuse chance to modules while they are loaded, which may read files and the time", async () => {
    const module = new URL("./early-escape.js", import.meta.url).href;
    await expect(world.run({ module, export: "early", options: {} })).rejects.toMatchObject({
      code: "ERR_SIMULATION_ESCAPE",
      details: { call: "Math.random" },
    });
  });

  it.each(["reject", "task"])("tell what nobody caught: %s", async (how) => {
    const { violations } = await world.run({ module: MODULE, export: "uncaught", options: { how } });
    expect(violations).toMatchObject([{ rule: "nothing throws uncaught" }]);
    expect(violations[0]?.message).toContain(`planted ${how === "task" ? "task" : "rejection"}`);
    expect(violations[0]?.message).toContain("n0");
  });
});
