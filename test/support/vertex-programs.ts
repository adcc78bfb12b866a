/** Vertex programs of the tests, as a module that workers load. */
import { defineVertexProgram, ShardloomError, type VertexContext, type VertexProgram } from "../../src/index.ts";

/** Each vertex finds the largest key of those that lead to it, and counts how often it changed its mind. */
export const largest = defineVertexProgram({
  name: "largest",
  state: { largest: "f64", changes: "u32" },
  combine: "max",
  aggregate: { changed: "sum" },
  init(vertex) {
    vertex.set("largest", vertex.key as number);
    vertex.send(vertex.key as number);
    vertex.sleep();
  },
  compute(vertex, message) {
    vertex.sleep();
    if (message === undefined || message <= vertex.get("largest")) return;
    vertex.set("largest", message);
    vertex.set("changes", vertex.get("changes") + 1);
    vertex.aggregate("changed", 1);
    vertex.send(message);
  },
});

/** PageRank as anybody would write it. */
export const ranks = defineVertexProgram({
  name: "ranks",
  state: { rank: "f64" },
  combine: "sum",
  aggregate: { dangling: "sum" },
  init(vertex) {
    give(vertex, 1 / vertex.vertices);
  },
  compute(vertex, message = 0) {
    const { damping } = vertex.params as { damping: number };
    const shared = (1 - damping + damping * vertex.aggregates.dangling) / vertex.vertices;
    give(vertex, shared + damping * message);
  },
  halt: (_, superstep) => superstep === 10,
});

function give(vertex: Parameters<typeof ranks.init>[0], rank: number): void {
  vertex.set("rank", rank);
  if (vertex.degree > 0) vertex.send(rank / vertex.degree);
  else vertex.aggregate("dangling", rank);
}

/** Every vertex counts supersteps, until all of them have counted four: with 50 vertices just when no more of them are allowed. */
export const rounds = defineVertexProgram({
  name: "rounds",
  state: { rounds: "u32", seen: "f64" },
  combine: "min",
  aggregate: { first: "max", all: "sum" },
  maxSupersteps: 4,
  init: (vertex) => vertex.aggregate("first", vertex.superstep),
  compute(vertex) {
    vertex.set("rounds", vertex.superstep);
    vertex.set("seen", vertex.aggregates.all);
    vertex.aggregate("first", vertex.superstep);
    vertex.aggregate("all", vertex.superstep);
  },
  halt: ({ all, first }, superstep) => first === superstep && all >= 200,
});

/** Takes a while. */
export const patient = defineVertexProgram({
  name: "patient",
  state: { steps: "u32" },
  combine: "min",
  aggregate: { steps: "max" },
  init: () => undefined,
  compute(vertex) {
    vertex.set("steps", vertex.get("steps") + 1);
    vertex.aggregate("steps", vertex.get("steps"));
  },
  halt: ({ steps }) => steps === 200,
});

/** What else may be thrown than an error. */
const THROWN: Readonly<Record<string, unknown>> = {
  text: "planted",
  symbol: Symbol("planted"),
  bare: Object.create(null),
  lost: new ShardloomError("ERR_WORKER_LOST", "Cannot go on as planted"),
};

/** Goes wrong where it is told to: in `init`, in `compute`, or in `halt`, which knows nothing but the superstep. */
export const thrower = defineVertexProgram({
  name: "thrower",
  state: { nothing: "i32" },
  combine: "min",
  aggregate: { wrongs: "max" },
  init: (vertex) => goWrong(vertex),
  compute: (vertex) => goWrong(vertex),
  halt({ wrongs }, superstep) {
    if (wrongs === 1) throw new Error(`planted after ${superstep}`);
    if (wrongs === 2) return Promise.reject(new Error("late")) as unknown as boolean;
    return (wrongs === 3 ? "yes" : superstep === 5) as boolean;
  },
});

function goWrong(vertex: VertexContext<{ nothing: "i32" }, { wrongs: "max" }>): void {
  const { at, superstep, wrong } = vertex.params;
  vertex.send(1);
  if (vertex.key !== at || vertex.superstep !== superstep) return;
  const inHalt = ["halt", "late halt", "odd halt"].indexOf(wrong as string) + 1;
  if (inHalt > 0) vertex.aggregate("wrongs", inHalt);
  else if (wrong === "state") vertex.set("nothing", "1" as unknown as number);
  else if (wrong === "promise") return Promise.reject(new Error("late")) as unknown as void;
  else if (wrong === "field") vertex.set("missing" as "nothing", 1);
  else if (wrong === "sum") vertex.aggregate("wrongs", Number.NaN);
  else if (wrong === "value") vertex.send(Number.NaN);
  else throw (THROWN[wrong as string] ?? new Error("planted")) as Error;
}

/** Vertices sleep, but for what is sent to them: by 1, 2 and 4 what `params` say; everybody counts how often it was woken, by what. */
function waking(
  combine: "sum" | "min" | "max",
  along: "value" | "times-weight",
): VertexProgram<{ woken: "u32"; by: "f64" }> {
  return defineVertexProgram({
    name: `waking by ${combine} of ${along}`,
    state: { woken: "u32", by: "f64" },
    combine,
    along,
    init(vertex) {
      const value = (vertex.params as Readonly<Record<number, number>>)[vertex.key as number];
      if (value !== undefined) vertex.send(value === 0 ? -0 : value); // the sign does not come with the params
      vertex.sleep();
    },
    compute(vertex, message) {
      vertex.set("woken", vertex.get("woken") + 1);
      vertex.set("by", message ?? -1);
      vertex.sleep();
    },
  });
}

export const wakingBySum = waking("sum", "value");
export const wakingByWeights = waking("sum", "times-weight");
export const wakingByLeast = waking("min", "value");
export const wakingByMost = waking("max", "times-weight");

/** Never ends. */
export const endless = defineVertexProgram({
  name: "endless",
  state: { steps: "u32" },
  combine: "min",
  maxSupersteps: 50,
  init: () => undefined,
  compute(vertex) {
    vertex.set("steps", vertex.superstep);
  },
});

/** Holds its thread for good, at one vertex. */
export const looper = defineVertexProgram({
  name: "looper",
  state: { nothing: "f64" },
  combine: "min",
  init(vertex) {
    while (vertex.key === vertex.params["at"]);
  },
  compute: () => undefined,
});

/** Adds up what the vertices that lead to one are worth, where its property says that it counts. */
export const worth = defineVertexProgram({
  name: "worth",
  state: { worth: "f64" },
  combine: "sum",
  init(vertex) {
    vertex.send(Number(vertex.property("value") ?? 0));
    vertex.sleep();
  },
  compute(vertex, message) {
    if (vertex.property("kind") === "counts") vertex.set("worth", message ?? 0);
    vertex.sleep();
  },
});
