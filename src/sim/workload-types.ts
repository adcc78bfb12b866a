/**
 * What a workload is: operations as data, how one runs, and what must hold of the answers.
 *
 * Invariant: operations depend on the seed and the options alone, never on answers; so a list of them can be cut down.
 */
import type { Cluster } from "../cluster.ts";
import type { Disk } from "../runtime/disk.ts";
import type { Random } from "../runtime/random.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import type { Fault } from "./fault-types.ts";
import type { HistoryEntry, Violation } from "./history-types.ts";
import type { NatsClient } from "./nats-client.ts";

/** One operation of a client process. */
export interface Operation {
  readonly process: number;
  readonly f: string;
  /** Plain JSON. */
  readonly value: unknown;
  /** Simulated pause of the process before the operation. */
  readonly afterMs: number;
}

/** What an operation runs with. A process lives on one node; when that crashes, what it had open ends as `info`. */
export interface OperationContext {
  readonly node: string;
  readonly process: number;
  /** The node's cluster as it is now. */
  readonly cluster: Cluster;
  /** What `open` returned for the node. */
  readonly state: unknown;
  /** The node's disk: one object from a start of the node to its end. */
  readonly disk: Disk;
  /** The node's connection to the stand-in for NATS: one object from a start of the node to its end. */
  readonly nats: NatsClient;
  /** Of the node's main thread. */
  readonly scheduler: Scheduler;
}

/** What the last check of a run sees, after all faults healed. */
export interface WorldView {
  readonly history: readonly HistoryEntry[];
  /** Every fault that hit. */
  readonly faults: readonly Fault[];
  /** Whether more went wrong than copies and disks can make good: then acknowledged writes may be gone, and that is no violation. */
  readonly mayForget: boolean;
  /** Names of nodes that never come back: those that were lost, and those that refuse their damaged disks. */
  readonly lost: readonly string[];
  /** Those that are up: all that were not lost for good. */
  readonly nodes: readonly {
    readonly name: string;
    readonly cluster: Cluster;
    readonly state: unknown;
    readonly disk: Disk;
    readonly scheduler: Scheduler;
  }[];
}

/** A workload, made inside the world by its module's exported factory. */
export interface Workload {
  readonly name: string;
  /** Modules of actors that every worker hosts. */
  readonly actors?: readonly URL[];
  /** All operations, drawn up front. @param durationMs simulated time that the operations should fill */
  generate(random: Random, shape: { readonly nodes: number; readonly durationMs: number }): readonly Operation[];
  /** Called on each node after each start of it: opens collections. */
  open?(cluster: Cluster): Promise<unknown>;
  /** Runs one operation. @returns its answer, plain JSON. A thrown ShardloomError decides between fail and info by {@link Workload.failed}. */
  invoke(operation: Operation, context: OperationContext): Promise<unknown>;
  /** Whether an error means that the operation certainly did not happen. @default never: info */
  failed?(error: unknown): boolean;
  /**
   * Judges the finished run.
   *
   * @example Of 10 pieces more were sold; `History.from(history).calls()` pairs what was asked with what was told
   * check({ history }) {
   *   const sold = History.from(history).calls().filter(({ outcome, completion }) => outcome === "ok" && completion?.value === true);
   *   if (sold.length <= 10) return [];
   *   return [{ rule: "no overselling", message: `sold ${sold.length} of 10`, entries: sold.map(({ invoke }) => invoke) }];
   * }
   */
  check(world: WorldView): readonly Violation[] | Promise<readonly Violation[]>;
}

/** Names a workload across threads. */
export interface WorkloadRef {
  /** Compiled module that exports a factory `(options) => Workload`. */
  readonly module: string;
  readonly export: string;
  /** Plain data. */
  readonly options: unknown;
}
