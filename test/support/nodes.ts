/**
 * Clusters of several nodes in one process: each node with real workers, connected by a network in memory.
 *
 * Invariant: `close` ends every node that was started, whatever became of the network between them.
 */
import { realPlatform } from "../../src/cluster-workers.ts";
import { Cluster, type ClusterOptions } from "../../src/index.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { MEMBER_STATE } from "../../src/topology/snapshot.ts";
import type { NodeTransport } from "../../src/transport/transport.ts";
import { ACTORS_URL, eventually, PATIENT_DETECTOR } from "./cluster.ts";
import { MemoryNetwork } from "./memory-network.ts";

/** Nodes of one worker each, unless the options say of how many: node `n0` has the first shards, and so on. */
export class TestNodes implements AsyncDisposable {
  readonly network: MemoryNetwork = new MemoryNetwork(systemScheduler, 1);
  readonly nodes: Cluster[] = [];
  readonly #options: ClusterOptions;
  readonly #optionsOf: (at: number) => ClusterOptions;
  readonly #members: readonly { readonly name: string; readonly shards: readonly number[] }[];

  /** @param optionsOf What one node has otherwise. @default nothing */
  constructor(count: number, options: ClusterOptions = {}, optionsOf: (at: number) => ClusterOptions = () => ({})) {
    this.#optionsOf = optionsOf;
    this.#options = {
      workers: 1,
      vshards: 16,
      memoryBytes: 64 * 1024 * 1024,
      actors: [ACTORS_URL],
      ...PATIENT_DETECTOR,
      ...options,
    };
    const { workers = 1 } = options;
    const shardsOf = (at: number): number[] => Array.from({ length: workers }, (_, shard) => at * workers + shard);
    this.#members = Array.from({ length: count }, (_, at) => ({ name: `n${at}`, shards: shardsOf(at) }));
  }

  /** Starts all nodes and waits until each sees all shards serve. */
  async start(): Promise<this> {
    await Promise.all(this.#members.map((_, at) => this.startNode(at, 1)));
    await this.whenWhole();
    return this;
  }

  /** Resolves when every node is connected to all others and sees all shards serve. */
  whenWhole(): Promise<void> {
    const isWhole = (node: Cluster): boolean =>
      node.linkStats().every(({ state }) => state === "up") &&
      node.topology.states.every((state) => state === MEMBER_STATE.UP);
    return eventually("the cluster is whole", () => this.nodes.every(isWhole), 20_000);
  }

  async startNode(at: number, incarnation: number): Promise<Cluster> {
    const self = `n${at}`;
    const transport = await this.transportOf(self);
    const nodes = { self, incarnation, members: this.#members, transport };
    const node = await Cluster.startOn(
      { platform: realPlatform(), nodes },
      { ...this.#options, ...this.#optionsOf(at) },
    );
    this.nodes[at] = node;
    return node;
  }

  /** What a node reaches the others by. */
  protected transportOf(self: string): NodeTransport | Promise<NodeTransport> {
    return this.network.transport(self);
  }

  node(at: number): Cluster {
    return this.nodes[at] as Cluster;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.close({ timeoutMs: 5_000 })));
  }
}
