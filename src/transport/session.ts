/**
 * What moves bytes between two processes: sessions with streams and datagrams, over whatever protocol.
 *
 * Invariant: the bytes of a stream arrive whole and in order up to its end, or it is reset; of two streams nothing is known. Datagrams may be
 * lost. Handlers are called on the thread that made the session, never from inside a call into it, and not at all once it is closed.
 * Source: the shape of WebTransport (W3C). Divergence: chunks, drains and ends are calls, not promises and streams, as a chunk must cost no
 * more than what carries it; nobody pauses a stream, as not all protocols can: who bounds what a peer may send grants credits
 * (frame-stream.ts).
 *
 * | | loopback | tls | https |
 * | --- | --- | --- | --- |
 * | streams | in memory | a TCP connection each | capsules of one HTTP/2 connection, or HTTP/3 streams |
 * | datagrams | in memory | with the session's own connection | capsules, or QUIC datagrams |
 * | a slow reader shows as | `write` is false | `write` is false | `write` is false |
 */
import type { ShardloomError } from "../errors.ts";

/** First part of a transport's addresses. */
export type TransportScheme = "loopback" | "tls" | "https";

/** Opens and accepts sessions under one scheme. */
export interface Transport {
  readonly scheme: TransportScheme;
  /** Whether all streams and datagrams of a session go over one connection, so that one may wait for another. */
  readonly sharesConnection: boolean;
  /** Opens a session. That the address cannot be reached shows as `ready` and `closed`, later. */
  connect(address: URL, options: ConnectOptions): Session;
  /** Accepts sessions from now on; port 0 takes a free one. @throws {ShardloomError} `ERR_UNAVAILABLE` when the address cannot be had. */
  listen(address: URL, options: ListenOptions): Promise<Listener>;
}

/** Who this side is, and whom it trusts. PEM. */
export interface Credentials {
  readonly certificate: string;
  readonly key: string;
  /** The authorities whose certificates are accepted; nobody else's are. */
  readonly authorities: readonly string[];
}

/** Limits of one session. */
export interface SessionLimits {
  /** Until a session must be ready, in ms; of an incoming one, until its first stream may open. @default 5000 */
  readonly handshakeMs?: number;
  /** Streams that the peer may have open at once. @default 16 */
  readonly maxStreams?: number;
  /** Bytes that a stream holds for its peer before `write` says false. @default 1 MiB */
  readonly streamBufferBytes?: number;
}

export interface ConnectOptions extends SessionLimits {
  readonly handler: SessionHandler;
  /** Needed by every scheme but `loopback`. */
  readonly credentials?: Credentials;
}

export interface ListenOptions extends SessionLimits {
  readonly credentials?: Credentials;
  /** Sessions at once, those under way included; others are refused. @default 256 */
  readonly maxSessions?: number;
  /** A session is ready. @returns who is told what it brings, or undefined to refuse it */
  accept(session: Session): SessionHandler | undefined;
  /** Somebody was refused before there was a session: no certificate, a wrong one, nonsense, too slow. */
  onRefused?(error: ShardloomError): void;
}

export interface Listener {
  /** Where it can be reached, with the real port. */
  readonly address: URL;
  /** Accepts with other credentials from now on; sessions that are open stay. */
  updateCredentials(credentials: Credentials): void;
  /** Accepts no more and closes all sessions that it has accepted. */
  close(): Promise<void>;
}

/** What a session tells. */
export interface SessionHandler {
  /** The peer has opened a stream. @returns who takes what it brings, or undefined to refuse it */
  onStream(stream: Stream): StreamHandler | undefined;
  /** The bytes are the handler's. */
  onDatagram(bytes: Uint8Array): void;
}

/** Who is at the other end, as the transport has made sure. */
export interface RemoteIdentity {
  /** The peer's own certificate, DER; undefined on loopback. */
  readonly certificate: Uint8Array | undefined;
  readonly address: string;
}

/** How a session ended. */
export interface SessionClose {
  /** What the closing side gave, `CLOSE.LOST` when nobody did. */
  readonly code: number;
  readonly reason: string;
  readonly by: "local" | "remote" | "network";
  readonly error: ShardloomError;
}

/** What a side says when it closes a session. */
export interface CloseInfo {
  /** `0..0xFFFF`. */
  readonly code: number;
  /** At most {@link MAX_REASON_BYTES} bytes of UTF-8, else cut. */
  readonly reason: string;
}

/** One side of a session. */
export interface Session {
  /** Rejects when the session closes before it is ready. */
  readonly ready: Promise<void>;
  /** Never rejects. */
  readonly closed: Promise<SessionClose>;
  /** Valid once ready. */
  readonly remote: RemoteIdentity;
  /** Longest datagram. */
  readonly maxDatagramBytes: number;
  /** Opens a stream once ready. @throws {ShardloomError} `ERR_UNAVAILABLE` before that, `ERR_CLOSED` after the close */
  openBidirectional(handler: StreamHandler): Stream;
  /** As {@link openBidirectional}; what the handler could be given are drains and a reset. */
  openUnidirectional(handler: StreamHandler): Stream;
  /** @returns false when it was dropped: not ready, too long, or too many before it have not left yet */
  sendDatagram(bytes: Uint8Array): boolean;
  /** What was written before is sent as far as the peer takes it soon. Idempotent. */
  close(info: CloseInfo): void;
}

/** What a stream tells. After `onEnd` no chunk comes, after `onReset` nothing. */
export interface StreamHandler {
  /** The bytes are the handler's. */
  onChunk(chunk: Uint8Array): void;
  /** `write` has said false, and there is room again. */
  onDrain(): void;
  /** The peer writes no more. */
  onEnd(): void;
  /** The stream is over in both directions: the peer's code, or {@link STREAM_LOST}. */
  onReset(code: number): void;
}

/** One side of a stream. */
export interface Stream {
  /** Names the stream on this side of the session. */
  readonly id: number;
  /** What this side can do: both, or one of the two. */
  readonly direction: "both" | "send" | "receive";
  /** Bytes written that have not left yet, as far as can be known. */
  readonly bufferedBytes: number;
  /** The bytes must not be changed any more. @returns false above the limit: it is taken all the same, but wait for `onDrain` */
  write(chunk: Uint8Array): boolean;
  /** Writes no more. Idempotent. */
  end(): void;
  /** Ends both directions at once, what is on its way included; this side's handler is not told. @param code `0..255` */
  reset(code: number): void;
}

export const MAX_DATAGRAM_BYTES: number = 8 * 1024;
/** Datagrams beyond this that wait to leave are dropped, in bytes. */
export const DATAGRAM_BUFFER_BYTES: number = 256 * 1024;
export const MAX_REASON_BYTES = 512;
/** Codes of closes that mean the same on every transport. Numbers are part of the wire format. */
export const CLOSE = {
  NORMAL: 0,
  /** The other side takes no such session, or not now. */
  REFUSED: 1,
  /** The other side does not trust this one. */
  UNTRUSTED: 2,
  /** The two speak different versions. */
  VERSION: 3,
  /** What came made no sense. */
  DAMAGED: 4,
  /** Too much waits for the other side, or it has too many sessions. */
  OVERLOADED: 5,
  /** Nothing came in time. */
  TIMEOUT: 6,
  /** Nobody has closed the session: the network did, or the peer's process died. */
  LOST: 0xffff,
} as const;
/** Nobody has reset the stream: its connection or its session is gone. */
export const STREAM_LOST = 255;
/** The peer takes no such stream. */
export const STREAM_REFUSED = 254;

/** {@link SessionLimits} with everything decided. */
export type ResolvedLimits = Required<SessionLimits>;

export function resolveLimits(limits: SessionLimits): ResolvedLimits {
  const { handshakeMs = 5_000, maxStreams = 16, streamBufferBytes = 1024 * 1024 } = limits;
  return { handshakeMs, maxStreams, streamBufferBytes };
}
