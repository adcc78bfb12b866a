/**
 * Sessions over WebTransport; addresses are `https://host:port`.
 *
 * They go over HTTP/2 (draft-ietf-webtrans-http2): one TCP connection with TLS 1.3 for the whole session. HTTP/3 needs a native part that npm
 * does not build everywhere; it is reported, and not used, as none of our tests has ever run on it.
 *
 * Invariant: nothing of a peer is read before its certificate was found to be valid now and signed by an authority of this side's; who is
 * refused is told why in the connection's last frame (GOAWAY). A path other than ours is not found.
 */
import { type ClientHttp2Session, constants, type Http2SecureServer, type ServerHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { invalidArgument, ShardloomError } from "../errors.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import {
  CLOSE,
  type ConnectOptions,
  type Credentials,
  type Listener,
  type ListenOptions,
  resolveLimits,
  type Session,
  type Transport,
} from "./session.ts";
import { closeCodeOf } from "./session-life.ts";
import { originOf, tlsError, untrusted } from "./tls-errors.ts";
import {
  hasNativeHttp3,
  loadWebTransport,
  type WebServer,
  type WebSession,
  type WebTransportPackage,
  withClientTls,
  withServerTls,
} from "./webtransport-package.ts";
import { decodeGoodbye, encodeGoodbye, WebTransportSession } from "./webtransport-session.ts";

export interface WebTransportOptions {
  readonly scheduler: Scheduler;
}

/** What WebTransport runs on here. */
export interface WebTransportSupport {
  /** What sessions go over. */
  readonly used: "HTTP/2";
  /** Whether the native part for HTTP/3 is installed. */
  readonly http3: "installed, untested and not used" | "not installed";
}

/** The one path that sessions are opened at. */
const PATH = "/shardloom";
const MAX_SESSIONS = 256;
/** Windows of the package: of a stream and of a session. */
const WINDOWS = {
  initialStreamFlowControlWindow: 8 * 1024 * 1024,
  initialSessionFlowControlWindow: 64 * 1024 * 1024,
  streamFlowControlWindowSizeLimit: 16 * 1024 * 1024,
  sessionFlowControlWindowSizeLimit: 64 * 1024 * 1024,
};
/** The package keeps every stream that a session ever had, some 7 KiB each: so many there may be in its life. Nodes need two. */
const STREAMS_EVER = 4_096;

export async function webTransportSupport(): Promise<WebTransportSupport> {
  return { used: "HTTP/2", http3: (await hasNativeHttp3()) ? "installed, untested and not used" : "not installed" };
}

/** Creates a transport. */
export function createWebTransport(options: WebTransportOptions): Transport {
  return {
    scheme: "https",
    sharesConnection: true,
    connect: (address, connectOptions) => dial(options, address, connectOptions),
    listen: async (address, listenOptions) =>
      new WebTransportListener(options, address, listenOptions).start(await loadWebTransport()),
  };
}

function dial({ scheduler }: WebTransportOptions, address: URL, options: ConnectOptions): Session {
  const credentials = needed(options.credentials, `connect to ${address.href}`);
  const session = new WebTransportSession({
    scheduler,
    limits: resolveLimits(options),
    isDialler: true,
    address: address.host,
  });
  session.handler = options.handler;
  loadWebTransport().then(
    (loaded) => connect(loaded, session, address, credentials, options),
    (error: unknown) => session.fail(ShardloomError.from(error, "ERR_UNAVAILABLE")),
  );
  return session;
}

function connect(
  { WebTransport }: WebTransportPackage,
  session: WebTransportSession,
  address: URL,
  credentials: Credentials,
  options: ConnectOptions,
): void {
  const { handshakeMs } = resolveLimits(options);
  let http: ClientHttp2Session | undefined;
  const tls = {
    // The name in the certificate is a node's, not a host's.
    options: { ...secureOptions(credentials), checkServerIdentity: () => undefined },
    onSession: (made: ClientHttp2Session) => {
      http = made;
      watch(made, session, address.host);
    },
  };
  const settings = {
    ...WINDOWS,
    forceReliable: true,
    initialBidirectionalSendStreams: STREAMS_EVER,
    initialUnidirectionalSendStreams: STREAMS_EVER,
    quicConnectTimeout: handshakeMs,
    webTransportConnectTimeout: handshakeMs,
  };
  const web = withClientTls(tls, () => new WebTransport(new URL(PATH, address).href, settings));
  web.closed.catch(() => undefined); // `ready` says the same
  const cut = (): void => http?.destroy();
  web.ready.then(
    () => session.open(web, { certificate: certificateOf(http?.socket as TLSSocket), address: address.host }, cut),
    (error: unknown) => {
      session.fail(
        new ShardloomError("ERR_UNAVAILABLE", `Cannot connect to ${address.host} as it takes no session`, {
          cause: error,
        }),
      );
      cut();
    },
  );
}

/** The connection knows before the package does why there will be no session. */
function watch(http: ClientHttp2Session, session: WebTransportSession, host: string): void {
  http.on("goaway", (_code, _last, data?: Uint8Array) => {
    const goodbye = data === undefined ? undefined : decodeGoodbye(new TextDecoder().decode(data));
    if (goodbye !== undefined) session.refusedBy(goodbye);
  });
  http.on("error", (error: Error) => session.fail(tlsError(`connect to ${host}`, error)));
  http.on("close", () => {
    session.fail(new ShardloomError("ERR_UNAVAILABLE", `Cannot go on with ${host} as its connection has ended`));
  });
}

class WebTransportListener implements Listener {
  /** With the real port once it listens. */
  readonly address: URL;
  readonly #scheduler: Scheduler;
  readonly #options: ListenOptions;
  readonly #maxSessions: number;
  readonly #sessions: Set<WebTransportSession> = new Set();
  /** Sockets whose TLS handshake is under way, by where they come from, and those for which it is done. */
  readonly #raw: Map<string, Socket> = new Map();
  readonly #sockets: Set<TLSSocket> = new Set();
  #isClosed = false;
  #server: WebServer | undefined;
  #secure: Http2SecureServer | undefined;

  constructor({ scheduler }: WebTransportOptions, address: URL, options: ListenOptions) {
    this.address = new URL(address);
    this.#scheduler = scheduler;
    this.#options = options;
    this.#maxSessions = options.maxSessions ?? MAX_SESSIONS;
  }

  async start({ Http2Server }: WebTransportPackage): Promise<Listener> {
    const { hostname, port, href } = this.address;
    const credentials = needed(this.#options.credentials, `listen on ${href}`);
    const server = new Http2Server({
      host: hostname.replace(/^\[|\]$/g, ""),
      port: Number(port),
      secret: "HTTP/2 has no use for it",
      cert: credentials.certificate,
      privKey: credentials.key,
      ...WINDOWS,
      initialBidirectionalStreams: STREAMS_EVER,
      initialUnidirectionalStreams: STREAMS_EVER,
    });
    // Without a callback sessions stall; one that throws leaves its peer without an answer.
    server.setRequestCallback(({ header }) => Promise.resolve(this.#answer(header[":path"] ?? "")));
    const sessions = server.sessionStream(PATH).getReader();
    const failed = new Promise<never>((_, reject) => {
      withServerTls(this.#tls(credentials, reject), () => server.startServer());
    });
    await Promise.race([server.ready, failed]);
    failed.catch(() => undefined);
    this.#server = server;
    this.address.port = String(server.address()?.port);
    void this.#takeSessions(sessions);
    return this;
  }

  updateCredentials(credentials: Credentials): void {
    this.#secure?.setSecureContext(secureOptions(credentials));
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const socket of this.#raw.values()) socket.destroy();
    for (const session of this.#sessions) session.close({ code: CLOSE.NORMAL, reason: "the listener was closed" });
    this.#server?.stopServer();
    await Promise.all([...this.#sessions].map(({ closed }) => closed));
    const timer = this.#scheduler.timer(LINGER_MS, () => {
      for (const socket of this.#sockets) socket.destroy();
    });
    await this.#server?.closed;
    timer.cancel();
  }

  #tls(credentials: Credentials, onError: (error: Error) => void): Parameters<typeof withServerTls>[0] {
    const { handshakeMs } = resolveLimits(this.#options);
    return {
      options: {
        ...secureOptions(credentials),
        requestCert: true,
        rejectUnauthorized: false, // it is checked below, always, so that the peer can be told
        allowHTTP1: false,
        handshakeTimeout: handshakeMs,
      },
      onServer: (server) => {
        this.#secure = server;
        server.maxConnections = this.#maxSessions * 2;
        server.on("connection", (socket: Socket) => {
          const origin = originOf(socket);
          this.#raw.set(origin, socket);
          socket.on("close", () => this.#raw.delete(origin));
        });
        server.on("secureConnection", (socket: TLSSocket) => {
          this.#raw.delete(originOf(socket));
          this.#sockets.add(socket);
          socket.on("close", () => this.#sockets.delete(socket));
          if (this.#isClosed) socket.destroy();
        });
        server.on("error", (error) => {
          const message = `Cannot listen on ${this.address.href} as the system refuses it: ${error.message}`;
          onError(new ShardloomError("ERR_UNAVAILABLE", message, { cause: error }));
        });
        server.on("tlsClientError", (error: NodeJS.ErrnoException) => {
          // Who goes away in the middle was not refused.
          if (error.code !== "ECONNRESET") this.#options.onRefused?.(tlsError("accept connection", error));
        });
      },
      onSession: (connection, socket) => this.#connected(connection, socket),
    };
  }

  /** A connection is there, and nothing was read from it. */
  #connected(connection: ServerHttp2Session, socket: TLSSocket): void {
    connection.on("error", () => undefined); // `close` follows
    if (!socket.authorized) {
      this.#refuse(connection, untrusted(originOf(socket), socket.authorizationError));
      return;
    }
    const { handshakeMs } = resolveLimits(this.#options);
    const timer = this.#scheduler.timer(handshakeMs, () => {
      if (!this.#carries(connection))
        this.#refuse(
          connection,
          new ShardloomError(
            "ERR_TIMEOUT",
            `Cannot accept connection as it opened no session within ${handshakeMs} ms`,
          ),
        );
    });
    timer.unref();
    connection.on("close", () => timer.cancel());
  }

  #refuse(connection: ServerHttp2Session, error: ShardloomError): void {
    this.#options.onRefused?.(error);
    const goodbye = encodeGoodbye({ code: closeCodeOf(error), reason: error.message });
    connection.goaway(constants.NGHTTP2_INADEQUATE_SECURITY, 0, Buffer.from(goodbye));
    connection.close();
    const timer = this.#scheduler.timer(LINGER_MS, () => connection.destroy());
    timer.unref();
    connection.on("close", () => timer.cancel());
  }

  readonly #carrying: WeakSet<ServerHttp2Session> = new WeakSet();

  #carries(connection: ServerHttp2Session): boolean {
    return this.#carrying.has(connection);
  }

  #answer(path: string): object {
    if (path !== PATH) return { path, status: 404 };
    return { path, status: this.#sessions.size < this.#maxSessions ? 200 : 503 };
  }

  async #takeSessions(sessions: { read(): Promise<{ done: boolean; value?: WebSession | undefined }> }): Promise<void> {
    for (;;) {
      const { done, value } = await sessions.read();
      if (done) return;
      if (value !== undefined) this.#take(value);
    }
  }

  #take(web: WebSession): void {
    web.closed.catch(() => undefined);
    const connection = (web.sessionint ?? web).objint?.stream?.session as ServerHttp2Session | undefined;
    const socket = connection?.socket as TLSSocket | undefined;
    // A refused connection may have asked for a session before it has read that it was refused.
    if (connection === undefined || socket?.authorized !== true) {
      connection?.destroy();
      return;
    }
    this.#carrying.add(connection);
    const session = new WebTransportSession({
      scheduler: this.#scheduler,
      limits: resolveLimits(this.#options),
      isDialler: false,
      address: originOf(socket),
    });
    this.#sessions.add(session);
    void session.closed.then(() => this.#sessions.delete(session));
    connection.on("close", () =>
      session.fail(
        new ShardloomError(
          "ERR_UNAVAILABLE",
          `Cannot go on with ${session.remote.address} as its connection has ended`,
        ),
      ),
    );
    const remote = { certificate: certificateOf(socket), address: originOf(socket) };
    web.ready.then(
      () => {
        session.open(web, remote, () => connection.destroy());
        session.handler = this.#options.accept(session);
        if (session.handler === undefined)
          session.close({ code: CLOSE.REFUSED, reason: "the listener takes no session now" });
      },
      (error: unknown) => session.fail(ShardloomError.from(error, "ERR_UNAVAILABLE")),
    );
  }
}

/** Connections that have not ended so long after their sessions are cut, in ms. */
const LINGER_MS = 1_000;

function secureOptions({ certificate, key, authorities }: Credentials): {
  readonly cert: string;
  readonly key: string;
  readonly ca: string[];
  readonly minVersion: "TLSv1.3";
} {
  return { cert: certificate, key, ca: [...authorities], minVersion: "TLSv1.3" };
}

function needed(credentials: Credentials | undefined, action: string): Credentials {
  if (credentials === undefined) throw invalidArgument(action, "credentials", "given for TLS", credentials);
  return credentials;
}

function certificateOf(socket: TLSSocket): Uint8Array | undefined {
  return socket.getPeerX509Certificate()?.raw;
}
