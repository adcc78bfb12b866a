/**
 * A simulated node: a real `Cluster` on simulated threads, which can crash, start again, pause and slow down.
 *
 * Invariant: the node's code is the production code; only what it stands on is ours. A crash kills all threads between two events and
 * leaves nothing of their memory; each start has a higher incarnation and new memory.
 * Divergence: modules are loaded once for the whole world, so that variables of modules, those of user actors too, are shared by all nodes.
 */
import { ShardloomError } from "../errors.ts";
import type { Platform, WorkerHost } from "../plane/platform.ts";
import type { ShardTask } from "../plane/shard-task.ts";
import type { Random } from "../runtime/random.ts";
import { cloneForThread } from "./clone.ts";
import type { ShardMemory } from "./copy-contents.ts";
import type { DiskProcess } from "./disk.ts";
import type { WorldLoop } from "./loop.ts";
import { corruptRing, tearRegion } from "./memory-faults.ts";
import { NodeClock } from "./node-clock.ts";
import { SimWorker } from "./sim-worker.ts";
import { loopOfThread } from "./thread-loop.ts";
import { SimThread } from "./threads.ts";
import { VirtualChannel } from "./virtual-channel.ts";

/** Time that a thread takes to start, in µs. */
const LEAST_START_US = 500;
const SPREAD_START_US = 5_000;
/** Range of what clocks read when the world begins, in µs: two machines have nothing in common. */
const ORIGIN_US = 1e12;

/**
 * Deaths of one worker, within so long, after which it dies at no disk operation: a few more in a row, or within a minute, which other faults may
 * well bring, and its shard is given up.
 */
const MAX_DEATHS = [
  { deaths: 2, withinUs: 5_000_000 },
  { deaths: 4, withinUs: 60_000_000 },
] as const;

/** As many, however it died, after which no fault kills it: with the ninth in a minute its shard is given up, and damage that hit may yet be the end of it. */
const MAX_KILLS = [{ deaths: 6, withinUs: 60_000_000 }] as const;

/** How a node is made. */
export interface WorldNodeOptions {
  readonly name: string;
  /** Numbers of its shards in the cluster, in the order of its workers. */
  readonly shards: readonly number[];
  /** Modules of actors, loaded before the world began, by URL. */
  readonly modules: ReadonlyMap<string, Record<string, unknown>>;
  /** Gives the node's disk to a new process, by its main thread. */
  readonly startDisk: (main: SimThread) => DiskProcess;
  /** Something threw that nobody caught, on a thread of the node. */
  readonly onError: (thread: string, error: unknown) => void;
}

/** One node of a world. */
export class WorldNode {
  readonly name: string;
  readonly clock: NodeClock;
  readonly #loop: WorldLoop;
  readonly #options: WorldNodeOptions;
  readonly #random: Random;
  readonly #factors: Map<number, number> = new Map();
  /** The newest worker of each shard, by its index on the node. */
  readonly #workers: Map<number, SimWorker> = new Map();
  /** All threads of this life. */
  #threads: SimThread[] = [];
  #main: SimThread | undefined;
  #disk: DiskProcess | undefined;
  #incarnation = 0;
  #threadsMade = 0;
  #paused = false;
  #pastEvents = 0;
  #crashes = 0;
  #workerDeaths = 0;
  /** When workers died in this life, by their index. */
  readonly #deathsUs: Map<number, number[]> = new Map();

  constructor(loop: WorldLoop, options: WorldNodeOptions) {
    this.name = options.name;
    this.#loop = loop;
    this.#options = options;
    this.#random = loop.stream(`${options.name}/node`);
    this.clock = new NodeClock(() => loop.nowUs, Math.floor(this.#random.float() * ORIGIN_US));
  }

  /** Counts the node's lives, from 1. */
  get incarnation(): number {
    return this.#incarnation;
  }

  /** The main thread of the present life; undefined while it is down. */
  get main(): SimThread | undefined {
    return this.#main;
  }

  get paused(): boolean {
    return this.#paused;
  }

  counters(): { events: number; starts: number; crashes: number; workerDeaths: number } {
    const events = this.#threads.reduce((sum, thread) => sum + thread.events, this.#pastEvents);
    return { events, starts: this.#incarnation, crashes: this.#crashes, workerDeaths: this.#workerDeaths };
  }

  /** World time in ms at which a worker of this life died last; -Infinity when none did. */
  get lastWorkerDeathMs(): number {
    return Math.max(...[...this.#deathsUs.values()].flat()) / 1000;
  }

  /** A new life. @returns its main thread, its disk, and what its cluster stands on */
  boot(): { readonly main: SimThread; readonly disk: DiskProcess; readonly platform: Platform } {
    if (this.#main !== undefined) throw new ShardloomError("ERR_INTERNAL", `Cannot start ${this.name} as it is up`);
    this.#incarnation++;
    const main = this.#createThread(this.name, false, (error) => this.#options.onError(this.name, error));
    this.#main = main;
    this.#loop.trace("start", this.name, this.#incarnation);
    const disk = this.#options.startDisk(main);
    this.#disk = disk;
    const platform: Platform = {
      runtime: main.runtime,
      kernels: "portable",
      createWorkerHost: () => this.#createWorkerHost(main),
      createControlChannel: () => new VirtualChannel(this.#loop, this.#random, main),
      openDirectory: (path, options) => disk.directories.open(path, options),
    };
    return { main, disk, platform };
  }

  /** All threads die at once, and what they remember is gone. */
  crash(): void {
    if (this.#main === undefined) return;
    this.#loop.trace("crash", this.name, this.#incarnation);
    this.#pastEvents = this.counters().events;
    this.#crashes++;
    for (const thread of this.#threads) thread.kill();
    this.#threads = [];
    this.#workers.clear();
    this.#deathsUs.clear();
    this.#main = undefined;
    this.#paused = false;
  }

  /** Shards that it has when it is up. */
  get shards(): readonly number[] {
    return this.#options.shards;
  }

  /** All threads stand still. */
  pause(): void {
    this.#paused = true;
    for (const thread of this.#threads) thread.pause();
  }

  resume(): void {
    this.#paused = false;
    for (const thread of this.#threads) thread.resume();
  }

  /** @param worker Index on the node. @returns false when there is none */
  killWorker(worker: number): boolean {
    const found = this.#mortal(worker);
    if (found === undefined) return false;
    found.die(new Error("the thread was killed"));
    return true;
  }

  /** Everything on the worker takes so many times as long, on its successors too; 1 ends that. @returns false when there is none now */
  slowWorker(worker: number, factor: number): boolean {
    if (factor === 1) this.#factors.delete(worker);
    const found = this.#workers.get(worker);
    if (found === undefined) return false;
    this.#factors.set(worker, factor);
    found.thread.slow(factor);
    return true;
  }

  /** Memory of its shards, as they were last started. */
  memories(): ShardMemory[] {
    return [...this.#workers.values()].map(({ task: { shard, memory }, thread: { name } }) => ({
      name,
      shard,
      memory,
    }));
  }

  /** It dies in the middle of a write. @returns false when there is nothing that it could be writing */
  tearRegion(worker: number, size: number): boolean {
    const found = this.#mortal(worker);
    if (found === undefined) return false;
    const torn = tearRegion(found.task.memory, found.task.shard, size);
    if (torn === undefined) return false;
    this.#loop.trace("torn", found.thread.name, torn);
    found.die(new Error("the thread died while it wrote"));
    return true;
  }

  /** A stray write hits one of its rings. @returns false when it has none */
  corruptRing(worker: number, size: number): boolean {
    const found = this.#mortal(worker);
    if (found === undefined) return false;
    const { clients, peers } = found.task;
    const bridges = peers.flatMap(({ inbound, outbound }) =>
      inbound === undefined ? [outbound] : [inbound, outbound],
    );
    const damaged = corruptRing([...clients.map(({ bridge }) => bridge), ...bridges], size);
    if (damaged !== undefined) this.#loop.trace("damaged", found.thread.name, damaged);
    return damaged !== undefined;
  }

  /** A worker that a fault may be the end of. */
  #mortal(worker: number): SimWorker | undefined {
    const found = this.#workers.get(worker);
    return found?.thread.dead === false && this.#mayDie(worker, MAX_KILLS) ? found : undefined;
  }

  #createWorkerHost(main: SimThread): WorkerHost {
    return {
      run: (task, transfer, after) => this.#runWorker(main, cloneForThread(task as ShardTask, transfer), after),
      close: () => Promise.resolve(),
    };
  }

  #runWorker(main: SimThread, task: ShardTask, after: Promise<void> | undefined): SimWorker {
    const index = this.#options.shards.indexOf(task.shard);
    const name = `${this.name}/w${index}`;
    const thread = this.#createThread(name, true, (error) => {
      this.#options.onError(name, error);
      worker.die(error);
    });
    thread.slow(this.#factors.get(index) ?? 1);
    const disk = (this.#disk as DiskProcess).attach({
      name,
      loop: loopOfThread(this.#loop, thread),
      die: (reason) => worker.die(reason),
      mayDie: () => this.#mayDie(index, MAX_DEATHS),
    });
    const worker = new SimWorker({
      main,
      thread,
      task,
      disk,
      modules: this.#options.modules,
      onDeath: () => {
        this.#workerDeaths++;
        this.#deathsUs.set(index, [...(this.#deathsUs.get(index) ?? []), this.#loop.nowUs]);
        this.#loop.trace("worker dies", name, task.incarnation);
      },
    });
    const startUs = LEAST_START_US + (this.#random.u32() % SPREAD_START_US);
    const begin = (): void => {
      this.#workers.set(index, worker);
      worker.start(startUs);
    };
    if (after === undefined) begin();
    else after.then(begin, (error: unknown) => worker.die(error));
    return worker;
  }

  #mayDie(index: number, limits: readonly { readonly deaths: number; readonly withinUs: number }[]): boolean {
    const diedUs = this.#deathsUs.get(index) ?? [];
    return limits.every(
      ({ deaths, withinUs }) => diedUs.filter((atUs) => atUs >= this.#loop.nowUs - withinUs).length < deaths,
    );
  }

  #createThread(name: string, supervised: boolean, onError: (error: unknown) => void): SimThread {
    const incarnation = ++this.#threadsMade;
    const thread = new SimThread(this.#loop, { name, incarnation, clock: this.clock, supervised, onError });
    if (this.#paused) thread.pause();
    this.#threads.push(thread);
    return thread;
  }
}
