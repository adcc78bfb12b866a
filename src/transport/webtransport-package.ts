/**
 * The one place that touches `@fails-components/webtransport`: loads it, gives it TLS options that it has no parameters for, and keeps
 * known defects of its HTTP/2 part away from everybody.
 *
 * The package calls `http2.connect` and `http2.createSecureServer` itself. While one of our sessions or listeners is made, and only then (an
 * `AsyncLocalStorage` says so), these two get our certificates, larger windows, and sessions that are checked before anything is read.
 * Everybody else who uses `node:http2` is served as before.
 *
 * | defect of 1.6.8 | kept away by |
 * | --- | --- |
 * | what a peer sends out of turn throws out of the package into the process | what throws while a stream is read ends its connection |
 * | a stream that comes after the close, as it may in any race, crashes the process | such a stream gets an owner that does nothing |
 * | a ping on a destroyed session crashes the process | `ping` of our sessions is guarded |
 * | the session stalls after 16 KiB without a request callback | a callback is always set (webtransport.ts) |
 * | 100 streams in the life of a session | a limit that nobody reaches; ours is in webtransport-session.ts |
 * | the first stream that a server opens loses data | it is opened and thrown away |
 * | importing prints two stack traces when HTTP/3's native part is missing | these three lines, and no others, are held back |
 *
 * Invariant: the package is loaded at most once, when it is first needed. None of its files and classes is changed, only objects that are ours.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import http2, {
  type ClientHttp2Session,
  type Http2SecureServer,
  type Http2Stream,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from "node:http2";
import { syncBuiltinESMExports } from "node:module";
import type { TLSSocket } from "node:tls";

/** What is read from a stream of the package. */
export interface WebReader<T> {
  read(): Promise<{ readonly done: boolean; readonly value?: T | undefined }>;
  cancel(reason?: unknown): Promise<void>;
}
/** What is written to one. */
export interface WebWriter {
  write(chunk: Uint8Array): Promise<void>;
  close(): Promise<void>;
  abort(reason?: unknown): Promise<void>;
}
export interface WebReadable<T> {
  getReader(): WebReader<T>;
}
export interface WebWritable {
  getWriter(): WebWriter;
}
export interface WebDuplex {
  readonly readable: WebReadable<Uint8Array>;
  readonly writable: WebWritable;
}

/** A session of the package, of either side; the inner fields are not in its types. */
export interface WebSession {
  readonly ready: Promise<unknown>;
  readonly closed: Promise<{ readonly closeCode?: number; readonly reason?: string }>;
  readonly datagrams: { readonly readable: WebReadable<Uint8Array>; createWritable(): WebWritable };
  readonly incomingBidirectionalStreams: WebReadable<WebDuplex>;
  readonly incomingUnidirectionalStreams: WebReadable<WebReadable<Uint8Array>>;
  createBidirectionalStream(): Promise<WebDuplex>;
  createUnidirectionalStream(): Promise<WebWritable>;
  close(info: { readonly closeCode: number; readonly reason: string }): void;
  readonly sessionint?: WebSession;
  /** The peer, or this side, has opened a stream. */
  onStream?(args: { readonly stream: { jsobj?: unknown } }): void;
  readonly objint?: { readonly stream?: WebCarrier };
}

/** The HTTP/2 stream that carries a session. */
export interface WebCarrier {
  readonly session?: ServerHttp2Session | ClientHttp2Session;
  on(event: "drain", listener: () => void): unknown;
  readonly writableNeedDrain: boolean;
}

export interface WebServer {
  readonly ready: Promise<unknown>;
  readonly closed: Promise<unknown>;
  setRequestCallback(callback: (request: { readonly header: Record<string, string> }) => Promise<unknown>): void;
  sessionStream(path: string): WebReadable<WebSession>;
  startServer(): void;
  stopServer(): void;
  address(): { readonly port: number } | null;
}

export interface WebTransportPackage {
  readonly WebTransport: new (url: string, options: object) => WebSession;
  readonly Http2Server: new (options: object) => WebServer;
  readonly quicheLoaded: Promise<unknown>;
}

/** What the next client session, or server, that is made is to be made with. */
export interface ClientTls {
  readonly options: object;
  readonly onSession: (session: ClientHttp2Session) => void;
}
export interface ServerTls {
  readonly options: object;
  readonly onServer: (server: Http2SecureServer) => void;
  /** Called before anything of the peer is read. */
  readonly onSession: (session: ServerHttp2Session, socket: TLSSocket) => void;
}

const NATIVE = "@fails-components/webtransport-transport-http3-quiche";
/** Windows of HTTP/2 itself: what bounds a peer are our credits and the package's windows. */
const STREAM_WINDOW_BYTES = 16 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES = 64 * 1024 * 1024;
const SETTINGS = { initialWindowSize: STREAM_WINDOW_BYTES, maxFrameSize: 65_536 + 1_024 };

const clientTls = new AsyncLocalStorage<ClientTls>();
const serverTls = new AsyncLocalStorage<ServerTls>();
let loading: Promise<WebTransportPackage> | undefined;

/** The package, ready for use. */
export function loadWebTransport(): Promise<WebTransportPackage> {
  loading ??= load();
  return loading;
}

/** Whether the native part for HTTP/3 is installed. */
export async function hasNativeHttp3(): Promise<boolean> {
  try {
    await import(NATIVE);
    return true;
  } catch {
    return false; // not there, or not for this machine: either way there is no HTTP/3
  }
}

export function withClientTls<T>(tls: ClientTls, run: () => T): T {
  return clientTls.run(tls, run);
}

export function withServerTls<T>(tls: ServerTls, run: () => T): T {
  return serverTls.run(tls, run);
}

/** Streams that nobody has asked for, or that come too late, get an owner all the same. */
export function guardStreams(session: WebSession): void {
  const inner = session.sessionint ?? session;
  const onStream = inner.onStream?.bind(inner);
  if (onStream === undefined) return;
  inner.onStream = (args) => {
    args.stream.jsobj ??= NOBODY;
    onStream(args);
  };
}

/** What the package calls on a stream's owner. */
const NOBODY = {
  onStreamNetworkFinish: () => undefined,
  onStreamRecvSignal: () => undefined,
  onStreamWrite: () => undefined,
  getReadBuffer: ({ byteSize }: { readonly byteSize: number }) => ({ buffer: new Uint8Array(byteSize), readBytes: 0 }),
  commitReadBuffer: () => ({}),
};

async function load(): Promise<WebTransportPackage> {
  wrapHttp2();
  const restore = holdBack();
  try {
    const loaded = (await import("@fails-components/webtransport")) as unknown as WebTransportPackage;
    await loaded.quicheLoaded;
    await hasNativeHttp3(); // its loader's complaints come in the turn in which the import fails
    return loaded;
  } finally {
    restore();
  }
}

function wrapHttp2(): void {
  const { connect, createSecureServer } = http2;
  const module = http2 as unknown as Record<string, unknown>;
  module["connect"] = (...args: [string, object, (() => void)?]) => {
    const tls = clientTls.getStore();
    const open = connect as (...all: unknown[]) => ClientHttp2Session;
    if (tls === undefined) return open(...args);
    const [authority, options, listener] = args;
    const session = guarded(open(authority, merged(options, tls.options), listener));
    session.once("connect", () => {
      if (!session.destroyed) session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    });
    const request = session.request.bind(session);
    session.request = (...all) => contained(request(...all));
    tls.onSession(session);
    return session;
  };
  module["createSecureServer"] = (...args: [object, (() => void)?]) => {
    const tls = serverTls.getStore();
    const create = createSecureServer as (...all: unknown[]) => Http2SecureServer;
    if (tls === undefined) return create(...args);
    const [options, listener] = args;
    const server = create(merged(options, tls.options), listener);
    server.prependListener("session", (session: ServerHttp2Session) => {
      guarded(session).setLocalWindowSize(CONNECTION_WINDOW_BYTES);
      tls.onSession(session, session.socket as TLSSocket);
    });
    server.prependListener("stream", (stream: ServerHttp2Stream) => void contained(stream));
    tls.onServer(server);
    return server;
  };
  syncBuiltinESMExports();
}

function merged(options: object, more: object): object {
  const settings = { ...(options as { readonly settings?: object }).settings, ...SETTINGS };
  return { ...options, ...more, settings };
}

function guarded<S extends ServerHttp2Session | ClientHttp2Session>(session: S): S {
  const ping = session.ping.bind(session) as (...args: unknown[]) => boolean;
  (session as { ping: unknown }).ping = (...args: unknown[]): boolean =>
    session.destroyed || session.closed ? false : ping(...args);
  return session;
}

/** What a listener of the package's throws is the peer's doing: it loses its connection. */
function contained<S extends Http2Stream>(stream: S): S {
  const emit = stream.emit.bind(stream) as (...args: unknown[]) => boolean;
  (stream as { emit: unknown }).emit = (...args: unknown[]): boolean => {
    try {
      return emit(...args);
    } catch (error) {
      stream.session?.destroy(error instanceof Error ? error : new Error(String(error)));
      return true;
    }
  };
  return stream;
}

/** Holds back what the package prints about its missing native part. @returns what undoes it */
function holdBack(): () => void {
  const { log, error } = console;
  const isNoise = (first: unknown): boolean =>
    typeof first === "string" &&
    (first === "http3 loader:" || first.startsWith("Problem loading http3") || first.includes(NATIVE));
  const filtered =
    (print: (...args: unknown[]) => void) =>
    (...args: unknown[]): void => {
      if (!isNoise(args[0])) print.apply(console, args);
    };
  console.log = filtered(log);
  console.error = filtered(error);
  return () => {
    console.log = log;
    console.error = error;
  };
}
