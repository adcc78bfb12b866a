/**
 * What a cluster stands on, tells and is asked: types of `cluster.ts`.
 *
 * Invariant: no behaviour.
 */
import type { Arena } from "../native-bridge/arena.ts";
import type { DocumentKeeping } from "./cluster-documents.ts";
import type { openNatsNode } from "./cluster-nats.ts";
import type { ShardloomError } from "./errors.ts";
import type { ControlPlane } from "./plane/control-plane.ts";
import type { WorkerLost, WorkerRestarted } from "./plane/control-types.ts";
import type { NodesOptions } from "./plane/node-links.ts";
import type { Platform } from "./plane/platform.ts";
import type { ShardStats } from "./plane/shard-task.ts";
import type { RequesterStats } from "./routing/requester.ts";
import type { ServerWaiting } from "./runtime/patience.ts";
import type { MemberChange } from "./topology/membership.ts";

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
  /** This node was removed from its cluster: others have what it held, it serves nothing, and is to be closed. */
  removed: [];
}

/** How {@link Cluster.close} ends the workers. */
export interface CloseOptions {
  /** How long to wait for requests in flight and native calls, in ms. @default 10000 */
  readonly timeoutMs?: number;
  /** Terminate workers that hang in JavaScript. One inside a native call is waited for in any case. @default true */
  readonly force?: boolean;
  /**
   * Of a node of several with leases: how long it may first take to give what it is primary of to other holders of copies, in ms, so that they serve at
   * once and not when its lease is over. 0: it does not. @default 0
   */
  readonly handOverMs?: number;
}

/** Counters of a whole cluster. */
export interface ClusterInfo {
  readonly topology: { readonly topologyEpoch: number; readonly shards: number; readonly vshards: number };
  readonly memory: ReturnType<Arena["stats"]>;
  readonly regions: number;
  readonly client: RequesterStats;
  readonly workers: readonly (ReturnType<ControlPlane["heartbeats"]>[number] & {
    readonly stats: ShardStats | undefined;
    /** Why the shard's documents on disk do not follow its log at present. @default they do */
    readonly documentsFailure?: ShardloomError;
  })[];
  readonly collections: readonly string[];
}

/** What a cluster stands on. */
export interface ClusterEnvironment {
  readonly platform: Platform;
  /** How documents are kept in LMDB. @default they are not */
  readonly documents?: DocumentKeeping;
  /** How a node's part of a place in NATS is opened. @default there is no network to it */
  readonly openNats?: typeof openNatsNode;
  /** Told while the start waits for servers of NATS. @default nobody is told */
  readonly onWaiting?: ((waiting: ServerWaiting) => void) | undefined;
  /** The nodes of the cluster, and which one this is. @default it is the only one */
  readonly nodes?: NodesOptions;
}
