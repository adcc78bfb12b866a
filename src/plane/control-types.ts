/**
 * What the control plane is made of and what it tells: its options, its clients, its events.
 *
 * Invariant: options are resolved; only what a cluster may do without is absent.
 */
import { type BridgeOptions, createBridge } from "../../native-bridge/bridge.ts";
import type { ShardloomError } from "../errors.ts";
import type { CallDefaults } from "../routing/call-defaults.ts";
import type { NodeLinks } from "./node-links.ts";
import type { Platform } from "./platform.ts";
import type { RecoverTask, ShardReady, ShardStorage } from "./shard-task.ts";
import { createWorkerBlock } from "./worker-block.ts";

/** A client thread, seen from the control plane. */
export interface ControlClient {
  readonly name: string;
  readonly block: SharedArrayBuffer;
  /** A worker serves (or will serve) the shard on this bridge from now on. */
  attach(shard: number, bridge: SharedArrayBuffer, block: SharedArrayBuffer, incarnation: number): void;
  /** What the shard's worker held is lost. Called before the replacement's `attach`. */
  lose(shard: number, error: ShardloomError): void;
  /** Whom to tell that the bridge to a shard is damaged, so that another one is attached. Called when the thread is added. */
  watch(onDamaged: (shard: number) => void): void;
}

/** Gives a client thread a bridge to a shard that has no worker any more: what it asks fails. */
export function attachToNobody(
  client: ControlClient,
  shard: number,
  error: ShardloomError,
  { bridge }: Pick<ControlPlaneOptions, "bridge">,
): void {
  client.attach(shard, createBridge(bridge), createWorkerBlock(), 0);
  client.lose(shard, error);
}

/** Options of the control plane. */
export interface ControlPlaneOptions {
  readonly platform: Platform;
  /** Numbers of the shards that this node hosts. */
  readonly shards: readonly number[];
  /** Incarnation of the first worker of each shard. */
  readonly firstIncarnation: number;
  /** The other nodes of the cluster. @default none */
  readonly links?: NodeLinks;
  /** The block that every worker reads the topology from. */
  readonly topology: SharedArrayBuffer;
  /** Where every worker tells how far its copies have come. */
  readonly replicas: SharedArrayBuffer;
  readonly memory: WebAssembly.Memory;
  readonly kernels: WebAssembly.Module;
  readonly actorUrls: readonly string[];
  readonly bridge: BridgeOptions;
  readonly mesh: BridgeOptions;
  readonly maxHandlerMs: number;
  readonly maxNativeMs: number;
  readonly startTimeoutMs: number;
  readonly defaults: CallDefaults;
  readonly spinLimitUs: number;
  readonly maxHeapMb?: number;
  readonly workerNice: number;
  /** What the next worker of a shard must take over. */
  readonly recover: (shard: number) => readonly RecoverTask[];
  /** Where the next worker of any shard keeps its log and snapshots. @default nowhere */
  readonly storage?: () => ShardStorage;
}

/** A worker was lost; `error` is what its open requests failed with. */
export interface WorkerLost {
  readonly shard: number;
  readonly incarnation: number;
  readonly error: ShardloomError;
}

/** A replacement serves; its user actors start from their initial state. */
export interface WorkerRestarted {
  readonly shard: number;
  readonly incarnation: number;
  readonly ready: ShardReady;
  /** From the loss to the first served message, in ms. */
  readonly recoveryMs: number;
}

/** Lifecycle events. */
export interface ControlPlaneEvents {
  /** A worker is being started for a shard: its rings take requests, nobody serves them yet. */
  "worker-starting": [{ readonly shard: number; readonly incarnation: number }];
  /** A worker serves, the first one of its shard or a replacement. */
  "worker-ready": [{ readonly shard: number; readonly incarnation: number }];
  "worker-lost": [WorkerLost];
  "worker-restarted": [WorkerRestarted];
  "worker-down": [{ readonly shard: number; readonly error: ShardloomError }];
}
