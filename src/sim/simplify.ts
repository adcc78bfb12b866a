/**
 * Simpler scenarios: fewer nodes, processes counted from 0, shorter and rounder numbers.
 *
 * Invariant: every candidate is strictly simpler than the scenario it was made of (fewer operations, or some number smaller, and none negative),
 * so that taking failing candidates again and again ends. (Renumbered processes are as simple as before, and offered once.)
 */
import type { Fault, TimedFault } from "./fault-types.ts";
import type { Scenario } from "./shrink.ts";
import type { Operation } from "./workload-types.ts";

/**
 * Part of a list of operations, each at the time at which it was: pauses of those left out go to the next one of their process.
 *
 * Faults hit by the clock, or at a packet whose number depends on how much was sent before: an operation that moved would be missed by them.
 *
 * @param kept Operations of `all`, the same objects in the same order.
 */
export function keepTimes(all: readonly Operation[], kept: readonly Operation[]): readonly Operation[] {
  const waitsMs = new Map<number, number>();
  const result: Operation[] = [];
  for (const operation of all) {
    const waitMs = waitsMs.get(operation.process) ?? 0;
    const isKept = kept[result.length] === operation;
    waitsMs.set(operation.process, isKept ? 0 : waitMs + operation.afterMs);
    if (isKept) result.push(waitMs === 0 ? operation : withPause(operation, cut(operation.afterMs + waitMs)));
  }
  return result;
}

/** The same, earlier: the time before the first fault and the first operation is left out, all of it or some. */
export function* earlier(scenario: Scenario): Generator<Scenario> {
  const firsts = new Map<number, Operation>();
  for (const operation of scenario.operations) {
    if (!firsts.has(operation.process)) firsts.set(operation.process, operation);
  }
  const times = scenario.faults.filter(isTimed).map(({ atMs }) => atMs);
  const freeMs = Math.min(...times, ...[...firsts.values()].map(({ afterMs }) => afterMs));
  if (!Number.isFinite(freeMs)) return;
  for (const byMs of [freeMs, floorDigits(freeMs, 1), halfRounded(freeMs)]) {
    if (byMs <= 0) continue;
    const faults = scenario.faults.map((fault) =>
      isTimed(fault) ? { ...fault, atMs: cut(fault.atMs - byMs) } : fault,
    );
    const operations = scenario.operations.map((operation) =>
      firsts.get(operation.process) === operation ? withPause(operation, cut(operation.afterMs - byMs)) : operation,
    );
    yield { ...scenario, faults, operations };
  }
}

/**
 * A short beginning with one drawn fault aimed at another opportunity of its site: what needs the hundredth packet after a hundred operations
 * often needs the third after four.
 */
export function* reaimed(scenario: Scenario): Generator<Scenario> {
  for (const count of AIMED_OPERATIONS) {
    if (count * 2 > scenario.operations.length) return;
    const operations = scenario.operations.slice(0, count);
    for (const [index, fault] of scenario.faults.entries()) {
      if (isTimed(fault)) continue;
      const tries = Math.min(fault.ordinal, Math.floor(AIMED_ORDINALS / scenario.faults.length));
      for (let ordinal = 0; ordinal < tries; ordinal++) {
        yield { ...scenario, operations, faults: scenario.faults.with(index, { ...fault, ordinal }) };
      }
    }
  }
}

/** The scenario on fewer nodes, fewest first; never fewer than its faults name. */
export function* fewerNodes(scenario: Scenario): Generator<Scenario> {
  const least = 1 + Math.max(0, ...scenario.faults.flatMap(nodesOf));
  for (let nodes = least; nodes < scenario.nodes; nodes++) yield { ...scenario, nodes };
}

/** Lengths of beginnings, and opportunities in them, at which drawn faults are aimed again: so many for all of them. */
const AIMED_OPERATIONS: readonly number[] = [6, 24];
const AIMED_ORDINALS = 24;

/** Indexes of the nodes that a fault names: `n3`, `n3/disk`, `n0>n3`. */
function nodesOf(fault: Fault): number[] {
  const names = "targets" in fault ? fault.targets : [fault.site];
  return names.flatMap((name) => [...name.matchAll(/\bn(\d+)\b/g)].map(([, digits]) => Number(digits)));
}

/** Processes numbered from 0 in the order in which they were numbered: nothing when they are. */
export function* compactProcesses(scenario: Scenario): Generator<Scenario> {
  const processes = [...new Set(scenario.operations.map(({ process }) => process))].sort((a, b) => a - b);
  if (processes.every((process, index) => process === index)) return;
  const operations = scenario.operations.map((entry) => ({ ...entry, process: processes.indexOf(entry.process) }));
  yield { ...scenario, operations };
}

/** Shorter pauses of all operations at once, shortest first. */
export function* shorterPauses(scenario: Scenario): Generator<Scenario> {
  const { operations } = scenario;
  const totalMs = operations.reduce((sum, { afterMs }) => sum + afterMs, 0);
  for (const change of [(): number => 0, halfRounded, rounded, Math.floor]) {
    const changed = operations.map((operation) => withPause(operation, change(operation.afterMs)));
    if (changed.reduce((sum, { afterMs }) => sum + afterMs, 0) < totalMs) yield { ...scenario, operations: changed };
  }
}

/** A shorter pause of one operation. */
export function* simplerOperation(scenario: Scenario, index: number): Generator<Scenario> {
  const operation = scenario.operations[index];
  for (const afterMs of simplerNumbers(operation?.afterMs ?? 0)) {
    yield { ...scenario, operations: scenario.operations.with(index, { ...operation, afterMs } as Operation) };
  }
}

function withPause(operation: Operation, afterMs: number): Operation {
  return operation.afterMs === afterMs ? operation : { ...operation, afterMs };
}

/** One number of one fault made simpler: how much, how long, when. */
export function* simplerFault(scenario: Scenario, index: number): Generator<Scenario> {
  const fault = scenario.faults[index];
  if (fault === undefined) return;
  for (const simpler of simplerForms(fault)) yield { ...scenario, faults: scenario.faults.with(index, simpler) };
}

function* simplerForms(fault: Fault): Generator<Fault> {
  for (const size of simplerNumbers(fault.size)) yield { ...fault, size };
  if (!isTimed(fault)) {
    for (const ordinal of simplerNumbers(fault.ordinal)) {
      if (Number.isInteger(ordinal)) yield { ...fault, ordinal };
    }
    return;
  }
  for (const durationMs of simplerNumbers(fault.durationMs)) yield { ...fault, durationMs };
  for (const atMs of simplerNumbers(fault.atMs)) yield { ...fault, atMs };
}

function isTimed(fault: Fault): fault is TimedFault {
  return "atMs" in fault;
}

/** Smaller numbers with fewer digits, simplest first: `0.7361` gives 0, 0.1, 0.3, 0.7, 0.73. */
function simplerNumbers(value: number): number[] {
  const candidates = [0, floorDigits(value / 4, 1), halfRounded(value), rounded(value), floorDigits(value, 2)];
  if (value > 1) candidates.push(Math.floor(value));
  return [...new Set(candidates)].filter((candidate) => candidate >= 0 && candidate < value);
}

/** To whole ns: what differs less is the error of a subtraction. */
function cut(ms: number): number {
  return Math.max(0, Math.round(ms * 1e6) / 1e6);
}

function halfRounded(value: number): number {
  return floorDigits(value / 2, 1);
}

function rounded(value: number): number {
  return floorDigits(value, 1);
}

/** A number of at least 0 cut to so many significant digits. */
function floorDigits(value: number, digits: number): number {
  if (!(value > 1e-6)) return 0;
  const exponent = digits - 1 - Math.floor(Math.log10(value));
  // Through text, as 0.7 * 10 ** -1 would be 0.07000000000000001.
  return Number(`${Math.floor(Number(`${value}e${exponent}`))}e${-exponent}`);
}
