/**
 * What must hold of logs that were appended to while nodes crashed and disks failed.
 *
 * Invariant of the log: an acknowledged frame survives at its position; nothing is in the log that nobody appended, or that was refused, or half of
 * it; an append that began after another's answer has a higher position; what a read gave is what the log says at the end; nothing is
 * forgotten that nobody truncated. Where the log itself reports damage it may say nothing from that position on; and it reports damage
 * only where a disk did damage. Damage of the last group before a crash may pass for a torn tail: see {@link torn}.
 */
import type { Fault, FaultKind } from "../fault-types.ts";
import type { HistoryEntry, Violation } from "../history-types.ts";
import { checkFences } from "./fence-rules.ts";

/** Argument of an append: who appends what, of which size. */
export interface AppendValue {
  readonly id: string;
  readonly bytes: number;
}

/** Answer of an append. */
export interface Appended {
  readonly node: string;
  readonly position: number;
  /** What its writer asked of the log. @default nothing */
  readonly condition?: { readonly expectedHead: number; readonly leaseEpoch: number };
}

/** Answer of a fence. */
export interface Fenced {
  readonly node: string;
  readonly epoch: number;
}

/** Answer of a read: position and id of frames. */
export interface Listed {
  readonly node: string;
  readonly entries: readonly (readonly [position: number, id: string])[];
}

/** Answer of a truncation. */
export interface Truncated {
  readonly node: string;
  readonly below: number;
}

/** A log as the run left it. */
export interface FinalLog {
  readonly entries: ReadonlyMap<number, string>;
  readonly first: number;
  /** From here on the log reports damage. */
  readonly corruptFrom: number;
}

/** How the name of a log ends whose acknowledged frames may be lost with the power. What is left of it must be whole and in place all the same. */
export const UNSYNCED = "/os";

type Finals = ReadonlyMap<string, FinalLog>;

/** What disks do to what was synced. */
const DAMAGE: readonly FaultKind[] = ["disk-misdirected", "disk-bit-rot"];

/** Judges logs by what clients were told. */
export function checkLogs(finals: Finals, history: readonly HistoryEntry[], faults: readonly Fault[]): Violation[] {
  const appends = appendsOf(history);
  const acknowledged = acknowledgedOf(appends).filter(({ node }) => !node.endsWith(UNSYNCED));
  const damages = new Map([...finals.keys()].map((node) => [node, damagesOf(node, faults)]));
  const cut = torn(finals, acknowledged, damages);
  const isCut = new Set([...cut].map(({ append }) => append.id));
  return [
    ...checkReports(finals, damages),
    ...checkInvented(finals, appends),
    ...checkSurvival(
      finals,
      acknowledged.filter((one) => !cut.has(one)),
    ),
    ...checkOrder(acknowledged.filter((one) => !cut.has(one))),
    ...checkReads(finals, history, (node, id) => {
      if (acknowledged.some(({ append }) => append.id === id)) return isCut.has(id);
      // It was durable and nobody was told: it may have been cut likewise.
      return (damages.get(node) ?? 0) > 0;
    }),
    ...checkForgotten(finals, history),
    ...checkFences(history, (node) => (damages.get(node) ?? 0) > 0),
  ];
}

/** How many times a node's disk did damage. */
function damagesOf(node: string, faults: readonly Fault[]): number {
  const site = `${node.endsWith(UNSYNCED) ? node.slice(0, -UNSYNCED.length) : node}/disk`;
  return faults.filter((fault) => "site" in fault && fault.site === site && DAMAGE.includes(fault.kind)).length;
}

/** A log says that it is damaged only where its disk damaged something. */
function checkReports(finals: Finals, damages: ReadonlyMap<string, number>): Violation[] {
  return [...finals].flatMap(([node, { corruptFrom }]) => {
    if (corruptFrom === Number.POSITIVE_INFINITY || (damages.get(node) ?? 0) > 0) return [];
    const message = `${node} reports damage from position ${corruptFrom} on, and its disk did none`;
    return [{ rule: "damage is of the disk", message, entries: [] }];
  });
}

interface Append {
  readonly id: string;
  readonly invoke: HistoryEntry;
  readonly answer?: HistoryEntry;
  readonly outcome: "ok" | "fail" | "info";
}

function appendsOf(history: readonly HistoryEntry[]): ReadonlyMap<string, Append> {
  const appends = new Map<string, Append>();
  const open = new Map<number, string>();
  for (const entry of history) {
    if (entry.f !== "append") continue;
    if (entry.type === "invoke") {
      const { id } = entry.value as AppendValue;
      open.set(entry.process, id);
      appends.set(id, { id, invoke: entry, outcome: "info" });
      continue;
    }
    const begun = appends.get(open.get(entry.process) ?? "");
    if (begun !== undefined) appends.set(begun.id, { ...begun, answer: entry, outcome: entry.type });
  }
  return appends;
}

/** Nothing in a log but what was appended, once, and not refused. */
function checkInvented(finals: Finals, appends: ReadonlyMap<string, Append>): Violation[] {
  const violations: Violation[] = [];
  const seen = new Map<string, string>();
  for (const [node, { entries }] of finals) {
    for (const [position, id] of entries) {
      const place = `${node} at position ${position}`;
      const append = appends.get(id);
      const before = seen.get(id);
      const wrong =
        append === undefined
          ? "that nobody appended"
          : append.outcome === "fail"
            ? `whose append was refused with ${append.answer?.error}`
            : before === undefined
              ? undefined
              : `that is also on ${before}`;
      if (wrong !== undefined) {
        const message = `${place} has ${id}, ${wrong}`;
        violations.push({ rule: "nothing invented", message, entries: entriesOf(append) });
      }
      seen.set(id, place);
    }
  }
  return violations;
}

interface Acknowledged {
  readonly append: Append;
  readonly node: string;
  readonly position: number;
  /** Index of its answer. */
  readonly at: number;
}

function acknowledgedOf(appends: ReadonlyMap<string, Append>): Acknowledged[] {
  return [...appends.values()].flatMap((append) => {
    if (append.outcome !== "ok" || append.answer === undefined) return [];
    return [{ append, at: append.answer.index, ...(append.answer.value as Appended) }];
  });
}

function isLost(finals: Finals, { append, node, position }: Acknowledged): boolean {
  const final = finals.get(node);
  if (final === undefined || position >= final.corruptFrom || position < final.first) return false;
  return final.entries.get(position) !== append.id;
}

/**
 * Acknowledged frames that a damaged disk lost and that the log cannot have told from a torn tail: nothing on the disk said yet that they were
 * synced. That is so when no later append was acknowledged behind them, unless it was lost likewise; and at most one group for
 * each time that the disk did damage.
 */
function torn(
  finals: Finals,
  acknowledged: readonly Acknowledged[],
  damages: ReadonlyMap<string, number>,
): ReadonlySet<Acknowledged> {
  const cut = new Set<Acknowledged>();
  const ordered = acknowledged.toSorted((one, other) => one.at - other.at);
  for (const [node, count] of damages) {
    const own = ordered.filter((one) => one.node === node);
    const again = givenAgain(own);
    const lost = new Set(own.filter((one) => isLost(finals, one) || again.has(one)));
    const candidates = own.filter((one, index) => {
      if (!lost.has(one)) return false;
      const next = own.slice(index + 1).find(({ append }) => append.invoke.index > one.at);
      return next === undefined || next.position <= one.position || lost.has(next);
    });
    let groups = 0;
    let groupEnd = -1;
    for (const one of candidates) {
      if (one.append.invoke.index > groupEnd) {
        groups++;
        groupEnd = one.at;
      }
      if (groups <= count) cut.add(one);
    }
  }
  return cut;
}

/** Of a node's acknowledged frames, by their answers: those whose position, or one before it, a later append was given. */
function givenAgain(own: readonly Acknowledged[]): ReadonlySet<Acknowledged> {
  const begins = own.toSorted((one, other) => other.append.invoke.index - one.append.invoke.index);
  const again = new Set<Acknowledged>();
  let lowest = Number.POSITIVE_INFINITY;
  let next = 0;
  for (const one of own.toReversed()) {
    for (let later = begins[next]; later !== undefined && later.append.invoke.index > one.at; later = begins[++next]) {
      lowest = Math.min(lowest, later.position);
    }
    if (lowest <= one.position) again.add(one);
  }
  return again;
}

/** What was acknowledged is there, unless its log reports damage. */
function checkSurvival(finals: Finals, acknowledged: readonly Acknowledged[]): Violation[] {
  return acknowledged.flatMap((one) => {
    if (!isLost(finals, one)) return [];
    const { append, node, position } = one;
    const found = finals.get(node)?.entries.get(position) ?? "nothing, and reports no damage";
    const message = `${node} acknowledged ${append.id} at position ${position} and has there ${found}`;
    return [{ rule: "no acknowledged write lost", message, entries: entriesOf(append) }];
  });
}

/** Only what somebody truncated is gone from the beginning. */
function checkForgotten(finals: Finals, history: readonly HistoryEntry[]): Violation[] {
  const asked = new Map<string, number>();
  let anyAsked = false;
  for (const { f, type, value } of history) {
    if (f !== "truncate") continue;
    if (type === "info") anyAsked = true; // it may have done anything
    if (type !== "ok") continue;
    const { node, below } = value as Truncated;
    asked.set(node, Math.max(asked.get(node) ?? 1, below));
  }
  return [...finals].flatMap(([node, { first }]) => {
    if (anyAsked || first <= (asked.get(node) ?? 1)) return [];
    const message = `${node} begins at position ${first}, and was truncated below ${asked.get(node) ?? 1} at most`;
    return [{ rule: "nothing forgotten unasked", message, entries: [] }];
  });
}

/** An append that began after another one's answer comes after it. */
function checkOrder(acknowledged: readonly Acknowledged[]): Violation[] {
  const answers = acknowledged.toSorted((a, b) => a.at - b.at);
  const begins = answers.toSorted((a, b) => a.append.invoke.index - b.append.invoke.index);
  const latest = new Map<string, Acknowledged>();
  const violations: Violation[] = [];
  let answered = 0;
  for (const begun of begins) {
    for (
      let next = answers[answered];
      next !== undefined && next.at < begun.append.invoke.index;
      next = answers[answered]
    ) {
      if (next.position > (latest.get(next.node)?.position ?? 0)) latest.set(next.node, next);
      answered++;
    }
    const earlier = latest.get(begun.node);
    if (earlier === undefined || earlier.position < begun.position) continue;
    const message = `${begun.node} gave ${begun.append.id} position ${begun.position} after ${earlier.append.id} had position ${earlier.position}`;
    const entries = [...entriesOf(earlier.append), ...entriesOf(begun.append)];
    violations.push({ rule: "order kept", message, entries });
  }
  return violations;
}

/** What a read gave is what the log says at the end. */
function checkReads(
  finals: Finals,
  history: readonly HistoryEntry[],
  mayMiss: (node: string, id: string) => boolean,
): Violation[] {
  return history.flatMap((entry) => {
    if (entry.f !== "read" || entry.type !== "ok") return [];
    const { node, entries } = entry.value as Listed;
    if (node.endsWith(UNSYNCED)) return [];
    const final = finals.get(node);
    const wrong = entries.find(
      ([position, id]) =>
        final !== undefined &&
        position < final.corruptFrom &&
        position >= final.first &&
        final.entries.get(position) !== id &&
        !mayMiss(node, id),
    );
    if (wrong === undefined) return [];
    const [position, id] = wrong;
    const message = `a read on ${node} gave ${id} at position ${position}, where the log has ${final?.entries.get(position) ?? "nothing"}`;
    return [{ rule: "reads are of the log", message, entries: [entry] }];
  });
}

function entriesOf(append: Append | undefined): HistoryEntry[] {
  if (append === undefined) return [];
  return append.answer === undefined ? [append.invoke] : [append.invoke, append.answer];
}
