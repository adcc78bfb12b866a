/**
 * Puts vshards that were not answered into new targets: by the copies that are left, or by a newer plan.
 *
 * Invariant: every vshard given ends in exactly one of the results' lists.
 */
import { NO_SHARD } from "../topology/snapshot.ts";
import type { Plan, PlanTarget, UnavailableVshards } from "./plan.ts";

/** Where vshards may go, and which of them nowhere. */
export interface Regrouped {
  readonly targets: readonly PlanTarget[];
  readonly missing: readonly number[];
}

/**
 * Groups vshards by their next copy.
 *
 * @param tried Copies that are not to be asked.
 * @param admits Whether a shard may be asked now; one that may not is passed over.
 */
export function byFallback(
  plan: Plan,
  vshards: Iterable<number>,
  tried: readonly number[],
  admits: (shard: number) => boolean,
): Regrouped {
  const lists = new Map<number, number[]>();
  const missing: number[] = [];
  for (const vshard of vshards) {
    let next = plan.fallback(vshard, tried);
    if (next !== NO_SHARD && !admits(next)) {
      const passed = [...tried];
      do {
        passed.push(next);
        next = plan.fallback(vshard, passed);
      } while (next !== NO_SHARD && !admits(next));
    }
    if (next === NO_SHARD) missing.push(vshard);
    else append(lists, next, vshard);
  }
  return { targets: toTargets(lists), missing };
}

/** Whether another copy may answer for at least one of the vshards. */
export function hasFallback(plan: Plan, vshards: Uint16Array, tried: readonly number[]): boolean {
  if (plan.snapshot.replicationFactor <= 1 || plan.consistency === "strong") return false;
  for (let at = 0; at < vshards.length; at++) if (plan.fallback(vshards[at] as number, tried) !== NO_SHARD) return true;
  return false;
}

/** Groups vshards as a newer plan has them; those that it does not know are missing. */
export function byPlan(
  plan: Plan,
  vshards: Iterable<number>,
): Regrouped & { readonly unavailable: readonly UnavailableVshards[] } {
  const left = new Set(vshards);
  const pick = (list: Uint16Array): Uint16Array => list.filter((vshard) => left.delete(vshard));
  const targets = plan.targets
    .map(({ shard, vshards: planned, whole }) => {
      const picked = pick(planned);
      return { shard, vshards: picked, whole: whole && picked.length === planned.length };
    })
    .filter((target) => target.vshards.length > 0);
  const unavailable = plan.unavailable
    .map(({ vshards: planned, reason }) => ({ vshards: pick(planned), reason }))
    .filter((group) => group.vshards.length > 0);
  return { targets, unavailable, missing: [...left] };
}

function append(lists: Map<number, number[]>, shard: number, vshard: number): void {
  const list = lists.get(shard);
  if (list === undefined) lists.set(shard, [vshard]);
  else list.push(vshard);
}

function toTargets(lists: Map<number, number[]>): PlanTarget[] {
  return [...lists].map(([shard, list]) => ({ shard, vshards: Uint16Array.from(list), whole: false }));
}
