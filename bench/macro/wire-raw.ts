/**
 * What the bench `wire` compares with, both ends of it: bare TLS sockets, and the bare WebTransport package. Messages have a length that both know.
 *
 * Invariant: each side uses the same certificates and TLS 1.3 as nodes do, and nothing else of theirs; the package gets windows beyond its defaults,
 * without which it stalls.
 */
import { connect, createServer, type Server, type TLSSocket } from "node:tls";
import type { Worker } from "node:worker_threads";
import type { Credentials } from "../../src/transport/session.ts";
import {
  loadWebTransport,
  type WebReader,
  type WebServer,
  type WebWriter,
  withClientTls,
  withServerTls,
} from "../../src/transport/webtransport-package.ts";
import { BULK_BYTES } from "./wire-thread.ts";

export const MESSAGE_BYTES = 64;
/** How a raw server treats what comes. */
export type RawKind = "echo" | "forward" | "bulk";

const WINDOWS = {
  initialStreamFlowControlWindow: 8 * 1024 * 1024,
  initialSessionFlowControlWindow: 64 * 1024 * 1024,
  streamFlowControlWindowSizeLimit: 16 * 1024 * 1024,
  sessionFlowControlWindowSizeLimit: 64 * 1024 * 1024,
  initialBidirectionalStreams: 100,
  initialBidirectionalSendStreams: 100,
};

function secure({ certificate, key, authorities }: Credentials): object {
  return { cert: certificate, key, ca: [...authorities], minVersion: "TLSv1.3" };
}

/** A bare TLS server. @param worker Gives back what it is sent. @returns it and its port */
export function serveTls(
  kind: RawKind,
  credentials: Credentials,
  worker: Worker,
): Promise<{ readonly server: Server; readonly port: number }> {
  const server = createServer({ ...secure(credentials), requestCert: true }, (socket) => {
    socket.setNoDelay(true);
    socket.on("error", () => socket.destroy());
    if (kind === "echo") socket.on("data", (chunk) => socket.write(chunk));
    else if (kind === "bulk") socket.on("data", (chunk: Buffer) => void sendTls(socket, chunk.readUInt32LE(0)));
    else {
      worker.on("message", (chunk: Uint8Array) => socket.write(chunk));
      socket.on("data", (chunk) => worker.postMessage(chunk));
    }
  });
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve({ server, port: (server.address() as { port: number }).port }));
  });
}

async function sendTls(socket: TLSSocket, count: number): Promise<void> {
  const block = Buffer.alloc(BULK_BYTES, 7);
  for (let at = 0; at < count; at++)
    if (!socket.write(block)) await new Promise((resolve) => socket.once("drain", resolve));
}

/** The bare package: echoes each chunk at "/echo", sends as many blocks as it is asked for at "/bulk". */
export async function serveWeb(
  credentials: Credentials,
): Promise<{ readonly server: WebServer; readonly port: number }> {
  const { Http2Server } = await loadWebTransport();
  const { certificate, key } = credentials;
  const server = new Http2Server({
    host: "127.0.0.1",
    port: 0,
    secret: "none",
    cert: certificate,
    privKey: key,
    ...WINDOWS,
  });
  server.setRequestCallback((request) => Promise.resolve({ ...request, path: request.header[":path"], status: 200 }));
  const tls = { options: secure(credentials), onServer: () => undefined, onSession: () => undefined };
  withServerTls(tls, () => server.startServer());
  await server.ready;
  for (const path of ["/echo", "/bulk"]) void takeWeb(server, path);
  return { server, port: server.address()?.port ?? 0 };
}

async function takeWeb(server: WebServer, path: string): Promise<void> {
  const sessions = server.sessionStream(path).getReader();
  for (;;) {
    const { value: session } = await sessions.read();
    if (session === undefined) return;
    session.closed.catch(() => undefined);
    await session.ready;
    const { value: stream } = await session.incomingBidirectionalStreams.getReader().read();
    if (stream === undefined) continue;
    void answerWeb(path, stream.readable.getReader(), stream.writable.getWriter()).catch(() => undefined);
  }
}

async function answerWeb(path: string, reader: WebReader<Uint8Array>, writer: WebWriter): Promise<void> {
  const block = new Uint8Array(BULK_BYTES).fill(7);
  for (;;) {
    const { value } = await reader.read();
    if (value === undefined) return;
    if (path === "/bulk")
      for (let left = Buffer.from(value).readUInt32LE(0); left > 0; left--) await writer.write(block);
    else
      for (let at = 0; at < value.length; at += MESSAGE_BYTES)
        writer.write(value.slice(at, at + MESSAGE_BYTES)).catch(() => undefined);
  }
}

/** A client of any of these: messages in order, each answered by as many bytes. */
export abstract class RawClient {
  /** What waits for how many bytes, oldest first. */
  readonly #waiting: { left: number; readonly done: () => void }[] = [];

  /** Sends a message. Resolves when as many bytes have come back. */
  echo(body: Uint8Array): Promise<void> {
    this.write(body);
    return this.#expect(body.length);
  }

  bulk(count: number): Promise<void> {
    const request = Buffer.alloc(4);
    request.writeUInt32LE(count);
    this.write(request);
    return this.#expect(count * BULK_BYTES);
  }

  protected abstract write(bytes: Uint8Array): void;
  abstract close(): void;

  protected take(bytes: number): void {
    let rest = bytes;
    while (rest > 0) {
      const [first] = this.#waiting;
      if (first === undefined) throw new Error(`${rest} bytes came that nobody had asked for`);
      const taken = Math.min(rest, first.left);
      rest -= taken;
      first.left -= taken;
      if (first.left > 0) continue;
      this.#waiting.shift();
      first.done();
    }
  }

  #expect(left: number): Promise<void> {
    return new Promise((done) => this.#waiting.push({ left, done }));
  }
}

class TlsClient extends RawClient {
  readonly #socket: TLSSocket;

  constructor(socket: TLSSocket) {
    super();
    this.#socket = socket;
    socket.on("data", (chunk: Uint8Array) => this.take(chunk.length));
    socket.on("error", () => socket.destroy());
  }

  protected write(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  close(): void {
    this.#socket.destroy();
  }
}

class WebClient extends RawClient {
  readonly #writer: WebWriter;
  readonly #end: () => void;

  constructor(reader: WebReader<Uint8Array>, writer: WebWriter, end: () => void) {
    super();
    this.#writer = writer;
    this.#end = end;
    void this.#read(reader).catch(() => undefined);
  }

  protected write(bytes: Uint8Array): void {
    this.#writer.write(bytes).catch(() => undefined);
  }

  close(): void {
    this.#end();
  }

  async #read(reader: WebReader<Uint8Array>): Promise<void> {
    for (;;) {
      const { value } = await reader.read();
      if (value === undefined) return;
      this.take(value.length);
    }
  }
}

export function connectTls(port: number, credentials: Credentials): Promise<RawClient> {
  return new Promise((resolve, reject) => {
    const options = { ...secure(credentials), host: "127.0.0.1", port, checkServerIdentity: () => undefined };
    const socket = connect(options, () => resolve(new TlsClient(socket.setNoDelay(true))));
    socket.once("error", reject);
  });
}

export async function connectWeb(port: number, path: string, credentials: Credentials): Promise<RawClient> {
  const { WebTransport } = await loadWebTransport();
  let cut: () => void = () => undefined;
  const tls = {
    options: { ...secure(credentials), checkServerIdentity: () => undefined },
    onSession: (session: { destroy(): void }) => {
      cut = () => session.destroy();
    },
  };
  const session = withClientTls(
    tls,
    () => new WebTransport(`https://127.0.0.1:${port}${path}`, { ...WINDOWS, forceReliable: true }),
  );
  session.closed.catch(() => undefined);
  await session.ready;
  const { readable, writable } = await session.createBidirectionalStream();
  return new WebClient(readable.getReader(), writable.getWriter(), () => cut());
}
