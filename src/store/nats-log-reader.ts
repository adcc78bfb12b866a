/**
 * Reads the frames of a shard log from its stream of NATS, some messages ahead.
 *
 * Invariant: frames are given in the order of their positions, without a gap; a batch of which a part is missing is none, if its writer ended
 * there, and damage otherwise. Positions rise with sequences, so a position is found by bisection between places that are remembered.
 */
import { ShardloomError } from "../errors.ts";
import type { NatsStream } from "../runtime/nats.ts";
import type { LogFrame } from "./log.ts";
import { decodeMessage, type Message, type MessageHeader, RECORD_STAMP } from "./nats-log-format.ts";
import { failureOf } from "./nats-log-writer.ts";
import { corruptFrame, decodeFrame, decodeRecordHeader, isWhole, viewOf } from "./segment-format.ts";

/** Messages that are asked for before they are needed: at 1 MiB each, what a reader may hold. */
const AHEAD = 8;
/** Places that are remembered; every other one is forgotten when there are more. */
const MAX_PLACES = 512;

/** Where a batch begins. */
export interface Place {
  /** Sequence of its first part. */
  readonly sequence: number;
  /** Position of its first frame. */
  readonly first: number;
}

/** What a read is limited to. */
export interface ReadLimits {
  readonly limitBytes: number;
  /** Last position. */
  readonly upTo: number;
  /** Sequence of the oldest message, and of the last one that is looked at. */
  readonly oldest: number;
  readonly newest: number;
}

/** A batch whose parts are being read. */
interface Gathering {
  readonly header: MessageHeader;
  readonly bytes: Uint8Array;
  filled: number;
}

/** What one read has so far. */
interface Progress {
  next: number;
  bytes: number;
  readonly frames: LogFrame[];
}

export class NatsLogReader {
  readonly #stream: NatsStream;
  readonly #timeoutMs: number;
  /** Rising in both numbers. */
  #places: Place[] = [];
  #turn: Promise<unknown> = Promise.resolve();

  constructor(stream: NatsStream, timeoutMs: number) {
    this.#stream = stream;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Frames from a position on, in order. At least one when there is one.
   *
   * @throws {ShardloomError} `ERR_CORRUPT` with `details.position`; `ERR_TIMEOUT`, `ERR_IO`.
   */
  read(from: number, limits: ReadLimits): Promise<readonly LogFrame[]> {
    const done = this.#turn.then(() => this.#read(from, limits));
    this.#turn = done.catch(() => undefined); // whoever asked has the error
    return done;
  }

  /** Where the batch begins that has a position; the oldest one when it is no longer there. */
  async locate(position: number, { oldest, newest }: Pick<ReadLimits, "oldest" | "newest">): Promise<Place> {
    let low = oldest;
    let high = newest;
    for (const { sequence, first } of this.#places) {
      if (sequence < low || sequence > high) continue;
      if (first <= position) low = sequence;
      else high = sequence - 1;
    }
    // The last message whose first position is not above it: its batch has it, as an unfinished one is followed by one that begins so too.
    let place = await this.#placeAt(low, oldest, position);
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      const found = await this.#placeAt(middle, low, position);
      if (found.first <= position) {
        low = middle;
        place = found;
      } else high = middle - 1;
    }
    return place;
  }

  /** Where the batch begins that has a message; when that is gone or damaged, the one before it. */
  async #placeAt(sequence: number, lowest: number, position: number): Promise<Place> {
    for (let at = sequence; ; at--) {
      try {
        const { header } = await this.#message(at, position);
        return { sequence: at - header.part, first: header.first };
      } catch (error) {
        if (at <= lowest || !isDamage(error)) throw error;
      }
    }
  }

  async #read(from: number, limits: ReadLimits): Promise<readonly LogFrame[]> {
    const start = await this.locate(from, limits);
    const progress: Progress = { next: Math.max(from, start.first), bytes: 0, frames: [] };
    try {
      await this.#readFrom(start, progress, limits);
      if (progress.frames.length === 0) throw corruptFrame("read log", { position: progress.next, gone: true });
    } catch (error) {
      if (progress.frames.length === 0 || !isDamage(error)) throw error; // else it is told who reads on from there
    }
    return progress.frames;
  }

  async #readFrom(start: Place, progress: Progress, limits: ReadLimits): Promise<void> {
    let gathering: Gathering | undefined;
    let place = start;
    for await (const { sequence, message } of this.#messages(start.sequence, limits.newest, progress)) {
      const { header } = message;
      if (header.part === 0) {
        gathering = { header, bytes: new Uint8Array(header.batchBytes), filled: 0 };
        place = { sequence, first: header.first };
      }
      if (gathering === undefined || !gather(gathering, message))
        throw corruptFrame("read log", { position: progress.next });
      if (header.part < header.parts - 1) continue;
      this.#remember(place);
      if (takeFrames(gathering, progress, limits) || progress.next > limits.upTo) return;
    }
  }

  /** Messages in their order, asked for ahead. */
  async *#messages(
    from: number,
    to: number,
    progress: Readonly<Progress>,
  ): AsyncGenerator<{ readonly sequence: number; readonly message: Message }> {
    const asked: Promise<Message>[] = [];
    for (let sequence = from, next = from; sequence <= to; sequence++) {
      for (; next <= to && next < sequence + AHEAD; next++) {
        const asking = this.#message(next, progress.next);
        asking.catch(() => undefined); // it counts when it is its turn
        asked.push(asking);
      }
      yield { sequence, message: await (asked.shift() as Promise<Message>) };
    }
  }

  /** @param position Whose reader is told of damage. */
  async #message(sequence: number, position: number): Promise<Message> {
    const found = await this.#stream.get(sequence, this.#timeoutMs).catch((error: unknown) => {
      throw failureOf(error);
    });
    const message = found === undefined ? undefined : decodeMessage(found);
    if (message !== undefined) return message;
    throw corruptFrame("read log", { position, ...(found === undefined ? { gone: true } : {}) });
  }

  #remember(place: Place): void {
    const last = this.#places.at(-1);
    if (last !== undefined && (place.sequence <= last.sequence || place.first <= last.first)) return;
    this.#places.push(place);
    if (this.#places.length > MAX_PLACES) this.#places = this.#places.filter((_, at) => at % 2 === 0);
  }
}

/** Adds a part to its batch. @returns false when it is not the next one of it */
function gather(gathering: Gathering, { header, piece }: Message): boolean {
  const { header: begun, bytes, filled } = gathering;
  const isOfIt = header.batch === begun.batch && header.writer.every((half, at) => half === begun.writer[at]);
  if (!isOfIt || filled + piece.length > bytes.length) return false;
  bytes.set(piece, filled);
  gathering.filled += piece.length;
  return header.part < header.parts - 1 || gathering.filled === bytes.length;
}

/** Takes the frames of a batch that are asked for. @returns whether the limit is reached */
function takeFrames({ bytes }: Gathering, progress: Progress, { upTo, limitBytes }: ReadLimits): boolean {
  const view = viewOf(bytes);
  for (let at = 0; at < bytes.length; ) {
    const record = decodeRecordHeader(bytes, view, at, RECORD_STAMP);
    if (record === undefined || !isWhole(bytes, at, record))
      throw corruptFrame("read log", { position: progress.next, ...(record === undefined ? {} : placeOf(record)) });
    const { position, entries, length } = record;
    if (entries > 0 && position >= progress.next) {
      if (position > upTo) return true;
      if (position > progress.next) throw corruptFrame("read log", { position: progress.next, gone: true });
      if (progress.frames.length > 0 && progress.bytes + length > limitBytes) return true;
      progress.frames.push(decodeFrame(bytes, view, at, record));
      progress.bytes += length;
      progress.next = position + 1;
      if (progress.bytes >= limitBytes) return true;
    }
    at += length;
  }
  return false;
}

function placeOf({ vshard, lsn }: { vshard: number; lsn: number }): { vshard: number; lsn: number } {
  return { vshard, lsn };
}

/** Whether an error says that what is read is damaged. */
function isDamage(error: unknown): boolean {
  return ShardloomError.is(error) && error.code === "ERR_CORRUPT";
}
