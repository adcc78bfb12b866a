/**
 * A connection to NATS with JetStream, and streams on it: the one place that knows the client library (beside nats-bucket.ts and nats-objects.ts).
 *
 * Invariant: a call settles by its timeout, once. `ERR_TIMEOUT` with `details.inDoubt` means that what it was to change may have been changed, or
 * may yet be; every other error means that nothing was changed. While there is no connection nothing is sent: a call waits for one as long as
 * its timeout allows, so that the library's buffer does not grow while the server is away.
 * Divergence: the library sends again what it has buffered, and tells nobody that a connection was lost; here open calls end with it, in doubt.
 */
import { checkServerIdentity } from "node:tls";
import { JetStreamApiError, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, errors, type NatsConnection as LibraryConnection, type TlsOptions } from "@nats-io/transport-node";
import { type ErrorCode, invalidArgument, ShardloomError } from "../errors.ts";
import type { Scheduler } from "./scheduler.ts";

/** Where the servers are, and who we are to them. */
export interface NatsOptions {
  /** Addresses of servers of one cluster: `nats://host:port`. */
  readonly servers: readonly string[];
  /** Of the thread that uses the connection. */
  readonly scheduler: Scheduler;
  /** What the server shows of this connection. @default none */
  readonly name?: string;
  readonly user?: string;
  readonly password?: string;
  readonly token?: string;
  /** PEM texts; with it the connection must be encrypted. @default as the server asks */
  readonly tls?: { readonly ca?: string; readonly cert?: string; readonly key?: string };
  /** For making a connection, in ms. @default 5000 */
  readonly connectTimeoutMs?: number;
}

/** A stream to be opened, and made when it is missing. */
export interface NatsStreamOptions {
  /** Letters, digits, `-` and `_`. */
  readonly name: string;
  /** Servers that keep it: 1, 3 or 5. Only counts when it is made. @default 1 */
  readonly replicas?: number;
  /** Bytes after which appends are refused with `ERR_DISK_FULL`. Only counts when it is made. @default none */
  readonly maxBytes?: number;
}

/** Sequences of a stream's first and last message. An empty one has `first` above `last`. */
export interface NatsBounds {
  readonly first: number;
  readonly last: number;
}

/** What a lost or slow connection does to every call here. */
export interface NatsStream {
  readonly name: string;
  /** Bytes that a message may have at present, or could have when the server was there last. */
  readonly maxMessageBytes: number;
  /**
   * Appends a message, when the last one has the sequence that is expected (0: none was ever there).
   *
   * @returns its sequence
   * @throws {ShardloomError} `ERR_STALE_EPOCH` with `details.last`, `ERR_TIMEOUT`, `ERR_UNAVAILABLE`, `ERR_DISK_FULL`, `ERR_CLOSED`, `ERR_IO`.
   */
  append(bytes: Uint8Array, expectedLast: number, timeoutMs: number): Promise<number>;
  /** A message; undefined: it was not there when the server that leads the stream looked. */
  get(sequence: number, timeoutMs: number): Promise<Uint8Array | undefined>;
  bounds(timeoutMs: number): Promise<NatsBounds>;
  /** Removes messages below a sequence. */
  purgeBelow(sequence: number, timeoutMs: number): Promise<void>;
}

/** JetStream's codes that have one of our own. The others are `ERR_IO`. */
const STREAM_NOT_FOUND = 10_059;
const CODES: Readonly<Record<number, ErrorCode>> = {
  10008: "ERR_UNAVAILABLE", // no leader
  10039: "ERR_UNAVAILABLE", // JetStream is not there
  [STREAM_NOT_FOUND]: "ERR_UNAVAILABLE",
  10023: "ERR_DISK_FULL", // no resources
  10047: "ERR_DISK_FULL", // no storage
  10077: "ERR_DISK_FULL", // a limit of the stream
  10054: "ERR_RECORD_TOO_LARGE",
  10071: "ERR_STALE_EPOCH",
  10164: "ERR_STALE_EPOCH",
};
/** Of a message where the server has never said how much it takes. */
const LEAST_PAYLOAD_BYTES: number = 16 * 1024;
/** The server puts its own headers to what we send. */
const HEADER_ROOM_BYTES = 512;
/** A server that answers to nothing is given up after two of these. */
const PING_MS = 2_000;
const RECONNECT_MS = { wait: 100, jitter: 100 } as const;
const CONNECT_TIMEOUT_MS = 5_000;

/** Connects. @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_UNAVAILABLE` when no server can be reached, or none takes us. */
export async function connectNats(options: NatsOptions): Promise<NatsConnection> {
  const { servers, name, user, password, token, tls } = options;
  const hosts = servers.map(hostOf);
  const timeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
  try {
    const library = await connect({
      servers: [...servers],
      timeout: timeoutMs,
      noAsyncTraces: true,
      pingInterval: PING_MS,
      maxReconnectAttempts: -1,
      reconnectTimeWait: RECONNECT_MS.wait,
      reconnectJitter: RECONNECT_MS.jitter,
      reconnectJitterTLS: RECONNECT_MS.jitter,
      ...(name === undefined ? {} : { name }),
      ...(user === undefined ? {} : { user }),
      ...(password === undefined ? {} : { pass: password }),
      ...(token === undefined ? {} : { token }),
      ...(tls === undefined ? {} : { tls: { ...tls, checkServerIdentity: identityAmong(hosts) } as TlsOptions }),
    });
    return new NatsConnection(library, options.scheduler);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new ShardloomError(
      "ERR_UNAVAILABLE",
      `Cannot connect to NATS as one of ${servers.join(", ")} must answer: ${why}`,
      {
        cause,
        details: { servers: [...servers] },
        // Who is not let in is not let in later either.
        ...(cause instanceof errors.AuthorizationError ? { retryable: false } : {}),
      },
    );
  }
}

/** What a call is, for its error. */
export interface NatsCall {
  /** As in: Cannot … over NATS. */
  readonly what: string;
  /** Whether it changes anything, so that it is in doubt when no answer comes. */
  readonly changes: boolean;
  readonly timeoutMs: number;
}

/** A call without an outcome. */
interface OpenCall {
  isSent: boolean;
  send(): void;
  /** Its connection is gone. */
  lose(): void;
}

export class NatsConnection implements AsyncDisposable {
  /** For nats-bucket.ts and nats-objects.ts. */
  readonly library: LibraryConnection;
  readonly #scheduler: Scheduler;
  /** Calls without an outcome. */
  readonly #open: Set<OpenCall> = new Set();
  #isConnected = true;

  constructor(library: LibraryConnection, scheduler: Scheduler) {
    this.library = library;
    this.#scheduler = scheduler;
    void this.#follow();
    void library.closed().then(() => this.#lost());
  }

  get isConnected(): boolean {
    return this.#isConnected;
  }

  /** Opens a stream that is appended to by one writer at a time. */
  async openStream({ name, replicas = 1, maxBytes = -1 }: NatsStreamOptions, timeoutMs: number): Promise<NatsStream> {
    const subject = `shardloom.${name}`;
    const manager = await jetstreamManager(this.library, { checkAPI: false, timeout: timeoutMs });
    const client = jetstream(this.library);
    const { config } = await this.call({ what: `open stream ${name}`, changes: false, timeoutMs }, () =>
      openedOrMade(
        () => manager.streams.info(name),
        () =>
          manager.streams.add({
            name,
            subjects: [subject],
            num_replicas: replicas,
            max_bytes: maxBytes,
            storage: "file",
            retention: "limits",
            discard: "new",
            allow_direct: true,
          }),
      ),
    );
    const { retention, discard, max_age: maxAge, max_msgs: maxMessages, max_msgs_per_subject: maxPerSubject } = config;
    const isKept = retention === "limits" && discard === "new" && maxAge === 0 && maxMessages < 0 && maxPerSubject < 0;
    if (!isKept || config.subjects.join() !== subject) throw foreign("stream", name);
    const call = <T>(what: string, changes: boolean, limitMs: number, run: () => Promise<T>): Promise<T> =>
      this.call({ what: `${what} stream ${name}`, changes, timeoutMs: limitMs }, run);
    const { library } = this;
    let payloadBytes = library.info?.max_payload ?? LEAST_PAYLOAD_BYTES;
    return {
      name,
      get maxMessageBytes() {
        payloadBytes = library.info?.max_payload ?? payloadBytes; // while there is no connection nobody says
        return payloadBytes - HEADER_ROOM_BYTES;
      },
      append: async (bytes, lastSequence, limitMs) => {
        const options = { expect: { lastSequence }, timeout: limitMs };
        return (await call("append to", true, limitMs, () => client.publish(subject, bytes, options))).seq;
      },
      get: (seq, limitMs) =>
        call("read", false, limitMs, async () => {
          // From whatever server has it, as it never changes, and in few bytes; that it is not there only the leader can say.
          const near = await manager.direct.getMessage(name, { seq }).catch(() => null);
          return (near ?? (await manager.streams.getMessage(name, { seq })))?.data;
        }),
      bounds: async (limitMs) => {
        const { state } = await call("look at", false, limitMs, () => manager.streams.info(name));
        return { first: Math.max(1, state.first_seq), last: state.last_seq };
      },
      purgeBelow: async (seq, limitMs) => {
        await call("truncate", true, limitMs, () => manager.streams.purge(name, { seq }));
      },
    };
  }

  /**
   * Makes a call of the library, with one outcome within its time.
   *
   * @throws {ShardloomError} see {@link NatsStream.append}
   */
  call<T>(call: NatsCall, run: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (act: () => void): void => {
        if (!this.#open.delete(open)) return; // it has its outcome
        timer.cancel();
        act();
      };
      const fail = (error: ShardloomError): void => settle(() => reject(error));
      const open: OpenCall = {
        isSent: false,
        send: () => {
          open.isSent = true;
          new Promise<T>((resolveRun) => resolveRun(run())).then(
            (value) => settle(() => resolve(value)),
            (error: unknown) => fail(this.library.isClosed() ? closed(call) : errorOf(call, error)),
          );
        },
        lose: () =>
          fail(this.library.isClosed() ? closed(call) : timedOut(call, open.isSent, "the connection was lost")),
      };
      const timer = this.#scheduler.timer(call.timeoutMs, () =>
        fail(timedOut(call, open.isSent, open.isSent ? "none came" : "there is no connection")),
      );
      this.#open.add(open);
      if (this.library.isClosed()) open.lose();
      else if (this.#isConnected) open.send();
    });
  }

  /** Ends every call, open or later, with `ERR_CLOSED`. What was sent may still be done. */
  async close(): Promise<void> {
    await this.library.close();
    this.#lost();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #follow(): Promise<void> {
    for await (const { type } of this.library.status()) {
      if (type === "disconnect") this.#lost();
      if (type !== "reconnect") continue;
      this.#isConnected = true;
      for (const call of [...this.#open]) if (!call.isSent) call.send();
    }
  }

  /** The connection is gone: what was sent over it is in doubt, what was not waits for the next one, if there is to be one. */
  #lost(): void {
    this.#isConnected = false;
    for (const call of [...this.#open]) if (call.isSent || this.library.isClosed()) call.lose();
  }
}

/** Host of a server's address. */
function hostOf(server: string): string {
  const url = URL.canParse(server) ? new URL(server) : undefined;
  if (url?.protocol === "nats:" && url.hostname !== "" && url.port !== "") return url.hostname.replaceAll(/[[\]]/g, "");
  throw invalidArgument("connect to NATS", "servers", "addresses nats://host:port", server);
}

/**
 * The library gives no name for a server that has an IP address for one, and is then asked about `localhost`: its certificate has to be for one
 * of the servers that were given.
 */
function identityAmong(hosts: readonly string[]): typeof checkServerIdentity {
  return (host, certificate) => {
    const error = checkServerIdentity(host, certificate);
    if (error === undefined || host !== "localhost") return error;
    return hosts.some((given) => checkServerIdentity(given, certificate) === undefined) ? undefined : error;
  };
}

/** Looks for something that is made when it is missing; another one may make it at the same time. */
async function openedOrMade<T>(look: () => Promise<T>, make: () => Promise<T>): Promise<T> {
  try {
    return await look();
  } catch (error) {
    if (!(error instanceof JetStreamApiError) || error.code !== STREAM_NOT_FOUND) throw error;
    return make();
  }
}

/** The error of something that was made by others, and forgets what it was given: by age, or when it has too much. */
export function foreign(kind: "stream" | "bucket" | "object store", name: string): ShardloomError {
  return invalidArgument(`open ${kind} of NATS`, "name", "of one that forgets nothing by itself, and is ours", name);
}

function errorOf(call: NatsCall, error: unknown): ShardloomError {
  if (error instanceof errors.TimeoutError) return timedOut(call, true, "none came");
  const why = error instanceof Error ? error.message : String(error);
  const apiCode = error instanceof JetStreamApiError ? error.code : undefined;
  const code = isUnheard(error) ? "ERR_UNAVAILABLE" : isTooLarge(error) ? "ERR_RECORD_TOO_LARGE" : CODES[apiCode ?? 0];
  const last = /wrong last sequence: (\d+)/.exec(why)?.[1];
  return new ShardloomError(code ?? "ERR_IO", `Cannot ${call.what} over NATS as the server must accept it: ${why}`, {
    cause: error,
    details: { ...(apiCode === undefined ? {} : { apiCode }), ...(last === undefined ? {} : { last: Number(last) }) },
  });
}

/** Whether the server said that nobody takes such a request: there is no JetStream, or no stream of that subject. Its class is not exported. */
function isUnheard(error: unknown): boolean {
  return error instanceof Error && error.name === "JetStreamNotEnabled";
}

/** Whether the library has not sent something as the server would not take so many bytes. */
function isTooLarge(error: unknown): boolean {
  return error instanceof errors.InvalidArgumentError && error.message.includes("max_payload");
}

function timedOut({ what, changes, timeoutMs }: NatsCall, isSent: boolean, why: string): ShardloomError {
  const inDoubt = changes && isSent;
  const message = `Cannot ${what} over NATS as an answer must come within ${timeoutMs} ms: ${why}`;
  return new ShardloomError("ERR_TIMEOUT", inDoubt ? `${message}, and it may still be done` : message, {
    details: { timeoutMs, inDoubt },
  });
}

function closed({ what }: NatsCall): ShardloomError {
  return new ShardloomError(
    "ERR_CLOSED",
    `Cannot ${what} over NATS as the connection must be open: current value is closed`,
  );
}
