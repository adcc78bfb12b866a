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

/** Numbers of each vertex, by name, and of which kind. */
export type ProgramState = Readonly<Record<string, "f64" | "i32" | "u32">>;

/** Reductions over all vertices, by name, and by which rule. */
export type ProgramSums = Readonly<Record<string, Combiner>>;

/** What a run gives of each vertex: its number, or, where a program has several, all of them by name. */
export type ProgramValue<State extends ProgramState> = string extends keyof State
  ? unknown
  : IsOne<keyof State> extends true
    ? number
    : { readonly [Field in keyof State]: number };

type IsOne<Names, All = Names> = Names extends unknown ? ([All] extends [Names] ? true : false) : never;

/** What a vertex knows. Valid during the call only: one object for all vertices of a shard. */
export interface VertexContext<State extends ProgramState = ProgramState, Sums extends ProgramSums = ProgramSums> {
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
  readonly aggregates: Readonly<Record<keyof Sums & string, number>>;
  get(field: keyof State & string): number;
  /** A property of the vertex, as the graph was created with it; undefined: it has none. */
  property(name: string): number | string | undefined;
  /** Rounds to the kind that the program has declared. */
  set(field: keyof State & string, value: number): void;
  /**
   * Sends a value along every edge. At most once a superstep: the last one counts. Under `sum` every number is sent, 0 too; under `min` Infinity
   * is nothing, and under `max` -Infinity: they are not sent, nor is what becomes one on its way.
   */
  send(value: number): void;
  /** Adds to a reduction. */
  aggregate(name: keyof Sums & string, value: number): void;
  /** Computes again only when something was sent to it, whatever it adds up to. */
  sleep(): void;
}

/** A program, as a module exports it. */
export interface VertexProgram<State extends ProgramState = ProgramState, Sums extends ProgramSums = ProgramSums> {
  readonly name: string;
  /** Up to 16; the first is the result's `value` when it is the only one. */
  readonly state: State;
  /** How all that is sent to a vertex in a superstep becomes one message. */
  readonly combine: Combiner;
  /** @default "value" */
  readonly along?: Along;
  /** Whether messages go along edges, or along edges and against them. Undirected graphs know no difference. @default "out" */
  readonly direction?: "out" | "both";
  readonly aggregate?: Sums;
  /** Most supersteps after the first; more than that is an error. @default 1000 */
  readonly maxSupersteps?: number;
  /** The first superstep. Like the others it must not return a promise. */
  init(vertex: VertexContext<NoInfer<State>, NoInfer<Sums>>): void;
  /** Every other one. @param message What was sent to the vertex, combined; undefined when nothing was. */
  compute(vertex: VertexContext<NoInfer<State>, NoInfer<Sums>>, message: number | undefined): void;
  /**
   * Once after every superstep after which somebody is active: on the caller's thread when the program is given there, and on that of one shard,
   * at the price of asking it, when the program is run by its name. Must depend on what it is given alone. @returns whether the run is done
   */
  halt?(aggregates: Readonly<Record<keyof NoInfer<Sums> & string, number>>, superstep: number): boolean;
}

const BRAND: unique symbol = Symbol.for("shardloom.vertex-program") as never;
const MAX_FIELDS = 16;
const RULES = ["sum", "min", "max"];

/**
 * Makes a vertex program of its parts; modules given to `Cluster.start({ actors })` export it, and `graph.run` is given it or its name.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the part.
 */
export function defineVertexProgram<State extends ProgramState, Sums extends ProgramSums = Record<never, never>>(
  program: VertexProgram<State, Sums>,
): VertexProgram<State, Sums> {
  checkProgram(program);
  Object.defineProperty(program, BRAND, { value: true });
  return program;
}

function checkProgram(program: VertexProgram): void {
  check("program", isObject(program) && Object.isExtensible(program), "an object that is not frozen", program);
  const { name, state, combine, along, direction, aggregate, maxSupersteps, init, compute, halt } = program;
  check("name", typeof name === "string" && name !== "", "a string that is not empty", name);
  check("state", isObject(state), "an object of kinds by field", state);
  const fields = Object.entries(state);
  check("state", fields.length >= 1 && fields.length <= MAX_FIELDS, `1 to ${MAX_FIELDS} fields`, fields.length);
  for (const [field, kind] of fields) checkOneOf(`state.${field}`, ["f64", "i32", "u32"], kind);
  checkOneOf("combine", RULES, combine);
  if (along !== undefined) checkOneOf("along", ["value", "plus-weight", "times-weight"], along);
  if (direction !== undefined) checkOneOf("direction", ["out", "both"], direction);
  check("aggregate", aggregate === undefined || isObject(aggregate), "an object of rules by name", aggregate);
  for (const [sum, rule] of Object.entries(aggregate ?? {})) checkOneOf(`aggregate.${sum}`, RULES, rule);
  const isBound = maxSupersteps === undefined || (Number.isSafeInteger(maxSupersteps) && maxSupersteps >= 1);
  check("maxSupersteps", isBound, "an integer, at least 1", maxSupersteps);
  check("init", typeof init === "function", "a function", init);
  check("compute", typeof compute === "function", "a function", compute);
  check("halt", halt === undefined || typeof halt === "function", "a function", halt);
}

function checkOneOf(name: string, allowed: readonly string[], value: unknown): void {
  const rule = allowed.map((one) => JSON.stringify(one)).join(" or ");
  check(name, allowed.includes(value as string), rule, value);
}

function check(name: string, isRight: boolean, rule: string, value: unknown): void {
  if (!isRight) throw invalidArgument("define vertex program", name, rule, value);
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a module exports a value that was made with {@link defineVertexProgram}. */
export function isVertexProgram(value: unknown): value is VertexProgram {
  return typeof value === "object" && value !== null && (value as Record<symbol, unknown>)[BRAND] === true;
}

/** What a combiner gives of nothing. */
export function identityOf(rule: Combiner): number {
  return rule === "sum" ? 0 : rule === "min" ? Number.POSITIVE_INFINITY : Number.NEGATIVE_INFINITY;
}

/**
 * What stands for no value on its way: the identity that nothing else adds up to. Of sums that is -0: it leaves every number as it is, and no sum
 * of other numbers is -0, not even of 1 and -1. Told from 0 by `Object.is` alone.
 */
export function nothingOf(rule: Combiner): number {
  return rule === "sum" ? -0 : identityOf(rule);
}

/** Two values under a rule. */
export function combined(rule: Combiner, a: number, b: number): number {
  return rule === "sum" ? a + b : rule === "min" ? Math.min(a, b) : Math.max(a, b);
}
