/**
 * Judges what searches answered.
 *
 * Invariant: each document has one writer, whose operations do not overlap, so at every moment it is known to be there, known to be
 * gone, or in doubt; only what is known is demanded.
 */
import { pairCalls, violationOf } from "../history.ts";
import type { Call, HistoryEntry, Violation } from "../history-types.ts";
import { type GatherRecord, gathersTellWhatIsMissing } from "../invariants.ts";

/** Completeness without the outcome of every part. */
type Answer = GatherRecord["completeness"] & { readonly ids: readonly number[]; readonly scores: readonly number[] };

/** Every rule of searches. @param mayForget Whether acknowledged writes may be gone: then nothing is demanded of what is there */
export function judgeSearches(history: readonly HistoryEntry[], mayForget = false): Violation[] {
  const calls = pairCalls(history);
  const writes = new Map<number, Call[]>();
  for (const call of calls) {
    if (call.invoke.f === "search" || call.outcome === "fail") continue;
    const id = call.invoke.value as number;
    const list = writes.get(id) ?? [];
    list.push(call);
    writes.set(id, list);
  }
  return calls.flatMap((call) =>
    call.invoke.f === "search" && call.outcome === "ok" ? judge(call, writes, mayForget) : [],
  );
}

function judge(call: Call, writes: ReadonlyMap<number, readonly Call[]>, mayForget: boolean): Violation[] {
  const answer = (call.completion as HistoryEntry).value as Answer;
  const { ids, scores } = answer;
  const violations: Violation[] = [];
  const say = (rule: string, message: string, others: readonly Call[] = []): void => {
    violations.push(violationOf(rule, message, [...others, call]));
  };
  if (new Set(ids).size !== ids.length) say("no document twice", "a search has one document twice");
  if (scores.some((score, at) => at > 0 && score < (scores[at - 1] as number)))
    say("hits in order", "hits are out of order");
  const entries = [call.invoke, call.completion as HistoryEntry];
  violations.push(...gathersTellWhatIsMissing([{ what: "a search", completeness: answer, missing: [], entries }]));
  const found = new Set(ids);
  for (const id of ids) if (!writes.has(id)) say("nothing invented", `a search found ${id}, which nobody stored`);
  if (mayForget) return violations;
  for (const [id, list] of writes) {
    const known = knownAt(list, call);
    if (known === undefined) continue;
    const isStored = known.invoke.f === "store";
    if (!isStored && found.has(id))
      say("deleted is gone", `a search found ${id}, whose deletion was acknowledged`, [known]);
    if (isStored && answer.complete && !found.has(id))
      say("complete is complete", `a complete search lacks ${id}, which was acknowledged`, [known]);
  }
  return violations;
}

/** The write that decides whether a document is there during a search; undefined where that is in doubt. */
function knownAt(writes: readonly Call[], search: Call): Call | undefined {
  const { index } = search.invoke;
  const end = (search.completion as HistoryEntry).index;
  let last: Call | undefined;
  for (const write of writes) {
    if (write.invoke.index > end) break;
    const isOver = write.outcome === "ok" && (write.completion as HistoryEntry).index < index;
    // What is in doubt may take effect at any later time.
    if (!isOver) return undefined;
    last = write;
  }
  return last;
}
