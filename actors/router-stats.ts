/**
 * Counters of one thread's coordinator, put together from its planner's, executor's and loads' own.
 */
import type { Executor } from "../src/routing/executor.ts";
import type { ExecutorStats } from "../src/routing/executor-stats.ts";
import type { ReplicaLoads } from "../src/routing/replica-loads.ts";
import { MEMBER_STATE_NAMES, type MemberStateName, type TopologySnapshot } from "../src/topology/snapshot.ts";

/** Counters that only the coordinator knows. */
export interface RouterCounters {
  readonly reads: { point: number; batch: number; scatter: number };
  writes: number;
}

/** One shard as this thread sees it. */
export interface ShardLoad {
  readonly shard: number;
  readonly state: MemberStateName;
  /** Planned requests of this thread under way. */
  readonly inFlight: number;
  /** Moving average and 95th percentile of their latencies, in us; 0 before the first answer. */
  readonly latencyUs: number;
  readonly p95Us: number;
  /** Whether the shard is left alone after too many failures: `closed` is the normal state. */
  readonly breaker: "closed" | "open" | "half-open";
}

/** What one thread has planned and sent. */
export interface RouterStats extends ExecutorStats {
  readonly topologyEpoch: number;
  /** Planned reads by kind. */
  readonly reads: Readonly<RouterCounters["reads"]>;
  readonly writes: number;
  /** Hedges, retries and waits that are due later. */
  readonly waiting: number;
  readonly shards: readonly ShardLoad[];
}

/** All zero. */
export function createRouterCounters(): RouterCounters {
  return { reads: { point: 0, batch: 0, scatter: 0 }, writes: 0 };
}

/** Puts the counters together. */
export function routerStats(
  counters: RouterCounters,
  executor: Executor,
  loads: ReplicaLoads,
  snapshot: TopologySnapshot,
): RouterStats {
  return {
    ...executor.stats,
    topologyEpoch: snapshot.topologyEpoch,
    reads: { ...counters.reads },
    writes: counters.writes,
    waiting: executor.waiting,
    shards: Array.from(snapshot.states, (state, shard) => ({
      shard,
      state: MEMBER_STATE_NAMES[state] as MemberStateName,
      inFlight: loads.inFlight(shard),
      latencyUs: loads.latencyUs(shard),
      p95Us: loads.quantileUs(shard, 0.95),
      breaker: executor.breakers.stateOf(shard),
    })),
  };
}
