/**
 * Decides whether a history is linearizable: whether every operation can be given one moment between its invocation and its answer
 * so that, in the order of these moments, one object would have answered the same.
 *
 * Invariant: "linearizable" is said only when every part has such an order, "not linearizable" only when some part has none; what meets
 * the limit of states is "undecided", which is not valid. `fail` operations never took effect; `info` ones and those that were still
 * open took effect at any later time, or never.
 *
 * Source: Herlihy and Wing, "Linearizability: a correctness condition for concurrent objects", 1990; Horn and Kroening, "Faster
 * linearizability checking via P-compositionality", 2015. The search is in `linearization-search.ts`.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import { explainViolation, type LinearizabilityViolation } from "./counterexample.ts";
import { pairCalls } from "./history.ts";
import type { Call, HistoryEntry } from "./history-types.ts";
import { searchOrder } from "./linearization-search.ts";
import type { Model, ModelOperation } from "./model.ts";
import { keyValue, register } from "./register-model.ts";

export interface LinearizabilityOptions {
  /** Configurations visited a part before it is left undecided. @default 2_000_000 */
  readonly maxStates?: number;
}

export interface LinearizabilityResult {
  readonly verdict: "linearizable" | "not linearizable" | "undecided";
  /** Whether the verdict is "linearizable". */
  readonly valid: boolean;
  /** Name of the model. */
  readonly model: string;
  /** Operations checked: all but those that failed. */
  readonly operations: number;
  /** Parts that were checked apart from each other: keys. */
  readonly parts: number;
  /** Configurations visited in all parts, the work of explaining not counted. */
  readonly states: number;
  /** One for every part without an order, and one for every part that is undecided. */
  readonly violations: readonly LinearizabilityViolation[];
  /** @throws {ShardloomError} `ERR_VIOLATION` unless valid; the message explains the first violation. */
  assert(): void;
}

const DEFAULT_MAX_STATES = 2_000_000;

/** A part of a history that is independent of the others. */
export interface HistoryPart {
  /** Empty when the history is one part; else the key's JSON. */
  readonly key: string;
  readonly operations: readonly ModelOperation[];
  /** Operations that certainly did not happen: for explanations. */
  readonly failed: readonly ModelOperation[];
}

/**
 * Checks a history against a sequential object.
 *
 * Cost: about 1 µs for an operation where few overlap; exponential in the number of overlapping changes at worst.
 *
 * @param model @default `keyValue()` or `register()`, by the values of its `read`, `write` and `cas` operations: the first when all are
 *   pairs [key, value]
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for operations or values that the model does not have, `ERR_CORRUPT` when the
 *   entries are not a history.
 *
 * @example Check what a world recorded
 * linearizable((await world.run(workload)).history).assert();
 */
export function linearizable(
  history: Iterable<HistoryEntry>,
  model?: Model,
  options: LinearizabilityOptions = {},
): LinearizabilityResult {
  const { maxStates = DEFAULT_MAX_STATES } = options;
  if (!Number.isSafeInteger(maxStates) || maxStates < 1)
    throw invalidArgument("check history", "maxStates", "an integer of at least 1", maxStates);
  const calls = pairCalls(history);
  const chosen = model ?? inferModel(calls);
  const parts = splitHistory(calls, chosen);
  const violations: LinearizabilityViolation[] = [];
  let states = 0;
  for (const part of parts) {
    const compiled = chosen.compile(part.operations);
    const result = searchOrder(part.operations, compiled, maxStates);
    states += result.states;
    if (result.verdict === "none")
      violations.push(explainViolation(chosen, part, compiled.ends[result.stuck] as number, result.states));
    if (result.verdict === "undecided") violations.push(undecided(part, result.states));
  }
  const isWrong = violations.some(({ undecided }) => !undecided);
  const verdict = isWrong ? "not linearizable" : violations.length > 0 ? "undecided" : "linearizable";
  const operations = parts.reduce((sum, part) => sum + part.operations.length, 0);
  const result = {
    verdict,
    valid: verdict === "linearizable",
    model: chosen.name,
    operations,
    parts: parts.length,
  } as const;
  return { ...result, states, violations, assert: () => assertValid(violations) };
}

function assertValid(violations: readonly LinearizabilityViolation[]): void {
  const first = violations.find(({ undecided }) => !undecided) ?? violations[0];
  if (first === undefined) return;
  const rest = violations.length === 1 ? "" : `\nand ${violations.length - 1} other parts`;
  throw new ShardloomError("ERR_VIOLATION", `${first.message}${rest}`, {
    details: { rule: first.rule, key: first.key, undecided: first.undecided, violations: violations.length },
  });
}

function undecided(part: HistoryPart, states: number): LinearizabilityViolation {
  const where = part.key === "" ? "the history" : `key ${part.key}`;
  const message =
    `${where} is undecided: ${states} states were visited without an answer. ` +
    `Fewer clients a key, fewer operations that end as info, or a larger maxStates help.`;
  const operation = part.operations[0]?.call;
  return {
    rule: "linearizable",
    message,
    entries: [],
    key: part.key,
    undecided: true,
    minimal: false,
    operation,
    prefix: 0,
  };
}

/** Operations of each part as the model sees them, in the order of their invocations. */
function splitHistory(calls: readonly Call[], model: Model): HistoryPart[] {
  const parts = new Map<string, { key: string; operations: ModelOperation[]; failed: ModelOperation[] }>();
  for (const call of calls) {
    const { invoke, completion, outcome } = call;
    const certain = outcome === "ok";
    const known = { key: "", input: invoke.value, output: certain ? completion?.value : undefined };
    const { key, input, output } = model.split?.(call) ?? known;
    const part = parts.get(key) ?? { key, operations: [], failed: [] };
    parts.set(key, part);
    const end = certain && completion !== undefined ? completion.index : Number.POSITIVE_INFINITY;
    const operation = { call, f: invoke.f, input, output, start: invoke.index, end, certain };
    (outcome === "fail" ? part.failed : part.operations).push(operation);
  }
  return [...parts.values()];
}

const REGISTER_NAMES: readonly string[] = ["read", "write", "cas"];

/**
 * Key-value or one register: a read that asks with [key, …] or without decides; where there is none, a cas with [key, [from, to]]
 * does; else writes are keyed when all of them write pairs.
 */
function inferModel(calls: readonly Call[]): Model {
  for (const { invoke } of calls)
    if (!REGISTER_NAMES.includes(invoke.f))
      throw invalidArgument("infer model", `f at index ${invoke.index}`, "read, write or cas", invoke.f);
  const isPair = (value: unknown): boolean => Array.isArray(value) && value.length === 2;
  const valuesOf = (f: string): unknown[] =>
    calls.filter(({ invoke }) => invoke.f === f).map(({ invoke }) => invoke.value);
  const [reads = [], writes = [], changes = []] = ["read", "write", "cas"].map(valuesOf);
  const isKeyed = (value: unknown): boolean => isPair(value) && isPair((value as unknown[])[1]);
  const signs = reads.length > 0 ? reads.map(isPair) : changes.length > 0 ? changes.map(isKeyed) : writes.map(isPair);
  if (signs.length > 0 && signs.every((sign) => sign)) return keyValue();
  if (signs.every((sign) => !sign) || reads.length === 0) return register();
  throw invalidArgument("infer model", "value of reads", "[key, null] in all or none of them", "both");
}
