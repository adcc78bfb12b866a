/**
 * Judges histories of transactions that append to lists and read them, as Elle does: which isolation anomalies they show.
 *
 * Shape, as Elle has it: `f` is "txn", its value [["append", key, element], ["r", key, null]], the answer the same with lists in
 * place of null.
 *
 * Invariant: an anomaly is reported only with reads that prove it, and "valid" means that the transactions that were seen fit one order
 * (with real time: one that holds their times too). `fail` never happened; an `info` happened when somebody read what it appended.
 *
 * Source: Kingsbury and Alvaro, "Elle: inferring isolation anomalies from experimental observations", 2020; Adya, "Weak consistency",
 * 1999, for the names. Divergence: of a key's appends that nobody read, the {@link MAX_UNREAD} that ended first count, as edges
 * to all of them from all reads could be quadratic; one cycle is reported a component, of the strongest class.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import { entriesOf, pairCalls } from "./history.ts";
import type { Call, HistoryEntry, Violation } from "./history-types.ts";
import { EDGE, type Edge, TxnGraph } from "./txn-graph.ts";
import { type KeyLog, type ReadAnomaly, show, TxnReads } from "./txn-reads.ts";

export type CycleAnomaly = "G0" | "G1c" | "G-single" | "G2-item" | `${"G0" | "G1c" | "G-single" | "G2-item"}-realtime`;
export type Anomaly = CycleAnomaly | ReadAnomaly;

export interface ListAppendViolation extends Violation {
  readonly anomaly: Anomaly;
}

export interface ListAppendOptions {
  /** Whether transactions must also fit the times at which they began and ended. @default "strict-serializable" */
  readonly consistency?: "strict-serializable" | "serializable";
}

export interface ListAppendResult {
  readonly valid: boolean;
  /** How often each anomaly was found. */
  readonly anomalies: Readonly<Partial<Record<Anomaly, number>>>;
  /** At most {@link MAX_REPORTED} of each anomaly. */
  readonly violations: readonly ListAppendViolation[];
  readonly transactions: number;
  /** Edges between them that the reads and times prove. */
  readonly edges: number;
  /** @throws {ShardloomError} `ERR_VIOLATION` unless valid; the message explains the first violation. */
  assert(): void;
}

/** Violations of one anomaly that are reported. */
export const MAX_REPORTED = 8;
/** Appends of one key that nobody read and that count. */
export const MAX_UNREAD = 64;
/**
 * Classes of cycles, the strongest first, with the kinds of their edges and the kind of which there is one only.
 * "-realtime": the cycle needs that one transaction ended before another began.
 */
const CYCLES: readonly (readonly [anomaly: CycleAnomaly, mask: number, once: number])[] = [
  ["G0", EDGE.WW, 0],
  ["G1c", EDGE.WW | EDGE.WR, 0],
  ["G-single", EDGE.WW | EDGE.WR, EDGE.RW],
  ["G2-item", EDGE.WW | EDGE.WR | EDGE.RW, 0],
  ["G0-realtime", EDGE.WW | EDGE.RT, 0],
  ["G1c-realtime", EDGE.WW | EDGE.WR | EDGE.RT, 0],
  ["G-single-realtime", EDGE.WW | EDGE.WR | EDGE.RT, EDGE.RW],
  ["G2-item-realtime", EDGE.WW | EDGE.WR | EDGE.RW | EDGE.RT, 0],
];

/** Nodes that searches for cycles with one anti-dependency may visit, in all. */
const MAX_VISITED = 20_000_000;

/**
 * Checks a history of list-append transactions.
 *
 * Cost: linear in transactions, times the number of overlapping ones, and elements read.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for values of another shape and for an element that is appended twice to one key,
 *   `ERR_CORRUPT` when the entries are not a history.
 */
export function checkListAppend(history: Iterable<HistoryEntry>, options: ListAppendOptions = {}): ListAppendResult {
  const { consistency = "strict-serializable" } = options;
  if (consistency !== "strict-serializable" && consistency !== "serializable")
    throw invalidArgument("check appends", "consistency", "strict-serializable or serializable", consistency);
  const calls = pairCalls(history);
  const reads = new TxnReads(calls);
  const graph = new TxnGraph(calls.length);
  const happened = whatHappened(calls, reads.keys);
  for (const [key, log] of reads.keys.entries()) addDependencies(graph, happened, key, log, calls);
  if (consistency === "strict-serializable") addTimes(graph, calls);
  graph.freeze();
  const found: ListAppendViolation[] = reads.faults.map(({ anomaly, txns, text }) =>
    violationOf(anomaly, txns, text, calls),
  );
  for (const { anomaly, cycle } of findCycles(graph)) {
    const edges = cycle.map((edge) => graph.edgeAt(edge));
    const txns = edges.map(({ from }) => from);
    found.push(violationOf(anomaly, txns, (names) => describeCycle(edges, names, reads, calls), calls));
  }
  return resultOf(found, calls.length, graph.edges);
}

function resultOf(found: readonly ListAppendViolation[], transactions: number, edges: number): ListAppendResult {
  const anomalies: Partial<Record<Anomaly, number>> = {};
  const violations: ListAppendViolation[] = [];
  for (const violation of found) {
    const count = (anomalies[violation.anomaly] ?? 0) + 1;
    anomalies[violation.anomaly] = count;
    if (count <= MAX_REPORTED) violations.push(violation);
  }
  const assert = (): void => {
    const [first] = violations;
    if (first === undefined) return;
    const rest = found.length === 1 ? "" : `\nand ${found.length - 1} other anomalies`;
    throw new ShardloomError("ERR_VIOLATION", `${first.message}${rest}`, { details: { rule: first.rule, anomalies } });
  };
  return { valid: found.length === 0, anomalies, violations, transactions, edges, assert };
}

/** By transaction, 1 for what was answered, and for what is in doubt where somebody read an append of it. */
function whatHappened(calls: readonly Call[], keys: readonly KeyLog[]): Uint8Array {
  const happened = Uint8Array.from(calls, ({ outcome }) => (outcome === "ok" ? 1 : 0));
  for (const { longest, writers } of keys)
    for (const element of longest.elements) {
      const writer = writers[element];
      if (writer !== undefined && calls[writer]?.outcome === "info") happened[writer] = 1;
    }
  return happened;
}

/** Edges that the versions of one key prove. */
function addDependencies(
  graph: TxnGraph,
  happened: Uint8Array,
  key: number,
  log: KeyLog,
  calls: readonly Call[],
): void {
  const { writers, reads } = log;
  const order = log.longest.elements;
  const writerAt = (version: number): number => writers[order[version] ?? -1] ?? -1;
  const add = (from: number, to: number, kind: number, element: number): void => {
    // What failed and was read all the same is a fault of its own.
    if (happened[from] === 1 && happened[to] === 1) graph.add(from, to, kind, key, element);
  };
  for (let version = 1; version < order.length; version++)
    add(writerAt(version - 1), writerAt(version), EDGE.WW, order[version] as number);
  const unread = unreadOf(calls, happened, log);
  for (const element of unread) add(writerAt(order.length - 1), writers[element] as number, EDGE.WW, element);
  for (const { txn, elements } of reads) {
    const version = elements.length;
    // What is no prefix is a fault of its own, and proves no order.
    if (version > 0 && elements[version - 1] !== order[version - 1]) continue;
    if (version > 0) add(writerAt(version - 1), txn, EDGE.WR, elements[version - 1] as number);
    if (version < order.length) add(txn, writerAt(version), EDGE.RW, order[version] as number);
    else for (const element of unread) add(txn, writers[element] as number, EDGE.RW, element);
  }
}

/** Elements that were appended for certain and that the longest read does not have: they come after it. Those that ended first. */
function unreadOf(calls: readonly Call[], happened: Uint8Array, log: KeyLog): number[] {
  const { writers, longest, isIntermediate } = log;
  const read = new Set(longest.elements);
  const unread = [...writers.keys()].filter((element) => {
    return happened[writers[element] ?? -1] === 1 && !read.has(element) && isIntermediate[element] === false;
  });
  const endOf = (element: number): number => calls[writers[element] as number]?.completion?.index ?? calls.length * 2;
  return unread.sort((a, b) => endOf(a) - endOf(b)).slice(0, MAX_UNREAD);
}

/** Edges from each transaction to those that began after it had ended, without those that follow from others. */
function addTimes(graph: TxnGraph, calls: readonly Call[]): void {
  const ended = calls.map((_, txn) => txn).filter((txn) => calls[txn]?.outcome === "ok");
  const endOf = (txn: number): number => calls[txn]?.completion?.index ?? 0;
  ended.sort((a, b) => endOf(a) - endOf(b));
  /** Ended, with nobody yet who began after and has ended too. */
  let frontier: number[] = [];
  let next = 0;
  for (const [txn, { invoke, outcome }] of calls.entries()) {
    for (; next < ended.length && endOf(ended[next] as number) < invoke.index; next++) {
      const done = ended[next] as number;
      const began = calls[done]?.invoke.index ?? 0;
      frontier = frontier.filter((before) => endOf(before) > began);
      frontier.push(done);
    }
    if (outcome !== "fail") for (const before of frontier) graph.add(before, txn, EDGE.RT);
  }
}

/** One cycle of the strongest class for every component. */
function findCycles(graph: TxnGraph): { readonly anomaly: CycleAnomaly; readonly cycle: readonly number[] }[] {
  const componentOf = new Int32Array(graph.nodes);
  const everything = EDGE.WW | EDGE.WR | EDGE.RW | EDGE.RT;
  const all = Array.from({ length: graph.nodes }, (_, node) => node);
  return graph.components(everything, all, new Int32Array(graph.nodes), componentOf).map((component) => {
    for (const [anomaly, mask, once] of CYCLES) {
      const cycle =
        once === 0
          ? cycleOver(graph, component, mask, componentOf)
          : cycleWithOne(graph, component, mask, once, componentOf);
      if (cycle !== undefined) return { anomaly, cycle };
    }
    return { anomaly: "G2-item-realtime" as const, cycle: graph.shortCycle(component, everything, componentOf) };
  });
}

function cycleOver(
  graph: TxnGraph,
  component: readonly number[],
  mask: number,
  componentOf: Int32Array,
): readonly number[] | undefined {
  const inner = new Int32Array(graph.nodes);
  const [first] = graph.components(mask, component, componentOf, inner);
  return first === undefined ? undefined : graph.shortCycle(first, mask, inner);
}

/** The shortest cycle with one edge of a kind and others of a mask. */
function cycleWithOne(
  graph: TxnGraph,
  component: readonly number[],
  mask: number,
  once: number,
  componentOf: Int32Array,
): readonly number[] | undefined {
  let best: readonly number[] | undefined;
  for (const edge of graph.edgesIn(component, componentOf, once)) {
    if (graph.visited > MAX_VISITED || best?.length === 2) break;
    const { from, to } = graph.edgeAt(edge);
    const way = graph.findWay(to, from, mask, componentOf);
    if (way !== undefined && (best === undefined || way.length + 1 < best.length)) best = [edge, ...way];
  }
  return best;
}

function violationOf(
  anomaly: Anomaly,
  txns: readonly number[],
  text: (names: readonly string[]) => string,
  calls: readonly Call[],
): ListAppendViolation {
  const involved = [...new Set(txns)];
  const names = txns.map((txn) => `T${involved.indexOf(txn) + 1}`);
  const list = involved.map((txn, at) => `\n  T${at + 1} = ${describeTxn(calls[txn] as Call)}`);
  const message = `${anomaly} (${MEANINGS[anomaly]}): ${text(names)}${list.join("")}`;
  return { rule: "list-append", anomaly, message, entries: entriesOf(involved.map((txn) => calls[txn] as Call)) };
}

/** @param names of the transactions in which the edges begin; each ends where the next begins */
function describeCycle(
  edges: readonly Edge[],
  names: readonly string[],
  reads: TxnReads,
  calls: readonly Call[],
): string {
  const lines = edges.map(({ from, to, kind, key, element }, at) => {
    const [a, b] = [names[at], names[(at + 1) % names.length]];
    const log = reads.keys[key];
    if (log === undefined) {
      const [end, begin] = [calls[from]?.completion?.index, calls[to]?.invoke.index];
      return `${a} before ${b}: it had ended (index ${end}) when ${b} began (index ${begin})`;
    }
    const list = show(log.name);
    const value = show(log.elements.values[element]);
    if (kind === EDGE.WW) return `${a} before ${b}: ${b} appended ${value} to ${list} next after ${a}`;
    if (kind === EDGE.WR) return `${a} before ${b}: ${b} read the ${value} that ${a} appended to ${list}`;
    return `${a} before ${b}: ${a} read ${list} without the ${value} that ${b} appended`;
  });
  return `no order of these transactions is possible\n  ${lines.join("\n  ")}`;
}

function describeTxn({ invoke, completion, outcome }: Call): string {
  const value = outcome === "ok" ? completion?.value : invoke.value;
  const end = completion === undefined ? "" : ` to ${completion.index}`;
  return `${show(value)} by process ${invoke.process} (index ${invoke.index}${end}${outcome === "ok" ? "" : `, ${outcome}`})`;
}

const MEANINGS: Readonly<Record<Anomaly, string>> = {
  G0: "write cycle",
  G1a: "aborted read",
  G1b: "intermediate read",
  G1c: "circular information flow",
  "G-single": "one anti-dependency: read skew",
  "G2-item": "anti-dependencies: write skew",
  "G0-realtime": "write cycle with real time",
  "G1c-realtime": "circular information flow with real time",
  "G-single-realtime": "stale read",
  "G2-item-realtime": "anti-dependencies with real time",
  internal: "a transaction contradicts itself",
  "unwritten read": "element out of nothing",
  "duplicate elements": "one append took effect twice",
  "incompatible order": "two orders of the same appends",
  "torn transaction": "a part of what one transaction appended",
  "lost update": "two updates of one version",
};
