/**
 * The shards of one node, with copies of each other's vshards, on one simulated disk, in virtual time: their threads die at a step that is asked for,
 * their process is killed or its power cut between any two events, and vshards get other primaries.
 *
 * Steps are counted by name: each operation on the disk by its kind and place, each message when it arrives and when it has been handled, each row
 * that an effect changes. A scene is run once to count them, and then once for each that somebody is to die at.
 *
 * Invariant: everything follows from the seed and the step. What is acknowledged here had a quorum.
 */
import type { PeerRequester } from "../../../actors/replication/replica-link-options.ts";
import { ShardReplication } from "../../../actors/shard-replication.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { PendingRequest, type ReplySink } from "../../../src/routing/pending-request.ts";
import type { Clock } from "../../../src/runtime/clock.ts";
import type { Disk, DiskFile } from "../../../src/runtime/disk.ts";
import { createSeededRandom, type Random } from "../../../src/runtime/random.ts";
import { SimDisk } from "../../../src/sim/disk.ts";
import type { FaultRates } from "../../../src/sim/fault-types.ts";
import { createFaultInjector } from "../../../src/sim/injector.ts";
import type { Durability } from "../../../src/store/log.ts";
import { type ClusterMap, firstMap, resolveMap, withLife, withMoved } from "../../../src/topology/cluster-map.ts";
import { firstShardIncarnation } from "../../../src/topology/member.ts";
import { createReplicaBlock, ReplicaTable } from "../../../src/topology/replica-table.ts";
import { createSnapshot, type TopologySnapshot } from "../../../src/topology/snapshot.ts";
import { LocalTopology } from "../../../src/topology/topology-source.ts";
import { REPLICA_APPEND, REPLICA_FETCH, REPLICA_SNAPSHOT, REPLICA_STATUS } from "../../../src/wire/message-types.ts";
import { guardedLoop, SteppedLoop, schedulerOf } from "../../sim/stepped-loop.ts";
import { handle, payloadBytes, Rows, ToyEngine } from "../replication/world.ts";
import { enginesOf, failOpen, heldFor, publishWrite, type SceneWrite, sceneStorage } from "./durable-writes.ts";

const TIMEOUT_MS = 200;
/** Largest message. */
const MESSAGE_BYTES = 512;
const MESSAGE_NAMES: Readonly<Record<number, string>> = {
  [REPLICA_APPEND]: "append",
  [REPLICA_STATUS]: "status",
  [REPLICA_SNAPSHOT]: "snapshot",
  [REPLICA_FETCH]: "fetch",
};

/** Thrown where a thread dies within its own code. */
class Death extends Error {}

export interface SceneOptions {
  readonly seed: number;
  readonly shards: number;
  readonly replicationFactor: number;
  readonly vshards: number;
  readonly durability?: Durability;
  readonly rates?: FaultRates;
  /** Bytes of log after which a snapshot is taken. @default 1000 */
  readonly snapshotBytes?: number;
}

/** A thread. */
interface Worker {
  readonly shard: number;
  readonly incarnation: number;
  alive: boolean;
  replication: ShardReplication | undefined;
}

interface OpenRequest {
  readonly from: Worker;
  readonly to: number;
  readonly fail: (error: ShardloomError) => void;
}

export class DurableScene {
  readonly loop: SteppedLoop;
  readonly disk: SimDisk;
  readonly random: Random;
  readonly writes: SceneWrite[] = [];
  /** How often each step was come to. */
  readonly steps: Map<string, number> = new Map();
  /** A thread that comes to this step for so many times dies there. */
  fatal: { readonly step: string; readonly at: number } | undefined;
  died: Worker | undefined;
  readonly #options: SceneOptions;
  #map: ClusterMap = firstMap();
  #starts = 0;
  /** What ended the start of a thread that nobody had killed. */
  #failure: unknown;
  #topology!: LocalTopology;
  #placed!: Uint16Array;
  #replicas!: SharedArrayBuffer;
  #loaded!: SharedArrayBuffer;
  #rows: Rows[] = [];
  #engines: ToyEngine[] = [];
  #workers: Worker[] = [];
  readonly #open: Set<OpenRequest> = new Set();
  readonly #linkAtUs: Map<string, number> = new Map();

  constructor(options: SceneOptions) {
    this.#options = options;
    this.loop = new SteppedLoop(options.seed);
    this.random = createSeededRandom(options.seed);
    const faults = createFaultInjector(options.rates ?? {}, (name) => this.loop.stream(name), []);
    this.disk = new SimDisk({ node: "n0", loop: this.loop, faults });
  }

  get map(): TopologySnapshot {
    return this.#topology.current();
  }

  get table(): ReplicaTable {
    return new ReplicaTable(this.#replicas, this.#topology, () => this.loop.nowUs / 1000);
  }

  /** Starts the process: all its threads, each when it may. */
  start(delaysMs: readonly number[] = []): void {
    const { shards, vshards, replicationFactor } = this.#options;
    this.#starts++;
    const first = createSnapshot({ shards, vshards, replicationFactor });
    this.#placed = first.copies.slice();
    this.#topology = new LocalTopology(first);
    this.#map = withLife(this.#map, "local", this.#starts, this.#starts);
    this.#replicas = createReplicaBlock(first);
    this.#loaded = new SharedArrayBuffer(4 * 256);
    this.#publish();
    this.disk.mount(this.loop);
    this.#workers = [];
    this.#rows = Array.from({ length: shards }, () => new Rows());
    for (let shard = 0; shard < shards; shard++) {
      const placeholder = { shard, incarnation: firstShardIncarnation(this.#starts) - 1, alive: false };
      this.#workers[shard] = { ...placeholder, replication: undefined };
      const life = this.#starts;
      this.loop.at(this.loop.nowUs + (delaysMs[shard] ?? 0) * 1000, () => {
        if (life === this.#starts && this.#workers[shard]?.incarnation === placeholder.incarnation) this.#begin(shard);
      });
    }
  }

  #begin(shard: number): void {
    this.#startWorker(shard).catch((error: unknown) => {
      if (error instanceof Death) this.kill(this.#workers[shard]);
      else this.#failure ??= error;
    });
  }

  /** Starts a thread for a shard; one that dies on the way is followed by another. */
  async #startWorker(shard: number): Promise<void> {
    const before = this.#workers[shard] as Worker;
    const worker: Worker = {
      shard,
      incarnation: before.incarnation + 1,
      alive: true,
      replication: undefined,
    };
    this.#workers[shard] = worker;
    const adopts = Atomics.load(new Int32Array(this.#loaded), shard) === 1;
    if (!adopts) this.#rows[shard] = new Rows();
    const engine = new ToyEngine(this.#rows[shard] as Rows, () => this.#step(worker, "row"));
    this.#engines[shard] = engine;
    const { snapshotBytes = 1_000, durability = "fsync" } = this.#options;
    const storage = sceneStorage({ durability, snapshotBytes, loaded: this.#loaded });
    const guard = (act: () => void): void => this.guard(worker, act);
    const own = guardedLoop(this.loop, guard);
    const disk = this.#watched(worker, this.disk.attach(own));
    const replication = await ShardReplication.open({
      shard,
      incarnation: worker.incarnation,
      replicas: this.#replicas,
      topology: this.#topology,
      clock: this.#clock(),
      scheduler: schedulerOf(own, guard),
      defaults: { requestTimeoutMs: TIMEOUT_MS, consistency: "strong", strategy: "power-of-two", acks: "quorum" },
      storage,
      openDisk: () => Promise.resolve(disk),
      adopts,
      requester: (peer) => this.#requester(worker, peer),
      onChange: () => undefined,
    });
    await replication.recover(enginesOf(engine));
    if (!worker.alive) return;
    if (replication.damage !== undefined) throw replication.damage;
    worker.replication = replication;
    this.guard(worker, () => replication.start());
    for (const other of this.#workers)
      if (other !== worker && other?.replication !== undefined)
        this.guard(other, () => other.replication?.primary?.peerAttached(shard));
  }

  /** Ends a shard's thread; its successor begins after a while. */
  kill(worker: Worker | undefined, downMs = 1 + (this.random.u32() % 40)): void {
    if (worker?.alive !== true) return;
    worker.alive = false;
    worker.replication = undefined;
    const lost = new ShardloomError("ERR_WORKER_LOST", "Cannot finish as the worker died");
    this.loop.at(this.loop.nowUs + downMs * 1000, () => {
      if (this.#workers[worker.shard] !== worker) return;
      for (const request of [...this.#open])
        if (request.from === worker) this.#open.delete(request);
        else if (request.to === worker.shard) request.fail(lost);
      this.#begin(worker.shard);
    });
  }

  workerOf(shard: number): Worker | undefined {
    return this.#workers[shard];
  }

  /** Ends the process. */
  end(how: "killed" | "power"): void {
    for (const worker of this.#workers) worker.alive = false;
    this.#workers = [];
    this.#failure = undefined;
    this.#open.clear();
    failOpen(this.writes);
    if (how === "power") this.disk.crash();
    else this.disk.kill();
  }

  /** Gives what a shard is primary of to others. */
  promote(lost: number): void {
    const { vshards, replicationFactor } = this.#options;
    const moved = new Map<number, readonly number[]>();
    for (let vshard = 0; vshard < vshards; vshard++) {
      if (this.map.owners[vshard] !== lost) continue;
      const copies = this.copiesOf(vshard);
      const next = copies.find((shard) => shard !== lost && this.#workers[shard]?.replication !== undefined);
      if (next !== undefined) moved.set(vshard, [next, ...copies.filter((shard) => shard !== next)]);
    }
    if (moved.size === 0 || replicationFactor === 1) return;
    this.#map = withMoved(this.#map, moved);
    this.#publish();
    for (const worker of this.#workers)
      if (worker.replication !== undefined) this.guard(worker, () => worker.replication?.primary?.mapChanged());
  }

  #publish(): void {
    const { replicationFactor } = this.#options;
    const now = this.map;
    if (this.#map.version <= now.mapVersion) return;
    const epoch = now.topologyEpoch + 1;
    const resolved = resolveMap(this.#map, this.#placed, replicationFactor, () => "local");
    this.#topology.learn(
      createSnapshot({ ...now, topologyEpoch: epoch, mapEpoch: epoch, mapVersion: this.#map.version, ...resolved }),
    );
  }

  copiesOf(vshard: number): number[] {
    const { copies, replicationFactor } = this.map;
    return [...copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor)];
  }

  /** One write of some keys, all with one primary; nothing where that does not serve them now. */
  write(keySpace: number): void {
    const { vshards, shards } = this.#options;
    const shard = this.random.u32() % shards;
    const worker = this.#workers[shard];
    const owned = [...this.map.owners].flatMap((owner, vshard) => (owner === shard ? [vshard] : []));
    const count = 1 + (this.random.u32() % 4);
    const chosen = Array.from({ length: count }, () => [this.random.u32(), this.random.u32()] as const);
    const deletes = this.random.float() < 0.2;
    if (worker?.replication?.primary === undefined || owned.length === 0) return;
    const keys = chosen.map(([a, b]) => (owned[a % owned.length] as number) + vshards * (b % keySpace));
    const write: SceneWrite = { number: this.writes.length + 1, keys: [...new Set(keys)], deletes, state: "open" };
    try {
      this.guard(worker, () => this.#carryOut(worker, write));
    } catch (error) {
      if (!ShardloomError.is(error)) throw error; // refused: nothing has happened
    }
  }

  #carryOut({ shard, replication }: Worker, write: SceneWrite): void {
    const { vshards } = this.#options;
    const { primary } = replication as ShardReplication;
    const engine = this.#engines[shard] as ToyEngine;
    if (primary === undefined) return;
    const target = { primary, engine, vshards, acks: 2, deadlineAtMs: this.loop.nowUs / 1000 + TIMEOUT_MS };
    const pending = publishWrite(target, write, () => this.writes.push(write));
    primary.commit(pending, heldFor(write), new Uint8Array(0));
  }

  /** Why it is not settled: all shards serve, and all copies are level. */
  get unsettled(): string | undefined {
    if (this.#failure !== undefined) throw ShardloomError.from(this.#failure);
    const { table } = this;
    for (const [shard, worker] of this.#workers.entries()) {
      if (worker.replication === undefined) return `shard ${shard} does not serve`;
      const left = worker.replication.primary?.refilling.size ?? 0;
      if (left > 0) return `shard ${shard} gets ${left} vshards back`;
    }
    for (let vshard = 0; vshard < this.#options.vshards; vshard++)
      for (const shard of this.copiesOf(vshard))
        if (table.appliedLsn(vshard, shard) !== table.head(vshard))
          return `vshard ${vshard} on shard ${shard} is at ${table.appliedLsn(vshard, shard)} of ${table.head(vshard)}`;
    return undefined;
  }

  /** Runs until everything is level. @throws what is not, after so long */
  async settle(withinMs = 20_000): Promise<void> {
    const untilUs = this.loop.nowUs + withinMs * 1000;
    for (let reason = this.unsettled; reason !== undefined; reason = this.unsettled) {
      if (this.loop.nowUs > untilUs) throw new Error(`not level after ${withinMs} ms: ${reason}`);
      if (!(await this.loop.step())) throw new Error(`nothing happens any more: ${reason}`);
    }
  }

  rowsOf(shard: number, vshard: number): string {
    return (this.#rows[shard] as Rows).of(vshard);
  }

  /** What is wrong: copies that differ, and keys that lack what was acknowledged. */
  problems(): string[] {
    const wrong: string[] = [];
    for (let vshard = 0; vshard < this.#options.vshards; vshard++) {
      const [owner = 0, ...others] = this.copiesOf(vshard);
      for (const shard of others)
        if (this.rowsOf(shard, vshard) !== this.rowsOf(owner, vshard))
          wrong.push(
            `vshard ${vshard}: ${shard} has ${this.rowsOf(shard, vshard)}, ${owner} ${this.rowsOf(owner, vshard)}`,
          );
    }
    const keys = new Set(this.writes.flatMap((write) => write.keys));
    for (const key of keys) {
      const own = this.writes.filter((write) => write.keys.includes(key));
      const last = own.findLast(({ state }) => state === "acknowledged")?.number ?? 0;
      const rows = this.#rows[this.map.owners[key % this.#options.vshards] as number] as Rows;
      const row = rows.rows.find((other) => other?.key === key);
      const possible = own.filter(({ number }) => number >= last);
      const fits =
        row === undefined
          ? last === 0 || possible.some(({ deletes }) => deletes)
          : possible.some(({ number, deletes }) => number === row.version && !deletes);
      if (!fits) wrong.push(`key ${key}: has ${row?.version}, write ${last} was acknowledged`);
    }
    return wrong;
  }

  /** Runs what a thread does; where it dies in it the rest does not happen. */
  guard(worker: Worker, act: () => void): void {
    if (!worker.alive) return;
    try {
      act();
    } catch (error) {
      if (!(error instanceof Death)) throw error;
      this.kill(worker);
    }
  }

  #step(worker: Worker, step: string): void {
    const count = (this.steps.get(step) ?? 0) + 1;
    this.steps.set(step, count);
    if (this.fatal?.step !== step || this.fatal.at !== count) return;
    this.died = worker;
    throw new Death();
  }

  /** A disk whose operations are steps: a thread may die before one has begun, and when one has ended. */
  #watched(worker: Worker, disk: Disk): Disk {
    const run = async <T>(operation: string, path: string, act: () => Promise<T>): Promise<T> => {
      const step = `${operation} ${placeOf(path)}`;
      this.#dieAt(worker, `before ${step}`);
      if (!worker.alive) return never();
      const result = await act();
      this.#dieAt(worker, `after ${step}`);
      return worker.alive ? result : never();
    };
    const fileOf = (path: string, file: DiskFile): DiskFile => ({
      read: (offset, length) => file.read(offset, length),
      write: (offset, bytes) => run("write", path, () => file.write(offset, bytes)),
      sync: () => run("sync", path, () => file.sync()),
      truncate: (size) => run("truncate", path, () => file.truncate(size)),
      size: () => file.size(),
      close: () => file.close(),
    });
    return {
      open: (path, mode) => run(`open to ${mode}`, path, async () => fileOf(path, await disk.open(path, mode))),
      list: (path) => disk.list(path),
      remove: (path) => run("remove", path, () => disk.remove(path)),
      rename: (from, to) => run("rename", to, () => disk.rename(from, to)),
      makeDirectory: (path) => run("make", path, () => disk.makeDirectory(path)),
      syncDirectory: (path) => run("sync directory", path, () => disk.syncDirectory(path)),
    };
  }

  #dieAt(worker: Worker, step: string): void {
    try {
      this.#step(worker, step);
    } catch {
      this.kill(worker);
    }
  }

  /** What one thread asks another with: messages arrive in order and late, between the threads that they were sent between. */
  #requester(from: Worker, to: number): PeerRequester | undefined {
    const target = this.#workers[to];
    if (!from.alive || target === undefined) return undefined;
    return {
      maxPayloadBytes: MESSAGE_BYTES,
      request: (type, vshard, priority, deadlineAtMs, payload, sink) => {
        const bytes = payloadBytes(payload);
        const name = MESSAGE_NAMES[type] ?? String(type);
        let isOpen = true;
        const end = (act: (sink: ReplySink) => void): void => {
          if (!isOpen) return;
          isOpen = false;
          this.#open.delete(entry);
          this.guard(from, () => act(sink));
        };
        const entry: OpenRequest = { from, to, fail: (error) => end((s) => s.onFailure(error)) };
        this.#open.add(entry);
        this.loop.at(deadlineAtMs * 1000, () =>
          entry.fail(new ShardloomError("ERR_TIMEOUT", "Cannot wait any longer")),
        );
        this.#deliver(`${from.shard}>${to}`, () => {
          if (this.#workers[to] !== target || target.replication === undefined) return;
          const { replication } = target;
          this.guard(target, () => {
            this.#step(target, `before ${name}`);
            const reply = handle(replication.copies, type, bytes, MESSAGE_BYTES);
            this.#step(target, `after ${name}`);
            this.#deliver(`${to}<${from.shard}`, () =>
              end((s) => {
                this.#step(from, `answer of ${name}`);
                if (reply instanceof Error) s.onFailure(reply);
                else s.onReply({ ...reply, serviceUs: 0, queueUs: 0 });
              }),
            );
          });
        });
        return new PendingRequest(type, vshard, priority, deadlineAtMs, payload, sink, undefined, undefined);
      },
    };
  }

  #deliver(link: string, act: () => void): void {
    const atUs = Math.max(this.#linkAtUs.get(link) ?? 0, this.loop.nowUs + 50 + (this.random.u32() % 2_000)) + 1;
    this.#linkAtUs.set(link, atUs);
    this.loop.at(atUs, act);
  }

  #clock(): Clock {
    return { nowMs: () => this.loop.nowUs / 1000, nowUs: () => this.loop.nowUs };
  }
}

function never<T>(): Promise<T> {
  return new Promise<T>(() => undefined);
}

/** The kind of a file or directory. */
function placeOf(path: string): string {
  return path
    .replace(/^shards\/\d+/, "")
    .replace(/\/[\w.-]*\d{6,}[\w.-]*/, (name) => `/*${/\.[a-z.]+$/.exec(name)?.[0] ?? ""}`);
}
