/** What src/sim/README.md promises is what `shardloom/sim` has: rules by name, workloads and options of the command, and no rule that nothing uses. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { SIM_OPTIONS } from "../../src/cli/sim-options.ts";
import { BUILT_IN_WORKLOADS } from "../../src/sim/built-in-workloads.ts";
import * as historyInvariants from "../../src/sim/history-invariants.ts";
import * as invariants from "../../src/sim/invariants.ts";
import * as linearizability from "../../src/sim/linearizability.ts";
import * as listAppend from "../../src/sim/list-append.ts";
import * as sim from "../../src/sim.ts";

const FOLDER = join("src", "sim");
const README = readFileSync(join(FOLDER, "README.md"), "utf8");

/** Names in backticks between two texts. */
function namesBetween(from: string, until: string): string[] {
  const start = README.indexOf(from);
  expect(start, `README has ${from}`).toBeGreaterThanOrEqual(0);
  const part = README.slice(start + from.length, README.indexOf(until, start + from.length));
  return [...part.matchAll(/`([\w-]+)`/g)].map(([, name]) => name as string);
}

const functionsOf = (module: object): string[] =>
  Object.entries(module).flatMap(([name, value]) => (typeof value === "function" ? [name] : []));

describe("the README of simulated clusters", () => {
  it("lists the rules that there are for checks, no more and no fewer", () => {
    const rules = [linearizability, listAppend, historyInvariants, invariants].flatMap(functionsOf);
    const exported = functionsOf(sim).filter((name) => rules.includes(name));
    expect(namesBetween("Rules that many checks need are there:", ".\n").sort()).toEqual(exported.sort());
  });

  it("names the workloads that the command knows", () => {
    expect(namesBetween("`--workload` also knows", ", which test").sort()).toEqual(
      Object.keys(BUILT_IN_WORKLOADS).sort(),
    );
  });

  it("names no option of the command that there is not", () => {
    const known = new Set([...Object.keys(SIM_OPTIONS), "json", "help"]);
    const named = [...README.matchAll(/(?<=[ `(])--([a-z][a-z-]+)/g)].map(([, name]) => name as string);
    expect(named.length).toBeGreaterThan(5);
    expect(named.filter((name) => !known.has(name))).toEqual([]);
  });
});

describe("rules", () => {
  it("are all judged by somebody in a world", () => {
    const texts = readdirSync(FOLDER, { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts"))
      .map((name) => readFileSync(join(FOLDER, name), "utf8"));
    const calls = (rule: string): number =>
      texts.filter((text) => text.includes(`${rule}(`) && !text.includes(`function ${rule}(`)).length;
    // A way to read a history, and no rule.
    const rules = [historyInvariants, invariants].flatMap(functionsOf).filter((name) => name !== "keyedWrite");
    expect(rules.filter((rule) => calls(rule) === 0)).toEqual([]);
    expect(calls("nobodyJudgesThis")).toBe(0);
  });
});
