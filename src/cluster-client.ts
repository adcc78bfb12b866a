/**
 * The cluster from another thread of the process: `cluster.port()` on the main thread, `connect(port)` on the other.
 *
 * The other thread gets bridges of its own to every worker, plans and gathers by itself, and reads regions one-sidedly; the main
 * thread only tells it which worker serves a shard, and opens and drops collections for it.
 *
 * Invariant: what the main thread tells arrives in order on one port: a shard's worker is lost before its successor is
 * attached, and a recovered root is told before anybody can learn of it in another way. The memory that searches work in is this thread's own until
 * it is closed: it is given back before the main thread hears of that.
 */
import { EventEmitter } from "node:events";
import { ActorRouter } from "../actors/actor-router.ts";
import type { Graph } from "../actors/graph/client-graph.ts";
import { ConnectedGraphs } from "../actors/graph/connected-graphs.ts";
import type { GraphOptions } from "../actors/graph/graph-options.ts";
import type { RouterStats } from "../actors/router-stats.ts";
import type { ShardReader } from "../actors/shard-reader.ts";
import type { TextCollection } from "../actors/text/client-collection.ts";
import { connectText } from "../actors/text/text-catalog.ts";
import type { TextCollectionOptions } from "../actors/text/text-options.ts";
import type { VectorCollection } from "../actors/vector/client-collection.ts";
import { ConnectedVectors } from "../actors/vector/connected-vectors.ts";
import type { VectorCollectionOptions } from "../actors/vector/vector-options.ts";
import { Kernels } from "../native-bridge/kernels.ts";
import { OwnedArena } from "../native-bridge/owned-arena.ts";
import { Verbs } from "../native-bridge/verbs.ts";
import { type ActorRef, createActorRef } from "./actor/actor-ref.ts";
import type { AnyActorDefinition } from "./actor/define-actor.ts";
import type { OpenBarrierOptions, TickBarrier } from "./actor/tick-barrier.ts";
import { ClientThread } from "./client-thread.ts";
import type { ClusterPort, PortControl, PortEvent } from "./cluster-ports.ts";
import { ShardloomError } from "./errors.ts";
import { type ControlConnection, connectControl } from "./plane/control-rpc.ts";
import type { AdmissionStats } from "./routing/admission.ts";
import { systemRuntime } from "./runtime/runtime.ts";
import { Session } from "./topology/session.ts";
import type { TopologySnapshot } from "./topology/snapshot.ts";
import { SharedTopology } from "./topology/topology-source.ts";
import { decodeErrorAt } from "./wire/error-codec.ts";
import { createValueCodec } from "./wire/value-codec.ts";

/** Events of a connected thread. */
export interface ClusterClientEvents {
  /** The cluster was closed by its main thread. */
  closed: [];
}

/** The cluster as a thread other than its main one uses it. */
export class ClusterClient extends EventEmitter<ClusterClientEvents> implements AsyncDisposable {
  readonly #topology: SharedTopology;
  readonly #port: ClusterPort;
  readonly #arena: OwnedArena;
  readonly #kernels: Kernels;
  readonly #client: ClientThread;
  readonly #control: ControlConnection<PortControl>;
  readonly #vectors: ConnectedVectors;
  readonly #graphs: ConnectedGraphs;
  readonly #router: ActorRouter;
  #attached = 0;
  #whenAttached: (() => void) | undefined;
  #closed = false;

  /** @internal Use {@link connect}. */
  constructor(port: ClusterPort) {
    super();
    const { topology, memory, ledger, kernels, spinLimitUs, defaults, block, name } = port;
    this.#port = port;
    this.#topology = new SharedTopology(topology);
    this.#arena = new OwnedArena(memory, ledger);
    this.#kernels = new Kernels(kernels, this.#arena);
    this.#client = new ClientThread({
      runtime: systemRuntime,
      name,
      topology: this.#topology,
      replicas: port.replicas,
      defaults,
      admission: port.admission,
      spinLimitUs,
      block,
    });
    const { coordinator } = this.#client;
    this.#router = new ActorRouter({ coordinator, codec: createValueCodec(), table: port.actors });
    this.#control = connectControl<PortControl>(port.control, () => undefined, "calls");
    this.#vectors = new ConnectedVectors({
      coordinator,
      arena: this.#arena,
      kernels: this.#kernels,
      describe: (collection, options) => this.#control.remote.openVectors(collection, options),
      assertOpen: () => this.#assertOpen(),
    });
    this.#graphs = new ConnectedGraphs({
      coordinator,
      describe: (graph, options) => this.#control.remote.openGraph(graph, options),
      assertOpen: () => this.#assertOpen(),
    });
    this.#client.watch((shard) => void this.#control.remote.damaged(shard).catch(() => undefined)); // fails when the cluster closes
    port.events.on("message", (event: PortEvent) => this.#take(event));
  }

  /** @internal Resolves when the bridges of all workers are there. */
  async attached(): Promise<this> {
    if (this.#attached < this.topology.shards) await new Promise<void>((resolve) => (this.#whenAttached = resolve));
    this.#port.events.unref();
    this.#port.control.unref();
    return this;
  }

  /** Opens a collection, creating it when it is new and `options` are given. As `Cluster.vectors`. */
  vectors(name: string, options?: VectorCollectionOptions): Promise<VectorCollection> {
    return this.#vectors.open(name, options);
  }

  /** Drops a collection. @returns whether it existed */
  dropVectors(name: string): Promise<boolean> {
    this.#assertOpen();
    return this.#control.remote.dropVectors(name);
  }

  /** Opens a collection of texts, creating it when it is new and `options` are given. As `Cluster.text`. */
  async text(name: string, options?: TextCollectionOptions): Promise<TextCollection> {
    this.#assertOpen();
    const description = await this.#control.remote.openText(name, options);
    const { coordinator } = this.#client;
    return connectText({ coordinator, assertOpen: () => this.#assertOpen() }, name, description);
  }

  /** Drops a collection of texts. @returns whether it existed */
  dropText(name: string): Promise<boolean> {
    this.#assertOpen();
    return this.#control.remote.dropText(name);
  }

  /** Opens a graph, creating it when it is new. As `Cluster.graph`. */
  graph(name: string, options?: GraphOptions): Promise<Graph> {
    return this.#graphs.open(name, options);
  }

  /** Drops a graph. @returns whether it existed */
  dropGraph(name: string): Promise<boolean> {
    this.#assertOpen();
    return this.#control.remote.dropGraph(name);
  }

  /** A session. As `Cluster.session`. */
  session(token?: string): Session {
    return token === undefined ? new Session() : Session.parse(token);
  }

  /** What this thread has planned, sent, retried, hedged and refused. As `Cluster.routerStats`. */
  routerStats(): RouterStats & { readonly admission: AdmissionStats } {
    this.#assertOpen();
    return this.#client.stats();
  }

  /** A reference to a virtual actor. As `Cluster.actor`. */
  actor<D extends AnyActorDefinition>(definition: D, key: string): ActorRef<D> {
    this.#assertOpen();
    this.#router.assertKnown(definition.name);
    return createActorRef(definition, key, this.#router);
  }

  /** Opens a tick barrier. As `Cluster.barrier`. */
  async barrier(name: string, options?: OpenBarrierOptions): Promise<TickBarrier> {
    this.#assertOpen();
    return this.#client.barriers.open(name, options);
  }

  /** The newest topology. As `Cluster.topology`. */
  get topology(): TopologySnapshot {
    return this.#topology.current();
  }

  /** One-sided access to any registered region, from this thread. */
  reader(): Verbs {
    this.#assertOpen();
    return new Verbs(this.#arena);
  }

  /** Reads of a shard's registered memory, wherever it is. As `Cluster.readerOf`. */
  readerOf(shard: number): ShardReader {
    return this.#client.readerOf(shard, this.reader(), this.#port.own);
  }

  /** Leaves the cluster: what is open fails, the workers forget this thread. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#end();
    await this.#control.remote.disconnect().catch(() => undefined); // the main thread may have gone first
    this.#release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #take(event: PortEvent): void {
    switch (event.kind) {
      case "attach":
        this.#client.attach(event.shard, event.bridge, event.block);
        this.#attached++;
        if (this.#attached >= this.topology.shards) this.#whenAttached?.();
        break;
      case "lose":
        this.#client.lose(event.shard, decodeErrorAt(event.error, 0, event.error.length));
        break;
      case "recovered":
        this.#vectors.recovered(event.shard, event.recovered);
        this.#graphs.recovered(event.shard, event.recovered);
        break;
      case "dropped":
        this.#vectors.dropped(event.collectionId);
        this.#graphs.dropped(event.collectionId);
        break;
      case "closed":
        if (this.#closed) return;
        this.#end();
        this.#release();
        this.emit("closed");
        break;
    }
  }

  /** Gives all memory back: from then on the main thread may free what stands in the ledger. */
  #end(): void {
    this.#closed = true;
    this.#client.close();
    this.#vectors.close();
    this.#kernels.close();
    this.#arena.close();
  }

  #release(): void {
    this.#control.end(new ShardloomError("ERR_CLOSED", "Cannot use cluster as it is closed"));
    this.#port.events.close();
  }

  #assertOpen(): void {
    if (this.#closed) throw new ShardloomError("ERR_CLOSED", "Cannot use cluster as it is closed");
  }
}

/**
 * Connects this thread to a cluster whose main thread made the port with `cluster.port()`.
 *
 * @example In a worker
 * const cluster = await connect(workerData.port);
 * const docs = await cluster.vectors("docs");
 */
export function connect(port: ClusterPort): Promise<ClusterClient> {
  return new ClusterClient(port).attached();
}
