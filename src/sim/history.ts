/**
 * Records what clients asked and were told, writes it as JSON lines and reads it again, and pairs questions with answers.
 *
 * Invariant: a History holds only what `history-types.ts` allows: indices without gaps, times that never go back, one open
 * operation per process, and copies of values that nobody else can change. Whatever would break that is refused when it is recorded.
 *
 * Source: Jepsen's histories. Divergence: a process goes on after an `info`, which has ended its operation for the client, though
 * perhaps not for the system; Jepsen gives the process a new number.
 */
import { describeValue, invalidArgument, ShardloomError } from "../errors.ts";
import type { Call, HistoryEntry, HistoryType, Violation } from "./history-types.ts";
import { copyPlain, NotPlainError } from "./plain-json.ts";

/** The record of one run, while it is made and after. Iterates over its entries in order. */
export class History implements Iterable<HistoryEntry> {
  readonly #nowNs: () => number;
  readonly #entries: HistoryEntry[] = [];
  readonly #open: Map<number, HistoryEntry> = new Map();

  /**
   * @param nowNs The world's time in nanoseconds. @default the time of the last entry plus one, which keeps the order and says
   *   nothing more
   */
  constructor(nowNs?: () => number) {
    this.#nowNs = nowNs ?? (() => (this.#entries.at(-1)?.time ?? -1) + 1);
  }

  /**
   * A history of entries that were recorded before, as they come out of another thread.
   *
   * @throws {ShardloomError} `ERR_CORRUPT` when they are not a history; `details` has `entry` (from 0) and `field`.
   */
  static from(entries: Iterable<unknown>): History {
    const history = new History();
    let at = 0;
    for (const entry of entries) history.#take(entry, `of entry ${at}`, { entry: at++ });
    return history;
  }

  /**
   * Reads what {@link History.toJsonLines} wrote, also when it comes from elsewhere. Empty lines are skipped.
   *
   * @throws {ShardloomError} `ERR_CORRUPT`; `details` has `line` (from 1) and, unless the line is no JSON at all, `field`.
   */
  static parse(text: string): History {
    if (typeof text !== "string") throw invalidArgument("parse history", "text", "text", text);
    const history = new History();
    for (const [at, part] of text.split("\n").entries()) {
      if (part.trim() !== "") history.#take(parseLine(part, at + 1), `on line ${at + 1}`, { line: at + 1 });
    }
    return history;
  }

  get entries(): readonly HistoryEntry[] {
    return this.#entries;
  }

  get length(): number {
    return this.#entries.length;
  }

  /** Invocations without an answer, in the order of their indices. */
  get open(): readonly HistoryEntry[] {
    return [...this.#open.values()];
  }

  [Symbol.iterator](): Iterator<HistoryEntry> {
    return this.#entries[Symbol.iterator]();
  }

  /**
   * Records that a process begins an operation.
   *
   * @param value Its argument, plain JSON; it is copied.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the process has an operation open.
   */
  invoke(process: number, f: string, value?: unknown): HistoryEntry {
    const action = "record invoke";
    if (!isCount(process)) throw invalidArgument(action, "process", "an integer of at least 0", process);
    if (typeof f !== "string" || f === "") throw invalidArgument(action, "f", "a name", f);
    const open = this.#open.get(process);
    if (open !== undefined)
      throw invalidArgument(action, "process", `idle (${open.f} is open since index ${open.index})`, process);
    const entry = this.#add(action, { type: "invoke", f, process, value: plain(action, value) });
    this.#open.set(process, entry);
    return entry;
  }

  /**
   * Records that the open operation of a process happened.
   *
   * @param value Its answer, plain JSON; it is copied.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the process has none open.
   */
  ok(process: number, value?: unknown): HistoryEntry {
    return this.#complete("ok", process, plain("record ok", value), undefined);
  }

  /**
   * Records that the open operation of a process certainly did not happen and never will.
   *
   * @param error Code of the error, as one word. The entry repeats the value of the invocation.
   */
  fail(process: number, error: string): HistoryEntry {
    return this.#complete("fail", process, undefined, error);
  }

  /**
   * Records that nobody knows whether the open operation of a process happened, or may happen yet.
   *
   * @param error Code of the error, as one word. The entry repeats the value of the invocation.
   */
  info(process: number, error: string): HistoryEntry {
    return this.#complete("info", process, undefined, error);
  }

  /** All operations in the order of their invocations, with how each ended. */
  calls(): Call[] {
    return pairCalls(this.#entries);
  }

  /** Entries of the operations that a test lets through, in order, with the indices that they have here. */
  filter(test: (call: Call) => boolean): HistoryEntry[] {
    return entriesOf(this.calls().filter(test));
  }

  /** One entry a line, each line ended by a newline: what {@link parseHistory} reads. */
  toJsonLines(): string {
    return toJsonLines(this.#entries);
  }

  #complete(type: HistoryType, process: number, value: unknown, error: string | undefined): HistoryEntry {
    const open = this.#open.get(process);
    if (open === undefined) throw invalidArgument(`record ${type}`, "process", "one with an open operation", process);
    if (type !== "ok" && (typeof error !== "string" || error === ""))
      throw invalidArgument(`record ${type}`, "error", "a code", error);
    const about = { type, f: open.f, process, value: type === "ok" ? value : open.value };
    const entry = this.#add(`record ${type}`, error === undefined ? about : { ...about, error });
    this.#open.delete(process);
    return entry;
  }

  #add(action: string, about: Omit<HistoryEntry, "time" | "index">): HistoryEntry {
    const { type, f, process, value, error } = about;
    const time = this.#nowNs();
    const least = this.#entries.at(-1)?.time ?? 0;
    if (!isCount(time) || time < least)
      throw invalidArgument(action, "time", `an integer of at least ${least} (ns)`, time);
    const entry = { type, f, process, time, index: this.#entries.length, value };
    const whole = Object.freeze(error === undefined ? entry : { ...entry, error });
    this.#entries.push(whole);
    return whole;
  }

  /** Takes an entry of somebody else's in. @param place for people: where it stands */
  #take(candidate: unknown, place: string, details: Readonly<Record<string, unknown>>): void {
    const fault = findFault(candidate, this.#entries, this.#open);
    if (fault !== undefined) {
      const [field, rule, value] = fault;
      throw new ShardloomError(
        "ERR_CORRUPT",
        `Cannot read history as ${field} ${place} must be ${rule}: current value is ${describeValue(value)}`,
        { details: { ...details, field } },
      );
    }
    const { type, f, process, time, index, value, error } = candidate as HistoryEntry;
    const entry = { type, f, process, time, index, value: copyPlain(value) };
    const whole = Object.freeze(error === undefined ? entry : { ...entry, error });
    if (type === "invoke") this.#open.set(process, whole);
    else this.#open.delete(process);
    this.#entries.push(whole);
  }
}

/** The same as {@link History.parse}. */
export function parseHistory(text: string): History {
  return History.parse(text);
}

/** Entries as JSON lines, members in the order of Jepsen's documentation. */
export function toJsonLines(entries: Iterable<HistoryEntry>): string {
  let text = "";
  for (const { type, f, process, time, index, value, error } of entries)
    text += `${JSON.stringify({ type, f, process, time, index, value, ...(error === undefined ? {} : { error }) })}\n`;
  return text;
}

/**
 * Pairs every invocation with how it ended. Entries must be in order; some operations may be missing, as after a filter.
 *
 * @returns Operations in the order of their invocations; one that has not ended counts as `info`.
 * @throws {ShardloomError} `ERR_CORRUPT` for an end without an invocation, or an invocation while one is open; `ERR_INVALID_ARGUMENT` for what has
 *   no entries, such as the whole result of a run.
 */
export function pairCalls(entries: Iterable<HistoryEntry>): Call[] {
  if (typeof (entries as Partial<Iterable<HistoryEntry>> | null)?.[Symbol.iterator] !== "function")
    throw invalidArgument("pair history", "entries", "a History or the entries of one", entries);
  const calls: { invoke: HistoryEntry; completion?: HistoryEntry; outcome: Call["outcome"] }[] = [];
  const open = new Map<number, (typeof calls)[number]>();
  let previous = -1;
  for (const entry of entries) {
    const { type, process, index } = entry;
    if (index <= previous) throw unpaired(entry, `after index ${previous}`);
    previous = index;
    const call = open.get(process);
    if (type === "invoke") {
      if (call !== undefined) throw unpaired(entry, `while index ${call.invoke.index} is not open`);
      const begun = { invoke: entry, outcome: "info" as const };
      open.set(process, begun);
      calls.push(begun);
    } else {
      if (call === undefined || call.invoke.f !== entry.f) throw unpaired(entry, "the end of an open operation");
      call.completion = entry;
      call.outcome = type;
      open.delete(process);
    }
  }
  return calls;
}

/** A broken rule, shown by operations. */
export function violationOf(rule: string, message: string, calls: Iterable<Call>): Violation {
  return { rule, message, entries: entriesOf(calls) };
}

/** The entries of operations, in order of index. */
export function entriesOf(calls: Iterable<Call>): HistoryEntry[] {
  const entries: HistoryEntry[] = [];
  for (const { invoke, completion } of calls) {
    entries.push(invoke);
    if (completion !== undefined) entries.push(completion);
  }
  return entries.sort((a, b) => a.index - b.index);
}

function unpaired(entry: HistoryEntry, rule: string): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot pair history as ${entry.type} of process ${entry.process} must be ${rule}: current value is index ${entry.index}`,
    { details: { index: entry.index, process: entry.process } },
  );
}

function plain(action: string, value: unknown): unknown {
  try {
    return copyPlain(value);
  } catch (error) {
    if (!(error instanceof NotPlainError)) throw error;
    throw invalidArgument(action, "value", `plain JSON (found ${error.message})`, value);
  }
}

function parseLine(text: string, line: number): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ShardloomError(
      "ERR_CORRUPT",
      `Cannot parse history as line ${line} must be JSON: current value is ${describeValue(text)}`,
      { cause, details: { line } },
    );
  }
}

const FIELDS: readonly string[] = ["type", "f", "process", "time", "index", "value", "error"];

type Fault = readonly [field: string, rule: string, value: unknown];

/** What is wrong with the next entry of a history, if anything. */
function findFault(
  candidate: unknown,
  before: readonly HistoryEntry[],
  open: ReadonlyMap<number, HistoryEntry>,
): Fault | undefined {
  if (typeof candidate !== "object" || candidate === null || Array.isArray(candidate))
    return ["entry", "an object", candidate];
  const unknown = Object.keys(candidate).find((name) => !FIELDS.includes(name));
  if (unknown !== undefined) return [unknown, `absent: fields are ${FIELDS.join(", ")}`, unknown];
  const { type, f, process, time, index, value, error } = candidate as Readonly<Record<string, unknown>>;
  const least = before.at(-1)?.time ?? 0;
  if (type !== "invoke" && type !== "ok" && type !== "fail" && type !== "info")
    return ["type", "invoke, ok, fail or info", type];
  if (typeof f !== "string" || f === "") return ["f", "a name", f];
  if (!isCount(process)) return ["process", "an integer of at least 0", process];
  if (!isCount(time) || time < least) return ["time", `an integer of at least ${least} (ns)`, time];
  if (index !== before.length) return ["index", `${before.length}, the number of entries before`, index];
  if (value === undefined) return ["value", "present, null where there is none", value];
  if (error !== undefined && (typeof error !== "string" || type === "invoke" || type === "ok"))
    return ["error", "text, of a fail or info", error];
  return findPairFault(type, f, open.get(process), process) ?? findValueFault(value);
}

function findPairFault(
  type: HistoryType,
  f: string,
  open: HistoryEntry | undefined,
  process: number,
): Fault | undefined {
  if (type === "invoke")
    return open === undefined ? undefined : ["process", `idle (${open.f} is open since index ${open.index})`, process];
  if (open === undefined) return ["process", "one with an open operation", process];
  return f === open.f ? undefined : ["f", `${open.f}, the operation that is open`, f];
}

function findValueFault(value: unknown): Fault | undefined {
  try {
    copyPlain(value);
  } catch (error) {
    if (!(error instanceof NotPlainError)) throw error;
    return ["value", `plain JSON (found ${error.message})`, value];
  }
  return undefined;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
