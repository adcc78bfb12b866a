/**
 * What a timeline shows, made of the result of a run: lanes, messages, faults, operations, violations.
 *
 * Invariant: plain data that JSON keeps as it is. Times are whole µs of the world; messages stand in columns (structure of arrays, sorted by
 * `sentUs`), as there may be hundreds of thousands.
 * **Divergence** from what happened: the trace does not name packets, so that those of one link, kind and size are taken to arrive in the order in
 * which they were sent. A reordered packet may show with the arrival of its neighbour.
 */
import type { Fault, TimedFault } from "./fault-types.ts";
import type { HistoryEntry, Violation } from "./history-types.ts";
import type { NodeStats, RunResult, TraceEvent } from "./world-types.ts";

/** Outcomes of messages, by the numbers in `messages.outcome`. */
export const MESSAGE_OUTCOMES = ["delivered", "dropped", "held", "flying"] as const;

/** Outcomes of operations, by the numbers in `TimelineOperation.outcome`; `open` is one that the end of the run cut off. */
export const OPERATION_OUTCOMES = ["ok", "fail", "info", "open"] as const;

export interface TimelineFault {
  readonly kind: string;
  readonly startUs: number;
  /** The same as the start for what hits one packet or is over at once. */
  readonly endUs: number;
  /** Links, nodes or parts of nodes. */
  readonly where: string;
  /** Indexes of the nodes that it is about. */
  readonly nodes: readonly number[];
  readonly detail: string;
}

export interface TimelineOperation {
  /** Index into `processes`. */
  readonly row: number;
  readonly f: string;
  readonly startUs: number;
  readonly endUs: number;
  readonly outcome: number;
  /** JSON of the argument, of the answer, and the code of the error; cut to a length for people. */
  readonly value: string;
  readonly answer: string;
  readonly isViolating: boolean;
}

/** A stretch in which a node did not work. */
export interface TimelineDown {
  readonly node: number;
  /** "crash", "node-kill", "cluster-crash", "lose" or "pause". */
  readonly why: string;
  readonly startUs: number;
  readonly endUs: number;
}

/** Something that happened to a node at a moment: a worker that died, an escape, an error that nobody caught. */
export interface TimelineMark {
  readonly node: number;
  readonly timeUs: number;
  readonly text: string;
}

export interface TimelineViolation {
  readonly rule: string;
  readonly message: string;
  /** Of its operations; both 0 when it names none. */
  readonly startUs: number;
  readonly endUs: number;
}

export interface TimelineModel {
  readonly title: string;
  readonly verdict: "passed" | "failed";
  /** Names and values for the head of the page. */
  readonly facts: readonly (readonly [string, string])[];
  readonly endUs: number;
  readonly nodes: readonly string[];
  /** What each node did, for people. */
  readonly nodeNotes: readonly string[];
  readonly downs: readonly TimelineDown[];
  readonly marks: readonly TimelineMark[];
  /** When the phases of the run began. */
  readonly phases: readonly { readonly timeUs: number; readonly name: string }[];
  readonly processes: readonly number[];
  /** "process 3 on n1", where the trace tells. */
  readonly processNames: readonly string[];
  readonly messages: {
    readonly sentUs: readonly number[];
    /** From sending to arrival, or to being dropped. */
    readonly tookUs: readonly number[];
    readonly from: readonly number[];
    readonly to: readonly number[];
    readonly outcome: readonly number[];
    /** Index into `messageKinds`. */
    readonly kind: readonly number[];
    readonly bytes: readonly number[];
  };
  readonly messageKinds: readonly string[];
  readonly faults: readonly TimelineFault[];
  readonly operations: readonly TimelineOperation[];
  readonly violations: readonly TimelineViolation[];
}

/** Characters of a value that a tooltip shows. */
const MAX_VALUE_LENGTH = 160;
const LINK = /^(\w+)>(\w+)$/;
const DRAWN_FAULT = /^fault ([a-z][a-z-]+-[a-z]+|drop|delay|reorder|duplicate|corrupt)$/;
const CLIENT = /^(\w+)\/p(\d+)$/;
const MARKED: ReadonlySet<string> = new Set(["worker dies", "escape", "uncaught", "start failed"]);
const PACKET = /^(send|deliver|drop|hold) (\w+)$/;

/** Makes the model of a run. Its messages and drawn faults come from the recorded trace: none without `keepTrace`. */
export function timelineModel(result: RunResult): TimelineModel {
  const nodes = result.nodes.map(({ name }) => name);
  const processes = [...new Set(result.history.map(({ process }) => process))].sort((a, b) => a - b);
  const { messages, messageKinds } = messagesOf(result.trace, nodes);
  const phases = result.trace.flatMap(({ timeUs, kind, detail }) =>
    kind === "phase" ? [{ timeUs, name: String(detail) }] : [],
  );
  const faults = faultsOf(result, nodes);
  const traceEndUs = result.trace.at(-1)?.timeUs ?? 0;
  return {
    title: `seed ${result.seed}`,
    verdict: result.verdict,
    facts: factsOf(result),
    endUs: Math.max(1, Math.round(result.simulatedMs * 1000), traceEndUs),
    nodes,
    nodeNotes: result.nodes.map(nodeNote),
    downs: downsOf(result, nodes, faults),
    marks: marksOf(result.trace, nodes),
    phases,
    processes,
    processNames: processNames(result.trace, processes),
    messages,
    messageKinds,
    faults,
    operations: operationsOf(result, processes),
    violations: result.violations.map(violationOf),
  };
}

function factsOf(result: RunResult): [string, string][] {
  const count = (value: number): string => value.toLocaleString("en-US");
  const ended = (type: string): number => result.history.filter((entry) => entry.type === type).length;
  return [
    ["trace hash", result.traceHash],
    ["simulated", `${count(Math.round(result.simulatedMs) / 1000)} s`],
    ["events", count(result.events)],
    ["faults", count(result.faults.length)],
    ["operations", `${count(ended("ok"))} ok, ${count(ended("fail"))} fail, ${count(ended("info"))} info`],
  ];
}

function nodeNote({ events, starts, crashes, workerDeaths, operations, lost }: NodeStats): string {
  const deaths = `${starts} starts, ${crashes} crashes, ${workerDeaths} deaths of workers`;
  return `${deaths}, ${operations} operations, ${events} events${lost ? ", lost for good" : ""}`;
}

/** A packet that was sent and about which nothing was heard since. */
type OpenPacket = number;

function messagesOf(
  trace: readonly TraceEvent[],
  nodes: readonly string[],
): Pick<TimelineModel, "messages" | "messageKinds"> {
  const columns = { sentUs: [], tookUs: [], from: [], to: [], outcome: [], kind: [], bytes: [] } as Record<
    keyof TimelineModel["messages"],
    number[]
  >;
  const messageKinds: string[] = [];
  const open = new Map<string, OpenPacket[]>();
  for (const { timeUs, kind, where, detail } of trace) {
    const [, what, packet] = PACKET.exec(kind) ?? [];
    const [, from, to] = LINK.exec(where) ?? [];
    if (what === undefined || packet === undefined || from === undefined || to === undefined) continue;
    const key = `${packet} ${where} ${detail ?? 0}`;
    if (what === "send") {
      if (!messageKinds.includes(packet)) messageKinds.push(packet);
      const queue = open.get(key) ?? [];
      open.set(key, queue);
      queue.push(columns.sentUs.length);
      columns.sentUs.push(timeUs);
      columns.tookUs.push(0);
      columns.from.push(nodes.indexOf(from));
      columns.to.push(nodes.indexOf(to));
      columns.outcome.push(MESSAGE_OUTCOMES.indexOf("flying"));
      columns.kind.push(messageKinds.indexOf(packet));
      columns.bytes.push(Number(detail ?? 0));
      continue;
    }
    const queue = open.get(key);
    const index = what === "hold" ? queue?.at(-1) : queue?.shift();
    // What was sent before the kept part of the trace began has no line.
    if (index === undefined) continue;
    const wasHeld = columns.outcome[index] === MESSAGE_OUTCOMES.indexOf("held");
    const outcome = what === "deliver" ? (wasHeld ? "held" : "delivered") : what === "drop" ? "dropped" : "held";
    columns.outcome[index] = MESSAGE_OUTCOMES.indexOf(outcome);
    columns.tookUs[index] = timeUs - (columns.sentUs[index] as number);
  }
  return { messages: columns, messageKinds };
}

/** Timed faults by their data, ended where the trace says so; drawn ones where the trace has them. */
function faultsOf(result: RunResult, nodes: readonly string[]): TimelineFault[] {
  const timed = result.faults.filter(isTimed);
  const endUs = Math.round(result.simulatedMs * 1000);
  const offsetUs = workStartUs(result.trace, timed);
  const bars = timed.map((fault): TimelineFault => {
    const { kind, atMs, durationMs, targets, size } = fault;
    // Skewed clocks are so from the start; the times of all others count from the beginning of the workload.
    const startUs = kind === "clock-skew" ? 0 : offsetUs + Math.round(atMs * 1000);
    const plannedUs = kind === "lose" ? endUs : startUs + Math.round(durationMs * 1000);
    const lasts = kind === "lose" ? "for good" : durationMs === 0 ? "at once" : `for ${durationMs} ms`;
    return {
      kind,
      startUs,
      endUs: Math.max(startUs, Math.min(plannedUs, healedUs(result.trace, fault, startUs))),
      where: targets.join(", "),
      nodes: nodesIn(targets, nodes),
      detail: `${lasts}${size === 0 ? "" : `, size ${Number(size.toPrecision(3))}`}`,
    };
  });
  const ticks = result.trace.flatMap(({ timeUs, kind, where }): TimelineFault[] => {
    const [, name] = DRAWN_FAULT.exec(kind) ?? [];
    if (name === undefined) return [];
    return [{ kind: name, startUs: timeUs, endUs: timeUs, where, nodes: nodesIn([where], nodes), detail: "" }];
  });
  return [...bars, ...ticks].sort((one, other) => one.startUs - other.startUs);
}

/** When the workload began: from its phase, or, where the trace was kept later only, from a fault that began in it. */
function workStartUs(trace: readonly TraceEvent[], timed: readonly TimedFault[]): number {
  const phase = trace.find(({ kind, detail }) => kind === "phase" && detail === "workload");
  if (phase !== undefined) return phase.timeUs;
  const last = timed.at(-1);
  const begun = trace.findLast(({ kind, detail }) => kind === "fault begins" && detail === last?.kind);
  return begun === undefined || last === undefined ? 0 : Math.max(0, begun.timeUs - Math.round(last.atMs * 1000));
}

/** When a fault ended at the latest: its own end, or that of all faults. */
function healedUs(trace: readonly TraceEvent[], fault: TimedFault, startUs: number): number {
  const where = fault.targets.join(" ");
  const end = trace.find(
    (event) =>
      event.kind === "fault ends" && event.timeUs >= startUs && event.detail === fault.kind && event.where === where,
  );
  return end?.timeUs ?? Number.POSITIVE_INFINITY;
}

/** After these a node starts again. */
const CRASHES: ReadonlySet<string> = new Set(["crash", "node-kill", "cluster-crash"]);
const DOWN: ReadonlySet<string> = new Set([...CRASHES, "lose", "pause"]);

/** A crashed node is down until it serves again, which takes longer than the fault; the trace tells. */
function downsOf(result: RunResult, nodes: readonly string[], faults: readonly TimelineFault[]): TimelineDown[] {
  return faults.flatMap(({ kind, startUs, endUs, nodes: targets }) => {
    if (!DOWN.has(kind)) return [];
    return targets.map((node): TimelineDown => {
      const isServing = (event: TraceEvent): boolean =>
        event.kind === "serving" && event.where === nodes[node] && event.timeUs > startUs;
      const servesUs = CRASHES.has(kind) ? result.trace.find(isServing)?.timeUs : undefined;
      return { node, why: kind, startUs, endUs: servesUs ?? endUs };
    });
  });
}

function marksOf(trace: readonly TraceEvent[], nodes: readonly string[]): TimelineMark[] {
  return trace.flatMap(({ timeUs, kind, where, detail }) => {
    if (!MARKED.has(kind)) return [];
    const node = nodes.indexOf(where.split("/", 1)[0] as string);
    return node < 0 ? [] : [{ node, timeUs, text: `${kind} at ${where}${detail === undefined ? "" : `: ${detail}`}` }];
  });
}

/** Processes by the node that they ran on, which the trace of what they asked tells. */
function processNames(trace: readonly TraceEvent[], processes: readonly number[]): string[] {
  const homes = new Map<number, string>();
  for (const { kind, where } of trace) {
    const [, node, process] = kind === "invoke" ? (CLIENT.exec(where) ?? []) : [];
    if (node !== undefined) homes.set(Number(process), node);
  }
  return processes.map((process) => {
    const home = homes.get(process);
    return `process ${process}${home === undefined ? "" : ` on ${home}`}`;
  });
}

function isTimed(fault: Fault): fault is TimedFault {
  return "atMs" in fault;
}

function nodesIn(texts: readonly string[], nodes: readonly string[]): number[] {
  const named = new Set(texts.flatMap((text) => text.split(/[^\w]+/)));
  return nodes.flatMap((name, index) => (named.has(name) ? [index] : []));
}

function operationsOf(result: RunResult, processes: readonly number[]): TimelineOperation[] {
  const violating = new Set(result.violations.flatMap(({ entries }) => entries.map(({ index }) => index)));
  const endUs = Math.round(result.simulatedMs * 1000);
  const open = new Map<number, HistoryEntry>();
  const operations: TimelineOperation[] = [];
  const add = (invoke: HistoryEntry, end: HistoryEntry | undefined): void => {
    operations.push({
      row: processes.indexOf(invoke.process),
      f: invoke.f,
      startUs: Math.round(invoke.time / 1000),
      endUs: end === undefined ? endUs : Math.round(end.time / 1000),
      outcome: OPERATION_OUTCOMES.findIndex((name) => name === (end?.type ?? "open")),
      value: shortJson(invoke.value),
      answer: end?.error ?? (end?.type === "ok" ? shortJson(end.value) : ""),
      isViolating: violating.has(invoke.index) || (end !== undefined && violating.has(end.index)),
    });
  };
  for (const entry of result.history) {
    const invoke = open.get(entry.process);
    if (entry.type === "invoke") {
      if (invoke !== undefined) add(invoke, undefined);
      open.set(entry.process, entry);
    } else if (invoke !== undefined) {
      add(invoke, entry);
      open.delete(entry.process);
    }
  }
  for (const invoke of open.values()) add(invoke, undefined);
  return operations.sort((one, other) => one.startUs - other.startUs);
}

function shortJson(value: unknown): string {
  const text = JSON.stringify(value) ?? "";
  return text.length <= MAX_VALUE_LENGTH ? text : `${text.slice(0, MAX_VALUE_LENGTH - 1)}…`;
}

function violationOf({ rule, message, entries }: Violation): TimelineViolation {
  const times = entries.map(({ time }) => Math.round(time / 1000));
  if (times.length === 0) return { rule, message, startUs: 0, endUs: 0 };
  const least = (one: number, other: number): number => Math.min(one, other);
  const most = (one: number, other: number): number => Math.max(one, other);
  return { rule, message, startUs: times.reduce(least), endUs: times.reduce(most) };
}
