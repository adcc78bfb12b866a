/** Results of runs that never were: what shrinking, timelines and the command are tested with where no world is needed. */
import { createSeededRandom } from "../../src/runtime/random.ts";
import type { Fault, FaultKind } from "../../src/sim/fault-types.ts";
import type { HistoryEntry, Violation } from "../../src/sim/history-types.ts";
import type { RunWorld } from "../../src/sim/run-world.ts";
import type { Operation } from "../../src/sim/workload-types.ts";
import type { RunResult, TraceEvent } from "../../src/sim/world-types.ts";

export interface FakeRunOptions {
  readonly seed?: number;
  readonly nodes?: number;
  readonly seconds?: number;
  readonly messages?: number;
  readonly processes?: number;
  readonly operationsPerProcess?: number;
  readonly violated?: boolean;
}

/** A result in which everything occurs: packets of every outcome, faults of both forms, operations of every end. */
export function fakeRun(options: FakeRunOptions = {}): RunResult {
  const { seed = 7, nodes = 5, seconds = 20, messages = 2_000, processes = 8, operationsPerProcess = 40 } = options;
  const random = createSeededRandom(seed);
  const below = (limit: number): number => Math.floor(random.float() * limit);
  const endUs = seconds * 1e6;
  const names = Array.from({ length: nodes }, (_, index) => `n${index}`);
  const trace: TraceEvent[] = [];
  for (let index = 0; index < messages; index++) {
    const from = below(nodes);
    const where = `${names[from]}>${names[(from + 1 + below(nodes - 1)) % nodes]}`;
    const timeUs = below(endUs);
    const packet = random.float() < 0.8 ? "frame" : "datagram";
    const detail = 40 + below(2_000);
    trace.push({ timeUs, kind: `send ${packet}`, where, detail });
    const chance = random.float();
    const later = (kind: string, afterUs: number): void => {
      trace.push({ timeUs: timeUs + afterUs, kind: `${kind} ${packet}`, where, detail });
    };
    if (chance < 0.02) later("drop", 0);
    else if (chance < 0.03) {
      later("hold", 0);
      later("deliver", 400_000);
    } else later("deliver", 200 + below(600));
    if (chance < 0.005) trace.push({ timeUs, kind: "fault drop", where });
  }
  trace.sort((one, other) => one.timeUs - other.timeUs);
  const faults: Fault[] = [
    { kind: "crash", atMs: seconds * 200, durationMs: seconds * 150, targets: ["n1"], size: 0 },
    { kind: "partition", atMs: seconds * 450, durationMs: seconds * 100, targets: ["n0", "n2"], size: 0 },
    { kind: "pause", atMs: seconds * 620, durationMs: seconds * 60, targets: ["n3"], size: 0 },
    { kind: "clock-step", atMs: seconds * 700, durationMs: 0, targets: ["n2"], size: 0.4 },
    { kind: "worker-slow", atMs: seconds * 750, durationMs: seconds * 90, targets: ["n0/w0"], size: 0.2 },
    { kind: "lose", atMs: seconds * 880, durationMs: 0, targets: ["n4"], size: 0 },
    ...trace
      .filter(({ kind }) => kind === "fault drop")
      .map(({ where }, ordinal) => ({ kind: "drop" as const, site: where, ordinal, size: 0 })),
  ];
  const { history, operations } = fakeHistory(processes, operationsPerProcess, endUs, random);
  const violations: Violation[] = options.violated === true ? [violationOf(history)] : [];
  const faultsByKind: Partial<Record<FaultKind, number>> = {};
  for (const { kind } of faults) faultsByKind[kind] = (faultsByKind[kind] ?? 0) + 1;
  return {
    seed,
    traceHash: (seed * 0x9e3779b9).toString(16).padStart(16, "0").slice(-16),
    events: trace.length,
    simulatedMs: seconds * 1000,
    wallMs: 40,
    history,
    operations,
    faults,
    faultsByKind,
    verdict: violations.length === 0 ? "passed" : "failed",
    violations,
    escapes: [],
    nodes: names.map((name) => ({
      name,
      events: 1,
      starts: 1,
      crashes: 0,
      workerDeaths: 0,
      operations: 1,
      lost: false,
    })),
    trace,
  };
}

function fakeHistory(
  processes: number,
  each: number,
  endUs: number,
  random: { float(): number },
): { history: HistoryEntry[]; operations: Operation[] } {
  const entries: Omit<HistoryEntry, "index">[] = [];
  const operations: Operation[] = [];
  for (let process = 0; process < processes; process++) {
    for (let index = 0; index < each; index++) {
      const startUs = ((index + random.float() * 0.5) / each) * endUs;
      const tookUs = (random.float() ** 3 * 0.4 * endUs) / each;
      const f = random.float() < 0.5 ? "write" : "read";
      const value = f === "write" ? { key: `k${index % 5}`, value: index } : { key: `k${index % 5}` };
      operations.push({ process, f, value, afterMs: 10 });
      entries.push({ type: "invoke", f, process, time: startUs * 1000, value });
      const chance = random.float();
      const time = (startUs + tookUs) * 1000;
      if (index === each - 1 && process === 0) continue;
      if (chance < 0.8) entries.push({ type: "ok", f, process, time, value: f === "read" ? index : null });
      else entries.push({ type: chance < 0.9 ? "fail" : "info", f, process, time, value, error: "ERR_TIMEOUT" });
    }
  }
  entries.sort((one, other) => one.time - other.time);
  return { history: entries.map((entry, index) => ({ ...entry, index })), operations };
}

function violationOf(history: readonly HistoryEntry[]): Violation {
  const ends = history.filter(({ type, f }) => type === "ok" && f === "read");
  const entries = ends.slice(Math.floor(ends.length / 2), Math.floor(ends.length / 2) + 3);
  return { rule: "linearizable", message: "key k3: read 17 after 21 was read", entries };
}

/** Worlds without a world: runs fail when `fails` says so of their operations and faults. */
export function fakeWorld(
  fails: (operations: readonly Operation[], faults: readonly Fault[]) => boolean,
  result: (seed: number) => RunResult = (seed) => fakeRun({ seed, violated: true }),
): { readonly run: RunWorld; readonly asked: Parameters<RunWorld>[] } {
  const asked: Parameters<RunWorld>[] = [];
  const run: RunWorld = async (...request) => {
    asked.push(request);
    const [world, , { replay, onProgress }] = request;
    const base = result(world.seed ?? 1);
    const operations = replay?.operations ?? base.operations;
    const faults = replay?.faults ?? base.faults;
    onProgress?.({ phase: "workload", simulatedMs: 10, totalMs: 20, events: 5, faults: 1, operations: 2, wallMs: 1 });
    const failed = fails(operations, faults);
    const violations = failed ? base.violations : [];
    return { ...base, operations, faults, violations, verdict: failed ? "failed" : "passed" };
  };
  return { run, asked };
}
