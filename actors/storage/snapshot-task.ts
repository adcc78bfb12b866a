/**
 * Takes snapshots of a shard in the background, part by part, between its requests.
 *
 * Invariant: one at a time. What a snapshot shows may be newer than the position that it is named by, never older; it counts when everything
 * that it may show is durable in the log. No vshard is being restored when it ends, so no half of a restore is ever taken for a whole.
 * Two snapshots and the log after the older one are kept, so that the damage of one loses nothing.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { ShardStorage } from "../../src/plane/shard-task.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import type { Disk } from "../../src/runtime/disk.ts";
import { type Scheduler, sleep } from "../../src/runtime/scheduler.ts";
import { removeOldSnapshots, SnapshotWriter } from "../../src/store/snapshot-file.ts";
import type { ReplicatedEngine } from "../engine.ts";
import { partsOf } from "../snapshot-parts.ts";
import type { TrackedLog } from "./tracked-log.ts";

/** What snapshots are taken with. */
export interface SnapshotTaskOptions {
  readonly disk: Disk;
  readonly directory: string;
  /** Of the shard's worker. */
  readonly incarnation: number;
  readonly log: TrackedLog;
  readonly storage: Pick<ShardStorage, "snapshotBytes" | "snapshotBytesPerSecond">;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
}

/** Bytes of one part. */
const PART_BYTES: number = 64 * 1024;
/** Pause before a restore is looked at again that keeps a snapshot from ending, and how often. */
const RESTORE_WAIT_MS = 50;
const RESTORE_WAITS = 200;
/** Part of `snapshotBytes` that must be appended before a snapshot that failed is tried again. */
const RETRY_SHARE = 0.25;
/** Snapshots that are kept. */
const KEPT = 2;

export class SnapshotTask {
  readonly #options: SnapshotTaskOptions;
  #engines: readonly ReplicatedEngine[] = [];
  #held: (() => Iterable<number>) | undefined;
  #running: Promise<void> | undefined;
  #closed = false;
  /** Position of the newest snapshot, and of the one before it. */
  #newest = 0;
  #previous = 0;
  #bytes = 0;
  #failure: ShardloomError | undefined;
  #failingSinceMs = 0;
  #dueBytes: number;

  constructor(options: SnapshotTaskOptions) {
    this.#options = options;
    this.#dueBytes = options.storage.snapshotBytes;
  }

  /** Why the last one failed; undefined: it did not. */
  get failure(): ShardloomError | undefined {
    return this.#failure;
  }

  /** Since when none could be taken, by the clock; meaningless without {@link failure}. */
  get failingSinceMs(): number {
    return this.#failingSinceMs;
  }

  /** The newest snapshot of those that there are. */
  loaded(position: number, bytes: number): void {
    this.#newest = position;
    this.#bytes = bytes;
  }

  /** There is none that can be relied on: the next one is taken at once. */
  missing(): void {
    this.#dueBytes = 0;
  }

  start(engines: readonly ReplicatedEngine[], held: () => Iterable<number>): void {
    this.#engines = engines;
    this.#held = held;
    this.consider();
  }

  /** Begins one when enough was appended: as much as the last one had, so that no more than every other byte is a snapshot's. */
  consider(): void {
    const { log } = this.#options;
    if (this.#held === undefined || this.#running !== undefined || this.#closed) return;
    if (log.appendedBytes < Math.max(this.#dueBytes, this.#bytes) || log.failure !== undefined) return;
    void this.take().catch(() => undefined); // told by `failure`
  }

  /** Takes one now, or waits for the one under way. */
  take(): Promise<void> {
    this.#running ??= this.#take().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#running?.catch(() => undefined);
  }

  async #take(): Promise<void> {
    const { log, disk, directory, storage, incarnation: owner } = this.#options;
    const { states } = log;
    const position = states.replayFrom(log.head) - 1;
    const table = states.encode();
    log.appendedBytes = 0;
    let writer: SnapshotWriter | undefined;
    try {
      if (position <= this.#newest) return; // a restore since before it has not ended
      writer = await SnapshotWriter.create(disk, directory, position, owner);
      const bytes = await this.#write(writer);
      await this.#untilRestored();
      const endPosition = log.head;
      await log.flush();
      await writer.finish({ endPosition, table });
      this.#previous = this.#newest;
      this.#newest = position;
      this.#bytes = bytes;
      this.#dueBytes = storage.snapshotBytes;
      this.#failure = undefined;
      await removeOldSnapshots(disk, directory, KEPT);
      await log.truncateBelow(this.#previous + 1);
    } catch (error) {
      if (this.#failure === undefined) this.#failingSinceMs = this.#options.clock.nowMs();
      this.#failure = ShardloomError.from(error);
      this.#dueBytes = storage.snapshotBytes * RETRY_SHARE;
      await writer?.abort().catch(() => undefined); // the first failure says more
      throw this.#failure;
    }
  }

  async #write(writer: SnapshotWriter): Promise<number> {
    const { clock, scheduler, storage } = this.#options;
    const beganMs = clock.nowMs();
    let bytes = 0;
    for (const vshard of this.#held?.() ?? []) {
      const next = partsOf(this.#engines, vshard, PART_BYTES);
      for (let part = next(); part !== undefined; part = next()) {
        await writer.write(vshard, part);
        bytes += part.body.length;
        const aheadMs = (bytes / storage.snapshotBytesPerSecond) * 1000 - (clock.nowMs() - beganMs);
        await sleep(scheduler, Math.max(0, aheadMs));
        if (this.#closed) throw new ShardloomError("ERR_CLOSED", "Cannot finish snapshot as the shard is closed");
      }
    }
    return bytes;
  }

  async #untilRestored(): Promise<void> {
    const { log, scheduler } = this.#options;
    for (let waits = 0; log.states.restoring; waits++) {
      if (waits === RESTORE_WAITS || this.#closed)
        throw new ShardloomError("ERR_UNAVAILABLE", "Cannot finish snapshot as a vshard is being restored");
      await sleep(scheduler, RESTORE_WAIT_MS);
    }
  }
}
