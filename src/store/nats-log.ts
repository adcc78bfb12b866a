/**
 * A shard's log in a stream of NATS: frames are encoded when they are appended, and sent in groups, one message at a time.
 *
 * Invariant: a frame is durable when the stream has acknowledged its message; it is then there, once, at its position, whatever connections and
 * servers did meanwhile, as long as the stream keeps what it has acknowledged. One writer: who opens the log puts a message of its own behind
 * all others, and so every message of an earlier writer that is still on its way is refused, and that writer with it.
 *
 * How durable is the stream's affair: with one replica an acknowledged frame survives the death of the server's process, and the loss of its
 * power only as far as the server syncs its files; with three it survives the loss of one server. A log whose stream has lost what it had
 * acknowledged fails with `ERR_CORRUPT`, and takes nothing in its place.
 * Source: JetStream's `Nats-Expected-Last-Sequence`; group commit as in group-commit.ts, of which this is the other user.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import type { NatsStream } from "../runtime/nats.ts";
import type { Random } from "../runtime/random.ts";
import { type Scheduler, sleep } from "../runtime/scheduler.ts";
import { GroupCommit } from "./group-commit.ts";
import type { KeptLog } from "./kept-log.ts";
import type { LogFrame, ShardAppendOptions, ShardLogEntry } from "./log.ts";
import { checkEntries, checkRoom, staleWriter } from "./log-conditions.ts";
import { decodeMessage, encodeMessage, isSame, type MessageHeader, type WriterId } from "./nats-log-format.ts";
import { NatsLogReader } from "./nats-log-reader.ts";
import { failureOf, NatsLogWriter } from "./nats-log-writer.ts";
import { corruptFrame, frameBytes } from "./segment-format.ts";
import { type ResolvedSegmentLogOptions, resolveSegmentLogOptions } from "./segment-options.ts";
import { closedLog } from "./segment-writer.ts";

export interface NatsLogOptions {
  /** Of the thread that the log belongs to. */
  readonly scheduler: Scheduler;
  /** For the writer's identity: real chance. */
  readonly random: Pick<Random, "u32">;
  /** Bytes of frames that may wait for the server; then appends are refused with `ERR_OVERLOADED`. @default 64 MiB */
  readonly maxLineBytes?: number;
  /** How long a call to the server may take before the log says that it fails, in ms, above 0. @default 5000 */
  readonly timeoutMs?: number;
  /** Whether it is known to have been opened before: then an empty stream is damage. @default false */
  readonly begun?: boolean;
}

const TIMEOUT_MS = 5_000;
/** How often opening begins anew, as another writer was there first. */
const MAX_OPENINGS = 16;
/** How much longer each wait between two of them is. */
const AGAIN_MS = 20;

/** What opening a stream found. */
interface Found {
  readonly head: number;
  readonly first: number;
  readonly leaseEpoch: number;
  /** Sequences of the oldest message, and of the one that the writer has put at the end. */
  readonly oldest: number;
  readonly last: number;
}

export class NatsLog implements KeptLog {
  /** A batch that was not finished is none, and everything else is looked at when it is read. */
  readonly recovery: KeptLog["recovery"] = { cutBytes: 0, corrupt: undefined };
  onChange: (() => void) | undefined;
  readonly #stream: NatsStream;
  readonly #timeoutMs: number;
  readonly #maxLineBytes: number;
  readonly #writer: NatsLogWriter;
  readonly #commit: GroupCommit;
  readonly #reader: NatsLogReader;
  #first: number;
  /** Sequence of the oldest message that counts; those below {@link NatsLog.#purged} are gone. */
  #oldest: number;
  #purged: number;
  #truncation: Promise<void> = Promise.resolve();
  #isOpen = true;

  private constructor(
    stream: NatsStream,
    resolved: ResolvedSegmentLogOptions,
    timeoutMs: number,
    writer: WriterId,
    found: Found,
  ) {
    const { head, leaseEpoch, last, first, oldest } = found;
    this.#stream = stream;
    this.#timeoutMs = timeoutMs;
    this.#maxLineBytes = resolved.maxLineBytes;
    this.#first = first;
    this.#oldest = oldest;
    this.#purged = oldest;
    this.#reader = new NatsLogReader(stream, timeoutMs);
    this.#writer = new NatsLogWriter({ stream, writer, last, timeoutMs });
    const onChange = (): void => this.onChange?.();
    this.#commit = new GroupCommit(resolved, this.#writer, {
      head,
      synced: head,
      leaseEpoch,
      onChange,
      onSegment: () => undefined,
    });
  }

  /**
   * Opens a log, and ends whoever has it open. What that one has sent and did not see acknowledged is in the log or not, for good.
   *
   * @param stream Of this log alone; it outlives the log.
   * @throws {ShardloomError} `ERR_CORRUPT`, `ERR_UNSUPPORTED_FORMAT`; `ERR_TIMEOUT`, `ERR_IO`: opening may be tried again; `ERR_STALE_EPOCH` when
   *   others open it all the time.
   */
  static async open(stream: NatsStream, options: NatsLogOptions): Promise<NatsLog> {
    const { timeoutMs = TIMEOUT_MS, random, scheduler, maxLineBytes } = options;
    const resolved = resolveSegmentLogOptions({ scheduler, ...(maxLineBytes === undefined ? {} : { maxLineBytes }) });
    if (!(timeoutMs > 0)) throw invalidArgument("open log", "timeoutMs", "a number above 0", timeoutMs);
    const writer: WriterId = [random.u32(), random.u32()];
    try {
      for (let opening = 0; opening < MAX_OPENINGS; opening++) {
        const found = await take(stream, writer, options);
        if (found !== undefined) return new NatsLog(stream, resolved, timeoutMs, writer, found);
        await sleep(scheduler, AGAIN_MS * opening); // another one opens it too, or its servers have yet to agree
      }
    } catch (error) {
      throw failureOf(error);
    }
    throw new ShardloomError(
      "ERR_STALE_EPOCH",
      `Cannot open log as stream ${stream.name} must have one writer: others write`,
    );
  }

  get head(): number {
    return this.#commit.head;
  }

  get durable(): number {
    return this.#commit.synced;
  }

  get readable(): number {
    return this.durable;
  }

  get first(): number {
    return this.#first;
  }

  get leaseEpoch(): number {
    return this.#commit.leaseEpoch;
  }

  get failure(): ShardloomError | undefined {
    return this.#commit.failure;
  }

  assertRoom(bytes: number): void {
    if (!this.#isOpen) throw closedLog();
    const { failure, line } = this.#commit;
    if (failure !== undefined) throw failure;
    checkRoom(bytes, line.bytes, this.#maxLineBytes);
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
    if (this.durable < this.head) await this.#commit.settled();
  }

  async read(from: number, limitBytes: number): Promise<readonly LogFrame[]> {
    const upTo = this.durable;
    const start = Math.max(this.#first, from);
    if (start > upTo) return [];
    try {
      return await this.#reader.read(start, { limitBytes, upTo, oldest: this.#oldest, newest: this.#writer.last });
    } catch (error) {
      if (this.#first > start) return this.read(from, limitBytes); // it was truncated meanwhile
      throw error;
    }
  }

  truncateBelow(position: number): Promise<void> {
    const done = this.#truncation.then(() => this.#truncate(position));
    this.#truncation = done.catch(() => undefined); // whoever asked has the error
    return done;
  }

  async close(): Promise<void> {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    await this.#commit.close();
    await this.#truncation;
  }

  /** Removes the messages before the batch that has a position, which tells the lease epoch even when it is the last. */
  async #truncate(position: number): Promise<void> {
    if (!this.#isOpen) throw closedLog();
    const upTo = Math.min(position, this.durable);
    if (upTo > this.#first) {
      const place = await this.#reader.locate(upTo, { oldest: this.#oldest, newest: this.#writer.last });
      this.#oldest = place.sequence;
      this.#first = place.first;
    }
    if (this.#purged >= this.#oldest) return;
    const oldest = this.#oldest;
    await this.#stream.purgeBelow(oldest, this.#timeoutMs).catch((error: unknown) => {
      throw failureOf(error);
    });
    this.#purged = oldest;
  }
}

/** Looks what a stream has, and puts a message behind it that ends its earlier writers. @returns undefined when another one was there first */
async function take(stream: NatsStream, writer: WriterId, options: NatsLogOptions): Promise<Found | undefined> {
  const { timeoutMs = TIMEOUT_MS, begun = false } = options;
  const { first: oldest, last } = await stream.bounds(timeoutMs);
  if (begun && last === 0) throw corruptFrame("open log", { position: 1, gone: true });
  const newest = last === 0 ? undefined : await headerAt(stream, last, timeoutMs);
  // A batch that was not finished is none.
  const isWhole = newest === undefined || newest.part === newest.parts - 1;
  const head = newest === undefined ? 0 : isWhole ? newest.last : newest.first - 1;
  const leaseEpoch = newest?.leaseEpoch ?? 0;
  const header = { writer, batch: 0, part: 0, parts: 1, batchBytes: 0, first: head + 1, last: head, leaseEpoch };
  try {
    await stream.append(encodeMessage(header, new Uint8Array(0)), last, timeoutMs);
  } catch (error) {
    if (!ShardloomError.is(error) || (error.code !== "ERR_STALE_EPOCH" && error.code !== "ERR_TIMEOUT")) throw error;
    // It may be there all the same; if it comes later, it is the message of another opening.
    const found = await stream.get(last + 1, timeoutMs);
    const there = found === undefined ? undefined : decodeMessage(found);
    if (there === undefined || !isSame(there.header, header)) return undefined;
  }
  if (oldest > last) return { head, first: head + 1, leaseEpoch, oldest: last + 1, last: last + 1 };
  // The writer that was ended may still be removing messages.
  if ((await stream.bounds(timeoutMs)).first !== oldest) return undefined;
  const { first } = await headerAt(stream, oldest, timeoutMs);
  return { head, first, leaseEpoch, oldest, last: last + 1 };
}

async function headerAt(stream: NatsStream, sequence: number, timeoutMs: number): Promise<MessageHeader> {
  const found = await stream.get(sequence, timeoutMs);
  const message = found === undefined ? undefined : decodeMessage(found);
  if (message !== undefined) return message.header;
  throw new ShardloomError(
    "ERR_CORRUPT",
    `Cannot open log as message ${sequence} of stream ${stream.name} must be one of a log: it is ${found === undefined ? "gone" : "damaged"}`,
    { details: { stream: stream.name, sequence } },
  );
}
