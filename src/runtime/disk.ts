/**
 * Files as a parameter: what a log and its checkpoints need of a disk, and the real one over `node:fs`.
 *
 * Invariant: paths are relative to the disk's root, with `/`, and nothing outside the root is read or written. Nothing is promised of what was
 * not synced: after a crash each unsynced sector of a file, and each unsynced name in a directory, may be old or new.
 * Every failure is a {@link ShardloomError}: `ERR_NO_FILE`, `ERR_FILE_EXISTS`, `ERR_DISK_FULL`, `ERR_READ_ONLY`, `ERR_IO`, and `ERR_CLOSED` on a
 * closed file; `details` has the operation and path. Both implementations pass `test/conformance/disk.ts`; the other one is
 * src/sim/disk.ts.
 * Source: Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014 (what may be relied on); Rebello et al., "Can Applications
 * Recover from fsync Failures?", ATC 2020.
 */
import { constants } from "node:fs";
import { type FileHandle, lstat, mkdir, open, readdir, realpath, rename, stat, unlink } from "node:fs/promises";
import { dirname, join, resolve, sep } from "node:path";
import { type ErrorCode, invalidArgument, ShardloomError } from "../errors.ts";

/** How a file is opened: to read what is there, to read and write (made when missing), or to make one that must not be there. */
export type OpenMode = "read" | "write" | "create";

/** An open file. Calls may overlap and then run in any order; who needs an order waits. */
export interface DiskFile {
  /** Bytes from an offset on: fewer than `length` at the end of the file, none behind it. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /**
   * Writes all bytes at an offset; a gap up to there reads as zeros. Nobody may change the bytes before it has settled.
   *
   * @throws {ShardloomError} `ERR_DISK_FULL`, `ERR_READ_ONLY`, `ERR_IO`: then any part of the bytes may be in the file.
   */
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /**
   * Makes content and size durable (not the file's name: see {@link Disk.syncDirectory}).
   *
   * @throws {ShardloomError} `ERR_IO`: what was written since the last sync that succeeded may be lost, even when reads still show it and a later
   *   sync succeeds. Only writing it again helps.
   */
  sync(): Promise<void>;
  /**
   * As {@link DiskFile.write} and then {@link DiskFile.sync}, of these bytes alone, in one call of the system; throws as both do.
   *
   * Absent: the disk has nothing better than the two, or was not asked for it when it opened the file.
   */
  writeDurably?(offset: number, bytes: Uint8Array): Promise<void>;
  /** Cuts the file, or extends it with zeros. */
  truncate(size: number): Promise<void>;
  size(): Promise<number>;
  /** Harmless when closed already. Does not sync. */
  close(): Promise<void>;
}

/** The files below one root. */
export interface Disk {
  /** @param durably Whether the file is to have {@link DiskFile.writeDurably}, if it can. @default false */
  open(path: string, mode: OpenMode, durably?: boolean): Promise<DiskFile>;
  /** Names of the files and directories in a directory (`""` is the root), in code unit order. */
  list(directory: string): Promise<readonly string[]>;
  /** Removes a file's name; who has it open goes on using it. */
  remove(path: string): Promise<void>;
  /** Gives a file another name, atomically, in place of a file that had it. Durable when the new name's directory was synced. */
  rename(from: string, to: string): Promise<void>;
  /** Makes a directory in one that exists; nothing when it is there already. */
  makeDirectory(path: string): Promise<void>;
  /** Makes the names in a directory durable: files that were made, renamed or removed there. */
  syncDirectory(directory: string): Promise<void>;
}

/** Names in a directory; none where it is missing. As {@link Disk.list}. */
export async function listIfThere(disk: Pick<Disk, "list">, directory: string): Promise<readonly string[]> {
  try {
    return await disk.list(directory);
  } catch (error) {
    if (ShardloomError.is(error) && error.code === "ERR_NO_FILE") return [];
    throw error;
  }
}

/** Throws unless a path stays below its root by its own text. `""`, the root, is for directories only. */
export function checkDiskPath(operation: string, path: string, kind: "file" | "directory"): void {
  if (kind === "directory" && path === "") return;
  const parts = typeof path === "string" ? path.split("/") : [""];
  if (!parts.some((part) => part === "" || part === "." || part === ".." || /[\0\\]/.test(part))) return;
  throw invalidArgument(operation, "path", "names joined by / below the root, without . and ..", path);
}

/** Throws unless a place in a file is a whole number ≥ 0. */
export function checkDiskRange(operation: string, name: "offset" | "length" | "size", value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) throw invalidArgument(operation, name, "a whole number ≥ 0", value);
}

/** The error of a file that was closed. */
export function closedFile(operation: string, path: string): ShardloomError {
  return new ShardloomError("ERR_CLOSED", `Cannot ${operation} as file ${path} must be open: current value is closed`, {
    details: { operation, path },
  });
}

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: "ERR_NO_FILE",
  EEXIST: "ERR_FILE_EXISTS",
  ENOSPC: "ERR_DISK_FULL",
  EDQUOT: "ERR_DISK_FULL",
  EROFS: "ERR_READ_ONLY",
  EACCES: "ERR_READ_ONLY",
  EPERM: "ERR_READ_ONLY",
};

const REASONS: Readonly<Partial<Record<ErrorCode, string>>> = {
  ERR_NO_FILE: "is not there",
  ERR_FILE_EXISTS: "is there already",
  ERR_DISK_FULL: "has no room on its disk",
  ERR_READ_ONLY: "cannot be accessed for it",
};

/** A failure of a disk. @param errno POSIX name, such as `ENOSPC`; `ERR_IO` for those that have no code of their own */
export function diskError(operation: string, path: string, errno: string, cause?: unknown): ShardloomError {
  const code = CODES[errno] ?? "ERR_IO";
  return new ShardloomError(
    code,
    `Cannot ${operation} as ${path || "the root"} ${REASONS[code] ?? "failed"}: ${errno}`,
    {
      details: { operation, path, errno },
      ...(cause === undefined ? {} : { cause }),
    },
  );
}

/**
 * Opens a directory of this machine as a disk; makes it, durably, when it is missing.
 *
 * A symbolic link is never followed out of the root: a file that is one is refused, and so is a path through one that leaves it.
 *
 * @param root Path of the directory.
 */
export async function createSystemDisk(root: string): Promise<Disk> {
  const real = await attempt("open disk", root, async () => {
    const full = resolve(root);
    const made = await mkdir(full, { recursive: true });
    if (made !== undefined) for (let at = full; at.length >= made.length; at = dirname(at)) await syncAt(dirname(at));
    return realpath(full);
  });
  return new SystemDisk(real);
}

/** Opens a directory of this machine as a disk; `ERR_NO_FILE` when it is missing. As {@link createSystemDisk}. */
export async function openSystemDisk(root: string): Promise<Disk> {
  const real = await attempt("open disk", root, async () => {
    const full = await realpath(root);
    if (!(await stat(full)).isDirectory()) throw diskError("open disk", root, "ENOTDIR");
    return full;
  });
  return new SystemDisk(real);
}

class SystemDisk implements Disk {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  open(path: string, mode: OpenMode, durably = false): Promise<DiskFile> {
    return this.#at("open file", path, "file", async (full) => {
      const handle = await open(full, FLAGS[mode] | constants.O_NOFOLLOW);
      if ((await handle.stat()).isDirectory()) {
        await handle.close();
        throw diskError("open file", path, "EISDIR");
      }
      const durable = durably && mode !== "read" ? await openDurably(full, handle) : undefined;
      return new SystemFile(path, handle, mode !== "read", durable);
    });
  }

  list(directory: string): Promise<readonly string[]> {
    return this.#at("list directory", directory, "directory", async (full) => (await readdir(full)).sort());
  }

  remove(path: string): Promise<void> {
    return this.#at("remove file", path, "file", async (full) => {
      // unlink says EPERM of a directory, which would read as a lack of rights
      if ((await lstat(full)).isDirectory()) throw diskError("remove file", path, "EISDIR");
      await unlink(full);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.#at("rename file", from, "file", (source) =>
      this.#at("rename file", to, "file", async (target) => {
        if ((await lstat(source)).isDirectory()) throw diskError("rename file", from, "EISDIR");
        await rename(source, target);
      }),
    );
  }

  makeDirectory(path: string): Promise<void> {
    return this.#at("make directory", path, "directory", async (full) => {
      try {
        await mkdir(full);
      } catch (error) {
        if (!(await stat(full).catch(() => undefined))?.isDirectory()) throw error;
      }
    });
  }

  syncDirectory(directory: string): Promise<void> {
    return this.#at("sync directory", directory, "directory", syncAt);
  }

  /** Runs an operation on a path's real place. The directory that holds it must lie below the root, whatever links say. */
  #at<T>(operation: string, path: string, kind: "file" | "directory", run: (full: string) => Promise<T>): Promise<T> {
    return attempt(operation, path, async () => {
      checkDiskPath(operation, path, kind);
      if (path === "") return run(this.#root);
      const full = join(this.#root, path);
      const parent = await realpath(dirname(full));
      const place = kind === "directory" ? await realpath(full).catch(() => full) : full;
      for (const found of [parent, place]) {
        if (found !== this.#root && !found.startsWith(this.#root.endsWith(sep) ? this.#root : this.#root + sep)) {
          throw invalidArgument(operation, "path", "below the root, also where it is a symbolic link", path);
        }
      }
      return run(full);
    });
  }
}

const FLAGS: Readonly<Record<OpenMode, number>> = {
  read: constants.O_RDONLY,
  write: constants.O_RDWR | constants.O_CREAT,
  create: constants.O_RDWR | constants.O_CREAT | constants.O_EXCL,
};

class SystemFile implements DiskFile {
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #writable: boolean;
  /** The same file once more, for writes that are synced. */
  readonly #durable: FileHandle | undefined;
  readonly writeDurably?: (offset: number, bytes: Uint8Array) => Promise<void>;
  #closed = false;

  constructor(path: string, handle: FileHandle, writable: boolean, durable: FileHandle | undefined) {
    this.#path = path;
    this.#handle = handle;
    this.#writable = writable;
    this.#durable = durable;
    if (durable !== undefined)
      this.writeDurably = (offset, bytes) => this.#change("write file", () => writeAll(durable, offset, bytes));
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    return this.#run("read file", async (handle) => {
      checkDiskRange("read file", "offset", offset);
      checkDiskRange("read file", "length", length);
      const bytes = new Uint8Array(length);
      let filled = 0;
      while (filled < length) {
        const { bytesRead } = await handle.read(bytes, filled, length - filled, offset + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
      return bytes.subarray(0, filled);
    });
  }

  write(offset: number, bytes: Uint8Array): Promise<void> {
    return this.#change("write file", (handle) => writeAll(handle, offset, bytes));
  }

  sync(): Promise<void> {
    // fdatasync also flushes the size, which is all of the metadata that is needed to read the data back.
    return this.#run("sync file", (handle) => handle.datasync());
  }

  truncate(size: number): Promise<void> {
    return this.#change("truncate file", (handle) => {
      checkDiskRange("truncate file", "size", size);
      return handle.truncate(size);
    });
  }

  size(): Promise<number> {
    return this.#run("read size of file", async (handle) => (await handle.stat()).size);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await attempt("close file", this.#path, async () => {
      await this.#durable?.close();
      await this.#handle.close();
    });
  }

  #change<T>(operation: string, run: (handle: FileHandle) => Promise<T>): Promise<T> {
    return this.#run(operation, (handle) => {
      if (!this.#writable) throw diskError(operation, this.#path, "EACCES");
      return run(handle);
    });
  }

  #run<T>(operation: string, run: (handle: FileHandle) => Promise<T>): Promise<T> {
    return attempt(operation, this.#path, async () => {
      if (this.#closed) throw closedFile(operation, this.#path);
      return run(this.#handle);
    });
  }
}

/**
 * Opens a file a second time so that each write is synced: one hop to the thread pool instead of two.
 *
 * @returns undefined where there is no such thing, or the file has another name by now
 */
async function openDurably(full: string, handle: FileHandle): Promise<FileHandle | undefined> {
  const { O_DSYNC } = constants as { readonly O_DSYNC?: number };
  if (O_DSYNC === undefined) return undefined;
  const durable = await open(full, constants.O_RDWR | O_DSYNC | constants.O_NOFOLLOW).catch(() => undefined);
  if (durable === undefined) return undefined;
  const [own, found] = await Promise.all([handle.stat({ bigint: true }), durable.stat({ bigint: true })]);
  if (own.ino === found.ino && own.dev === found.dev) return durable;
  await durable.close();
  return undefined;
}

async function writeAll(handle: FileHandle, offset: number, bytes: Uint8Array): Promise<void> {
  checkDiskRange("write file", "offset", offset);
  // The platform may write less than it is asked to: before the disk is full, and above 2 GiB.
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}

async function syncAt(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function attempt<T>(operation: string, path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (ShardloomError.is(error)) throw error;
    const { code } = error as { code?: unknown };
    throw diskError(operation, path, typeof code === "string" ? code : "EIO", error);
  }
}
