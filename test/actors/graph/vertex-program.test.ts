/** Definitions of vertex programs: every part that is wrong is refused, and the error names it with what was given. */
import { describe, expect, it } from "vitest";
import { combined, defineVertexProgram, nothingOf, type VertexProgram } from "../../../actors/graph/vertex-program.ts";
import { loadPrograms } from "../../../actors/load-actors.ts";

const RIGHT: VertexProgram = {
  name: "right",
  state: { value: "f64" },
  combine: "sum",
  init: () => undefined,
  compute: () => undefined,
};
const FIELDS = Object.fromEntries(Array.from({ length: 17 }, (_, at) => [`field${at}`, "f64"]));

describe("a vertex program's definition", () => {
  it("takes every part within its bounds", () => {
    const all: VertexProgram = {
      ...RIGHT,
      along: "times-weight",
      direction: "both",
      aggregate: { least: "min" },
      maxSupersteps: 1,
      halt: () => true,
    };
    expect(defineVertexProgram(all)).toBe(all);
    expect(defineVertexProgram(all), "once more").toBe(all);
    expect(() => defineVertexProgram({ ...RIGHT })).not.toThrow();
  });

  it.each([
    [{ name: "" }, "name", ""],
    [{ name: 7 }, "name", 7],
    [{ state: undefined }, "state", "undefined"],
    [{ state: ["f64"] }, "state", "an array of 1"],
    [{ state: {} }, "state", 0],
    [{ state: FIELDS }, "state", 17],
    [{ state: { value: "f32" } }, "state.value", "f32"],
    [{ combine: "mean" }, "combine", "mean"],
    [{ combine: undefined }, "combine", "undefined"],
    [{ along: "x" }, "along", "x"],
    [{ along: "plus-one" }, "along", "plus-one"],
    [{ along: null }, "along", null],
    [{ direction: "in" }, "direction", "in"],
    [{ aggregate: "sum" }, "aggregate", "sum"],
    [{ aggregate: 5 }, "aggregate", 5],
    [{ aggregate: { changed: "count" } }, "aggregate.changed", "count"],
    [{ maxSupersteps: Number.NaN }, "maxSupersteps", Number.NaN],
    [{ maxSupersteps: 0 }, "maxSupersteps", 0],
    [{ maxSupersteps: 2.5 }, "maxSupersteps", 2.5],
    [{ maxSupersteps: Number.POSITIVE_INFINITY }, "maxSupersteps", Number.POSITIVE_INFINITY],
    [{ maxSupersteps: "10" }, "maxSupersteps", "10"],
    [{ init: undefined }, "init", "undefined"],
    [{ compute: "function" }, "compute", "function"],
    [{ halt: true }, "halt", true],
    [{ halt: null }, "halt", null],
  ])("refuses %j", (part, name, value) => {
    const define = (): unknown => defineVertexProgram({ ...RIGHT, ...part } as VertexProgram);
    expect(define).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", details: { name, value } }));
  });

  it.each([undefined, null, "ranks", [RIGHT], Object.freeze({ ...RIGHT })])("refuses %j as a whole", (program) => {
    expect(() => defineVertexProgram(program as never)).toThrow(/Cannot define vertex program as program must be/);
  });
});

describe("programs of modules", () => {
  const one = defineVertexProgram({ ...RIGHT, name: "one" });
  const load = async (url: string): Promise<Record<string, unknown>> => ({
    one: url === "file:///other.js" ? defineVertexProgram({ ...RIGHT, name: "one" }) : one,
    ...(url === "file:///more.js"
      ? { again: one, two: defineVertexProgram({ ...RIGHT, name: "two" }), plain: RIGHT }
      : {}),
  });

  it("are found by their names, also when several export them", async () => {
    const programs = await loadPrograms(["file:///first.js", "file:///more.js"], load);
    expect([...programs.keys()]).toEqual(["one", "two"]);
    expect(programs.get("one")).toBe(one);
  });

  it("must have names of their own", async () => {
    await expect(loadPrograms(["file:///first.js", "file:///other.js"], load)).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      details: { url: "file:///other.js", name: "one" },
    });
  });
});

describe("what stands for nothing", () => {
  it.each(["sum", "min", "max"] as const)("leaves every value as it is, under %s", (rule) => {
    const nothing = nothingOf(rule);
    for (const value of [0, 1, -1, 1e308, 5e-324, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
      expect(combined(rule, nothing, value)).toBe(value);
    expect(combined(rule, nothing, nothing)).toBe(nothing);
  });

  it("is no sum of values", () => {
    for (const [a, b] of [
      [1, -1],
      [0, 0],
      [-0, 0],
      [5e-324, -5e-324],
    ] as const)
      expect(Object.is(combined("sum", a, b), nothingOf("sum"))).toBe(false);
  });
});
