/**
 * Composes one data-plane worker: engines, user actors, shard, duty loop, control methods.
 *
 * Invariant: the task ends only in an orderly way ("stopped" or "retired") or with its thread; a worker that cannot
 * start tells why through `ready()` and waits to be stopped, so that no reason is lost.
 */
import { Arena } from "../native-bridge/arena.ts";
import { BridgeClient, BridgeServer } from "../native-bridge/bridge.ts";
import { Doorbell } from "../native-bridge/doorbell.ts";
import { HEARTBEAT } from "../native-bridge/heartbeat.ts";
import { AdaptiveSpin } from "../native-bridge/idle-strategy.ts";
import { Kernels } from "../native-bridge/kernels.ts";
import { RegionTable } from "../native-bridge/region-table.ts";
import { type ActorSystem, createActorSystem } from "../src/actor/actor-system.ts";
import type { AnyActorDefinition } from "../src/actor/define-actor.ts";
import { ShardloomError } from "../src/errors.ts";
import { serveControl } from "../src/plane/control-rpc.ts";
import { DataPlane } from "../src/plane/data-plane.ts";
import type { ClientTask, PeerTask, ShardControl, ShardReady, ShardStats, ShardTask } from "../src/plane/shard-task.ts";
import { WorkerBlock } from "../src/plane/worker-block.ts";
import { Requester } from "../src/routing/requester.ts";
import { systemClock } from "../src/runtime/clock.ts";
import { systemRandom } from "../src/runtime/random.ts";
import { nextTurn, systemScheduler } from "../src/runtime/scheduler.ts";
import { ReplicaTable } from "../src/topology/replica-table.ts";
import { SharedTopology, type TopologySource } from "../src/topology/topology-source.ts";
import { decodeErrorAt } from "../src/wire/error-codec.ts";
import { createValueCodec } from "../src/wire/value-codec.ts";
import { ActorRouter } from "./actor-router.ts";
import { type BarrierEngine, createBarrierEngine } from "./barrier/barrier-engine.ts";
import { BarrierCatalog } from "./barrier/client-barrier.ts";
import { Coordinator } from "./coordinator.ts";
import type { Engine, EngineContext } from "./engine.ts";
import { loadActors, tableOf } from "./load-actors.ts";
import { Copies } from "./replication/copies.ts";
import { Primary } from "./replication/primary.ts";
import { VshardGate } from "./replication/vshard-gate.ts";
import { Shard } from "./shard.ts";
import { createShardEngines, type ShardEngines } from "./shard-engines.ts";

/** Event-loop resources that a parked worker always holds; anything else is open asynchronous work. */
const STANDING_RESOURCES: ReadonlySet<string> = new Set(["MessagePort", "CloseReq", "TTYWrap", "PipeWrap", "Worker"]);

/** What only the thread's entry point can know. */
export interface WorkerEnvironment {
  /** Names of what the event loop holds open, as `process.getActiveResourcesInfo` gives them. */
  readonly activeResources: () => readonly string[];
  readonly heapUsedBytes: () => number;
  /** Ends this thread at once, with whatever timers user code has left on it. */
  readonly exitThread: () => never;
}

/** Runs a worker until it is stopped or retired. */
export async function hostShard(task: ShardTask, environment: WorkerEnvironment): Promise<string> {
  const host = new ShardHost(task, environment);
  serveControl(task.control, host.api);
  const ending = await host.run();
  task.control.close();
  if (ending === "retired") environment.exitThread();
  return ending;
}

class ShardHost {
  readonly api: ShardControl;
  readonly #task: ShardTask;
  readonly #environment: WorkerEnvironment;
  readonly #block: WorkerBlock;
  readonly #topology: TopologySource;
  readonly #requesters: Map<number, Requester> = new Map();
  readonly #barriers: BarrierEngine = createBarrierEngine({
    clock: systemClock,
    scheduler: systemScheduler,
    randomU32: () => systemRandom.u32(),
  });
  readonly #ready: Promise<ShardReady>;
  #plane: DataPlane | undefined;
  #shard: Shard | undefined;
  #actors: ActorSystem | undefined;
  #primary: Primary | undefined;
  /** Links that were asked for before there was a loop to add them to. */
  readonly #early: (() => void)[] = [];
  readonly #peerIncarnations: Map<number, number> = new Map();
  #nativeDepth = 0;
  #refused: (() => void) | undefined;
  readonly #stopped: Promise<void> = new Promise((resolve) => {
    this.#refused = resolve;
  });
  #becomeReady!: (ready: ShardReady) => void;
  #refuse!: (error: unknown) => void;

  constructor(task: ShardTask, environment: WorkerEnvironment) {
    this.#task = task;
    this.#environment = environment;
    this.#block = new WorkerBlock(task.block);
    this.#topology = new SharedTopology(task.topology);
    this.#ready = new Promise((resolve, reject) => {
      this.#becomeReady = resolve;
      this.#refuse = reject;
    });
    this.#ready.catch(() => undefined); // told through ready(), whenever the control plane asks
    this.api = {
      ready: () => this.#ready,
      attachPeer: (peer) => this.#whenComposed(() => this.#attachPeer(peer)),
      losePeer: (shard, error) => this.#losePeer(shard, decodeErrorAt(error, 0, error.length)),
      attachClient: (client) => this.#whenComposed(() => this.#attachClient(client)),
      detachClient: (client) => this.#whenComposed(() => this.#detachClient(client)),
      stats: () => this.#stats(),
      quiesce: (timeoutMs) => this.#quiesce(timeoutMs),
      stop: () => {
        this.#refused?.();
        this.#whenComposed(() => this.#plane?.stop());
      },
    };
  }

  async run(): Promise<string> {
    let engines: ShardEngines | undefined;
    let kernels: Kernels | undefined;
    try {
      const definitions = await loadActors(this.#task.actorUrls);
      const arena = new Arena(this.#task.memory);
      kernels = new Kernels(this.#task.kernels, arena, undefined, this.#task.shard);
      const recover = this.#task.incarnation === 1 ? undefined : this.#task.recover;
      engines = await createShardEngines(this.#engineContext(arena, kernels), recover);
      this.#compose(definitions, engines);
      this.#becomeReady({ actors: tableOf(definitions), recovered: engines.recovered });
    } catch (error) {
      this.#refuse(error);
      await this.#stopped;
      return "stopped";
    }
    await nextTurn(systemScheduler); // "ready" goes out before the first request can hold the thread
    const ending = await (this.#plane as DataPlane).run();
    // A retired worker's shared memory belongs to its successor: it leaves everything as it is.
    if (ending === "retired") return ending;
    this.#primary?.close();
    this.#barriers.close();
    engines.close();
    kernels.close();
    return ending;
  }

  #whenComposed(act: () => void): void {
    if (this.#plane === undefined) this.#early.push(act);
    else act();
  }

  /** Ends the actors while the loop still carries their messages. A worker that is only starting has none. */
  async #quiesce(timeoutMs: number): Promise<void> {
    this.#barriers.close(); // who waits for others that end too would wait for nobody
    this.#whenComposed(() => this.#plane?.quiesce());
    await this.#actors?.close({ timeoutMs });
  }

  #engineContext(arena: Arena, kernels: Kernels): EngineContext {
    const { shard } = this.#task;
    const nowMs = (): number => systemClock.nowMs();
    return {
      workerIndex: shard,
      arena,
      regions: new RegionTable(arena, shard, () => systemRandom.u32(), nowMs),
      kernels,
      nowMs,
      randomU32: () => systemRandom.u32(),
      native: (call) => this.#native(call),
    };
  }

  /** Marks a native call on the heartbeat, so that it is not taken for a hung thread. Calls may nest. */
  #native<T>(call: () => T): T {
    const { heartbeat } = this.#block;
    if (this.#nativeDepth++ === 0) heartbeat.enter(HEARTBEAT.NATIVE, systemClock.nowMs());
    try {
      return call();
    } finally {
      if (--this.#nativeDepth === 0) heartbeat.enter(HEARTBEAT.JS, systemClock.nowMs());
      this.#assertServing();
    }
  }

  /** After a native call: a quarantined worker's shard belongs to another thread by now. */
  #assertServing(): void {
    if (!this.#block.retired) return;
    throw new ShardloomError(
      "ERR_NATIVE_QUARANTINED",
      `Cannot go on as shard ${this.#task.shard} has been given to another worker`,
    );
  }

  #compose(definitions: readonly AnyActorDefinition[], engines: ShardEngines): void {
    const { shard, incarnation } = this.#task;
    const topology = this.#topology;
    const codec = createValueCodec();
    const table = tableOf(definitions);
    const coordinator = new Coordinator({
      clock: systemClock,
      scheduler: systemScheduler,
      topology,
      defaults: this.#task.defaults,
      random: systemRandom,
      localShard: shard,
      lag: new ReplicaTable(this.#task.replicas, topology, () => systemClock.nowMs()),
      requester: (target) => this.#requesters.get(target) as Requester,
    });
    const router = new ActorRouter({
      coordinator,
      codec,
      table,
      local: () => ({ shard, system: this.#actors as ActorSystem, scheduler: systemScheduler }),
    });
    const actors = createActorSystem({
      definitions,
      clock: systemClock,
      scheduler: systemScheduler,
      random: systemRandom,
      send: router,
      codec,
      native: (call) => this.#native(call),
      barrier: new BarrierCatalog({
        clock: systemClock,
        scheduler: systemScheduler,
        coordinator,
        origin: `shard:${shard}#${incarnation}`,
        waitTimeoutMs: this.#task.defaults.requestTimeoutMs,
        local: { shard, host: this.#barriers.host },
      }).open,
      onTurn: () => this.#block.advance(),
    });
    this.#actors = actors;
    const { gate, copies, primary } = this.#replication(engines.all);
    this.#primary = primary;
    this.#shard = new Shard({
      shard,
      incarnation,
      topology,
      clock: systemClock,
      codec,
      gate,
      writes: primary,
      engines: [...engines.all, copies, this.#barriers],
      actors,
      actorTable: table,
      onDirty: () => this.#plane?.dirty(),
    });
    const dispatcher = this.#shard;
    this.#plane = new DataPlane({
      clock: systemClock,
      scheduler: systemScheduler,
      block: this.#block,
      spin: new AdaptiveSpin({ nowUs: () => systemClock.nowUs(), maxSpinUs: this.#task.spinLimitUs }),
      onRequest: (server, type, offset, length, slot, sequence) => {
        if (!this.#block.retired) dispatcher.onRequest(server, type, offset, length, slot, sequence);
      },
      pendingAsync: () => actors.pendingAsync(),
      openResources: () => this.#environment.activeResources().some((name) => !STANDING_RESOURCES.has(name)),
      sweep: (nowMs) => {
        actors.sweep(nowMs);
      },
      background: (budgetMs) => engines.background(budgetMs),
    });
    for (const client of this.#task.clients) this.#attachClient(client);
    for (const peer of this.#task.peers) this.#attachPeer(peer);
    for (const act of this.#early.splice(0)) act();
    primary?.start();
  }

  /** Takes part in the replication of the engines whose data has copies. */
  #replication(engines: readonly Engine[]): { gate: VshardGate; copies: Engine; primary: Primary | undefined } {
    const { shard, incarnation, defaults } = this.#task;
    const topology = this.#topology;
    const nowMs = (): number => systemClock.nowMs();
    const table = new ReplicaTable(this.#task.replicas, topology, nowMs);
    const replicated = engines.flatMap((engine) => (engine.replicated === undefined ? [] : [engine.replicated]));
    const options = { shard, topology, table, nowMs, engines: replicated };
    const { handlers } = new Copies(options);
    const primary =
      topology.current().replicationFactor === 1
        ? undefined
        : new Primary({
            ...options,
            incarnation,
            requestTimeoutMs: defaults.requestTimeoutMs,
            clock: systemClock,
            scheduler: systemScheduler,
            requester: (peer) => this.#requesters.get(peer),
          });
    return { gate: new VshardGate(shard, topology, table), copies: { handlers, close: () => undefined }, primary };
  }

  #attachPeer(peer: PeerTask): void {
    // Of two links to one shard the one to its later worker stands, in whatever order they were told.
    if (peer.incarnation < (this.#peerIncarnations.get(peer.shard) ?? 0)) return;
    this.#peerIncarnations.set(peer.shard, peer.incarnation);
    const previous = this.#requesters.get(peer.shard);
    const bell = new Doorbell(peer.block);
    const nowUs = (): number => systemClock.nowUs();
    const requester = new Requester(new BridgeClient(peer.outbound, bell, { nowUs }), {
      clock: systemClock,
      origin: { node: 0, shard: this.#task.shard, incarnation: this.#task.incarnation },
      targetShard: peer.shard,
      topology: this.#topology,
      decodeError: decodeErrorAt,
      onDirty: () => this.#plane?.dirty(),
    });
    this.#requesters.set(peer.shard, requester);
    this.#plane?.attach(`peer:${peer.shard}`, { server: new BridgeServer(peer.inbound, bell, { nowUs }), requester });
    const lost = new ShardloomError(
      "ERR_WORKER_LOST",
      `Cannot finish request as the worker of shard ${peer.shard} was replaced`,
      { details: { shard: peer.shard } },
    );
    previous?.fail(lost);
    if (previous !== undefined) this.#primary?.peerAttached(peer.shard);
    this.#loseMembers(peer.shard, peer.incarnation, lost);
  }

  #losePeer(shard: number, error: ShardloomError): void {
    this.#requesters.get(shard)?.fail(error);
    this.#loseMembers(shard, undefined, error);
  }

  /** Members that joined barriers here from a shard's workers other than the present one, if there is one, are lost. */
  #loseMembers(shard: number, incarnation: number | undefined, error: ShardloomError): void {
    const worker = `shard:${shard}#`;
    const present = `${worker}${incarnation}`;
    this.#barriers.host.loseOrigin((origin) => origin.startsWith(worker) && origin !== present, error);
  }

  #attachClient(client: ClientTask): void {
    const server = new BridgeServer(client.bridge, new Doorbell(client.block), { nowUs: () => systemClock.nowUs() });
    this.#plane?.attach(`client:${client.client}`, { server });
  }

  #detachClient(client: string): void {
    this.#plane?.detach(`client:${client}`);
    const gone = new ShardloomError("ERR_WORKER_LOST", `Cannot wait for members as their thread ${client} has gone`);
    this.#barriers.host.loseOrigin((origin) => origin === `client:${client}`, gone);
  }

  #stats(): ShardStats {
    const counters = this.#shard?.counters;
    return {
      shard: this.#task.shard,
      incarnation: this.#task.incarnation,
      actors: { ...this.#actors?.counters(), active: this.#actors?.activeCount() ?? 0 },
      requests: {
        handled: counters?.handled ?? 0,
        failed: counters?.failed ?? 0,
        expired: counters?.expired ?? 0,
        corrupt: counters?.corrupt ?? 0,
        stale: counters?.stale ?? 0,
      },
      heapUsedBytes: this.#environment.heapUsedBytes(),
    };
  }
}
