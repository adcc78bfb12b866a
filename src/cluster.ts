/**
 * `Cluster`: the composition root. Makes memory, control plane and client plane, and hands out typed handles.
 *
 * Invariant: whatever `start` has made, `close` unmakes, in the reverse order and at most once; after it every handle
 * fails with `ERR_CLOSED` and nothing keeps the process alive.
 */
import { EventEmitter } from "node:events";
import { ActorRouter, type ActorTable } from "../actors/actor-router.ts";
import type { RouterStats } from "../actors/router-stats.ts";
import type { TextCollection } from "../actors/text/client-collection.ts";
import { TextCatalog } from "../actors/text/text-catalog.ts";
import type { TextCollectionOptions } from "../actors/text/text-options.ts";
import type { VectorCollection } from "../actors/vector/client-collection.ts";
import { VectorCatalog } from "../actors/vector/vector-catalog.ts";
import type { VectorCollectionOptions } from "../actors/vector/vector-options.ts";
import { Arena, createArena } from "../native-bridge/arena.ts";
import { compileKernels, Kernels } from "../native-bridge/kernels.ts";
import { RegionTable } from "../native-bridge/region-table.ts";
import { Verbs } from "../native-bridge/verbs.ts";
import { type ActorRef, createActorRef } from "./actor/actor-ref.ts";
import type { AnyActorDefinition } from "./actor/define-actor.ts";
import type { OpenBarrierOptions, TickBarrier } from "./actor/tick-barrier.ts";
import { ClientThread } from "./client-thread.ts";
import { type ClusterPort, ClusterPorts } from "./cluster-client.ts";
import {
  type ClusterOptions,
  callDefaults,
  type ResolvedClusterOptions,
  resolveClusterOptions,
} from "./cluster-options.ts";
import { type ClusterStats, gatherStats } from "./cluster-stats.ts";
import { createWorkers } from "./cluster-workers.ts";
import { invalidArgument, ShardloomError } from "./errors.ts";
import type { ControlPlane } from "./plane/control-plane.ts";
import type { WorkerLost, WorkerRestarted } from "./plane/control-types.ts";
import { NodeTopology, type PlacementChange } from "./plane/node-topology.ts";
import type { ShardStats } from "./plane/shard-task.ts";
import type { AdmissionStats } from "./routing/admission.ts";
import type { RequesterStats } from "./routing/requester.ts";
import { systemClock } from "./runtime/clock.ts";
import { systemRandom } from "./runtime/random.ts";
import { systemScheduler } from "./runtime/scheduler.ts";
import type { Member } from "./topology/member.ts";
import { shardId } from "./topology/member.ts";
import type { MemberChange, Membership } from "./topology/membership.ts";
import type { PlacementPlan } from "./topology/placement.ts";
import { createReplicaBlock } from "./topology/replica-table.ts";
import { Session } from "./topology/session.ts";
import { ownerOf, type TopologySnapshot, vshardOfActor, vshardOfId } from "./topology/snapshot.ts";
import { createValueCodec } from "./wire/value-codec.ts";

/** Lifecycle events of a cluster. */
export interface ClusterEvents {
  /** A worker died, hung or was quarantined; what it held failed with `error`. */
  "worker-lost": [WorkerLost];
  /** A replacement serves: vector collections are whole, user actors start from their initial state. */
  "worker-restarted": [WorkerRestarted];
  /** A shard's worker died too often and is not replaced any more. */
  "worker-down": [{ readonly shard: number; readonly error: ShardloomError }];
  /** A node or shard entered a state: joining, up, suspect, down, draining, removed. */
  "member-changed": [MemberChange];
}

/** How {@link Cluster.close} ends the workers. */
export interface CloseOptions {
  /** How long to wait for requests in flight and native calls, in ms. @default 10000 */
  readonly timeoutMs?: number;
  /** Terminate workers that hang in JavaScript. One inside a native call is waited for in any case. @default true */
  readonly force?: boolean;
}

/** Counters of a whole cluster. */
export interface ClusterInfo {
  readonly topology: { readonly topologyEpoch: number; readonly shards: number; readonly vshards: number };
  readonly memory: ReturnType<Arena["stats"]>;
  readonly regions: number;
  readonly client: RequesterStats;
  readonly workers: readonly (ReturnType<ControlPlane["heartbeats"]>[number] & {
    readonly stats: ShardStats | undefined;
  })[];
  readonly collections: readonly string[];
}

/** How long `info` waits for a worker's counters. */
const STATS_TIMEOUT_MS = 500;
/** Owner number of regions that the main thread registers. */
const MAIN_OWNER = 0xffff;

/** A running cluster on this machine. */
export class Cluster extends EventEmitter<ClusterEvents> implements AsyncDisposable {
  readonly options: ResolvedClusterOptions;
  readonly #topology: NodeTopology;
  readonly #replicas: SharedArrayBuffer;
  readonly #arena: Arena;
  readonly #kernels: Kernels;
  readonly #regions: RegionTable;
  readonly #client: ClientThread;
  readonly #control: ControlPlane;
  readonly #vectors: VectorCatalog;
  readonly #texts: TextCatalog;
  readonly #compiled: WebAssembly.Module;
  readonly #ports: ClusterPorts;
  #actors: ActorTable = [];
  #router: ActorRouter | undefined;
  #closing: Promise<void> | undefined;

  private constructor(options: ResolvedClusterOptions) {
    super();
    this.options = options;
    const { workers: shards, vshards, replicationFactor, zones, suspectMs, downMs } = options;
    this.#topology = new NodeTopology({
      clock: systemClock,
      scheduler: systemScheduler,
      shards,
      vshards,
      replicationFactor,
      zones,
      suspectMs,
      downMs,
    });
    this.#replicas = createReplicaBlock(this.topology);
    const memory = createArena({ capacityBytes: options.memoryBytes });
    const kernels = compileKernels();
    this.#arena = new Arena(memory);
    this.#kernels = new Kernels(kernels, this.#arena, undefined, MAIN_OWNER);
    this.#regions = new RegionTable(
      this.#arena,
      MAIN_OWNER,
      () => systemRandom.u32(),
      () => systemClock.nowMs(),
    );
    this.#client = new ClientThread({
      name: "main",
      topology: this.#topology.shared,
      replicas: this.#replicas,
      defaults: callDefaults(options),
      admission: options.admission,
      spinLimitUs: options.spinLimitUs,
    });
    this.#vectors = new VectorCatalog({
      coordinator: this.#client.coordinator,
      arena: this.#arena,
      kernels: this.#kernels,
      assertOpen: () => this.#assertOpen(),
      onDropped: (collectionId) => this.#ports.dropped(collectionId),
    });
    this.#topology.on("change", (change) => this.emit("member-changed", change));
    this.#texts = new TextCatalog({ coordinator: this.#client.coordinator, assertOpen: () => this.#assertOpen() });
    this.#compiled = kernels;
    this.#control = createWorkers(options, {
      topology: this.#topology.block,
      replicas: this.#replicas,
      memory,
      kernels,
      recover: (shard) => [...this.#vectors.recoverTasks(shard), ...this.#texts.recoverTasks(shard)],
    });
    this.#followWorkers();
    this.#ports = new ClusterPorts(this.#control, this.#vectors, this.#texts);
  }

  /**
   * Starts a cluster: memory, worker threads, actors. Resolves when every worker serves.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_MODULE_NOT_LOADED`, `ERR_TIMEOUT`.
   */
  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const cluster = new Cluster(resolveClusterOptions(options));
    try {
      cluster.#topology.follow(cluster.#control);
      const [first] = await cluster.#control.start(cluster.#client);
      cluster.#topology.publish();
      cluster.#actors = first?.actors ?? [];
      cluster.#router = new ActorRouter({
        coordinator: cluster.#client.coordinator,
        codec: createValueCodec(),
        table: cluster.#actors,
      });
    } catch (error) {
      await cluster.close({ timeoutMs: 1_000, force: true }).catch(() => undefined); // the first error says more
      throw error;
    }
    return cluster;
  }

  /**
   * Opens a collection of vectors, creating it when it is new and `options` are given.
   *
   * @throws {ShardloomError} `ERR_UNKNOWN_COLLECTION` without options for a new name, `ERR_COLLECTION_MISMATCH`, `ERR_INVALID_ARGUMENT`.
   */
  vectors(name: string, options?: VectorCollectionOptions): Promise<VectorCollection> {
    return this.#vectors.open(name, options);
  }

  /** Drops a collection and frees its regions. @returns whether it existed */
  dropVectors(name: string): Promise<boolean> {
    return this.#vectors.drop(name);
  }

  /**
   * Opens a collection of texts, creating it when it is new and `options` are given.
   *
   * @throws {ShardloomError} `ERR_UNKNOWN_COLLECTION` without options for a new name, `ERR_COLLECTION_MISMATCH`, `ERR_INVALID_ARGUMENT`.
   */
  text(name: string, options?: TextCollectionOptions): Promise<TextCollection> {
    return this.#texts.open(name, options);
  }

  /** Drops a collection of texts and frees its regions. @returns whether it existed */
  dropText(name: string): Promise<boolean> {
    return this.#texts.drop(name);
  }

  /**
   * A reference to the virtual actor of a definition and a key; it is activated by its first message.
   *
   * @throws {ShardloomError} `ERR_UNKNOWN_ACTOR` when the definition's module was not given to `Cluster.start`.
   */
  actor<D extends AnyActorDefinition>(definition: D, key: string): ActorRef<D> {
    this.#assertOpen();
    const router = this.#router as ActorRouter;
    router.assertKnown(definition.name);
    return createActorRef(definition, key, router);
  }

  /**
   * Opens a tick barrier, creating it when it is new and `options` are given. Its members may live on any threads.
   *
   * @throws {ShardloomError} `ERR_BARRIER` without options for a new name, `ERR_INVALID_ARGUMENT`.
   */
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
    return this.#change((membership) => membership.drain(shardId(this.#checkedShard(shard))));
  }

  /** Ends {@link drain}. @returns false when the shard was not draining */
  resume(shard: number): boolean {
    return this.#change((membership) => membership.resume(shardId(this.#checkedShard(shard))));
  }

  /** What a change of the members would move: a dry run. */
  previewPlacement(change: PlacementChange): PlacementPlan {
    return this.#topology.preview(change);
  }

  /** A session: reads under it see every write under it, whichever copy answers. @param token Of another session, to go on with. */
  session(token?: string): Session {
    return token === undefined ? new Session() : Session.parse(token);
  }

  /** One-sided access to any registered region, from this thread. */
  reader(): Verbs {
    this.#assertOpen();
    return new Verbs(this.#arena);
  }

  /** The memory that regions lie in. */
  get arena(): Arena {
    return this.#arena;
  }

  /** Registers regions of this thread's own, for workers and other readers. */
  get regions(): RegionTable {
    return this.#regions;
  }

  /**
   * A port with which one other thread of this process uses the cluster: send it there with its `transferList` and call
   * `connect(port)`.
   */
  port(): Promise<ClusterPort> {
    this.#assertOpen();
    const { spinLimitUs } = this.options;
    const { memory } = this.#arena;
    return this.#ports.create({
      memory,
      kernels: this.#compiled,
      topology: this.#topology.block,
      replicas: this.#replicas,
      actors: this.#actors,
      defaults: callDefaults(this.options),
      admission: this.options.admission,
      spinLimitUs,
    });
  }

  /** Who is there, how healthy it is, how much it holds. */
  async clusterStats(): Promise<ClusterStats> {
    this.#assertOpen();
    return gatherStats(this.#topology, this.#vectors, this.#texts, await this.#client.barriers.ticks());
  }

  /** What this thread has planned, sent, retried, hedged and refused. Costs no message. */
  routerStats(): RouterStats & { readonly admission: AdmissionStats } {
    this.#assertOpen();
    return this.#client.stats();
  }

  /** Counters and states of everything. A worker that does not answer has no `stats`. */
  async info(): Promise<ClusterInfo> {
    this.#assertOpen();
    const { topologyEpoch, shards, vshards } = this.topology;
    const stats = await this.#control.stats(STATS_TIMEOUT_MS);
    return {
      topology: { topologyEpoch, shards, vshards },
      memory: this.#arena.stats(),
      regions: this.#regions.list().length,
      client: this.#client.plane.stats(),
      workers: this.#control.heartbeats().map((beat) => ({ ...beat, stats: stats[beat.shard] })),
      collections: [...this.#vectors.names(), ...this.#texts.names()],
    };
  }

  /** What every worker is doing, read from shared memory without a message. */
  heartbeats(): ReturnType<ControlPlane["heartbeats"]> {
    return this.#control.heartbeats();
  }

  /**
   * Stops everything. Idempotent; a second call joins the first.
   *
   * @throws {ShardloomError} `ERR_TIMEOUT` when a worker would not stop; calling again tries again.
   */
  close(options: CloseOptions = {}): Promise<void> {
    this.#closing ??= this.#close(options.timeoutMs ?? 10_000, options.force ?? true).catch((error: unknown) => {
      this.#closing = undefined;
      throw error;
    });
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(timeoutMs: number, force: boolean): Promise<void> {
    this.#topology.close();
    this.#client.close();
    this.#ports.close();
    await this.#control.close({ timeoutMs, force });
    this.#kernels.close();
  }

  #followWorkers(): void {
    this.#control.on("worker-lost", (event) => this.emit("worker-lost", event));
    this.#control.on("worker-down", (event) => this.emit("worker-down", event));
    this.#control.on("worker-restarted", (event) => {
      this.#vectors.recovered(event.shard, event.ready.recovered);
      this.#texts.recovered(event.shard, event.ready.recovered);
      this.#ports.recovered(event.shard, event.ready.recovered);
      this.emit("worker-restarted", event);
    });
  }

  #change(act: (membership: Membership) => boolean): boolean {
    this.#assertOpen();
    const changed = act(this.#topology.membership);
    this.#topology.publish();
    return changed;
  }

  #checkedShard(shard: number): number {
    if (Number.isInteger(shard) && shard >= 0 && shard < this.options.workers) return shard;
    throw invalidArgument("change member", "shard", `an integer between 0 and ${this.options.workers - 1}`, shard);
  }

  #assertOpen(): void {
    if (this.#closing !== undefined) throw new ShardloomError("ERR_CLOSED", "Cannot use cluster as it is closed");
  }
}
