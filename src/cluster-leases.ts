/**
 * Makes a node's keeper of leases and the map, and ties it to what it needs to know and to whom its maps are for.
 *
 * Invariant: a cluster of one node whose vshards have copies always has one; one of several nodes when it is given who grants leases. Whoever is told of
 * a map is told after the snapshot with it was published.
 */
import type { ResolvedClusterOptions } from "./cluster-options.ts";
import type { ControlPlane } from "./plane/control-plane.ts";
import { MapKeeper } from "./plane/map-keeper.ts";
import type { NodeLinks, NodesOptions } from "./plane/node-links.ts";
import type { NodeTopology } from "./plane/node-topology.ts";
import type { Runtime } from "./runtime/runtime.ts";
import { sleep } from "./runtime/scheduler.ts";
import { decodeMap, encodeMap } from "./topology/cluster-map.ts";
import { createLocalLeaseStore, type LeaseStore } from "./topology/lease-store.ts";
import { LeaseWords } from "./topology/lease-words.ts";
import { shardId } from "./topology/member.ts";
import { ReplicaTable } from "./topology/replica-table.ts";

/** Pause between two looks whether what is handed over is served elsewhere, in ms. */
const HAND_OVER_LOOK_MS = 5;

/**
 * @param kept Of a node with a directory or with NATS: where the map of its lives is, how many there were, and what keeps others from it.
 * @returns undefined where no vshard can get another primary
 */
export function createMapKeeper(
  runtime: Runtime,
  nodes: NodesOptions | undefined,
  options: ResolvedClusterOptions,
  topology: NodeTopology,
  replicas: SharedArrayBuffer,
  kept?: { readonly leases: LeaseStore; readonly starts: number; guard(words: LeaseWords): void },
): MapKeeper | undefined {
  const nowMs = (): number => runtime.clock.nowMs();
  const words = new LeaseWords(replicas, nowMs);
  const store: LeaseStore | undefined = nodes === undefined ? (kept?.leases ?? createLocalLeaseStore()) : nodes.leases;
  const isKept = store !== undefined && options.replicationFactor > 1;
  // A lease that lets others be primaries does for the store as well.
  if (nodes === undefined || !isKept) kept?.guard(words);
  if (!isKept) return undefined;
  return new MapKeeper({
    ...runtime,
    store,
    topology,
    table: new ReplicaTable(replicas, topology.shared, nowMs),
    words,
    incarnation: nodes?.incarnation ?? kept?.starts ?? 1,
    leaseMs: options.leaseMs,
    others: (nodes?.members ?? []).map(({ name }) => name).filter((name) => name !== topology.self),
  });
}

/** The keeper hears of workers and of other nodes' maps; workers and other nodes hear of new maps. */
export function keepMap(
  keeper: MapKeeper,
  topology: NodeTopology,
  control: ControlPlane,
  links: NodeLinks | undefined,
): void {
  control.on("worker-lost", ({ shard }) => keeper.shardLost(shard, false));
  control.on("worker-down", ({ shard }) => keeper.shardLost(shard, true));
  control.on("worker-ready", ({ shard }) => keeper.shardReady(shard));
  links?.onMap((map) => keeper.learn(decodeMap(map)));
  topology.on("map", (map) => {
    links?.tellMap(encodeMap(map));
    control.mapChanged();
  });
}

/**
 * Gives what this node is primary of to other nodes, and waits until these serve it. Somebody may give something back meanwhile who has not heard that
 * this node drains: so it stays until nothing was given to it for as long as others would take to suspect it, which is several heartbeats.
 *
 * @returns whether they do; not so when nobody else can, or the time has passed
 */
export async function handOver(
  keeper: MapKeeper,
  topology: NodeTopology,
  replicas: SharedArrayBuffer,
  { clock, scheduler }: Runtime,
  timeoutMs: number,
): Promise<boolean> {
  const nowMs = (): number => clock.nowMs();
  const byMs = nowMs() + timeoutMs;
  const own = topology.ownShards;
  const others = Array.from({ length: topology.current.shards }, (_, shard) => shard).filter(
    (shard) => !own.includes(shard),
  );
  // Who gives vshards back where the placement wants them leaves out whoever drains.
  for (const shard of own) topology.membership.drain(shardId(shard), "its node is leaving");
  topology.publish();
  const before = topology.current.owners.slice();
  const given = Array.from(before.keys()).filter((vshard) => own.includes(before[vshard] as number));
  const table = new ReplicaTable(replicas, topology.shared, nowMs);
  let leftAtMs = Number.POSITIVE_INFINITY;
  while (nowMs() < byMs && others.some((shard) => topology.rankOf(shard) > 0)) {
    if (!keeper.leave()) leftAtMs = Number.POSITIVE_INFINITY;
    else if (leftAtMs === Number.POSITIVE_INFINITY) leftAtMs = nowMs();
    else if (given.every((vshard) => isLevel(vshard, leftAtMs + topology.suspectMs))) return true;
    await sleep(scheduler, HAND_OVER_LOOK_MS);
  }
  return false;

  /** Whether a copy here is known to have had everything at that time or later: then its new primary serves. */
  function isLevel(vshard: number, sinceMs: number): boolean {
    const { copies, replicationFactor } = topology.current;
    const holders = copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor);
    return own.some((shard) => holders.includes(shard) && nowMs() - table.stalenessMs(vshard, shard) >= sinceMs);
  }
}
