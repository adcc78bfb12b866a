/**
 * Tells the replica table what a shard has found on its disk, and its log what it has found in memory.
 *
 * Invariant: a vshard of which nothing is certain is not told of: its primary gets it back from the copies, a copy is filled by its primary.
 */
import type { ReplicaTable } from "../../src/topology/replica-table.ts";
import { holdsCopy, isGiven, type TopologySnapshot } from "../../src/topology/snapshot.ts";
import type { ReplicatedEngine } from "../engine.ts";
import type { DurableState, Relogged } from "./durable-state.ts";
import { VSHARD_STATE } from "./vshard-states.ts";

/** No clock of this host tells when it was appended. */
const UNKNOWN_TIME: number = Number.NEGATIVE_INFINITY;

/** Vshards that a shard holds a copy of, ascending. */
export function heldVshards(snapshot: TopologySnapshot, shard: number): number[] {
  return Array.from({ length: snapshot.vshards }, (_, vshard) => vshard).filter((vshard) =>
    holdsCopy(snapshot, shard, vshard),
  );
}

/**
 * After a start: the rows are what the log says. Where there are copies elsewhere a primary asks them first, as one of them may have been
 * primary meanwhile.
 */
export function publishRecovered(
  { states }: DurableState,
  table: ReplicaTable,
  snapshot: TopologySnapshot,
  shard: number,
  nowMs: number,
): void {
  for (const vshard of heldVshards(snapshot, shard)) {
    const lsn = states.lsnOf(vshard);
    const state = states.stateOf(vshard);
    const isEmpty = state === VSHARD_STATE.EMPTY;
    const isUnknown = state === VSHARD_STATE.LOST || (isEmpty && isGiven(snapshot, shard, vshard));
    if (isUnknown || !(isEmpty || state === VSHARD_STATE.WHOLE)) {
      table.publishSyncing(vshard, shard, isUnknown ? -1 : lsn);
    } else if (snapshot.owners[vshard] === shard && snapshot.replicationFactor === 1) {
      table.publishHead(vshard, lsn, nowMs);
      table.publishApplied(vshard, shard, lsn, nowMs);
    } else {
      table.publishApplied(vshard, shard, lsn, UNKNOWN_TIME);
    }
  }
}

/** After a worker's death: the log may lack what its predecessor had applied and not written. */
export function logAdopted(
  durable: DurableState,
  engines: readonly ReplicatedEngine[],
  table: ReplicaTable,
  snapshot: TopologySnapshot,
  shard: number,
): void {
  const { states } = durable;
  const list: Relogged[] = [];
  for (const vshard of heldVshards(snapshot, shard)) {
    const own = snapshot.owners[vshard] === shard;
    if (own && !table.hasOwnHead(vshard)) continue; // it is on its way back from its copies
    const lsn = own ? table.recoverHead(vshard) : table.appliedLsn(vshard, shard);
    if (lsn < 0) continue; // its primary fills it
    if (lsn === states.lsnOf(vshard) && durable.isWhole(vshard)) continue;
    // A write that its primary never acknowledged may be missing in an owner's log; of a copy's others may count on it.
    list.push({ vshard, lsn, floor: own && durable.isWhole(vshard) ? states.lsnOf(vshard) : -1 });
  }
  durable.relog(engines, list);
}
