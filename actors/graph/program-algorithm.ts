/**
 * A user's vertex program as an algorithm of the runtime.
 *
 * Invariant: a program that throws ends its run with an error that names the vertex, and nothing else. A vertex that sleeps computes when something
 * was sent to it, also when that adds up to 0: what was sent is never what stands for nothing. Its state is rounded to the kinds
 * that it declares; a hidden field says who is awake, so that saved state is whole.
 */
import { invalidArgument } from "../../src/errors.ts";
import type { RunView, ShardAlgorithm } from "./algorithm.ts";
import { programFailed, refusePromise } from "./program-calls.ts";
import type { VertexKey } from "./vertex-key.ts";
import { combined, identityOf, nothingOf, type VertexContext, type VertexProgram } from "./vertex-program.ts";

/** The algorithm that runs a program. */
export function algorithmOfProgram(program: VertexProgram): ShardAlgorithm {
  const names = Object.keys(program.state);
  const aggregates = Object.entries(program.aggregate ?? {});
  const vertex = new ProgramVertex(
    program,
    names,
    aggregates.map(([name]) => name),
  );
  return {
    fields: names.length + 1,
    results: names.length,
    kind: "combined",
    slice: 512,
    combine: program.combine,
    way: program.along ?? "value",
    direction: program.direction ?? "out",
    aggregates: aggregates.map(([, rule]) => rule),
    compute: (view, from, to) => vertex.computeAll(view, from, to),
  };
}

/** One object for all vertices. */
class ProgramVertex implements VertexContext {
  key: VertexKey = 0;
  superstep = 0;
  vertices = 0;
  degree = 0;
  params: Readonly<Record<string, unknown>> = {};
  aggregates: Readonly<Record<string, number>> = {};
  readonly #program: VertexProgram;
  readonly #names: readonly string[];
  readonly #places: ReadonlyMap<string, number>;
  readonly #kinds: readonly string[];
  readonly #sums: readonly string[];
  #view!: RunView;
  #row = 0;
  #sent = 0;
  #awake = 1;

  constructor(program: VertexProgram, names: readonly string[], sums: readonly string[]) {
    this.#program = program;
    this.#names = names;
    this.#places = new Map(names.map((name, at) => [name, at]));
    this.#kinds = Object.values(program.state);
    this.#sums = sums;
  }

  computeAll(view: RunView, from: number, to: number): void {
    const program = this.#program;
    const nothing = nothingOf(program.combine);
    const awake = view.fields[this.#names.length] as Float64Array;
    this.#view = view;
    this.superstep = view.superstep;
    this.vertices = view.vertices;
    this.params = view.params;
    this.aggregates = Object.fromEntries(
      this.#sums.map((name, at) => [
        name,
        view.superstep === 0 ? identityOf(ruleOf(program, name)) : (view.before[at] as number),
      ]),
    );
    for (let row = from; row < to; row++) {
      const message = view.superstep === 0 ? nothing : (view.incoming[row] as number);
      this.#sent = nothing;
      const wasSentTo = !Object.is(message, nothing);
      if (view.superstep === 0 || wasSentTo || awake[row] === 1) {
        this.#compute(row, wasSentTo ? message : undefined);
        const sends = !Object.is(this.#sent, nothing);
        awake[row] = this.#awake;
        if (this.#awake === 1 || sends) view.active++;
        if (sends) view.activeEdges += view.degrees[row] as number;
      }
      view.outbox[row] = this.#sent;
    }
  }

  get(field: string): number {
    return (this.#view.fields[this.#place(field)] as Float64Array)[this.#row] as number;
  }

  property(name: string): number | string | undefined {
    return this.#view.properties.get(this.#row, name);
  }

  set(field: string, value: number): void {
    if (typeof value !== "number") throw invalidArgument("set", field, "a number", value);
    const place = this.#place(field);
    const kind = this.#kinds[place];
    const rounded = kind === "f64" ? value : kind === "i32" ? value | 0 : value >>> 0;
    (this.#view.fields[place] as Float64Array)[this.#row] = rounded;
  }

  send(value: number): void {
    checkNumber("send", "value", value);
    this.#sent = value + 0; // never -0, which stands for nothing
  }

  aggregate(name: string, value: number): void {
    const at = this.#sums.indexOf(name);
    if (at < 0) throw invalidArgument("aggregate", "name", `one of ${this.#sums.join(", ")}`, name);
    checkNumber("aggregate", name, value);
    const { sums } = this.#view;
    sums[at] = combined(ruleOf(this.#program, name), sums[at] as number, value);
  }

  sleep(): void {
    this.#awake = 0;
  }

  #compute(row: number, message: number | undefined): void {
    const view = this.#view;
    this.#row = row;
    this.#awake = 1;
    this.key = view.table.keyOf(row);
    this.degree = view.degrees[row] as number;
    try {
      refusePromise(view.superstep === 0 ? this.#program.init(this) : this.#program.compute(this, message));
    } catch (error) {
      throw programFailed(this.#program, { vertex: this.key, superstep: view.superstep }, error);
    }
  }

  #place(field: string): number {
    const place = this.#places.get(field);
    if (place === undefined) throw invalidArgument("use state", "field", `one of ${this.#names.join(", ")}`, field);
    return place;
  }
}

function checkNumber(action: string, name: string, value: number): void {
  if (typeof value !== "number" || Number.isNaN(value)) throw invalidArgument(action, name, "a number", value);
}

function ruleOf(program: VertexProgram, name: string): "sum" | "min" | "max" {
  return program.aggregate?.[name] ?? "sum";
}
