/**
 * Writes the groups of a shard log to a stream of NATS, each message under the condition that it follows the one before.
 *
 * Invariant: one message is under way at a time, and nothing follows one that is in doubt before it is known: the same message, under the same
 * condition, is there once or not at all, however often it was sent and however late it is applied. So a lost answer costs a look, a
 * frozen server is only asked, and is not sent more, and whoever finds somebody else's message where its own should be writes never again.
 * Source: `Nats-Expected-Last-Sequence` as a fence; "appended by whom" is read from the message itself, as ids for deduplication only hold for a
 * window of time.
 */
import { ShardloomError } from "../errors.ts";
import type { NatsStream } from "../runtime/nats.ts";
import type { GroupWriter } from "./group-commit.ts";
import {
  decodeMessage,
  encodeMessage,
  isSame,
  MESSAGE_HEADER_BYTES,
  type MessageHeader,
  RECORD_STAMP,
  type WriterId,
} from "./nats-log-format.ts";
import { stampRecord } from "./segment-format.ts";
import type { Group } from "./segment-line.ts";
import type { Known } from "./segment-writer.ts";

/** Largest piece in a message: the server reads and writes messages whole. */
const MAX_PIECE_BYTES: number = 1024 * 1024;

/** A group that is under way. */
interface Batch {
  readonly pieceBytes: number;
  readonly header: Omit<MessageHeader, "part">;
  /** The next part to be sent. */
  part: number;
  /** Whether that was sent before, and may be there. */
  inDoubt: boolean;
}

export interface NatsLogWriterOptions {
  readonly stream: NatsStream;
  readonly writer: WriterId;
  /** Sequence of the stream's last message, with which the writer has opened it. */
  readonly last: number;
  /** For one call, in ms. */
  readonly timeoutMs: number;
}

export class NatsLogWriter implements GroupWriter {
  /** Room is found out by sending. */
  readonly spareFailure: undefined;
  readonly #options: NatsLogWriterOptions;
  /** The last message that is known to be there: its sequence, and what it says of itself. */
  #last: number;
  #lastHeader: Pick<MessageHeader, "writer" | "batch" | "part">;
  /** Whether that may be gone, so that nothing is sent before it was seen. */
  #isSuspect = false;
  #batches = 0;
  #batch: Batch | undefined;
  /** Why nothing will ever be written again. */
  #ended: ShardloomError | undefined;

  constructor(options: NatsLogWriterOptions) {
    this.#options = options;
    this.#last = options.last;
    this.#lastHeader = { writer: options.writer, batch: 0, part: 0 };
  }

  /** Sequence of the last message of this log, as far as known. */
  get last(): number {
    return this.#last;
  }

  hasRoom(): boolean {
    return true;
  }

  takes(): boolean {
    return true;
  }

  async write(group: Group, { leaseEpoch }: Known): Promise<number> {
    if (this.#ended !== undefined) throw this.#ended;
    if (this.#isSuspect) await this.#checkLast();
    this.#batch ??= this.#begin(group, leaseEpoch);
    await this.#send(group, this.#batch);
    this.#batch = undefined;
    return group.first;
  }

  /** Everything that was written is as durable as the stream makes it. */
  sync(): Promise<void> {
    return Promise.resolve();
  }

  /** The group comes again, as it was: how far it has come is kept. */
  abandon(): Promise<void> {
    return Promise.resolve();
  }

  #begin({ bytes, view, length, first, last }: Group, leaseEpoch: number): Batch {
    const { stream, writer } = this.#options;
    for (let at = 0; at < length; at += view.getUint32(at, true)) stampRecord(bytes, view, at, RECORD_STAMP);
    const pieceBytes = Math.max(1, Math.min(MAX_PIECE_BYTES, stream.maxMessageBytes) - MESSAGE_HEADER_BYTES);
    const parts = Math.ceil(length / pieceBytes);
    const header = { writer, batch: ++this.#batches, parts, batchBytes: length, first, last, leaseEpoch };
    return { pieceBytes, header, part: 0, inDoubt: false };
  }

  async #send({ bytes, length }: Group, batch: Batch): Promise<void> {
    const { stream, timeoutMs } = this.#options;
    while (batch.part < batch.header.parts) {
      const header = { ...batch.header, part: batch.part };
      if (!batch.inDoubt || !(await this.#isThere(header))) {
        const start = batch.part * batch.pieceBytes;
        const piece = bytes.subarray(start, Math.min(length, start + batch.pieceBytes));
        batch.inDoubt = true;
        await this.#append(stream, header, encodeMessage(header, piece), timeoutMs);
      }
      this.#last++;
      this.#lastHeader = header;
      batch.part++;
      batch.inDoubt = false;
    }
  }

  async #append(stream: NatsStream, header: MessageHeader, message: Uint8Array, timeoutMs: number): Promise<void> {
    try {
      await stream.append(message, this.#last, timeoutMs);
    } catch (error) {
      if (!ShardloomError.is(error) || error.code !== "ERR_STALE_EPOCH") throw failureOf(error);
      // An earlier try of this one may have come late.
      if (await this.#isThere(header)) return;
      throw await this.#whyRefused(error.details["last"]);
    }
  }

  /** Why a message was refused and no other one is in its place. */
  async #whyRefused(last: unknown): Promise<ShardloomError> {
    const { stream, timeoutMs } = this.#options;
    if (typeof last === "number" && last < this.#last) {
      this.#isSuspect = true;
      await this.#checkLast();
    }
    const { first } = await stream.bounds(timeoutMs).catch(fail);
    if (first > this.#last + 1) return this.#overtake(`it begins at message ${first}`);
    // Replicas agree on a message before it can be read, and one that leads no more does not know it.
    return new ShardloomError(
      "ERR_TIMEOUT",
      `Cannot say of message ${this.#last + 1} of stream ${stream.name} whether it is there as its servers must agree: their last one is ${String(last)}`,
      { details: { stream: stream.name, sequence: this.#last + 1, last } },
    );
  }

  /** Throws when the last message is gone: what comes now must not take its place. */
  async #checkLast(): Promise<void> {
    const { stream, timeoutMs } = this.#options;
    const found = await stream.get(this.#last, timeoutMs).catch(fail);
    const message = found === undefined ? undefined : decodeMessage(found);
    if (message === undefined || !isSame(message.header, this.#lastHeader)) throw lost(stream.name, this.#last);
    this.#isSuspect = false;
  }

  /** Whether the message after the last one is this. @throws {ShardloomError} when it is another one, for good */
  async #isThere(header: MessageHeader): Promise<boolean> {
    const { stream, timeoutMs } = this.#options;
    const sequence = this.#last + 1;
    const found = await stream.get(sequence, timeoutMs).catch(fail);
    if (found === undefined) return false;
    const message = decodeMessage(found);
    if (message !== undefined && isSame(message.header, header)) return true;
    throw this.#overtake(`message ${sequence} is of another one`);
  }

  #overtake(why: string): ShardloomError {
    const { name } = this.#options.stream;
    this.#ended = new ShardloomError(
      "ERR_READ_ONLY",
      `Cannot append to log as stream ${name} must have no other writer: ${why}`,
      { details: { stream: name, sequence: this.#last + 1 } },
    );
    return this.#ended;
  }
}

/** What a call's failure is to a log: nothing is known to be refused for good, so what is in line is tried again, and in doubt meanwhile. */
export function failureOf(error: unknown): ShardloomError {
  const failure = ShardloomError.from(error, "ERR_IO");
  if (failure.code !== "ERR_UNAVAILABLE" && failure.code !== "ERR_CLOSED") return failure;
  return new ShardloomError("ERR_IO", failure.message, { cause: failure, details: failure.details });
}

function fail(error: unknown): never {
  throw failureOf(error);
}

/** The error of a stream that has not kept what it has acknowledged. */
function lost(stream: string, sequence: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot append to log as stream ${stream} must have message ${sequence}, which it has acknowledged: it is gone`,
    { details: { stream, sequence } },
  );
}
