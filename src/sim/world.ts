/**
 * One run of a world: its nodes, network, faults and clients put together, led through its phases, and judged.
 *
 * Phases: all nodes start; clients run the workload while faults come and go; then everything heals, and the cluster must converge within a
 * bound; at last the workload and the invariants judge what was seen.
 *
 * Invariant: everything that happens follows from options, workload, seed and replay. Nothing of a run is left when it is over, so that the next
 * one in the same thread is as if it were the first.
 */
import { ShardloomError } from "../errors.ts";
import type { ClusterNode } from "../plane/node-members.ts";
import { VirtualAtomics } from "./atomics.ts";
import { Clients } from "./clients.ts";
import { SimDisk } from "./disk.ts";
import { FaultDriver } from "./fault-driver.ts";
import type { FaultInjector } from "./fault-types.ts";
import type { FaultShape } from "./faults.ts";
import { mayForget } from "./forgetting.ts";
import { History } from "./history.ts";
import type { Violation } from "./history-types.ts";
import { createNatsLeaseStore } from "./lease-store.ts";
import { WorldLoop } from "./loop.ts";
import { drawMinority } from "./minority.ts";
import { SimNats } from "./nats.ts";
import { SimNetwork } from "./network.ts";
import { NodeService } from "./node-service.ts";
import { judgeCopies } from "./quiet-audit.ts";
import { converge, convergeWithout, settle } from "./quiet-phase.ts";
import { realLoop } from "./real-loop.ts";
import { injectorOf } from "./run-injector.ts";
import { loopOfThread } from "./thread-loop.ts";
import type { TrappedCall } from "./traps.ts";
import { checkRun, operationsOf, workloadFailed } from "./workload-run.ts";
import type { Operation, Workload } from "./workload-types.ts";
import { WorldNode } from "./world-node.ts";
import { ActRecords, DeathRecords, judgeMessages, MapRecords } from "./world-records.ts";
import { clusterOptionsOf, faultShapeOf, membersOf } from "./world-shape.ts";
import { WorldTargets } from "./world-targets.ts";
import type { Escape, NodeStats, ReplayPlan, ResolvedWorldOptions, RunProgress, RunResult } from "./world-types.ts";

/** Simulated time in which all nodes must serve at first. */
const START_LIMIT_MS = 120_000;
/** Simulated time in which the last judgement must be given: it may read. */
const CHECK_LIMIT_MS = 600_000;
/** Simulated time between two looks at the maps of all nodes. */
const MAP_LOOK_MS = 1_000;
/** Escapes that a result lists; a loop that swallows its errors must not fill the memory. */
const ESCAPES_KEPT = 1_000;
/** Real time between two reports of progress. */
const PROGRESS_MS = 100;

/** What a run is made of. */
export interface WorldRun {
  readonly options: ResolvedWorldOptions;
  readonly workload: Workload;
  /** Modules of actors by URL. */
  readonly modules: ReadonlyMap<string, Record<string, unknown>>;
  readonly replay?: ReplayPlan;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: RunProgress) => void;
}

/** The world that runs in this thread, as far as what surrounds it must know. */
export interface RunningWorld {
  /** Code of the world tried to leave it. */
  escaped(call: TrappedCall): void;
  /** Something threw that nobody caught. */
  uncaught(error: unknown): void;
  readonly result: Promise<RunResult>;
}

/** Begins a run. One at a time in a thread. */
export function beginRun(run: WorldRun): RunningWorld {
  const world = new World(run);
  return { escaped: (call) => world.escaped(call), uncaught: (error) => world.uncaught(error), result: world.run() };
}

class World {
  readonly #run: WorldRun;
  readonly #loop: WorldLoop;
  readonly #operations: readonly Operation[];
  readonly #injector: FaultInjector;
  readonly #driver: FaultDriver;
  readonly #network: SimNetwork;
  readonly #nats: SimNats;
  /** By node: a disk outlives the lives of its node. */
  readonly #disks: Map<string, SimDisk> = new Map();
  readonly #history: History;
  readonly #services: readonly NodeService[];
  readonly #clients: Clients;
  readonly #maps: MapRecords = new MapRecords();
  readonly #acts: ActRecords = new ActRecords();
  readonly #deaths: DeathRecords = new DeathRecords();
  readonly #violations: Violation[] = [];
  readonly #escapes: Escape[] = [];
  readonly #startMs: number = realLoop.nowMs();
  #phase: RunProgress["phase"] = "start";
  #progressMs = 0;
  #workStartUs = 0;

  constructor(run: WorldRun) {
    this.#run = run;
    const { options, workload } = run;
    const { seed, durationMs } = options;
    const loop = new WorldLoop({ seed, keepTrace: options.keepTrace });
    this.#loop = loop;
    const shape = faultShapeOf(options);
    this.#injector = injectorOf(run, loop, shape);
    this.#operations = operationsOf(run.workload, loop.stream("workload"), options, run.replay?.operations);
    this.#network = new SimNetwork(loop, this.#injector, { recordLimit: options.keepTrace });
    this.#history = new History(() => Math.round(loop.nowUs * 1000));
    const members = membersOf(options);
    this.#nats = new SimNats({ loop, faults: this.#injector });
    const onTwoWriters = (where: string): void =>
      this.#violate("one writer for each shard", `two living workers wrote to ${where}`);
    for (const { name } of members)
      this.#disks.set(name, new SimDisk({ node: name, loop, faults: this.#injector, onTwoWriters }));
    this.#services = members.map((member) => this.#createService(member, members));
    this.#clients = new Clients({
      loop,
      history: this.#history,
      workload,
      services: this.#services,
      operations: this.#operations,
      onFailure: (error) => loop.fail(error),
      onDone: () => this.#endEarly(durationMs),
    });
    this.#driver = new FaultDriver(
      loop,
      this.#injector,
      new WorldTargets(this.#services, this.#network, this.#disks, this.#nats),
    );
  }

  async run(): Promise<RunResult> {
    const atomics = new VirtualAtomics(this.#loop, this.#injector);
    const uninstall = atomics.install();
    this.#acts.listen();
    try {
      await this.#start();
      await this.#work();
      await this.#heal();
      await this.#check();
      this.#violations.push(...this.#acts.violations());
      return this.#result();
    } finally {
      uninstall();
      this.#acts.close();
      for (const { node } of this.#services) node.crash();
    }
  }

  escaped({ call, site }: TrappedCall): void {
    if (this.#escapes.length < ESCAPES_KEPT) this.#escapes.push({ call, site, timeUs: this.#loop.nowUs });
    this.#loop.trace("escape", this.#loop.current.name, call);
  }

  uncaught(error: unknown, thread: string = this.#loop.current.name): void {
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#loop.trace("uncaught", thread);
    this.#violate("nothing throws uncaught", `${thread}: ${message}`);
  }

  #createService({ name, shards }: ClusterNode, members: readonly ClusterNode[]): NodeService {
    const { options, workload, modules } = this.#run;
    const disk = this.#disks.get(name) as SimDisk;
    const node = new WorldNode(this.#loop, {
      name,
      shards,
      modules,
      startDisk: (main) => disk.start({ name, loop: loopOfThread(this.#loop, main) }),
      onError: (thread, error) => this.uncaught(error, thread),
    });
    return new NodeService({
      loop: this.#loop,
      node,
      workload,
      clusterOptions: clusterOptionsOf(options, workload.actors ?? [], this.#loop.stream("storage")),
      environment: (platform, incarnation, main, nats) => {
        const transport = this.#network.transport(name, incarnation, (callback) => main.enter(callback));
        const leases = options.leases ? { leases: createNatsLeaseStore(nats) } : {};
        return { platform, nodes: { self: name, incarnation, members, transport, ...leases } };
      },
      onServing: (service) => {
        this.#loop.trace("serving", service.name);
        this.#clients.serving(service);
        this.#deaths.watch(service);
        if (this.#phase === "start" && this.#services.every(({ serving }) => serving !== undefined)) this.#loop.stop();
      },
      connect: (main) => this.#nats.connect(name, loopOfThread(this.#loop, main)),
      onDown: (service, what) => {
        this.#network.crash(name, what);
        if (what === "process") disk.kill();
        else disk.crash();
        this.#nats.disconnect(service.name);
        this.#clients.down(service);
      },
      isDamaged: () => disk.damage.length > 0,
      onFailure: (error) => this.#loop.fail(error),
    });
  }

  async #start(): Promise<void> {
    this.#driver.prepare();
    for (const service of this.#services) service.start();
    await this.#drive(START_LIMIT_MS);
    const late = this.#services.filter(({ serving }) => serving === undefined);
    if (late.length === 0) return;
    const [first] = late as [NodeService];
    throw new ShardloomError("ERR_TIMEOUT", `Cannot start ${first.name} within ${START_LIMIT_MS} simulated ms`, {
      details: { nodes: late.map(({ name }) => name) },
      cause: first.lastError,
    });
  }

  /** Clients run, faults come and go. */
  async #work(): Promise<void> {
    this.#enter("workload");
    this.#lookAtMaps();
    this.#driver.start();
    this.#clients.start();
    await this.#drive(this.#run.options.durationMs);
    this.#clients.stop();
  }

  /** Takes every map that a node has. */
  #lookAtMaps(): void {
    for (const service of this.#services) this.#maps.look(service);
    this.#loop.at(this.#loop.nowUs + MAP_LOOK_MS * 1000, () => this.#lookAtMaps());
  }

  /** Everything heals, and the cluster must converge. */
  async #heal(): Promise<void> {
    this.#enter("quiet");
    this.#driver.quiet();
    const drive = (limitMs: number): Promise<void> => this.#drive(limitMs);
    const shape = faultShapeOf(this.#run.options);
    const mayForget = (): boolean => this.#mayForget();
    const quiet = {
      loop: this.#loop,
      services: this.#services,
      clients: this.#clients,
      acks: shape.acks,
      mayForget,
      drive,
    };
    const minority = this.#minority(shape);
    this.#violations.push(...(await convergeWithout(minority, quiet, this.#network, this.#run.options.leases)));
    this.#violations.push(...(await converge(quiet)));
    this.#violations.push(...(await settle(quiet, this.#history, this.#run.options.requestTimeoutMs)));
    this.#violations.push(...(await judgeMessages(quiet)));
    this.#violations.push(...this.#maps.violations(), ...this.#deaths.violations(this.#injector.injected));
    if (this.#crashAll()) this.#violations.push(...(await converge(quiet)));
    this.#violations.push(...(await judgeCopies(quiet)));
  }

  /** Who stays cut off at first. Nobody where some are lost for good, or may lack what was acknowledged. */
  #minority(shape: FaultShape): readonly string[] {
    if (this.#run.options.heal !== "majority" || this.#mayForget() || this.#services.some(({ lost }) => lost))
      return [];
    const sinceMs = (worldMs: number): number => worldMs - this.#workStartUs / 1000;
    return drawMinority({
      nodes: this.#services.map(({ name, node }) => ({ name, workerDiedAtMs: sinceMs(node.lastWorkerDeathMs) })),
      faults: this.#injector.injected,
      shape,
      nowMs: sinceMs(this.#loop.nowUs / 1000),
      random: this.#loop.stream("minority"),
    });
  }

  /** Whatever the run was, in its end all nodes fail at once, with the least that is left to them: what follows reads disks. @returns whether */
  #crashAll(): boolean {
    const { durability } = this.#run.options;
    if (durability !== "fsync" && durability !== "os") return false;
    for (const service of this.#services) {
      if (service.lost) continue;
      if (durability === "fsync") this.#disks.get(service.name)?.crash("lost");
      service.crash(durability === "fsync" ? "node" : "process");
    }
    return true;
  }

  /** The workload judges. It may read, so this runs inside the world, on a node. */
  async #check(): Promise<void> {
    this.#enter("check");
    const { workload } = this.#run;
    const nodes = this.#services.flatMap(({ name, serving }) => (serving === undefined ? [] : [{ name, ...serving }]));
    const [first] = this.#services.filter(({ serving }) => serving !== undefined);
    const faults = this.#injector.injected;
    const view = {
      history: this.#history.entries,
      faults,
      mayForget: this.#mayForget(),
      nodes,
      lost: this.#services.filter(({ lost }) => lost).map(({ name }) => name),
    };
    let found: readonly Violation[] | undefined;
    const judge = async (): Promise<void> => {
      found = await checkRun(workload, view);
      this.#loop.stop();
    };
    if (first === undefined) return; // no node serves: that is a violation already
    first.node.main?.post(0, "check", () => {
      judge().catch((error: unknown) => this.#loop.fail(error));
    });
    await this.#drive(CHECK_LIMIT_MS);
    if (found === undefined)
      throw workloadFailed(workload.name, "check run", new Error(`it took more than ${CHECK_LIMIT_MS} simulated ms`));
    this.#violations.push(...found);
  }

  #mayForget(): boolean {
    const { options } = this.#run;
    return mayForget(this.#injector.injected, options.durability, faultShapeOf(options).acks);
  }

  /** The workload has nothing left to do: the rest of its time matters only if faults are to come. */
  #endEarly(durationMs: number): void {
    if (this.#phase !== "workload") return;
    const lastMs = this.#injector.timed.reduce((latest, { atMs }) => Math.max(latest, atMs), 0);
    const endUs = this.#workStartUs + lastMs * 1000 + 1;
    if (this.#loop.nowUs >= endUs || lastMs === 0) this.#loop.stop();
    else if (lastMs < durationMs) this.#loop.at(endUs, () => this.#endEarly(durationMs));
  }

  #enter(phase: RunProgress["phase"]): void {
    this.#phase = phase;
    this.#deaths.record(phase === "workload");
    if (phase === "workload") this.#workStartUs = this.#loop.nowUs;
    this.#loop.trace("phase", "world", phase);
  }

  async #drive(limitMs: number): Promise<void> {
    const { signal, options } = this.#run;
    const leftMs = options.wallLimitMs - (realLoop.nowMs() - this.#startMs);
    await this.#loop.run(this.#loop.nowUs + limitMs * 1000, {
      wallLimitMs: Math.max(0, leftMs),
      onBatch: () => this.#report(),
      ...(signal === undefined ? {} : { signal }),
    });
  }

  #report(): void {
    const { onProgress, options } = this.#run;
    const nowMs = realLoop.nowMs();
    if (onProgress === undefined || nowMs - this.#progressMs < PROGRESS_MS) return;
    this.#progressMs = nowMs;
    onProgress({
      phase: this.#phase,
      simulatedMs: this.#loop.nowUs / 1000,
      totalMs: options.durationMs,
      events: this.#loop.events,
      faults: this.#injector.injected.length,
      operations: this.#clients.invoked,
      wallMs: nowMs - this.#startMs,
    });
  }

  #violate(rule: string, message: string): void {
    if (this.#violations.some((other) => other.rule === rule && other.message === message)) return;
    this.#violations.push({ rule, message, entries: [] });
  }

  #result(): RunResult {
    const sites = new Set<string>();
    for (const { call, site } of this.#escapes) {
      const message = `${call} was called at ${site === "" ? "an unknown place" : site}`;
      if (!sites.has(message)) this.#violate("nothing leaves the world", message);
      sites.add(message);
    }
    const faults = [...this.#injector.injected];
    const faultsByKind: Record<string, number> = {};
    for (const { kind } of faults) faultsByKind[kind] = (faultsByKind[kind] ?? 0) + 1;
    return {
      seed: this.#loop.seed,
      traceHash: this.#loop.traceHash,
      events: this.#loop.events,
      simulatedMs: this.#loop.nowUs / 1000,
      wallMs: realLoop.nowMs() - this.#startMs,
      history: this.#history.entries,
      operations: this.#operations,
      faults,
      faultsByKind,
      verdict: this.#violations.length === 0 ? "passed" : "failed",
      violations: this.#violations,
      escapes: this.#escapes,
      nodes: this.#services.map((service) => this.#statsOf(service)),
      trace: this.#loop.recorded(),
    };
  }

  #statsOf({ name, node, lost }: NodeService): NodeStats {
    return { name, ...node.counters(), operations: this.#clients.invokedOn(name), lost };
  }
}
