/**
 * Explains why a part of a history is not linearizable: how far an order reaches, what cannot be placed, and the smallest part that
 * shows it.
 *
 * Invariant: every step of the reduction only gives orders more freedom: operations that change nothing are left out, others may
 * have happened or not. So what remains is not linearizable whatever the others did, and it never blames what was only left out
 * (a read whose write was removed).
 *
 * Source: Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", 2002, for the order of the attempts.
 */
import { entriesOf } from "./history.ts";
import type { Call, Violation } from "./history-types.ts";
import { searchOrder } from "./linearization-search.ts";
import { FATE, type Model, type ModelOperation } from "./model.ts";
import { canonicalJson } from "./plain-json.ts";

/** A part of a history that is not linearizable, or undecided. */
export interface LinearizabilityViolation extends Violation {
  /** The key's JSON; empty where the history is one part. */
  readonly key: string;
  /** Whether the search met its limit instead of deciding. */
  readonly undecided: boolean;
  /** The first operation, in the order of answers, that no order can hold. */
  readonly operation: Call | undefined;
  /** All answers before this index can be explained by one order. */
  readonly prefix: number;
  /** Whether `entries` shows a violation no longer when any operation is taken away; false when the reduction met its limit. */
  readonly minimal: boolean;
}

/** A part as `linearizability.ts` has it. */
interface Part {
  readonly key: string;
  readonly operations: readonly ModelOperation[];
  readonly failed: readonly ModelOperation[];
}

/** Operations compiled and configurations visited before the reduction stops. */
const REDUCTION_WORK = 2_000_000;
/** Configurations that one attempt may visit: twice what the verdict took, between these. */
const ATTEMPT_STATES = 100_000;
const MAX_ATTEMPT_STATES = 500_000;
const SHOWN_OPERATIONS = 12;
const SHOWN_CHARACTERS = 60;

/**
 * @param stuckEnd no order of the part holds all operations that have ended by then
 * @param states configurations that it took to find that out
 */
export function explainViolation(model: Model, part: Part, stuckEnd: number, states: number): LinearizabilityViolation {
  const limit = Math.min(Math.max(ATTEMPT_STATES, 2 * states), MAX_ATTEMPT_STATES);
  const prefix = firstImpossible(model, part.operations, stuckEnd, limit);
  const before = upTo(part.operations, prefix);
  const stuck = before.find(({ end }) => end === prefix) as ModelOperation;
  const { shown, minimal } = new Reduction(model, before, stuck, limit).run();
  const message = describeAll(model, part, stuck, before, shown);
  const entries = entriesOf(shown.map(({ call }) => call));
  const about = { key: part.key, undecided: false, operation: stuck.call, prefix, minimal };
  return { rule: "linearizable", message, entries, ...about };
}

/**
 * The first answer with which the history is not linearizable. That is not before `stuckEnd`, but may be after: the search knew later
 * answers of operations that were open then.
 */
function firstImpossible(model: Model, operations: readonly ModelOperation[], stuckEnd: number, limit: number): number {
  const ends = operations.map(({ end }) => end).filter((end) => end >= stuckEnd && end !== Number.POSITIVE_INFINITY);
  ends.sort((a, b) => a - b);
  const isImpossible = (at: number): boolean => {
    const before = upTo(operations, ends[at] as number);
    return searchOrder(before, model.compile(before), limit).verdict === "none";
  };
  // It is near the first mostly: steps that double until one is impossible, then halves. The last is: that is the whole history.
  let low = 0;
  let high = ends.length - 1;
  for (let step = 1; low + step - 1 < high; step *= 2) {
    if (isImpossible(low + step - 1)) high = low + step - 1;
    else low += step;
  }
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isImpossible(middle)) high = middle;
    else low = middle + 1;
  }
  return ends[high] as number;
}

function upTo(operations: readonly ModelOperation[], index: number): ModelOperation[] {
  return operations.filter(({ start }) => start < index).map((operation) => cutAt(operation, index));
}

/** What an operation is for the history up to an index: it may take effect later when it has not been answered yet. */
function cutAt(operation: ModelOperation, index: number): ModelOperation {
  if (operation.end <= index) return operation;
  return { ...operation, output: undefined, end: Number.POSITIVE_INFINITY, certain: false };
}

class Reduction {
  readonly #model: Model;
  readonly #operations: readonly ModelOperation[];
  readonly #isObserver: readonly boolean[];
  /** Operations, by place, that orders need not hold any more. */
  readonly #relaxed: Set<number> = new Set();
  readonly #stuck: ModelOperation;
  readonly #limit: number;
  #work = 0;

  constructor(model: Model, operations: readonly ModelOperation[], stuck: ModelOperation, limit: number) {
    this.#limit = limit;
    this.#model = model;
    this.#operations = operations;
    this.#stuck = stuck;
    this.#isObserver = Array.from(model.compile(operations).fates, (fate) => fate === FATE.OBSERVER);
  }

  run(): { readonly shown: readonly ModelOperation[]; readonly minimal: boolean } {
    this.#cutFront();
    for (let size = this.#kept().length; size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
      const kept = this.#kept();
      for (let from = 0; from < kept.length; from += size) this.#tryRelax(kept.slice(from, from + size));
    }
    const shown = this.#operations.filter((operation, at) => operation.certain && !this.#relaxed.has(at));
    return { shown, minimal: this.#work < REDUCTION_WORK };
  }

  /** What is long over mostly does not matter: tries the last few operations alone, then more. */
  #cutFront(): void {
    const kept = this.#kept();
    for (let size = 4; size < kept.length; size *= 4) if (this.#tryRelax(kept.slice(0, -size))) return;
  }

  /** Places of the operations that are held to, but for the one that is explained. */
  #kept(): number[] {
    return [...this.#operations.keys()].filter((at) => {
      const operation = this.#operations[at] as ModelOperation;
      return operation.certain && !this.#relaxed.has(at) && operation !== this.#stuck;
    });
  }

  #tryRelax(places: readonly number[]): boolean {
    if (this.#work >= REDUCTION_WORK || places.length === 0) return false;
    for (const at of places) this.#relaxed.add(at);
    const operations: ModelOperation[] = [];
    for (const [at, operation] of this.#operations.entries()) {
      if (!this.#relaxed.has(at)) operations.push(operation);
      else if (this.#isObserver[at] !== true) operations.push({ ...operation, certain: false });
    }
    const { verdict, states } = searchOrder(operations, this.#model.compile(operations), this.#limit);
    this.#work += states + operations.length;
    if (verdict === "none") return true;
    for (const at of places) this.#relaxed.delete(at);
    return false;
  }
}

function describeAll(
  model: Model,
  part: Part,
  stuck: ModelOperation,
  before: readonly ModelOperation[],
  shown: readonly ModelOperation[],
): string {
  const where = part.key === "" ? "" : `key ${part.key}: `;
  const others = before.filter((operation) => operation !== stuck);
  const earlier = others.filter(({ certain }) => certain).length;
  const list = shown.slice(0, SHOWN_OPERATIONS).map((operation) => `\n  ${describeOperation(operation)}`);
  if (shown.length > SHOWN_OPERATIONS) list.push(`\n  and ${shown.length - SHOWN_OPERATIONS} more`);
  return (
    `${where}no order explains ${describeOperation(stuck)}. The ${earlier} operations answered before have an order` +
    `${describeEnd(model, others)}.${describeOrigin(model, part, stuck)} Whatever all others did, these cannot be ordered:${list.join("")}`
  );
}

/** Where one order of the operations before leaves the object. */
function describeEnd(model: Model, operations: readonly ModelOperation[]): string {
  const compiled = model.compile(operations);
  const { verdict, order, last } = searchOrder(operations, compiled, ATTEMPT_STATES);
  if (verdict !== "found") return "";
  // States may stand for many values that nobody reads: the last change says which.
  const lefts = order.map((at) => model.values?.(operations[at] as ModelOperation).left);
  const left = lefts.findLast((value) => value !== undefined);
  return ` (one leaves the ${model.name} at ${left === undefined ? compiled.describe(last) : shorten(canonicalJson(left))})`;
}

/** Who made the value that was seen. */
function describeOrigin(model: Model, part: Part, stuck: ModelOperation): string {
  const { seen } = model.values?.(stuck) ?? {};
  if (model.values === undefined || seen === undefined) return "";
  const text = canonicalJson(seen);
  const makers = [...part.operations, ...part.failed].filter((operation) => {
    const left = model.values?.(operation).left;
    return left !== undefined && canonicalJson(left) === text;
  });
  if (makers.length === 0) return ` Nobody wrote ${shorten(text)}.`;
  const [first] = makers;
  const rest = makers.length === 1 ? "" : ` and ${makers.length - 1} more`;
  return ` ${shorten(text)} is from ${describeOperation(first as ModelOperation)}${rest}.`;
}

function describeOperation({ call, f, input, output, certain }: ModelOperation): string {
  const { invoke, completion } = call;
  const argument = input === null ? "" : ` ${shorten(canonicalJson(input))}`;
  const answer = certain && output !== null && output !== undefined ? ` → ${shorten(canonicalJson(output))}` : "";
  const nothing = certain && output === null && input === null ? " → null" : "";
  const outcome = call.outcome === "ok" ? "" : `, ${call.outcome}`;
  const span = completion === undefined ? `from index ${invoke.index}` : `index ${invoke.index} to ${completion.index}`;
  return `${f}${argument}${answer}${nothing} by process ${invoke.process} (${span}${outcome})`;
}

function shorten(text: string): string {
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS - 3)}...` : text;
}
