/**
 * Backups of a node's directory: of a cluster that serves, by its workers, and of a directory that nobody has open.
 *
 * Invariant: a target has a manifest only when everything else of the backup is there, durable. A backup that fails or is stopped leaves no
 * manifest, and removes what it has copied as far as that can be. The target must be empty, and is locked meanwhile.
 */
import { resolve } from "node:path";
import { abortError } from "../actors/call-options.ts";
import { invalidArgument, ShardloomError } from "./errors.ts";
import type { ControlPlane } from "./plane/control-plane.ts";
import type { OpenDirectory, Platform } from "./plane/platform.ts";
import type { Disk } from "./runtime/disk.ts";
import { type BackupManifest, type BackupPart, backupFiles, writeManifest } from "./store/backup-manifest.ts";
import { backupShard } from "./store/backup-shard.ts";
import { type CollectionStore, readCollections } from "./store/collection-store.ts";
import { assertEmpty, type CopyWatch, copyFile, removeFiles } from "./store/copy-file.ts";
import { type DirectoryRecord, existingDirectory } from "./store/data-directory.ts";
import { MAP_FILE, readKeptMap } from "./topology/kept-lease-store.ts";

/** How a backup is followed and stopped. */
export interface BackupOptions {
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: BackupProgress) => void;
}

/** How far a backup, or its restoration, is. */
export interface BackupProgress {
  readonly phase: "copying" | "verifying";
  readonly bytes: number;
  /** As far as it is known. */
  readonly totalBytes: number;
}

/** What was backed up or restored. */
export interface BackupReport {
  readonly shards: number;
  readonly files: number;
  readonly bytes: number;
  /** Copies of vshards whose content is in the manifest, as a hash. */
  readonly hashedVshards: number;
  readonly elapsedMs: number;
}

/** How often progress is told, in ms. */
const PROGRESS_MS = 100;

/** What a cluster that serves is backed up from. */
export interface SnapshotParts {
  readonly platform: Platform;
  readonly control: Pick<ControlPlane, "ask">;
  /** The cluster's directory; undefined: it has none. */
  readonly storage:
    | {
        readonly record: DirectoryRecord;
        readonly collections: CollectionStore;
        /** Undefined: it is kept elsewhere. */
        readonly directory: Pick<OpenDirectory, "disk"> | undefined;
      }
    | undefined;
}

/**
 * Backs up a cluster that serves: each worker copies its own files.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when it has no directory, `ERR_FILE_EXISTS` when the target is not empty, `ERR_DIRECTORY_IN_USE`,
 *   `ERR_ABORTED`, `ERR_WORKER_LOST`, and as disks do.
 */
export async function snapshotCluster(
  { platform, control, storage }: SnapshotParts,
  path: string,
  options: BackupOptions = {},
): Promise<BackupReport> {
  const target = checkedTarget("snapshot cluster", path);
  if (storage?.directory === undefined)
    throw invalidArgument("snapshot cluster", "directory", "given when the cluster is started", undefined);
  const { record, collections, directory } = storage;
  return intoTarget(platform, target, "snapshot cluster", options, async (disk) => {
    const shared: Float64Array[] = [];
    const stop = (): void => {
      for (const progress of shared) progress[STOP] = 1;
    };
    const ended = follow(platform, shared, options);
    options.signal?.addEventListener("abort", stop);
    try {
      const copying = control.ask((worker) => {
        const progress = new SharedArrayBuffer(PROGRESS_WORDS * Float64Array.BYTES_PER_ELEMENT);
        shared.push(new Float64Array(progress));
        return worker.backup(target, progress).catch((error: unknown) => {
          stop(); // the others copy for nothing
          throw error;
        });
      });
      if (options.signal?.aborted === true) stop(); // while the target was opened
      // Nothing may be written to the target by anybody when this has ended.
      const outcomes = await Promise.allSettled(copying);
      throwIfAborted(options.signal);
      const failures = outcomes.flatMap((outcome) =>
        outcome.status === "rejected" ? [outcome.reason as unknown] : [],
      );
      if (failures.length > 0) throw failures.find((error) => !wasStopped(error)) ?? failures[0];
      const parts = await Promise.all(copying);
      // After the shards: a collection that their logs know of is on the list, or was dropped; a term that they know of is in the map.
      const watch = { onBytes: () => undefined, check: () => throwIfAborted(options.signal) };
      const map = await copyMap(directory.disk, disk, watch);
      return await finish(disk, { directory: record, collections: collections.kept, parts, ...map });
    } finally {
      options.signal?.removeEventListener("abort", stop);
      ended();
    }
  });
}

function wasStopped(error: unknown): boolean {
  return ShardloomError.is(error) && error.code === "ERR_ABORTED";
}

/** Shape of what a worker shares of its backup: bytes copied, bytes in all, whether to stop. */
const PROGRESS_WORDS = 3;
const STOP = 2;

/** Tells the progress of all workers, again and again. @returns ends that */
function follow(platform: Platform, shared: readonly Float64Array[], { onProgress }: BackupOptions): () => void {
  if (onProgress === undefined) return () => undefined;
  const tell = (): void => {
    const sum = (word: number): number => shared.reduce((total, progress) => total + (progress[word] ?? 0), 0);
    onProgress({ phase: "copying", bytes: sum(0), totalBytes: sum(1) });
  };
  const { scheduler } = platform.runtime;
  const again = (): void => {
    tell();
    timer = scheduler.timer(PROGRESS_MS, again);
  };
  let timer = scheduler.timer(PROGRESS_MS, again);
  return () => {
    timer.cancel();
    tell();
  };
}

/**
 * Backs up a directory that no cluster has open.
 *
 * @throws {ShardloomError} `ERR_DIRECTORY_IN_USE`, `ERR_NO_FILE`, `ERR_FILE_EXISTS` when the target is not empty, `ERR_CORRUPT` when a log is damaged,
 *   `ERR_ABORTED`, and as disks do.
 */
export async function backupDirectory(
  platform: Platform,
  path: string,
  target: string,
  options: BackupOptions = {},
): Promise<BackupReport> {
  const checked = checkedTarget("back up directory", target);
  const source = await platform.openDirectory(path, {
    existing: true,
    check: async (disk) => void (await existingDirectory(disk)),
  });
  try {
    const directory = await existingDirectory(source.disk);
    const collections = await readCollections(source.disk);
    return await intoTarget(platform, checked, "back up directory", options, async (disk) => {
      const parts: BackupPart[] = [];
      let bytes = 0;
      let totalBytes = 0;
      const tell = (): void => options.onProgress?.({ phase: "copying", bytes, totalBytes });
      const watch: CopyWatch = {
        onBytes: (more) => {
          bytes += more;
          tell();
        },
        check: () => throwIfAborted(options.signal),
      };
      const onTotal = (more: number): void => {
        totalBytes += more;
      };
      for (const shard of directory.ownShards)
        parts.push(await backupShard({ shard, source: source.disk, target: disk, watch, onTotal }));
      const map = await copyMap(source.disk, disk, watch, onTotal);
      throwIfAborted(options.signal);
      return await finish(disk, { directory, collections, parts, ...map });
    });
  } finally {
    await source.close();
  }
}

/** Copies the map of a directory, where it has one. @throws {ShardloomError} `ERR_CORRUPT` when what was copied is none; and as disks do */
async function copyMap(
  source: Disk,
  target: Disk,
  watch: CopyWatch,
  onTotal?: (bytes: number) => void,
): Promise<Pick<BackupManifest, "map">> {
  if (!(await source.list("")).includes(MAP_FILE)) return {};
  const file = await source.open(MAP_FILE, "read"); // whatever takes its name meanwhile
  try {
    const bytes = await file.size();
    onTotal?.(bytes);
    const map = await copyFile(file, bytes, target, MAP_FILE, watch);
    await readKeptMap(target);
    return { map };
  } finally {
    await file.close();
  }
}

/** Makes a backup of what was copied. */
async function finish(disk: Disk, manifest: BackupManifest): Promise<BackupManifest> {
  await writeManifest(disk, manifest);
  return manifest;
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw abortError(signal);
}

/** Opens an empty target, fills it, and gives it free; what fails is taken back. */
async function intoTarget(
  platform: Platform,
  target: string,
  action: string,
  { signal }: BackupOptions,
  fill: (disk: Disk) => Promise<BackupManifest>,
): Promise<BackupReport> {
  const { clock } = platform.runtime;
  const startMs = clock.nowMs();
  throwIfAborted(signal);
  const opened = await openEmpty(platform, target, action);
  try {
    const manifest = await fill(opened.disk);
    return reportOf(manifest, clock.nowMs() - startMs);
  } catch (error) {
    await removeCopied(opened.disk); // without a manifest it is no backup
    throw error;
  } finally {
    await opened.close();
  }
}

/** Opens an empty directory, made when it is missing, and locks it. @throws {ShardloomError} `ERR_FILE_EXISTS` */
export async function openEmpty(platform: Platform, path: string, action: string): Promise<OpenDirectory> {
  const opened = await platform.openDirectory(path, { check: (disk) => assertEmpty(disk, action) });
  try {
    await assertEmpty(opened.disk, action); // now that nobody else can fill it
    return opened;
  } catch (error) {
    await opened.close();
    throw error;
  }
}

/** Removes what was copied of a backup, as far as that can be. */
export async function removeCopied(disk: Disk): Promise<void> {
  await disk.remove(MAP_FILE).catch(() => undefined); // it may not have been copied
  await removeFiles(disk, "shards").catch(() => undefined); // what stays makes the next use of the directory fail
}

/** What a backup holds. */
export function reportOf(manifest: BackupManifest, elapsedMs: number): BackupReport {
  const { parts } = manifest;
  const files = backupFiles(manifest);
  return {
    shards: parts.length,
    files: files.length,
    bytes: files.reduce((sum, { bytes }) => sum + bytes, 0),
    hashedVshards: parts.reduce((sum, { vshards }) => sum + vshards.length, 0),
    elapsedMs,
  };
}

/** The path as every thread understands it. */
function checkedTarget(action: string, target: unknown): string {
  if (typeof target === "string" && target !== "") return resolve(target);
  throw invalidArgument(action, "target", "the path of a directory", target);
}
