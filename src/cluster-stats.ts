/**
 * Statistics of a whole cluster: who is there, how healthy it is, how much it holds.
 *
 * Invariant: health and quorum are judged from one snapshot. `documents` counts each document once, however many copies it has;
 * `bytes` counts what is held, copies included.
 */
import type { TextCatalog } from "../actors/text/text-catalog.ts";
import type { VectorCatalog } from "../actors/vector/vector-catalog.ts";
import type { NodeTopology } from "./plane/node-topology.ts";
import { MEMBER_STATE, type TopologySnapshot } from "./topology/snapshot.ts";

/** `green`: every shard serves. `yellow`: some do not, every vshard has its primary. `red`: some vshards have no primary that serves. */
export type ClusterHealth = "green" | "yellow" | "red";

/** What {@link Cluster.clusterStats} tells. */
export interface ClusterStats {
  readonly nodes: number;
  readonly healthyNodes: number;
  readonly shards: number;
  /** Shards that are up or draining. */
  readonly onlineShards: number;
  readonly health: ClusterHealth;
  /** Whether a majority of the copies of every vshard serves: writes with `acks: "quorum"` can be acknowledged. */
  readonly quorum: boolean;
  readonly topologyEpoch: number;
  readonly vshards: number;
  readonly replicationFactor: number;
  readonly collections: number;
  readonly documents: number;
  /** Bytes of rows and records in registered memory, all copies. */
  readonly bytes: number;
  /** Tick of every barrier that this thread has open, by name. */
  readonly ticks: Readonly<Record<string, number>>;
  /** Collections that did not answer in time; what they hold is missing in the sums. */
  readonly missing: readonly string[];
}

/** How long a collection may take to tell what it holds. */
const TIMEOUT_MS = 1_000;

/** Whether a shard in this state serves. */
function serves(state: number): boolean {
  return state === MEMBER_STATE.UP || state === MEMBER_STATE.DRAINING || state === MEMBER_STATE.SUSPECT;
}

/** Health and quorum of a snapshot. */
export function judge(snapshot: TopologySnapshot): { readonly health: ClusterHealth; readonly quorum: boolean } {
  const { states, groups } = snapshot;
  let health: ClusterHealth = states.every((state) => state === MEMBER_STATE.UP || state === MEMBER_STATE.DRAINING)
    ? "green"
    : "yellow";
  let quorum = true;
  for (const { copies } of groups) {
    const serving = copies.reduce((sum, shard) => sum + Number(serves(states[shard] as number)), 0);
    if (!serves(states[copies[0] as number] as number)) health = "red";
    if (serving <= copies.length / 2) quorum = false;
  }
  return { health, quorum };
}

/** What one collection holds. */
interface Holding {
  readonly documents: number;
  readonly bytes: number;
}

/** A collection of either kind, as far as it is asked here. */
interface Countable {
  count(options: { timeoutMs: number }): Promise<number>;
  status(options: {
    timeoutMs: number;
  }): Promise<readonly { readonly heapBytes: number; readonly vectorBytes?: number; readonly rowBytes?: number }[]>;
}

async function holdingOf(opening: Promise<Countable>): Promise<Holding> {
  const collection = await opening;
  const [documents, status] = await Promise.all([
    collection.count({ timeoutMs: TIMEOUT_MS }),
    collection.status({ timeoutMs: TIMEOUT_MS }),
  ]);
  const bytes = status.reduce(
    (sum, { heapBytes, vectorBytes = 0, rowBytes = 0 }) => sum + heapBytes + vectorBytes + rowBytes,
    0,
  );
  return { documents, bytes };
}

/** Asks every collection what it holds and puts everything together. */
export async function gatherStats(
  topology: NodeTopology,
  vectors: VectorCatalog,
  texts: TextCatalog,
  ticks: Readonly<Record<string, number>>,
): Promise<ClusterStats> {
  const snapshot = topology.current;
  const { nodes, healthyNodes, shards, healthyShards } = topology.membership.counts();
  const holdings: [string, Promise<Holding>][] = [
    ...vectors.names().map((name): [string, Promise<Holding>] => [name, holdingOf(vectors.open(name, undefined))]),
    ...texts.names().map((name): [string, Promise<Holding>] => [name, holdingOf(texts.open(name, undefined))]),
  ];
  const missing: string[] = [];
  let documents = 0;
  let bytes = 0;
  for (const [name, holding] of holdings) {
    try {
      const held = await holding;
      documents += held.documents;
      bytes += held.bytes;
    } catch {
      missing.push(name); // dropped meanwhile, or a shard does not answer
    }
  }
  return {
    nodes,
    healthyNodes,
    shards,
    onlineShards: healthyShards,
    ...judge(snapshot),
    topologyEpoch: snapshot.topologyEpoch,
    vshards: snapshot.vshards,
    replicationFactor: snapshot.replicationFactor,
    collections: holdings.length,
    documents,
    bytes,
    ticks,
    missing,
  };
}
