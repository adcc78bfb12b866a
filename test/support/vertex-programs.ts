/** Vertex programs of the tests, as a module that workers load. */
import { defineVertexProgram } from "../../src/index.ts";

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
    const shared = (1 - damping + damping * (vertex.aggregates["dangling"] as number)) / vertex.vertices;
    give(vertex, shared + damping * message);
  },
  halt: (_, superstep) => superstep === 10,
});

function give(vertex: Parameters<typeof ranks.init>[0], rank: number): void {
  vertex.set("rank", rank);
  if (vertex.degree > 0) vertex.send(rank / vertex.degree);
  else vertex.aggregate("dangling", rank);
}

/** Throws at one vertex, in one superstep. */
export const thrower = defineVertexProgram({
  name: "thrower",
  state: { nothing: "i32" },
  combine: "min",
  init: () => undefined,
  compute(vertex) {
    if (vertex.key === vertex.params["at"] && vertex.superstep === 2) throw new Error("planted");
  },
});

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
