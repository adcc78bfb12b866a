/**
 * Composes one data-plane worker: engines, user actors, shard, duty loop, control methods.
 *
 * Invariant: the task ends only in an orderly way ("stopped" or "retired") or with its thread; a worker that cannot
 * start tells why through `ready()` and waits to be stopped, so that no reason is lost.
 */
import { Arena } from "../native-bridge/arena.ts";
import { BridgeClient, BridgeServer } from "../native-bridge/bridge.ts";
import { Doorbell } from "../native-bridge/doorbell.ts";
import { AdaptiveSpin } from "../native-bridge/idle-strategy.ts";
import { Kernels } from "../native-bridge/kernels.ts";
import { RegionTable } from "../native-bridge/region-table.ts";
import { type ActorSystem, createActorSystem } from "../src/actor/actor-system.ts";
import type { AnyActorDefinition } from "../src/actor/define-actor.ts";
import { ShardloomError } from "../src/errors.ts";
import { DataPlane } from "../src/plane/data-plane.ts";
import type { ClientTask, PeerTask, ShardControl, ShardReady, ShardStats, ShardTask } from "../src/plane/shard-task.ts";
import { boardOf, WorkerBlock } from "../src/plane/worker-block.ts";
import { Requester } from "../src/routing/requester.ts";
import type { Runtime } from "../src/runtime/runtime.ts";
import { nextTurn } from "../src/runtime/scheduler.ts";
import { ReplicaTable } from "../src/topology/replica-table.ts";
import { SharedTopology, type TopologySource } from "../src/topology/topology-source.ts";
import { decodeErrorAt } from "../src/wire/error-codec.ts";
import { createValueCodec } from "../src/wire/value-codec.ts";
import { ActorRouter } from "./actor-router.ts";
import { type BarrierEngine, createBarrierEngine } from "./barrier/barrier-engine.ts";
import { BarrierCatalog } from "./barrier/client-barrier.ts";
import { Coordinator } from "./coordinator.ts";
import type { EngineContext } from "./engine.ts";
import { loadActors, loadPrograms, tableOf } from "./load-actors.ts";
import { NativeCalls } from "./native-calls.ts";
import { PeerAsks } from "./peer-asks.ts";
import { Shard } from "./shard.ts";
import { createShardEngines, dropShardMemory, type ShardEngines } from "./shard-engines.ts";
import { ShardReplication } from "./shard-replication.ts";
import { directoryOf } from "./storage/durable-state.ts";
import { Tenure } from "./tenure.ts";
import type { WorkerEnvironment } from "./worker-environment.ts";

/** Event-loop resources that a parked worker always holds; anything else is open asynchronous work. */
const STANDING_RESOURCES: ReadonlySet<string> = new Set(["MessagePort", "CloseReq", "TTYWrap", "PipeWrap", "Worker"]);

/** Runs a worker until it is stopped or retired, or finds a ring damaged, which ends its thread. */
export async function hostShard(task: ShardTask, environment: WorkerEnvironment): Promise<string> {
  const host = new ShardHost(task, environment);
  const endControl = environment.serveControl(task.control, host.api);
  const ending = await host.run();
  endControl();
  if (ending !== "stopped") environment.exitThread();
  return ending;
}

class ShardHost {
  readonly api: ShardControl;
  readonly #task: ShardTask;
  readonly #environment: WorkerEnvironment;
  readonly #runtime: Runtime;
  readonly #block: WorkerBlock;
  readonly #topology: TopologySource;
  readonly #requesters: Map<number, Requester> = new Map();
  readonly #barriers: BarrierEngine;
  readonly #ready: Promise<ShardReady>;
  #plane: DataPlane | undefined;
  #shard: Shard | undefined;
  #actors: ActorSystem | undefined;
  #tenure: Tenure | undefined;
  #replication: ShardReplication | undefined;
  #engines: ShardEngines | undefined;
  /** Links that were asked for before there was a loop to add them to. */
  readonly #early: (() => void)[] = [];
  readonly #peerIncarnations: Map<number, number> = new Map();
  readonly #peers: PeerAsks;
  readonly #native: NativeCalls;
  #refused: (() => void) | undefined;
  readonly #stopped: Promise<void> = new Promise((resolve) => {
    this.#refused = resolve;
  });
  #becomeReady!: (ready: ShardReady) => void;
  #refuse!: (error: unknown) => void;

  constructor(task: ShardTask, environment: WorkerEnvironment) {
    this.#task = task;
    this.#peers = new PeerAsks(task.incarnation);
    this.#environment = environment;
    this.#runtime = environment.runtime;
    const { clock, scheduler, random } = environment.runtime;
    this.#barriers = createBarrierEngine({ clock, scheduler, randomU32: () => random.u32() });
    this.#block = new WorkerBlock(task.block);
    this.#native = new NativeCalls(this.#block, clock, task.shard);
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
      loseOrigins: (prefixes) => this.#loseOrigins(prefixes),
      mapChanged: () => {
        this.#replication?.primary?.mapChanged();
        this.#tenure?.look();
      },
      stats: () => this.#stats(),
      audit: async (vshards) => this.#serving("audit").audit(vshards),
      backup: async (target, progress) => this.#serving("back up").backup(target, progress),
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
      const definitions = await loadActors(this.#task.actorUrls, this.#environment.importModule);
      const arena = new Arena(this.#task.memory);
      kernels = new Kernels(this.#task.kernels, arena, undefined, this.#task.shard);
      const { storage, recover } = this.#task;
      const adopts = this.#adopts();
      this.#replication = await this.#openReplication(adopts);
      const context = this.#engineContext(arena, kernels);
      if (recover !== undefined && !adopts) dropShardMemory(context);
      const [left, stored] = adopts ? [recover] : [undefined, storage?.collections];
      const programs = await loadPrograms(this.#task.actorUrls, this.#environment.importModule);
      const requester = (peer: number): Requester | undefined => this.#requesters.get(peer);
      engines = await createShardEngines(context, left, stored, { programs, requester, board: this.#block.board });
      this.#engines = engines;
      await this.#replication.recover(engines);
      this.#compose(definitions, engines, this.#replication);
      const damage = this.#replication.storage?.damage ?? [];
      this.#becomeReady({ actors: tableOf(definitions), recovered: engines.recovered, damage });
    } catch (error) {
      this.#refuse(error);
      await this.#stopped;
      return "stopped";
    }
    await nextTurn(this.#runtime.scheduler); // "ready" goes out before the first request can hold the thread
    const ending = await (this.#plane as DataPlane).run();
    // Shared memory belongs to the worker's successor: it leaves everything as it is.
    if (ending !== "stopped") return ending;
    this.#barriers.close();
    await this.#replication?.close();
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
    const { shard, storage } = this.#task;
    const { clock, random } = this.#runtime;
    const nowMs = (): number => clock.nowMs();
    return {
      workerIndex: shard,
      arena,
      regions: new RegionTable(arena, shard, () => random.u32(), nowMs),
      kernels,
      nowMs,
      randomU32: () => random.u32(),
      native: this.#native.run,
      peers: this.#peers,
      ...(storage?.directory === undefined || !this.#environment.hasFiles
        ? {}
        : { indexDirectory: `${storage.directory}/${directoryOf(shard)}/indexes` }),
    };
  }

  /** Whether what a predecessor left in memory counts: not when it died before it had loaded what is on disk. */
  #adopts(): boolean {
    const { shard, storage, recover } = this.#task;
    if (recover === undefined) return false;
    return storage === undefined || Atomics.load(new Int32Array(storage.loaded), shard) === 1;
  }

  #openReplication(adopts: boolean): Promise<ShardReplication> {
    const { shard, incarnation, replicas, storage, defaults } = this.#task;
    const { openDisk, openNats } = this.#environment;
    return ShardReplication.open({
      shard,
      incarnation,
      replicas,
      topology: this.#topology,
      clock: this.#runtime.clock,
      scheduler: this.#runtime.scheduler,
      defaults,
      storage,
      openDisk,
      ...(openNats === undefined ? {} : { openNats }),
      adopts,
      requester: (peer) => this.#requesters.get(peer),
      onChange: () => this.#plane?.dirty(),
    });
  }

  #createPlane(actors: ActorSystem, shard: Shard, engines: ShardEngines, replication: ShardReplication): DataPlane {
    const { clock, scheduler } = this.#runtime;
    return new DataPlane({
      clock,
      scheduler,
      block: this.#block,
      spin: new AdaptiveSpin({ nowUs: () => clock.nowUs(), maxSpinUs: this.#task.spinLimitUs }),
      onRequest: (server, type, offset, length, slot, sequence) => {
        if (!this.#block.retired) shard.onRequest(server, type, offset, length, slot, sequence);
      },
      pendingAsync: () => actors.pendingAsync() + this.#peers.open + (replication.writing ? 1 : 0),
      openResources: () => this.#environment.activeResources().some((name) => !STANDING_RESOURCES.has(name)),
      sweep: (nowMs) => {
        actors.sweep(nowMs);
      },
      background: (budgetMs) => engines.background(budgetMs),
      turn: (nowMs) => !this.#block.retired && engines.turn(nowMs),
      dueAtMs: () => engines.dueAtMs(),
    });
  }

  #compose(definitions: readonly AnyActorDefinition[], engines: ShardEngines, replication: ShardReplication): void {
    const { shard, incarnation } = this.#task;
    const { clock, scheduler, random } = this.#runtime;
    const topology = this.#topology;
    const codec = createValueCodec();
    const table = tableOf(definitions);
    const coordinator = new Coordinator({
      clock,
      scheduler,
      topology,
      defaults: this.#task.defaults,
      random,
      localShard: shard,
      lag: new ReplicaTable(this.#task.replicas, topology, () => clock.nowMs()),
      requester: (target) => this.#requesters.get(target) as Requester,
    });
    this.#peers.coordinator = coordinator;
    const tenure = new Tenure({
      shard,
      topology,
      gate: replication.gate,
      hosted: () => ({ actors: this.#actors as ActorSystem, barriers: this.#barriers.host }),
    });
    this.#tenure = tenure;
    const router = new ActorRouter({
      coordinator,
      codec,
      table,
      local: () => ({ shard, system: this.#actors as ActorSystem, scheduler, tenure }),
    });
    const actors = createActorSystem({
      definitions,
      clock,
      scheduler,
      random,
      send: router,
      codec,
      native: this.#native.run,
      barrier: new BarrierCatalog({
        clock,
        scheduler,
        coordinator,
        origin: `shard:${shard}#${incarnation}`,
        waitTimeoutMs: this.#task.defaults.requestTimeoutMs,
        local: { shard, host: this.#barriers.host, tenure },
      }).open,
      onTurn: () => this.#block.advance(),
    });
    this.#actors = actors;
    this.#shard = new Shard({
      shard,
      incarnation,
      topology,
      clock,
      codec,
      gate: replication.gate,
      tenure,
      writes: replication.primary,
      damage: replication.damage,
      keys: engines.keys,
      nowMs: () => clock.nowMs(),
      engines: [...engines.all, replication.copies, this.#barriers],
      actors,
      actorTable: table,
      onDirty: () => this.#plane?.dirty(),
    });
    this.#plane = this.#createPlane(actors, this.#shard, engines, replication);
    for (const client of this.#task.clients) this.#attachClient(client);
    for (const peer of this.#task.peers) this.#attachPeer(peer);
    for (const act of this.#early.splice(0)) act();
    replication.start();
  }

  /** The shard's copies and log, once it serves. */
  #serving(what: string): ShardReplication {
    if (this.#replication === undefined || this.#plane === undefined)
      throw new ShardloomError("ERR_UNAVAILABLE", `Cannot ${what} shard ${this.#task.shard} as it does not serve yet`);
    return this.#replication;
  }

  #attachPeer(peer: PeerTask): void {
    // Of two links to one shard the one to its later worker stands, in whatever order they were told.
    if (peer.incarnation < (this.#peerIncarnations.get(peer.shard) ?? 0)) return;
    this.#peerIncarnations.set(peer.shard, peer.incarnation);
    const previous = this.#requesters.get(peer.shard);
    const bell = new Doorbell(peer.block);
    const { clock } = this.#runtime;
    const nowUs = (): number => clock.nowUs();
    const requester = new Requester(new BridgeClient(peer.outbound, bell, { nowUs }), {
      clock,
      origin: { node: 0, shard: this.#task.shard, incarnation: this.#task.incarnation },
      targetShard: peer.shard,
      topology: this.#topology,
      decodeError: decodeErrorAt,
      onDirty: () => this.#plane?.dirty(),
      onDamaged: () => this.#plane?.damaged(),
    });
    this.#requesters.set(peer.shard, requester);
    const server = peer.inbound === undefined ? {} : { server: new BridgeServer(peer.inbound, bell, { nowUs }) };
    this.#plane?.attach(`peer:${peer.shard}`, { ...server, requester });
    const lost = new ShardloomError(
      "ERR_WORKER_LOST",
      `Cannot finish request as the worker of shard ${peer.shard} was replaced`,
      { details: { shard: peer.shard } },
    );
    previous?.fail(lost);
    if (previous !== undefined) this.#replication?.primary?.peerAttached(peer.shard);
    if (previous !== undefined) this.#engines?.peerLost(peer.shard); // if it was not told
    const board = boardOf(peer.block);
    this.#engines?.peerBack(peer.shard, board === undefined ? undefined : { board, bell });
    this.#loseMembers(peer.shard, peer.incarnation, lost);
  }

  #losePeer(shard: number, error: ShardloomError): void {
    this.#requesters.get(shard)?.fail(error);
    this.#engines?.peerLost(shard);
    this.#loseMembers(shard, undefined, error);
  }

  /** Members that joined barriers here from a shard's workers other than the present one, if there is one, are lost. */
  #loseMembers(shard: number, incarnation: number | undefined, error: ShardloomError): void {
    const worker = `shard:${shard}#`;
    const present = `${worker}${incarnation}`;
    this.#barriers.host.loseOrigin((origin) => origin.startsWith(worker) && origin !== present, error);
  }

  #attachClient(client: ClientTask): void {
    const { clock } = this.#runtime;
    const server = new BridgeServer(client.bridge, new Doorbell(client.block), { nowUs: () => clock.nowUs() });
    this.#plane?.attach(`client:${client.client}`, { server });
  }

  #detachClient(client: string): void {
    this.#plane?.detach(`client:${client}`);
    const gone = new ShardloomError("ERR_WORKER_LOST", `Cannot wait for members as their thread ${client} has gone`);
    this.#barriers.host.loseOrigin((origin) => origin === `client:${client}`, gone);
  }

  #loseOrigins(prefixes: readonly string[]): void {
    const gone = new ShardloomError("ERR_WORKER_LOST", "Cannot wait for members as their node has gone");
    this.#barriers.host.loseOrigin((origin) => prefixes.some((prefix) => origin.startsWith(prefix)), gone);
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
      storage: this.#replication?.storage,
      heapUsedBytes: this.#environment.heapUsedBytes(),
    };
  }
}
