/**
 * The documents of one shard in LMDB: what its log has said up to one position, one record for each document. The only file that knows LMDB.
 *
 * Derived state: made from the shard's log and snapshots, and of use because it is newer than the last snapshot. One environment, one writer.
 * Invariant: a batch is one transaction, together with the position that it reaches, so that a crash leaves all of it or nothing. LMDB runs in
 * its own safest mode: pages are never overwritten in place, they are synced before the meta page that names them is written, and that one
 * is written synchronously (no `noSync`, no `noMetaSync`, no overlapping sync), so that power loss is a crash like any other.
 * The sum of the checksums of all records is kept in the same transaction: a tree that lost, doubled or resurrected records is found.
 * After an error nothing more is written: LMDB's binding begins a transaction in a broken environment without looking.
 *
 * Only synchronous calls, each a few milliseconds. Never end a thread in the middle of `apply`: the binding then waits for its own lock,
 * and the process never ends; a {@link WriteGate} keeps `process.exit` from it. Reading threads may be ended at any time.
 */
import type { RootDatabase } from "lmdb";
import { type ErrorCode, ShardloomError } from "../errors.ts";
import type { WriteGate } from "../runtime/write-gate.ts";
import { DocumentBatch, type DocumentStep } from "./document-batch.ts";
import {
  checkValue,
  DOCUMENTS_FORMAT,
  type DocumentHead,
  type DocumentsMeta,
  damaged,
  decodeDocument,
  decodeHead,
  decodeJson,
  documentBody,
  documentsRange,
  type IdempotencyRecord,
  idempotencyRange,
  META_KEY,
  placeOf,
  readKey,
  type StoredDocument,
  type VshardRecord,
  vshardsRange,
} from "./document-layout.ts";

/** Documents of one vshard and collection as the body of one effect. */
export interface DocumentEffect {
  readonly type: number;
  readonly collection: number;
  readonly vshard: number;
  readonly body: Uint8Array;
}

/** Makes one effect body of several, all of the same type. */
export type JoinBodies = (type: number, bodies: readonly Uint8Array[]) => Uint8Array;

export interface DocumentsOptions {
  /** Path of the file; its directory exists. */
  readonly path: string;
  readonly clusterId: string;
  readonly shard: number;
  /** Changes nothing. The file must be there. */
  readonly readOnly?: boolean;
  /** What transactions pass. @default none */
  readonly gate?: WriteGate | undefined;
}

/** @throws {ShardloomError} as {@link Documents}, `ERR_DISK_FULL`, `ERR_READ_ONLY`, `ERR_IO`. */
export async function openDocuments(options: DocumentsOptions): Promise<Documents> {
  const { open } = await import("lmdb"); // 20 ms and a native module: only where there are documents
  const { path, readOnly = false, gate } = options;
  const attempt = (): RootDatabase<Buffer, Buffer> =>
    open<Buffer, Buffer>({
      path,
      readOnly,
      noSubdir: true,
      encoding: "binary",
      keyEncoding: "binary",
      compression: false,
      overlappingSync: false,
      maxDbs: 1,
      maxReaders: 32,
    } as never);
  return new Documents(
    asTyped("open documents", path, () => (gate === undefined ? attempt() : gate.run(attempt))),
    options,
  );
}

export class Documents {
  readonly path: string;
  readonly #database: RootDatabase<Buffer, Buffer>;
  readonly #readOnly: boolean;
  readonly #gate: WriteGate | undefined;
  readonly #vshards: Map<number, VshardRecord> = new Map();
  #meta: DocumentsMeta;
  #keys = 0;
  #failure: ShardloomError | undefined;
  #closed = false;

  /** @throws {ShardloomError} `ERR_UNSUPPORTED_FORMAT`, `ERR_DIRECTORY_MISMATCH`, `ERR_CORRUPT`; the environment is closed again. */
  constructor(database: RootDatabase<Buffer, Buffer>, options: DocumentsOptions) {
    const { path, clusterId, shard, readOnly = false } = options;
    this.path = path;
    this.#database = database;
    this.#readOnly = readOnly;
    this.#gate = options.gate;
    const empty: DocumentsMeta = {
      format: DOCUMENTS_FORMAT,
      clusterId,
      shard,
      appliedPosition: 0,
      wholeAt: 0,
      building: false,
      records: 0,
      sum: 0,
    };
    this.#meta = empty;
    try {
      this.#meta = asTyped("open documents", path, () => this.#load(empty));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  get meta(): DocumentsMeta {
    return this.#meta;
  }

  get vshards(): ReadonlyMap<number, VshardRecord> {
    return this.#vshards;
  }

  /** Why nothing more can be written, once a write has failed. */
  get failure(): ShardloomError | undefined {
    return this.#failure;
  }

  /**
   * Writes a batch, durably. A document that is removed and is not there is no error.
   *
   * @param next What becomes of `meta`; the position is that of the batch's last frame.
   * @throws {ShardloomError} `ERR_DISK_FULL`, `ERR_READ_ONLY`, `ERR_IO`, `ERR_CORRUPT`: nothing of the batch was written, and nothing ever
   *   will be; `ERR_RECORD_TOO_LARGE`, `ERR_CLOSED`.
   */
  apply(
    steps: readonly DocumentStep[],
    next: Partial<Pick<DocumentsMeta, "appliedPosition" | "wholeAt" | "building">>,
  ): void {
    if (this.#closed || this.#readOnly) throw this.#refused();
    if (this.#failure !== undefined) throw this.#failure;
    this.#write(next, (batch) => {
      for (const step of steps) batch.take(step);
    });
    for (const step of steps) if (step.step === "vshard") this.#vshards.set(step.vshard, step.record);
  }

  /** Removes the documents of collections that are not among these: of those that were dropped. */
  retain(collections: ReadonlySet<number>): void {
    const dropped: Buffer[] = [];
    for (const collection of this.#collections())
      if (!collections.has(collection))
        for (const key of this.#database.getKeys({
          ...documentsRange(collection),
          end: documentsRange(collection + 1).start,
        }))
          dropped.push(key);
    if (dropped.length === 0) return;
    if (this.#closed || this.#readOnly) throw this.#refused();
    this.#write({}, (batch) => {
      for (const key of dropped) batch.remove(key);
    });
  }

  /** Every document, by collection, vshard and id. @throws {ShardloomError} `ERR_CORRUPT` */
  *documents(): Generator<{ readonly key: Buffer; readonly value: Buffer; readonly document: StoredDocument }> {
    for (const { key, value } of this.#database.getRange(documentsRange()))
      yield { key, value, document: decodeDocument(key, value) };
  }

  /**
   * All documents as effects, those of one collection and vshard together, to be applied to an empty engine.
   *
   * @param maxBodyBytes Size of a body above which a new one is begun.
   * @param collections Those that are told. @default all
   */
  *entries(join: JoinBodies, maxBodyBytes: number, collections?: ReadonlySet<number>): Generator<DocumentEffect> {
    let head: DocumentHead | undefined;
    let bodies: Uint8Array[] = [];
    let bytes = 0;
    for (const { key, value } of this.#database.getRange(documentsRange())) {
      const next = decodeHead(key, value);
      if (collections?.has(next.collection) === false) continue;
      const body = documentBody(value);
      if (head !== undefined && (!isSameGroup(head, next) || bytes + body.length > maxBodyBytes)) {
        yield { ...head, body: join(head.type, bodies) };
        bodies = [];
        bytes = 0;
      }
      head = next;
      bodies.push(body);
      bytes += body.length;
    }
    if (head !== undefined) yield { ...head, body: join(head.type, bodies) };
  }

  /** Idempotency keys in the order of the log. */
  *keys(): Generator<IdempotencyRecord> {
    for (const { key, value } of this.#database.getRange(idempotencyRange())) {
      const record = decodeJson<IdempotencyRecord & { result: string }>(key, value);
      yield { ...record, result: new Uint8Array(Buffer.from(record.result, "base64")) };
    }
  }

  /** Every record but the one about the environment, each as it was written. @throws {ShardloomError} `ERR_CORRUPT` */
  *records(): Generator<{ readonly key: Buffer; readonly value: Buffer }> {
    let last = META_KEY;
    for (const record of this.#database.getRange({ start: Buffer.from([1]) })) {
      const { key, value } = record;
      readKey(key);
      if (Buffer.compare(last, key) >= 0) throw damaged("order of keys", key.toString("hex"));
      checkValue(key, value);
      last = key;
      yield record;
    }
  }

  /** Harmless a second time. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    void this.#database.close(); // at once, as nothing asynchronous was begun
  }

  /** One transaction. */
  #write(next: Partial<DocumentsMeta>, fill: (batch: DocumentBatch) => void): void {
    const batch = new DocumentBatch(this.#database, { ...this.#meta, ...next }, this.#keys);
    const transact = (): void =>
      this.#database.transactionSync(() => {
        fill(batch);
        batch.end();
      });
    try {
      asTyped("write documents", this.path, () => (this.#gate === undefined ? transact() : this.#gate.run(transact)));
    } catch (error) {
      this.#failure = ShardloomError.from(error);
      throw error;
    }
    this.#meta = batch.meta;
    this.#keys = batch.keys;
  }

  #load(empty: DocumentsMeta): DocumentsMeta {
    const stored = this.#database.get(META_KEY);
    if (stored === undefined) {
      for (const _ of this.#database.getKeys({ limit: 1 })) throw damaged("environment", "without its meta record");
      if (this.#readOnly) throw damaged("environment", "empty");
      return empty;
    }
    const meta = decodeJson<DocumentsMeta>(META_KEY, stored);
    checkMeta(meta, empty, this.path);
    for (const { key, value } of this.#database.getRange(vshardsRange()))
      this.#vshards.set(key.readUInt16BE(1), decodeJson<VshardRecord>(key, value));
    this.#keys = this.#database.getKeysCount(idempotencyRange());
    return meta;
  }

  *#collections(): Generator<number> {
    for (let from = 0; ; ) {
      const [key] = [...this.#database.getKeys({ ...documentsRange(from), limit: 1 })];
      if (key === undefined) return;
      const { collection } = placeOf(key);
      yield collection;
      if (collection === 0xffffffff) return;
      from = collection + 1;
    }
  }

  #refused(): ShardloomError {
    return new ShardloomError(
      "ERR_CLOSED",
      `Cannot write documents as ${this.path} must be open for it: current value is ${this.#closed ? "closed" : "read only"}`,
    );
  }
}

function isSameGroup(a: DocumentHead, b: DocumentHead): boolean {
  return a.vshard === b.vshard && a.collection === b.collection && a.type === b.type;
}

/** @throws {ShardloomError} `ERR_UNSUPPORTED_FORMAT`, `ERR_DIRECTORY_MISMATCH` */
function checkMeta(meta: DocumentsMeta, wanted: DocumentsMeta, path: string): void {
  if (meta.format > DOCUMENTS_FORMAT)
    throw new ShardloomError(
      "ERR_UNSUPPORTED_FORMAT",
      `Cannot open documents ${path} as their format must be at most ${DOCUMENTS_FORMAT}: current value is ${meta.format}`,
      { details: { path, format: meta.format } },
    );
  for (const name of ["clusterId", "shard"] as const)
    if (meta[name] !== wanted[name])
      throw new ShardloomError(
        "ERR_DIRECTORY_MISMATCH",
        `Cannot open documents ${path} as their ${name} must be ${wanted[name]}: current value is ${meta[name]}`,
        { details: { path, name, value: meta[name] } },
      );
}

const ERRNO: Readonly<Record<number, ErrorCode>> = {
  1: "ERR_READ_ONLY", // EPERM
  2: "ERR_NO_FILE",
  13: "ERR_READ_ONLY", // EACCES
  28: "ERR_DISK_FULL",
  30: "ERR_READ_ONLY", // EROFS
  122: "ERR_DISK_FULL", // EDQUOT
  [-30_797]: "ERR_CORRUPT", // MDB_PAGE_NOTFOUND
  [-30_796]: "ERR_CORRUPT", // MDB_CORRUPTED
  [-30_794]: "ERR_CORRUPT", // MDB_VERSION_MISMATCH
  [-30_793]: "ERR_CORRUPT", // MDB_INVALID
};

function asTyped<T>(operation: string, path: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (ShardloomError.is(error)) throw error;
    const { code, message } = error as { code?: unknown; message?: unknown };
    const known = typeof code === "number" ? ERRNO[code] : undefined;
    throw new ShardloomError(known ?? "ERR_IO", `Cannot ${operation} as ${path} failed: ${String(message)}`, {
      details: { operation, path },
      cause: error,
    });
  }
}
