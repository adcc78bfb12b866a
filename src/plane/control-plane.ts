/**
 * Lifecycle of the data plane: starts workers, watches their heartbeats, replaces the dead, closes without aborting.
 *
 * Invariant: at any time each shard has exactly one worker that is not retired. A replacement has a block and bridges of its own,
 * and peers and clients learn of them before any request can reach it; requests that the predecessor held fail typed.
 *
 * Busy, hung and dead are told apart by the heartbeat word alone: a worker whose beat stands still although its
 * doorbell was rung is *hung* when it is in JavaScript (terminated and replaced) and *overdue* when it is in a native
 * call (quarantined: retired and replaced, but never terminated, which could abort the process).
 */
import { EventEmitter } from "node:events";
import { MessageChannel } from "node:worker_threads";
import { createBridge } from "../../native-bridge/bridge.ts";
import { HEARTBEAT } from "../../native-bridge/heartbeat.ts";
import { ShardloomError } from "../errors.ts";
import type { Timer } from "../runtime/scheduler.ts";
import { type ControlConnection, connectControl } from "./control-rpc.ts";
import type { ControlClient, ControlPlaneEvents, ControlPlaneOptions } from "./control-types.ts";
import type { ShardControl, ShardReady, ShardStats, ShardTask } from "./shard-task.ts";
import { createWorkerBlock, WorkerBlock } from "./worker-block.ts";
import { describeDeath, type RunningWorker, WorkerHost } from "./worker-host.ts";

/** Replacements of one shard within {@link RESTART_WINDOW_MS} before it is given up. */
const RESTART_LIMIT = 8;
const RESTART_WINDOW_MS = 60_000;
const RESTART_BACKOFF_MS = 50;
const RESTART_BACKOFF_LIMIT_MS = 2_000;

interface Worker {
  readonly shard: number;
  readonly incarnation: number;
  readonly block: WorkerBlock;
  readonly control: ControlConnection<ShardControl>;
  readonly running: RunningWorker;
  readonly ready: Promise<ShardReady>;
  state: "starting" | "up" | "quarantined" | "lost" | "stopped";
  beats: number;
  quietChecks: number;
}

/** Owns the workers of one node. */
export class ControlPlane extends EventEmitter<ControlPlaneEvents> {
  readonly #options: ControlPlaneOptions;
  readonly #host: WorkerHost;
  readonly #workers: Worker[] = [];
  readonly #quarantined: Set<Worker> = new Set();
  readonly #clients: Map<string, ControlClient> = new Map();
  readonly #mesh: SharedArrayBuffer[][] = [];
  readonly #restarts: number[][] = [];
  readonly #checkMs: number;
  #monitor: Timer | undefined;
  #closing = false;

  constructor(options: ControlPlaneOptions) {
    super();
    this.#options = options;
    this.#checkMs = Math.max(10, Math.min(100, Math.floor(options.maxHandlerMs / 5)));
    this.#host = new WorkerHost({
      workerUrl: options.workerUrl,
      workers: options.snapshot.shards,
      ...(options.maxHeapMb === undefined ? {} : { maxHeapMb: options.maxHeapMb }),
    });
  }

  /** Starts every worker. @returns what each told when it was ready */
  async start(client: ControlClient): Promise<readonly ShardReady[]> {
    const { shards } = this.#options.snapshot;
    this.#clients.set(client.name, client);
    for (let from = 0; from < shards; from++) {
      this.#restarts.push([]);
      this.#mesh.push(Array.from({ length: shards }, () => createBridge(this.#options.mesh)));
    }
    const blocks = Array.from({ length: shards }, () => new WorkerBlock(createWorkerBlock()));
    for (let shard = 0; shard < shards; shard++) {
      this.#workers.push(this.#spawn(shard, 1, blocks[shard] as WorkerBlock, blocks, 0));
    }
    const ready = await Promise.all(this.#workers.map((worker) => this.#whenReady(worker)));
    this.#watch();
    return ready;
  }

  /** Adds a client thread: every worker serves it from now on. */
  async addClient(client: ControlClient): Promise<void> {
    this.#clients.set(client.name, client);
    await Promise.all(
      this.#workers.map((worker) => {
        const bridge = createBridge(this.#options.bridge);
        client.attach(worker.shard, bridge, worker.block.memory);
        return worker.control.remote.attachClient({ client: client.name, bridge, block: client.block });
      }),
    );
  }

  /** Forgets a client thread. */
  async removeClient(name: string): Promise<void> {
    this.#clients.delete(name);
    await Promise.all(this.#workers.map((worker) => worker.control.remote.detachClient(name)));
  }

  /** Counters of every worker, in shard order; undefined for one that does not answer in time. */
  async stats(timeoutMs: number): Promise<(ShardStats | undefined)[]> {
    let timer: Timer | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = this.#options.scheduler.timer(timeoutMs, () => resolve(undefined));
    });
    try {
      return await Promise.all(this.#workers.map((worker) => Promise.race([worker.control.remote.stats().catch(() => undefined), late])));
    } finally {
      timer?.cancel();
    }
  }

  /** Heartbeat word and state of every worker, read from shared memory without a message. */
  heartbeats(): { shard: number; incarnation: number; state: string; activity: "idle" | "js" | "native"; sinceMs: number; parks: number; wakes: number }[] {
    return this.#workers.map(({ shard, incarnation, state, block }) => {
      const beat = block.heartbeat.read();
      const activity = beat.state === HEARTBEAT.JS ? "js" : beat.state === HEARTBEAT.NATIVE ? "native" : "idle";
      return { shard, incarnation, state, activity, sinceMs: beat.sinceMs, ...block.bell.counters() };
    });
  }

  /**
   * Stops the workers: asks first, then terminates those that hang in JavaScript if `force`. A thread inside a native
   * call is never terminated; it is waited for until `timeoutMs`.
   *
   * @throws {ShardloomError} `ERR_TIMEOUT` naming the shards that would not stop.
   */
  async close(options: { timeoutMs: number; force: boolean }): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    this.#monitor?.cancel();
    const open = [...this.#workers, ...this.#quarantined].filter((worker) => worker.state !== "lost");
    for (const worker of this.#workers) if (worker.state !== "lost") worker.control.remote.stop().catch(() => undefined);
    const late = await this.#settle(open, options.timeoutMs);
    const stuck = late.filter((worker) => worker.block.heartbeat.read().state === HEARTBEAT.NATIVE);
    for (const worker of late) if (options.force && !stuck.includes(worker)) worker.running.terminate();
    const remaining = options.force ? stuck : late;
    if (options.force) await this.#settle(late.filter((worker) => !stuck.includes(worker)), options.timeoutMs);
    for (const worker of open) worker.control.end(new ShardloomError("ERR_CLOSED", "Cannot call worker as the cluster is closed"));
    if (remaining.length > 0) {
      this.#closing = false;
      const shards = remaining.map((worker) => worker.shard);
      throw new ShardloomError("ERR_TIMEOUT", `Cannot close cluster as shards ${shards.join(", ")} did not stop within ${options.timeoutMs} ms`, {
        details: { shards, native: stuck.map((worker) => worker.shard) },
      });
    }
    await this.#host.close();
  }

  #spawn(shard: number, incarnation: number, block: WorkerBlock, blocks: readonly WorkerBlock[], delayMs: number): Worker {
    const options = this.#options;
    const channel = new MessageChannel();
    const clients = [...this.#clients.values()].map((client) => {
      const bridge = createBridge(options.bridge);
      client.attach(shard, bridge, block.memory);
      return { client: client.name, bridge, block: client.block };
    });
    const peers = blocks.flatMap((peer, index) => (index === shard ? [] : [this.#peerTask(shard, index, peer)]));
    const task: ShardTask = {
      shard,
      incarnation,
      snapshot: options.snapshot,
      memory: options.memory,
      kernels: options.kernels,
      block: block.memory,
      clients,
      peers,
      control: channel.port2,
      actorUrls: options.actorUrls,
      recover: options.recover(shard),
    };
    const pause = delayMs === 0 ? undefined : new Promise<void>((resolve) => options.scheduler.timer(delayMs, resolve));
    const running = this.#host.run(task, [channel.port2], pause);
    const control = connectControl<ShardControl>(channel.port1, () => block.bell.ring());
    const worker: Worker = {
      shard,
      incarnation,
      block,
      control,
      running,
      ready: control.remote.ready(),
      state: "starting",
      beats: 0,
      quietChecks: 0,
    };
    worker.ready.catch(() => undefined);
    running.done.then(
      (ending) => this.#ended(worker, ending),
      (reason: unknown) => this.#lost(worker, describeDeath(shard, reason)),
    );
    return worker;
  }

  #peerTask(shard: number, peer: number, block: WorkerBlock): ShardTask["peers"][number] {
    return {
      shard: peer,
      incarnation: this.#workers[peer]?.incarnation ?? 1,
      inbound: (this.#mesh[peer] as SharedArrayBuffer[])[shard] as SharedArrayBuffer,
      outbound: (this.#mesh[shard] as SharedArrayBuffer[])[peer] as SharedArrayBuffer,
      block: block.memory,
    };
  }

  async #whenReady(worker: Worker): Promise<ShardReady> {
    const { scheduler, startTimeoutMs } = this.#options;
    let timer: Timer | undefined;
    const expired = new Promise<never>((_, reject) => {
      timer = scheduler.timer(startTimeoutMs, () =>
        reject(new ShardloomError("ERR_TIMEOUT", `Cannot start shard ${worker.shard} within ${startTimeoutMs} ms`, { details: { shard: worker.shard } })),
      );
    });
    try {
      const ready = await Promise.race([worker.ready, expired]);
      if (worker.state === "starting") worker.state = "up";
      return ready;
    } finally {
      timer?.cancel();
    }
  }

  #ended(worker: Worker, ending: unknown): void {
    this.#quarantined.delete(worker);
    if (this.#closing || ending === "retired") {
      worker.state = "stopped";
      worker.control.end(new ShardloomError("ERR_CLOSED", `Cannot call the worker of shard ${worker.shard} as it has stopped`));
      return;
    }
    this.#lost(worker, describeDeath(worker.shard, new Error(`it left its loop: ${String(ending)}`)));
  }

  #lost(worker: Worker, error: ShardloomError): void {
    this.#quarantined.delete(worker);
    if (worker.state === "lost" || worker.state === "stopped") return;
    const replaced = worker.state === "quarantined";
    worker.state = "lost";
    worker.control.end(error);
    if (replaced || this.#closing || this.#workers[worker.shard] !== worker) return;
    this.#replace(worker, error);
  }

  /**
   * Fails what the worker held and brings its shard back on a new one: at once the first time, after growing pauses when it
   * keeps dying. Requests that follow wait in the new worker's rings until it serves or their deadline passes.
   */
  #replace(worker: Worker, error: ShardloomError): void {
    const { clock } = this.#options;
    const { shard, incarnation } = worker;
    const lostAtMs = clock.nowMs();
    for (const client of this.#clients.values()) client.lose(shard, error);
    this.emit("worker-lost", { shard, incarnation, error });
    const recent = (this.#restarts[shard] as number[]).filter((at) => lostAtMs - at < RESTART_WINDOW_MS);
    recent.push(lostAtMs);
    this.#restarts[shard] = recent;
    if (recent.length > RESTART_LIMIT) {
      this.emit("worker-down", { shard, error });
      return;
    }
    const delayMs = recent.length === 1 ? 0 : Math.min(RESTART_BACKOFF_MS << (recent.length - 2), RESTART_BACKOFF_LIMIT_MS);
    this.#respawn(shard, incarnation + 1, lostAtMs, delayMs);
  }

  #respawn(shard: number, incarnation: number, lostAtMs: number, delayMs: number): void {
    const block = new WorkerBlock(createWorkerBlock());
    for (let peer = 0; peer < this.#workers.length; peer++) {
      (this.#mesh[shard] as SharedArrayBuffer[])[peer] = createBridge(this.#options.mesh);
      (this.#mesh[peer] as SharedArrayBuffer[])[shard] = createBridge(this.#options.mesh);
    }
    const blocks = this.#workers.map((worker, index) => (index === shard ? block : worker.block));
    const worker = this.#spawn(shard, incarnation, block, blocks, delayMs);
    this.#workers[shard] = worker;
    for (const peer of this.#workers) {
      if (peer === worker || (peer.state !== "up" && peer.state !== "starting")) continue;
      // A peer that dies meanwhile learns of this worker when its own replacement starts.
      peer.control.remote.attachPeer({ ...this.#peerTask(peer.shard, shard, block), incarnation }).catch(() => undefined);
    }
    this.#whenReady(worker).then(
      (ready) => this.emit("worker-restarted", { shard, incarnation, ready, recoveryMs: this.#options.clock.nowMs() - lostAtMs }),
      (error: unknown) => {
        if (worker.state === "lost" || this.#closing) return;
        worker.running.terminate();
        this.#lost(worker, ShardloomError.from(error, "ERR_WORKER_LOST"));
      },
    );
  }

  #watch(): void {
    this.#monitor = this.#options.scheduler.timer(this.#checkMs, () => {
      for (const worker of this.#workers) this.#check(worker);
      if (!this.#closing) this.#watch();
    });
    this.#monitor.unref();
  }

  /** One look at one worker. Quiet checks are counted, not timed, so that a control plane that was itself asleep accuses nobody. */
  #check(worker: Worker): void {
    const beat = worker.block.heartbeat.read();
    // A starting worker has no beat until it runs its loop, and may serve, and hang, before its "ready" has arrived.
    if (worker.state !== "up" && (worker.state !== "starting" || beat.beats === 0)) return;
    if (beat.beats !== worker.beats) {
      worker.beats = beat.beats;
      worker.quietChecks = 0;
      return;
    }
    worker.quietChecks++;
    worker.block.bell.ring();
    const quietMs = worker.quietChecks * this.#checkMs;
    if (beat.state === HEARTBEAT.NATIVE) {
      if (quietMs >= this.#options.maxNativeMs) this.#quarantine(worker, quietMs);
    } else if (quietMs >= this.#options.maxHandlerMs) {
      this.#terminate(worker, quietMs);
    }
  }

  #terminate(worker: Worker, quietMs: number): void {
    const { shard, incarnation } = worker;
    worker.running.terminate();
    this.#lost(
      worker,
      new ShardloomError("ERR_HANDLER_HUNG", `Cannot finish request as a handler held shard ${shard} for more than ${this.#options.maxHandlerMs} ms`, {
        details: { shard, incarnation, quietMs, maxHandlerMs: this.#options.maxHandlerMs },
      }),
    );
  }

  #quarantine(worker: Worker, quietMs: number): void {
    const { shard, incarnation } = worker;
    worker.state = "quarantined";
    this.#quarantined.add(worker);
    worker.block.retire();
    const error = new ShardloomError(
      "ERR_NATIVE_QUARANTINED",
      `Cannot finish request as a native call held shard ${shard} for more than ${this.#options.maxNativeMs} ms`,
      { details: { shard, incarnation, quietMs, maxNativeMs: this.#options.maxNativeMs } },
    );
    this.#replace(worker, error);
  }

  /** Waits for workers to end. @returns those that did not in time */
  async #settle(workers: readonly Worker[], timeoutMs: number): Promise<Worker[]> {
    const open = new Set(workers);
    const all = Promise.all(
      workers.map((worker) =>
        worker.running.done.then(
          () => open.delete(worker),
          () => open.delete(worker),
        ),
      ),
    );
    let timer: Timer | undefined;
    const expired = new Promise<void>((resolve) => {
      timer = this.#options.scheduler.timer(timeoutMs, resolve);
    });
    await Promise.race([all, expired]);
    timer?.cancel();
    return [...open];
  }
}
