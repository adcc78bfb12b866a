/**
 * What must hold of the fences of a log: writers that were overtaken append nothing.
 *
 * Invariant of the log: an append under the condition that its head is so and so comes right behind that; once a fence was acknowledged, no append of
 * a lower epoch that begins later is, also not after a crash, and nobody is given its epoch, or a lower one, again.
 * Source: Gray and Cheriton, "Leases", SOSP 1989; fencing tokens as in Burrows, "The Chubby lock service", OSDI 2006, section 2.4.
 */
import type { HistoryEntry, Violation } from "../history-types.ts";
import type { Appended, Fenced } from "./log-rules.ts";

const RULE = "who was overtaken appends nothing";

/** @param isDamaged Whether a node's disk lost what was synced: it may have lost the fence */
export function checkFences(history: readonly HistoryEntry[], isDamaged: (node: string) => boolean): Violation[] {
  const violations: Violation[] = [];
  /** By log, the highest epoch of which an answer has come. */
  const newest = new Map<string, number>();
  /** By process, what it has begun, and which epochs were acknowledged then. */
  const begun = new Map<number, { readonly entry: HistoryEntry; readonly newest: ReadonlyMap<string, number> }>();
  for (const entry of history) {
    if (entry.f !== "append" && entry.f !== "fence") continue;
    if (entry.type === "invoke") {
      begun.set(entry.process, { entry, newest: new Map(newest) });
      continue;
    }
    const before = begun.get(entry.process);
    if (entry.type !== "ok" || before === undefined) continue;
    const { node } = entry.value as Appended | Fenced;
    const known = isDamaged(node) ? 0 : (before.newest.get(node) ?? 0);
    const wrong =
      entry.f === "fence" ? ofFence(entry.value as Fenced, known) : ofAppend(entry.value as Appended, known);
    if (wrong !== undefined) violations.push({ rule: RULE, message: wrong, entries: [before.entry, entry] });
    if (entry.f === "fence") newest.set(node, Math.max(newest.get(node) ?? 0, (entry.value as Fenced).epoch));
  }
  return violations;
}

function ofFence({ node, epoch }: Fenced, known: number): string | undefined {
  return epoch > known ? undefined : `${node} was fenced with epoch ${epoch} after it had been with ${known}`;
}

function ofAppend({ node, position, condition }: Appended, known: number): string | undefined {
  if (condition === undefined) return undefined;
  const { expectedHead, leaseEpoch } = condition;
  if (position !== expectedHead + 1) return `${node} gave position ${position} to an append behind ${expectedHead}`;
  return leaseEpoch >= known
    ? undefined
    : `${node} took an append of epoch ${leaseEpoch} after it had been fenced with ${known}`;
}
