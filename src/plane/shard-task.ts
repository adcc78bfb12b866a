/**
 * What a data-plane worker is started with, and what it serves to the control plane.
 *
 * Everything in a task crosses threads by structured clone: shared memory by reference, the rest as plain data.
 */
import type { CallDefaults } from "../routing/call-defaults.ts";
import type { BackupPart, VshardContent } from "../store/backup-manifest.ts";
import type { Durability } from "../store/log.ts";
import type { NatsPlace } from "../store/nats-shard.ts";

/** Both bridges between two workers, from the side of the one that receives this. */
export interface PeerTask {
  readonly shard: number;
  readonly incarnation: number;
  /** Bridge on which this worker serves the peer. Absent for a shard of another node, which asks through its node. */
  readonly inbound?: SharedArrayBuffer;
  /** Bridge on which this worker asks the peer. */
  readonly outbound: SharedArrayBuffer;
  /** The block of whoever answers there, for its doorbell. */
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
  /** Counts the workers that have hosted this shard, see `firstShardIncarnation`. */
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
  /** The worker's end of its control channel, as the platform made it. */
  readonly control: unknown;
  /** Modules that export user actors. */
  readonly actorUrls: readonly string[];
  readonly defaults: CallDefaults;
  /** Longest spin for a message before the worker parks, in us. */
  readonly spinLimitUs: number;
  /** Where the shard keeps its log and its snapshots; absent: it keeps nothing. */
  readonly storage?: ShardStorage;
  /** What engines need to take over the regions of the shard's previous worker; absent for the first one in this memory. */
  readonly recover?: readonly RecoverTask[];
}

/** What a shard keeps, where and how: in a directory or in NATS. */
export interface ShardStorage {
  /** The node's directory; each shard has one below it, see data-directory.ts. */
  readonly directory?: string;
  /** In place of a directory. */
  readonly nats?: NatsPlace;
  readonly durability: Durability;
  /** What the node's documents are told by; absent: it keeps none. */
  readonly documents?: { readonly clusterId: string };
  /** Bytes of log after which a new snapshot is taken. */
  readonly snapshotBytes: number;
  /** Bytes a second that snapshots may write. */
  readonly snapshotBytesPerSecond: number;
  /** Collections of the whole directory: those that the shard opens before it reads its log. */
  readonly collections: readonly StoredCollection[];
  /** How far each shard's log is durable, for the thread that keeps the documents. Shape: `Float64Array[256]`, by shard. */
  readonly durable: SharedArrayBuffer;
  /**
   * Which shards have loaded what they have on disk, in this life of the node: from then on memory counts, and the next worker takes it over.
   * Shape: `Int32Array[256]`, by shard, 1 when it has.
   */
  readonly loaded: SharedArrayBuffer;
}

/** A collection as the node's directory has it. */
export interface StoredCollection {
  readonly engine: string;
  readonly name: string;
  readonly collection: number;
  /** As the engine recovers it from: those of its {@link RecoverTask}. Plain JSON. */
  readonly options: unknown;
}

/** One collection of the shard's previous worker. */
export interface RecoverTask {
  readonly engine: string;
  readonly collection: number;
  readonly state: unknown;
}

/** An error of a shard's storage, as another thread is told it. */
export interface StorageTrouble {
  readonly code: string;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

/** How the storage of a shard is. */
export interface ShardStorageStats {
  /**
   * What the worker found damaged when it opened log and snapshots, also where it was made up for by copies or an older snapshot. Details have the
   * position, vshard and LSN for a log, path and offset for a snapshot, as far as these can be told.
   */
  readonly damage: readonly StorageTrouble[];
  /** Why the newest snapshot could not be taken, and since when none could, in ms. @default it could */
  readonly checkpoint?: StorageTrouble & { readonly failingForMs: number };
  /** Why the log takes nothing at present. @default it does */
  readonly log?: StorageTrouble;
}

/** What a worker tells when it is ready to serve. */
export interface ShardReady {
  /** Registered actors in table order: an envelope names them and their handlers by index. */
  readonly actors: readonly { readonly name: string; readonly handlers: readonly string[] }[];
  /** What recovery produced, per recovered collection: the engine's new handle. */
  readonly recovered: readonly { readonly engine: string; readonly collection: number; readonly state: unknown }[];
  /** As {@link ShardStorageStats.damage}. */
  readonly damage: readonly StorageTrouble[];
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
  /** Undefined where nothing is kept. */
  readonly storage: ShardStorageStats | undefined;
}

/** Methods that a worker serves on its control port. */
export interface ShardControl {
  ready(): Promise<ShardReady>;
  attachPeer(peer: PeerTask): void;
  /** The shard is without a worker for good: fail what is open to it, and what comes. */
  losePeer(shard: number, error: Uint8Array): void;
  attachClient(client: ClientTask): void;
  detachClient(client: string): void;
  /** Whoever joined barriers here from threads whose names begin so is lost. */
  loseOrigins(prefixes: readonly string[]): void;
  /** The topology has another map: vshards may be the shard's now, or not any more. */
  mapChanged(): void;
  stats(): ShardStats;
  /** What its copies hold, each as of some moment since the call. @param vshards Only these. @default all that it holds */
  audit(vshards?: readonly number[]): Promise<readonly VshardContent[]>;
  /**
   * Copies what the shard has on disk into another directory, while it serves.
   *
   * @param progress Shape: `Float64Array[3]`: bytes copied, bytes in all, and what is not 0 once it shall stop.
   * @throws {ShardloomError} `ERR_ABORTED` when it was stopped; and as disks do.
   */
  backup(target: string, progress: SharedArrayBuffer): Promise<BackupPart>;
  /** End the actors, giving open handlers this long; requests are still answered, those to actors with `ERR_CLOSED`. */
  quiesce(timeoutMs: number): Promise<void>;
  /** Leave the loop once what has arrived is answered. */
  stop(): void;
}
