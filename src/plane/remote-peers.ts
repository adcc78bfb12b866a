/**
 * The shards of other nodes among the peers of a node's threads: gives every thread a bridge to each of them, which the node's links
 * answer.
 *
 * Invariant: a thread has one bridge to a remote shard for as long as the shard's worker lives, also while its node cannot be reached: then
 * requests are answered with the reason. A later worker gets new bridges, as that of a local shard does.
 */
import { type BridgeOptions, createBridge } from "../../native-bridge/bridge.ts";
import { nodeIncarnationOf } from "../topology/member.ts";
import type { ControlClient } from "./control-types.ts";
import type { NodeLinks, RemoteShardEvent } from "./node-links.ts";
import type { PeerTask } from "./shard-task.ts";

/** What remote peers are made from. */
export interface RemotePeersOptions {
  readonly links: NodeLinks;
  readonly bridge: BridgeOptions;
  readonly mesh: BridgeOptions;
}

/** A worker of this node, as far as its peers matter. */
export interface PeeredWorker {
  readonly shard: number;
  readonly block: SharedArrayBuffer;
  /** Tells it of a peer, if it still lives. */
  readonly tell: (peer: PeerTask) => void;
}

/** The threads of this node that there are at present. */
export interface LocalThreads {
  readonly clients: () => Iterable<ControlClient>;
  readonly workers: () => Iterable<PeeredWorker>;
}

/** Bridges from local threads to remote shards. */
export class RemotePeers {
  readonly #options: RemotePeersOptions;
  readonly #nodes: ReadonlySet<ControlClient>;
  /** Of the worker that threads have bridges to, by shard; absent while none was heard of. */
  readonly #attached: Map<number, number> = new Map();

  constructor(options: RemotePeersOptions, threads: LocalThreads) {
    this.#options = options;
    this.#nodes = new Set(options.links.clients);
    options.links.onShard((event) => this.#follow(event, threads));
    options.links.onDamaged((asker, shard) => {
      const { clients, workers } = threads;
      for (const client of clients()) if (client.name === asker) this.attachTo(client, shard);
      for (const worker of workers())
        if (nameOf(worker.shard) === asker) worker.tell(this.#peerTask(worker.shard, shard, worker.block));
    });
  }

  /** The other nodes, as clients of this node's workers. */
  get nodes(): Iterable<ControlClient> {
    return this.#nodes;
  }

  /** Rings to a worker of this node from a client; another node's carry what its workers and its clients ask. */
  bridgeFor(client: ControlClient): BridgeOptions {
    const { bridge, mesh } = this.#options;
    return this.#nodes.has(client) ? { ...bridge, ...larger(bridge, mesh) } : bridge;
  }

  /** A client thread asks all remote shards from now on. */
  attach(client: ControlClient): void {
    if (!this.#nodes.has(client)) for (const shard of this.#options.links.shards) this.attachTo(client, shard);
  }

  /** Gives a client thread a bridge to a remote shard, instead of the one that it had. */
  attachTo(client: ControlClient, shard: number): void {
    const { links, bridge: options } = this.#options;
    const bridge = createBridge(options);
    links.serve(client.name, shard, bridge, client.block);
    client.attach(shard, bridge, links.block, links.incarnationOf(shard));
  }

  /** A thread has ended. */
  detach(name: string): void {
    this.#options.links.withdraw(name);
  }

  /** What a worker that is about to start needs to ask all remote shards. */
  tasks(shard: number, block: SharedArrayBuffer): PeerTask[] {
    return this.#options.links.shards.map((peer) => this.#peerTask(shard, peer, block));
  }

  #follow({ shard, incarnation, state }: RemoteShardEvent, { clients, workers }: LocalThreads): void {
    if (state === "lost") return;
    const attached = this.#attached.get(shard);
    this.#attached.set(shard, incarnation);
    // The first one that is heard of is the one that the first bridges are for. Its node may have had a life before: primaries here have to be told.
    if (attached === undefined ? nodeIncarnationOf(incarnation) === 1 : attached >= incarnation) return;
    if (attached !== undefined)
      for (const client of clients()) if (!this.#nodes.has(client)) this.attachTo(client, shard);
    for (const worker of workers()) worker.tell(this.#peerTask(worker.shard, shard, worker.block));
  }

  #peerTask(shard: number, peer: number, block: SharedArrayBuffer): PeerTask {
    const { links, mesh } = this.#options;
    const outbound = createBridge(mesh);
    links.serve(nameOf(shard), peer, outbound, block);
    return { shard: peer, incarnation: links.incarnationOf(peer), outbound, block: links.block };
  }
}

/** What a worker is called as an asker. */
function nameOf(shard: number): string {
  return `shard:${shard}`;
}

function larger(a: BridgeOptions, b: BridgeOptions): BridgeOptions {
  return {
    requestCapacityBytes: Math.max(a.requestCapacityBytes ?? 0, b.requestCapacityBytes ?? 0),
    replyCapacityBytes: Math.max(a.replyCapacityBytes ?? 0, b.replyCapacityBytes ?? 0),
  };
}
