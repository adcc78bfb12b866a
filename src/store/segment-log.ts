/**
 * A shard's log in segment files: frames are encoded when they are appended, and written and synced in groups, one at a time.
 *
 * Invariant: a frame that was durable (`durability: "fsync"`) is there after any crash, at its position, or is reported as damaged. What is not
 * durable is held in memory until it is synced, and is written again, to a new segment, after any failure. One writer; it belongs to one thread.
 *
 * What is guaranteed of damage: frames up to the newest `durable` that anything on the disk tells are reported when they are missing or not as
 * written. Every record tells what was synced before it was written; when nothing follows, a mark does after `markDelayMs`, and at
 * closing. So damage of the last group that hits before the next group or mark is on the disk looks like a torn tail, and is cut.
 * With `"os"` and `"memory"` groups are synced a little later, and after a loss of power what was not is cut just so.
 * Source: DeWitt et al., "Implementation Techniques for Main Memory Database Systems", SIGMOD 1984 (group commit); Alagappan et al.,
 * FAST 2018; Rebello et al., ATC 2020.
 */
import type { ShardloomError } from "../errors.ts";
import { type Disk, listIfThere } from "../runtime/disk.ts";
import { GroupCommit } from "./group-commit.ts";
import type { LogFrame, ShardAppendOptions, ShardLog, ShardLogEntry } from "./log.ts";
import { checkEntries, checkRoom, staleWriter } from "./log-conditions.ts";
import { corruptFrame, frameBytes, isSpare, parseSegmentName, segmentName, segmentsOf } from "./segment-format.ts";
import { type ResolvedSegmentLogOptions, resolveSegmentLogOptions, type SegmentLogOptions } from "./segment-options.ts";
import { SegmentReader } from "./segment-reader.ts";
import { type Damage, type FoundLog, findLog } from "./segment-recovery.ts";
import { closedLog, SegmentWriter } from "./segment-writer.ts";

/** What opening a log found. */
export interface LogRecovery {
  /** Bytes of a torn tail, now cut off. */
  readonly cutBytes: number;
  /** Frames that an earlier life left behind what it is known to have synced: written again. */
  readonly rewritten: number;
  /** The first frame that is damaged. The log then takes no appends, and gives what is before. */
  readonly corrupt: Damage | undefined;
}

export class SegmentLog implements ShardLog {
  readonly recovery: LogRecovery;
  onChange: (() => void) | undefined;
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #options: ResolvedSegmentLogOptions;
  readonly #writer: SegmentWriter;
  readonly #commit: GroupCommit;
  readonly #reader: SegmentReader;
  /** First positions of the segments, rising. */
  readonly #firsts: number[];
  readonly #names: Map<number, string>;
  /** Frames up to here were there when the log was opened: they can be read, known to be synced or not. */
  readonly #found: number;
  #truncation: Promise<void> = Promise.resolve();
  #removalUnsynced = false;
  #isOpen = true;

  private constructor(
    disk: Disk,
    directory: string,
    options: ResolvedSegmentLogOptions,
    found: FoundLog,
    names: Map<number, string>,
  ) {
    this.#disk = disk;
    this.#directory = directory;
    this.#options = options;
    const { cutBytes, corrupt, head, synced, firsts, leaseEpoch, log, generation } = found;
    this.recovery = { cutBytes, rewritten: head - synced, corrupt };
    this.#firsts = [...firsts];
    this.#names = names;
    this.#found = head;
    this.#reader = new SegmentReader(disk, directory);
    const onSpare = (): void => this.#commit.tellFailure();
    this.#writer = new SegmentWriter({
      ...options,
      previous: (first) => this.#previousOf(first),
      disk,
      directory,
      log,
      generation,
      onSpare,
    });
    const onChange = (): void => this.onChange?.();
    const onSegment = (first: number): void => {
      this.#names.set(first, segmentName(first, options.owner));
      if (this.#firsts.at(-1) !== first) this.#firsts.push(first);
    };
    this.#commit = new GroupCommit(options, this.#writer, { head, synced, leaseEpoch, onChange, onSegment });
  }

  /**
   * Opens a log after any crash, or makes an empty one. What an earlier life left unsynced is written again before this resolves; when that
   * fails the log is open all the same, to be read, and `failure` says why.
   *
   * @param directory Made when missing; the one above must exist.
   * @throws {ShardloomError} As the disk does where the log cannot be read, and `ERR_UNSUPPORTED_FORMAT`; opening may be tried again.
   */
  static async open(disk: Disk, directory: string, options: SegmentLogOptions): Promise<SegmentLog> {
    const resolved = resolveSegmentLogOptions(options);
    const names = await listOrMake(disk, directory);
    const found = await findLog(disk, directory, names, resolved.verifyFrom, resolved.begun);
    const spares = names.filter(isSpare);
    const counted = [...found.names.values()];
    const superseded =
      found.corrupt !== undefined ? [] : names.filter((name) => segmentsOf([name]).size > 0 && !counted.includes(name));
    // One that cannot be removed is no harm: the next has another name.
    for (const name of [...spares, ...superseded]) await disk.remove(`${directory}/${name}`).catch(() => undefined);
    const generation = Math.max(found.generation, ...spares.map((name) => Number.parseInt(name, 10)));
    // An earlier life may have ended between the renaming of its last segment and this.
    if (found.firsts.length > 0) await disk.syncDirectory(directory);
    const log = new SegmentLog(disk, directory, resolved, { ...found, generation }, new Map(found.names));
    if (found.corrupt === undefined) await log.#begin(found);
    return log;
  }

  get head(): number {
    return this.#commit.head;
  }

  get durable(): number {
    const { head, synced, reached } = this.#commit;
    const { durability } = this.#options;
    if (this.recovery.corrupt !== undefined || durability === "memory") return head;
    return durability === "os" ? reached : synced;
  }

  get first(): number {
    return this.#firsts[0] ?? this.#found + 1;
  }

  get leaseEpoch(): number {
    return this.#commit.leaseEpoch;
  }

  get failure(): ShardloomError | undefined {
    return this.#commit.failure;
  }

  /** Bytes of frames that are not synced. */
  get lineBytes(): number {
    return this.#commit.line.bytes;
  }

  /** Position up to which a {@link SegmentReader} finds every frame in the files. */
  get readable(): number {
    return Math.max(this.#found, this.#commit.written);
  }

  assertRoom(bytes: number): void {
    const { corrupt } = this.recovery;
    if (corrupt !== undefined) throw corruptFrame("append to log", corrupt);
    if (!this.#isOpen) throw closedLog();
    const { failure, line } = this.#commit;
    if (failure !== undefined) throw failure;
    checkRoom(bytes, line.bytes, this.#options.maxLineBytes);
    const { spareFailure } = this.#writer;
    if (spareFailure !== undefined && !this.#writer.hasRoom(line.waitingBytes + bytes)) throw spareFailure;
  }

  append(entries: readonly ShardLogEntry[], options: ShardAppendOptions = {}): number {
    const { expectedHead = this.head, leaseEpoch = this.leaseEpoch, lazy = false } = options;
    checkEntries(entries);
    if (expectedHead !== this.head) throw staleWriter("head", expectedHead, this.head);
    if (leaseEpoch < this.leaseEpoch) throw staleWriter("lease epoch", leaseEpoch, this.leaseEpoch);
    const bytes = frameBytes(entries);
    this.assertRoom(bytes);
    return this.#commit.append(entries, bytes, lazy);
  }

  async fence(leaseEpoch: number): Promise<void> {
    if (leaseEpoch < this.leaseEpoch) throw staleWriter("lease epoch", leaseEpoch, this.leaseEpoch);
    this.assertRoom(0);
    await this.#commit.fence(leaseEpoch);
  }

  async flush(): Promise<void> {
    const { corrupt } = this.recovery;
    if (corrupt !== undefined) throw corruptFrame("flush log", corrupt);
    if (this.durable < this.head) await this.#commit.settled(this.#options.durability === "os" ? "written" : "synced");
  }

  async read(from: number, limitBytes: number): Promise<readonly LogFrame[]> {
    const { corrupt } = this.recovery;
    if (corrupt !== undefined && from >= corrupt.position) throw corruptFrame("read log", corrupt);
    const upTo = Math.min(this.readable, Math.max(this.durable, this.#found));
    return from > upTo ? [] : this.#reader.read(Math.max(1, from), limitBytes, upTo);
  }

  truncateBelow(position: number): Promise<void> {
    const done = this.#truncation.then(() => this.#truncate(position));
    this.#truncation = done.catch(() => undefined); // whoever asked has the error
    return done;
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    if (this.recovery.corrupt === undefined) await this.#commit.close();
    await this.#truncation;
    await this.#writer.close();
    await this.#reader.close();
  }

  /** Writes what an earlier life left, and looks whether there is room for more. */
  async #begin({ resume, rest }: FoundLog): Promise<void> {
    if (resume !== undefined && this.#options.resumes) {
      const path = `${this.#directory}/${this.#names.get(this.#firsts.at(-1) as number)}`;
      // Where it cannot be written to, the next group goes elsewhere, or finds out that it cannot either.
      const file = await this.#disk.open(path, "write", true).catch(() => undefined);
      if (file !== undefined) this.#writer.resume(file, resume.generation, resume.size, resume.end);
    }
    const preparing = this.#writer.prepare();
    if (rest.length > 0) await this.#commit.adopt(rest).catch(() => undefined); // `failure` says it
    await preparing;
  }

  /** The segment before one that begins at a position. */
  #previousOf(first: number): { previousFirst: number; previousOwner: number } {
    const previousFirst = this.#firsts.findLast((other) => other < first) ?? 0;
    const name = this.#names.get(previousFirst);
    return { previousFirst, previousOwner: name === undefined ? 0 : (parseSegmentName(name)?.owner ?? 0) };
  }

  async #truncate(position: number): Promise<void> {
    const { corrupt } = this.recovery;
    if (corrupt !== undefined) throw corruptFrame("truncate log", corrupt);
    if (!this.#isOpen) throw closedLog();
    while (this.#removalUnsynced || (this.#firsts[1] ?? Number.POSITIVE_INFINITY) <= position) {
      if (!this.#removalUnsynced) {
        await this.#disk.remove(`${this.#directory}/${this.#names.get(this.#firsts[0] as number)}`);
        this.#firsts.shift();
        this.#removalUnsynced = true;
      }
      // One after the other: a crash must not leave a gap.
      await this.#disk.syncDirectory(this.#directory);
      this.#removalUnsynced = false;
    }
  }
}

/** Names in the log's directory, which is made when it is missing. */
async function listOrMake(disk: Disk, directory: string): Promise<readonly string[]> {
  const names = await listIfThere(disk, directory);
  if (segmentsOf(names).size > 0) return names;
  await disk.makeDirectory(directory);
  await disk.syncDirectory(directory.slice(0, Math.max(0, directory.lastIndexOf("/"))));
  return disk.list(directory);
}
