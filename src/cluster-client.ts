/**
 * The cluster from another thread of the process: `cluster.port()` on the main thread, `connect(port)` on the other.
 *
 * The other thread gets bridges of its own to every worker, plans and gathers by itself, and reads regions one-sidedly; the main
 * thread only tells it which worker serves a shard, and opens and drops collections for it.
 *
 * Invariant: what the main thread tells arrives in order on one port: a shard's worker is lost before its successor is
 * attached, and a recovered root is told before anybody can learn of it in another way.
 */
import { EventEmitter } from "node:events";
import { MessageChannel, type MessagePort, type Transferable } from "node:worker_threads";
import { ActorRouter, type ActorTable } from "../actors/actor-router.ts";
import type { Graph } from "../actors/graph/client-graph.ts";
import { ConnectedGraphs } from "../actors/graph/connected-graphs.ts";
import type { GraphCatalog } from "../actors/graph/graph-catalog.ts";
import type { GraphOptions } from "../actors/graph/graph-options.ts";
import type { RouterStats } from "../actors/router-stats.ts";
import type { ShardReader } from "../actors/shard-reader.ts";
import type { TextCollection } from "../actors/text/client-collection.ts";
import { connectText, type TextCatalog } from "../actors/text/text-catalog.ts";
import type { TextCollectionOptions } from "../actors/text/text-options.ts";
import type { VectorCollection } from "../actors/vector/client-collection.ts";
import { ConnectedVectors } from "../actors/vector/connected-vectors.ts";
import type { VectorCatalog } from "../actors/vector/vector-catalog.ts";
import type { VectorCollectionOptions } from "../actors/vector/vector-options.ts";
import { Arena } from "../native-bridge/arena.ts";
import { DOORBELL_BYTES } from "../native-bridge/doorbell.ts";
import { Kernels } from "../native-bridge/kernels.ts";
import { Verbs } from "../native-bridge/verbs.ts";
import { type ActorRef, createActorRef } from "./actor/actor-ref.ts";
import type { AnyActorDefinition } from "./actor/define-actor.ts";
import type { OpenBarrierOptions, TickBarrier } from "./actor/tick-barrier.ts";
import { type AdmissionLimits, ClientThread } from "./client-thread.ts";
import { ShardloomError } from "./errors.ts";
import type { ControlPlane } from "./plane/control-plane.ts";
import { type ControlConnection, connectControl, serveControl } from "./plane/control-rpc.ts";
import type { ControlClient } from "./plane/control-types.ts";
import type { ShardReady } from "./plane/shard-task.ts";
import type { AdmissionStats } from "./routing/admission.ts";
import type { CallDefaults } from "./routing/call-defaults.ts";
import { systemRuntime } from "./runtime/runtime.ts";
import { Session } from "./topology/session.ts";
import type { TopologySnapshot } from "./topology/snapshot.ts";
import { SharedTopology } from "./topology/topology-source.ts";
import { decodeErrorAt, encodeError } from "./wire/error-codec.ts";
import { createValueCodec } from "./wire/value-codec.ts";

/** Owner numbers of connected threads' scratch memory start here. */
const FIRST_OWNER = 0x8000;

/** Everything that {@link connect} needs. Send it with `transferList: port.transferList`, to one thread, once. */
export interface ClusterPort {
  readonly name: string;
  readonly owner: number;
  /** Shards of this process. */
  readonly own: readonly number[];
  readonly memory: WebAssembly.Memory;
  readonly kernels: WebAssembly.Module;
  readonly topology: SharedArrayBuffer;
  readonly replicas: SharedArrayBuffer;
  readonly actors: ActorTable;
  readonly defaults: CallDefaults;
  readonly admission: AdmissionLimits;
  readonly spinLimitUs: number;
  readonly block: SharedArrayBuffer;
  readonly events: MessagePort;
  readonly control: MessagePort;
  readonly transferList: readonly Transferable[];
}

type PortEvent =
  | {
      readonly kind: "attach";
      readonly shard: number;
      readonly bridge: SharedArrayBuffer;
      readonly block: SharedArrayBuffer;
    }
  | { readonly kind: "lose"; readonly shard: number; readonly error: Uint8Array }
  | { readonly kind: "recovered"; readonly shard: number; readonly recovered: ShardReady["recovered"] }
  | { readonly kind: "dropped"; readonly collectionId: number }
  | { readonly kind: "closed" };

/** What the main thread does for a connected one. */
interface PortControl {
  /** The bridge to a shard is damaged. */
  damaged(shard: number): void;
  openVectors(name: string, options: VectorCollectionOptions | undefined): ReturnType<VectorCatalog["describe"]>;
  dropVectors(name: string): Promise<boolean>;
  openText(name: string, options: TextCollectionOptions | undefined): ReturnType<TextCatalog["describe"]>;
  dropText(name: string): Promise<boolean>;
  openGraph(name: string, options: GraphOptions | undefined): ReturnType<GraphCatalog["describe"]>;
  dropGraph(name: string): Promise<boolean>;
  disconnect(): Promise<void>;
}

/** The main thread's side of all connected threads. */
export class ClusterPorts {
  readonly #prefix: string;
  readonly #control: ControlPlane;
  readonly #vectors: VectorCatalog;
  readonly #texts: TextCatalog;
  readonly #graphs: GraphCatalog;
  readonly #open: Set<MessagePort> = new Set();
  #next = 1;

  /** @param prefix What the names of connected threads begin with. */
  constructor(
    prefix: string,
    control: ControlPlane,
    collections: { readonly vectors: VectorCatalog; readonly texts: TextCatalog; readonly graphs: GraphCatalog },
  ) {
    this.#prefix = prefix;
    this.#control = control;
    this.#vectors = collections.vectors;
    this.#texts = collections.texts;
    this.#graphs = collections.graphs;
  }

  /** Makes a port: every worker serves the thread that gets it, as soon as it connects. */
  async create(
    fixed: Omit<ClusterPort, "name" | "owner" | "block" | "events" | "control" | "transferList">,
  ): Promise<ClusterPort> {
    const number = this.#next++;
    const name = `${this.#prefix}thread-${number}`;
    const block = new SharedArrayBuffer(DOORBELL_BYTES);
    const events = new MessageChannel();
    const calls = new MessageChannel();
    const tell = (event: PortEvent): void => events.port1.postMessage(event);
    let onDamaged: (shard: number) => void = () => undefined;
    const client: ControlClient = {
      name,
      block,
      attach: (shard, bridge, worker) => tell({ kind: "attach", shard, bridge, block: worker }),
      lose: (shard, error) => tell({ kind: "lose", shard, error: encodeError(error) }),
      watch: (listener) => (onDamaged = listener),
    };
    const leave = async (): Promise<void> => {
      if (!this.#open.delete(events.port1)) return;
      events.port1.close();
      calls.port1.close();
      await this.#control.removeClient(name);
    };
    serveControl<PortControl>(calls.port1, {
      damaged: (shard) => onDamaged(shard),
      openVectors: (collection, options) => this.#vectors.describe(collection, options),
      dropVectors: (collection) => this.#vectors.drop(collection),
      openText: (collection, options) => this.#texts.describe(collection, options),
      dropText: (collection) => this.#texts.drop(collection),
      openGraph: (graph, options) => this.#graphs.describe(graph, options),
      dropGraph: (graph) => this.#graphs.drop(graph),
      disconnect: async () => {
        await this.#control.removeClient(name);
        systemRuntime.scheduler.turn(() => void leave().catch(() => undefined)); // after this answer has gone
      },
    });
    this.#open.add(events.port1);
    // The other end closes with its thread, however that ends.
    events.port1.on("close", () => void leave().catch(() => undefined));
    events.port1.unref();
    calls.port1.unref();
    await this.#control.addClient(client);
    const transferList = [events.port2, calls.port2];
    return {
      ...fixed,
      name,
      owner: FIRST_OWNER + number,
      block,
      events: events.port2,
      control: calls.port2,
      transferList,
    };
  }

  recovered(shard: number, recovered: ShardReady["recovered"]): void {
    this.#tellAll({ kind: "recovered", shard, recovered });
  }

  dropped(collectionId: number): void {
    this.#tellAll({ kind: "dropped", collectionId });
  }

  close(): void {
    this.#tellAll({ kind: "closed" });
    for (const port of this.#open) port.close();
    this.#open.clear();
  }

  #tellAll(event: PortEvent): void {
    for (const port of this.#open) port.postMessage(event);
  }
}

/** Events of a connected thread. */
export interface ClusterClientEvents {
  /** The cluster was closed by its main thread. */
  closed: [];
}

/** The cluster as a thread other than its main one uses it. */
export class ClusterClient extends EventEmitter<ClusterClientEvents> implements AsyncDisposable {
  readonly #topology: SharedTopology;
  readonly #port: ClusterPort;
  readonly #arena: Arena;
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
    const { topology, memory, kernels, spinLimitUs, defaults, block, name } = port;
    this.#port = port;
    this.#topology = new SharedTopology(topology);
    this.#arena = new Arena(memory);
    this.#kernels = new Kernels(kernels, this.#arena, undefined, port.owner);
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

  #end(): void {
    this.#closed = true;
    this.#client.close();
  }

  #release(): void {
    this.#control.end(new ShardloomError("ERR_CLOSED", "Cannot use cluster as it is closed"));
    this.#kernels.close();
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
