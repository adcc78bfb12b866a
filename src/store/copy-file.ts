/**
 * Copies files from disk to disk, piece by piece, with size and hash of what was copied; and what comes before that: directories, empty targets.
 *
 * Invariant: a copy is durable, with its name, when the call has resolved. Between two pieces it can be stopped, and then what was made of
 * the file is left for the caller to remove.
 */
import { ShardloomError } from "../errors.ts";
import { createDigest } from "../runtime/digest.ts";
import type { Disk, DiskFile } from "../runtime/disk.ts";
import type { BackupFile } from "./backup-manifest.ts";

/** Bytes that are copied at once. */
const PIECE_BYTES: number = 1024 * 1024;

/** How a copy is followed and stopped. */
export interface CopyWatch {
  /** Called after each piece. */
  readonly onBytes: (bytes: number) => void;
  /** Throws when the copy shall stop. */
  readonly check: () => void;
}

/**
 * Copies the beginning of an open file.
 *
 * @param bytes How much of it.
 * @throws {ShardloomError} `ERR_TRUNCATED` when the file has less, what `watch.check` throws, and as disks do.
 */
export async function copyFile(
  source: Pick<DiskFile, "read">,
  bytes: number,
  target: Disk,
  path: string,
  watch: CopyWatch,
): Promise<BackupFile> {
  await makeDirectories(target, directoryOf(path));
  const digest = createDigest();
  const file = await target.open(path, "write");
  try {
    await file.truncate(0);
    for (let done = 0; done < bytes; ) {
      watch.check();
      const piece = await source.read(done, Math.min(PIECE_BYTES, bytes - done));
      if (piece.length === 0) throw truncated(path, bytes, done);
      await file.write(done, piece);
      digest.add(piece);
      done += piece.length;
      watch.onBytes(piece.length);
    }
    await file.sync();
  } finally {
    await file.close();
  }
  await target.syncDirectory(directoryOf(path));
  return { path, bytes, sha256: digest.end() };
}

/** Reads a file. @throws {ShardloomError} `ERR_CORRUPT` unless it is what a backup says; what `watch.check` throws. */
export async function verifyFile(disk: Disk, { path, bytes, sha256 }: BackupFile, watch: CopyWatch): Promise<void> {
  const file = await disk.open(path, "read");
  try {
    const size = await file.size();
    if (size !== bytes) throw changed(path, `of ${bytes} bytes`, String(size));
    const digest = createDigest();
    for (let done = 0; done < bytes; ) {
      watch.check();
      const piece = await file.read(done, Math.min(PIECE_BYTES, bytes - done));
      if (piece.length === 0) throw truncated(path, bytes, done);
      digest.add(piece);
      done += piece.length;
      watch.onBytes(piece.length);
    }
    const found = digest.end();
    if (found !== sha256) throw changed(path, `of SHA-256 ${sha256}`, found);
  } finally {
    await file.close();
  }
}

/** Makes a directory and those above it, durably. */
export async function makeDirectories(disk: Disk, path: string): Promise<void> {
  if (path === "") return;
  const above = directoryOf(path);
  await makeDirectories(disk, above);
  await disk.makeDirectory(path);
  await disk.syncDirectory(above);
}

/**
 * Throws unless a directory has no files, at any depth, but its lock.
 *
 * @throws {ShardloomError} `ERR_FILE_EXISTS` naming one.
 */
export async function assertEmpty(disk: Disk, action: string): Promise<void> {
  const found = await firstFile(disk, "");
  if (found === undefined) return;
  throw new ShardloomError(
    "ERR_FILE_EXISTS",
    `Cannot ${action} as the target must be empty: current value is a directory with ${found}`,
    {
      details: { path: found },
    },
  );
}

/** Removes all files below a directory; the directories stay. */
export async function removeFiles(disk: Disk, directory: string): Promise<void> {
  for (const name of await disk.list(directory)) {
    const path = `${directory}/${name}`;
    await disk.remove(path).catch(() => removeFiles(disk, path));
  }
}

async function firstFile(disk: Disk, directory: string): Promise<string | undefined> {
  for (const name of await disk.list(directory)) {
    if (directory === "" && (name === "lock" || name.startsWith("lock.") || name === "lost+found")) continue;
    const path = directory === "" ? name : `${directory}/${name}`;
    const isDirectory = await disk.list(path).then(
      () => true,
      () => false,
    );
    const found = isDirectory ? await firstFile(disk, path) : path;
    if (found !== undefined) return found;
  }
  return undefined;
}

function directoryOf(path: string): string {
  return path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
}

function truncated(path: string, bytes: number, value: number): ShardloomError {
  return new ShardloomError(
    "ERR_TRUNCATED",
    `Cannot copy ${path} as it must have ${bytes} bytes: current value is ${value}`,
    {
      details: { path, bytes, value },
    },
  );
}

function changed(path: string, rule: string, value: string): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot use ${path} of the backup as it must be ${rule}: current value is ${value}`,
    {
      details: { path, value },
    },
  );
}
