/**
 * Rules that a history must keep by itself, or together with what a last look at the system found.
 *
 * Invariant: a rule reports only what no system that keeps it could have answered: what overlaps in time, or ended as `info`, is given
 * the benefit of the doubt. Rules do not know workloads: a function tells what an operation was about.
 *
 * Source: Terry et al., "Session guarantees for weakly consistent replicated data", 1994; the checkers of Jepsen (set, unique ids).
 */
import { Findings } from "./findings.ts";
import { pairCalls } from "./history.ts";
import type { Call, HistoryEntry, Violation } from "./history-types.ts";
import { canonicalJson } from "./plain-json.ts";

/** What a call wrote: a key and its new value, null for a removal. */
export type WriteOf = (call: Call) => { readonly key: unknown; readonly value: unknown } | undefined;

/** What a call saw or made of a key. Versions of a key grow with every write. */
export type VersionOf = (
  call: Call,
) =>
  | { readonly kind: "read" | "write"; readonly session: unknown; readonly key: unknown; readonly version: number }
  | undefined;

/** `write` [key, value] and `delete` key. */
export const keyedWrite: WriteOf = ({ invoke }) => {
  if (invoke.f === "delete") return { key: invoke.value, value: null };
  if (invoke.f !== "write" || !Array.isArray(invoke.value)) return undefined;
  const [key, value] = invoke.value as unknown[];
  return { key, value };
};

const INITIAL = -1;

/**
 * After everything healed, each key has a value that some write gave it, and that no acknowledged write has replaced since.
 *
 * @param finals value by key's JSON (`canonicalJson`), null or absent for a key that is not there. All keys that were written count.
 */
export function acknowledgedWritesSurvive(
  history: Iterable<HistoryEntry>,
  finals: ReadonlyMap<string, unknown>,
  writeOf: WriteOf = keyedWrite,
): readonly Violation[] {
  const findings = new Findings("acknowledged writes survive");
  const writes = new Map<string, { readonly call: Call; readonly text: string }[]>();
  for (const call of pairCalls(history)) {
    const write = writeOf(call);
    if (write === undefined) continue;
    const key = canonicalJson(write.key);
    const text = canonicalJson(write.value ?? null);
    listOf(writes, key).push({ call, text });
  }
  for (const key of new Set([...writes.keys(), ...finals.keys()])) {
    const text = canonicalJson(finals.get(key) ?? null);
    const all = writes.get(key) ?? [];
    const starts = all.map(({ call }) => (call.outcome === "ok" ? call.invoke.index : INITIAL));
    const lastStart = starts.reduce((most, start) => Math.max(most, start), INITIAL);
    // What ended before the last acknowledged write began was replaced by it; so was "nothing", which was there at the begin.
    const isLeft = ({ call }: { call: Call }): boolean => call.outcome !== "fail" && endOf(call) > lastStart;
    const sources = all.filter((write) => write.text === text);
    if (sources.some(isLeft) || (text === "null" && lastStart === INITIAL)) continue;
    const last = all.find(({ call }) => call.invoke.index === lastStart);
    const entries = [...sources, ...(last === undefined ? [] : [last])].flatMap(({ call }) => entriesOfCall(call));
    const why =
      sources.length === 0
        ? "which nobody wrote"
        : sources.every(({ call }) => call.outcome === "fail")
          ? "whose write failed"
          : "which was replaced";
    findings.add(
      `key ${key} is ${shorten(text)}, ${why}${last === undefined ? "" : `: the last acknowledged write is ${shorten(last.text)} at index ${lastStart}`}`,
      entries,
    );
  }
  return findings.violations;
}

/**
 * Under one session nothing goes back: a read that began after another read or a write of the session had ended sees at least that
 * version of the key.
 */
export function sessionsAreMonotonic(history: Iterable<HistoryEntry>, versionOf: VersionOf): readonly Violation[] {
  const findings = new Findings("session reads never go back");
  const highest = new Map<string, { readonly version: number; readonly call: Call }>();
  /** What each open call has to see at least. */
  const demands = new Map<Call, { readonly version: number; readonly call: Call }>();
  for (const { call, isBegin } of eventsOf(history)) {
    if (call.outcome !== "ok") continue;
    const about = versionOf(call);
    if (about === undefined) continue;
    const place = canonicalJson([about.session, about.key]);
    const known = highest.get(place);
    if (isBegin) {
      if (known !== undefined && about.kind === "read") demands.set(call, known);
      continue;
    }
    const demand = demands.get(call);
    demands.delete(call);
    if (demand !== undefined && about.version < demand.version)
      findings.add(
        `session ${canonicalJson(about.session)} read version ${about.version} of ${shorten(canonicalJson(about.key))} at index ` +
          `${call.invoke.index} after it had seen ${demand.version} at index ${demand.call.invoke.index}`,
        [...entriesOfCall(demand.call), ...entriesOfCall(call)],
      );
    if (known === undefined || about.version > known.version) highest.set(place, { version: about.version, call });
  }
  return findings.violations;
}

/**
 * A read with a bound sees every write that was acknowledged that long before it began.
 *
 * @param boundOf the bound of a read in ns of world time; undefined for a read without one
 */
export function stalenessIsBounded(
  history: Iterable<HistoryEntry>,
  versionOf: VersionOf,
  boundOf: (call: Call) => number | undefined,
): readonly Violation[] {
  const findings = new Findings("bounded staleness");
  /** By key: acknowledged writes in order of time, each with the highest version so far. */
  const acknowledged = new Map<string, { readonly time: number; readonly version: number; readonly call: Call }[]>();
  for (const { call, isBegin } of eventsOf(history)) {
    if (call.outcome !== "ok") continue;
    const about = versionOf(call);
    if (about === undefined) continue;
    const key = canonicalJson(about.key);
    const writes = listOf(acknowledged, key);
    if (!isBegin && about.kind === "write") {
      const before = writes.at(-1);
      const time = call.completion?.time ?? 0;
      writes.push(
        before !== undefined && before.version > about.version
          ? { ...before, time }
          : { time, version: about.version, call },
      );
    }
    const bound = isBegin && about.kind === "read" ? boundOf(call) : undefined;
    if (bound === undefined) continue;
    const demand = writes.findLast(({ time }) => time <= call.invoke.time - bound);
    if (demand !== undefined && about.version < demand.version)
      findings.add(
        `the read at index ${call.invoke.index} saw version ${about.version} of ${shorten(key)}, with a bound of ${bound} ns: ` +
          `version ${demand.version} was acknowledged ${call.invoke.time - (demand.call.completion?.time ?? 0)} ns before`,
        [...entriesOfCall(demand.call), ...entriesOfCall(call)],
      );
  }
  return findings.violations;
}

/** Begins and ends of calls in order of index. */
function eventsOf(history: Iterable<HistoryEntry>): { readonly call: Call; readonly isBegin: boolean }[] {
  const events: { call: Call; isBegin: boolean; index: number }[] = [];
  for (const call of pairCalls(history)) {
    events.push({ call, isBegin: true, index: call.invoke.index });
    if (call.completion !== undefined) events.push({ call, isBegin: false, index: call.completion.index });
  }
  return events.sort((a, b) => a.index - b.index);
}

/** The list of a key, a new one for a new key. */
function listOf<T>(lists: Map<string, T[]>, key: string): T[] {
  const list = lists.get(key) ?? [];
  if (list.length === 0) lists.set(key, list);
  return list;
}

function endOf({ completion, outcome }: Call): number {
  return outcome === "ok" && completion !== undefined ? completion.index : Number.POSITIVE_INFINITY;
}

function entriesOfCall({ invoke, completion }: Call): HistoryEntry[] {
  return completion === undefined ? [invoke] : [invoke, completion];
}

const SHOWN_CHARACTERS = 80;

function shorten(text: string): string {
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS - 3)}...` : text;
}
