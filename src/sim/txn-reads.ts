/**
 * Transactions of a list-append history as numbers, and what is wrong with their reads alone.
 *
 * Invariant: the order of a key's versions is that of the longest read of it; every other read that is used is a prefix of that.
 * Every (key, element) is appended once at most, or the history cannot be judged and is refused.
 *
 * Source: Kingsbury and Alvaro, "Elle: inferring isolation anomalies from experimental observations", 2020, section 4.
 */
import { invalidArgument } from "../errors.ts";
import type { Call } from "./history-types.ts";
import { Interner } from "./model.ts";

/** What can be wrong with reads. */
export type ReadAnomaly =
  | "G1a"
  | "G1b"
  | "internal"
  | "unwritten read"
  | "duplicate elements"
  | "incompatible order"
  | "torn transaction"
  | "lost update";

/** Something wrong with reads. */
export interface ReadFault {
  readonly anomaly: ReadAnomaly;
  readonly txns: readonly number[];
  /** In words. @param names of the transactions, in their order */
  readonly text: (names: readonly string[]) => string;
}

/** A list that a transaction read before it appended to that key itself. */
export interface ExternalRead {
  readonly txn: number;
  /** Elements by number. */
  readonly elements: readonly number[];
}

/** One key: who appended what, who read what. */
export interface KeyLog {
  readonly name: unknown;
  readonly elements: Interner;
  /** By element: the transaction that appends it, -1 for none. */
  readonly writers: number[];
  /** By element: whether its transaction appends to the key again. */
  readonly isIntermediate: boolean[];
  /** By element: what its transaction appended to the key just before, -1 for nothing. */
  readonly previous: number[];
  readonly reads: ExternalRead[];
  /** Reads by transactions that had appended to the key before, so that they end with that. */
  readonly ownReads: ExternalRead[];
  /** By element: the read that had it last. */
  readonly lastSeen: number[];
  /** The longest read: elements in the order of versions. */
  longest: ExternalRead;
  /** Transactions that appended. */
  readonly appenders: Set<number>;
}

type MicroOp = readonly [kind: "append" | "r", key: unknown, value: unknown];

/** Reads of all transactions by key, with everything that is wrong with one of them alone. */
export class TxnReads {
  readonly calls: readonly Call[];
  readonly keys: KeyLog[] = [];
  readonly faults: ReadFault[] = [];
  readonly #keyIds: Interner = new Interner();
  #reads = 0;

  constructor(calls: readonly Call[]) {
    this.calls = calls;
    const ops = calls.map(microOpsOf);
    for (const [txn, list] of ops.entries()) this.#takeAppends(txn, list);
    for (const [txn, list] of ops.entries()) if (calls[txn]?.outcome === "ok") this.#takeReads(txn, list);
    for (const key of this.keys) this.#compareReads(key);
  }

  #keyOf(name: unknown): KeyLog {
    const id = this.#keyIds.idOf(name);
    const known = this.keys[id];
    if (known !== undefined) return known;
    const longest = { txn: -1, elements: [] };
    const key = {
      name,
      elements: new Interner(),
      writers: [],
      isIntermediate: [],
      previous: [],
      ownReads: [],
      reads: [],
      lastSeen: [],
      longest,
      appenders: new Set<number>(),
    };
    this.keys.push(key);
    return key;
  }

  #takeAppends(txn: number, ops: readonly MicroOp[]): void {
    const last = new Map<KeyLog, number>();
    for (const [kind, name, value] of ops) {
      const key = this.#keyOf(name);
      if (kind === "r") continue;
      const element = key.elements.idOf(value);
      if (key.writers[element] !== undefined)
        throw invalidArgument(
          "check appends",
          `element of key ${show(name)}`,
          "appended once in all transactions",
          value,
        );
      key.writers[element] = txn;
      key.isIntermediate[element] = false;
      key.appenders.add(txn);
      const before = last.get(key);
      key.previous[element] = before ?? -1;
      if (before !== undefined) key.isIntermediate[before] = true;
      last.set(key, element);
    }
  }

  /** Checks each read against what the transaction itself knows, and keeps the first of every key. */
  #takeReads(txn: number, ops: readonly MicroOp[]): void {
    /** By key: the list as this transaction knows it, or what it appended while it does not know what came before. */
    const known = new Map<KeyLog, { readonly elements: readonly number[]; readonly isWhole: boolean }>();
    for (const [kind, name, value] of ops) {
      const key = this.#keyOf(name);
      const before = known.get(key);
      if (kind === "append") {
        const elements = [...(before?.elements ?? []), key.elements.idOf(value)];
        known.set(key, { elements, isWhole: before?.isWhole ?? false });
        continue;
      }
      const elements = (value as readonly unknown[]).map((item) => key.elements.idOf(item));
      if (before === undefined) this.#takeExternal(key, { txn, elements });
      else if (!agrees(elements, before.elements, before.isWhole))
        this.#fault(
          "internal",
          [txn],
          ([t]) => `${t} read ${show(name)} as ${show(value)}, which its own operations before deny`,
        );
      else if (!before.isWhole) this.#takeOwn(key, { txn, elements });
      known.set(key, { elements, isWhole: true });
    }
  }

  #takeExternal(key: KeyLog, read: ExternalRead): void {
    const { elements, txn } = read;
    const { writers, lastSeen } = key;
    const stamp = ++this.#reads;
    for (const element of elements) {
      const writer = writers[element];
      if (lastSeen[element] === stamp)
        return this.#fault(
          "duplicate elements",
          [txn],
          ([t]) => `${t} read ${show(key.name)} as ${showElements(key, elements)}, with an element twice`,
        );
      lastSeen[element] = stamp;
      if (writer === undefined || this.calls[writer]?.outcome === "fail") this.#foul(key, txn, element, writer);
    }
    const last = elements.at(-1) ?? -1;
    const writer = writers[last];
    if (writer !== undefined && writer !== txn && key.isIntermediate[last] === true)
      this.#fault("G1b", [txn, writer], ([t, w]) => {
        return `${t} read ${show(key.name)} as it was after ${w} appended ${showElements(key, [last])}, in the middle of ${w}`;
      });
    key.reads.push(read);
    if (elements.length > key.longest.elements.length) key.longest = read;
  }

  #takeOwn(key: KeyLog, read: ExternalRead): void {
    key.ownReads.push(read);
    if (read.elements.length > key.longest.elements.length) key.longest = read;
  }

  #foul(key: KeyLog, txn: number, element: number, writer: number | undefined): void {
    const what = `${show(key.elements.values[element])} in ${show(key.name)}`;
    if (writer === undefined) this.#fault("unwritten read", [txn], ([t]) => `${t} read ${what}, which nobody appended`);
    else this.#fault("G1a", [txn, writer], ([t, w]) => `${t} read ${what}, which ${w} appended and took back`);
  }

  /** Finds reads that are no prefix of the longest, appends of one transaction apart, and several appends after one read. */
  #compareReads(key: KeyLog): void {
    this.#compareOrder(key, key.reads);
    this.#compareOrder(key, key.ownReads);
    this.#compareAppends(key);
    const updates = new Map<number, number[]>();
    for (const { txn, elements } of key.reads) {
      if (!key.appenders.has(txn)) continue;
      const last = elements.at(-1) ?? -1;
      updates.set(last, [...(updates.get(last) ?? []), txn]);
    }
    for (const [last, txns] of updates) {
      if (txns.length === 1) continue;
      const seen = last < 0 ? "empty" : `up to ${show(key.elements.values[last])}`;
      this.#fault("lost update", txns.slice(0, MAX_NAMED), (names) => {
        return `${names.join(" and ")} read ${show(key.name)} ${seen}, and appended to it`;
      });
    }
  }

  #compareOrder(key: KeyLog, reads: readonly ExternalRead[]): void {
    const { longest } = key;
    for (const { txn, elements } of reads) {
      if (elements.every((element, at) => longest.elements[at] === element)) continue;
      this.#fault("incompatible order", [txn, longest.txn], ([t, w]) => {
        const [read, order] = [showElements(key, elements), showElements(key, longest.elements)];
        return `${t} read ${show(key.name)} as ${read}, which is not how the list that ${w} read begins: ${order}`;
      });
    }
  }

  #compareAppends(key: KeyLog): void {
    const { longest, previous, writers } = key;
    const places = new Map(longest.elements.map((element, at) => [element, at]));
    for (const [at, element] of longest.elements.entries()) {
      const before = previous[element] ?? -1;
      if (before < 0 || (places.get(before) ?? longest.elements.length) < at) continue;
      this.#fault("torn transaction", [longest.txn, writers[element] as number], ([t, w]) => {
        const [later, earlier] = [element, before].map((one) => show(key.elements.values[one]));
        const list = `${show(key.name)} as ${showElements(key, longest.elements)}`;
        return `${t} read ${list}, with the ${later} of ${w} and without its ${earlier} before`;
      });
    }
  }

  #fault(anomaly: ReadAnomaly, txns: readonly number[], text: ReadFault["text"]): void {
    this.faults.push({ anomaly, txns, text });
  }
}

/** Whether a list is one that the transaction can see: the whole that it knows, or something and then its own appends. */
function agrees(elements: readonly number[], known: readonly number[], isWhole: boolean): boolean {
  const from = isWhole ? 0 : elements.length - known.length;
  return (
    from >= 0 &&
    elements.length - from === known.length &&
    known.every((element, at) => elements[from + at] === element)
  );
}

/** The micro-operations of a transaction: with what it read where it is ok. */
function microOpsOf({ invoke, completion, outcome }: Call): readonly MicroOp[] {
  const isOk = outcome === "ok" && completion !== undefined;
  const entry = isOk ? completion : invoke;
  if (invoke.f !== "txn") throw invalidArgument("check appends", `f at index ${invoke.index}`, "txn", invoke.f);
  const { value } = entry;
  const asked = invoke.value;
  const where = `value at index ${entry.index}`;
  if (!Array.isArray(value) || !Array.isArray(asked) || value.length !== asked.length)
    throw invalidArgument("check appends", where, "an array of micro-operations, as long as what was asked", value);
  for (const [at, op] of (value as unknown[]).entries()) {
    const isOp = Array.isArray(op) && op.length === 3 && (op[0] === "append" || op[0] === "r");
    if (!isOp || (asked[at] as unknown[] | null)?.[0] !== op[0])
      throw invalidArgument("check appends", `${where}, [${at}]`, '["append", key, element] or ["r", key, list]', op);
    if (isOk && op[0] === "r" && !Array.isArray(op[2]))
      throw invalidArgument("check appends", `${where}, [${at}][2]`, "the list that was read", op[2]);
  }
  return value as MicroOp[];
}

const SHOWN_CHARACTERS = 120;
/** Transactions that a lost update names. */
const MAX_NAMED = 4;

function showElements({ elements }: KeyLog, list: readonly number[]): string {
  return show(list.map((element) => elements.values[element]));
}

/** A value for people: lists show their end, as that is where things happen. */
export function show(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > SHOWN_CHARACTERS ? `…${text.slice(-SHOWN_CHARACTERS)}` : text;
}
