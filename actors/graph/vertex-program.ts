/**
 * Vertex programs: what a user writes to compute over a graph in supersteps.
 *
 * In every superstep each vertex that is active, or that a neighbour has sent to, computes: it sees the combined message, may change its
 * state, and may send one value along all its edges. A run ends when no vertex is active and nothing was sent, or when `halt` says so.
 *
 * Invariant: a program sees its own vertex only, so that it gives the same on any number of shards. What a vertex sends is combined per
 * receiver by an associative and commutative rule, so that messages may be combined on their way, or pulled, as the runtime likes.
 */
import { invalidArgument } from "../../src/errors.ts";
import type { VertexKey } from "./vertex-key.ts";

/** How values for one receiver become one. */
export type Combiner = "sum" | "min" | "max";

/** What a message becomes on its way: as it was sent, plus the edge's weight, or times the edge's weight. */
export type Along = "value" | "plus-weight" | "times-weight";

/** What a vertex knows. Valid during the call only: one object for all vertices of a shard. */
export interface VertexContext {
  readonly key: VertexKey;
  /** From 0. */
  readonly superstep: number;
  /** Vertices of the whole graph. */
  readonly vertices: number;
  /** Edges along which it sends. */
  readonly degree: number;
  /** What the run was given. */
  readonly params: Readonly<Record<string, unknown>>;
  /** Reductions of all vertices in the superstep before, by name; the identity of the rule in the first. */
  readonly aggregates: Readonly<Record<string, number>>;
  get(field: string): number;
  /** A property of the vertex, as the graph was created with it; undefined: it has none. */
  property(name: string): number | string | undefined;
  set(field: string, value: number): void;
  /** Sends a value along every edge. At most once a superstep: the last one counts. A value that is the combiner's identity is not sent. */
  send(value: number): void;
  /** Adds to a reduction. */
  aggregate(name: string, value: number): void;
  /** Computes again only when something was sent to it. */
  sleep(): void;
}

/** A program, as a module exports it. */
export interface VertexProgram {
  readonly name: string;
  /** Numbers of each vertex, by name, and of which kind; the first is the result's `value` when it is the only one. */
  readonly state: Readonly<Record<string, "f64" | "i32" | "u32">>;
  readonly combine: Combiner;
  /** @default "value" */
  readonly along?: Along;
  /** Whether messages go along edges, or along edges and against them. Undirected graphs know no difference. @default "out" */
  readonly direction?: "out" | "both";
  readonly aggregate?: Readonly<Record<string, Combiner>>;
  /** Most supersteps of a run; more than that is an error. @default 1000 */
  readonly maxSupersteps?: number;
  /** The first superstep. */
  init(vertex: VertexContext): void;
  /** Every other one. @param message What was sent to the vertex, combined; undefined when nothing was. */
  compute(vertex: VertexContext, message: number | undefined): void;
  /** After a superstep, on the caller's thread when the program is given there. @returns whether the run is done */
  halt?(aggregates: Readonly<Record<string, number>>, superstep: number): boolean;
}

const BRAND: unique symbol = Symbol.for("shardloom.vertex-program") as never;

/**
 * Makes a vertex program of its parts; modules given to `Cluster.start({ actors })` export it, and `graph.run` is given it or its name.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the part.
 */
export function defineVertexProgram<P extends VertexProgram>(program: P): P {
  const fail = (name: string, rule: string, value: unknown): never => {
    throw invalidArgument("define vertex program", name, rule, value);
  };
  if (typeof program.name !== "string" || program.name === "") fail("name", "a string that is not empty", program.name);
  const fields = Object.entries(program.state ?? {});
  if (fields.length < 1 || fields.length > 16) fail("state", "1 to 16 fields", fields.length);
  for (const [name, kind] of fields)
    if (!["f64", "i32", "u32"].includes(kind)) fail(`state.${name}`, '"f64", "i32" or "u32"', kind);
  if (!["sum", "min", "max"].includes(program.combine)) fail("combine", '"sum", "min" or "max"', program.combine);
  for (const [name, rule] of Object.entries(program.aggregate ?? {}))
    if (!["sum", "min", "max"].includes(rule)) fail(`aggregate.${name}`, '"sum", "min" or "max"', rule);
  if (typeof program.init !== "function") fail("init", "a function", program.init);
  if (typeof program.compute !== "function") fail("compute", "a function", program.compute);
  Object.defineProperty(program, BRAND, { value: true });
  return program;
}

/** Whether a module exports a value that was made with {@link defineVertexProgram}. */
export function isVertexProgram(value: unknown): value is VertexProgram {
  return typeof value === "object" && value !== null && (value as Record<symbol, unknown>)[BRAND] === true;
}

/** What a combiner gives of nothing. */
export function identityOf(rule: Combiner): number {
  return rule === "sum" ? 0 : rule === "min" ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;
}

/** Two values under a rule. */
export function combined(rule: Combiner, a: number, b: number): number {
  return rule === "sum" ? a + b : rule === "min" ? Math.min(a, b) : Math.max(a, b);
}
