/**
 * Lifecycle of the data plane: starts workers, watches their heartbeats, replaces the dead, closes without aborting.
 *
 * Invariant: at any time each shard has exactly one worker that is not retired. A replacement has a block and bridges of its own,
 * and peers and clients learn of them before any request can reach it; requests that the predecessor held fail typed.
 *
 * Busy, hung and dead are told apart by shared words alone (`worker-monitor.ts`): a worker that is *hung* in JavaScript is
 * terminated and replaced; one that is *overdue* in a native call is quarantined: retired and replaced, but never
 * terminated, which could abort the process.
 */
import { EventEmitter } from "node:events";
import { MessageChannel } from "node:worker_threads";
import { createBridge } from "../../native-bridge/bridge.ts";
import { HEARTBEAT } from "../../native-bridge/heartbeat.ts";
import { ShardloomError } from "../errors.ts";
import { type Timer, withinMs } from "../runtime/scheduler.ts";
import type { ShardProbe } from "../topology/failure-detector.ts";
import { encodeError } from "../wire/error-codec.ts";
import { type ControlConnection, connectControl } from "./control-rpc.ts";
import type { ControlClient, ControlPlaneEvents, ControlPlaneOptions } from "./control-types.ts";
import { Mesh } from "./mesh.ts";
import { Pauses } from "./pauses.ts";
import { RestartBudget } from "./restart-budget.ts";
import type { ShardControl, ShardReady, ShardStats, ShardTask } from "./shard-task.ts";
import { createWorkerBlock, WorkerBlock } from "./worker-block.ts";
import { describeDeath, type RunningWorker, unlessLost, WorkerHost } from "./worker-host.ts";
import { lookIntervalMs, type Verdict, verdictError, WorkerMonitor } from "./worker-monitor.ts";

/** Share of the closing time that handlers get to end by themselves. */
const STOP_SHARE = 0.5;
interface Worker {
  readonly shard: number;
  readonly incarnation: number;
  readonly block: WorkerBlock;
  readonly control: ControlConnection<ShardControl>;
  readonly running: RunningWorker;
  readonly ready: Promise<ShardReady>;
  readonly monitor: WorkerMonitor;
  state: "starting" | "up" | "quarantined" | "lost" | "stopped";
}

/** Owns the workers of one node. */
export class ControlPlane extends EventEmitter<ControlPlaneEvents> {
  readonly #options: ControlPlaneOptions;
  readonly #host: WorkerHost;
  readonly #workers: Worker[] = [];
  readonly #quarantined: Set<Worker> = new Set();
  readonly #clients: Map<string, ControlClient> = new Map();
  readonly #mesh: Mesh;
  readonly #budgets: RestartBudget[];
  readonly #pauses: Pauses;
  /** Shards that were given up, and why. */
  readonly #down: Map<number, ShardloomError> = new Map();
  #watcher: Timer | undefined;
  /** Set by the first close and never reset: nothing is replaced any more. */
  #ending = false;
  #closing = false;

  constructor(options: ControlPlaneOptions) {
    super();
    this.#options = options;
    this.#budgets = Array.from({ length: options.shards }, () => new RestartBudget());
    this.#pauses = new Pauses(options.scheduler);
    this.#mesh = new Mesh(options.shards, options.mesh);
    this.#host = new WorkerHost({
      workerUrl: options.workerUrl,
      workers: options.shards,
      workerNice: options.workerNice,
      ...(options.maxHeapMb === undefined ? {} : { maxHeapMb: options.maxHeapMb }),
    });
  }

  /** Starts every worker. @returns what each told when it was ready */
  async start(client: ControlClient): Promise<readonly ShardReady[]> {
    const { shards } = this.#options;
    this.#clients.set(client.name, client);
    const blocks = Array.from({ length: shards }, () => new WorkerBlock(createWorkerBlock()));
    for (let shard = 0; shard < shards; shard++) {
      this.#workers.push(this.#spawn(shard, 1, blocks[shard] as WorkerBlock, blocks, 0));
    }
    const ready = await Promise.all(this.#workers.map((worker) => this.#whenReady(worker, 0)));
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
        const down = this.#down.get(worker.shard);
        if (down !== undefined) return client.lose(worker.shard, down);
        const attached = worker.control.remote.attachClient({ client: client.name, bridge, block: client.block });
        return attached.catch(unlessLost(worker)); // its successor serves the client
      }),
    );
  }

  /** Forgets a client thread. */
  async removeClient(name: string): Promise<void> {
    this.#clients.delete(name);
    const told = this.#workers.map((worker) => worker.control.remote.detachClient(name).catch(unlessLost(worker)));
    await Promise.all(told);
  }

  /** Counters of every worker, in shard order; undefined for one that does not answer in time. */
  async stats(timeoutMs: number): Promise<(ShardStats | undefined)[]> {
    const answers = this.#workers.map((worker) =>
      withinMs(
        this.#options.scheduler,
        timeoutMs,
        worker.control.remote.stats().catch(() => undefined),
      ),
    );
    return Promise.all(answers);
  }

  /** What every worker does, read from shared memory without a message. */
  heartbeats(): {
    shard: number;
    incarnation: number;
    state: string;
    activity: "idle" | "js" | "native";
    sinceMs: number;
    parks: number;
    wakes: number;
  }[] {
    return this.#workers.map(({ shard, incarnation, state, block }) => {
      const beat = block.heartbeat.read();
      const activity = beat.state === HEARTBEAT.JS ? "js" : beat.state === HEARTBEAT.NATIVE ? "native" : "idle";
      return { shard, incarnation, state, activity, sinceMs: beat.sinceMs, ...block.bell.counters() };
    });
  }

  /** The shared words of a shard's present worker, for failure detectors. */
  probe(shard: number): ShardProbe {
    const { block, state } = this.#workers[shard] as Worker;
    const { state: doing, beats } = block.heartbeat.read();
    const activity = doing === HEARTBEAT.JS ? "js" : doing === HEARTBEAT.NATIVE ? "native" : "idle";
    const { progress } = block;
    return { progress, beats, activity, dead: state === "lost" || doing === HEARTBEAT.DEAD };
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
    this.#ending = true;
    this.#watcher?.cancel();
    this.#pauses.giveUp();
    const open = [...this.#workers, ...this.#quarantined].filter((worker) => worker.state !== "lost");
    await this.#quiesce(open, options.timeoutMs * STOP_SHARE);
    for (const worker of open) worker.control.remote.stop().catch(() => undefined);
    const late = await this.#settle(open, options.timeoutMs);
    const stuck = late.filter((worker) => worker.block.heartbeat.read().state === HEARTBEAT.NATIVE);
    for (const worker of late) if (options.force && !stuck.includes(worker)) worker.running.terminate();
    const remaining = options.force ? stuck : late;
    if (options.force)
      await this.#settle(
        late.filter((worker) => !stuck.includes(worker)),
        options.timeoutMs,
      );
    for (const worker of open)
      worker.control.end(new ShardloomError("ERR_CLOSED", "Cannot call worker as the cluster is closed"));
    if (remaining.length > 0) {
      this.#closing = false;
      const shards = remaining.map((worker) => worker.shard);
      throw new ShardloomError(
        "ERR_TIMEOUT",
        `Cannot close cluster as shards ${shards.join(", ")} did not stop within ${options.timeoutMs} ms`,
        {
          details: { shards, native: stuck.map((worker) => worker.shard) },
        },
      );
    }
    await this.#host.close();
  }

  #spawn(
    shard: number,
    incarnation: number,
    block: WorkerBlock,
    blocks: readonly WorkerBlock[],
    delayMs: number,
  ): Worker {
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
      topology: options.topology,
      replicas: options.replicas,
      memory: options.memory,
      kernels: options.kernels,
      block: block.memory,
      clients,
      peers,
      control: channel.port2,
      actorUrls: options.actorUrls,
      defaults: options.defaults,
      spinLimitUs: options.spinLimitUs,
      recover: options.recover(shard),
    };
    const pause = delayMs === 0 ? undefined : this.#pauses.wait(delayMs);
    const running = this.#host.run(task, [channel.port2], pause);
    const control = connectControl<ShardControl>(channel.port1, () => block.bell.ring());
    const worker: Worker = {
      shard,
      incarnation,
      block,
      control,
      running,
      ready: control.remote.ready(),
      monitor: new WorkerMonitor(block, options),
      state: "starting",
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
      inbound: this.#mesh.bridge(peer, shard),
      outbound: this.#mesh.bridge(shard, peer),
      block: block.memory,
    };
  }

  /** @param delayMs Pause before the worker starts; it does not count against `startTimeoutMs`. */
  async #whenReady(worker: Worker, delayMs: number): Promise<ShardReady> {
    const { scheduler, startTimeoutMs } = this.#options;
    const ready = await withinMs(scheduler, startTimeoutMs + delayMs, worker.ready);
    if (ready === undefined) {
      throw new ShardloomError("ERR_TIMEOUT", `Cannot start shard ${worker.shard} within ${startTimeoutMs} ms`, {
        details: { shard: worker.shard },
      });
    }
    if (worker.state === "starting") worker.state = "up";
    this.emit("worker-ready", { shard: worker.shard, incarnation: worker.incarnation });
    return ready;
  }

  #ended(worker: Worker, ending: unknown): void {
    this.#quarantined.delete(worker);
    if (this.#ending || ending === "retired") {
      worker.state = "stopped";
      worker.control.end(
        new ShardloomError("ERR_CLOSED", `Cannot call the worker of shard ${worker.shard} as it has stopped`),
      );
      return;
    }
    this.#lost(worker, describeDeath(worker.shard, new Error(`it left its loop: ${String(ending)}`)));
  }

  #lost(worker: Worker, error: ShardloomError): void {
    this.#quarantined.delete(worker);
    if (worker.state === "lost" || worker.state === "stopped") return;
    worker.block.retire();
    const replaced = worker.state === "quarantined";
    worker.state = "lost";
    worker.control.end(error);
    if (replaced || this.#ending || this.#workers[worker.shard] !== worker) return;
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
    this.#tell("worker-lost", { shard, incarnation, error });
    const delayMs = (this.#budgets[shard] as RestartBudget).lost(lostAtMs);
    if (delayMs === undefined) this.#giveUp(shard, error);
    else this.#respawn(shard, incarnation + 1, lostAtMs, delayMs);
  }

  /** The shard stays without a worker: peers fail what they have for it. */
  #giveUp(shard: number, error: ShardloomError): void {
    this.#down.set(shard, error);
    for (const peer of this.#workers) {
      // A peer that has died itself has nothing open.
      if (peer.shard !== shard && peer.state === "up")
        peer.control.remote.losePeer(shard, encodeError(error)).catch(() => undefined);
    }
    this.#tell("worker-down", { shard, error });
  }

  /** Emits once this stack has unwound: no listener that throws, or closes the cluster, disturbs supervision. */
  #tell<K extends keyof ControlPlaneEvents>(event: K, ...payload: ControlPlaneEvents[K]): void {
    this.#options.scheduler.defer(() => (this as EventEmitter).emit(event, ...payload));
  }

  #respawn(shard: number, incarnation: number, lostAtMs: number, delayMs: number): void {
    const block = new WorkerBlock(createWorkerBlock());
    this.#mesh.renew(shard);
    const blocks = this.#workers.map((worker, index) => (index === shard ? block : worker.block));
    const worker = this.#spawn(shard, incarnation, block, blocks, delayMs);
    this.#workers[shard] = worker;
    this.#tell("worker-starting", { shard, incarnation });
    for (const peer of this.#workers) {
      if (peer === worker || (peer.state !== "up" && peer.state !== "starting")) continue;
      // A peer that dies meanwhile learns of this worker when its own replacement starts.
      peer.control.remote
        .attachPeer({ ...this.#peerTask(peer.shard, shard, block), incarnation })
        .catch(() => undefined);
    }
    this.#whenReady(worker, delayMs).then(
      (ready) => {
        (this.#budgets[shard] as RestartBudget).started();
        if (!this.#ending)
          this.#tell("worker-restarted", {
            shard,
            incarnation,
            ready,
            recoveryMs: this.#options.clock.nowMs() - lostAtMs,
          });
      },
      (error: unknown) => {
        if (worker.state !== "lost" && !this.#ending)
          this.#remove(worker, "hung", ShardloomError.from(error, "ERR_WORKER_LOST"));
      },
    );
  }

  #watch(): void {
    this.#watcher = this.#options.scheduler.timer(lookIntervalMs(this.#options.maxHandlerMs), () => {
      if (this.#ending) return;
      this.#watch();
      for (const worker of [...this.#workers, ...this.#quarantined]) this.#check(worker);
    });
    this.#watcher.unref();
  }

  #check(worker: Worker): void {
    const { state, monitor, shard } = worker;
    // A starting worker may serve, and hang, before its "ready" has arrived.
    if (state !== "up" && state !== "quarantined" && !(state === "starting" && monitor.running)) return;
    const verdict = monitor.look();
    if (verdict === "fine") return;
    const error = verdictError(
      verdict,
      { shard, incarnation: worker.incarnation, quietMs: monitor.quietMs },
      this.#options,
    );
    this.#remove(worker, verdict, error);
  }

  /** Takes a worker that does not end out of service; its thread is terminated only when that cannot hit a native call. */
  #remove(worker: Worker, verdict: Verdict, error: ShardloomError): void {
    const native = worker.block.heartbeat.read().state === HEARTBEAT.NATIVE;
    worker.block.retire();
    if (verdict === "hung" && !native) {
      worker.running.terminate();
      this.#lost(worker, error);
      return;
    }
    if (worker.state === "quarantined") return;
    worker.state = "quarantined";
    this.#quarantined.add(worker);
    this.#replace(worker, error);
  }

  /** Ends the actors of all workers before any loop ends, so that what they ask of each other settles. */
  async #quiesce(workers: readonly Worker[], timeoutMs: number): Promise<void> {
    const quiet = workers.map((worker) => worker.control.remote.quiesce(timeoutMs).catch(() => undefined));
    await withinMs(this.#options.scheduler, timeoutMs, Promise.all(quiet));
  }

  /** Waits for workers to end. @returns those that did not in time */
  async #settle(workers: readonly Worker[], timeoutMs: number): Promise<Worker[]> {
    const open = new Set(workers);
    const ended = workers.map((worker) => worker.running.done.catch(() => undefined).then(() => open.delete(worker)));
    await withinMs(this.#options.scheduler, timeoutMs, Promise.all(ended));
    return [...open];
  }
}
