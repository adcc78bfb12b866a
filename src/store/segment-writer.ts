/**
 * The segment that a shard log writes to, and a spare one behind it, whose blocks are allocated by really writing zeros.
 *
 * Invariant: a file has a segment's name only after its header and its first group were synced, and everything before them too; so the name
 * alone says that they are durable, and a header that cannot be read under such a name is damage. Once a write or a sync of a
 * segment has failed nothing is ever written to it again: after a failed sync only writing again helps, and elsewhere. A disk that has no room
 * for a segment of the size that is due is asked for smaller ones, so that it is used to its end.
 * Source: Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020.
 */
import { ShardloomError } from "../errors.ts";
import type { Disk, DiskFile } from "../runtime/disk.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
import {
  encodeSegmentHeader,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
  segmentName,
  spareName,
  stampRecord,
} from "./segment-format.ts";
import type { Group } from "./segment-line.ts";

/** Zeros are written in pieces of so many bytes, so that what is appended meanwhile gets its turn at the disk. */
const ZEROS_BYTES: number = 256 * 1024;
/** How much larger a segment is than the one before it, up to the largest; and how much smaller a spare is than one that did not fit the disk. */
const GROWTH = 4;
/** First and longest wait before something that failed is tried again. */
export const RETRY_MS = { first: 100, longest: 5_000 } as const;

let zeros: Uint8Array | undefined;

/** A file that can become a segment. */
interface Spare {
  readonly file: DiskFile;
  readonly path: string;
  readonly generation: number;
  readonly capacity: number;
}

/** The segment that is written to. */
interface Active {
  readonly file: DiskFile;
  readonly generation: number;
  /** Bytes that are allocated. More can be written; that may fail. */
  readonly capacity: number;
  end: number;
}

export interface SegmentWriterOptions {
  readonly disk: Disk;
  readonly directory: string;
  readonly scheduler: Scheduler;
  /** See {@link SegmentHeader.log}. */
  readonly log: number;
  /** The highest that the log has had. */
  readonly generation: number;
  /** See `SegmentLogOptions.owner`. */
  readonly owner: number;
  /** The segment before one that begins at a position. */
  readonly previous: (first: number) => Pick<SegmentHeader, "previousFirst" | "previousOwner">;
  readonly firstSegmentBytes: number;
  readonly segmentBytes: number;
  /** Called when a spare has come, or could not be made. */
  readonly onSpare: () => void;
}

/** What {@link SegmentWriter.write} knows of the log. */
export type Known = Pick<SegmentHeader, "durable" | "leaseEpoch">;

export class SegmentWriter {
  readonly #options: SegmentWriterOptions;
  #generation: number;
  #capacity: number;
  #active: Active | undefined;
  #spare: Spare | undefined;
  #spareFailure: ShardloomError | undefined;
  #making: Promise<void> | undefined;
  #retry: Timer | undefined;
  #retries = 0;
  #closed = false;

  constructor(options: SegmentWriterOptions) {
    this.#options = options;
    this.#generation = options.generation;
    this.#capacity = options.firstSegmentBytes;
  }

  /** Why there is no spare segment, or only one that is smaller than it should be. */
  get spareFailure(): ShardloomError | undefined {
    return this.#spareFailure;
  }

  /** Whether so many bytes have allocated room, in one piece. */
  hasRoom(bytes: number): boolean {
    return this.#fits(bytes) || (this.#spare !== undefined && this.#spare.capacity - SEGMENT_HEADER_BYTES >= bytes);
  }

  /** Whether a group goes to the segment that there is. */
  takes(group: Group): boolean {
    return this.#fits(group.length);
  }

  /** Goes on with a segment of an earlier life, behind its last record. */
  resume(file: DiskFile, generation: number, capacity: number, end: number): void {
    this.#active = { file, generation, capacity, end };
    this.#capacity = Math.min(this.#options.segmentBytes, Math.max(capacity, this.#capacity) * GROWTH);
  }

  /** Makes a spare segment, unless there is one of the size that is due. Never throws: see {@link SegmentWriter.spareFailure}. */
  prepare(): Promise<void> {
    this.#retry?.cancel();
    this.#retry = undefined;
    if (this.#closed || (this.#spare !== undefined && this.#spareFailure === undefined)) return Promise.resolve();
    this.#making ??= this.#make().finally(() => {
      this.#making = undefined;
    });
    return this.#making;
  }

  /**
   * Writes a group behind the last one. What was written before must be synced when the segment does not take it.
   *
   * @param durably Whether it is to be synced as well, as nothing before it waits for that.
   * @returns the first position of the segment that was made for it, with all of it synced; undefined: it went to the one that there is.
   */
  async write(group: Group, known: Known, durably: boolean): Promise<number | undefined> {
    const active = this.#active;
    if (active === undefined || !this.#fits(group.length)) {
      await this.#activate(group, known);
      return group.first;
    }
    stampGroup(group, { log: this.#options.log, generation: active.generation, durable: known.durable });
    const bytes = group.bytes.subarray(0, group.length);
    const { file, end } = active;
    if (durably) await writeDurably(file, end, bytes);
    else await file.write(end, bytes);
    active.end += group.length;
    return undefined;
  }

  async sync(): Promise<void> {
    await this.#active?.file.sync();
  }

  /** Writes no more to the segment that there is. */
  async abandon(): Promise<void> {
    const active = this.#active;
    this.#active = undefined;
    // It failed before: that it cannot be closed either says nothing new.
    await active?.file.close().catch(() => undefined);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#retry?.cancel();
    await this.#making;
    const { disk } = this.#options;
    const spare = this.#spare;
    this.#spare = undefined;
    if (spare !== undefined) await discard(disk, spare.file, spare.path);
    const active = this.#active;
    this.#active = undefined;
    await active?.file.close();
  }

  #fits(bytes: number): boolean {
    return this.#active !== undefined && this.#active.capacity - this.#active.end >= bytes;
  }

  /** Makes the spare a segment that begins with a group. */
  async #activate(group: Group, { leaseEpoch }: Known): Promise<void> {
    if (this.#spare === undefined) await this.prepare();
    const spare = this.#spare;
    if (spare === undefined) throw this.#spareFailure ?? closedLog();
    this.#spare = undefined;
    const { disk, directory, log, owner, previous } = this.#options;
    const { file, path, generation, capacity } = spare;
    const end = SEGMENT_HEADER_BYTES + group.length;
    try {
      const header = { log, generation, first: group.first, durable: group.last, leaseEpoch, ...previous(group.first) };
      stampGroup(group, { log, generation, durable: group.first - 1 });
      await file.write(SEGMENT_HEADER_BYTES, group.bytes.subarray(0, group.length));
      await file.write(0, encodeSegmentHeader(header));
      await file.sync();
      await disk.rename(path, `${directory}/${segmentName(group.first, owner)}`);
      await disk.syncDirectory(directory);
    } catch (error) {
      await discard(disk, file, path);
      throw error;
    }
    const before = this.#active;
    this.#active = { file, generation, capacity, end };
    // All of it is synced and it is not written to any more.
    await before?.file.close().catch(() => undefined);
    this.#capacity = Math.min(this.#options.segmentBytes, capacity * GROWTH);
    void this.prepare();
  }

  async #make(): Promise<void> {
    const { scheduler, onSpare } = this.#options;
    this.#spareFailure = await this.#makeLargest();
    if (this.#spareFailure === undefined) {
      this.#retries = 0;
    } else {
      const delayMs = Math.min(RETRY_MS.longest, RETRY_MS.first * 2 ** this.#retries++);
      this.#retry = scheduler.timer(delayMs, () => void this.prepare());
      this.#retry.unref();
    }
    if (!this.#closed) onSpare();
  }

  /** Makes a spare of the size that is due, or of the largest step below it that fits the disk. @returns why it is none of that size */
  async #makeLargest(): Promise<ShardloomError | undefined> {
    const { disk, firstSegmentBytes } = this.#options;
    let failure: ShardloomError | undefined;
    let capacity = this.#capacity;
    while (!this.#closed && capacity > (this.#spare?.capacity ?? 0)) {
      try {
        const larger = await this.#makeSpare(capacity);
        const spare = this.#spare;
        this.#spare = larger;
        if (spare !== undefined) await discard(disk, spare.file, spare.path);
        return failure;
      } catch (error) {
        failure = ShardloomError.from(error, "ERR_IO");
        if (failure.code !== "ERR_DISK_FULL" || capacity <= firstSegmentBytes) return failure;
        capacity = Math.max(firstSegmentBytes, Math.floor(capacity / GROWTH));
      }
    }
    return failure;
  }

  async #makeSpare(capacity: number): Promise<Spare> {
    const { disk, directory, owner } = this.#options;
    const generation = ++this.#generation;
    const path = `${directory}/${spareName(generation, owner)}`;
    const file = await disk.open(path, "create", true);
    try {
      await fill(file, capacity);
    } catch (error) {
      await discard(disk, file, path);
      throw error;
    }
    return { file, path, generation, capacity };
  }
}

/** The error of a log that was closed. */
export function closedLog(): ShardloomError {
  return new ShardloomError("ERR_CLOSED", "Cannot append to log as it must be open: current value is closed");
}

async function writeDurably(file: DiskFile, offset: number, bytes: Uint8Array): Promise<void> {
  if (file.writeDurably !== undefined) return file.writeDurably(offset, bytes);
  await file.write(offset, bytes);
  await file.sync();
}

/** Allocates a file's blocks. */
async function fill(file: DiskFile, capacity: number): Promise<void> {
  zeros ??= new Uint8Array(ZEROS_BYTES);
  for (let at = 0; at < capacity; at += ZEROS_BYTES) {
    await file.write(at, zeros.subarray(0, Math.min(ZEROS_BYTES, capacity - at)));
  }
  await file.sync();
}

/** Closes and removes a file that is no segment. One that stays is removed when the log is opened. */
async function discard(disk: Disk, file: DiskFile, path: string): Promise<void> {
  await file.close().catch(() => undefined);
  await disk.remove(path).catch(() => undefined);
}

function stampGroup(
  { bytes, view, length }: Group,
  segment: Pick<SegmentHeader, "log" | "generation" | "durable">,
): void {
  for (let at = 0; at < length; at += view.getUint32(at, true)) stampRecord(bytes, view, at, segment);
}
