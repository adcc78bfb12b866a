/**
 * A disk whose files are objects of NATS: snapshots and parts are written and read there as on any other disk.
 *
 * Names are a table in KV, under one key; files are blocks in the object store (see object-names.ts). What was synced, and every change of names
 * that has returned, is in a table that the server has acknowledged; what was written and is neither synced nor closed is lost with
 * the process.
 *
 * Invariant: a table is only put in place of the one that its writer has put before, so that whoever opens the disk ends all that have it open:
 * these can read on, and change nothing. Blocks go when no kept table has them; what a writer that died has left, when the disk is opened next.
 * A file of which the server has lost a block is read as damaged, `ERR_CORRUPT`.
 * Divergence: names are durable at once, and a file when it is closed; more than a disk has to promise.
 */
import { ShardloomError } from "../errors.ts";
import {
  checkDiskPath,
  checkDiskRange,
  closedFile,
  type Disk,
  type DiskFile,
  diskError,
  type OpenMode,
} from "../runtime/disk.ts";
import type { NatsConnection } from "../runtime/nats.ts";
import { type NatsBucket, openNatsBucket } from "../runtime/nats-bucket.ts";
import { type NatsObjects, openNatsObjects } from "../runtime/nats-objects.ts";
import type { Random } from "../runtime/random.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import { formatCheckedJson, parseCheckedJson } from "./checked-json.ts";
import { type Blocks, ObjectFile } from "./object-file.ts";
import { blocksOf, checkStoredNames, ObjectNames, type StoredFile, type StoredNames } from "./object-names.ts";

export interface NatsDiskOptions {
  /** Of this disk alone: letters, digits, `-` and `_`. The table's bucket is called so, with `-names` behind. */
  readonly store: string;
  readonly scheduler: Scheduler;
  /** For the writer's identity: real chance. */
  readonly random: Pick<Random, "u32">;
  /** Servers that keep it: 1, 3 or 5. Only counts when it is made. @default 1 */
  readonly replicas?: number;
  /** For one call to the server, in ms. @default 10000 */
  readonly timeoutMs?: number;
}

const KEY = "names";
const FORMAT = 1;
const TIMEOUT_MS = 10_000;
/** How often opening begins anew as another one was there first, and putting a table as an earlier one came late. */
const MAX_TRIES = 16;
/** Versions of a block that one life may give out: no two lives give a block the same name, also when one of them was frozen long ago. */
const VERSIONS_PER_REVISION: number = 2 ** 20;

/** A table, and who has put it. */
interface Table extends StoredNames {
  readonly writer: string;
}

/** What a disk is made of. */
interface Kept {
  readonly bucket: NatsBucket;
  readonly objects: NatsObjects;
  readonly timeoutMs: number;
  readonly writer: string;
}

/**
 * Opens a disk, makes it when it is missing, and ends whoever has it open.
 *
 * @param connection Outlives the disk.
 * @throws {ShardloomError} `ERR_CORRUPT`, `ERR_UNSUPPORTED_FORMAT`; `ERR_TIMEOUT`, `ERR_IO` and others of {@link NatsConnection.call}: opening may be tried again.
 */
export async function openNatsDisk(connection: NatsConnection, options: NatsDiskOptions): Promise<Disk> {
  const { store, scheduler, random, timeoutMs = TIMEOUT_MS, replicas = 1 } = options;
  const bucket = await openNatsBucket(connection, { bucket: `${store}-names`, replicas }, scheduler, timeoutMs);
  const objects = await openNatsObjects(connection, { store, replicas }, timeoutMs);
  const writer = `${random.u32().toString(36)}-${random.u32().toString(36)}`;
  const kept: Kept = { bucket, objects, timeoutMs, writer };
  for (let time = 0; time < MAX_TRIES; time++) {
    // What a later opener puts is not in it, so that it cannot be swept away by this one.
    const survey = await objects.survey(timeoutMs);
    const found = await bucket.get(KEY, timeoutMs);
    const names = found?.value === undefined ? { directories: [], files: {} } : decodeTable(found.value, store);
    try {
      const revision = await bucket.put(KEY, encodeTable({ ...names, writer }), found?.revision ?? 0, timeoutMs);
      const blocks = new Set(Object.values(names.files).flatMap(blocksOf));
      await survey.sweep(blocks, timeoutMs);
      return new NatsDisk(kept, names, revision);
    } catch (error) {
      if (!ShardloomError.is(error) || error.code !== "ERR_STALE_EPOCH") throw error;
    }
  }
  throw new ShardloomError("ERR_STALE_EPOCH", `Cannot open disk as ${store} must have one writer: others open it`);
}

class NatsDisk implements Disk {
  readonly #kept: Kept;
  readonly #names: ObjectNames<ObjectFile>;
  readonly #blocks: Blocks;
  /** Revision of the table that is kept. */
  #revision: number;
  #files = 0;
  /** Whether the table that is kept is not the one of now. */
  #isChanged = false;
  /** Blocks that no table will have after the next one. */
  #forgotten: string[] = [];
  /** Blocks that the table that is kept does not have. */
  #garbage: string[] = [];
  #turn: Promise<unknown> = Promise.resolve();
  /** Why nothing will ever be changed again. */
  #ended: ShardloomError | undefined;

  constructor(kept: Kept, names: StoredNames, revision: number) {
    this.#kept = kept;
    this.#revision = revision;
    const { objects, timeoutMs } = kept;
    this.#blocks = {
      put: (name, bytes) => objects.put(name, bytes, timeoutMs),
      get: async (name) => {
        const found = await objects.get(name, timeoutMs);
        if (found === undefined) throw new ShardloomError("ERR_CORRUPT", `block ${name} is gone`);
        return found;
      },
      forget: (name) => this.#forgotten.push(name),
      changed: () => {
        this.#isChanged = true;
      },
    };
    const least = revision * VERSIONS_PER_REVISION;
    const files = Object.entries(names.files).map(([path, file]) => [path, this.#fileOf(file, least)] as const);
    this.#names = new ObjectNames(names.directories, files);
  }

  open(path: string, mode: OpenMode): Promise<DiskFile> {
    return this.#change("open file", path, "file", async () => {
      const found = this.#names.find("open file", path);
      if (found === undefined && mode === "read") throw diskError("open file", path, "ENOENT");
      if (found !== undefined && mode === "create") throw diskError("open file", path, "EEXIST");
      if (found !== undefined) return this.#handle(path, found, mode !== "read");
      const made = this.#fileOf({ id: `${this.#kept.writer}-${++this.#files}`, size: 0, blocks: [] });
      this.#names.add(path, made);
      await this.#keepOr(() => this.#names.remove(path));
      return this.#handle(path, made, true);
    });
  }

  list(directory: string): Promise<readonly string[]> {
    return this.#change("list directory", directory, "directory", () => Promise.resolve(this.#names.list(directory)));
  }

  remove(path: string): Promise<void> {
    return this.#change("remove file", path, "file", async () => {
      const file = this.#names.remove(path);
      await this.#keepOr(() => this.#names.add(path, file));
      await this.#unnamed(file);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.#change("rename file", from, "file", async () => {
      checkDiskPath("rename file", to, "file");
      const replaced = this.#names.rename(from, to);
      if (from === to) return;
      await this.#keepOr(() => {
        this.#names.rename(to, from);
        if (replaced !== undefined) this.#names.add(to, replaced);
      });
      if (replaced !== undefined) await this.#unnamed(replaced);
    });
  }

  makeDirectory(path: string): Promise<void> {
    return this.#change("make directory", path, "directory", async () => {
      if (this.#names.makeDirectory(path)) await this.#keepOr(() => this.#names.unmakeDirectory(path));
    });
  }

  syncDirectory(directory: string): Promise<void> {
    return this.#change("sync directory", directory, "directory", async () => {
      this.#names.checkDirectory("sync directory", directory);
      await this.#keep();
    });
  }

  #fileOf(stored: StoredFile, leastVersion = 0): ObjectFile {
    return new ObjectFile(this.#blocks, stored, leastVersion);
  }

  #handle(path: string, file: ObjectFile, isWritable: boolean): DiskFile {
    file.users++;
    let isClosed = false;
    const run = <T>(operation: string, work: () => Promise<T>): Promise<T> =>
      attempt(operation, path, () => {
        if (isClosed) throw closedFile(operation, path);
        return file.inTurn(work);
      });
    const change = (operation: string, work: () => Promise<void>): Promise<void> =>
      run(operation, () => {
        if (!isWritable) throw diskError(operation, path, "EACCES");
        return work();
      });
    const sync = async (operation: string): Promise<void> => {
      await attempt(operation, path, () => file.inTurn(() => file.upload()));
      await this.#change(operation, path, "file", () => this.#keep());
    };
    return {
      read: (offset, length) =>
        run("read file", () => {
          checkDiskRange("read file", "offset", offset);
          checkDiskRange("read file", "length", length);
          return file.read(offset, length);
        }),
      write: (offset, bytes) =>
        change("write file", () => {
          checkDiskRange("write file", "offset", offset);
          return file.write(offset, bytes);
        }),
      sync: () => run("sync file", () => Promise.resolve()).then(() => sync("sync file")),
      truncate: (size) =>
        change("truncate file", () => {
          checkDiskRange("truncate file", "size", size);
          return file.truncate(size);
        }),
      size: () => run("read size of file", () => Promise.resolve(file.size)),
      close: async () => {
        if (isClosed) return;
        isClosed = true;
        try {
          if (isWritable && file.isNamed) await sync("close file");
        } finally {
          if (--file.users === 0) file.rest();
          if (!file.isNamed) await this.#unnamed(file);
        }
      },
    };
  }

  /** Runs an operation on names or the table when those before it have ended. */
  #change<T>(operation: string, path: string, kind: "file" | "directory", run: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(() =>
      attempt(operation, path, () => {
        checkDiskPath(operation, path, kind);
        return run();
      }),
    );
    this.#turn = done.catch(() => undefined); // whoever asked has the error
    return done;
  }

  /** Keeps the table, or undoes a change of names. */
  async #keepOr(undo: () => unknown): Promise<void> {
    this.#isChanged = true;
    try {
      await this.#keep();
    } catch (error) {
      undo();
      throw error;
    }
  }

  /** Keeps the table of now, if it is another one than is kept. */
  async #keep(): Promise<void> {
    if (!this.#isChanged) return;
    const { writer } = this.#kept;
    const files = Object.fromEntries([...this.#names.files].map(([path, file]) => [path, file.stored]));
    const bytes = encodeTable({ writer, directories: this.#names.directories, files });
    const forgotten = this.#forgotten;
    this.#forgotten = [];
    this.#isChanged = false;
    try {
      await this.#put(bytes);
    } catch (error) {
      this.#forgotten.push(...forgotten);
      this.#isChanged = true;
      throw error;
    }
    this.#garbage.push(...forgotten);
    await this.#clean();
  }

  async #put(bytes: Uint8Array): Promise<void> {
    const { bucket, timeoutMs, writer } = this.#kept;
    if (this.#ended !== undefined) throw this.#ended;
    for (let time = 0; time < MAX_TRIES; time++) {
      try {
        this.#revision = await bucket.put(KEY, bytes, this.#revision, timeoutMs);
        return;
      } catch (error) {
        if (!ShardloomError.is(error) || error.code !== "ERR_STALE_EPOCH") throw error;
        // One of our own that was in doubt has come: this one is newer.
        const found = await bucket.get(KEY, timeoutMs);
        if (found?.value === undefined || decodeTable(found.value, KEY).writer !== writer) {
          this.#ended = diskError("change disk", "", "EROFS", error);
          throw this.#ended;
        }
        this.#revision = found.revision;
      }
    }
    throw diskError("change disk", "", "EIO");
  }

  /** A file without a name goes with its last user. */
  async #unnamed(file: ObjectFile): Promise<void> {
    file.isNamed = false;
    if (file.users > 0) return;
    this.#garbage.push(...blocksOf(file.stored));
    await this.#clean();
  }

  /** Removes blocks that nobody needs; those that cannot be removed stay for later. */
  async #clean(): Promise<void> {
    const { objects, timeoutMs } = this.#kept;
    for (const name of this.#garbage.splice(0))
      await objects.remove(name, timeoutMs).catch(() => void this.#garbage.push(name));
  }
}

/** Runs an operation whose failures are those of a disk. */
async function attempt<T>(operation: string, path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    const failure = ShardloomError.from(error, "ERR_IO");
    if (failure.details["operation"] !== undefined || failure.code === "ERR_INVALID_ARGUMENT") throw failure;
    if (failure.code === "ERR_CORRUPT") throw damaged(operation, path, failure);
    const isFull = failure.code === "ERR_DISK_FULL" || failure.code === "ERR_RECORD_TOO_LARGE";
    throw diskError(operation, path, isFull ? "ENOSPC" : "EIO", failure);
  }
}

/** The server answers, and no longer has what it had: no later try finds it. */
function damaged(operation: string, path: string, cause: ShardloomError): ShardloomError {
  return new ShardloomError("ERR_CORRUPT", `Cannot ${operation} as ${path} must be as it was kept: ${cause.message}`, {
    details: { operation, path },
    cause,
  });
}

function encodeTable(table: Table): Uint8Array {
  return new TextEncoder().encode(formatCheckedJson(FORMAT, table));
}

function decodeTable(bytes: Uint8Array, store: string): Table {
  const where = `table of ${store}`;
  const content = parseCheckedJson(new TextDecoder().decode(bytes), where, FORMAT);
  const { writer } = content as Partial<Table>;
  return { ...checkStoredNames(content, where), writer: String(writer) };
}
