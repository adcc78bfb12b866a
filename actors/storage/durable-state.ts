/**
 * What of a shard outlives its process: its log, and snapshots of what the log has led to. In a directory, or in NATS (see nats-shard.ts):
 *
 * ```
 *  shards/<n>.begun       there were frames, see log-marks.ts, as is `origin`
 *  shards/<n>/log/        frames, see segment-log.ts; in NATS which stream has them
 *  shards/<n>/snapshots/  everything that the shard holds as of a position; the log before the older of the two newest is forgotten
 * ```
 *
 * Invariant: after `load` the engines hold what every durable frame says, and nothing else. A snapshot counts when it is whole and everything
 * that may show in it is durable in the log; until then the one before it, and the log after that, are kept.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { ShardStorage, ShardStorageStats } from "../../src/plane/shard-task.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import type { Disk } from "../../src/runtime/disk.ts";
import type { Scheduler } from "../../src/runtime/scheduler.ts";
import { openDocumentsForRecovery } from "../../src/store/document-recovery.ts";
import type { KeptLog } from "../../src/store/kept-log.ts";
import { encodeEndLsn, LOG_ENTRY, type ShardLogEntry } from "../../src/store/log.ts";
import { hasBegun, hasOrigin, markBegun, markOrigin, unmark } from "../../src/store/log-marks.ts";
import { segmentsOf } from "../../src/store/segment-format.ts";
import { SegmentLog } from "../../src/store/segment-log.ts";
import { openNewestSnapshot, type SnapshotReader } from "../../src/store/snapshot-file.ts";
import { joinDocuments } from "../document-codecs.ts";
import type { ReplicatedEngine } from "../engine.ts";
import { partsOf } from "../snapshot-parts.ts";
import { applyEffect, noteLog, replay } from "./replay.ts";
import { SnapshotTask } from "./snapshot-task.ts";
import { StorageTroubles } from "./storage-troubles.ts";
import { TrackedLog } from "./tracked-log.ts";
import { VSHARD_STATE, VshardStates } from "./vshard-states.ts";

/** What a shard's durable state is opened with. */
export interface DurableStateOptions {
  readonly shard: number;
  readonly vshards: number;
  /** Of the shard's worker. */
  readonly incarnation: number;
  /** Whether a worker of this process had the shard before, which may not have ended. */
  readonly adopts: boolean;
  readonly storage: ShardStorage;
  /** The node's directory, or what the shard has in its place. */
  readonly disk: Disk;
  /** Opens the log where it is no files on the disk. @param begun Whether it has had frames. @default it is */
  readonly openLog?: ((begun: boolean) => Promise<KeptLog>) | undefined;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
}

/** A vshard whose content is written to the log. */
export interface Relogged {
  readonly vshard: number;
  /** What its rows are as of now. */
  readonly lsn: number;
  /** LSN that what the log has so far is good for; -1: for nothing. */
  readonly floor: number;
}

/** What loading found and did. */
export interface LoadReport {
  /** Position of the snapshot that was loaded; 0: none. */
  readonly snapshotPosition: number;
  readonly parts: number;
  /** Effects that were applied from the log after it. */
  readonly replayed: number;
  /** Bytes behind the last whole frame, cut off. */
  readonly cutBytes: number;
}

const EMPTY: Uint8Array = new Uint8Array(0);
const NOTHING = { leaseEpoch: 0, type: 0, collection: 0, body: EMPTY, idempotencyKey: "", result: EMPTY } as const;
const MIN_SEGMENT_BYTES: number = 4 * 1024;
const MAX_SEGMENT_BYTES: number = 16 * 1024 * 1024;
/** Bytes of one part of a vshard that is written to the log. */
const PART_BYTES: number = 64 * 1024;

export class DurableState {
  readonly log: TrackedLog;
  readonly states: VshardStates;
  readonly troubles: StorageTroubles = new StorageTroubles();
  readonly #options: DurableStateOptions;
  readonly #kept: KeptLog;
  readonly #snapshots: SnapshotTask;
  #damage: ShardloomError | undefined;
  readonly #durablePositions: Float64Array;
  #failedRelogs: (() => void)[] = [];
  /** By vshard, whose rows were here before the log had them: position from which on it has; infinity: not yet. */
  readonly #relogged: Map<number, number> = new Map();
  /** What was found in the log, synced or not. */
  readonly #found: number;
  /** Whether the mark is there that the log has begun. */
  #begun = false;
  /** As it was opened: no life of the node has ever synced a segment of it. */
  #isUnwritten = false;
  #marking: Promise<void> | undefined;

  private constructor(options: DurableStateOptions, kept: KeptLog) {
    this.#options = options;
    this.#kept = kept;
    this.#found = kept.head;
    this.states = new VshardStates(options.vshards);
    this.#durablePositions = new Float64Array(options.storage.durable);
    this.log = new TrackedLog(kept, this.states);
    this.#snapshots = new SnapshotTask({
      ...options,
      log: this.log,
      directory: `${directoryOf(options.shard)}/snapshots`,
    });
  }

  /** Opens a shard's log, after any crash. See {@link damage}. @throws {ShardloomError} As disks do. */
  static open(options: DurableStateOptions): Promise<DurableState> {
    return DurableState.#openAt(options, options.incarnation === 1 && !options.adopts);
  }

  /** @param isFirst Whether nobody can have acknowledged anything before. */
  static async #openAt(options: DurableStateOptions, isFirst: boolean): Promise<DurableState> {
    const { disk, shard, storage, scheduler } = options;
    const directory = directoryOf(shard);
    for (const path of [
      "shards",
      directory,
      ...["log", "snapshots", "indexes"].map((name) => `${directory}/${name}`),
    ]) {
      await disk.makeDirectory(path);
      await disk.syncDirectory(path.slice(0, Math.max(0, path.lastIndexOf("/"))));
    }
    const begun = await hasBegun(disk, shard);
    const openSegments = (): Promise<KeptLog> =>
      SegmentLog.open(disk, `${directory}/log`, {
        begun,
        durability: storage.durability,
        scheduler,
        owner: options.incarnation,
        resumes: !options.adopts,
        segmentBytes: segmentBytesFor(storage.snapshotBytes),
      });
    const kept = await (options.openLog?.(begun) ?? openSegments());
    const opened = new DurableState(options, kept);
    opened.#damage = damageOf(options, kept);
    opened.#begun = begun;
    const isUnwritten = !begun && kept.head === 0 && segmentsOf(await disk.list(`${directory}/log`)).size === 0;
    if (isUnwritten && isFirst) await markOrigin(disk, shard);
    opened.#isUnwritten = isUnwritten && storage.durability === "fsync" && (await hasOrigin(disk, shard));
    await opened.#markBegun();
    return opened;
  }

  /** Puts what is damaged aside and begins with nothing. */
  static async openEmpty(options: DurableStateOptions): Promise<DurableState> {
    await putAside(options.disk, directoryOf(options.shard));
    await unmark(options.disk, options.shard);
    return DurableState.#openAt(options, false);
  }

  /** Why what was written cannot all be read; undefined: it can. */
  get damage(): ShardloomError | undefined {
    return this.#damage;
  }

  /** How the storage is. */
  stats(): ShardStorageStats {
    const nowMs = this.#options.clock.nowMs();
    return this.troubles.stats({ damage: this.#damage, log: this.log.failure, checkpoint: this.#snapshots, nowMs });
  }

  /** Whether there is nothing, though a life before may have acknowledged something: in an earlier one that synced nothing, nobody did. */
  get isBlank(): boolean {
    return this.log.head === 0 && !this.#isUnwritten;
  }

  /** Fills empty engines with what the disk has, unless that is found to be damaged. */
  async load(engines: readonly ReplicatedEngine[]): Promise<LoadReport | undefined> {
    if (this.#damage !== undefined) return undefined;
    for (let below = Number.POSITIVE_INFINITY; ; ) {
      const snapshot = await this.#open(below);
      if (this.#damage !== undefined) return this.#loadDocuments(engines);
      try {
        return await this.#load(engines, snapshot);
      } catch (error) {
        if (!ShardloomError.is(error) || error.code !== "ERR_CORRUPT") throw error;
        this.troubles.note(error);
        if (snapshot === undefined) {
          this.#damage = error;
          return this.#loadDocuments(engines);
        }
        below = snapshot.position; // rows that it gave are written again, or deleted, by the log after an older one
      }
    }
  }

  /** The newest snapshot that the log makes whole. */
  async #open(below: number): Promise<SnapshotReader | undefined> {
    const { log } = this;
    const { disk, shard } = this.#options;
    const usable = ({ position, endPosition }: { position: number; endPosition: number }): boolean =>
      position + 1 >= log.first && endPosition <= log.head;
    try {
      const found = await openNewestSnapshot(disk, `${directoryOf(shard)}/snapshots`, { below, usable });
      this.troubles.note(...(found?.damaged ?? []));
      if (found !== undefined || log.first <= 1) return found;
      this.#damage = new ShardloomError(
        "ERR_CORRUPT",
        `Cannot load shard ${shard} as its log begins at position ${log.first} and no whole snapshot reaches it`,
        { details: { shard, first: log.first } },
      );
    } catch (error) {
      if (!ShardloomError.is(error) || error.code !== "ERR_CORRUPT") throw error;
      this.troubles.note(error);
      if (log.first > 1) this.#damage = error;
    }
    return undefined;
  }

  async #load(engines: readonly ReplicatedEngine[], snapshot: SnapshotReader | undefined): Promise<LoadReport> {
    const { log, states } = this;
    let parts = 0;
    if (snapshot !== undefined) {
      states.decode(snapshot.table);
      for await (const { vshard, part } of snapshot.parts()) {
        applyEffect(engines, vshard, part.type, part.collection, part.body);
        parts++;
      }
    }
    const position = snapshot?.position ?? 0;
    const replayed = await replay({ log, states, engines }, position + 1);
    this.#snapshots.loaded(position, snapshot?.bytes ?? 0);
    return { snapshotPosition: position, parts, replayed, cutBytes: this.#kept.recovery.cutBytes };
  }

  /** No snapshot is left that the log makes whole: perhaps the documents are. Which keyed writes were done before is not known then. */
  async #loadDocuments(engines: readonly ReplicatedEngine[]): Promise<LoadReport | undefined> {
    const { log, states } = this;
    const { disk, shard, storage } = this.#options;
    const { documents: kept, directory } = storage;
    if (kept === undefined || directory === undefined || this.#kept.recovery.corrupt !== undefined) return undefined;
    const source = { disk, directory, shard, clusterId: kept.clusterId, randomU32: () => 0 };
    const documents = await openDocumentsForRecovery(source, log);
    if (documents === undefined) return undefined;
    try {
      if ([...documents.vshards.values()].some(({ state }) => state !== "whole")) return undefined;
      let parts = 0;
      for (const { vshard, type, collection, body } of documents.entries(joinDocuments, PART_BYTES)) {
        applyEffect(engines, vshard, type, collection, body);
        parts++;
      }
      const { appliedPosition } = documents.meta;
      states.take(documents.vshards);
      const replayed = await replay({ log, states, engines }, appliedPosition + 1);
      this.troubles.note(this.#damage);
      this.#damage = undefined;
      this.#snapshots.missing(); // or a second crash would depend on the documents again
      return { snapshotPosition: appliedPosition, parts, replayed, cutBytes: this.#kept.recovery.cutBytes };
    } finally {
      documents.close();
    }
  }

  /** Takes in what the log says, for a successor that has the content in memory. */
  async adopt(): Promise<void> {
    if (this.#damage !== undefined) return;
    const { log, states } = this;
    const snapshot = await this.#open(Number.POSITIVE_INFINITY);
    if (snapshot !== undefined) states.decode(snapshot.table);
    const position = snapshot?.position ?? 0;
    if (this.#damage === undefined) await noteLog(log, states, position + 1);
    this.#snapshots.loaded(position, snapshot?.bytes ?? 0);
  }

  /** Nothing is known of what these vshards hold, until each has been logged whole. */
  lose(vshards: Iterable<number>): void {
    const entries = Array.from(
      vshards,
      (vshard): ShardLogEntry => ({ ...NOTHING, kind: LOG_ENTRY.RESTORE_BEGIN, vshard, lsn: -1 }),
    );
    if (entries.length > 0) this.log.append(entries);
  }

  /** Writes all that some vshards hold to the log, as what they are from now on: after a crash all of them are so, or none. */
  relog(engines: readonly ReplicatedEngine[], vshards: readonly Relogged[]): void {
    if (vshards.length === 0) return;
    const { log, states } = this;
    for (const { vshard } of vshards) this.#relogged.set(vshard, Number.POSITIVE_INFINITY);
    try {
      log.append(
        vshards.map(({ vshard, floor }) => ({ ...NOTHING, kind: LOG_ENTRY.RESTORE_BEGIN, vshard, lsn: floor })),
      );
      for (const { vshard } of vshards) {
        const next = partsOf(engines, vshard, PART_BYTES);
        for (let part = next(); part !== undefined; part = next())
          log.append([{ ...NOTHING, ...part, kind: LOG_ENTRY.RESTORE_PART, vshard, lsn: 0 }]);
      }
      log.append(
        vshards.map(({ vshard, lsn }) => {
          const reached = Math.max(lsn, states.lsnOf(vshard));
          return { ...NOTHING, kind: LOG_ENTRY.RESTORE_END, vshard, lsn: reached, body: encodeEndLsn(reached) };
        }),
      );
      for (const { vshard } of vshards) this.#relogged.set(vshard, log.head);
    } catch (error) {
      if (!ShardloomError.is(error)) throw error;
      // The log takes nothing now: again from the beginning when it does.
      this.#failedRelogs.push(() => this.relog(engines, vshards));
    }
  }

  /** Takes snapshots from now on. @param held Vshards that the shard holds, read when one begins. */
  start(engines: readonly ReplicatedEngine[], held: () => Iterable<number>): void {
    this.#snapshots.start(engines, held);
  }

  /** To be called when the log has changed. */
  logChanged(): void {
    const { log } = this;
    if (log.failure === undefined) for (const again of this.#failedRelogs.splice(0)) again();
    this.publish();
    void this.#markBegun();
    this.#snapshots.consider();
  }

  /** Tells the thread that keeps the documents how far the log is durable. */
  publish(): void {
    const { shard } = this.#options;
    // Not `durable`: what is acknowledged from memory is not in the files yet.
    this.#durablePositions[shard] = this.#kept.readable;
  }

  /** Position from which on the log has the rows that were here of a vshard before it had them; infinity: it does not take them yet. */
  loggedAt(vshard: number): number {
    if (this.#options.storage.durability === "memory") return 0;
    return Math.max(this.#found, this.#relogged.get(vshard) ?? 0);
  }

  /** A vshard that this shard has all of. */
  isWhole(vshard: number): boolean {
    const state = this.states.stateOf(vshard);
    return state === VSHARD_STATE.EMPTY || state === VSHARD_STATE.WHOLE;
  }

  async close(): Promise<void> {
    await this.#snapshots.close();
    await this.log.close();
    await this.#markBegun();
  }

  /** Marks that the log has begun, once a segment of it is durable. Where that fails it is tried again when the log has changed. */
  #markBegun(): Promise<void> {
    if (this.#begun || this.#kept.readable === 0) return Promise.resolve();
    const { disk, shard } = this.#options;
    this.#marking ??= markBegun(disk, shard)
      .then(
        () => {
          this.#begun = true;
        },
        () => undefined, // the log says on its own why its disk takes nothing
      )
      .finally(() => {
        this.#marking = undefined;
      });
    return this.#marking;
  }
}

/** So that what a snapshot makes superfluous goes with whole segments soon after it. */
function segmentBytesFor(snapshotBytes: number): number {
  return Math.min(MAX_SEGMENT_BYTES, Math.max(MIN_SEGMENT_BYTES, Math.floor(snapshotBytes / 4)));
}

/** The directory of a shard, below its node's. */
export function directoryOf(shard: number): string {
  return `shards/${shard}`;
}

function damageOf({ shard }: DurableStateOptions, { recovery: { corrupt } }: KeptLog): ShardloomError | undefined {
  if (corrupt === undefined) return undefined;
  const found = corrupt.gone === true ? "all of it is gone" : `position ${corrupt.position} is not`;
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot serve shard ${shard} as its log must be as it was written: ${found}`,
    { details: { shard, ...corrupt } },
  );
}

/** Moves all files of a shard below `damaged`, for somebody to look at; what was there before is replaced. */
async function putAside(disk: Disk, directory: string): Promise<void> {
  await disk.makeDirectory(`${directory}/damaged`);
  for (const kind of ["log", "snapshots"]) {
    for (const name of await disk.list(`${directory}/${kind}`))
      await disk.rename(`${directory}/${kind}/${name}`, `${directory}/damaged/${name}`);
    await disk.syncDirectory(`${directory}/damaged`);
    await disk.syncDirectory(`${directory}/${kind}`);
  }
}
