/**
 * Histories for tests of checkers: what a real object answers to overlapping clients, the same with wrong answers, and a slow oracle.
 *
 * Invariant: the oracle shares nothing with what it judges but the entries: it tries every order of every choice of operations.
 */
import type { Random } from "../../src/runtime/random.ts";
import { History } from "../../src/sim/history.ts";
import type { Call } from "../../src/sim/history-types.ts";

/** A sequential object that changes in place of the truth: its state, and what it answers. */
export interface TrueObject {
  readonly initial: unknown;
  /** Draws an operation. @param state the true state now */
  draw(random: Random, state: unknown): { readonly f: string; readonly value: unknown };
  /** State and answer after an operation; "refused" ends it as `fail`, as nothing happened. */
  apply(state: unknown, f: string, value: unknown): { readonly state: unknown; readonly answer: unknown } | "refused";
  /** Another answer of the same shape. */
  lie(random: Random, f: string, answer: unknown): unknown;
}

export interface Shape {
  readonly processes: number;
  readonly operations: number;
  /** Chance that an operation ends as info, whether it happened or not. */
  readonly info?: number;
  /** Chance that an answer is a lie. */
  readonly lies?: number;
}

export const below = (random: Random, count: number): number => Math.floor(random.float() * count);

/** Runs clients against an object that takes each operation at one moment: linearizable unless answers are lies. */
export function record(random: Random, object: TrueObject, shape: Shape): History {
  const { processes, operations, info = 0, lies = 0 } = shape;
  const history = new History();
  let state = object.initial;
  let left = operations;
  /** By process: what is open, and its result once it happened. */
  const open = new Map<number, { f: string; value: unknown; result?: ReturnType<TrueObject["apply"]> }>();
  while (left > 0 || open.size > 0) {
    const process = below(random, processes);
    const operation = open.get(process);
    if (operation === undefined) {
      if (left-- <= 0) continue;
      const drawn = object.draw(random, state);
      history.invoke(process, drawn.f, drawn.value);
      open.set(process, { ...drawn });
    } else if (operation.result === undefined) {
      if (random.float() < info / 2) {
        history.info(process, "ERR_TIMEOUT"); // and it never happens
        open.delete(process);
        continue;
      }
      operation.result = object.apply(state, operation.f, operation.value);
      if (operation.result !== "refused") state = operation.result.state;
    } else {
      open.delete(process);
      if (operation.result === "refused") history.fail(process, "ERR_UNAVAILABLE");
      else if (random.float() < info / 2) history.info(process, "ERR_TIMEOUT");
      else if (random.float() >= lies) history.ok(process, operation.result.answer);
      else history.ok(process, object.lie(random, operation.f, operation.result.answer));
    }
  }
  return history;
}

/** A register with few values, so that lies are often true. */
export function trueRegister(values: number): TrueObject {
  return {
    initial: null,
    draw(random, state) {
      const kind = random.float();
      if (kind < 0.45) return { f: "read", value: null };
      if (kind < 0.75) return { f: "write", value: random.float() < 0.1 ? null : below(random, values) };
      return { f: "cas", value: [random.float() < 0.6 ? state : below(random, values), below(random, values)] };
    },
    apply(state, f, value) {
      if (f === "read") return { state, answer: state };
      if (f === "write") return { state: value, answer: null };
      const [from, to] = value as [unknown, unknown];
      if (from === state) return { state: to, answer: true };
      return state === 0 ? { state, answer: false } : "refused";
    },
    lie(random, f, answer) {
      if (f === "read") return random.float() < 0.1 ? null : below(random, values);
      return f === "cas" ? answer !== true : answer;
    },
  };
}

export const trueCounter: TrueObject = {
  initial: 0,
  draw(random) {
    const kind = random.float();
    if (kind < 0.35) return { f: "read", value: null };
    if (kind < 0.7) return { f: "add", value: below(random, 5) - 2 };
    return { f: "increment", value: random.float() < 0.5 ? null : below(random, 4) };
  },
  apply(state, f, value) {
    if (f === "read") return { state, answer: state };
    const after = (state as number) + ((value as number | null) ?? 1);
    return { state: after, answer: f === "add" ? null : after };
  },
  lie: (random, f, answer) => (f === "add" ? answer : (answer as number) + below(random, 3) - 1),
};

/** Whether some order of the operations, as they overlap, is one that the object would have given. For about 8 operations. */
export function hasOrder(calls: readonly Call[], object: Pick<TrueObject, "initial" | "apply">): boolean {
  const operations = calls.filter(({ outcome }) => outcome !== "fail");
  const endOf = ({ outcome, completion }: Call): number =>
    outcome === "ok" ? (completion?.index as number) : Number.POSITIVE_INFINITY;
  const extend = (left: readonly Call[], state: unknown): boolean => {
    if (left.every(({ outcome }) => outcome === "info")) return true;
    const firstEnd = Math.min(...left.map(endOf));
    return left.some((call) => {
      if (call.invoke.index > firstEnd) return false;
      const result = object.apply(state, call.invoke.f, call.invoke.value);
      if (!answers(call, result)) return false;
      return extend(
        left.filter((other) => other !== call),
        result === "refused" ? state : result.state,
      );
    });
  };
  return extend(operations, object.initial);
}

function answers(call: Call, result: ReturnType<TrueObject["apply"]>): boolean {
  if (call.outcome === "info") return result !== "refused";
  // A register of tests refuses a comparison by failing or by answering false: an answer of false is both.
  const answer = result === "refused" ? false : result.answer;
  return JSON.stringify(answer) === JSON.stringify(call.completion?.value);
}
