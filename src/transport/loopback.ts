/**
 * Sessions between two parts of one process: what the tests of everything above need, and the measure of what a network costs.
 *
 * Invariant: as `session.ts` says. Whatever one side does reaches the other in a later turn of the event loop, in the order of the calls;
 * bytes are copied, so that neither side can see the other's memory.
 */
import { ShardloomError } from "../errors.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import {
  CLOSE,
  type CloseInfo,
  type ConnectOptions,
  DATAGRAM_BUFFER_BYTES,
  type Listener,
  type ListenOptions,
  MAX_DATAGRAM_BYTES,
  type RemoteIdentity,
  type ResolvedLimits,
  resolveLimits,
  type Session,
  type SessionClose,
  type SessionHandler,
  STREAM_LOST,
  STREAM_REFUSED,
  type Stream,
  type StreamHandler,
  type Transport,
} from "./session.ts";
import { closedByPeer, closedLocally, encodeReason, lost, SessionLife } from "./session-life.ts";

/** All that listen in one process; transports that share it reach each other. */
export type LoopbackPorts = Map<string, LoopbackListener>;

interface LoopbackListener {
  readonly options: ListenOptions;
  readonly sessions: Set<LoopbackSession>;
}

const MAX_SESSIONS = 256;

/** Creates a transport; addresses are `loopback://name:port`. */
export function createLoopbackTransport(scheduler: Scheduler, ports: LoopbackPorts = new Map()): Transport {
  return {
    scheme: "loopback",
    sharesConnection: false,
    connect: (address, options) => dial(scheduler, ports, address, options),
    listen: async (address, options) => {
      const real = new URL(address);
      for (let port = 1; real.port === "" || real.port === "0" || ports.has(real.host); port++) {
        if (address.port !== "" && address.port !== "0")
          throw new ShardloomError("ERR_UNAVAILABLE", `Cannot listen on ${address.href} as it is taken`);
        real.port = String(port);
      }
      const listener: LoopbackListener = { options, sessions: new Set() };
      ports.set(real.host, listener);
      return {
        address: real,
        updateCredentials: () => undefined, // there are none
        close: async () => {
          ports.delete(real.host);
          const sessions = [...listener.sessions];
          for (const session of sessions) session.close({ code: CLOSE.NORMAL, reason: "the listener was closed" });
          await Promise.all(sessions.map(({ closed }) => closed));
        },
      } satisfies Listener;
    },
  };
}

function dial(scheduler: Scheduler, ports: LoopbackPorts, address: URL, options: ConnectOptions): Session {
  const near = new LoopbackSession(scheduler, address.host, resolveLimits(options));
  near.handler = options.handler;
  near.later(() => {
    const listener = ports.get(address.host);
    if (near.life.isClosed) return;
    if (listener === undefined || listener.sessions.size >= (listener.options.maxSessions ?? MAX_SESSIONS)) {
      near.settle(lost(address.host, listener === undefined ? "nobody listens there" : "it has too many sessions"));
      return;
    }
    const far = new LoopbackSession(scheduler, "loopback", resolveLimits(listener.options));
    far.other = near;
    near.other = far;
    listener.sessions.add(far);
    void far.closed.then(() => listener.sessions.delete(far));
    far.life.open();
    far.handler = listener.options.accept(far);
    if (far.handler === undefined) far.close({ code: CLOSE.REFUSED, reason: "the listener takes no session now" });
    near.later(() => near.life.open());
  });
  return near;
}

class LoopbackSession implements Session {
  readonly life: SessionLife = new SessionLife();
  readonly ready: Promise<void> = this.life.ready;
  readonly closed: Promise<SessionClose> = this.life.closed;
  readonly remote: RemoteIdentity;
  readonly maxDatagramBytes: number = MAX_DATAGRAM_BYTES;
  readonly limits: ResolvedLimits;
  readonly streams: Set<LoopbackStream> = new Set();
  handler: SessionHandler | undefined;
  other: LoopbackSession | undefined;
  #incoming = 0;
  #datagramBytes = 0;
  #streamId = 0;
  readonly #scheduler: Scheduler;
  #due: (() => void)[] = [];

  constructor(scheduler: Scheduler, address: string, limits: ResolvedLimits) {
    this.#scheduler = scheduler;
    this.remote = { certificate: undefined, address };
    this.limits = limits;
  }

  /** Runs the callback in a later turn, after those that were given before. */
  later(callback: () => void): void {
    this.#due.push(callback);
    if (this.#due.length > 1) return;
    this.#scheduler.turn(() => {
      const due = this.#due;
      this.#due = [];
      for (const run of due) run();
    });
  }

  openBidirectional(handler: StreamHandler): Stream {
    return this.#open(handler, "both");
  }

  openUnidirectional(handler: StreamHandler): Stream {
    return this.#open(handler, "send");
  }

  sendDatagram(bytes: Uint8Array): boolean {
    const { other } = this;
    if (!this.life.isReady || other === undefined || bytes.length > MAX_DATAGRAM_BYTES) return false;
    if (this.#datagramBytes + bytes.length > DATAGRAM_BUFFER_BYTES) return false;
    const copy = bytes.slice();
    this.#datagramBytes += copy.length;
    this.later(() => {
      this.#datagramBytes -= copy.length;
      if (!other.life.isClosed) other.handler?.onDatagram(copy);
    });
    return true;
  }

  close(info: CloseInfo): void {
    const { other } = this;
    if (!this.settle(closedLocally(info))) return;
    const told = { code: info.code, reason: new TextDecoder().decode(encodeReason(info.reason)) };
    if (other !== undefined) this.later(() => other.settle(closedByPeer(other.remote.address, told)));
  }

  settle(close: SessionClose): boolean {
    if (!this.life.close(close)) return false;
    const streams = [...this.streams];
    this.streams.clear();
    this.later(() => {
      for (const stream of streams) stream.lose();
    });
    return true;
  }

  #open(handler: StreamHandler, direction: "both" | "send"): Stream {
    this.life.checkOpen(this.remote.address);
    const other = this.other as LoopbackSession;
    const near = new LoopbackStream(this, this.#streamId++, direction);
    const far = new LoopbackStream(other, other.#streamId++, direction === "both" ? "both" : "receive");
    near.other = far;
    far.other = near;
    near.handler = handler;
    this.streams.add(near);
    this.later(() => {
      if (other.life.isClosed || near.isOver) return;
      other.#incoming++;
      far.onOver = () => other.#incoming--;
      other.streams.add(far);
      far.handler = other.#incoming > other.limits.maxStreams ? undefined : other.handler?.onStream(far);
      if (far.handler === undefined) far.reset(STREAM_REFUSED);
    });
    return near;
  }
}

class LoopbackStream implements Stream {
  readonly id: number;
  readonly direction: "both" | "send" | "receive";
  readonly #session: LoopbackSession;
  handler: StreamHandler | undefined;
  other!: LoopbackStream;
  bufferedBytes = 0;
  isOver = false;
  onOver: () => void = () => undefined;
  #ended: boolean;
  /** The peer was told of the end. */
  #endTold: boolean;
  #peerEnded: boolean;
  #wantsDrain = false;

  constructor(session: LoopbackSession, id: number, direction: "both" | "send" | "receive") {
    this.#session = session;
    this.id = id;
    this.direction = direction;
    this.#ended = direction === "receive";
    this.#endTold = this.#ended;
    this.#peerEnded = direction === "send";
  }

  write(chunk: Uint8Array): boolean {
    if (this.isOver || this.#ended || chunk.length === 0) return true;
    const copy = chunk.slice();
    this.bufferedBytes += copy.length;
    this.#session.later(() => {
      this.bufferedBytes -= copy.length;
      const { other } = this;
      if (!other.isOver && !this.isOver) other.handler?.onChunk(copy);
      if (!this.#wantsDrain || this.bufferedBytes > 0 || this.isOver) return;
      this.#wantsDrain = false;
      this.handler?.onDrain();
    });
    const hasRoom = this.bufferedBytes <= this.#session.limits.streamBufferBytes;
    if (!hasRoom) this.#wantsDrain = true;
    return hasRoom;
  }

  end(): void {
    if (this.isOver || this.#ended) return;
    this.#ended = true;
    this.#session.later(() => {
      const { other } = this;
      if (other.isOver || this.isOver) return;
      this.#endTold = true;
      other.#peerEnded = true;
      other.handler?.onEnd();
      other.#settle();
      this.#settle();
    });
  }

  reset(code: number): void {
    if (!this.#finish()) return;
    this.#session.later(() => this.other.#fail(code));
  }

  lose(): void {
    this.#fail(STREAM_LOST);
  }

  #fail(code: number): void {
    if (this.#finish()) this.handler?.onReset(code);
  }

  #settle(): void {
    if (this.#endTold && this.#peerEnded) this.#finish();
  }

  #finish(): boolean {
    if (this.isOver) return false;
    this.isOver = true;
    this.#session.streams.delete(this);
    this.onOver();
    return true;
  }
}
