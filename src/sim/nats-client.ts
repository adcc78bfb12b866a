/**
 * A process's connection to the stand-in for NATS: the calls that a log or a lease over JetStream makes.
 *
 * Invariant: a call settles by its timeout, once. `ERR_TIMEOUT` of one that changes something means in doubt: it may have been applied, or may be
 * applied later. Every other error means that it was not applied.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import type { Loop, LoopTimer } from "./loop-types.ts";
import type { KeyEntry, NatsStore, StreamPage } from "./nats-store.ts";

/** What a watch looks at. */
export interface WatchOptions {
  /** Keys that begin so. @default all */
  readonly prefix?: string;
  /** Changes above this revision; 0 begins with the present value of every key. @default 0 */
  readonly afterRevision?: number;
  /** Ends the watch. */
  readonly signal?: AbortSignal;
}

/** A connection. Bytes are copied when a call is made. */
export interface NatsClient {
  /**
   * Appends a message to a stream, which is made when missing.
   *
   * @param expectedSequence Sequence of the stream's last message, 0 for an empty one; undefined for any.
   * @returns the message's sequence
   * @throws {ShardloomError} `ERR_STALE_EPOCH` when the last sequence is another one (`details.last`), `ERR_TIMEOUT`: in doubt, `ERR_CLOSED`.
   */
  append(stream: string, bytes: Uint8Array, expectedSequence: number | undefined, timeoutMs: number): Promise<number>;
  /** Messages from a sequence on, in order, at most `limit`. */
  read(stream: string, fromSequence: number, limit: number, timeoutMs: number): Promise<StreamPage>;
  /** The last change of a key; undefined when it never had one. */
  get(bucket: string, key: string, timeoutMs: number): Promise<KeyEntry | undefined>;
  /**
   * Sets a key.
   *
   * @param expectedRevision Revision of the key's last change, 0 when it must be absent or deleted; undefined for any.
   * @returns the change's revision
   * @throws {ShardloomError} As {@link NatsClient.append}.
   */
  put(
    bucket: string,
    key: string,
    value: Uint8Array,
    expectedRevision: number | undefined,
    timeoutMs: number,
  ): Promise<number>;
  /** Deletes a key. Otherwise as {@link NatsClient.put}. */
  delete(bucket: string, key: string, expectedRevision: number | undefined, timeoutMs: number): Promise<number>;
  /**
   * Changes of a bucket as they come to be known, in the order of revisions. Goes on over lost connections, and then has the last change of a
   * key only; so has a reader that is slow. Ends when the signal fires or the connection is closed.
   */
  watch(bucket: string, options?: WatchOptions): AsyncIterableIterator<KeyEntry>;
  /** Fails what is open and every later call with `ERR_CLOSED`; what was sent may still be applied. */
  close(): void;
}

/** A watch, as the server sees it. */
export interface Watcher {
  readonly bucket: string;
  readonly prefix: string;
  /** Up to which its client has been told. */
  readonly revision: number;
  /** How often the connection had been dropped when the server learned of it; -1 before that. */
  subscription: number;
  take(entry: KeyEntry): void;
}

/** What the server does for a connection. */
export interface Link {
  /** Whether the process is there; when it is not, nothing of it settles. */
  isAlive(): boolean;
  /** Sends a request; when its answer arrives, calls `answer` with what returns it, or throws its error. */
  request<T>(
    what: string,
    changes: boolean,
    timeoutUs: number,
    apply: (store: NatsStore) => T,
    answer: (outcome: () => T) => void,
  ): void;
  watch(watcher: Watcher): void;
  unwatch(watcher: Watcher): void;
  close(): void;
}

/** @param loop Where timeouts run */
export function createNatsClient(link: Link, loop: Loop): NatsClient {
  return new Client(link, loop);
}

class Client implements NatsClient {
  readonly #link: Link;
  readonly #loop: Loop;
  readonly #open: Set<(error: ShardloomError) => void> = new Set();
  readonly #watches: Set<Watch> = new Set();
  #closed = false;

  constructor(link: Link, loop: Loop) {
    this.#link = link;
    this.#loop = loop;
  }

  append(stream: string, bytes: Uint8Array, expectedSequence: number | undefined, timeoutMs: number): Promise<number> {
    const copy = bytes.slice();
    return this.#request("append", true, timeoutMs, (store) => store.append(stream, copy, expectedSequence));
  }

  read(stream: string, fromSequence: number, limit: number, timeoutMs: number): Promise<StreamPage> {
    return this.#request("read", false, timeoutMs, (store) => store.read(stream, fromSequence, limit));
  }

  get(bucket: string, key: string, timeoutMs: number): Promise<KeyEntry | undefined> {
    return this.#request("get", false, timeoutMs, (store) => store.get(bucket, key));
  }

  put(
    bucket: string,
    key: string,
    value: Uint8Array,
    expectedRevision: number | undefined,
    timeoutMs: number,
  ): Promise<number> {
    const change = { key, value: value.slice(), operation: "put" } as const;
    return this.#request("put", true, timeoutMs, (store) => store.change(bucket, change, expectedRevision).revision);
  }

  delete(bucket: string, key: string, expectedRevision: number | undefined, timeoutMs: number): Promise<number> {
    const change = { key, value: new Uint8Array(), operation: "delete" } as const;
    return this.#request("delete", true, timeoutMs, (store) => store.change(bucket, change, expectedRevision).revision);
  }

  watch(bucket: string, options: WatchOptions = {}): AsyncIterableIterator<KeyEntry> {
    const watch = new Watch(bucket, options, () => {
      this.#watches.delete(watch);
      this.#link.unwatch(watch);
    });
    if (this.#closed || options.signal?.aborted === true) {
      watch.end();
      return watch;
    }
    this.#watches.add(watch);
    options.signal?.addEventListener("abort", () => watch.end(), { once: true });
    this.#link.watch(watch);
    return watch;
  }

  close(): void {
    if (this.#closed || !this.#link.isAlive()) return;
    this.#closed = true;
    this.#link.close();
    for (const watch of [...this.#watches]) watch.end();
    for (const fail of [...this.#open]) fail(closed());
  }

  #request<T>(what: string, changes: boolean, timeoutMs: number, apply: (store: NatsStore) => T): Promise<T> {
    if (!(timeoutMs > 0 && timeoutMs < Number.POSITIVE_INFINITY))
      return Promise.reject(invalidArgument(`${what} over NATS`, "timeoutMs", "a finite number above 0", timeoutMs));
    if (this.#closed) return Promise.reject(closed());
    return new Promise((resolve, reject) => {
      if (!this.#link.isAlive()) return;
      let timer: LoopTimer | undefined;
      let settled = false;
      const settle = (outcome: () => T): void => {
        if (settled) return;
        settled = true;
        timer?.cancel();
        this.#open.delete(fail);
        try {
          resolve(outcome());
        } catch (error) {
          reject(ShardloomError.from(error));
        }
      };
      const fail = (error: ShardloomError): void =>
        settle(() => {
          throw error;
        });
      this.#open.add(fail);
      timer = this.#loop.at(this.#loop.nowUs + timeoutMs * 1000, () => {
        if (this.#link.isAlive()) fail(timedOut(what, changes, timeoutMs));
      });
      this.#link.request(what, changes, timeoutMs * 1000, apply, settle);
    });
  }
}

/** Changes that arrived and were not taken yet: one a key at most. */
class Watch implements AsyncIterableIterator<KeyEntry>, Watcher {
  readonly bucket: string;
  readonly prefix: string;
  revision: number;
  subscription = -1;
  readonly #arrived: Map<string, KeyEntry> = new Map();
  readonly #ended: () => void;
  #waiting: ((result: IteratorResult<KeyEntry>) => void)[] = [];
  #isOver = false;

  constructor(bucket: string, { prefix = "", afterRevision = 0 }: WatchOptions, ended: () => void) {
    this.bucket = bucket;
    this.prefix = prefix;
    this.revision = afterRevision;
    this.#ended = ended;
  }

  take(entry: KeyEntry): void {
    if (this.#isOver || entry.revision <= this.revision) return;
    this.revision = entry.revision;
    const next = this.#waiting.shift();
    if (next !== undefined) return next({ done: false, value: entry });
    this.#arrived.delete(entry.key);
    this.#arrived.set(entry.key, entry);
  }

  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#arrived.clear();
    this.#ended();
    for (const next of this.#waiting.splice(0)) next({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<KeyEntry>> {
    if (this.#isOver) return Promise.resolve({ done: true, value: undefined });
    for (const [key, entry] of this.#arrived) {
      this.#arrived.delete(key);
      return Promise.resolve({ done: false, value: entry });
    }
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  return(): Promise<IteratorResult<KeyEntry>> {
    this.end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

function closed(): ShardloomError {
  return new ShardloomError("ERR_CLOSED", "Cannot use connection to NATS as it must be open: current value is closed");
}

function timedOut(what: string, inDoubt: boolean, timeoutMs: number): ShardloomError {
  const doubt = inDoubt ? "none came, and it may still be applied" : "none came";
  const message = `Cannot ${what} over NATS as an answer must come within ${timeoutMs} ms: ${doubt}`;
  return new ShardloomError("ERR_TIMEOUT", message, {
    details: { timeoutMs, inDoubt },
  });
}
