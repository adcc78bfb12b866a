/**
 * Sessions over TLS 1.3, both sides with certificates; addresses are `tls://host:port`.
 *
 * Invariant: not one byte of a peer is read before its certificate was found to be valid now and signed by an authority of this side's; every
 * connection of a session has the same certificate. Names of hosts are not compared: a node is who its certificate says, wherever
 * it is reached (the layer above compares that name with the one that it dialled).
 * Source: RFC 8446. Divergence: the server checks the client's certificate itself, right after the handshake, since Node would otherwise cut the
 * connection without telling either side why.
 */
import type { AddressInfo, Socket } from "node:net";
import { connect, createServer, type Server, type TLSSocket } from "node:tls";
import { invalidArgument, ShardloomError } from "../errors.ts";
import type { Random } from "../runtime/random.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import { FrameReader } from "./frame.ts";
import {
  CLOSE,
  type ConnectOptions,
  type Credentials,
  type Listener,
  type ListenOptions,
  type RemoteIdentity,
  resolveLimits,
  type Session,
  type Transport,
} from "./session.ts";
import { closeCodeOf } from "./session-life.ts";
import {
  checkOpen,
  closeFrame,
  decodeAttach,
  MAX_FIRST_BYTES,
  SOCKET_FRAME,
  SOCKET_PROTOCOLS,
  TOKEN_BYTES,
} from "./socket-frames.ts";
import { SocketSession } from "./socket-session.ts";
import { originOf, tlsError, untrusted } from "./tls-errors.ts";

/** What the transport is made with. */
export interface TlsTransportOptions {
  readonly scheduler: Scheduler;
  /** Makes the tokens that tie the connections of a session together. */
  readonly random: Random;
}

const MAX_SESSIONS = 256;
/** Who was refused has so long to read why, in ms. */
const LINGER_MS = 1_000;

/** Creates a transport. */
export function createTlsTransport(options: TlsTransportOptions): Transport {
  return {
    scheme: "tls",
    sharesConnection: false,
    connect: (address, connectOptions) => dial(options, address, connectOptions),
    listen: (address, listenOptions) => new TlsListener(options, address, listenOptions).start(),
  };
}

function dial({ scheduler }: TlsTransportOptions, address: URL, options: ConnectOptions): Session {
  const credentials = needed(options.credentials, `connect to ${address.href}`);
  const host = address.hostname.replace(/^\[|\]$/g, "");
  const open = (): TLSSocket => {
    const socket = connect({
      ...secureOptions(credentials),
      host,
      port: Number(address.port),
      // The name in the certificate is a node's, not a host's.
      checkServerIdentity: () => undefined,
    });
    return socket.setNoDelay(true);
  };
  const control = open();
  const session = new SocketSession({
    scheduler,
    limits: resolveLimits(options),
    control,
    dial: open,
    remote: () => ({ certificate: certificateOf(control), address: address.host }),
    errorOf: (error) => tlsError(`connect to ${address.host}`, error),
  });
  session.handler = options.handler;
  session.start();
  return session;
}

class TlsListener implements Listener {
  /** With the real port once it listens. */
  readonly address: URL;
  readonly #runtime: TlsTransportOptions;
  readonly #options: ListenOptions;
  readonly #server: Server;
  readonly #sessions: Map<string, SocketSession> = new Map();
  /** Connections whose TLS handshake is under way, by where they come from. */
  readonly #raw: Map<string, Socket> = new Map();
  /** Connections whose first frame has not come. */
  readonly #strangers: Set<TLSSocket> = new Set();
  readonly #maxSessions: number;
  #isClosed = false;

  constructor(runtime: TlsTransportOptions, address: URL, options: ListenOptions) {
    this.#runtime = runtime;
    this.#options = options;
    this.address = new URL(address);
    this.#maxSessions = options.maxSessions ?? MAX_SESSIONS;
    const { handshakeMs, maxStreams } = resolveLimits(options);
    this.#server = createServer({
      ...secureOptions(needed(options.credentials, `listen on ${address.href}`)),
      requestCert: true,
      rejectUnauthorized: false, // see the header: it is checked below, always
      handshakeTimeout: handshakeMs,
      noDelay: true,
    });
    this.#server.maxConnections = this.#maxSessions * (1 + maxStreams);
    this.#server.on("connection", (socket: Socket) => {
      const origin = originOf(socket);
      this.#raw.set(origin, socket);
      socket.on("close", () => this.#raw.delete(origin));
    });
    this.#server.on("secureConnection", (socket) => this.#connected(socket));
    this.#server.on("tlsClientError", (error, socket) => {
      socket.on("error", () => undefined);
      socket.destroy();
      // Who goes away in the middle was not refused.
      if ((error as NodeJS.ErrnoException).code !== "ECONNRESET")
        options.onRefused?.(tlsError("accept connection", error));
    });
  }

  start(): Promise<Listener> {
    const { hostname, port, href } = this.address;
    return new Promise((resolve, reject) => {
      const failed = (error: Error): void => {
        const message = `Cannot listen on ${href} as the system refuses it: ${error.message}`;
        reject(new ShardloomError("ERR_UNAVAILABLE", message, { cause: error }));
      };
      this.#server.once("error", failed);
      this.#server.listen({ host: hostname.replace(/^\[|\]$/g, ""), port: Number(port) }, () => {
        this.#server.off("error", failed);
        this.address.port = String((this.#server.address() as AddressInfo).port);
        this.#server.on("error", (error) => this.#options.onRefused?.(tlsError("accept connection", error)));
        resolve(this);
      });
    });
  }

  updateCredentials(credentials: Credentials): void {
    this.#server.setSecureContext(secureOptions(credentials));
  }

  close(): Promise<void> {
    this.#isClosed = true;
    const done = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of [...this.#raw.values(), ...this.#strangers]) socket.destroy();
    for (const session of this.#sessions.values())
      session.close({ code: CLOSE.NORMAL, reason: "the listener was closed" });
    return done;
  }

  #connected(socket: TLSSocket): void {
    this.#raw.delete(originOf(socket));
    socket.on("error", () => undefined); // `close` follows
    if (!socket.authorized) return this.#refuse(socket, untrusted(originOf(socket), socket.authorizationError));
    if (this.#isClosed) {
      socket.destroy();
      return;
    }
    if (this.#strangers.size >= this.#maxSessions) {
      this.#refuse(socket, new ShardloomError("ERR_OVERLOADED", "Cannot accept connection as too many have begun"));
      return;
    }
    this.#strangers.add(socket);
    const { handshakeMs } = resolveLimits(this.#options);
    const timer = this.#runtime.scheduler.timer(handshakeMs, () => {
      const message = `Cannot accept connection as it said nothing within ${handshakeMs} ms`;
      this.#refuse(socket, new ShardloomError("ERR_TIMEOUT", message));
    });
    timer.unref();
    const known = (): void => {
      timer.cancel();
      this.#strangers.delete(socket);
      socket.off("data", onData).off("close", known).off("end", gone);
    };
    const gone = (): void => {
      known();
      socket.destroy();
    };
    const reader = new FrameReader(MAX_FIRST_BYTES, (kind, payload) => {
      reader.stop();
      known();
      this.#begin(socket, kind, payload);
    });
    const onData = (chunk: Uint8Array): void => {
      try {
        const read = reader.push(chunk);
        // What follows the first frame belongs to whoever has the connection now.
        if (read < chunk.length) socket.emit("data", chunk.subarray(read));
      } catch (error) {
        known();
        this.#refuse(socket, ShardloomError.from(error, "ERR_CORRUPT"));
      }
    };
    socket.on("data", onData).on("close", known).on("end", gone);
  }

  #begin(socket: TLSSocket, kind: number, payload: Uint8Array): void {
    if (kind === SOCKET_FRAME.ATTACH) {
      const { token, ...opening } = decodeAttach(payload);
      const session = this.#sessions.get(hexOf(token));
      if (session === undefined) {
        socket.destroy(); // its session has ended in the meantime
        return;
      }
      if (!isSame(session.remote.certificate, certificateOf(socket)))
        throw new ShardloomError("ERR_UNTRUSTED", "Cannot accept stream as it must have its session's certificate");
      session.attach(opening, socket);
      return;
    }
    if (kind !== SOCKET_FRAME.OPEN)
      throw new ShardloomError("ERR_CORRUPT", `Cannot accept connection as its first frame is of kind ${kind}`);
    checkOpen(payload);
    if (this.#sessions.size >= this.#maxSessions)
      throw new ShardloomError("ERR_OVERLOADED", `Cannot accept session as there are ${this.#maxSessions}`);
    this.#accept(socket);
  }

  #accept(socket: TLSSocket): void {
    const remote: RemoteIdentity = { certificate: certificateOf(socket), address: originOf(socket) };
    const session = new SocketSession({
      scheduler: this.#runtime.scheduler,
      limits: resolveLimits(this.#options),
      control: socket,
      dial: undefined,
      remote: () => remote,
      errorOf: (error) => tlsError(`go on with ${remote.address}`, error),
    });
    const token = this.#token();
    const name = hexOf(token);
    this.#sessions.set(name, session);
    void session.closed.then(() => this.#sessions.delete(name));
    session.accepted(token);
    session.handler = this.#options.accept(session);
    if (session.handler === undefined)
      session.close({ code: CLOSE.REFUSED, reason: "the listener takes no session now" });
  }

  /** Tells the peer why, and cuts it off. */
  #refuse(socket: TLSSocket, error: ShardloomError): void {
    this.#options.onRefused?.(error);
    socket.end(closeFrame({ code: closeCodeOf(error), reason: error.message }));
    socket.resume(); // unread bytes would make the system cut the connection before the peer has read why
    const timer = this.#runtime.scheduler.timer(LINGER_MS, () => socket.destroy());
    timer.unref();
    socket.on("close", () => timer.cancel()).on("end", () => socket.destroy());
  }

  #token(): Uint8Array {
    const token = new Uint8Array(TOKEN_BYTES);
    const view = new DataView(token.buffer);
    for (let at = 0; at < TOKEN_BYTES; at += 4) view.setUint32(at, this.#runtime.random.u32());
    return token;
  }
}

/** What both sides give to `node:tls`. */
interface SecureOptions {
  readonly cert: string;
  readonly key: string;
  readonly ca: string[];
  readonly minVersion: "TLSv1.3";
  readonly ALPNProtocols: string[];
  readonly allowHalfOpen: true;
}

function secureOptions({ certificate, key, authorities }: Credentials): SecureOptions {
  return {
    cert: certificate,
    key,
    ca: [...authorities],
    minVersion: "TLSv1.3",
    ALPNProtocols: [...SOCKET_PROTOCOLS],
    allowHalfOpen: true, // the two directions of a stream end by themselves
  };
}

function needed(credentials: Credentials | undefined, action: string): Credentials {
  if (credentials === undefined) throw invalidArgument(action, "credentials", "given for TLS", credentials);
  return credentials;
}

function certificateOf(socket: TLSSocket): Uint8Array | undefined {
  return socket.getPeerX509Certificate()?.raw;
}

function isSame(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a !== undefined && b !== undefined && Buffer.compare(a, b) === 0;
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");
}
