/**
 * Judges what members of a barrier were told.
 *
 * Invariant: an operation whose answer is unknown may have arrived anywhere, so it counts for every phase that was complete after it began.
 */
import type { PhaseResult } from "../../actor/tick-barrier.ts";
import type { FaultKind } from "../fault-types.ts";
import { pairCalls, violationOf } from "../history.ts";
import type { Call, HistoryEntry, Violation } from "../history-types.ts";

/** Every rule of barriers. @param faults Kinds of those that hit */
export function judgeBarrier(history: readonly HistoryEntry[], faults: ReadonlySet<FaultKind>): Violation[] {
  const calls = pairCalls(history);
  return [
    ...counted(calls),
    ...tooLate(calls),
    ...sentBack(calls, faults.size > 0),
    ...(faults.size === 0 ? [...inVain(calls), ...uncounted(calls)] : []),
  ];
}

/** A phase needs as many members as it says, each of which had begun to arrive. */
function counted(calls: readonly Call[]): Violation[] {
  const violations: Violation[] = [];
  const judged = new Set<string>();
  for (const call of answered(calls)) {
    for (const { round, phase, arrived, members } of resultsOf(call)) {
      const place = `${phase} of tick ${round}`;
      if (judged.has(place)) continue;
      judged.add(place);
      const end = (call.completion as HistoryEntry).index;
      const present = new Set<number>();
      for (const other of calls) {
        if (other.invoke.index > end) break;
        const isThere =
          other.outcome !== "ok" || resultsOf(other).some((result) => result.round === round && result.phase === phase);
        if (isThere) present.add(other.invoke.process);
      }
      if (present.size < arrived)
        violations.push(
          violationOf(
            "a phase has its members",
            `${place} was complete with ${arrived} arrivals, but only ${present.size} members can have arrived`,
            [call],
          ),
        );
      if (arrived !== members)
        violations.push(
          violationOf("a phase has its members", `${place} has ${arrived} arrivals of ${members} members`, [call]),
        );
    }
  }
  return violations;
}

/** Where nothing went wrong a barrier begins once, so that whoever was told that a phase is complete is one of the members that it counts. */
function uncounted(calls: readonly Call[]): Violation[] {
  const told = new Map<string, Map<number, Call>>();
  const violations: Violation[] = [];
  for (const call of answered(calls)) {
    for (const result of resultsOf(call)) {
      if ("late" in result) continue;
      const place = `${result.phase} of tick ${result.round}`;
      const members = told.get(place) ?? new Map<number, Call>();
      told.set(place, members.set(call.invoke.process, call));
      if (members.size !== result.members + 1) continue;
      const message = `${place} was complete with ${result.members} members, and ${members.size} were told so`;
      violations.push(violationOf("a phase has its members", message, [...members.values()]));
    }
  }
  return violations;
}

/** Who arrives at a tick that is over is refused. */
function tooLate(calls: readonly Call[]): Violation[] {
  return answered(calls).flatMap((call) => {
    const late = resultsOf(call).find((result) => "late" in result);
    if (late === undefined) return [];
    const message = `process ${call.invoke.process} arrived at ${late.phase} of tick ${late.round}, which was over`;
    return [violationOf("what is over is over", message, [call])];
  });
}

/** Ticks that a member passes only grow. */
function sentBack(calls: readonly Call[], mayBeginAnew: boolean): Violation[] {
  const last = new Map<number, { call: Call; round: number }>();
  return answered(calls).flatMap((call) => {
    const { process } = call.invoke;
    const before = last.get(process);
    const rounds = resultsOf(call).map(({ round }) => round);
    last.set(process, { call, round: Math.max(...rounds) });
    // A barrier is gone with the worker that hosted it, or when all of its members were lost; the next begins at 0.
    if (before === undefined || Math.min(...rounds) > before.round) return [];
    if (mayBeginAnew && startedAnew(calls, before.call, call)) return [];
    return [
      violationOf("ticks grow", `process ${process} passed tick ${Math.min(...rounds)} after tick ${before.round}`, [
        before.call,
        call,
      ]),
    ];
  });
}

/**
 * Whether somebody passed tick 0 after a process had asked for a later one, no later than it was told of an earlier one. It may have been told of the
 * later one when the next barrier had begun: answers take their time.
 */
function startedAnew(calls: readonly Call[], before: Call, call: Call): boolean {
  const from = before.invoke.index;
  const until = (call.completion as HistoryEntry).index;
  return calls.some(
    (other) =>
      other.outcome === "ok" &&
      (other.completion as HistoryEntry).index > from &&
      (other.completion as HistoryEntry).index <= until &&
      resultsOf(other).some(({ round }) => round === 0),
  );
}

/** When all members wait at once, somebody can go on: that none of them gets an answer is the barrier's doing. */
function inVain(calls: readonly Call[]): Violation[] {
  const byProcess = new Map<number, Call[]>();
  for (const call of calls) byProcess.set(call.invoke.process, [...(byProcess.get(call.invoke.process) ?? []), call]);
  return calls.flatMap((call) => {
    const end = call.completion?.index;
    if (call.outcome === "ok" || end === undefined) return [];
    const waiting = [...byProcess.values()].map((own) =>
      own.find((other) => other.invoke.index < end && (other.completion?.index ?? end) >= end),
    );
    // Members that have nothing left to do may be waited for.
    if (waiting.some((other) => other === undefined || other.outcome === "ok")) return [];
    const { process } = call.invoke;
    const message = `process ${process} was told ${call.completion?.error} while all others waited too, although nothing went wrong`;
    return [violationOf("nobody waits in vain", message, [call])];
  });
}

function answered(calls: readonly Call[]): Call[] {
  return calls
    .filter(({ outcome }) => outcome === "ok")
    .toSorted((a, b) => (a.completion as HistoryEntry).index - (b.completion as HistoryEntry).index);
}

function resultsOf(call: Call): readonly PhaseResult[] {
  return call.outcome === "ok" ? ((call.completion as HistoryEntry).value as readonly PhaseResult[]) : [];
}
