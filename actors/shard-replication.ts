/**
 * How the data of a shard outlives its worker: copies on other shards, and a log on disk.
 *
 * Order of a start: the disk is opened, engines are filled from it (or a predecessor's memory is adopted), then copies, primary and gate are made
 * over what was found, and from `start` on everything that changes goes to the log and to the copies.
 *
 * Invariant: whatever of a shard's disk is damaged is never served. With copies elsewhere the shard begins with nothing, or with what a predecessor
 * has left in memory, and gets the rest of its vshards back from them; without, every planned request fails with the damage.
 */
import { ShardloomError } from "../src/errors.ts";
import type { ShardStorage, ShardStorageStats } from "../src/plane/shard-task.ts";
import type { CallDefaults } from "../src/routing/call-defaults.ts";
import type { Clock } from "../src/runtime/clock.ts";
import type { Disk } from "../src/runtime/disk.ts";
import type { Scheduler } from "../src/runtime/scheduler.ts";
import type { BackupPart, VshardContent } from "../src/store/backup-manifest.ts";
import { backupShard } from "../src/store/backup-shard.ts";
import type { NatsPlace, NatsShard } from "../src/store/nats-shard.ts";
import { LeaseWords } from "../src/topology/lease-words.ts";
import { nodeIncarnationOf } from "../src/topology/member.ts";
import { ReplicaTable } from "../src/topology/replica-table.ts";
import type { TopologySource } from "../src/topology/topology-source.ts";
import { acksOf } from "./call-options.ts";
import type { Engine, IndexStorage, ReplicatedEngine } from "./engine.ts";
import { auditAtOnce, auditShard } from "./replication/audit-shard.ts";
import { Copies } from "./replication/copies.ts";
import { Primary } from "./replication/primary.ts";
import type { PeerRequester } from "./replication/replica-link-options.ts";
import { VshardGate } from "./replication/vshard-gate.ts";
import type { ShardEngines } from "./shard-engines.ts";
import { DurableState, type DurableStateOptions, directoryOf } from "./storage/durable-state.ts";
import { heldVshards, logAdopted, publishRecovered } from "./storage/recovered-copies.ts";

/** What a shard's replication is made of. */
export interface ShardReplicationOptions {
  readonly shard: number;
  readonly incarnation: number;
  /** The block of the replica table. */
  readonly replicas: SharedArrayBuffer;
  readonly topology: TopologySource;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly defaults: CallDefaults;
  /** Undefined: nothing is kept on disk. */
  readonly storage: ShardStorage | undefined;
  readonly openDisk: (directory: string) => Promise<Disk>;
  readonly openNats?: (place: NatsPlace, shard: number) => Promise<NatsShard>;
  /** Whether the shard's rows are a predecessor's, in memory. */
  readonly adopts: boolean;
  readonly requester: (peer: number) => PeerRequester | undefined;
  /** Replies may have been written. */
  readonly onChange: () => void;
}

export class ShardReplication {
  readonly #options: ShardReplicationOptions;
  readonly #table: ReplicaTable;
  #durable: DurableState | undefined;
  #disk: Disk | undefined;
  #nats: NatsShard | undefined;
  #indexes: ShardEngines | undefined;
  #engines: readonly ReplicatedEngine[] = [];
  #copies!: Copies;
  /** Undefined when there is neither a copy nor a log. */
  primary: Primary | undefined;
  gate!: VshardGate;

  private constructor(options: ShardReplicationOptions) {
    this.#options = options;
    const { clock, topology, replicas } = options;
    this.#table = new ReplicaTable(replicas, topology, () => clock.nowMs());
  }

  /** Opens what the shard has on disk. @throws {ShardloomError} As disks do. */
  static async open(options: ShardReplicationOptions): Promise<ShardReplication> {
    const replication = new ShardReplication(options);
    const { storage } = options;
    if (storage === undefined) return replication;
    try {
      const disk = await replication.#openPlace(storage);
      replication.#disk = disk;
      replication.#durable = await DurableState.open(replication.#stateOptions(storage, disk));
    } catch (error) {
      await replication.#nats?.close();
      throw error;
    }
    return replication;
  }

  /** Why nothing can be answered for; undefined: all is well. */
  get damage(): ShardloomError | undefined {
    return this.#durable?.damage;
  }

  /** How the storage is; undefined where there is none. */
  get storage(): ShardStorageStats | undefined {
    return this.#durable?.stats();
  }

  /** Whether the log is on its way to the disk: the loop that serves it must turn. */
  get writing(): boolean {
    const log = this.#durable?.log;
    return log !== undefined && log.durable < log.head && log.failure === undefined;
  }

  /** Handlers of what primaries send to the copies here. */
  get copies(): Engine {
    return { handlers: this.#copies.handlers, close: () => undefined };
  }

  /** Fills the engines from disk, unless they have a predecessor's rows. */
  async recover(engines: ShardEngines): Promise<void> {
    this.#engines = engines.all.flatMap((engine) => (engine.replicated === undefined ? [] : [engine.replicated]));
    this.#indexes = engines;
    const { storage, shard, adopts } = this.#options;
    if (this.#durable !== undefined) await this.#recoverState(this.#durable);
    if (this.#disk !== undefined && !adopts && this.damage === undefined)
      await engines.loadIndexes(this.#indexStorage(this.#disk));
    this.#durable?.publish();
    if (storage !== undefined) Atomics.store(new Int32Array(storage.loaded), shard, 1);
    this.#compose();
  }

  /** What the copies here hold. @param vshards @default all of the shard */
  audit(vshards?: readonly number[]): Promise<VshardContent[]> {
    const { shard, topology, clock, scheduler } = this.#options;
    return auditShard({ shard, topology, table: this.#table, engines: this.#engines, clock, scheduler }, vshards);
  }

  /** From here on changes go to the log and to the copies. */
  start(): void {
    const { adopts, topology, shard } = this.#options;
    const durable = this.#durable;
    if (durable !== undefined && durable.damage === undefined) {
      const held = (): number[] => heldVshards(topology.current(), shard);
      if (adopts) logAdopted(durable, this.#engines, this.#table, topology.current(), shard);
      durable.start(this.#engines, held);
    }
    this.primary?.start();
  }

  /** Ends all that waits, saves what was derived, and closes the log. */
  async close(): Promise<void> {
    await this.#durable?.close();
    this.primary?.close();
    if (this.#disk !== undefined && this.damage === undefined)
      await this.#indexes?.saveIndexes(this.#indexStorage(this.#disk)).catch(() => undefined); // they are derived anew
    await this.#nats?.close();
  }

  /**
   * Copies what the shard has on disk, while it serves.
   *
   * @param progress Shape: `Float64Array[3]`: bytes done, bytes in all, whether to stop.
   * @throws {ShardloomError} `ERR_UNAVAILABLE` when it keeps nothing, `ERR_CORRUPT`, `ERR_ABORTED`, and as disks do.
   */
  async backup(target: string, progress: SharedArrayBuffer): Promise<BackupPart> {
    const { shard, topology, clock, scheduler, openDisk } = this.#options;
    const log = this.#durable?.log;
    const source = this.#disk;
    if (log === undefined || source === undefined || this.#nats !== undefined)
      throw new ShardloomError("ERR_UNAVAILABLE", `Cannot back up shard ${shard} as it keeps nothing in a directory`);
    if (this.damage !== undefined) throw this.damage;
    const words = new Float64Array(progress);
    const audited = { shard, topology, table: this.#table, engines: this.#engines, clock, scheduler };
    return backupShard({
      shard,
      source,
      target: await openDisk(target),
      live: {
        log,
        contents: async () => {
          const { mark: position, contents } = await auditAtOnce(audited, () => log.head);
          return { position, contents };
        },
      },
      watch: {
        onBytes: (bytes) => {
          words[0] = (words[0] as number) + bytes;
        },
        check: () => {
          if (words[2] !== 0)
            throw new ShardloomError("ERR_ABORTED", `Cannot finish backup of shard ${shard} as it was stopped`);
        },
      },
      onTotal: (bytes) => {
        words[1] = bytes;
      },
    });
  }

  /** Opens where the shard keeps what it has: a directory, or its part of a place in NATS. */
  async #openPlace({ directory, nats }: ShardStorage): Promise<Disk> {
    const { shard, openDisk, openNats } = this.#options;
    if (nats === undefined) return openDisk(directory as string);
    if (openNats === undefined)
      throw new ShardloomError("ERR_UNAVAILABLE", `Cannot open shard ${shard} as its worker has no network to NATS`);
    this.#nats = await openNats(nats, shard);
    return this.#nats.disk;
  }

  #indexStorage(disk: Disk): IndexStorage {
    return { disk, directory: `${directoryOf(this.#options.shard)}/indexes` };
  }

  async #recoverState(found: DurableState): Promise<void> {
    const { adopts, shard, incarnation, topology, storage, clock } = this.#options;
    const snapshot = topology.current();
    if (adopts) await found.adopt();
    else await found.load(this.#engines);
    const begun = found.isBlank && nodeIncarnationOf(incarnation) > 1;
    let durable = found;
    if (found.damage !== undefined && snapshot.replicationFactor > 1) {
      const disk = this.#nats?.disk ?? (await this.#openPlace(storage as ShardStorage));
      await found.log.close().catch(() => undefined); // whatever it says: it is put aside
      durable = await DurableState.openEmpty(this.#stateOptions(storage as ShardStorage, disk));
      found.troubles.note(found.damage);
      durable.troubles.take(found.troubles);
      this.#durable = durable;
    }
    // A life before had something, and this disk has not; what is in memory will be logged.
    if ((durable !== found || (begun && !adopts)) && snapshot.replicationFactor > 1)
      durable.lose(heldVshards(snapshot, shard));
    if (adopts) return;
    if (durable.damage === undefined) publishRecovered(durable, this.#table, snapshot, shard, clock.nowMs());
  }

  #compose(): void {
    const { shard, incarnation, topology, clock, scheduler, defaults, storage, requester, onChange } = this.#options;
    const table = this.#table;
    const durable = this.#durable;
    const log = durable?.log;
    const engines = this.#engines;
    const nowMs = (): number => clock.nowMs();
    const isRemote = (vshard: number): boolean => table.isSampled(vshard) && storage?.durability !== "memory";
    const isFresh = !this.#options.adopts;
    const forgets = storage?.durability === "memory" && nodeIncarnationOf(incarnation) > 1;
    const loggedAt = (vshard: number): number => durable?.loggedAt(vshard) ?? 0;
    const options = { shard, incarnation, topology, table, nowMs, engines, log, loggedAt, isRemote, isFresh, forgets };
    const copies = new Copies(options);
    const lease = new LeaseWords(this.#options.replicas, nowMs, shard);
    const { replicationFactor } = topology.current();
    const primary =
      replicationFactor === 1 && durable === undefined
        ? undefined
        : new Primary({
            ...options,
            acks: acksOf(defaults.acks, replicationFactor),
            requestTimeoutMs: defaults.requestTimeoutMs,
            clock,
            scheduler,
            requester,
            own: (vshard) => copies.own(vshard),
            onLevel: (vshard) => copies.noteLevel(vshard),
            lease,
            isLogged: (vshard) => durable?.isWhole(vshard) !== false,
            onRefilled: (vshard, lsn) => durable?.relog(engines, [{ vshard, lsn, floor: -1 }]),
          });
    if (log !== undefined) {
      log.onChange = () => {
        durable?.logChanged();
        primary?.logChanged();
        copies.logChanged();
        onChange();
      };
    }
    this.#copies = copies;
    this.primary = primary;
    this.gate = new VshardGate(shard, topology, table, primary, lease);
  }

  #stateOptions(storage: ShardStorage, disk: Disk): DurableStateOptions {
    const { shard, incarnation, adopts, topology, clock, scheduler } = this.#options;
    const { vshards } = topology.current();
    const openLog = this.#nats?.openLog;
    return { shard, incarnation, adopts, vshards, storage, disk, openLog, clock, scheduler };
  }
}
