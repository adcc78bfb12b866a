/**
 * A stream of the WebTransport package, told by calls instead of promises.
 *
 * Invariant: as `session.ts` says. Chunks go in pieces, so that datagrams, which share the HTTP/2 connection, wait for a piece at most; a piece
 * counts as buffered until the package has handed it to HTTP/2. The package's streams are made later than ours: what is
 * written before waits here.
 */
import { STREAM_LOST, type Stream, type StreamHandler } from "./session.ts";
import type { WebReadable, WebReader, WebWritable, WebWriter } from "./webtransport-package.ts";

/** Longest piece, in bytes. */
const PIECE_BYTES = 64 * 1024;

/** What a stream needs of its session. */
export interface WebStreamOwner {
  readonly streamBufferBytes: number;
  forget(stream: WebStream): void;
  /** Runs the callback in a later turn. */
  later(callback: () => void): void;
}

export class WebStream implements Stream {
  readonly id: number;
  readonly direction: "both" | "send" | "receive";
  handler: StreamHandler | undefined;
  bufferedBytes = 0;
  readonly #owner: WebStreamOwner;
  #reader: WebReader<Uint8Array> | undefined;
  #writer: WebWriter | undefined;
  #early: Uint8Array[] = [];
  #ended: boolean;
  #peerEnded: boolean;
  #wantsDrain = false;
  #over = false;
  #resetCode: number | undefined;

  constructor(owner: WebStreamOwner, id: number, direction: "both" | "send" | "receive") {
    this.#owner = owner;
    this.id = id;
    this.direction = direction;
    this.#ended = direction === "receive";
    this.#peerEnded = direction === "send";
  }

  /** The package's stream is there. */
  bind(readable: WebReadable<Uint8Array> | undefined, writable: WebWritable | undefined): void {
    this.#reader = readable?.getReader();
    this.#writer = writable?.getWriter();
    if (this.#over) {
      this.#abort(this.#resetCode ?? STREAM_LOST);
      return;
    }
    for (const piece of this.#early) this.#send(piece);
    this.#early = [];
    if (this.#ended && writable !== undefined) this.#finishWriting();
    if (this.#reader !== undefined) void this.#read(this.#reader);
  }

  write(chunk: Uint8Array): boolean {
    if (this.#over || this.#ended || chunk.length === 0) return true;
    for (let at = 0; at < chunk.length; at += PIECE_BYTES) {
      const piece = chunk.subarray(at, at + PIECE_BYTES);
      this.bufferedBytes += piece.length;
      if (this.#writer === undefined) this.#early.push(piece);
      else this.#send(piece);
    }
    const hasRoom = this.bufferedBytes <= this.#owner.streamBufferBytes;
    if (!hasRoom) this.#wantsDrain = true;
    return hasRoom;
  }

  end(): void {
    if (this.#over || this.#ended) return;
    this.#ended = true;
    if (this.#writer !== undefined) this.#finishWriting();
  }

  reset(code: number): void {
    if (!this.#finish()) return;
    this.#resetCode = code;
    this.#abort(code);
  }

  /** The session is gone, or the peer has reset the stream. */
  abandon(code: number): void {
    if (!this.#finish()) return;
    this.#abort(code);
    this.handler?.onReset(code);
  }

  #send(piece: Uint8Array): void {
    const done = (): void => {
      this.bufferedBytes -= piece.length;
      if (!this.#wantsDrain || this.#over || this.bufferedBytes * 2 > this.#owner.streamBufferBytes) return;
      this.#wantsDrain = false;
      this.handler?.onDrain();
    };
    this.#writer?.write(piece).then(done, (error: unknown) => {
      this.bufferedBytes -= piece.length;
      this.#failed(error);
    });
  }

  #finishWriting(): void {
    this.#writer?.close().then(
      () => this.#settle(),
      (error: unknown) => this.#failed(error),
    );
  }

  async #read(reader: WebReader<Uint8Array>): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (this.#over) return;
        if (done) break;
        if (value !== undefined && value.length > 0) this.handler?.onChunk(value);
      }
    } catch (error) {
      this.#failed(error);
      return;
    }
    this.#peerEnded = true;
    this.handler?.onEnd();
    this.#settle();
  }

  /** A write or a read has failed: the peer has reset the stream, or the session is gone. */
  #failed(error: unknown): void {
    const message = error instanceof Error ? error.message : "";
    const [, code] = /(?:Resetstream|StopSending) with code:(\d+)/.exec(message) ?? [];
    if (code !== undefined) this.abandon(Number(code));
    // A session that closes fails its streams first, and says why just after.
    else this.#owner.later(() => this.abandon(STREAM_LOST));
  }

  #settle(): void {
    if (this.#ended && this.#peerEnded) this.#finish();
  }

  #abort(code: number): void {
    // What these promises say is known already.
    this.#writer?.abort({ code }).catch(() => undefined);
    if (!this.#peerEnded) this.#reader?.cancel({ code }).catch(() => undefined);
  }

  #finish(): boolean {
    if (this.#over) return false;
    this.#over = true;
    this.#early = [];
    this.#owner.forget(this);
    return true;
  }
}
