/**
 * Draws the timed faults of a run beforehand: when, what, how long.
 *
 * Invariant: each kind has a stream of its own, so that another rate for one kind changes nothing of another, but for crashes
 * that the limits of the shape refuse. A plan never has more nodes down at one time than the shape allows; one counts as down until
 * nothing has hindered it from getting its memory back.
 * Source: Poisson arrivals by exponential gaps (Knuth, TAOCP 2, 3.4.1).
 */
import type { Random } from "../runtime/random.ts";
import { FAULT_TABLE, kindsOf } from "./fault-table.ts";
import type { Fault, FaultKind, FaultRates, TimedFault } from "./fault-types.ts";
import { DownLimits, type FaultShape, isDown } from "./faults.ts";

const MINUTE_MS = 60_000;
/** Most faults of one kind: a rate of thousands a second is a mistake, and must not fill memory. */
const MAX_FAULTS_PER_KIND = 100_000;
/** Faults that may last longer than a recovery takes, and during which a node that lost its memory may not get it back. */
const HINDERS_RECOVERY: ReadonlySet<FaultKind> = new Set([
  "partition",
  "partition-one-way",
  "partition-ring",
  "partition-bridge",
  "pause",
]);

/**
 * The timed faults of a run, by time.
 *
 * @param streamOf A stream per name.
 * @param durationMs Simulated time in which faults may begin; they may end later.
 */
export function planTimed(
  rates: FaultRates,
  streamOf: (name: string) => Random,
  shape: FaultShape,
  durationMs: number,
): TimedFault[] {
  const faults: TimedFault[] = [];
  for (const kind of kindsOf("timed")) {
    const rate = rates[kind] ?? 0;
    if (rate > 0) faults.push(...planKind(kind, rate, streamOf(`fault/${kind}`), shape, durationMs));
  }
  faults.sort((one, other) => one.atMs - other.atMs); // stable, so ties have the order of the kinds
  return withinLimits(faults, shape);
}

function planKind(kind: FaultKind, rate: number, random: Random, shape: FaultShape, durationMs: number): TimedFault[] {
  const faults: TimedFault[] = [];
  const { scale } = FAULT_TABLE[kind];
  const meanGapMs = MINUTE_MS / rate;
  for (let atMs = gap(random, meanGapMs); atMs < durationMs; atMs += gap(random, meanGapMs)) {
    if (faults.length === MAX_FAULTS_PER_KIND) break;
    faults.push({
      kind,
      atMs: kind === "clock-skew" ? 0 : toMicros(atMs),
      durationMs: drawDuration(kind, random),
      targets: drawTargets(kind, random, shape),
      size: scale === 0 ? 0 : random.float(),
    });
  }
  return kind === "clock-skew" ? onePerNode(faults) : faults;
}

/** A clock starts once. */
function onePerNode(faults: readonly TimedFault[]): TimedFault[] {
  return [...new Map(faults.map((fault) => [fault.targets[0], fault])).values()];
}

function withinLimits(faults: readonly TimedFault[], shape: FaultShape): TimedFault[] {
  const limits = new DownLimits(shape);
  const hindrances = faults.filter(({ kind }) => HINDERS_RECOVERY.has(kind));
  return faults.filter((fault) => {
    const { kind, targets, atMs } = fault;
    if (!isDown(kind)) return true;
    if (limits.refuses(kind, targets[0] as string, atMs) !== undefined) return false;
    const downMs = shape.survives.includes(kind)
      ? fault.durationMs
      : withoutMemoryMs(fault, hindrances, shape.recoveryMs);
    limits.add(kind, targets[0] as string, atMs, downMs);
    return true;
  });
}

/** When a node that lost its memory by a fault has it again from the copies. @param faults Those that may have hindered it, among others */
export function memoryBackAtMs(
  fault: Pick<TimedFault, "atMs" | "durationMs">,
  faults: readonly Fault[],
  recoveryMs: number,
): number {
  const hindrances = faults.filter((other): other is TimedFault => HINDERS_RECOVERY.has(other.kind));
  return fault.atMs + withoutMemoryMs(fault, hindrances, recoveryMs) + recoveryMs;
}

/** From the crash of a node to the time when nothing keeps it from getting back from the copies what it had. */
function withoutMemoryMs(
  { atMs, durationMs }: Pick<TimedFault, "atMs" | "durationMs">,
  hindrances: readonly TimedFault[],
  recoveryMs: number,
): number {
  let untilMs = atMs + durationMs;
  for (const { atMs: fromMs, durationMs: forMs } of hindrances)
    if (fromMs < untilMs + recoveryMs) untilMs = Math.max(untilMs, fromMs + forMs);
  return untilMs - atMs;
}

function gap(random: Random, meanMs: number): number {
  return -Math.log(1 - random.float()) * meanMs;
}

/** Short ones are as likely as long ones, by order of magnitude. */
function drawDuration(kind: FaultKind, random: Random): number {
  const [shortest, longest] = FAULT_TABLE[kind].durationMs;
  return longest === 0 ? 0 : toMicros(shortest * (longest / shortest) ** random.float());
}

function drawTargets(kind: FaultKind, random: Random, shape: FaultShape): string[] {
  const { nodes } = shape;
  switch (FAULT_TABLE[kind].scope) {
    case "node":
      return [pick(nodes, random)];
    case "link":
      return shuffled(nodes, random).slice(0, 2);
    case "worker":
      return [`${pick(nodes, random)}/w${Math.floor(random.float() * shape.workersPerNode)}`];
    case "disk":
      return [`${pick(nodes, random)}/disk`];
    case "nats":
      return ["nats"];
    case "power":
      return shuffled(nodes, random);
    case "message":
    case "nodes":
      return drawGroup(kind, random, shuffled(nodes, random));
  }
}

function drawGroup(kind: FaultKind, random: Random, nodes: string[]): string[] {
  switch (kind) {
    case "partition-ring":
      return nodes;
    case "partition-bridge":
      return nodes.slice(0, between(2, nodes.length - 1, random)); // the bridge, and at least one on each side
    case "partition-one-way":
      return nodes.slice(0, between(2, nodes.length, random));
    default:
      return nodes.slice(0, between(1, nodes.length - 1, random));
  }
}

/** A whole number in `[low, high]`. */
function between(low: number, high: number, random: Random): number {
  return low + Math.floor(random.float() * (high - low + 1));
}

function pick<T>(items: readonly T[], random: Random): T {
  return items[Math.floor(random.float() * items.length)] as T;
}

/** Fisher and Yates. */
function shuffled<T>(items: readonly T[], random: Random): T[] {
  const result = [...items];
  for (let last = result.length - 1; last > 0; last--) {
    const other = between(0, last, random);
    [result[last], result[other]] = [result[other] as T, result[last] as T];
  }
  return result;
}

/** Rounded to a microsecond, the unit of world time: what is written down is what happened. */
function toMicros(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
