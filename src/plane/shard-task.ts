/**
 * What a data-plane worker is started with, and what it serves to the control plane.
 *
 * Everything in a task crosses threads by structured clone: shared memory by reference, the rest as plain data.
 */
import type { MessagePort } from "node:worker_threads";
import type { CallDefaults } from "../routing/call-defaults.ts";

/** Both bridges between two workers, from the side of the one that receives this. */
export interface PeerTask {
  readonly shard: number;
  readonly incarnation: number;
  /** Bridge on which this worker serves the peer. */
  readonly inbound: SharedArrayBuffer;
  /** Bridge on which this worker asks the peer. */
  readonly outbound: SharedArrayBuffer;
  /** The peer's block, for its doorbell. */
  readonly block: SharedArrayBuffer;
}

/** One client thread's bridge to this worker. */
export interface ClientTask {
  readonly client: string;
  readonly bridge: SharedArrayBuffer;
  /** The client's block, for its doorbell. */
  readonly block: SharedArrayBuffer;
}

/** The perpetual task of one worker. */
export interface ShardTask {
  readonly shard: number;
  /** Counts the workers that have hosted this shard, from 1. */
  readonly incarnation: number;
  /** The block of the newest topology, see topology-source.ts. */
  readonly topology: SharedArrayBuffer;
  /** How far the copies of every vshard have come, see replica-table.ts. */
  readonly replicas: SharedArrayBuffer;
  readonly memory: WebAssembly.Memory;
  readonly kernels: WebAssembly.Module;
  readonly block: SharedArrayBuffer;
  readonly clients: readonly ClientTask[];
  readonly peers: readonly PeerTask[];
  readonly control: MessagePort;
  /** Modules that export user actors. */
  readonly actorUrls: readonly string[];
  readonly defaults: CallDefaults;
  /** Longest spin for a message before the worker parks, in us. */
  readonly spinLimitUs: number;
  /** What engines need to take over the regions of the shard's previous worker. */
  readonly recover: readonly RecoverTask[];
}

/** One collection of the shard's previous worker. */
export interface RecoverTask {
  readonly engine: string;
  readonly collection: number;
  readonly state: unknown;
}

/** What a worker tells when it is ready to serve. */
export interface ShardReady {
  /** Registered actors in table order: an envelope names them and their handlers by index. */
  readonly actors: readonly { readonly name: string; readonly handlers: readonly string[] }[];
  /** What recovery produced, per recovered collection: the engine's new handle. */
  readonly recovered: readonly { readonly engine: string; readonly collection: number; readonly state: unknown }[];
}

/** Counters of a worker, for `info` and tests. */
export interface ShardStats {
  readonly shard: number;
  readonly incarnation: number;
  readonly actors: Readonly<Record<string, unknown>>;
  readonly requests: {
    readonly handled: number;
    readonly failed: number;
    readonly expired: number;
    readonly corrupt: number;
    readonly stale: number;
  };
  readonly heapUsedBytes: number;
}

/** Methods that a worker serves on its control port. */
export interface ShardControl {
  ready(): Promise<ShardReady>;
  attachPeer(peer: PeerTask): void;
  /** The shard is without a worker for good: fail what is open to it, and what comes. */
  losePeer(shard: number, error: Uint8Array): void;
  attachClient(client: ClientTask): void;
  detachClient(client: string): void;
  stats(): ShardStats;
  /** End the actors, giving open handlers this long; requests are still answered, those to actors with `ERR_CLOSED`. */
  quiesce(timeoutMs: number): Promise<void>;
  /** Leave the loop once what has arrived is answered. */
  stop(): void;
}
