/**
 * Joins over TLS 1.3: who has only a token dials, who holds the authority accepts. Addresses are `tls://host:port`.
 *
 * Each side's messages (src/transport/join-protocol.ts) are lines of JSON. The protocol has a name of its own in the handshake of TLS (ALPN), so that
 * a listener of nodes may hand such a connection to {@link JoinService} instead of asking it for a certificate.
 *
 * Invariant: nobody who dials costs more than one connection, {@link MAX_JOIN_MESSAGE_BYTES} and the time limit, and there are at most `maxJoins` at
 * once. Who dials takes the acceptor's certificate as it comes and judges it by its token, before it sends anything.
 */
import type { AddressInfo, Socket } from "node:net";
import { connect, createServer, type Server, type TLSSocket } from "node:tls";
import { invalidArgument, ShardloomError } from "../errors.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
import type { CheckedCertificate, KeyedCertificate } from "./certificates.ts";
import { createJoiner, type JoinAcceptor, type JoinOutcome, MAX_JOIN_MESSAGE_BYTES } from "./join-protocol.ts";

/** Name of the protocol in the handshake of TLS. */
export const JOIN_ALPN = "shardloom-join/1";

/** Limits of one join. */
export interface JoinLimits {
  readonly scheduler: Scheduler;
  /** From the first byte to the last, in ms. @default 15000 */
  readonly timeoutMs?: number;
}

/** How a node joins. */
export interface JoinAtOptions extends JoinLimits {
  /** The time now, in milliseconds since 1970. */
  readonly wallMs: () => number;
}

/** How joins are served. */
export interface JoinServiceOptions extends JoinLimits {
  readonly acceptor: JoinAcceptor;
  /** Connections at once; more are cut off. @default 16 */
  readonly maxJoins?: number;
  /** A node has its certificate. @param from Address that it has dialled from */
  onJoined?(joined: NonNullable<JoinOutcome["joined"]>, from: string): void;
  /** Somebody was refused, or went away. As {@link onJoined}. */
  onRefused?(error: ShardloomError, from: string): void;
}

/** Serves joins on connections that somebody else has accepted. */
export interface JoinService {
  /**
   * Serves a connection to its end. Its handshake is done, its protocol is {@link JOIN_ALPN}, and this side has shown a certificate that the
   * acceptor's authority has issued.
   */
  serve(socket: TLSSocket): void;
}

/** How joins are listened for. */
export interface JoinListenOptions extends JoinServiceOptions {
  /** What this side shows: a node's certificate, issued by the acceptor's authority. */
  readonly certificate: KeyedCertificate;
}

/** Who listens for joins. */
export interface JoinListener {
  /** With the real port. */
  readonly address: URL;
  /** Shows another certificate from now on. */
  updateCertificate(certificate: KeyedCertificate): void;
  /** Accepts no more and cuts off who has not finished. */
  close(): Promise<void>;
}

const TIMEOUT_MS = 15_000;
const MAX_JOINS = 16;
const NEW_LINE = 10;

/**
 * Joins: exchanges a token for a certificate.
 *
 * @param address Where a holder of the authority listens.
 * @throws {ShardloomError} `ERR_UNAVAILABLE` when nobody accepts joins there, `ERR_TIMEOUT`; and as {@link createJoiner} and what it makes.
 */
export async function joinAt(
  address: URL,
  token: string,
  { scheduler, timeoutMs = TIMEOUT_MS, wallMs }: JoinAtOptions,
): Promise<CheckedCertificate> {
  const action = `join at ${checkAddress("join", address).host}`;
  const joiner = createJoiner(token, wallMs);
  const socket = connect({
    host: hostOf(address),
    port: Number(address.port),
    minVersion: "TLSv1.3",
    ALPNProtocols: [JOIN_ALPN],
    rejectUnauthorized: false, // there is nothing yet to judge it by; the token does, before anything is sent
  });
  const timer = limited(socket, action, scheduler, timeoutMs);
  try {
    await secured(socket);
    if (socket.alpnProtocol !== JOIN_ALPN) throw noJoins(action);
    const lines = linesOf(socket);
    const request = await joiner.request(await nextOf(lines), new Uint8Array(socket.getPeerCertificate().raw));
    sendLine(socket, request);
    return joiner.finish(await nextOf(lines));
  } catch (error) {
    throw asShardloomError(action, error);
  } finally {
    timer.cancel();
    socket.destroy();
  }
}

/** Accepts joins at an address of their own. @throws {ShardloomError} `ERR_UNAVAILABLE` when the address cannot be had */
export async function listenForJoins(address: URL, options: JoinListenOptions): Promise<JoinListener> {
  checkAddress("listen for joins", address);
  /** Also those whose handshake is under way, which no other event tells. */
  const sockets = new Set<Socket>();
  const service = createJoinService(options);
  const server = createServer({
    ...secureOptions(options.certificate),
    handshakeTimeout: options.timeoutMs ?? TIMEOUT_MS,
  });
  server.maxConnections = options.maxJoins ?? MAX_JOINS;
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.on("secureConnection", (socket) => service.serve(socket));
  server.on("drop", (dropped) => {
    options.onRefused?.(tooMany(server.maxConnections), dropped?.remoteAddress ?? "");
  });
  server.on("tlsClientError", (error, socket) => {
    socket.on("error", () => undefined); // `close` follows
    options.onRefused?.(asShardloomError("accept join", error), socket.remoteAddress ?? "");
  });
  await listening(server, address);
  const found = new URL(address);
  found.port = String((server.address() as AddressInfo).port);
  return {
    address: found,
    updateCertificate: (certificate) => server.setSecureContext(secureOptions(certificate)),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

/** Makes what serves joins, for a listener of their own or one that has other connections too. */
export function createJoinService(options: JoinServiceOptions): JoinService {
  const { maxJoins = MAX_JOINS, onJoined, onRefused } = options;
  let open = 0;
  return {
    serve(socket) {
      const from = socket.remoteAddress ?? "";
      open++;
      socket.on("error", () => undefined); // `close` follows
      socket.on("close", () => open--);
      answer(socket, open <= maxJoins, options).then(
        ({ joined, refused }) => {
          if (joined !== undefined) onJoined?.(joined, from);
          if (refused !== undefined) onRefused?.(refused, from);
        },
        (error: unknown) => {
          socket.destroy();
          onRefused?.(asShardloomError(ACCEPT, error), from);
        },
      );
    },
  };
}

const ACCEPT = "accept join";

async function answer(
  socket: TLSSocket,
  hasRoom: boolean,
  { acceptor, scheduler, timeoutMs = TIMEOUT_MS, maxJoins = MAX_JOINS }: JoinServiceOptions,
): Promise<JoinOutcome> {
  if (socket.alpnProtocol !== JOIN_ALPN)
    throw new ShardloomError("ERR_VERSION_MISMATCH", `Cannot ${ACCEPT} as its protocol must be ${JOIN_ALPN}`);
  if (!hasRoom) throw tooMany(maxJoins);
  const timer = limited(socket, ACCEPT, scheduler, timeoutMs);
  socket.on("close", () => timer.cancel());
  // What this connection has shown, whatever others are shown by now.
  const { raw } = socket.getCertificate() as { readonly raw?: Uint8Array };
  sendLine(socket, acceptor.welcome(new Uint8Array(raw ?? [])));
  const outcome = await acceptor.answer(await nextOf(linesOf(socket)));
  sendLine(socket, outcome.answer);
  socket.end();
  return outcome;
}

/** Ends a connection that takes too long. */
function limited(socket: TLSSocket, action: string, scheduler: Scheduler, timeoutMs: number): Timer {
  socket.on("error", () => undefined); // who reads is told; afterwards nobody needs to be
  return scheduler.timer(timeoutMs, () => {
    socket.destroy(
      new ShardloomError("ERR_TIMEOUT", `Cannot ${action} as it must be done in ${timeoutMs} ms`, {
        details: { timeoutMs },
      }),
    );
  });
}

function secured(socket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once("secureConnect", resolve).once("error", reject);
    socket.once("close", () => reject(new Error("the connection was closed")));
  });
}

function listening(server: Server, address: URL): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause) => {
      const message = `Cannot listen on ${address.href} as the system refuses it: ${cause.message}`;
      reject(new ShardloomError("ERR_UNAVAILABLE", message, { cause }));
    });
    server.listen({ host: hostOf(address), port: Number(address.port) }, resolve);
  });
}

/** Lines of at most so many bytes; nobody is made to wait for a longer one. */
async function* linesOf(socket: TLSSocket): AsyncGenerator<Uint8Array, void> {
  let parts: Buffer[] = [];
  let length = 0;
  for await (const chunk of socket) {
    let rest = chunk as Buffer;
    for (let end = rest.indexOf(NEW_LINE); end >= 0; end = rest.indexOf(NEW_LINE)) {
      yield Buffer.concat([...parts, rest.subarray(0, end)]);
      parts = [];
      length = 0;
      rest = rest.subarray(end + 1);
    }
    parts.push(rest);
    length += rest.length;
    if (length > MAX_JOIN_MESSAGE_BYTES)
      throw new ShardloomError(
        "ERR_CORRUPT",
        `Cannot read message of a join as it must be at most ${MAX_JOIN_MESSAGE_BYTES} bytes`,
      );
  }
}

async function nextOf(lines: AsyncGenerator<Uint8Array, void>): Promise<Uint8Array> {
  const { value } = await lines.next();
  if (value === undefined) throw new Error("the other side has ended the connection");
  return value;
}

function sendLine(socket: TLSSocket, message: Uint8Array): void {
  socket.write(message);
  socket.write("\n");
}

function secureOptions({ certificate, key }: KeyedCertificate): {
  readonly cert: string;
  readonly key: string;
  readonly minVersion: "TLSv1.3";
  readonly ALPNProtocols: string[];
} {
  return { cert: certificate, key, minVersion: "TLSv1.3", ALPNProtocols: [JOIN_ALPN] };
}

function checkAddress(action: string, address: URL): URL {
  if (address.protocol === "tls:" && address.port !== "" && address.hostname !== "") return address;
  throw invalidArgument(action, "address", "tls://host:port", address.href);
}

/** Without the brackets of an address. */
function hostOf({ hostname }: URL): string {
  return hostname.replace(/^\[|\]$/g, "");
}

function tooMany(maxJoins: number): ShardloomError {
  return new ShardloomError("ERR_OVERLOADED", `Cannot ${ACCEPT} as at most ${maxJoins} may be under way`, {
    details: { limit: maxJoins },
  });
}

function noJoins(action: string): ShardloomError {
  return new ShardloomError("ERR_UNAVAILABLE", `Cannot ${action} as nobody accepts joins there`);
}

/** What a socket or a stream gave, in our words. */
function asShardloomError(action: string, error: unknown): ShardloomError {
  if (ShardloomError.is(error)) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL") return noJoins(action);
  return new ShardloomError("ERR_UNAVAILABLE", `Cannot ${action} as the connection failed: ${message}`, {
    cause: error,
  });
}
