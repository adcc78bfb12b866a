/**
 * Options of a barrier, checked and filled in once.
 *
 * Invariant: resolved options contradict nothing: the quorum can be reached by the members without which no tick begins, and
 * every number is in its range.
 */
import type { BarrierOptions, LossPolicy } from "../actor/tick-barrier.ts";
import { invalidArgument } from "../errors.ts";

/** Last tick: beyond it numbers are no longer exact. */
export const MAX_TICK: number = Number.MAX_SAFE_INTEGER;
/** Most phases of a barrier. */
export const MAX_PHASES = 64;
/** Most members of a barrier, those that wait for the next tick counted. */
export const MAX_MEMBERS = 16_384;
const MAX_NAME_LENGTH = 64;
const MAX_MEMBER_LENGTH = 1024;
const MAX_DELAY_MS = 2 ** 31 - 1;

/** Options with every default filled in; `Infinity` stands for no deadline. */
export interface ResolvedBarrierOptions {
  readonly phases: readonly string[];
  readonly members: readonly string[];
  readonly minMembers: number;
  readonly lossPolicy: LossPolicy;
  /** 0 with another policy than `quorum`. */
  readonly quorum: number;
  readonly deadlineMs: number;
  readonly phaseDeadlineMs: number;
  readonly advance: "auto" | "manual";
  readonly startTick: number;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the option and its rule. */
export function resolveBarrierOptions(options: BarrierOptions): ResolvedBarrierOptions {
  const { phases, members = [], lossPolicy = "abort", advance = "auto", startTick = 0 } = options;
  const minMembers = options.minMembers ?? Math.max(1, members.length);
  checkPhases(phases);
  checkMembers(members);
  requireInteger("minMembers", minMembers, 1, MAX_MEMBERS);
  if (!["abort", "shrink", "quorum"].includes(lossPolicy))
    throw refused("lossPolicy", 'one of "abort", "shrink" and "quorum"', lossPolicy);
  if (advance !== "auto" && advance !== "manual") throw refused("advance", '"auto" or "manual"', advance);
  requireInteger("startTick", startTick, 0, MAX_TICK);
  return {
    phases: [...phases],
    members: [...members],
    minMembers,
    lossPolicy,
    quorum: resolveQuorum(options.quorum, lossPolicy, minMembers),
    deadlineMs: resolveDelay("deadlineMs", options.deadlineMs),
    phaseDeadlineMs: resolveDelay("phaseDeadlineMs", options.phaseDeadlineMs),
    advance,
    startTick,
  };
}

/**
 * Refuses to use one barrier under two sets of options. The first tick may differ: the barrier is past it.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the first option that differs.
 */
export function assertSameBarrier(name: string, open: ResolvedBarrierOptions, wanted: ResolvedBarrierOptions): void {
  for (const key of Object.keys(open) as (keyof ResolvedBarrierOptions)[]) {
    if (key === "startTick" || String(open[key]) === String(wanted[key])) continue;
    throw invalidArgument(
      `open barrier ${JSON.stringify(name)}`,
      key,
      `${JSON.stringify(open[key])}, as it was opened with`,
      Array.isArray(wanted[key]) ? JSON.stringify(wanted[key]) : wanted[key],
    );
  }
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` unless the name is a string of 1 to 1024 characters. */
export function requireMemberName(action: string, member: unknown): void {
  if (typeof member !== "string" || member.length === 0 || member.length > MAX_MEMBER_LENGTH)
    throw invalidArgument(action, "member", `a string of 1 to ${MAX_MEMBER_LENGTH} characters`, member);
}

function checkPhases(phases: readonly string[]): void {
  if (!Array.isArray(phases) || phases.length === 0 || phases.length > MAX_PHASES)
    throw refused("phases", `a list of 1 to ${MAX_PHASES} names`, phases);
  for (const [at, phase] of phases.entries()) {
    if (typeof phase !== "string" || phase.length === 0 || phase.length > MAX_NAME_LENGTH)
      throw refused(`phases[${at}]`, `a string of 1 to ${MAX_NAME_LENGTH} characters`, phase);
    if (phases.indexOf(phase) !== at) throw refused(`phases[${at}]`, "a name of its own", phase);
  }
}

function checkMembers(members: readonly string[]): void {
  if (!Array.isArray(members) || members.length > MAX_MEMBERS)
    throw refused("members", `a list of at most ${MAX_MEMBERS} names`, members);
  for (const member of members) requireMemberName("open barrier", member);
  if (new Set(members).size !== members.length) {
    const twice = members.find((member, at) => members.indexOf(member) !== at);
    throw refused("members", "a list of distinct names", twice);
  }
}

function resolveQuorum(quorum: number | undefined, lossPolicy: LossPolicy, minMembers: number): number {
  if (lossPolicy !== "quorum") {
    if (quorum !== undefined) throw refused("quorum", 'left out with another loss policy than "quorum"', quorum);
    return 0;
  }
  if (quorum === undefined) throw refused("quorum", `an integer between 1 and ${minMembers} (minMembers)`, quorum);
  if (!Number.isInteger(quorum) || quorum < 1 || quorum > minMembers)
    throw refused("quorum", `an integer between 1 and ${minMembers} (minMembers)`, quorum);
  return quorum;
}

function resolveDelay(name: string, delayMs: number | undefined): number {
  if (delayMs === undefined) return Number.POSITIVE_INFINITY;
  if (typeof delayMs !== "number" || !(delayMs > 0 && delayMs <= MAX_DELAY_MS))
    throw refused(name, `a number of milliseconds between 0 and ${MAX_DELAY_MS}`, delayMs);
  return delayMs;
}

function requireInteger(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max)
    throw refused(name, `an integer between ${min} and ${max}`, value);
}

function refused(name: string, rule: string, value: unknown): Error {
  return invalidArgument("open barrier", name, rule, value);
}
