/**
 * Production's rings, doorbell, bridge, cells, regions and arena under every interleaving of their accesses to shared memory.
 *
 * The short programs are searched exhaustively in both memory models by every run; SHARDLOOM_LONG=1 adds larger ones and more
 * random schedules.
 */
import { describe, expect, test } from "vitest";
import { explore } from "../../../src/sim/explorer/explore.ts";
import { type CaseName, LARGE, LONGER, programOf, SHORT } from "./cases.ts";
import { loadProduction, type Production } from "./production.ts";

const LONG = process.env["SHARDLOOM_LONG"] === "1";
const SEED = Number(process.env["SEED"] ?? 1);
const production: Production = await loadProduction();
const names = Object.keys(LONG ? { ...SHORT, ...LONGER } : SHORT) as CaseName[];

describe.each(["sc", "tso"] as const)("under %s every interleaving is right", (memory) => {
  test.each(names)("%s", (name) => {
    const result = explore({ ...programOf(name, production), memory });
    expect(result.violation?.trace.join("\n")).toBeUndefined();
    expect(result.complete).toBe(true);
    expect(result.schedules).toBeGreaterThan(100);
    expect(result.states).toBeGreaterThan(100);
  });
});

describe.each(["sc", "tso"] as const)("under %s random schedules are right", (memory) => {
  test.each(Object.keys(LARGE) as (keyof typeof LARGE)[])("%s", (name) => {
    const schedules = LONG ? 20_000 : 300;
    const strategy = { pct: { depth: 4, seed: SEED, schedules } };
    const result = explore({ ...LARGE[name](production), memory, strategy });
    expect(result.violation?.trace.join("\n")).toBeUndefined();
    expect(result.schedules).toBe(schedules);
    expect(result.steps).toBeGreaterThan(schedules * 50);
  });
});
