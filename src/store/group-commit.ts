/**
 * Group commit of a shard log: what waits in line is written as one and synced, one group at a time, and tried again until it works.
 *
 * Invariant: `synced` rises only after a sync that covers it has succeeded, and nothing leaves the line before. After a failure of a
 * write or a sync everything that is not synced is written again to a new segment that begins at `synced + 1`. There is one
 * loop at most, and it runs as long as anything is to be done.
 * Source: DeWitt et al., "Implementation Techniques for Main Memory Database Systems", SIGMOD 1984; Rebello et al., ATC 2020.
 */
import { ShardloomError } from "../errors.ts";
import type { Timer } from "../runtime/scheduler.ts";
import type { ShardLogEntry } from "./log.ts";
import { FrameLine, type Group } from "./segment-line.ts";
import type { ResolvedSegmentLogOptions } from "./segment-options.ts";
import { closedLog, type Known, RETRY_MS } from "./segment-writer.ts";

/** How long frames that nobody waits for are left in line, in ms. */
const LAZY_MS = 3;

/** Who waits until a record of the line is written, or synced. */
interface Waiter {
  readonly sequence: number;
  readonly until: "written" | "synced";
  resolve(): void;
  reject(error: ShardloomError): void;
}

/** Where groups are written to: segments (segment-writer.ts), or the messages of a stream (nats-log-writer.ts). */
export interface GroupWriter {
  /** Why there is no room for more than there is. */
  readonly spareFailure: ShardloomError | undefined;
  hasRoom(bytes: number): boolean;
  /** Whether a group may be written before what was written earlier is synced. */
  takes(group: Group): boolean;
  /** @returns a position when everything that was written is synced with it; undefined: it has yet to be, or `durably` was asked for */
  write(group: Group, known: Known, durably: boolean): Promise<number | undefined>;
  sync(): Promise<void>;
  /** A write or a sync has failed: groups are written again from the first on that was not synced, as they were, as a log that fails takes nothing. */
  abandon(): Promise<void>;
}

/** Where a log begins to commit. */
export interface GroupCommitStart {
  readonly head: number;
  readonly synced: number;
  readonly leaseEpoch: number;
  /** Called when something has become durable, or {@link GroupCommit.failure} has come or gone. */
  readonly onChange: () => void;
  /** Called when a segment was made, with its first position. */
  readonly onSegment: (first: number) => void;
}

export class GroupCommit {
  readonly #options: ResolvedSegmentLogOptions;
  readonly #writer: GroupWriter;
  readonly #line: FrameLine = new FrameLine();
  readonly #onChange: () => void;
  readonly #onSegment: (first: number) => void;
  #head: number;
  /** Last positions that were written to a file, and synced there. */
  #written: number;
  #synced: number;
  /** The highest that `#written` has been. */
  #reached: number;
  /** Numbers of the last records of the line that were written and synced. */
  #writtenSequence = 0;
  #syncedSequence = 0;
  /** Up to here the disk knows what was synced. */
  #marked: number;
  #leaseEpoch: number;
  #failure: ShardloomError | undefined;
  /** What {@link GroupCommit.failure} was when it was told last. */
  #told: ShardloomError | undefined;
  #waiters: Waiter[] = [];
  /** Undefined: the loop is not running. */
  #running: Promise<void> | undefined;
  #syncDue = false;
  #syncTimer: Timer | undefined;
  #markTimer: Timer | undefined;
  /** Until frames are written that nobody waits for. */
  #lazyTimer: Timer | undefined;
  /** Ends the wait before the next try. */
  #retryNow: (() => void) | undefined;
  #retries = 0;
  #closing = false;

  constructor(options: ResolvedSegmentLogOptions, writer: GroupWriter, start: GroupCommitStart) {
    this.#options = options;
    this.#writer = writer;
    this.#head = start.head;
    this.#written = start.synced;
    this.#synced = start.synced;
    this.#reached = start.synced;
    this.#marked = start.synced;
    this.#leaseEpoch = start.leaseEpoch;
    this.#onChange = start.onChange;
    this.#onSegment = start.onSegment;
  }

  get head(): number {
    return this.#head;
  }

  get synced(): number {
    return this.#synced;
  }

  /** Up to here frames are in files; with a failure only what is synced counts. */
  get written(): number {
    return this.#written;
  }

  /** Up to here frames were once in files. */
  get reached(): number {
    return this.#reached;
  }

  get leaseEpoch(): number {
    return this.#leaseEpoch;
  }

  get line(): Pick<FrameLine, "bytes" | "waitingBytes"> {
    return this.#line;
  }

  /** Why nothing can be made durable at present. */
  get failure(): ShardloomError | undefined {
    if (this.#failure !== undefined) return this.#failure;
    return this.#writer.hasRoom(1) ? undefined : this.#writer.spareFailure;
  }

  /** Puts a frame in line. @param lazy Nobody waits for it. @returns its position */
  append(entries: readonly ShardLogEntry[], bytes: number, lazy: boolean): number {
    this.#line.append(this.#head + 1, this.#leaseEpoch, entries, bytes);
    this.#head++;
    if (lazy && this.#line.bytes < this.#options.unsyncedBytes) this.#kickLater();
    else this.#kick();
    return this.#head;
  }

  /** Puts records of an earlier life in line. */
  adopt(records: Uint8Array): Promise<void> {
    this.#line.adopt(records, this.#synced + 1, this.#head);
    this.#syncDue = true;
    return this.settled();
  }

  /** Raises the lease epoch. @returns when it is on the disk */
  fence(leaseEpoch: number): Promise<void> {
    this.#leaseEpoch = leaseEpoch;
    this.#mark();
    return this.settled();
  }

  /** Resolves when everything that is in line now is written or synced. @throws {ShardloomError} why it cannot be at present */
  settled(until: Waiter["until"] = "synced"): Promise<void> {
    const { sequence } = this.#line;
    if (sequence <= (until === "synced" ? this.#syncedSequence : this.#writtenSequence)) return Promise.resolve();
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiters.push({ sequence, until, resolve, reject });
      if (until === "synced") this.#syncDue = true;
      this.#kick();
    });
  }

  /** Tells when {@link GroupCommit.failure} is another one than before. */
  tellFailure(): void {
    const { failure } = this;
    if (failure === this.#told) return;
    this.#told = failure;
    this.#onChange();
  }

  /** Syncs what is in line, with one try where that fails, says so on the disk, and ends. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#markTimer?.cancel();
    this.#syncDue = true;
    this.#retryNow?.();
    this.#kick();
    await this.#running;
    if (this.#failure === undefined && this.#marked < this.#synced) {
      this.#mark();
      await this.#running;
    }
    this.#syncTimer?.cancel();
    for (const { reject } of this.#waiters.splice(0)) reject(this.#failure ?? closedLog());
  }

  /** Puts in line what is known to be synced, and the lease epoch. */
  #mark(): void {
    this.#line.append(this.#head, this.#leaseEpoch, []);
    this.#syncDue = true;
    this.#kick();
  }

  /** What nobody waits for shares a group with what comes a little later. */
  #kickLater(): void {
    this.#lazyTimer ??= this.#options.scheduler.timer(LAZY_MS, () => this.#kick());
  }

  /** Appends of the same turn share a group. */
  #kick(): void {
    this.#lazyTimer?.cancel();
    this.#lazyTimer = undefined;
    this.#running ??= new Promise((resolve) => {
      this.#options.scheduler.defer(() => void this.#run().then(resolve));
    });
  }

  /** Writes until nothing is to be done. Never throws. */
  async #run(): Promise<void> {
    while (this.#line.hasNext || this.#mustSync()) {
      try {
        await this.#step();
      } catch (error) {
        await this.#failed(ShardloomError.from(error, "ERR_IO"));
        if (this.#closing) break;
        await this.#pause();
      }
    }
    this.#running = undefined;
    this.#markLater();
  }

  async #step(): Promise<void> {
    const group = this.#line.take();
    if (group !== undefined) {
      // What a segment follows must be synced before it has a name.
      if (!this.#writer.takes(group) && this.#writtenSequence > this.#syncedSequence) await this.#sync();
      await this.#write(group);
    }
    if (this.#mustSync()) await this.#sync();
    else if (this.#writtenSequence > this.#syncedSequence) this.#syncLater();
  }

  async #write(group: Group): Promise<void> {
    const known = { durable: this.#synced, leaseEpoch: this.#leaseEpoch };
    const durably = this.#options.durability === "fsync" && this.#writtenSequence === this.#syncedSequence;
    const first = await this.#writer.write(group, known, durably);
    this.#writtenSequence = group.sequence;
    this.#written = group.last;
    this.#reached = Math.max(this.#reached, group.last);
    this.#marked = first === undefined ? known.durable : group.last;
    if (first !== undefined) this.#onSegment(first);
    if (first !== undefined || durably) this.#settle();
    else if (this.#options.durability === "os") this.#works();
  }

  async #sync(): Promise<void> {
    await this.#writer.sync();
    this.#settle();
  }

  /** Everything that was written is synced. */
  #settle(): void {
    this.#syncedSequence = this.#writtenSequence;
    this.#synced = this.#written;
    this.#syncDue = this.#waiters.some(({ sequence, until }) => until === "synced" && sequence > this.#syncedSequence);
    this.#syncTimer?.cancel();
    this.#syncTimer = undefined;
    this.#line.drop(this.#syncedSequence);
    this.#works();
  }

  /** Something became durable, so what failed before works again. */
  #works(): void {
    const isDone = ({ sequence, until }: Waiter): boolean =>
      sequence <= (until === "synced" ? this.#syncedSequence : this.#writtenSequence);
    const done = this.#waiters.filter(isDone);
    if (done.length > 0) this.#waiters = this.#waiters.filter((waiter) => !isDone(waiter));
    for (const { resolve } of done) resolve();
    this.#failure = undefined;
    this.#retries = 0;
    this.#told = this.failure;
    this.#onChange();
  }

  #mustSync(): boolean {
    if (this.#writtenSequence <= this.#syncedSequence) return false;
    return this.#options.durability === "fsync" || this.#syncDue || this.#line.bytes >= this.#options.unsyncedBytes;
  }

  #syncLater(): void {
    this.#syncTimer ??= this.#options.scheduler.timer(this.#options.syncDelayMs, () => {
      this.#syncTimer = undefined;
      this.#syncDue = true;
      this.#kick();
    });
  }

  #markLater(): void {
    this.#markTimer?.cancel();
    this.#markTimer = undefined;
    if (this.#marked >= this.#synced || this.#closing) return;
    this.#markTimer = this.#options.scheduler.timer(this.#options.markDelayMs, () => {
      if (!this.#closing && this.#line.isEmpty) this.#mark();
    });
    this.#markTimer.unref();
  }

  /** A write or a sync failed: all that is not synced will be written again. */
  async #failed(error: ShardloomError): Promise<void> {
    this.#line.rewind();
    this.#written = this.#synced;
    this.#writtenSequence = this.#syncedSequence;
    this.#failure = error;
    for (const { reject } of this.#waiters.splice(0)) reject(error);
    this.tellFailure();
    await this.#writer.abandon();
  }

  #pause(): Promise<void> {
    const delayMs = Math.min(RETRY_MS.longest, RETRY_MS.first * 2 ** this.#retries++);
    return new Promise((resolve) => {
      const timer = this.#options.scheduler.timer(delayMs, () => this.#retryNow?.());
      this.#retryNow = () => {
        this.#retryNow = undefined;
        timer.cancel();
        resolve();
      };
    });
  }
}
