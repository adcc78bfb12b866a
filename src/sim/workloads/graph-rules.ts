/**
 * Judges what graphs answered.
 *
 * Invariant: an answer is compared where it is given, with the model of that moment; here it is judged what was wrong, and what may not fail.
 */
import type { FaultKind } from "../fault-types.ts";
import { pairCalls, violationOf } from "../history.ts";
import type { Call, HistoryEntry, Violation } from "../history-types.ts";

/** What an operation answered. */
export interface GraphAnswer {
  /** How it differs from what it must be. */
  readonly wrong: readonly string[];
  /** How often the run began or went on; 0 for what is no run. */
  readonly attempts: number;
  /** Supersteps that a run was in when it had to begin again, or to go on from what was saved. */
  readonly broken?: readonly number[];
  /** Where the run went on each time, and the superstep that was the last to be saved before; -1: none was. */
  readonly resumed?: readonly { readonly saved: number; readonly from: number }[];
  /** What kept the graph from being loaded anew, or the result from being read. */
  readonly unread?: string;
}

/** What a run may end with when something went wrong. */
const EXCUSED: ReadonlySet<string> = new Set([
  "ERR_TIMEOUT",
  "ERR_WORKER_LOST",
  "ERR_UNAVAILABLE",
  "ERR_OVERLOADED",
  "ERR_CLOSED",
  "ERR_REGION_ACCESS",
  "ERR_STALE_EPOCH",
  "ERR_UNKNOWN_COLLECTION",
  "ERR_HANDLER_HUNG",
]);
/** What runs and traversals outlive, and what they may not end with then. Who sleeps through all wakes is taken for hung, and may be twice. */
const OUTLIVED: ReadonlySet<FaultKind> = new Set(["worker-crash", "worker-slow", "wake-dropped", "wake-spurious"]);
const LOST: ReadonlySet<string> = new Set(["ERR_WORKER_LOST", "ERR_REGION_ACCESS", "ERR_STALE_EPOCH"]);
/** More deaths than this may be more than a run's attempts. */
const MOST_DEATHS = 12;

/** Every rule of graphs. @param faults Kinds of all that hit */
export function judgeGraphs(history: readonly HistoryEntry[], faults: readonly FaultKind[]): Violation[] {
  const deaths = faults.filter((kind) => kind === "worker-crash").length;
  const areWorkers = faults.every((kind) => OUTLIVED.has(kind));
  const isOutlived = areWorkers && deaths <= MOST_DEATHS;
  return pairCalls(history).flatMap((call) => {
    if (call.outcome === "ok") return [...wrongOf(call), ...(areWorkers ? repeatedOf(call) : [])];
    const code = call.completion?.error;
    if (code === undefined || (call.invoke.f !== "ask" && faults.length > 0)) return [];
    if (!EXCUSED.has(code) || faults.length === 0)
      return [violationOf("nothing fails without a cause", `${describe(call)} ended with ${code}`, [call])];
    if (!isOutlived || !LOST.has(code)) return [];
    return [violationOf("a lost worker ends no run", `${describe(call)} ended with ${code}`, [call])];
  });
}

function wrongOf(call: Call): Violation[] {
  const { wrong } = (call.completion as HistoryEntry).value as GraphAnswer;
  if (wrong.length === 0) return [];
  return [violationOf("answers are those of the reference", `${describe(call)}: ${wrong.join(", ")}`, [call])];
}

/** Workers that are lost cost a run no more than what came after its last checkpoint. */
function repeatedOf(call: Call): Violation[] {
  const { resumed = [] } = (call.completion as HistoryEntry).value as GraphAnswer;
  return resumed
    .filter(({ saved, from }) => from <= saved)
    .map(({ saved, from }) => {
      const message = `${describe(call)} went on at superstep ${from} although ${saved} was saved`;
      return violationOf("a run goes on from what was saved", message, [call]);
    });
}

function describe({ invoke }: Call): string {
  const { name } = invoke.value as { readonly name?: string };
  return `${name ?? invoke.f} of process ${invoke.process}`;
}
