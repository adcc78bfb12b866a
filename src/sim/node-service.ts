/**
 * Keeps a simulated node in service, as a supervisor does on a real machine: starts its cluster, opens the workload on it, and starts it again
 * when that fails.
 *
 * Invariant: `serving` is set exactly while the present life of the node has a cluster with the workload open on it.
 */
import { Cluster } from "../cluster.ts";
import type { ClusterOptions } from "../cluster-options.ts";
import type { ClusterEnvironment } from "../cluster-types.ts";
import { ShardloomError } from "../errors.ts";
import type { Platform } from "../plane/platform.ts";
import type { Disk } from "../runtime/disk.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import type { WorldLoop } from "./loop.ts";
import type { NatsClient } from "./nats-client.ts";
import type { SimThread } from "./threads.ts";
import { workloadFailed } from "./workload-run.ts";
import type { Workload } from "./workload-types.ts";
import type { WorldNode } from "./world-node.ts";

/** Pause before a node whose start failed is started again, and before a failed opening is tried again. */
const RESTART_MS = 1_000;
const REOPEN_MS = 250;

/** A node that serves. */
export interface Serving {
  readonly cluster: Cluster;
  /** What the workload's `open` returned. */
  readonly state: unknown;
  readonly disk: Disk;
  readonly nats: NatsClient;
  readonly scheduler: Scheduler;
}

/** What a life of a node has besides its cluster. */
export type Devices = Pick<Serving, "disk" | "nats" | "scheduler">;

/** What died: the process alone, whose machine goes on, or perhaps the machine too. */
export type CrashOf = "node" | "process";

/** What a service needs. */
export interface NodeServiceOptions {
  readonly loop: WorldLoop;
  readonly node: WorldNode;
  readonly workload: Workload;
  readonly clusterOptions: ClusterOptions;
  /** What a life of the node stands on. */
  readonly environment: (
    platform: Platform,
    incarnation: number,
    main: SimThread,
    nats: NatsClient,
  ) => ClusterEnvironment;
  /** Connects a life of the node to the NATS stand-in. */
  readonly connect: (main: SimThread) => NatsClient;
  readonly onServing: (service: NodeService) => void;
  /** The node is down, and what was open on it with it. */
  readonly onDown: (service: NodeService, what: CrashOf) => void;
  /** Whether the node's disk has damaged what was written to it: then a start may refuse it for good. */
  readonly isDamaged: () => boolean;
  /** The run cannot go on. */
  readonly onFailure: (error: ShardloomError) => void;
}

/** The supervisor of one node. */
export class NodeService {
  readonly node: WorldNode;
  readonly #options: NodeServiceOptions;
  #serving: Serving | undefined;
  #lost = false;
  #lastError: unknown;

  constructor(options: NodeServiceOptions) {
    this.#options = options;
    this.node = options.node;
  }

  get name(): string {
    return this.node.name;
  }

  get serving(): Serving | undefined {
    return this.#serving;
  }

  /** Whether it never comes back: it is lost, or refuses its damaged disk. */
  get lost(): boolean {
    return this.#lost;
  }

  /** Why it last failed to start. */
  get lastError(): unknown {
    return this.#lastError;
  }

  /** Starts the node, unless it is up or lost. */
  start(): void {
    if (this.#lost || this.node.main !== undefined) return;
    const { environment, clusterOptions, connect } = this.#options;
    const { main, disk, platform } = this.node.boot();
    const { incarnation } = this.node;
    const own: Devices = { disk: disk.disk, nats: connect(main), scheduler: main.runtime.scheduler };
    main.post(0, "boot", () => {
      Cluster.startOn(environment(platform, incarnation, main, own.nats), clusterOptions).then(
        (cluster) => this.#open(cluster, platform, own),
        (error: unknown) => this.#failed(error),
      );
    });
  }

  /** Everything of it is gone at once. */
  crash(what: CrashOf = "node"): void {
    this.#serving = undefined;
    this.node.crash();
    this.#options.onDown(this, what);
  }

  /** It crashes for good. */
  lose(): void {
    this.#lost = true;
    this.crash();
  }

  #open(cluster: Cluster, platform: Platform, devices: Devices): void {
    const { workload, onServing, onFailure } = this.#options;
    const opening = new Promise<unknown>((resolve) => resolve(workload.open?.(cluster)));
    opening.then(
      (state) => {
        this.#serving = { cluster, state, ...devices };
        onServing(this);
      },
      (error: unknown) => {
        this.#lastError = error;
        if (!ShardloomError.is(error) || error.code === "ERR_INVALID_ARGUMENT")
          onFailure(workloadFailed(workload.name, `open on ${this.name}`, error));
        else platform.runtime.scheduler.after(REOPEN_MS, () => this.#open(cluster, platform, devices));
      },
    );
  }

  /** The cluster did not start: a supervisor would end the process and try again. */
  #failed(error: unknown): void {
    this.#lastError = error;
    const { loop, onFailure, isDamaged } = this.#options;
    if (!ShardloomError.is(error) || error.code === "ERR_INVALID_ARGUMENT" || error.code === "ERR_MODULE_NOT_LOADED") {
      onFailure(ShardloomError.from(error));
      return;
    }
    loop.trace("start failed", this.name, error.code);
    if (error.code === "ERR_CORRUPT" && isDamaged()) {
      this.lose(); // nobody mends its files
      return;
    }
    this.crash("process");
    loop.at(loop.nowUs + RESTART_MS * 1000, () => this.start());
  }
}
