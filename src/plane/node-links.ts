/**
 * A node's links to all other nodes of its cluster: to the threads of this node, the shards of the others.
 *
 * A local thread asks a remote shard over an ordinary bridge whose answering side is here; to the workers of this node, each other
 * node is one more client thread, whose asking side is here. So neither workers nor clients know of connections.
 *
 * Invariant: everything runs on the node's control thread; nothing blocks, and while nothing happens nothing runs.
 */
import { EventEmitter } from "node:events";
import { ShardloomError } from "../errors.ts";
import { crc32 } from "../runtime/checksum.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { LeaseStore } from "../topology/lease-store.ts";
import type { TopologySnapshot } from "../topology/snapshot.ts";
import type { TopologySource } from "../topology/topology-source.ts";
import type { NodeTransport } from "../transport/transport.ts";
import { actorsChecksum, type ClusterShape } from "../wire/link-hello.ts";
import type { LinkCollections } from "./collection-exchange.ts";
import type { ControlClient } from "./control-types.ts";
import type { LinkCounters } from "./link-counters.ts";
import { LinkPump } from "./link-pump.ts";
import { NodeLink } from "./node-link.ts";
import type { ClusterNodes } from "./node-members.ts";

/** A node of a cluster of several, and how it reaches the others. */
export interface NodesOptions extends ClusterNodes {
  readonly transport: NodeTransport;
  /** Who grants leases, the same store on every node. @default nobody: a node that is lost keeps what it is primary of */
  readonly leases?: LeaseStore;
}

/** What links are made from. */
export interface NodeLinksOptions extends Runtime, NodesOptions {
  readonly topology: TopologySource;
}

/**
 * A worker serves, or will serve, a shard of another node; or it is lost for good, as its node tells. A node that cannot be reached says
 * nothing of its workers; once it can, what serves is told again.
 */
export interface RemoteShardEvent {
  readonly shard: number;
  /** Of the shard's worker; it grows with every worker and every life of its node. */
  readonly incarnation: number;
  readonly state: "up" | "lost";
}

/** A node is connected, or not any more. */
export interface NodeEvent {
  readonly peer: string;
  /** The life of the node. */
  readonly incarnation: number;
  readonly state: "up" | "down";
}

/** What one link is doing. */
export interface LinkStats {
  readonly peer: string;
  readonly state: "up" | "down";
  readonly incarnation: number;
  readonly counters: LinkCounters;
}

/** How long requests wait for the first contact before an unconnected node counts as unreachable. */
const FIRST_CONTACT_MS = 2_000;

interface Events {
  shard: [RemoteShardEvent];
  node: [NodeEvent];
  datagram: [string, Uint8Array];
  "thread-gone": [string, string];
  damaged: [string, number];
  map: [Uint8Array];
}

/** All links of one node. */
export class NodeLinks {
  /** The doorbell that askers of remote shards ring. */
  readonly block: SharedArrayBuffer;
  /** The other nodes, as clients of this node's workers. */
  readonly clients: readonly ControlClient[];
  /** Shards of other nodes, in order. */
  readonly shards: readonly number[];
  readonly #options: NodeLinksOptions;
  readonly #links: ReadonlyMap<string, NodeLink>;
  readonly #linkOf: ReadonlyMap<number, NodeLink>;
  readonly #pump: LinkPump;
  readonly #events: EventEmitter<Events> = new EventEmitter();
  #map: Uint8Array | undefined;
  #collections: LinkCollections | undefined;
  #closed = false;

  constructor(options: NodeLinksOptions) {
    this.#options = options;
    const { self, members } = options;
    const others = members.filter(({ name }) => name !== self);
    this.#links = new Map(others.map(({ name, shards }) => [name, this.#link(name, shards)]));
    const links = [...this.#links.values()];
    this.#linkOf = new Map(
      others.flatMap(({ name, shards }) => shards.map((shard) => [shard, this.#links.get(name) as NodeLink] as const)),
    );
    this.shards = [...this.#linkOf.keys()].sort((a, b) => a - b);
    this.#pump = new LinkPump(
      options.scheduler,
      links.map(({ calls }) => calls),
    );
    this.block = this.#pump.block;
    this.clients = links.map(({ answers }) => answers);
  }

  /** Accepts and dials from now on. @param actors What this node's workers have registered; it must be the same on all nodes. */
  start(actors: Parameters<typeof actorsChecksum>[0]): void {
    const { transport, topology, scheduler } = this.#options;
    const checksum = actorsChecksum(actors);
    const shape = (): ClusterShape => shapeOf(topology.current(), checksum);
    transport.listen((connection) => {
      const link = this.#links.get(connection.peer);
      if (link !== undefined) return link.accept(connection);
      connection.close(
        new ShardloomError("ERR_UNAVAILABLE", `Cannot accept connection as ${connection.peer} must be a member`),
      );
      return IGNORE;
    });
    for (const link of this.#links.values()) link.start(shape);
    this.#pump.kick();
    scheduler
      .timer(FIRST_CONTACT_MS, () => {
        if (this.#closed) return;
        for (const link of this.#links.values()) link.giveUpWaiting();
        this.#collections?.giveUpWaiting();
      })
      .unref();
  }

  /**
   * Answers, on this bridge, what a local thread asks of a remote shard; instead of the bridge that the two had before.
   *
   * @param asker The thread's name, unique on this node. @param block The thread's block, for its doorbell.
   */
  serve(asker: string, shard: number, bridge: SharedArrayBuffer, block: SharedArrayBuffer): void {
    (this.#linkOf.get(shard) as NodeLink).calls.serve(asker, shard, bridge, block);
    this.#pump.kick();
  }

  /** A local thread has ended: other nodes forget what it waited for. */
  withdraw(asker: string): void {
    for (const link of this.#links.values()) {
      link.calls.withdraw(asker);
      link.tellThreadGone(asker);
    }
  }

  /** The worker that serves a remote shard, or served it last; 0 when none was heard of. */
  incarnationOf(shard: number): number {
    return this.#linkOf.get(shard)?.calls.incarnationOf(shard) ?? 0;
  }

  /** Ends the connection to a node that is known to be dead, although nobody closed it; it is dialled again. */
  sever(peer: string, error: ShardloomError): void {
    this.#links.get(peer)?.sever(error);
  }

  /** A node is no member any more: nobody waits for it, and it is not dialled. */
  retire(peer: string): void {
    this.#links.get(peer)?.retire();
    this.#collections?.forget(peer);
  }

  /** Sends without any promise; dropped while the peer is not connected. */
  sendDatagram(peer: string, bytes: Uint8Array): void {
    this.#links.get(peer)?.sendDatagram(bytes);
  }

  /** The bytes are the listener's, and are what was sent: damaged ones are dropped here. */
  onDatagram(listener: (peer: string, bytes: Uint8Array) => void): void {
    this.#events.on("datagram", listener);
  }

  onShard(listener: (event: RemoteShardEvent) => void): void {
    this.#events.on("shard", listener);
  }

  onNode(listener: (event: NodeEvent) => void): void {
    this.#events.on("node", listener);
  }

  /** This node has a map, encoded: all others are told, those that are not connected when they are. */
  tellMap(map: Uint8Array): void {
    this.#map = map;
    for (const link of this.#links.values()) link.tellMap();
  }

  /** Another node has told its map. */
  onMap(listener: (map: Uint8Array) => void): void {
    this.#events.on("map", listener);
  }

  /** What this node has of collections, and what hears of those of others. Before `start`. */
  exchange(collections: LinkCollections): void {
    this.#collections = collections;
  }

  /** Something has changed with collections of this node: those nodes are told that are connected. */
  tellCollections(body: Uint8Array): void {
    for (const link of this.#links.values()) link.tellCollections(body);
  }

  /** A thread of another node has ended. */
  onThreadGone(listener: (peer: string, thread: string) => void): void {
    this.#events.on("thread-gone", listener);
  }

  /** The bridge of a local thread to a remote shard is damaged and answered no more: {@link serve} gives the two another one. */
  onDamaged(listener: (asker: string, shard: number) => void): void {
    this.#events.on("damaged", listener);
  }

  /** What every link is doing. */
  stats(): LinkStats[] {
    return [...this.#links.values()].map(({ peer, isUp, incarnation, calls }) => ({
      peer,
      state: isUp ? "up" : "down",
      incarnation,
      counters: calls.counters,
    }));
  }

  /** Says goodbye to all nodes: what is open ends, there and here. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const error = new ShardloomError("ERR_CLOSED", `Cannot go on as node ${this.#options.self} is closed`);
    for (const link of this.#links.values()) link.close(error);
    this.#collections?.giveUpWaiting();
    this.#pump.close();
    this.#options.transport.close();
    this.#events.removeAllListeners();
  }

  #link(peer: string, shards: readonly number[]): NodeLink {
    const { clock, scheduler, random, self, incarnation, transport, topology } = this.#options;
    const events = this.#events;
    return new NodeLink({
      ...{ clock, scheduler, random, self, incarnation, transport, topology, peer, shards },
      onUp: (node, life) => void events.emit("node", { peer: node, incarnation: life, state: "up" }),
      onDown: (node, life) => void events.emit("node", { peer: node, incarnation: life, state: "down" }),
      onShardUp: (shard, worker) => void events.emit("shard", { shard, incarnation: worker, state: "up" }),
      onShardLost: (shard, worker) => void events.emit("shard", { shard, incarnation: worker, state: "lost" }),
      onDamaged: (asker, shard) => void events.emit("damaged", asker, shard),
      onThreadGone: (node, thread) => void events.emit("thread-gone", node, thread),
      onDatagram: (node, bytes) => void events.emit("datagram", node, bytes),
      onMap: (map) => void events.emit("map", map),
      map: () => this.#map,
      collections: () => this.#collections,
      onReady: () => this.#pump.kick(),
      onAnswers: () => this.#pump.dirty(),
    });
  }
}

const IGNORE = {
  onOpen: () => undefined,
  onFrame: () => undefined,
  onDatagram: () => undefined,
  onClose: () => undefined,
};

function shapeOf(snapshot: TopologySnapshot, actors: number): ClusterShape {
  const { shards, vshards, replicationFactor, mapVersion, copies } = snapshot;
  const map = crc32(new Uint8Array(copies.buffer, copies.byteOffset, copies.byteLength));
  return { shards, vshards, replicationFactor, mapEpoch: mapVersion, map, actors };
}
