/** What the tests of plans share: maps, planners, and the invariants of every plan. */
import { expect } from "vitest";
import {
  checkReadOptions,
  type LagSource,
  type Plan,
  type PlanRequest,
  type ReadOptions,
} from "../../src/routing/plan.ts";
import { Planner, type PlannerOptions } from "../../src/routing/planner.ts";
import { ReplicaLoads } from "../../src/routing/replica-loads.ts";
import { createManualClock, type ManualClock } from "../../src/runtime/clock.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import {
  createSnapshot,
  holdsCopy,
  MEMBER_STATE,
  type MemberState,
  type TopologySnapshot,
} from "../../src/topology/snapshot.ts";

/** Seed of this run; vitest's global setup prints it and hands it on. */
export const SEED: number = Number(process.env["SEED"] ?? 1);

/** A map of round-robin copies with the states of some shards; the others are up. */
export function mapOf(
  shards: number,
  vshards: number,
  replicationFactor: number,
  states: Readonly<Record<number, MemberState>> = {},
  topologyEpoch = 1,
): TopologySnapshot {
  const all = new Uint8Array(shards).fill(MEMBER_STATE.UP);
  for (const [shard, state] of Object.entries(states)) all[Number(shard)] = state;
  return createSnapshot({ shards, vshards, replicationFactor, states: all, topologyEpoch });
}

export interface Rig {
  readonly planner: Planner;
  readonly loads: ReplicaLoads;
  readonly clock: ManualClock;
  /** Plans and checks the invariants of the plan. */
  readonly plan: (request: Asked) => Plan;
}

/** A request with its options as a caller gives them. */
export type Asked = { readonly snapshot: TopologySnapshot; readonly options?: ReadOptions } & (
  | { readonly kind: "point"; readonly vshard: number }
  | { readonly kind: "batch"; readonly vshards: ArrayLike<number> }
  | { readonly kind: "scatter"; readonly vshards?: ArrayLike<number> | undefined }
);

export function createRig(options: Partial<PlannerOptions> & { seed?: number } = {}): Rig {
  const loads = options.loads ?? new ReplicaLoads();
  const clock = createManualClock(1_000);
  const planner = new Planner({ random: createSeededRandom(options.seed ?? SEED), clock, loads, ...options });
  const plan = (asked: Asked): Plan => {
    const { options: read, ...rest } = asked;
    const request = { ...rest, rules: checkReadOptions(read) } as PlanRequest;
    const made = planner.plan(request);
    requireInvariants(made, request);
    return made;
  };
  return { planner, loads, clock, plan };
}

/** A lag source out of two tables with keys `vshard:shard`. */
export function lagOf(
  lags: Readonly<Record<string, { lagMs: number; sampledAtMs: number }>>,
  lsns: Readonly<Record<string, number>> = {},
): LagSource {
  return {
    lag: (vshard, shard) => lags[`${vshard}:${shard}`],
    appliedLsn: (vshard, shard) => lsns[`${vshard}:${shard}`] ?? -1,
  };
}

/** The shard that a plan chose for a vshard, `undefined` when it is unavailable. */
export function chosenFor(plan: Plan, vshard: number): number | undefined {
  return plan.targets.find((target) => target.vshards.includes(vshard))?.shard;
}

/** What must hold for every plan whatever was asked; see `plan.ts`. */
export function requireInvariants(plan: Plan, request: PlanRequest): void {
  const { snapshot } = request;
  const asked =
    request.kind === "point"
      ? [request.vshard]
      : request.vshards === undefined
        ? Array.from({ length: snapshot.vshards }, (_, vshard) => vshard)
        : [...new Set(Array.from(request.vshards))].sort((a, b) => a - b);
  const parts = [...plan.targets, ...plan.unavailable];
  expect(parts.flatMap((part) => [...part.vshards]).sort((a, b) => a - b)).toEqual(asked);
  expect(plan.snapshot).toBe(snapshot);
  expect(plan.kind).toBe(request.kind);
  expect(plan.strategy).toBe(request.rules.strategy);
  expect(plan.consistency).toBe(request.rules.consistency);
  expect(new Set(plan.targets.map((target) => target.shard)).size).toBe(plan.targets.length);
  expect(new Set(plan.unavailable.map((gap) => gap.reason)).size).toBe(plan.unavailable.length);
  for (const part of parts) {
    expect(part.vshards.length).toBeGreaterThan(0);
    expect([...part.vshards]).toEqual([...part.vshards].sort((a, b) => a - b));
    const items =
      request.kind === "batch"
        ? Array.from(request.vshards, (vshard, item) => (part.vshards.includes(vshard) ? item : -1)).filter(
            (at) => at >= 0,
          )
        : undefined;
    expect(part.items === undefined ? undefined : [...part.items]).toEqual(items);
  }
  for (const { shard, vshards, whole } of plan.targets) {
    for (const vshard of vshards) expect(holdsCopy(snapshot, shard, vshard)).toBe(true);
    expect([MEMBER_STATE.DOWN, MEMBER_STATE.REMOVED]).not.toContain(snapshot.states[shard]);
    let held = 0;
    for (let vshard = 0; vshard < snapshot.vshards; vshard++) if (holdsCopy(snapshot, shard, vshard)) held++;
    expect(whole).toBe(vshards.length === held);
  }
}
