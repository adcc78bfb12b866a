/**
 * Judges what registers answered, by the consistency that was asked for.
 *
 * Invariant: a rule speaks only of what its level promises. Values are unique over a run, so an answer names the write that it saw.
 */
import type { Consistency } from "../../routing/plan.ts";
import { pairCalls, violationOf } from "../history.ts";
import {
  acknowledgedWritesSurvive,
  sessionsAreMonotonic,
  stalenessIsBounded,
  type VersionOf,
} from "../history-invariants.ts";
import type { Call, HistoryEntry, Violation } from "../history-types.ts";
import { linearizable } from "../linearizability.ts";
import { canonicalJson } from "../plain-json.ts";
import { keyValue } from "../register-model.ts";

/** What one node read of all keys when the run was over and everything had healed. */
export interface FinalRead {
  readonly node: string;
  readonly consistency: Consistency;
  readonly ids: readonly string[];
  /** Undefined where no copy is left that may answer. */
  readonly values: readonly (number | null | undefined)[];
  /** Ids that a search for everything found; undefined where none was asked for. */
  readonly found?: readonly string[];
}

/** What readers asked for. */
export interface RegisterLevel {
  readonly consistency: Consistency;
  readonly maxStalenessMs: number;
  /** Whether acknowledged writes may be gone: then only what is there is judged. @default false */
  readonly mayForget?: boolean;
}

type Pair = readonly [key: string, value: number | null];

/** Clocks of nodes may run apart by so much of the bound, and an answer takes a moment to travel. */
const CLOCK_SHARE = 0.1;
const CLOCK_SLACK_MS = 20;
const NS_PER_MS = 1e6;

/** Every rule that the level promises. */
export function judgeRegisters(
  history: readonly HistoryEntry[],
  finals: readonly FinalRead[],
  level: RegisterLevel,
): Violation[] {
  const calls = pairCalls(history);
  const violations = [...invented(calls), ...unequal(finals), ...unfound(finals)];
  if (level.mayForget === true) return violations;
  if (level.consistency === "strong")
    return [...violations, ...linearizable(withFinals(history, finals), keyValue()).violations];
  violations.push(...lostWrites(history, finals));
  if (level.consistency === "session")
    violations.push(...unseenOwnWrites(calls), ...sessionsAreMonotonic(history, versionOf));
  if (level.consistency === "bounded-staleness") violations.push(...tooOld(history, level.maxStalenessMs));
  return violations;
}

/** The final strong reads as operations of processes of their own. */
function withFinals(history: readonly HistoryEntry[], finals: readonly FinalRead[]): HistoryEntry[] {
  const entries = [...history];
  const process = 1 + Math.max(0, ...history.map((entry) => entry.process));
  let time = (history.at(-1)?.time ?? 0) + 1;
  for (const { consistency, ids, values } of finals) {
    if (consistency !== "strong") continue;
    for (const [at, key] of ids.entries()) {
      if (values[at] === undefined) continue;
      const common = { f: "read", process };
      entries.push({ type: "invoke", ...common, time: time++, index: entries.length, value: [key, null] });
      entries.push({ type: "ok", ...common, time: time++, index: entries.length, value: [key, values[at]] });
    }
  }
  return entries;
}

function invented(calls: readonly Call[]): Violation[] {
  const written = new Map<number, string>();
  for (const { invoke } of calls)
    if (invoke.f === "write") written.set((invoke.value as Pair)[1] as number, (invoke.value as Pair)[0]);
  return reads(calls).flatMap(({ call, key, value }) => {
    if (value === null || written.get(value) === key) return [];
    return [violationOf("nothing invented", `a read of ${key} answered ${value}, which nobody wrote to it`, [call])];
  });
}

/** After everything healed every copy has the same. */
function unequal(finals: readonly FinalRead[]): Violation[] {
  const firsts = new Map<string, { readonly by: FinalRead; readonly value: number | null }>();
  return finals.flatMap((by) =>
    by.ids.flatMap((key, at) => {
      const value = by.values[at];
      if (value === undefined) return []; // no copy was left to answer
      const first = firsts.get(key) ?? { by, value };
      firsts.set(key, first);
      if (value === first.value) return [];
      const message = `${key} is ${first.value} as ${first.by.node} reads it (${first.by.consistency}) and ${value} as ${by.node} does (${by.consistency})`;
      return [violationOf("copies equal after heal", message, [])];
    }),
  );
}

/** The index has each document that can be read, once, and nothing else. */
function unfound(finals: readonly FinalRead[]): Violation[] {
  return finals.flatMap(({ node, consistency, ids, values, found }) => {
    const stored = ids.filter((_, at) => values[at] !== null && values[at] !== undefined).sort();
    const given = found?.toSorted();
    if (given === undefined || canonicalJson(given) === canonicalJson(stored)) return [];
    const message = `${node} (${consistency}) finds ${given.join(", ") || "nothing"} where ${stored.join(", ") || "nothing"} is stored`;
    return [violationOf("index equals documents", message, [])];
  });
}

/** Of the keys that could be read strongly in the end, each has a value that no acknowledged write has replaced. */
function lostWrites(history: readonly HistoryEntry[], finals: readonly FinalRead[]): readonly Violation[] {
  const ends = new Map<string, number | null>();
  for (const { consistency, ids, values } of finals)
    if (consistency === "strong")
      for (const [at, key] of ids.entries()) {
        const value = values[at];
        if (value !== undefined && !ends.has(canonicalJson(key))) ends.set(canonicalJson(key), value);
      }
  const read = history.filter(({ value }) => ends.has(canonicalJson((value as Pair)[0])));
  return acknowledgedWritesSurvive(read, ends);
}

function unseenOwnWrites(calls: readonly Call[]): Violation[] {
  const last = new Map<string, Call>();
  const violations: Violation[] = [];
  for (const call of calls) {
    const [key] = call.invoke.value as Pair;
    const own = `${call.invoke.process} ${key}`;
    if (call.invoke.f === "write") {
      if (call.outcome === "ok") last.set(own, call);
      continue;
    }
    const before = last.get(own);
    if (before === undefined || call.outcome !== "ok") continue;
    const seen = ((call.completion as HistoryEntry).value as Pair)[1];
    const least = (before.invoke.value as Pair)[1] as number;
    if (seen !== null && seen >= least) continue;
    const message = `process ${call.invoke.process} read ${seen} of ${key} under the session in which it had written ${least}`;
    violations.push(violationOf("a session sees its own writes", message, [before, call]));
  }
  return violations;
}

/** Values of a key grow, as it has one writer: they are its versions. */
const versionOf: VersionOf = ({ invoke, completion }) => {
  const [key, value] = (completion ?? invoke).value as Pair;
  const kind = invoke.f === "write" ? "write" : "read";
  return { kind, session: invoke.process, key, version: value ?? 0 };
};

function tooOld(history: readonly HistoryEntry[], maxStalenessMs: number): readonly Violation[] {
  const slackMs = maxStalenessMs * CLOCK_SHARE + CLOCK_SLACK_MS;
  return stalenessIsBounded(history, versionOf, () => (maxStalenessMs + slackMs) * NS_PER_MS);
}

/** Reads that were answered. */
function reads(calls: readonly Call[]): { call: Call; key: string; value: number | null }[] {
  return calls.flatMap((call) => {
    if (call.invoke.f !== "read" || call.outcome !== "ok") return [];
    const [key, value] = (call.completion as HistoryEntry).value as Pair;
    return [{ call, key, value }];
  });
}
