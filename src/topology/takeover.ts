/**
 * Who becomes the primary of vshards whose primary is lost.
 *
 * Invariant: a new primary holds a copy and is not lost itself; a vshard without such a copy keeps the primary that it has. The one that is
 * known to be furthest is chosen; among equals the one that would be primary of the fewest.
 */
import { NO_SHARD, type TopologySnapshot } from "./snapshot.ts";

/** What the choice is made by. */
export interface TakeoverRules {
  /** Whether a shard is lost. */
  readonly isLost: (shard: number) => boolean;
  /** How much a shard is to be preferred, before all else: one that is not accused of anything to one that is; 0: not at all. */
  readonly rank: (shard: number) => number;
  /** What a copy is known to have applied, -1: unknown. */
  readonly appliedLsn: (vshard: number, shard: number) => number;
}

/** The copies of every vshard whose primary is lost and has a successor, that one first. */
export function planTakeover(snapshot: TopologySnapshot, rules: TakeoverRules): Map<number, number[]> {
  const { owners, copies, replicationFactor, vshards, shards } = snapshot;
  const { isLost, rank, appliedLsn } = rules;
  const moved = new Map<number, number[]>();
  const load = new Array<number>(shards).fill(0);
  for (const owner of owners) (load[owner] as number)++;
  for (let vshard = 0; vshard < vshards; vshard++) {
    const owner = owners[vshard] as number;
    if (!isLost(owner)) continue;
    const list = [...copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor)];
    const able = list.filter((shard) => shard !== NO_SHARD && !isLost(shard) && rank(shard) > 0);
    const order = (a: number, b: number): number =>
      rank(b) - rank(a) ||
      appliedLsn(vshard, b) - appliedLsn(vshard, a) ||
      (load[a] as number) - (load[b] as number) ||
      a - b;
    const [next] = able.sort(order);
    if (next === undefined) continue;
    (load[owner] as number)--;
    (load[next] as number)++;
    moved.set(vshard, [next, ...list.filter((shard) => shard !== next)]);
  }
  return moved;
}
