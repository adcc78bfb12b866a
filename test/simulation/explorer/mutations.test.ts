/**
 * Every planted defect of the shared-memory code is found, by a schedule that repeats it; those that need store buffers are
 * not found without them.
 */
import { describe, expect, test } from "vitest";
import { explore, replaySchedule } from "../../../src/sim/explorer/explore.ts";
import { replaceOnce } from "../../support/mutated.ts";
import { type CaseName, LONGER, programOf, SHORT } from "./cases.ts";
import { MUTATIONS } from "./mutations.ts";
import { loadMutant } from "./production.ts";

describe("planted defects", () => {
  test.each(MUTATIONS)("$id is found: $what", async (mutation) => {
    const { production, remove } = await loadMutant(mutation);
    try {
      const program = programOf(mutation.program, production);
      const { violation } = explore({ ...program, memory: mutation.memory });
      expect(violation, "nothing was found").toBeDefined();
      expect(replaySchedule(program, violation?.schedule ?? "").violation).toEqual(violation);
      if (mutation.memory === "sc") return;
      const sequential = explore({ ...program, memory: "sc" });
      expect([sequential.violation, sequential.complete]).toEqual([undefined, true]);
    } finally {
      remove();
    }
  });

  test("have ids of their own", () => {
    expect(new Set(MUTATIONS.map(({ id }) => id)).size).toBe(MUTATIONS.length);
  });

  const named = new Set<string>(MUTATIONS.map(({ program }) => program));
  const others = (Object.keys({ ...SHORT, ...LONGER }) as CaseName[]).filter((name) => !named.has(name));

  test.each(others)("are found by %s, too", async (name) => {
    const family = (program: string): string => program.split(/[:,]/)[0] as string;
    for (const mutation of MUTATIONS.filter(({ program }) => family(program) === family(name))) {
      const { production, remove } = await loadMutant(mutation);
      const { violation } = explore({ ...programOf(name, production), memory: mutation.memory });
      remove();
      if (violation !== undefined) return;
    }
    expect.fail("this program finds nothing");
  });

  test("replace exactly one text, or are refused", () => {
    const replacement = { file: "x", from: "a$b", to: "$&" };
    expect(replaceOnce("1 a$b 2", replacement)).toBe("1 $& 2");
    expect(() => replaceOnce("none", replacement)).toThrow("once, not 0 times");
    expect(() => replaceOnce("a$b a$b", replacement)).toThrow("once, not 2 times");
  });

  test("are mostly found by random schedules too", { timeout: 60_000 }, async () => {
    const strategy = { pct: { depth: 4, seed: 5, schedules: 5_000 } };
    const sample = MUTATIONS.filter((_, at) => process.env["SHARDLOOM_LONG"] === "1" || at % 4 === 0);
    const missed: string[] = [];
    for (const mutation of sample) {
      const { production, remove } = await loadMutant(mutation);
      const { violation } = explore({ ...programOf(mutation.program, production), memory: mutation.memory, strategy });
      if (violation === undefined) missed.push(mutation.id);
      remove();
    }
    expect(missed.length, `missed: ${missed}`).toBeLessThanOrEqual(sample.length / 5);
  });
});
