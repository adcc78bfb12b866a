/**
 * Objects in NATS' object store: named bytes that are put, read and removed whole.
 *
 * ```
 *  $O.STORE.M.name in base64   what the object is: its pieces' subject, how many, and their digest
 *  $O.STORE.C.nuid             its pieces, in order, all before the former
 * ```
 *
 * Invariant: as for every call of nats.ts. What {@link NatsObjects.get} gives is what was put, by its digest. An object that was put under a new
 * name is never changed here; of a put that failed pieces may be left, until {@link NatsObjectsSurvey.sweep} removes them.
 * Divergence: the library reads and lists by consumers, which wait for as many messages as the server has counted, and the count may be wrong after a
 * crash of the server: then they wait for ever, or leave some out. Each read leaves its consumer on the server for minutes, over restarts too.
 * Here each message is asked for, and one that is gone is said to be. The library marks what it removes and keeps the marks for ever; here
 * nothing stays.
 */
import { type JetStreamManager, jetstreamManager, type StoredMsg } from "@nats-io/jetstream";
import { type ObjectInfo, type ObjectStore, Objm } from "@nats-io/obj";
import { ShardloomError } from "../errors.ts";
import { createDigest } from "./digest.ts";
import { foreign, type NatsConnection } from "./nats.ts";

export interface NatsObjectsOptions {
  /** Letters, digits, `-` and `_`. */
  readonly store: string;
  /** Servers that keep it: 1, 3 or 5. Only counts when it is made. @default 1 */
  readonly replicas?: number;
}

/** What a store had when it was looked at: objects, and pieces of some that are not whole. */
export interface NatsObjectsSurvey {
  /**
   * Removes what was there then and is not to be kept. What came later stays, and so do all pieces if an object that is kept is not there: they may
   * be its own.
   *
   * @returns how many objects went
   */
  sweep(kept: ReadonlySet<string>, timeoutMs: number): Promise<number>;
}

export interface NatsObjects {
  put(name: string, bytes: Uint8Array, timeoutMs: number): Promise<void>;
  /** Undefined: there is none of that name. @throws {ShardloomError} `ERR_CORRUPT` when pieces of it are gone; and as calls do. */
  get(name: string, timeoutMs: number): Promise<Uint8Array | undefined>;
  /** Nothing when there is none of that name. */
  remove(name: string, timeoutMs: number): Promise<void>;
  /** What there is now, so that what nobody needs of it can be removed later. */
  survey(timeoutMs: number): Promise<NatsObjectsSurvey>;
}

/** Bytes of a message that is a piece of an object. */
const PIECE_BYTES: number = 256 * 1024;

/** A call about the store; see {@link NatsConnection.call}. */
type Call = <T>(what: string, changes: boolean, limitMs: number, run: () => Promise<T>) => Promise<T>;

/** Opens a store, and makes it when it is missing. @throws {ShardloomError} As calls do. */
export async function openNatsObjects(
  connection: NatsConnection,
  { store, replicas = 1 }: NatsObjectsOptions,
  timeoutMs: number,
): Promise<NatsObjects> {
  const call: Call = (what, changes, limitMs, run) =>
    connection.call({ what: `${what} object store ${store}`, changes, timeoutMs: limitMs }, run);
  const manager = await jetstreamManager(connection.library, { checkAPI: false, timeout: timeoutMs });
  const objects = await call("open", false, timeoutMs, () => new Objm(connection.library).create(store, { replicas }));
  if ((await call("look at", false, timeoutMs, () => objects.status())).ttl > 0) throw foreign("object store", store);
  return new StoredObjects(store, objects, manager, call);
}

class StoredObjects implements NatsObjects {
  readonly #store: string;
  readonly #objects: ObjectStore;
  readonly #manager: JetStreamManager;
  readonly #call: Call;
  readonly #stream: string;
  /** What subjects of both kinds of messages begin with. */
  readonly #names: string;
  readonly #pieces: string;

  constructor(store: string, objects: ObjectStore, manager: JetStreamManager, call: Call) {
    this.#store = store;
    this.#objects = objects;
    this.#manager = manager;
    this.#call = call;
    this.#stream = `OBJ_${store}`;
    this.#names = `$O.${store}.M.`;
    this.#pieces = `$O.${store}.C.`;
  }

  async put(name: string, bytes: Uint8Array, timeoutMs: number): Promise<void> {
    const meta = { name, options: { max_chunk_size: PIECE_BYTES } };
    await this.#call("write to", true, timeoutMs, () => this.#objects.putBlob(meta, bytes, { timeout: timeoutMs }));
  }

  async get(name: string, timeoutMs: number): Promise<Uint8Array | undefined> {
    for (let damaged: string | undefined; ; ) {
      const info = await this.#look(name, timeoutMs);
      if (info === undefined || info.deleted) return undefined;
      const bytes = await this.#read(info, timeoutMs);
      if (bytes !== undefined) return bytes;
      if (info.nuid === damaged) throw notWhole(this.#store, name);
      damaged = info.nuid; // unless it was put anew meanwhile
    }
  }

  async remove(name: string, timeoutMs: number): Promise<void> {
    await this.#remove(name, timeoutMs);
  }

  async survey(timeoutMs: number): Promise<NatsObjectsSurvey> {
    const { state } = await this.#call("look at", false, timeoutMs, () =>
      this.#manager.streams.info(this.#stream, { subjects_filter: `$O.${this.#store}.>` }),
    );
    const subjects = Object.keys(state.subjects ?? {});
    return { sweep: (kept, sweepMs) => this.#sweep(subjects, kept, sweepMs) };
  }

  async #sweep(subjects: readonly string[], kept: ReadonlySet<string>, timeoutMs: number): Promise<number> {
    const before = subjects.filter((subject) => subject.startsWith(this.#names));
    const gone = before
      .map((subject) => decodeName(subject.slice(this.#names.length)))
      .filter((name) => !kept.has(name));
    const left = new Set(subjects.filter((subject) => subject.startsWith(this.#pieces)));
    for (const name of gone) left.delete((await this.#remove(name, timeoutMs)) ?? "");
    if (left.size <= kept.size) return gone.length; // each has its own
    for (const name of kept) {
      const info = await this.#look(name, timeoutMs);
      if (info === undefined) return gone.length;
      left.delete(this.#pieces + info.nuid);
    }
    for (const subject of left) await this.#purge(subject, timeoutMs);
    return gone.length;
  }

  async #look(name: string, timeoutMs: number): Promise<ObjectInfo | undefined> {
    return (await this.#call("look into", false, timeoutMs, () => this.#objects.info(name))) ?? undefined;
  }

  /** Undefined: the pieces are not all there, or not what they were. */
  async #read({ nuid, chunks, size, digest }: ObjectInfo, timeoutMs: number): Promise<Uint8Array | undefined> {
    const bytes = new Uint8Array(size);
    const found = createDigest();
    let [sequence, length] = [0, 0];
    for (let piece = 0; piece < chunks; piece++) {
      const from = sequence + 1;
      const message = await this.#call("read", false, timeoutMs, () => this.#next(this.#pieces + nuid, from));
      if (message === null || length + message.data.length > size) return undefined;
      bytes.set(message.data, length);
      found.add(message.data);
      length += message.data.length;
      sequence = message.seq;
    }
    return length === size && found.end() === hexadecimal(digest) ? bytes : undefined;
  }

  /** The next piece at a sequence or behind it, from whatever server has it; that there is none only the leader can say. */
  async #next(subject: string, seq: number): Promise<StoredMsg | null> {
    const { direct, streams } = this.#manager;
    const query = { seq, next_by_subj: subject };
    const near = await direct.getMessage(this.#stream, query).catch(() => null);
    return near ?? (await streams.getMessage(this.#stream, query));
  }

  /** @returns subject of the pieces that went, if there was such an object */
  async #remove(name: string, timeoutMs: number): Promise<string | undefined> {
    const info = await this.#look(name, timeoutMs);
    if (info === undefined) return undefined;
    await this.#purge(this.#names + encodeName(name), timeoutMs); // first: what has a name has its pieces
    await this.#purge(this.#pieces + info.nuid, timeoutMs);
    return this.#pieces + info.nuid;
  }

  async #purge(filter: string, timeoutMs: number): Promise<void> {
    await this.#call("clear", true, timeoutMs, () => this.#manager.streams.purge(this.#stream, { filter }));
  }
}

/** As the library does. Names are ASCII. */
function encodeName(name: string): string {
  return Buffer.from(name, "latin1").toString("base64").replaceAll("+", "-").replaceAll("/", "_");
}

function decodeName(encoded: string): string {
  return Buffer.from(encoded, "base64url").toString("latin1");
}

/** Of a digest as the store has it: `SHA-256=` and base64. */
function hexadecimal(digest: string): string {
  return Buffer.from(digest.slice(digest.indexOf("=") + 1), "base64url").toString("hex");
}

function notWhole(store: string, name: string): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot read object store ${store} over NATS as object ${name} must be as it was put: pieces of it are gone`,
    { details: { store, name } },
  );
}
