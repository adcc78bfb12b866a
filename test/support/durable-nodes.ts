/**
 * Nodes of one shard each in this process, three unless more are asked for, every one on a directory of its own, that can be cut off from each other and from the store of
 * their leases.
 *
 * Invariant: real threads, real files and the code of production; only the network and the store are of this process.
 */
import { join } from "node:path";
import { realPlatform } from "../../src/cluster-workers.ts";
import { type AuditReport, Cluster, type ClusterOptions, mergeAudits, ShardloomError } from "../../src/index.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { createLocalLeaseStore, type LeaseStore } from "../../src/topology/lease-store.ts";
import { MEMBER_STATE } from "../../src/topology/snapshot.ts";
import { eventually } from "./cluster.ts";
import { MemoryNetwork } from "./memory-network.ts";

const MIB = 1024 * 1024;

/** A store that a node cannot reach, or that tells it what it wants to hear. */
export class Doubtful {
  readonly store: LeaseStore;
  state: "honest" | "cut" | "lying" = "honest";

  constructor(store: LeaseStore) {
    const cut = (): Promise<never> => Promise.reject(new ShardloomError("ERR_TIMEOUT", "Cannot reach the store"));
    this.store = {
      get: (key, timeoutMs) => (this.state === "honest" ? store.get(key, timeoutMs) : cut()),
      put: (key, value, revision, timeoutMs) => {
        if (this.state === "honest") return store.put(key, value, revision, timeoutMs);
        return this.state === "lying" ? Promise.resolve(revision + 1) : cut();
      },
      watch: (onChange) =>
        store.watch?.((key, entry) => this.state === "honest" && onChange(key, entry)) ?? (() => undefined),
    };
  }
}

export class DurableNodes implements AsyncDisposable {
  readonly network: MemoryNetwork = new MemoryNetwork(systemScheduler, 1);
  readonly doubtful: readonly Doubtful[];
  nodes: Cluster[] = [];
  readonly #root: string;
  readonly #options: ClusterOptions;
  readonly #leases: LeaseStore = createLocalLeaseStore();
  readonly #members: readonly { readonly name: string; readonly shards: readonly number[] }[];

  /** @param root Directory that theirs are in. */
  constructor(root: string, options: ClusterOptions = {}, count = 3) {
    this.#root = root;
    this.#options = options;
    this.#members = Array.from({ length: count }, (_, at) => ({ name: `n${at}`, shards: [at] }));
    this.doubtful = this.#members.map(() => new Doubtful(this.#leases));
  }

  async start(): Promise<this> {
    this.nodes = await Promise.all(this.#members.map((_, at) => this.startNode(at)));
    await eventually(
      "the cluster is whole",
      () => this.nodes.every(({ topology }) => topology.states.every((state) => state === MEMBER_STATE.UP)),
      60_000,
    );
    return this;
  }

  /** Starts a node on its directory, which counts its starts. */
  async startNode(at: number): Promise<Cluster> {
    const { name } = this.#members[at] as { name: string };
    const nodes = {
      self: name,
      incarnation: 1,
      members: this.#members,
      transport: this.network.transport(name),
      leases: (this.doubtful[at] as Doubtful).store,
    };
    const options = {
      workers: 1,
      vshards: 16,
      memoryBytes: 64 * MIB,
      replicationFactor: 3,
      directory: join(this.#root, name),
      requestTimeoutMs: 10_000,
      ...this.#options,
    };
    const node = await Cluster.startOn({ platform: realPlatform(), nodes }, options);
    this.nodes[at] = node;
    return node;
  }

  node(at: number): Cluster {
    return this.nodes[at] as Cluster;
  }

  /** The node that is primary of most, and another one. */
  busiest(): [number, number] {
    const owners = [...this.node(0).topology.owners];
    const counts = this.nodes.map((_, at) => owners.filter((owner) => owner === at).length);
    const most = counts.indexOf(Math.max(...counts));
    return [most, (most + 1) % this.nodes.length];
  }

  /** Resolves when audits of all nodes, put together, find every copy equal; fails with the last one. */
  async untilEqual(): Promise<void> {
    let last: AuditReport | undefined;
    const isEqual = async (): Promise<boolean> => {
      last = mergeAudits(await Promise.all(this.nodes.map((node) => node.audit({ timeoutMs: 5_000 }))));
      return last.equal;
    };
    await eventually("copies of all nodes are equal", isEqual, 30_000).catch((error: unknown) => {
      const { copies, same, differing, behind, silent, elsewhere } = last as AuditReport;
      throw new Error(JSON.stringify({ copies, same, differing, behind, silent, elsewhere }), { cause: error });
    });
    if (last?.copies !== 3 * 16) throw new Error(`${last?.copies} copies were looked at`);
  }

  /** Cuts a node off from the others, or connects it again. */
  separate(at: number, isCut: boolean): void {
    for (const { name } of this.#members)
      if (name !== `n${at}`) isCut ? this.network.cut(`n${at}`, name) : this.network.heal(`n${at}`, name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.close({ timeoutMs: 5_000 })));
  }
}
