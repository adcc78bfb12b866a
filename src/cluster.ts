/**
 * `Cluster`: the composition root. Makes memory, control plane and client plane, and hands out typed handles.
 *
 * Invariant: whatever `start` has made, `close` unmakes, in the reverse order and at most once; after it every handle
 * fails with `ERR_CLOSED` and nothing keeps the process alive.
 */
import { EventEmitter } from "node:events";
import { ActorRouter, type ActorTable } from "../actors/actor-router.ts";
import type { Graph } from "../actors/graph/client-graph.ts";
import type { GraphOptions } from "../actors/graph/graph-options.ts";
import type { RouterStats } from "../actors/router-stats.ts";
import type { ShardReader } from "../actors/shard-reader.ts";
import type { TextCollection } from "../actors/text/client-collection.ts";
import type { TextCollectionOptions } from "../actors/text/text-options.ts";
import type { VectorCollection } from "../actors/vector/client-collection.ts";
import type { VectorCollectionOptions } from "../actors/vector/vector-options.ts";
import type { Arena } from "../native-bridge/arena.ts";
import type { RegionTable } from "../native-bridge/region-table.ts";
import { Verbs } from "../native-bridge/verbs.ts";
import { type ActorRef, createActorRef } from "./actor/actor-ref.ts";
import type { AnyActorDefinition } from "./actor/define-actor.ts";
import type { OpenBarrierOptions, TickBarrier } from "./actor/tick-barrier.ts";
import { ClientThread } from "./client-thread.ts";
import { type AuditOptions, type AuditReport, auditCopies } from "./cluster-audit.ts";
import { type BackupOptions, type BackupReport, snapshotCluster } from "./cluster-backup.ts";
import { ClusterCollections } from "./cluster-collections.ts";
import { startReal } from "./cluster-environment.ts";
import { createMapKeeper, handOver, keepMap } from "./cluster-leases.ts";
import { ClusterMembers, obstacleTo, type RemovalReport, type RemoveOptions } from "./cluster-members.ts";
import { type ClusterMemory, createClusterMemory } from "./cluster-memory.ts";
import { NodeRemoval, type NodeRemovalReport, type RemoveNodeOptions } from "./cluster-node-removal.ts";
import { type NodePlace, OtherNodes, rowsOf, shardCounts, topologyOf } from "./cluster-nodes.ts";
import {
  type ClusterOptions,
  callDefaults,
  type ResolvedClusterOptions,
  resolveClusterOptions,
} from "./cluster-options.ts";
import { type ClusterPort, ClusterPorts } from "./cluster-ports.ts";
import { type RestoreOptions, type RestoreReport, restoreBackup } from "./cluster-restore.ts";
import { type ClusterStats, gatherInfo, gatherStats } from "./cluster-stats.ts";
import { ClusterStorage, environmentOf, releasing, storedPlace } from "./cluster-storage.ts";
import type { CloseOptions, ClusterEnvironment, ClusterEvents, ClusterInfo } from "./cluster-types.ts";
import { createWorkers, realPlatform } from "./cluster-workers.ts";
import { ShardloomError } from "./errors.ts";
import type { ControlPlane } from "./plane/control-plane.ts";
import type { MapKeeper } from "./plane/map-keeper.ts";
import type { LinkStats } from "./plane/node-links.ts";
import type { NodeTopology, PlacementChange } from "./plane/node-topology.ts";
import type { Platform } from "./plane/platform.ts";
import type { AdmissionStats } from "./routing/admission.ts";
import type { Member } from "./topology/member.ts";
import type { PlacementPlan } from "./topology/placement.ts";
import { createReplicaBlock } from "./topology/replica-table.ts";
import { Session } from "./topology/session.ts";
import { ownerOf, type TopologySnapshot, vshardOfActor, vshardOfId } from "./topology/snapshot.ts";
import { createValueCodec } from "./wire/value-codec.ts";

/** A running cluster on this machine. */
export class Cluster extends EventEmitter<ClusterEvents> implements AsyncDisposable {
  readonly options: ResolvedClusterOptions;
  readonly #topology: NodeTopology;
  readonly #replicas: SharedArrayBuffer;
  readonly #memory: ClusterMemory;
  readonly #place: NodePlace;
  readonly #others: OtherNodes | undefined;
  readonly #client: ClientThread;
  readonly #control: ControlPlane;
  readonly #keeper: MapKeeper | undefined;
  readonly #members: ClusterMembers;
  readonly #removal: NodeRemoval;
  readonly #collections: ClusterCollections;
  readonly #storage: ClusterStorage | undefined;
  readonly #platform: Platform;
  readonly #ports: ClusterPorts;
  #actors: ActorTable = [];
  #router: ActorRouter | undefined;
  #closing: Promise<void> | undefined;

  private constructor(environment: ClusterEnvironment, options: ResolvedClusterOptions, storage?: ClusterStorage) {
    super();
    this.options = options;
    this.#storage = storage;
    this.#platform = environment.platform;
    const { platform, nodes } = environmentOf(environment, storage);
    const place = storedPlace(nodes, options, storage);
    this.#place = place;
    this.#topology = topologyOf(nodes, options, place, platform.runtime);
    if (nodes !== undefined) this.#others = new OtherNodes(nodes, platform.runtime, this.#topology);
    this.#replicas = createReplicaBlock(this.topology, (shard) => !place.own.includes(shard));
    this.#memory = createClusterMemory(options.memoryBytes, platform.runtime, platform.kernels);
    const { shared: memory, compiled } = this.#memory;
    this.#client = new ClientThread({
      name: `${place.threads}main`,
      runtime: platform.runtime,
      topology: this.#topology.shared,
      replicas: this.#replicas,
      defaults: callDefaults(options),
      admission: options.admission,
      spinLimitUs: options.spinLimitUs,
    });
    const assertOpen = (): void => this.#assertOpen();
    this.#collections = new ClusterCollections({
      coordinator: this.#client.coordinator,
      memory: this.#memory,
      ownShards: place.own,
      others: this.#others,
      store: storage?.collections,
      hasRows: rowsOf(this.#topology.shared, this.#replicas),
      assertOpen,
      onDropped: (collectionId) => this.#ports.dropped(collectionId),
    });
    this.#topology.on("change", (change) => this.emit("member-changed", change));
    this.#control = createWorkers(platform, options, place, {
      ...(this.#others === undefined ? {} : { links: this.#others.links }),
      topology: this.#topology.block,
      replicas: this.#replicas,
      memory,
      kernels: compiled,
      recover: (shard) => this.#collections.recoverTasks(shard),
      ...(storage === undefined ? {} : { storage: () => storage.task() }),
    });
    this.#followWorkers();
    this.#keeper = createMapKeeper(platform.runtime, nodes, options, this.#topology, this.#replicas, storage);
    if (this.#keeper !== undefined) keepMap(this.#keeper, this.#topology, this.#control, this.#others?.links);
    const { runtime } = platform;
    const parts = { runtime, assertOpen, topology: this.#topology, replicas: this.#replicas, keeper: this.#keeper };
    this.#removal = new NodeRemoval({ ...parts, leases: nodes?.leases, onRemoved: () => void this.emit("removed") });
    this.#members = new ClusterMembers({
      ...{ ...parts, control: this.#control, own: place.own, collections: this.#collections },
      obstacle: () => obstacleTo(this.#others !== undefined, storage, this.#collections),
    });
    this.#ports = new ClusterPorts(place.threads, this.#control, this.#collections);
  }

  /** Starts a cluster. Resolves when every worker serves. @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_MODULE_NOT_LOADED`, `ERR_TIMEOUT`. */
  static start(options: ClusterOptions = {}): Promise<Cluster> {
    return startReal(options, (environment) => Cluster.startOn(environment, options));
  }

  /**
   * Makes a node's directory of a backup, and sees that a cluster on it has what the backup says.
   * @param into Must be empty, or missing.
   * @throws {ShardloomError} `ERR_NO_FILE`, `ERR_FILE_EXISTS`, `ERR_CORRUPT`, `ERR_ABORTED`.
   */
  static restore(from: string, into: string, options: RestoreOptions = {}): Promise<RestoreReport> {
    return restoreBackup(realPlatform(), from, into, options, (cluster) => Cluster.start(cluster));
  }

  /** As {@link start}, on threads, time and chance that are given: how a simulated world makes its nodes. */
  static async startOn(environment: ClusterEnvironment, options: ClusterOptions = {}): Promise<Cluster> {
    const resolved = resolveClusterOptions(options, shardCounts(environment.nodes));
    const storage = await ClusterStorage.open(environment, resolved);
    const cluster = await releasing(storage, () => new Cluster(environment, resolved, storage));
    try {
      cluster.#topology.follow(cluster.#control);
      await cluster.#keeper?.start(cluster.options.startTimeoutMs);
      await storage?.vetDocuments(cluster.#place.own);
      const ready = await cluster.#control.start(cluster.#client);
      storage?.keepDocuments(cluster.#place.own);
      cluster.#topology.publish();
      cluster.#actors = ready[0]?.actors ?? [];
      const { coordinator } = cluster.#client;
      cluster.#router = new ActorRouter({ coordinator, codec: createValueCodec(), table: cluster.#actors });
      await cluster.#collections.reopen(cluster.#place.own, ready);
      cluster.#others?.start(cluster.#actors, cluster.#replicas, cluster.#control, cluster.options.suspectMs);
      cluster.#removal.start();
    } catch (error) {
      await cluster.close({ timeoutMs: 1_000, force: true }).catch(() => undefined); // the first error says more
      throw error;
    }
    return cluster;
  }

  /** Opens a collection of vectors, creating it when it is new and `options` are given. @throws {ShardloomError} `ERR_UNKNOWN_COLLECTION` without options for a new name, `ERR_COLLECTION_MISMATCH`, `ERR_INVALID_ARGUMENT`. */
  vectors(name: string, options?: VectorCollectionOptions): Promise<VectorCollection> {
    return this.#collections.vectors.open(name, options);
  }

  /** Drops a collection and frees its regions. @returns whether it existed */
  dropVectors(name: string): Promise<boolean> {
    return this.#collections.vectors.drop(name);
  }

  /** As {@link vectors}, of texts. */
  text(name: string, options?: TextCollectionOptions): Promise<TextCollection> {
    return this.#collections.texts.open(name, options);
  }

  /** As {@link dropVectors}, of texts. */
  dropText(name: string): Promise<boolean> {
    return this.#collections.texts.drop(name);
  }

  /** Opens a graph, creating it when it is new. @throws {ShardloomError} `ERR_COLLECTION_MISMATCH`; `ERR_UNAVAILABLE` with several nodes. */
  graph(name: string, options?: GraphOptions): Promise<Graph> {
    return this.#collections.graphs.open(name, options);
  }

  /** Drops a graph. @returns whether it existed */
  dropGraph(name: string): Promise<boolean> {
    return this.#collections.graphs.drop(name);
  }

  /**
   * A reference to the virtual actor of a definition and a key; it is activated by its first message.
   * @throws {ShardloomError} `ERR_UNKNOWN_ACTOR` when the definition's module was not given to `Cluster.start`.
   */
  actor<D extends AnyActorDefinition>(definition: D, key: string): ActorRef<D> {
    this.#assertOpen();
    this.#router?.assertKnown(definition.name);
    return createActorRef(definition, key, this.#router as ActorRouter);
  }

  /** Opens a tick barrier, creating it when it is new and options are given. Its members may live on any threads. @throws {ShardloomError} `ERR_BARRIER` without options for a new name, `ERR_INVALID_ARGUMENT`. */
  async barrier(name: string, options?: OpenBarrierOptions): Promise<TickBarrier> {
    this.#assertOpen();
    return this.#client.barriers.open(name, options);
  }

  /** The shard that hosts an actor; its worker's thread runs the actor's handlers. */
  shardOfActor(definition: AnyActorDefinition, key: string): number {
    return ownerOf(this.topology, vshardOfActor(this.topology, definition.name, key));
  }

  /** The shard that owns the documents with an id, in every collection. */
  shardOfId(id: string | number): number {
    return ownerOf(this.topology, vshardOfId(this.topology, id));
  }

  /** The newest topology: which shards hold which vshards, and their states. */
  get topology(): TopologySnapshot {
    return this.#topology.current;
  }

  /** Nodes and shards with their states, zones and metrics. */
  members(): readonly Member[] {
    return this.#topology.membership.members;
  }

  /** Takes a shard out of new reads wherever another copy may answer; it goes on serving the rest. @returns false when it was so */
  drain(shard: number): boolean {
    return this.#members.drain(shard);
  }

  /** Ends {@link drain}. @returns false when the shard was not draining */
  resume(shard: number): boolean {
    return this.#members.resume(shard);
  }

  /**
   * Takes a shard out for good: others become primary of what it was, and hold copies of what it held; its worker ends, and nobody replaces it.
   * What graphs have on it is copied to their other shards, which takes as long as loading them, with no changes meanwhile.
   * Writes that wait for copies of what it is primary of may end in `ERR_QUORUM`, as at any change of a primary.
   * @throws {ShardloomError} `ERR_UNAVAILABLE` with what would be lost, `ERR_TIMEOUT`, `ERR_INVALID_ARGUMENT`; then it goes on.
   */
  remove(shard: number, options?: RemoveOptions): Promise<RemovalReport> {
    return this.#members.remove(shard, options);
  }

  /** As {@link remove}, of a node of several that has leases, this one or another: it is told, see the event `removed`. */
  removeNode(node: string, options?: RemoveNodeOptions): Promise<NodeRemovalReport> {
    return this.#removal.remove(node, options);
  }

  /** What a change of the members would move: a dry run. */
  previewPlacement(change: PlacementChange): PlacementPlan {
    return this.#topology.preview(change);
  }

  /** A session: reads under it see every write under it. @param token Of another session, to go on with. */
  session(token?: string): Session {
    return token === undefined ? new Session() : Session.parse(token);
  }

  /** One-sided access to any registered region of this process, from this thread. */
  reader(): Verbs {
    this.#assertOpen();
    return new Verbs(this.#memory.arena);
  }

  /** Reads of a shard's registered memory, wherever it is: of another node's by messages, as what they return says. */
  readerOf(shard: number): ShardReader {
    return this.#client.readerOf(shard, this.reader(), this.#place.own);
  }

  /** The memory that regions lie in. */
  get arena(): Arena {
    return this.#memory.arena;
  }

  /** Registers regions of this thread's own, for workers and other readers. */
  get regions(): RegionTable {
    return this.#memory.regions;
  }

  /** A port with which one other thread uses the cluster: send it there with its `transferList` and call `connect(port)`. */
  port(): Promise<ClusterPort> {
    this.#assertOpen();
    const { shared: memory, compiled: kernels } = this.#memory;
    return this.#ports.create({
      own: this.#place.own,
      memory,
      kernels,
      topology: this.#topology.block,
      replicas: this.#replicas,
      actors: this.#actors,
      defaults: callDefaults(this.options),
      admission: this.options.admission,
      spinLimitUs: this.options.spinLimitUs,
    });
  }

  /** Who is there, how healthy it is, how much it holds. */
  async clusterStats(): Promise<ClusterStats> {
    this.#assertOpen();
    return gatherStats(this.#topology, this.#collections, await this.#client.barriers.ticks());
  }

  /** What this thread has planned, sent, retried, hedged and refused. Costs no message. */
  routerStats(): RouterStats & { readonly admission: AdmissionStats } {
    this.#assertOpen();
    return this.#client.stats();
  }

  /** What this node has sent to each other node, and what became of it. Costs no message. */
  linkStats(): readonly LinkStats[] {
    return this.#others?.links.stats() ?? [];
  }

  /** Whether all copies that this node has hold the same, by hash; those behind are given time. Of several nodes: `mergeAudits` of all. @throws {ShardloomError} `ERR_ABORTED`. */
  async audit(options?: AuditOptions): Promise<AuditReport> {
    this.#assertOpen();
    const parts = { ...this.#platform.runtime, control: this.#control, topology: () => this.topology };
    return auditCopies({ ...parts, ownShards: this.#place.own }, options);
  }

  /**
   * Copies everything that this node has on disk into an empty directory, while it serves. {@link restore} makes a directory of it again.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` without the option `directory`, `ERR_FILE_EXISTS`, `ERR_ABORTED`; then there is no backup.
   */
  async snapshot(target: string, options?: BackupOptions): Promise<BackupReport> {
    this.#assertOpen();
    const parts = { platform: this.#platform, control: this.#control, storage: this.#storage };
    return snapshotCluster(parts, target, options);
  }

  /** Counters and states of everything. A worker that does not answer has no `stats`. */
  async info(): Promise<ClusterInfo> {
    this.#assertOpen();
    return gatherInfo(this.topology, this.#memory, this.#client, this.#control, this.#collections, this.#storage);
  }

  /** What every worker is doing, read from shared memory without a message. */
  heartbeats(): ReturnType<ControlPlane["heartbeats"]> {
    return this.#control.heartbeats();
  }

  /** Stops everything. Idempotent; a second call joins the first. @throws {ShardloomError} `ERR_TIMEOUT` when a worker would not stop; calling again tries again. */
  close(options: CloseOptions = {}): Promise<void> {
    this.#closing ??= this.#close(options).catch((error: unknown) => {
      this.#closing = undefined;
      throw error;
    });
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close({ timeoutMs = 10_000, force = true, handOverMs = 0 }: CloseOptions): Promise<void> {
    if (this.#keeper !== undefined && handOverMs > 0)
      await handOver(this.#keeper, this.#topology, this.#replicas, this.#platform.runtime, handOverMs);
    this.#topology.close();
    this.#keeper?.close();
    this.#others?.stop();
    this.#client.close();
    this.#ports.close();
    await this.#control.close({ timeoutMs, force });
    this.#others?.close();
    this.#memory.kernels.close();
    await this.#storage?.close();
  }

  #followWorkers(): void {
    this.#control.on("worker-lost", (event) => this.emit("worker-lost", event));
    this.#control.on("worker-down", (event) => this.emit("worker-down", event));
    this.#control.on("worker-restarted", (event) => {
      this.#collections.recovered(event.shard, event.ready.recovered);
      this.#ports.recovered(event.shard, event.ready.recovered);
      this.emit("worker-restarted", event);
    });
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw new ShardloomError("ERR_CLOSED", "Cannot use cluster as it is closed");
  }
}
