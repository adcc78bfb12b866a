/**
 * Registers and key-value stores: `read`, `write` and `cas` ("compare and set").
 *
 * Shapes, as Jepsen writes them: `write` v; `cas` [from, to], which fails as `fail` or by answering false; `read` null, which answers
 * the value. In a key-value history every value is [key, that].
 *
 * Invariant: what {@link compile} leaves out or brings forward changes no verdict. Each rule says why:
 * - A value that nobody compares or reads is one value like any other such.
 * - A possible write of such a value is left out: an order without it is an order still. (Not where a comparison failed: any value does there.)
 * - A possible write that alone gives a value that was read took effect before the first such read ended.
 * - A possible change directly before a write, or to the value that is there, is as if it had not happened. So the search does not
 *   take it: states carry whether the last change was only possible.
 */
import type { Call } from "./history-types.ts";
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
import { canonicalJson } from "./plain-json.ts";

/** One register. @param initial its value before the first write */
export function register(initial: unknown = null): Model {
  return { name: "register", values: valuesOf, compile: (operations) => compile("register", initial, operations) };
}

/** Registers by key. @param initial the value of every key before its first write */
export function keyValue(initial: unknown = null): Model {
  const name = "key-value store";
  return { name, split: splitByKey, values: valuesOf, compile: (operations) => compile(name, initial, operations) };
}

function valuesOf({ f, input, output }: ModelOperation): { readonly seen?: unknown; readonly left?: unknown } {
  if (f === "read") return { seen: output };
  if (f === "write") return { left: input };
  const [seen, left] = Array.isArray(input) ? (input as unknown[]) : [];
  return output === false ? {} : { seen, left };
}

/** Takes the key out of values: [key, value]. An answer that is no such pair stands for itself, unless it answers a read. */
function splitByKey(call: Call): { key: string; input: unknown; output: unknown } {
  const { invoke, completion, outcome } = call;
  const pair = invoke.value;
  if (!Array.isArray(pair) || pair.length !== 2) throw wrongPair(call, invoke.value, "value", invoke.index);
  const [key, input] = pair as [unknown, unknown];
  const name = canonicalJson(key);
  if (outcome !== "ok" || completion === undefined) return { key: name, input, output: undefined };
  const answer = completion.value;
  const isPair = Array.isArray(answer) && answer.length === 2 && canonicalJson(answer[0]) === name;
  if (!isPair && invoke.f === "read") throw wrongPair(call, answer, "answer", completion.index);
  return { key: name, input, output: isPair ? (answer as unknown[])[1] : answer };
}

function wrongPair(call: Call, value: unknown, what: "value" | "answer", index: number): Error {
  const { invoke, outcome } = call;
  const operation = {
    call,
    f: invoke.f,
    input: value,
    output: value,
    start: index,
    end: index,
    certain: outcome === "ok",
  };
  return wrongValue("key-value store", operation, what, "a pair of key and value");
}

/** Stands for every value that nobody looks at. */
const UNSEEN = "a value that nobody reads";

const KIND = { READ: 0, WRITE: 1, CAS: 2, CAS_FAILED: 3 } as const;

/** Operations as numbers: value read, written, or compared with; value set by a cas. */
interface Table {
  readonly kinds: Uint8Array;
  readonly first: Int32Array;
  readonly second: Int32Array;
  readonly values: Interner;
  readonly initial: number;
}

function compile(name: string, initial: unknown, operations: readonly ModelOperation[]): CompiledPart {
  const table = readTable(name, initial, operations);
  const { kinds, first, second, values } = table;
  const fates = Uint8Array.from(operations, ({ certain }, at) => fateOf(kinds[at] as number, certain));
  const ends = Float64Array.from(operations, ({ end }) => end);
  mergeUnseen(table, fates);
  dropUnseen(table, fates);
  bringForward(table, operations, fates, ends);
  const step = (state: number, at: number): number => {
    const value = state >> 1;
    const target = first[at] as number;
    const isPossible = fates[at] === FATE.POSSIBLE;
    switch (kinds[at]) {
      case KIND.READ:
        return value === target ? value << 1 : -1;
      case KIND.CAS_FAILED:
        return value === target ? -1 : value << 1;
      case KIND.WRITE:
        if ((state & 1) === 1 || (isPossible && value === target)) return -1;
        return (target << 1) | (isPossible ? 1 : 0);
      default: {
        const to = second[at] as number;
        if (value !== target || (isPossible && to === target)) return -1;
        return (to << 1) | (isPossible ? 1 : 0);
      }
    }
  };
  return {
    initial: table.initial << 1,
    step,
    fates,
    ends,
    twins: findTwins(operations, (_, at) => pairNumber(kinds, first, second, values, at)),
    describe: (state) => {
      const value = values.values[state >> 1];
      return state >> 1 === values.values.indexOf(UNSEEN) ? UNSEEN : canonicalJson(value);
    },
  };
}

function pairNumber(kinds: Uint8Array, first: Int32Array, second: Int32Array, values: Interner, at: number): number {
  const count = values.values.length;
  return ((first[at] as number) * count + (second[at] as number)) * 4 + (kinds[at] as number);
}

function fateOf(kind: number, isCertain: boolean): number {
  if (kind === KIND.READ || kind === KIND.CAS_FAILED) return isCertain ? FATE.OBSERVER : FATE.ABSENT;
  return isCertain ? FATE.CERTAIN : FATE.POSSIBLE;
}

function readTable(name: string, initial: unknown, operations: readonly ModelOperation[]): Table {
  const values = new Interner();
  const kinds = new Uint8Array(operations.length);
  const first = new Int32Array(operations.length);
  const second = new Int32Array(operations.length);
  const start = values.idOf(initial);
  for (const [at, operation] of operations.entries()) {
    const { f, input, output } = operation;
    if (f === "read") {
      kinds[at] = KIND.READ;
      if (operation.certain) first[at] = values.idOf(output);
    } else if (f === "write") {
      kinds[at] = KIND.WRITE;
      first[at] = values.idOf(input);
    } else if (f === "cas") {
      if (!Array.isArray(input) || input.length !== 2) throw wrongValue(name, operation, "value", "[from, to]");
      kinds[at] = output === false ? KIND.CAS_FAILED : KIND.CAS;
      first[at] = values.idOf(input[0]);
      second[at] = values.idOf(input[1]);
    } else throw unknownOperation(name, operation, "read, write or cas");
  }
  return { kinds, first, second, values, initial: start };
}

/** Whether each value is looked at by an operation that takes part. */
function seenValues({ kinds, first, values }: Table, fates: Uint8Array): Uint8Array {
  const seen = new Uint8Array(values.values.length);
  for (const [at, kind] of kinds.entries())
    if (kind !== KIND.WRITE && fates[at] !== FATE.ABSENT) seen[first[at] as number] = 1;
  return seen;
}

/** Gives all values that nobody looks at one number, so that they are one state. */
function mergeUnseen(table: Table, fates: Uint8Array): void {
  const { kinds, first, second, values } = table;
  const seen = seenValues(table, fates);
  const shared = values.values.push(UNSEEN) - 1;
  for (const [at, kind] of kinds.entries()) {
    if (kind === KIND.WRITE && seen[first[at] as number] === 0) first[at] = shared;
    if (kind === KIND.CAS && seen[second[at] as number] === 0) second[at] = shared;
  }
}

/** Leaves out possible changes to what nobody looks at, and those that then nobody looks at, and so on. */
function dropUnseen(table: Table, fates: Uint8Array): void {
  const { kinds, first, second } = table;
  if (kinds.some((kind, at) => kind === KIND.CAS_FAILED && fates[at] !== FATE.ABSENT)) return;
  for (let dropped = -1; dropped !== 0; ) {
    dropped = 0;
    const seen = seenValues(table, fates);
    for (const [at, kind] of kinds.entries()) {
      if (fates[at] !== FATE.POSSIBLE) continue;
      if (seen[(kind === KIND.CAS ? second[at] : first[at]) as number] === 1) continue;
      fates[at] = FATE.ABSENT;
      dropped++;
    }
  }
}

/** Makes the only source of a value that was certainly looked at certain, with an end before the first such look ended. */
function bringForward(
  table: Table,
  operations: readonly ModelOperation[],
  fates: Uint8Array,
  ends: Float64Array,
): void {
  const { kinds, first, second, values, initial } = table;
  const sources = new Int32Array(values.values.length);
  const firstLook = new Float64Array(values.values.length).fill(Number.POSITIVE_INFINITY);
  for (const [at, kind] of kinds.entries()) {
    if (fates[at] === FATE.ABSENT) continue;
    const value = first[at] as number;
    if (kind === KIND.WRITE) sources[value] = (sources[value] as number) + 1;
    if (kind === KIND.CAS) sources[second[at] as number] = (sources[second[at] as number] as number) + 1;
    const isLook = kind === KIND.READ || (kind === KIND.CAS && fates[at] === FATE.CERTAIN);
    if (isLook) firstLook[value] = Math.min(firstLook[value] as number, ends[at] as number);
  }
  for (const [at, kind] of kinds.entries()) {
    if (fates[at] !== FATE.POSSIBLE) continue;
    const value = (kind === KIND.CAS ? second[at] : first[at]) as number;
    // Half a step before: between two indices, so that no two events share a time.
    const end = Math.min(ends[at] as number, (firstLook[value] as number) - 0.5);
    const isOnly = value !== initial && sources[value] === 1;
    // A look that ended before the change began is no proof of it; the search will find nothing.
    if (!isOnly || firstLook[value] === Number.POSITIVE_INFINITY || end <= (operations[at] as ModelOperation).start)
      continue;
    fates[at] = FATE.CERTAIN;
    ends[at] = end;
  }
}
