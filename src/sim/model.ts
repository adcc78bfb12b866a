/**
 * What a sequential object allows, in the form that the search for linearisations runs on: states and operations are numbers.
 *
 * Invariant: a compiled part accepts an order of its operations exactly when the object does, whatever it leaves out or brings
 * forward: a {@link FATE.ABSENT} operation can be put in or left out of any order, and an end is moved only to where it must lie.
 */
import { describeValue, invalidArgument } from "../errors.ts";
import type { Call } from "./history-types.ts";
import { canonicalJson } from "./plain-json.ts";

/** An operation of one part of a history, as its model sees it. */
export interface ModelOperation {
  readonly call: Call;
  readonly f: string;
  readonly input: unknown;
  /** `undefined` when nobody knows. */
  readonly output: unknown;
  /** Index of the invocation. */
  readonly start: number;
  /** Index of the answer; infinite when it may take effect at any later time. */
  readonly end: number;
  /** Whether it took effect; if not, it may have. */
  readonly certain: boolean;
}

/** What becomes of an operation in the search. */
export const FATE = {
  /** It makes no difference. */
  ABSENT: 0,
  /** It took effect and changes no state, whatever the state. */
  OBSERVER: 1,
  /** It took effect. */
  CERTAIN: 2,
  /** It took effect between its start and its end, or never. */
  POSSIBLE: 3,
} as const;

/** A part of a history made ready for the search. All arrays have one entry an operation. */
export interface CompiledPart {
  /** States are integers in `[0, 2^31)`. */
  readonly initial: number;
  /** The state after an operation, -1 where the object would not have answered so. */
  step(state: number, operation: number): number;
  readonly fates: Uint8Array;
  readonly ends: Float64Array;
  /** An operation without an end and with the same effect that goes first, as it began earlier; -1 without one. */
  readonly twins: Int32Array;
  /** The state for people. */
  describe(state: number): string;
}

/** A sequential object. */
export interface Model {
  readonly name: string;
  /** Splits histories into parts that do not know each other (P-compositionality). @default one part */
  readonly split?: (call: Call) => { readonly key: string; readonly input: unknown; readonly output: unknown };
  /** The value that an operation looked at and the one that it leaves, where there are such: for explanations. */
  readonly values?: (operation: ModelOperation) => { readonly seen?: unknown; readonly left?: unknown };
  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for an operation or value that the object does not have */
  compile(operations: readonly ModelOperation[]): CompiledPart;
}

/** A sequential object written as a function. States, inputs and outputs are plain JSON. */
export interface SequentialSpec<State> {
  readonly name: string;
  readonly initial: State;
  /** Names of operations that change nothing. */
  readonly observers?: readonly string[];
  /**
   * The state after an operation, `undefined` when the object would not have answered so. States are never changed in place.
   *
   * @param output `undefined` for an operation whose answer nobody knows: any answer will do
   */
  step(state: State, f: string, input: unknown, output: unknown): State | undefined;
  /** See {@link Model.split}. */
  readonly split?: Model["split"];
}

/** Numbers for values: equal values, equal numbers. */
export class Interner {
  readonly values: unknown[] = [];
  readonly #primitives: Map<unknown, number> = new Map();
  readonly #objects: Map<string, number> = new Map();

  /** The number of a plain value, a new one for a new value. */
  idOf(value: unknown): number {
    const isObject = typeof value === "object" && value !== null;
    const key = isObject ? canonicalJson(value) : value;
    const ids: Map<unknown, number> = isObject ? this.#objects : this.#primitives;
    let id = ids.get(key);
    if (id === undefined) {
      id = this.values.push(value) - 1;
      ids.set(key, id);
    }
    return id;
  }
}

/** Makes a model from a function. */
export function defineModel<State>(spec: SequentialSpec<State>): Model {
  const { name, split } = spec;
  const compile = (operations: readonly ModelOperation[]): CompiledPart => compileSpec(spec, operations);
  return split === undefined ? { name, compile } : { name, split, compile };
}

function compileSpec<State>(spec: SequentialSpec<State>, operations: readonly ModelOperation[]): CompiledPart {
  const states = new Interner();
  const effects = new Interner();
  const known = new Map<number, number>();
  const compute = (state: number, operation: number): number => {
    const { f, input, output } = operations[operation] as ModelOperation;
    const after = spec.step(states.values[state] as State, f, input, output);
    return after === undefined ? -1 : states.idOf(after);
  };
  const step = (state: number, operation: number): number => {
    const key = state * operations.length + operation;
    const before = known.get(key);
    if (before !== undefined) return before;
    const after = compute(state, operation);
    known.set(key, after);
    return after;
  };
  const isObserver = (f: string): boolean => spec.observers?.includes(f) === true;
  return {
    initial: states.idOf(spec.initial),
    step,
    fates: Uint8Array.from(operations, ({ f, certain }) => {
      if (!certain) return isObserver(f) ? FATE.ABSENT : FATE.POSSIBLE;
      return isObserver(f) ? FATE.OBSERVER : FATE.CERTAIN;
    }),
    ends: Float64Array.from(operations, ({ end }) => end),
    twins: findTwins(operations, (operation) => effects.idOf([operation.f, operation.input])),
    describe: (state) => canonicalJson(states.values[state]),
  };
}

/**
 * For operations without an end: the one with the same effect that began last before it. When one of two equal operations that may
 * happen at any time happens at all, it may as well be the earlier.
 */
export function findTwins(
  operations: readonly ModelOperation[],
  effectOf: (operation: ModelOperation, at: number) => number,
): Int32Array {
  const latest = new Map<number, number>();
  return Int32Array.from(operations, (operation, at) => {
    if (operation.end !== Number.POSITIVE_INFINITY || operation.certain) return -1;
    const effect = effectOf(operation, at);
    const twin = latest.get(effect) ?? -1;
    latest.set(effect, at);
    return twin;
  });
}

/** The error for an operation that a model does not have. */
export function unknownOperation(model: string, operation: ModelOperation, names: string): Error {
  return invalidArgument(`check ${model}`, `f at index ${operation.start}`, names, operation.f);
}

/** The error for a value that an operation of a model cannot have. */
export function wrongValue(model: string, operation: ModelOperation, what: string, rule: string): Error {
  const value = what === "answer" ? operation.output : operation.input;
  const where = what === "answer" ? operation.end : operation.start;
  const shown = typeof value === "object" && value !== null ? canonicalJson(value).slice(0, 80) : describeValue(value);
  return invalidArgument(
    `check ${model}`,
    `${what} of ${operation.f} at index ${where}`,
    `${rule} (found ${shown})`,
    value,
  );
}
