/** Vertex programs are typed from their state and their reductions alone. Checked by tsc; the runtime part is that definitions stay what they were. */
import { describe, expect, expectTypeOf, it } from "vitest";
import {
  defineVertexProgram,
  type Graph,
  type GraphResult,
  type VertexContext,
  type VertexProgram,
} from "../../src/index.ts";

const one = defineVertexProgram({
  name: "one",
  state: { rank: "f64" },
  combine: "sum",
  aggregate: { dangling: "sum", most: "max" },
  init(vertex) {
    expectTypeOf(vertex.get).parameter(0).toEqualTypeOf<"rank">();
    expectTypeOf(vertex.set).parameters.toEqualTypeOf<[field: "rank", value: number]>();
    expectTypeOf(vertex.aggregate).parameter(0).toEqualTypeOf<"dangling" | "most">();
    expectTypeOf(vertex.aggregates).toEqualTypeOf<Readonly<Record<"dangling" | "most", number>>>();
    // @ts-expect-error no field of the state
    vertex.get("ranks");
    // @ts-expect-error no field of the state
    vertex.set("ranks", 1);
    // @ts-expect-error no reduction
    vertex.aggregate("hanging", 1);
    expectTypeOf(vertex.aggregates).not.toHaveProperty("hanging");
  },
  compute(vertex, message) {
    expectTypeOf(vertex).toEqualTypeOf<VertexContext<{ rank: "f64" }, { dangling: "sum"; most: "max" }>>();
    expectTypeOf(message).toEqualTypeOf<number | undefined>();
    give(vertex, 1);
    touch(vertex);
  },
  halt: ({ most }) => most > 1,
});

const two = defineVertexProgram({
  name: "two",
  state: { level: "i32", parent: "u32" },
  combine: "min",
  // As programs were annotated before they were typed.
  init(vertex: VertexContext) {
    vertex.set("level", 0);
  },
  compute(vertex) {
    expectTypeOf(vertex.get).parameter(0).toEqualTypeOf<"level" | "parent">();
    expectTypeOf(vertex.aggregate).parameter(0).toBeNever();
  },
});

/** Helpers may take the vertex of a program, or of any. */
function give(vertex: Parameters<typeof one.init>[0], rank: number): void {
  vertex.set("rank", rank);
}

function touch(vertex: VertexContext): void {
  vertex.sleep();
}

/** Never called: what `run` gives is of the state's type, or as the caller says. */
async function runs(graph: Graph, program: VertexProgram): Promise<void> {
  expectTypeOf(await graph.run(one)).toEqualTypeOf<GraphResult<number>>();
  expectTypeOf(await graph.run(two, {}, { exchange: "push" })).toEqualTypeOf<
    GraphResult<{ readonly level: number; readonly parent: number }>
  >();
  expectTypeOf(await graph.run(program)).toEqualTypeOf<GraphResult<unknown>>();
  expectTypeOf(await graph.run("one")).toEqualTypeOf<GraphResult<unknown>>();
  expectTypeOf(await graph.run<number>("one")).toEqualTypeOf<GraphResult<number>>();
  expectTypeOf(await graph.run<number>(one)).toEqualTypeOf<GraphResult<number>>();
}

describe("a vertex program", () => {
  it("is typed by its parts", () => {
    expectTypeOf(one).toEqualTypeOf<VertexProgram<{ rank: "f64" }, { dangling: "sum"; most: "max" }>>();
    expectTypeOf(two).toExtend<VertexProgram>();
    expectTypeOf(runs).returns.toEqualTypeOf<Promise<void>>();
    expect([one.state, two.state]).toEqual([{ rank: "f64" }, { level: "i32", parent: "u32" }]);
    const parts = { name: "three", combine: "sum", init: touch, compute: touch } as const;
    // @ts-expect-error no kind of number
    expect(() => defineVertexProgram({ ...parts, state: { rank: "f32" } })).toThrow(/state\.rank must be/);
    // @ts-expect-error no rule
    expect(() => defineVertexProgram({ ...parts, state: { rank: "f64" }, aggregate: { all: "mean" } })).toThrow(
      /aggregate\.all must be/,
    );
  });
});
