/**
 * What a cluster of several nodes adds to one node: which shards are its own, links to the others, and what follows from what they tell.
 *
 * Invariant: threads of a node have names that no thread of another node, and of no other life of this one, has.
 */
import type { ActorTable } from "../actors/actor-router.ts";
import type { ResolvedClusterOptions } from "./cluster-options.ts";
import { invalidArgument, ShardloomError } from "./errors.ts";
import { CollectionExchange, type CollectionHolder } from "./plane/collection-exchange.ts";
import type { ControlPlane } from "./plane/control-plane.ts";
import { NodeHeartbeats } from "./plane/node-heartbeats.ts";
import { NodeLinks, type NodesOptions } from "./plane/node-links.ts";
import { NodeTopology } from "./plane/node-topology.ts";
import type { Runtime } from "./runtime/runtime.ts";
import { LeaseWords } from "./topology/lease-words.ts";
import { firstShardIncarnation } from "./topology/member.ts";
import { ReplicaTable } from "./topology/replica-table.ts";
import type { TopologySource } from "./topology/topology-source.ts";

/** Pings in the time after which a silent node is suspect. */
const PINGS_PER_SUSPECT = 3;

/** A node's place in its cluster. */
export interface NodePlace {
  /** Shards of all nodes. */
  readonly shards: number;
  /** Numbers of this node's. */
  readonly own: readonly number[];
  /** Incarnation of their first workers. */
  readonly firstIncarnation: number;
  /** What the names of this node's client threads begin with. */
  readonly threads: string;
}

/** How many shards this node, and all nodes, have; undefined when there is one node only. */
export function shardCounts(
  nodes: NodesOptions | undefined,
): { readonly own: number; readonly all: number } | undefined {
  if (nodes === undefined) return undefined;
  const own = nodes.members.find(({ name }) => name === nodes.self);
  if (own === undefined || own.shards.length === 0)
    throw invalidArgument("start cluster", "nodes.self", "the name of a member with shards", nodes.self);
  return { own: own.shards.length, all: nodes.members.reduce((sum, { shards }) => sum + shards.length, 0) };
}

/** Where a node stands. */
export function placeOf(nodes: NodesOptions | undefined, { workers }: ResolvedClusterOptions): NodePlace {
  if (nodes === undefined)
    return {
      shards: workers,
      own: Array.from({ length: workers }, (_, shard) => shard),
      firstIncarnation: 1,
      threads: "",
    };
  const { self, incarnation, members } = nodes;
  return {
    shards: members.reduce((sum, { shards }) => sum + shards.length, 0),
    own: members.find(({ name }) => name === self)?.shards ?? [],
    firstIncarnation: firstShardIncarnation(incarnation),
    threads: threadsOf(self, incarnation),
  };
}

/** Who is there, as a node at that place sees it. */
export function topologyOf(
  nodes: NodesOptions | undefined,
  options: ResolvedClusterOptions,
  { shards }: NodePlace,
  { clock, scheduler }: Runtime,
): NodeTopology {
  const { vshards, replicationFactor, zones, weights, suspectMs, downMs } = options;
  const shape = { shards, vshards, replicationFactor, zones, weights, suspectMs, downMs };
  return new NodeTopology({ clock, scheduler, ...shape, ...(nodes === undefined ? {} : { nodes }) });
}

/** What a node of several has besides what every node has: links to the others, and heartbeats. */
export class OtherNodes {
  readonly links: NodeLinks;
  readonly #nodes: NodesOptions;
  readonly #runtime: Runtime;
  readonly #topology: NodeTopology;
  /** The life of each node that was heard of last. */
  readonly #lives: Map<string, number> = new Map();
  #heartbeats: NodeHeartbeats | undefined;

  constructor(nodes: NodesOptions, runtime: Runtime, topology: NodeTopology) {
    this.#nodes = nodes;
    this.#runtime = runtime;
    this.#topology = topology;
    this.links = new NodeLinks({ ...runtime, ...nodes, topology: topology.shared });
  }

  /** What this node and the others tell each other of their collections. Before `start`. */
  exchange(holder: CollectionHolder): CollectionExchange {
    return new CollectionExchange(this.links, this.#runtime.scheduler, holder);
  }

  /** Connects to the others, once this node's workers serve. @param actors What they have registered. */
  start(actors: ActorTable, replicas: SharedArrayBuffer, control: ControlPlane, suspectMs: number): void {
    const { clock, scheduler } = this.#runtime;
    const topology = this.#topology;
    const { links } = this;
    const nowMs = (): number => clock.nowMs();
    const leases = new Map(topology.ownShards.map((shard) => [shard, new LeaseWords(replicas, nowMs, shard)]));
    this.#heartbeats = new NodeHeartbeats({
      clock,
      scheduler,
      topology,
      links,
      table: new ReplicaTable(replicas, topology.shared, nowMs),
      isServing: (shard) => leases.get(shard)?.isValid === true,
      incarnation: this.#nodes.incarnation,
      intervalMs: suspectMs / PINGS_PER_SUSPECT,
    });
    this.#followLives(control);
    for (const { peer } of links.stats()) if (topology.membership.get(peer) === undefined) links.retire(peer);
    links.start(actors);
    this.#heartbeats.start();
  }

  /** Sends and takes no more signs of life. */
  stop(): void {
    this.#heartbeats?.close();
  }

  close(): void {
    this.stop();
    this.links.close();
  }

  /** Tells this node's workers whose threads are gone: those of a node's former life, and of one that is down. */
  #followLives(control: ControlPlane): void {
    const { links } = this;
    links.onNode(({ peer, incarnation, state }) => {
      const former = this.#lives.get(peer);
      if (state === "down" || former === incarnation) return;
      this.#lives.set(peer, incarnation);
      // What its workers were members of ends when their successors are attached.
      if (former !== undefined) control.loseOrigins([`client:${threadsOf(peer, former)}`]);
    });
    this.#topology.on("change", ({ member, to, reason }) => {
      if (member.kind !== "node" || member.id === this.#topology.self || (to !== "down" && to !== "removed")) return;
      const { id } = member;
      if (to === "removed") links.retire(id);
      else links.sever(id, new ShardloomError("ERR_UNAVAILABLE", `Cannot go on as node ${id} is down: ${reason}`));
      const life = this.#lives.get(id);
      if (life === undefined) return;
      const shards = this.#nodes.members.find(({ name }) => name === id)?.shards ?? [];
      control.loseOrigins([`client:${threadsOf(id, life)}`, ...shards.map((shard) => `shard:${shard}#`)]);
    });
  }
}

function threadsOf(node: string, incarnation: number): string {
  return `${node}#${incarnation}/`;
}

/** Whether a shard of this node has the rows of all vshards whose primary it is, see `Primary.refilling`. */
export function rowsOf(topology: TopologySource, replicas: SharedArrayBuffer): (shard: number) => boolean {
  const table = new ReplicaTable(replicas, topology, () => 0);
  return (shard) => {
    const { owners, replicationFactor } = topology.current();
    return replicationFactor === 1 || owners.every((owner, vshard) => owner !== shard || table.hasOwnHead(vshard));
  };
}
