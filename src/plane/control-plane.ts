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
import { createBridge } from "../../native-bridge/bridge.ts";
import { HEARTBEAT } from "../../native-bridge/heartbeat.ts";
import { ShardloomError } from "../errors.ts";
import { type Timer, withinMs } from "../runtime/scheduler.ts";
import type { ShardProbe } from "../topology/failure-detector.ts";
import { encodeError } from "../wire/error-codec.ts";
import type { ControlConnection } from "./control-rpc.ts";
import {
  attachToNobody,
  type ControlClient,
  type ControlPlaneEvents,
  type ControlPlaneOptions,
} from "./control-types.ts";
import { Mesh } from "./mesh.ts";
import type { NodeLinks } from "./node-links.ts";
import { Pauses } from "./pauses.ts";
import type { WorkerHost } from "./platform.ts";
import { type PeeredWorker, RemotePeers } from "./remote-peers.ts";
import { RestartBudget } from "./restart-budget.ts";
import type { ShardControl, ShardReady, ShardStats, ShardTask } from "./shard-task.ts";
import { type StopOptions, stopWorkers } from "./stop-workers.ts";
import { createWorkerBlock, WorkerBlock } from "./worker-block.ts";
import { describeDeath, hasLeft, hasStopped, notStarted, unlessLost } from "./worker-death.ts";
import { lookIntervalMs, type Verdict, verdictError, WorkerMonitor } from "./worker-monitor.ts";
import { heartbeatOf, isComing, peered, probeOf, type Worker, type WorkerHeartbeat } from "./worker-view.ts";

/** Owns the workers of one node. */
export class ControlPlane extends EventEmitter<ControlPlaneEvents> {
  readonly #options: ControlPlaneOptions;
  readonly #host: WorkerHost;
  /** The present worker of each shard, in their order. */
  readonly #workers: Map<number, Worker> = new Map();
  readonly #quarantined: Set<Worker> = new Set();
  readonly #clients: Map<string, ControlClient> = new Map();
  readonly #mesh: Mesh;
  readonly #budgets: Map<number, RestartBudget>;
  readonly #remote: RemotePeers | undefined;
  readonly #pauses: Pauses;
  /** Shards that were given up, or have left, and why. */
  readonly #down: Map<number, ShardloomError> = new Map();
  #watcher: Timer | undefined;
  /** Set by the first close and never reset: nothing is replaced any more. */
  #ending = false;
  #closing = false;

  constructor(options: ControlPlaneOptions) {
    super();
    this.#options = options;
    this.#budgets = new Map(options.shards.map((shard) => [shard, new RestartBudget()]));
    this.#pauses = new Pauses(options.platform.runtime.scheduler);
    this.#mesh = new Mesh(options.shards, options.mesh);
    this.#host = options.platform.createWorkerHost({
      workers: options.shards.length,
      workerNice: options.workerNice,
      ...(options.maxHeapMb === undefined ? {} : { maxHeapMb: options.maxHeapMb }),
    });
    if (options.links !== undefined) this.#remote = this.#connect(options.links);
  }

  /** Starts every worker. @returns what each told when it was ready */
  async start(client: ControlClient): Promise<readonly ShardReady[]> {
    const { shards, firstIncarnation } = this.#options;
    for (const each of [client, ...(this.#remote?.nodes ?? [])]) this.#register(each);
    const blocks = new Map(shards.map((shard) => [shard, new WorkerBlock(createWorkerBlock())]));
    for (const [shard, block] of blocks)
      this.#workers.set(shard, this.#spawn(shard, firstIncarnation, block, blocks, 0));
    const ready = await Promise.all(this.#all.map((worker) => this.#whenReady(worker, 0)));
    this.#watch();
    return ready;
  }

  /** Adds a client thread: every worker serves it from now on. */
  async addClient(client: ControlClient): Promise<void> {
    this.#register(client);
    for (const [shard, error] of this.#down)
      if (!this.#workers.has(shard)) attachToNobody(client, shard, error, this.#options);
    await Promise.all(this.#all.map((worker) => this.#bridge(client, worker)));
  }

  #register(client: ControlClient): void {
    this.#clients.set(client.name, client);
    this.#remote?.attach(client);
    client.watch((shard) => {
      const worker = this.#workers.get(shard);
      if (this.#ending || this.#clients.get(client.name) !== client) return;
      if (worker === undefined) this.#remote?.attachTo(client, shard);
      else void this.#bridge(client, worker).catch((error: unknown) => client.lose(shard, ShardloomError.from(error)));
    });
  }

  /** Gives a client thread a bridge to a worker, instead of the one that it had. */
  async #bridge(client: ControlClient, worker: Worker): Promise<void> {
    const { shard, block, incarnation, control } = worker;
    const bridge = createBridge(this.#remote?.bridgeFor(client) ?? this.#options.bridge);
    client.attach(shard, bridge, block.memory, incarnation);
    const down = this.#down.get(shard);
    const task = { client: client.name, bridge, block: client.block };
    if (down !== undefined) client.lose(shard, down);
    else await control.remote.attachClient(task).catch(unlessLost(worker));
  }

  /** Forgets a client thread. */
  async removeClient(name: string): Promise<void> {
    this.#clients.delete(name);
    this.#remote?.detach(name);
    await this.#forget(name);
  }

  /** The topology has another map: every worker looks at it. */
  mapChanged(): void {
    for (const { control } of this.#all) control.remote.mapChanged().catch(() => undefined); // a later one reads it when it starts
  }

  /** Whoever joined barriers of this node's shards from threads whose names begin so is lost. */
  loseOrigins(prefixes: readonly string[]): void {
    for (const { control } of this.#all) control.remote.loseOrigins(prefixes).catch(() => undefined); // a worker that is lost has no members
  }

  async #forget(thread: string): Promise<void> {
    await Promise.all(this.#all.map((worker) => worker.control.remote.detachClient(thread).catch(unlessLost(worker))));
  }

  #connect(links: NodeLinks): RemotePeers {
    const { bridge, mesh } = this.#options;
    links.onThreadGone((_, thread) => void this.#forget(thread).catch(() => undefined)); // nobody waits for it: only rings of a thread that is gone stay
    const workers = (): PeeredWorker[] => this.#all.filter(isComing).map(peered);
    return new RemotePeers({ links, bridge, mesh }, { clients: () => this.#clients.values(), workers });
  }

  get #all(): Worker[] {
    return [...this.#workers.values()];
  }

  /** Counters of every worker, in the order of {@link heartbeats}; undefined for one that does not answer in time. */
  async stats(timeoutMs: number): Promise<(ShardStats | undefined)[]> {
    const { scheduler } = this.#options.platform.runtime;
    const answers = this.ask((worker) => worker.stats().catch(() => undefined));
    return Promise.all(answers.map((answer) => withinMs(scheduler, timeoutMs, answer)));
  }

  /** Calls a method of every worker, in the order of their shards. */
  ask<T>(call: (worker: ControlConnection<ShardControl>["remote"], shard: number) => Promise<T>): Promise<T>[] {
    return this.#all.map(({ control, shard }) => call(control.remote, shard));
  }

  /** What every worker does, read from shared memory without a message. */
  heartbeats(): WorkerHeartbeat[] {
    return this.#all.map(heartbeatOf);
  }

  /** The shared words of a shard's present worker, for failure detectors. */
  probe(shard: number): ShardProbe {
    return probeOf(this.#workers.get(shard));
  }

  /** Ends a shard's worker in order, and nobody replaces it. @throws {ShardloomError} `ERR_TIMEOUT`: then it is replaced when it stops. */
  async end(shard: number, options: StopOptions): Promise<void> {
    const worker = this.#workers.get(shard);
    if (worker === undefined) return;
    this.#workers.delete(shard);
    this.#quarantined.add(worker); // watched, and closed, like those that were replaced
    try {
      await stopWorkers([worker], this.#options.platform.runtime.scheduler, options);
    } catch (error) {
      if (this.#quarantined.delete(worker)) this.#workers.set(shard, worker);
      throw error;
    }
    this.#without(shard, hasLeft(shard));
  }

  /**
   * Stops the workers: asks first, then terminates those that hang in JavaScript if `force`. A thread inside a native
   * call is never terminated; it is waited for until `timeoutMs`.
   *
   * @throws {ShardloomError} `ERR_TIMEOUT` naming the shards that would not stop.
   */
  async close(options: StopOptions): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    this.#ending = true;
    this.#watcher?.cancel();
    this.#pauses.giveUp();
    const open = [...this.#all, ...this.#quarantined].filter((worker) => worker.state !== "lost");
    try {
      await stopWorkers(open, this.#options.platform.runtime.scheduler, options);
    } catch (error) {
      this.#closing = false;
      throw error;
    }
    await this.#host.close();
  }

  #spawn(
    shard: number,
    incarnation: number,
    block: WorkerBlock,
    blocks: ReadonlyMap<number, WorkerBlock>,
    delayMs: number,
  ): Worker {
    const options = this.#options;
    const channel = options.platform.createControlChannel();
    const clients = [...this.#clients.values()].map((client) => {
      const bridge = createBridge(this.#remote?.bridgeFor(client) ?? options.bridge);
      client.attach(shard, bridge, block.memory, incarnation);
      return { client: client.name, bridge, block: client.block };
    });
    const peers = [...blocks].flatMap(([peer, other]) => (peer === shard ? [] : [this.#peerTask(shard, peer, other)]));
    const task: ShardTask = {
      shard,
      incarnation,
      topology: options.topology,
      replicas: options.replicas,
      memory: options.memory,
      kernels: options.kernels,
      block: block.memory,
      clients,
      peers: [...peers, ...(this.#remote?.tasks(shard, block.memory) ?? [])],
      control: channel.port,
      actorUrls: options.actorUrls,
      defaults: options.defaults,
      spinLimitUs: options.spinLimitUs,
      ...(options.storage === undefined ? {} : { storage: options.storage() }),
      ...(incarnation === options.firstIncarnation ? {} : { recover: options.recover(shard) }),
    };
    const pause = delayMs === 0 ? undefined : this.#pauses.wait(delayMs);
    const running = this.#host.run(task, [channel.port], pause);
    const control = channel.connect<ShardControl>(() => block.bell.ring());
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
      incarnation: this.#workers.get(peer)?.incarnation ?? this.#options.firstIncarnation,
      inbound: this.#mesh.bridge(peer, shard),
      outbound: this.#mesh.bridge(shard, peer),
      block: block.memory,
    };
  }

  /** @param delayMs Pause before the worker starts; it does not count against `startTimeoutMs`. */
  async #whenReady(worker: Worker, delayMs: number): Promise<ShardReady> {
    const { platform, startTimeoutMs } = this.#options;
    const ready = await withinMs(platform.runtime.scheduler, startTimeoutMs + delayMs, worker.ready);
    if (ready === undefined) throw notStarted(worker.shard, startTimeoutMs);
    if (worker.state === "starting") worker.state = "up";
    this.emit("worker-ready", { shard: worker.shard, incarnation: worker.incarnation });
    return ready;
  }

  #ended(worker: Worker, ending: unknown): void {
    this.#quarantined.delete(worker);
    if (this.#ending || ending === "retired") {
      worker.state = "stopped";
      worker.control.end(hasStopped(worker.shard));
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
    if (replaced || this.#ending || this.#workers.get(worker.shard) !== worker) return;
    this.#replace(worker, error);
  }

  /**
   * Fails what the worker held and brings its shard back on a new one: at once the first time, after growing pauses when it
   * keeps dying. Requests that follow wait in the new worker's rings until it serves or their deadline passes.
   */
  #replace(worker: Worker, error: ShardloomError): void {
    const { clock } = this.#options.platform.runtime;
    const { shard, incarnation } = worker;
    const lostAtMs = clock.nowMs();
    for (const client of this.#clients.values()) client.lose(shard, error);
    this.#tell("worker-lost", { shard, incarnation, error });
    const delayMs = (this.#budgets.get(shard) as RestartBudget).lost(lostAtMs, error);
    if (delayMs === undefined) this.#giveUp(shard, error);
    else this.#respawn(shard, incarnation + 1, lostAtMs, delayMs);
  }

  #giveUp(shard: number, error: ShardloomError): void {
    this.#without(shard, error);
    this.#tell("worker-down", { shard, error });
  }

  /** The shard stays without a worker: clients and peers fail what they have for it. */
  #without(shard: number, error: ShardloomError): void {
    this.#down.set(shard, error);
    for (const [, client] of this.#clients) client.lose(shard, error);
    for (const peer of this.#all) {
      // A peer that has died itself has nothing open.
      if (peer.shard !== shard && peer.state === "up")
        peer.control.remote.losePeer(shard, encodeError(error)).catch(() => undefined);
    }
  }

  /** Emits once this stack has unwound: no listener that throws, or closes the cluster, disturbs supervision. */
  #tell<K extends keyof ControlPlaneEvents>(event: K, ...payload: ControlPlaneEvents[K]): void {
    this.#options.platform.runtime.scheduler.defer(() => (this as EventEmitter).emit(event, ...payload));
  }

  #respawn(shard: number, incarnation: number, lostAtMs: number, delayMs: number): void {
    const block = new WorkerBlock(createWorkerBlock());
    this.#mesh.renew(shard);
    const blocks = new Map(this.#all.map((worker) => [worker.shard, worker.shard === shard ? block : worker.block]));
    const worker = this.#spawn(shard, incarnation, block, blocks, delayMs);
    this.#workers.set(shard, worker);
    this.#tell("worker-starting", { shard, incarnation });
    for (const peer of this.#all) {
      if (peer === worker || !isComing(peer)) continue;
      // A peer that dies meanwhile learns of this worker when its own replacement starts.
      peer.control.remote
        .attachPeer({ ...this.#peerTask(peer.shard, shard, block), incarnation })
        .catch(() => undefined);
    }
    this.#whenReady(worker, delayMs).then(
      (ready) => {
        (this.#budgets.get(shard) as RestartBudget).started();
        if (!this.#ending)
          this.#tell("worker-restarted", {
            shard,
            incarnation,
            ready,
            recoveryMs: this.#options.platform.runtime.clock.nowMs() - lostAtMs,
          });
      },
      (error: unknown) => {
        if (worker.state !== "lost" && !this.#ending)
          this.#remove(worker, "hung", ShardloomError.from(error, "ERR_WORKER_LOST"));
      },
    );
  }

  #watch(): void {
    this.#watcher = this.#options.platform.runtime.scheduler.timer(lookIntervalMs(this.#options), () => {
      if (this.#ending) return;
      this.#watch();
      for (const worker of [...this.#all, ...this.#quarantined]) this.#check(worker);
    });
    this.#watcher.unref();
  }

  #check(worker: Worker): void {
    const { state, monitor, shard, incarnation } = worker;
    // A starting worker may serve, and hang, before its "ready" has arrived.
    if (state !== "up" && state !== "quarantined" && !(state === "starting" && monitor.running)) return;
    const verdict = monitor.look();
    if (verdict === "fine") return;
    const error = verdictError(verdict, { shard, incarnation, quietMs: monitor.quietMs }, this.#options);
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
    if (worker.state === "quarantined" || this.#workers.get(worker.shard) !== worker) return;
    worker.state = "quarantined";
    this.#quarantined.add(worker);
    this.#replace(worker, error);
  }
}
