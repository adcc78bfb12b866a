/**
 * Frames over one stream: written together, checked, and never more than the receiver has granted.
 *
 * Each side grants credit in bytes, and grants it anew as its frames are released; whoever has none left waits. A frame may overdraw what is
 * left, so that one longer than the window passes. Frames of one turn leave in one write.
 *
 * Invariant: of what a peer sends, at most the window and one frame are unreleased here; of what is sent to it, at most `maxQueuedBytes` wait
 * here and the stream's own buffer in the stream. Whoever breaks this is cut off. A frame counts as its payload and its header.
 * Source: credits of HTTP/2 and QUIC (RFC 9113, section 5.2; RFC 9000, section 4). Divergence: overdrawing, and no credit before `admit`,
 * so that who has not said who he is can make this side hold a greeting and nothing else.
 */
import { ShardloomError } from "../errors.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import {
  FRAME_HEADER_BYTES,
  FrameReader,
  frameBytes,
  readU32,
  writeFrame,
  writeFrameHeader,
  writeU32,
} from "./frame.ts";
import { STREAM_LOST, type Stream, type StreamHandler } from "./session.ts";

/** Kinds of frames. Numbers are part of the wire format. */
const KIND_OPENING = 1;
const KIND_DATA = 2;
const KIND_CREDIT = 3;
/** Asks for a sign of life; {@link KIND_PONG} is the answer. Neither has a payload or takes credit. */
const KIND_PING = 4;
const KIND_PONG = 5;

/** Longest greeting. */
export const MAX_OPENING_BYTES: number = 16 * 1024;
/** Nobody has a window like that. */
const MAX_CREDIT_BYTES = 2 ** 40;
/** A write is begun at this length at the latest. */
const BATCH_BYTES = 64 * 1024;
/** Longer payloads are written as they are; below this a copy costs less than a write of their own. */
const COPIED_BYTES = 8 * 1024;

/** What a frame stream tells. */
export interface FrameStreamHandler {
  /** The peer's greeting. */
  onOpening(payload: Uint8Array): void;
  /** The bytes are the handler's; {@link FrameStream.release} grants their room anew. */
  onFrame(payload: Uint8Array): void;
  /** Nothing follows: the stream has ended, or something is wrong with it and its owner resets it or closes the session. */
  onOver(error: ShardloomError): void;
}

export interface FrameStreamOptions {
  readonly scheduler: Scheduler;
  readonly handler: FrameStreamHandler;
  /** Bytes that the peer may send before they are released. @default 4 MiB */
  readonly windowBytes?: number;
  /** Longest payload, of both sides. @default 16 MiB */
  readonly maxFrameBytes?: number;
  /** Bytes that wait for the peer's credit before the stream is given up. @default 64 MiB */
  readonly maxQueuedBytes?: number;
}

/** One side of a stream of frames. Attach it to its stream before anything is sent. */
export class FrameStream implements StreamHandler {
  readonly #handler: FrameStreamHandler;
  readonly #scheduler: Scheduler;
  readonly #windowBytes: number;
  readonly #maxFrameBytes: number;
  readonly #maxQueuedBytes: number;
  readonly #reader: FrameReader;
  readonly #flushLater = this.#flush.bind(this);
  #stream: Stream | undefined;
  #queue: Uint8Array[] = [];
  /** First of the queue that has not been written. */
  #next = 0;
  #queuedBytes = 0;
  /** What the peer still takes; below 0 after a frame that overdrew. */
  #credit = 0;
  #scheduled = false;
  /** The stream has said to wait. */
  #full = false;
  #over = false;
  /** Of the peer's credit, what is left as it sees it; and what was released since. */
  #granted = 0;
  #released = 0;
  /** Signs of life: chunks that came, and what was buffered in the stream at the last look. */
  #chunks = 0;
  #chunksSeen = -1;
  #bufferedSeen = 0;
  #admitted = false;

  constructor(options: FrameStreamOptions) {
    const { scheduler, handler } = options;
    this.#scheduler = scheduler;
    this.#handler = handler;
    this.#windowBytes = options.windowBytes ?? 4 * 1024 * 1024;
    this.#maxFrameBytes = options.maxFrameBytes ?? 16 * 1024 * 1024;
    this.#maxQueuedBytes = options.maxQueuedBytes ?? 64 * 1024 * 1024;
    this.#reader = new FrameReader(MAX_OPENING_BYTES, (kind, payload) => this.#take(kind, payload));
  }

  /** Bytes that wait here for credit or for room in the stream. */
  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Bytes that the peer has sent and nobody has released. */
  get unreleasedBytes(): number {
    return this.#admitted ? this.#windowBytes - this.#granted - this.#released : 0;
  }

  attach(stream: Stream): void {
    this.#stream = stream;
  }

  /** Greets; at once, as nothing is granted before. */
  sendOpening(payload: Uint8Array): void {
    const bytes = new Uint8Array(FRAME_HEADER_BYTES + payload.length);
    writeFrame(bytes, 0, KIND_OPENING, payload);
    this.#write(bytes);
  }

  /** Lets the peer send frames. */
  admit(): void {
    if (this.#admitted) return;
    this.#admitted = true;
    this.#reader.maxBytes = this.#maxFrameBytes;
    this.#released = this.#windowBytes;
    this.#schedule();
  }

  /** Sends a frame when the peer has room; after the end it is dropped. The bytes must not be changed any more. */
  send(payload: Uint8Array): void {
    if (this.#over) return;
    const cost = payload.length + FRAME_HEADER_BYTES;
    if (payload.length > this.#maxFrameBytes) {
      const message = `Cannot send frame as it must be at most ${this.#maxFrameBytes} bytes: current value is ${payload.length}`;
      throw new ShardloomError("ERR_RECORD_TOO_LARGE", message);
    }
    this.#queue.push(payload);
    this.#queuedBytes += cost;
    if (this.#queuedBytes > this.#maxQueuedBytes) this.#fail(this.#overrun());
    else this.#schedule();
  }

  /** A frame's bytes are used: their room is granted anew. */
  release(payload: Uint8Array): void {
    this.#released += payload.length + FRAME_HEADER_BYTES;
    if (this.#released * 2 >= this.#windowBytes) this.#schedule();
  }

  /**
   * Whether anything has moved since the last look: something came, or some of what was written has left. If nothing did, the peer is
   * asked for a sign, which a peer that lives gives before long.
   */
  look(): boolean {
    const stream = this.#stream;
    if (stream === undefined || this.#over) return true;
    const { bufferedBytes } = stream;
    const moved = this.#chunks !== this.#chunksSeen || bufferedBytes < this.#bufferedSeen;
    this.#chunksSeen = this.#chunks;
    this.#bufferedSeen = bufferedBytes; // without what is asked now: that it leaves says nothing of the peer
    if (!moved && !this.#full) this.#write(PING);
    return moved;
  }

  /** Writes what there is credit for, now: the session is about to be closed. */
  flush(): void {
    this.#flush();
  }

  onChunk(chunk: Uint8Array): void {
    if (this.#over) return;
    this.#chunks++;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      this.#fail(ShardloomError.from(error, "ERR_CORRUPT"));
    }
  }

  onDrain(): void {
    this.#full = false;
    this.#flush();
  }

  onEnd(): void {
    const what = this.#reader.isPartial ? "in the middle of a frame" : "by its peer";
    this.#finish(new ShardloomError("ERR_UNAVAILABLE", `Cannot go on as the stream was ended ${what}`));
  }

  onReset(code: number): void {
    const what = code === STREAM_LOST ? "was lost" : `was reset by its peer with code ${code}`;
    this.#finish(
      new ShardloomError("ERR_UNAVAILABLE", `Cannot go on as the stream ${what}`, { details: { resetCode: code } }),
    );
  }

  #take(kind: number, payload: Uint8Array): void {
    if (kind === KIND_DATA && this.#admitted) {
      if (this.#granted <= 0) throw broken("credit for each frame", this.#granted);
      this.#granted -= payload.length + FRAME_HEADER_BYTES;
      this.#handler.onFrame(payload);
      if (this.#over) this.#reader.stop();
    } else if (kind === KIND_CREDIT) {
      if (payload.length !== 4) throw broken("credit of 4 bytes", payload.length);
      this.#credit += readU32(payload, 0);
      if (this.#credit > MAX_CREDIT_BYTES) throw broken("credit that can be", this.#credit);
      this.#flush();
    } else if (kind === KIND_PING && payload.length === 0) {
      if (!this.#full) this.#write(PONG); // who does not read is given nothing more
    } else if (kind === KIND_PONG && payload.length === 0) {
      // That it came is all that it says.
    } else if (kind === KIND_OPENING && !this.#admitted) {
      this.#handler.onOpening(payload);
    } else {
      throw broken("a frame of a kind that is due", kind);
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#full || this.#over) return;
    this.#scheduled = true;
    this.#scheduler.defer(this.#flushLater);
  }

  #flush(): void {
    this.#scheduled = false;
    if (this.#over) return;
    if (!this.#full && this.#released * 2 >= this.#windowBytes) this.#grant();
    while (!this.#full && this.#credit > 0 && this.#next < this.#queue.length) this.#writeBatch();
    if (this.#next === this.#queue.length && this.#next > 0) {
      this.#queue.length = 0;
      this.#next = 0;
    } else if (this.#next > 1024 && this.#next * 2 > this.#queue.length) {
      this.#queue = this.#queue.slice(this.#next);
      this.#next = 0;
    }
  }

  #grant(): void {
    const payload = new Uint8Array(4);
    writeU32(payload, 0, this.#released);
    this.#granted += this.#released;
    this.#released = 0;
    const bytes = new Uint8Array(FRAME_HEADER_BYTES + 4);
    writeFrame(bytes, 0, KIND_CREDIT, payload);
    this.#write(bytes);
  }

  /** Writes the next frames, together as far as they are short. */
  #writeBatch(): void {
    const queue = this.#queue;
    let bytes = 0;
    let credit = this.#credit;
    let end = this.#next;
    let long: Uint8Array | undefined;
    while (end < queue.length && credit > 0 && bytes < BATCH_BYTES && long === undefined) {
      const payload = queue[end++] as Uint8Array;
      credit -= payload.length + FRAME_HEADER_BYTES;
      bytes += FRAME_HEADER_BYTES;
      if (payload.length > COPIED_BYTES) long = payload;
      else bytes += payload.length;
    }
    const batch = Buffer.allocUnsafe(bytes);
    let offset = 0;
    for (let at = this.#next; at < end; at++) {
      const payload = queue[at] as Uint8Array;
      queue[at] = NOTHING;
      const write = payload === long ? writeFrameHeader : writeFrame;
      offset = write(batch, offset, KIND_DATA, payload);
    }
    this.#queuedBytes -= this.#credit - credit;
    this.#credit = credit;
    this.#next = end;
    this.#write(batch);
    if (long !== undefined) this.#write(long);
  }

  #write(bytes: Uint8Array): void {
    if (this.#stream?.write(bytes) === false) this.#full = true;
  }

  #overrun(): ShardloomError {
    const message = `Cannot send frame as at most ${this.#maxQueuedBytes} bytes must wait for the peer: current value is ${this.#queuedBytes}`;
    return new ShardloomError("ERR_OVERLOADED", message);
  }

  /** This side gives the stream up. */
  #fail(error: ShardloomError): void {
    if (this.#over) return;
    // Whoever sends must not be called back from inside. The stream is its owner's to reset: a close of the session can say why.
    this.#over = true;
    this.#drop();
    this.#scheduler.defer(() => this.#handler.onOver(error));
  }

  #finish(error: ShardloomError): void {
    if (this.#over) return;
    this.#over = true;
    this.#drop();
    this.#handler.onOver(error);
  }

  #drop(): void {
    this.#reader.stop();
    this.#queue = [];
    this.#next = 0;
    this.#queuedBytes = 0;
  }
}

const PING = frameBytes(KIND_PING, new Uint8Array(0));
const PONG = frameBytes(KIND_PONG, new Uint8Array(0));
const NOTHING = new Uint8Array(0);

function broken(rule: string, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot go on as the peer must have sent ${rule}: current value is ${value}`,
  );
}
