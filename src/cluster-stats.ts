/**
 * Statistics of a whole cluster: who is there, how healthy it is, how much it holds.
 *
 * Invariant: health and quorum are judged from one snapshot. `documents` counts each document once, however many copies it has;
 * `bytes` counts what is held, copies included.
 */
import type { Graph } from "../actors/graph/client-graph.ts";
import type { ClientThread } from "./client-thread.ts";
import type { ClusterCollections } from "./cluster-collections.ts";
import type { ClusterMemory } from "./cluster-memory.ts";
import type { ClusterInfo } from "./cluster-types.ts";
import type { ShardloomError } from "./errors.ts";
import type { ControlPlane } from "./plane/control-plane.ts";
import type { NodeTopology } from "./plane/node-topology.ts";
import { shardId } from "./topology/member.ts";
import { MEMBER_STATE, shardsOf, type TopologySnapshot } from "./topology/snapshot.ts";

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
  /** Whether a majority of the copies of every vshard serves: where its primary does too, writes with `acks: "quorum"` are acknowledged. */
  readonly quorum: boolean;
  readonly topologyEpoch: number;
  readonly vshards: number;
  readonly replicationFactor: number;
  readonly collections: number;
  readonly documents: number;
  /** Vertices of all graphs. */
  readonly vertices: number;
  /** Edges of all graphs; those of removed vertices among them until they are swept. */
  readonly edges: number;
  /** Bytes of rows and records in registered memory, all copies, and of the edges of graphs. */
  readonly bytes: number;
  /** Tick of every barrier that this thread has open, by name. */
  readonly ticks: Readonly<Record<string, number>>;
  /** Collections that did not answer in time; what they hold is missing in the sums. */
  readonly missing: readonly string[];
}

/** How long `info` waits for a worker's counters. */
const WORKER_TIMEOUT_MS = 500;
/** How long a collection may take to tell what it holds. */
const TIMEOUT_MS = 1_000;

/** Whether a shard in this state serves. */
function serves(state: number): boolean {
  return state === MEMBER_STATE.UP || state === MEMBER_STATE.DRAINING || state === MEMBER_STATE.SUSPECT;
}

/** Health and quorum of a snapshot. */
export function judge(snapshot: TopologySnapshot): { readonly health: ClusterHealth; readonly quorum: boolean } {
  const { states, groups } = snapshot;
  const well = [MEMBER_STATE.UP, MEMBER_STATE.DRAINING, MEMBER_STATE.REMOVED] as const;
  let health: ClusterHealth = states.every((state) => well.some((each) => each === state)) ? "green" : "yellow";
  let quorum = true;
  for (const { copies } of groups) {
    const serving = copies.reduce((sum, shard) => sum + Number(serves(states[shard] as number)), 0);
    if (!serves(states[copies[0] as number] as number)) health = "red";
    if (serving <= copies.length / 2) quorum = false;
  }
  return { health, quorum };
}

/** What one collection holds, and what of it is on each shard, copies included. */
interface Holding {
  readonly documents: number;
  readonly vertices: number;
  readonly edges: number;
  readonly shards: readonly { readonly documents: number; readonly bytes: number }[];
}

/** A collection of documents of either kind, as far as it is asked here. */
interface Countable {
  count(options: { timeoutMs: number }): Promise<number>;
  status(options: { timeoutMs: number }): Promise<readonly ShardStatus[]>;
}

interface ShardStatus {
  readonly heapBytes: number;
  /** Of vectors. */
  readonly rows?: number;
  readonly vectorBytes?: number;
  /** Of texts. */
  readonly documents?: number;
  readonly rowBytes?: number;
}

async function holdingOf(opening: Promise<Countable>): Promise<Holding> {
  const collection = await opening;
  const [documents, status] = await Promise.all([
    collection.count({ timeoutMs: TIMEOUT_MS }),
    collection.status({ timeoutMs: TIMEOUT_MS }),
  ]);
  const shards = status.map((held) => ({
    documents: held.rows ?? held.documents ?? 0,
    bytes: held.heapBytes + (held.vectorBytes ?? 0) + (held.rowBytes ?? 0),
  }));
  return { documents, vertices: 0, edges: 0, shards };
}

async function holdingOfGraph(opening: Promise<Graph>): Promise<Holding> {
  const graph = await opening;
  const status = await graph.status({ timeoutMs: TIMEOUT_MS });
  return {
    documents: 0,
    vertices: status.reduce((sum, { vertices }) => sum + vertices, 0),
    edges: status.reduce((sum, { edges }) => sum + edges, 0),
    shards: status.map(({ edgeBytes }) => ({ documents: 0, bytes: edgeBytes })),
  };
}

/** Asks every collection what it holds and puts everything together; each shard's part becomes its member's metrics. */
export async function gatherStats(
  topology: NodeTopology,
  { vectors, texts, graphs }: ClusterCollections,
  ticks: Readonly<Record<string, number>>,
): Promise<ClusterStats> {
  const snapshot = topology.current;
  const { nodes, healthyNodes, shards, healthyShards } = topology.membership.counts();
  const names = [...vectors.names(), ...texts.names(), ...graphs.names()];
  const holdings = await Promise.allSettled([
    ...vectors.names().map((name) => holdingOf(vectors.open(name, undefined))),
    ...texts.names().map((name) => holdingOf(texts.open(name, undefined))),
    ...graphs.names().map((name) => holdingOfGraph(graphs.open(name, undefined))),
  ]);
  const held = holdings.flatMap((entry) => (entry.status === "fulfilled" ? [entry.value] : []));
  const missing = names.filter((_, at) => holdings[at]?.status === "rejected"); // dropped meanwhile, or a shard is silent
  const total = (of: "documents" | "vertices" | "edges"): number => held.reduce((sum, holding) => sum + holding[of], 0);
  let bytes = 0;
  for (const [at, shard] of shardsOf(snapshot).entries()) {
    const parts = held.map((holding) => holding.shards[at] ?? { documents: 0, bytes: 0 });
    const metrics = {
      documents: parts.reduce((sum, part) => sum + part.documents, 0),
      bytes: parts.reduce((sum, part) => sum + part.bytes, 0),
    };
    bytes += metrics.bytes;
    if (missing.length === 0) topology.membership.report(shardId(shard), metrics);
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
    collections: names.length,
    documents: total("documents"),
    vertices: total("vertices"),
    edges: total("edges"),
    bytes,
    ticks,
    missing,
  };
}

/** Counters and states of one node. */
export async function gatherInfo(
  { topologyEpoch, shards, vshards }: TopologySnapshot,
  { arena, regions }: ClusterMemory,
  client: ClientThread,
  control: ControlPlane,
  collections: { names(): readonly string[] },
  storage?: { documentsFailure(shard: number): ShardloomError | undefined },
): Promise<ClusterInfo> {
  const stats = await control.stats(WORKER_TIMEOUT_MS);
  return {
    topology: { topologyEpoch, shards, vshards },
    memory: arena.stats(),
    regions: regions.list().length,
    client: client.plane.stats(),
    workers: control.heartbeats().map((beat, at) => {
      const documentsFailure = storage?.documentsFailure(beat.shard);
      return { ...beat, stats: stats[at], ...(documentsFailure === undefined ? {} : { documentsFailure }) };
    }),
    collections: collections.names(),
  };
}
