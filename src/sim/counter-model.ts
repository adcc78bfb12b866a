/**
 * A counter: `add` n (null: 1) answers nothing, `increment` n (null: 1) answers the new value, `read` answers the value.
 *
 * Invariant: values are exact: a history whose sums could leave int32 is refused, as a state is one.
 */
import { invalidArgument } from "../errors.ts";
import {
  type CompiledPart,
  FATE,
  findTwins,
  Interner,
  type Model,
  type ModelOperation,
  unknownOperation,
  wrongValue,
} from "./model.ts";

const MAX_SUM = 2 ** 30;

/** One counter. @param initial its value before the first operation */
export function counter(initial = 0): Model {
  return { name: "counter", compile: (operations) => compile(initial, operations) };
}

const UNKNOWN = Number.MIN_SAFE_INTEGER;

function compile(initial: number, operations: readonly ModelOperation[]): CompiledPart {
  const steps = Float64Array.from(operations, stepOf);
  const answers = Float64Array.from(operations, answerOf);
  const reach = steps.reduce((sum, step) => sum + Math.abs(step), Math.abs(initial));
  if (!(reach < MAX_SUM)) throw invalidArgument("check counter", "sum of all steps", "less than 2^30", reach);
  const effects = new Interner();
  const step = (state: number, at: number): number => {
    const after = state + (steps[at] as number);
    const answer = answers[at] as number;
    return answer === UNKNOWN || answer === after - reach ? after : -1;
  };
  return {
    // States are values moved up by the farthest that any order can go down.
    initial: initial + reach,
    step,
    fates: Uint8Array.from(operations, ({ certain }, at) => {
      if (steps[at] === 0) return certain ? FATE.OBSERVER : FATE.ABSENT;
      return certain ? FATE.CERTAIN : FATE.POSSIBLE;
    }),
    ends: Float64Array.from(operations, ({ end }) => end),
    twins: findTwins(operations, (_, at) => effects.idOf(steps[at])),
    describe: (state) => String(state - reach),
  };
}

function stepOf(operation: ModelOperation): number {
  const { f, input } = operation;
  if (f === "read") return 0;
  if (f !== "add" && f !== "increment") throw unknownOperation("counter", operation, "read, add or increment");
  const step = input ?? 1;
  if (!Number.isSafeInteger(step)) throw wrongValue("counter", operation, "value", "an integer, or null for 1");
  return step as number;
}

function answerOf(operation: ModelOperation): number {
  const { f, output } = operation;
  if (output === undefined || f === "add") return UNKNOWN;
  if (!Number.isSafeInteger(output)) throw wrongValue("counter", operation, "answer", "an integer");
  return output as number;
}
