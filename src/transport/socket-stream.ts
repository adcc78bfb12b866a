/**
 * A stream that has a socket for itself: its bytes are the socket's bytes.
 *
 * The socket may come later than the stream, when it is the other side that has to connect; what is written until then waits here.
 *
 * Invariant: the handler is told of one end in each direction or of one reset, and of nothing after that. Ends and resets travel on the
 * session's own connection. A reset does because the bytes of the socket may be stuck; an end does because Node loses what comes after it has
 * ended its half of a TLS connection: so it says how many bytes there are, and a socket is closed when both directions are whole. Who resets
 * leaves the socket to the peer, who closes it when it has read of the reset, so that a socket that closes by itself was lost.
 */
import { STREAM_LOST, type Stream, type StreamHandler } from "./session.ts";

/** What is used of a socket; `node:tls` and `node:net` have it. */
export interface ByteSocket {
  readonly writableLength: number;
  write(bytes: Uint8Array): boolean;
  end(): unknown;
  destroy(): unknown;
  on(event: "data", listener: (chunk: Uint8Array) => void): unknown;
  on(event: "drain" | "end" | "close", listener: () => void): unknown;
  on(event: "error", listener: (error: Error) => void): unknown;
}

/** What a stream needs of its session. */
export interface SocketStreamOwner {
  readonly streamBufferBytes: number;
  sendReset(id: number, code: number): void;
  /** @param bytes All that were written to the stream. */
  sendEnd(id: number, bytes: number): void;
  /** Nothing more happens on the stream. */
  forget(stream: SocketStream): void;
}

export class SocketStream implements Stream {
  readonly id: number;
  readonly direction: "both" | "send" | "receive";
  handler: StreamHandler | undefined;
  readonly #owner: SocketStreamOwner;
  #socket: ByteSocket | undefined;
  /** What was written while there was no socket. */
  #early: Uint8Array[] = [];
  #earlyBytes = 0;
  #ended: boolean;
  #peerEnded: boolean;
  #sentBytes = 0;
  #receivedBytes = 0;
  /** What the peer says it has written in all, once it has ended. */
  #expectedBytes: number | undefined;
  #wantsDrain = false;
  #over = false;

  constructor(owner: SocketStreamOwner, id: number, direction: "both" | "send" | "receive") {
    this.#owner = owner;
    this.id = id;
    this.direction = direction;
    this.#ended = direction === "receive";
    this.#peerEnded = direction === "send";
  }

  get bufferedBytes(): number {
    return this.#socket === undefined ? this.#earlyBytes : this.#socket.writableLength;
  }

  get hasSocket(): boolean {
    return this.#socket !== undefined;
  }

  /** Gives the stream its socket. */
  bind(socket: ByteSocket): void {
    this.#socket = socket;
    socket.on("data", (chunk) => this.#onChunk(chunk));
    socket.on("drain", () => this.#drained());
    socket.on("end", () => socket.end());
    socket.on("close", () => this.#onClose());
    socket.on("error", () => undefined); // `close` follows
    if (this.#over) {
      socket.destroy();
      return;
    }
    for (const chunk of this.#early) socket.write(chunk);
    this.#early = [];
    this.#settle();
    if (this.#wantsDrain && socket.writableLength <= this.#owner.streamBufferBytes) this.#drained();
  }

  write(chunk: Uint8Array): boolean {
    if (this.#over || this.#ended || chunk.length === 0) return true;
    this.#sentBytes += chunk.length;
    if (this.#socket === undefined) {
      this.#early.push(chunk);
      this.#earlyBytes += chunk.length;
    } else this.#socket.write(chunk);
    const hasRoom = this.bufferedBytes <= this.#owner.streamBufferBytes;
    if (!hasRoom) this.#wantsDrain = true;
    return hasRoom;
  }

  end(): void {
    if (this.#over || this.#ended) return;
    this.#ended = true;
    this.#owner.sendEnd(this.id, this.#sentBytes);
    this.#settle();
  }

  /** The peer writes no more: what it has written is on its way. */
  endAt(bytes: number): void {
    if (this.#over || this.#peerEnded) return;
    this.#expectedBytes = bytes;
    this.#checkEnd();
  }

  reset(code: number): void {
    if (!this.#finish()) return;
    this.#owner.sendReset(this.id, code);
    if (this.#socket === undefined) this.#owner.forget(this);
  }

  /** The peer has reset it, or there is no session any more. */
  abandon(code: number): void {
    const wasOpen = this.#finish();
    this.#socket?.destroy();
    this.#owner.forget(this);
    if (wasOpen) this.handler?.onReset(code);
  }

  /** The session ends: what was written may still leave. */
  release(): void {
    const wasOpen = this.#finish();
    this.#socket?.end();
    if (wasOpen) this.handler?.onReset(STREAM_LOST);
  }

  destroy(): void {
    this.#socket?.destroy();
  }

  #onChunk(chunk: Uint8Array): void {
    if (this.#over || this.#peerEnded) return;
    this.#receivedBytes += chunk.length;
    this.handler?.onChunk(chunk);
    if (this.#expectedBytes !== undefined) this.#checkEnd();
  }

  #checkEnd(): void {
    if (this.#over || this.#receivedBytes < (this.#expectedBytes as number)) return;
    this.#peerEnded = true;
    this.handler?.onEnd();
    this.#settle();
  }

  /** Both directions are whole: neither side needs the socket. */
  #settle(): void {
    if (this.#ended && this.#peerEnded && !this.#over) this.#socket?.end();
  }

  #onClose(): void {
    const isWhole = this.#ended && this.#peerEnded;
    const wasOpen = this.#finish();
    this.#owner.forget(this);
    if (wasOpen && !isWhole) this.handler?.onReset(STREAM_LOST);
  }

  #drained(): void {
    if (!this.#wantsDrain || this.#over) return;
    this.#wantsDrain = false;
    this.handler?.onDrain();
  }

  #finish(): boolean {
    if (this.#over) return false;
    this.#over = true;
    this.#early = [];
    return true;
  }
}
