/**
 * A session over sockets: one connection for itself and one for each stream, so that no stream waits behind the bytes of another, and
 * datagrams wait behind nothing.
 *
 * All connections are made by the side that dialled. The other side proves that they belong together by a token that it gave out on the first
 * one, and by the certificate; when it opens a stream itself, it asks the dialler to connect for it. Ids of the dialler are even.
 *
 * Invariant: as `session.ts` says. When the session's own connection ends, so does everything else of it.
 */
import { ShardloomError } from "../errors.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
import { FrameReader, frameBytes } from "./frame.ts";
import {
  CLOSE,
  type CloseInfo,
  DATAGRAM_BUFFER_BYTES,
  MAX_DATAGRAM_BYTES,
  type RemoteIdentity,
  type ResolvedLimits,
  type Session,
  type SessionClose,
  type SessionHandler,
  STREAM_LOST,
  STREAM_REFUSED,
  type Stream,
  type StreamHandler,
} from "./session.ts";
import { closedByPeer, closedLocally, lost, SessionLife } from "./session-life.ts";
import {
  acceptFrame,
  attachFrame,
  closeFrame,
  decodeClose,
  decodeEnd,
  decodeInvite,
  decodeReset,
  endFrame,
  inviteFrame,
  MAX_CONTROL_BYTES,
  openFrame,
  resetFrame,
  SOCKET_FRAME,
  type StreamOpening,
  TOKEN_BYTES,
} from "./socket-frames.ts";
import { type ByteSocket, SocketStream, type SocketStreamOwner } from "./socket-stream.ts";

/** What a session is made from. */
export interface SocketSessionOptions {
  readonly scheduler: Scheduler;
  readonly limits: ResolvedLimits;
  /** The session's own connection. */
  readonly control: ByteSocket;
  /** Makes a further connection to the peer; undefined on the side that did not dial. */
  readonly dial: (() => ByteSocket) | undefined;
  /** Where the peer is, and once ready who it is. */
  readonly remote: () => RemoteIdentity;
  /** Turns what a socket says when it fails into an error. */
  readonly errorOf: (error: Error) => ShardloomError;
}

/** Connections that have not ended by themselves so long after the close are cut, in ms. */
const LINGER_MS = 1_000;
/** What may wait on the session's own connection; datagrams fill a part of it only. */
const CONTROL_BUFFER_BYTES = 1024 * 1024;
/** Streams that the peer may have ended before their connections come. */
const EARLY_STREAMS = 1_024;

export class SocketSession implements Session, SocketStreamOwner {
  readonly ready: Promise<void>;
  readonly closed: Promise<SessionClose>;
  readonly maxDatagramBytes: number = MAX_DATAGRAM_BYTES;
  readonly streamBufferBytes: number;
  handler: SessionHandler | undefined;
  /** Names the session; chosen by the side that did not dial. */
  token: Uint8Array = NO_TOKEN;
  readonly #options: SocketSessionOptions;
  readonly #life: SessionLife = new SessionLife();
  readonly #streams: Map<number, SocketStream> = new Map();
  /** What the peer has said of streams whose connections have not come: the bytes that they have, or undefined when they were reset. */
  readonly #early: Map<number, number | undefined> = new Map();
  readonly #reader: FrameReader;
  #nextId: number;
  #remote: RemoteIdentity | undefined;
  #handshake: Timer | undefined;
  #failure: ShardloomError | undefined;

  constructor(options: SocketSessionOptions) {
    this.#options = options;
    this.ready = this.#life.ready;
    this.closed = this.#life.closed;
    this.streamBufferBytes = options.limits.streamBufferBytes;
    this.#nextId = options.dial === undefined ? 1 : 0;
    this.#reader = new FrameReader(MAX_CONTROL_BYTES, (kind, payload) => this.#take(kind, payload));
    const { control } = options;
    control.on("close", () => this.#settle(this.#lost()));
    control.on("error", (error) => {
      this.#failure ??= options.errorOf(error);
    });
    control.on("end", () => control.end());
  }

  get remote(): RemoteIdentity {
    this.#remote ??= this.#options.remote();
    return this.#remote;
  }

  /** The dialling side begins. */
  start(): void {
    const { control, scheduler, limits } = this.#options;
    control.on("data", (chunk) => this.receive(chunk));
    control.write(openFrame());
    this.#handshake = scheduler.timer(limits.handshakeMs, () => {
      const message = `Cannot connect to ${this.remote.address} as it did not answer within ${limits.handshakeMs} ms`;
      this.#abort(new ShardloomError("ERR_TIMEOUT", message));
    });
    this.#handshake.unref();
  }

  /** The accepting side has read the first frame. */
  accepted(token: Uint8Array): void {
    this.token = token;
    const { control } = this.#options;
    control.on("data", (chunk) => this.receive(chunk));
    control.write(acceptFrame(token));
    this.#life.open();
  }

  receive(chunk: Uint8Array): void {
    try {
      this.#reader.push(chunk);
    } catch (error) {
      this.#abort(ShardloomError.from(error, "ERR_CORRUPT"));
    }
  }

  openBidirectional(handler: StreamHandler): Stream {
    return this.#open(handler, "both");
  }

  openUnidirectional(handler: StreamHandler): Stream {
    return this.#open(handler, "send");
  }

  sendDatagram(bytes: Uint8Array): boolean {
    const { control } = this.#options;
    if (!this.#life.isReady || bytes.length > MAX_DATAGRAM_BYTES) return false;
    if (control.writableLength > DATAGRAM_BUFFER_BYTES) return false;
    control.write(frameBytes(SOCKET_FRAME.DATAGRAM, bytes));
    return true;
  }

  close(info: CloseInfo): void {
    if (this.#life.isClosed) return;
    this.#options.control.write(closeFrame(info));
    this.#settle(closedLocally(info));
  }

  sendReset(id: number, code: number): void {
    this.#tell(resetFrame(id, code));
  }

  sendEnd(id: number, bytes: number): void {
    this.#tell(endFrame(id, bytes));
  }

  forget(stream: SocketStream): void {
    this.#streams.delete(stream.id);
  }

  /** A connection for a stream has come. */
  attach({ id, direction }: StreamOpening, socket: ByteSocket): void {
    const isOwn = id % 2 === this.#nextId % 2;
    const known = this.#streams.get(id);
    const isDue = isOwn ? known !== undefined && !known.hasSocket : known === undefined;
    const isReset = this.#early.has(id) && this.#early.get(id) === undefined;
    if (this.#life.isClosed || !isDue || isReset) {
      this.#early.delete(id);
      socket.on("error", () => undefined);
      socket.destroy();
      return;
    }
    const stream = known ?? this.#incoming({ id, direction });
    if (stream === undefined) {
      socket.on("error", () => undefined);
      socket.destroy();
      return;
    }
    stream.bind(socket);
    const bytes = this.#early.get(id);
    this.#early.delete(id);
    if (bytes !== undefined) stream.endAt(bytes);
  }

  #open(handler: StreamHandler, direction: "both" | "send"): Stream {
    this.#life.checkOpen(this.remote.address);
    const opening: StreamOpening = { id: this.#nextId, direction };
    this.#nextId += 2;
    const stream = new SocketStream(this, opening.id, direction);
    stream.handler = handler;
    this.#streams.set(stream.id, stream);
    if (this.#options.dial === undefined) this.#tell(inviteFrame(opening));
    else this.#connect(opening, stream);
    return stream;
  }

  /** The peer opens a stream. @returns nothing when it is refused */
  #incoming({ id, direction }: StreamOpening): SocketStream | undefined {
    const parity = id % 2;
    let open = 0;
    for (const known of this.#streams.keys()) if (known % 2 === parity) open++;
    const stream = new SocketStream(this, id, direction === "both" ? "both" : "receive");
    if (open < this.#options.limits.maxStreams) stream.handler = this.handler?.onStream(stream);
    if (stream.handler === undefined) {
      this.sendReset(id, STREAM_REFUSED);
      return undefined;
    }
    this.#streams.set(id, stream);
    return stream;
  }

  /** Tells the peer something; one that opens and resets streams and never reads what becomes of them is cut off. */
  #tell(frame: Uint8Array): void {
    const { control } = this.#options;
    if (this.#life.isClosed) return;
    control.write(frame);
    if (control.writableLength > CONTROL_BUFFER_BYTES)
      this.#abort(new ShardloomError("ERR_OVERLOADED", `Cannot go on with ${this.remote.address} as it does not read`));
  }

  #connect(opening: StreamOpening, stream: SocketStream): void {
    const socket = (this.#options.dial as () => ByteSocket)();
    socket.write(attachFrame(this.token, opening));
    stream.bind(socket);
  }

  #take(kind: number, payload: Uint8Array): void {
    if (!this.#life.isReady && kind !== SOCKET_FRAME.CLOSE && kind !== SOCKET_FRAME.ACCEPT) throw undue(kind);
    switch (kind) {
      case SOCKET_FRAME.ACCEPT:
        return this.#acceptedBy(payload);
      case SOCKET_FRAME.INVITE:
        return this.#invited(decodeInvite(payload));
      case SOCKET_FRAME.RESET:
        return this.#reset(decodeReset(payload));
      case SOCKET_FRAME.END: {
        const { id, bytes } = decodeEnd(payload);
        const stream = this.#streams.get(id);
        return stream === undefined ? this.#foretold(id, bytes) : stream.endAt(bytes);
      }
      case SOCKET_FRAME.DATAGRAM:
        return this.handler?.onDatagram(payload);
      case SOCKET_FRAME.CLOSE: {
        this.#settle(closedByPeer(this.remote.address, decodeClose(payload)));
        this.#reader.stop();
        return;
      }
      default:
        throw undue(kind);
    }
  }

  #acceptedBy(token: Uint8Array): void {
    if (this.#options.dial === undefined || this.#life.isReady || token.length !== TOKEN_BYTES)
      throw undue(SOCKET_FRAME.ACCEPT);
    this.token = token;
    this.#handshake?.cancel();
    this.#life.open();
  }

  #invited(opening: StreamOpening): void {
    if (this.#options.dial === undefined || opening.id % 2 === 0 || this.#streams.has(opening.id))
      throw undue(SOCKET_FRAME.INVITE);
    const stream = this.#incoming(opening);
    if (stream !== undefined) this.#connect(opening, stream);
  }

  #reset({ id, code }: { readonly id: number; readonly code: number }): void {
    const stream = this.#streams.get(id);
    if (stream !== undefined) stream.abandon(code);
    else this.#foretold(id, undefined);
  }

  /** A stream is over whose connection may be on its way. */
  #foretold(id: number, bytes: number | undefined): void {
    if (id % 2 === this.#nextId % 2) return; // one of ours, over here too
    this.#early.set(id, bytes);
    if (this.#early.size > EARLY_STREAMS) this.#early.delete(this.#early.keys().next().value as number);
  }

  /** What the peer does makes no sense, or nothing comes at all. */
  #abort(error: ShardloomError): void {
    this.#settle({ code: CLOSE.LOST, reason: error.message, by: "network", error });
    this.#options.control.destroy();
  }

  #lost(): SessionClose {
    const failure = this.#failure;
    if (failure === undefined) return lost(this.remote.address, "its connection has ended");
    return { code: CLOSE.LOST, reason: failure.message, by: "network", error: failure };
  }

  #settle(close: SessionClose): void {
    this.#handshake?.cancel();
    const { control, scheduler } = this.#options;
    const isLocal = close.by === "local";
    if (!this.#life.close(close)) return;
    const streams = [...this.#streams.values()];
    control.end();
    if (isLocal) {
      const timer = scheduler.timer(LINGER_MS, () => {
        control.destroy();
        for (const stream of streams) stream.destroy();
      });
      control.on("close", () => {
        timer.cancel();
        for (const stream of streams) stream.destroy();
      });
    }
    // Not from inside of `close`: whoever closes is not called back.
    scheduler.defer(() => {
      for (const stream of streams) {
        if (isLocal) stream.release();
        else stream.abandon(STREAM_LOST);
      }
      this.#streams.clear();
      if (!isLocal) control.destroy();
    });
  }
}

const NO_TOKEN = new Uint8Array(0);

function undue(kind: number): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", `Cannot go on with session as a frame of kind ${kind} must not come now`);
}
