/**
 * The main thread's side of connected threads: makes their ports, tells them what changes, and does for them what only it can (see cluster-client.ts).
 *
 * Invariant: what it tells arrives in order on one port. The memory that a connected thread works in stands in a ledger of its port, and is free once
 * the port is closed: by its thread, which gave its memory back before, or with its thread, however that ended.
 */
import { MessageChannel, type MessagePort, type Transferable } from "node:worker_threads";
import type { ActorTable } from "../actors/actor-router.ts";
import type { GraphCatalog } from "../actors/graph/graph-catalog.ts";
import type { GraphOptions } from "../actors/graph/graph-options.ts";
import type { TextCatalog } from "../actors/text/text-catalog.ts";
import type { TextCollectionOptions } from "../actors/text/text-options.ts";
import type { VectorCatalog } from "../actors/vector/vector-catalog.ts";
import type { VectorCollectionOptions } from "../actors/vector/vector-options.ts";
import { Arena } from "../native-bridge/arena.ts";
import { DOORBELL_BYTES } from "../native-bridge/doorbell.ts";
import { createLedger, freeLedger } from "../native-bridge/owned-arena.ts";
import type { AdmissionLimits } from "./client-thread.ts";
import type { ControlPlane } from "./plane/control-plane.ts";
import { serveControl } from "./plane/control-rpc.ts";
import type { ControlClient } from "./plane/control-types.ts";
import type { ShardReady } from "./plane/shard-task.ts";
import type { CallDefaults } from "./routing/call-defaults.ts";
import { systemRuntime } from "./runtime/runtime.ts";
import { encodeError } from "./wire/error-codec.ts";

/** Everything that `connect` needs. Send it with `transferList: port.transferList`, to one thread, once. */
export interface ClusterPort {
  readonly name: string;
  /** Where the memory that the thread takes is written down. */
  readonly ledger: number;
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

export type PortEvent =
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
export interface PortControl {
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
    fixed: Omit<ClusterPort, "name" | "ledger" | "block" | "events" | "control" | "transferList">,
  ): Promise<ClusterPort> {
    const name = `${this.#prefix}thread-${this.#next++}`;
    const arena = new Arena(fixed.memory);
    const ledger = createLedger(arena);
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
      try {
        freeLedger(arena, ledger);
      } finally {
        await this.#control.removeClient(name);
      }
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
    try {
      await this.#control.addClient(client);
    } catch (error) {
      await leave().catch(() => undefined);
      throw error;
    }
    const transferList = [events.port2, calls.port2];
    return {
      ...fixed,
      name,
      ledger,
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
