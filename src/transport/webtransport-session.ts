/**
 * A session of the WebTransport package, of either side.
 *
 * Invariant: as `session.ts` says. A close says its code and reason in words of our own, as the package's do not all arrive: a session that ends
 * without them was lost. The first stream that the accepting side opens is thrown away by both (see webtransport-package.ts).
 */
import { ShardloomError } from "../errors.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
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
import { closedByPeer, closedLocally, encodeReason, lost, SessionLife } from "./session-life.ts";
import {
  guardStreams,
  type WebCarrier,
  type WebReadable,
  type WebSession,
  type WebWriter,
} from "./webtransport-package.ts";
import { WebStream, type WebStreamOwner } from "./webtransport-stream.ts";

export interface WebTransportSessionOptions {
  readonly scheduler: Scheduler;
  readonly limits: ResolvedLimits;
  readonly isDialler: boolean;
  readonly address: string;
}

/** Who closes leaves the peer so long to read why, in ms. */
const LINGER_MS = 1_000;

export class WebTransportSession implements Session, WebStreamOwner {
  readonly ready: Promise<void>;
  readonly closed: Promise<SessionClose>;
  readonly maxDatagramBytes: number = MAX_DATAGRAM_BYTES;
  readonly streamBufferBytes: number;
  handler: SessionHandler | undefined;
  readonly #options: WebTransportSessionOptions;
  readonly #life: SessionLife = new SessionLife();
  readonly #streams: Set<WebStream> = new Set();
  #session: WebSession | undefined;
  #carrier: WebCarrier | undefined;
  #datagrams: WebWriter | undefined;
  #remote: RemoteIdentity;
  #incoming = 0;
  #lastId = 0;
  /** Bytes of datagrams since the connection could take no more. */
  #waitingBytes = 0;
  #handshake: Timer | undefined;
  #cut: (() => void) | undefined;

  constructor(options: WebTransportSessionOptions) {
    this.#options = options;
    this.ready = this.#life.ready;
    this.closed = this.#life.closed;
    this.streamBufferBytes = options.limits.streamBufferBytes;
    this.#remote = { certificate: undefined, address: options.address };
    if (!options.isDialler) return;
    const { handshakeMs } = options.limits;
    this.#handshake = options.scheduler.timer(handshakeMs, () => {
      const message = `Cannot connect to ${options.address} as it did not answer within ${handshakeMs} ms`;
      this.fail(new ShardloomError("ERR_TIMEOUT", message));
    });
    this.#handshake.unref();
  }

  get remote(): RemoteIdentity {
    return this.#remote;
  }

  /** The package's session is ready. @param cut Ends its connection at once. */
  open(session: WebSession, remote: RemoteIdentity, cut: () => void): void {
    guardStreams(session);
    this.#session = session;
    this.#remote = remote;
    this.#cut = cut;
    if (this.#life.isClosed) {
      cut();
      return;
    }
    this.#handshake?.cancel();
    this.#carrier = (session.sessionint ?? session).objint?.stream;
    this.#carrier?.on("drain", () => {
      this.#waitingBytes = 0;
    });
    this.#datagrams = session.datagrams.createWritable().getWriter();
    session.closed.then(
      (info) => this.#closedAs(info.reason ?? ""),
      (error: unknown) => this.#settle(lost(this.#remote.address, "its connection has ended", error)),
    );
    this.#life.open();
    this.#takeStreams(session);
    if (!this.#options.isDialler) session.createBidirectionalStream().catch(() => undefined); // see the header
  }

  /** The connection has failed, or could not be made. */
  fail(error: ShardloomError): void {
    this.#settle({ code: CLOSE.LOST, reason: error.message, by: "network", error });
  }

  /** The peer gave this reason before there was a session. */
  refusedBy(info: CloseInfo): void {
    this.#settle(closedByPeer(this.#remote.address, info));
  }

  openBidirectional(handler: StreamHandler): Stream {
    const stream = this.#outgoing(handler, "both");
    this.#session?.createBidirectionalStream().then(
      ({ readable, writable }) => stream.bind(readable, writable),
      () => stream.abandon(STREAM_LOST),
    );
    return stream;
  }

  openUnidirectional(handler: StreamHandler): Stream {
    const stream = this.#outgoing(handler, "send");
    this.#session?.createUnidirectionalStream().then(
      (writable) => stream.bind(undefined, writable),
      () => stream.abandon(STREAM_LOST),
    );
    return stream;
  }

  sendDatagram(bytes: Uint8Array): boolean {
    if (!this.#life.isReady || bytes.length > MAX_DATAGRAM_BYTES) return false;
    if (this.#carrier?.writableNeedDrain === true) {
      // The package queues without a limit what the connection does not take.
      if (this.#waitingBytes + bytes.length > DATAGRAM_BUFFER_BYTES) return false;
      this.#waitingBytes += bytes.length;
    }
    this.#datagrams?.write(bytes).catch(() => undefined); // a datagram may be lost
    return true;
  }

  close(info: CloseInfo): void {
    if (this.#life.isClosed) return;
    const reason = new TextDecoder().decode(encodeReason(info.reason));
    const session = this.#session;
    this.#settle(closedLocally({ code: info.code, reason }), () =>
      session?.close({ closeCode: 0, reason: encodeGoodbye({ code: info.code, reason }) }),
    );
  }

  forget(stream: WebStream): void {
    this.#streams.delete(stream);
  }

  later(callback: () => void): void {
    this.#options.scheduler.turn(callback);
  }

  #outgoing(handler: StreamHandler, direction: "both" | "send"): WebStream {
    this.#life.checkOpen(this.#remote.address);
    const stream = new WebStream(this, this.#lastId++, direction);
    stream.handler = handler;
    this.#streams.add(stream);
    return stream;
  }

  #takeStreams(session: WebSession): void {
    let first = this.#options.isDialler;
    void this.#each(session.incomingBidirectionalStreams, ({ readable, writable }) => {
      if (first) first = false;
      else this.#take("both").bind(readable, writable);
    });
    void this.#each(session.incomingUnidirectionalStreams, (readable) =>
      this.#take("receive").bind(readable, undefined),
    );
    void this.#each(session.datagrams.readable, (bytes) => this.handler?.onDatagram(bytes));
  }

  async #each<T>(source: WebReadable<T>, take: (item: T) => void): Promise<void> {
    const reader = source.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done || this.#life.isClosed) return;
        if (value !== undefined) take(value);
      }
    } catch (error) {
      this.#settle(lost(this.#remote.address, "its connection has ended", error));
    }
  }

  /** The peer opens a stream. */
  #take(direction: "both" | "receive"): WebStream {
    const owner: WebStreamOwner = {
      streamBufferBytes: this.streamBufferBytes,
      later: (callback) => this.later(callback),
      forget: (stream) => {
        this.#incoming--;
        this.#streams.delete(stream);
      },
    };
    const stream = new WebStream(owner, this.#lastId++, direction);
    this.#streams.add(stream);
    const hasRoom = this.#incoming++ < this.#options.limits.maxStreams;
    stream.handler = hasRoom ? this.handler?.onStream(stream) : undefined;
    if (stream.handler === undefined) stream.reset(STREAM_REFUSED);
    return stream;
  }

  #closedAs(reason: string): void {
    const goodbye = decodeGoodbye(reason);
    this.#settle(
      goodbye === undefined
        ? lost(this.#remote.address, "its connection has ended")
        : closedByPeer(this.#remote.address, goodbye),
    );
  }

  #settle(close: SessionClose, farewell: () => void = () => undefined): void {
    this.#handshake?.cancel();
    if (!this.#life.close(close)) return;
    farewell();
    const { scheduler } = this.#options;
    const timer = scheduler.timer(close.by === "local" ? LINGER_MS : 0, () => this.#cut?.());
    timer.unref();
    scheduler.defer(() => {
      for (const stream of [...this.#streams]) stream.abandon(STREAM_LOST);
    });
  }
}

/** Begins every reason that one of us gives. */
const GOODBYE = "shardloom";

export function encodeGoodbye({ code, reason }: CloseInfo): string {
  return `${GOODBYE} ${code} ${reason}`;
}

/** @returns undefined when it is none of ours */
export function decodeGoodbye(text: string): CloseInfo | undefined {
  const [, code, reason] = /^shardloom (\d{1,5}) (.*)$/s.exec(text) ?? [];
  return code === undefined || reason === undefined ? undefined : { code: Number(code), reason };
}
