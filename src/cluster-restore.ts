/**
 * Restoring a backup into an empty directory, and seeing that a cluster on it has what the backup says.
 *
 * Invariant: the file that makes the target a node's directory is written last, and goes when what a cluster finds there is not what the backup says:
 * one that was restored by half, or wrongly, is refused by every start. What
 * was copied is what the manifest says, by size and hash; what a cluster then holds is too, by the content hash of every vshard of which
 * the manifest has one.
 */
import type { Cluster } from "./cluster.ts";
import type { AuditReport } from "./cluster-audit.ts";
import {
  type BackupOptions,
  type BackupReport,
  openEmpty,
  removeCopied,
  reportOf,
  throwIfAborted,
} from "./cluster-backup.ts";
import type { ClusterOptions } from "./cluster-options.ts";
import { ShardloomError } from "./errors.ts";
import type { Platform } from "./plane/platform.ts";
import type { Disk } from "./runtime/disk.ts";
import {
  type BackupFile,
  type BackupManifest,
  backupFiles,
  readManifest,
  type VshardContent,
} from "./store/backup-manifest.ts";
import { writeCollections } from "./store/collection-store.ts";
import { copyFile, verifyFile } from "./store/copy-file.ts";
import { DIRECTORY_FILE, writeDataDirectory } from "./store/data-directory.ts";
import { MAP_FILE } from "./topology/kept-lease-store.ts";

/** How a backup is restored. */
export interface RestoreOptions extends BackupOptions {
  /**
   * Starts a cluster on what was restored, compares what it holds with what the backup says, and ends it. A node of several cannot be started
   * alone: there only the files are verified. @default true
   */
  readonly verify?: boolean;
  /** Options of that cluster, besides what the backup says: its actors, its memory. */
  readonly cluster?: Omit<ClusterOptions, "directory" | "nats" | "workers" | "vshards" | "replicationFactor">;
}

/** What was restored. */
export interface RestoreReport extends BackupReport {
  /** Vshards whose content was compared with the backup's, by hash; 0 when no cluster was started or the backup has no hashes. */
  readonly verifiedVshards: number;
}

/**
 * Restores a backup.
 *
 * @param start Starts a cluster with options.
 * @throws {ShardloomError} `ERR_NO_FILE` without a finished backup, `ERR_FILE_EXISTS` when the target is not empty, `ERR_CORRUPT` naming the file or
 *   vshard that is not what the backup says, `ERR_ABORTED`, and as disks do.
 */
export async function restoreBackup(
  platform: Platform,
  from: string,
  into: string,
  options: RestoreOptions,
  start: (options: ClusterOptions) => Promise<Cluster>,
): Promise<RestoreReport> {
  const { clock } = platform.runtime;
  const startMs = clock.nowMs();
  const source = await platform.openDirectory(from, { shared: true });
  try {
    const manifest = await readManifest(source.disk);
    const opened = await openEmpty(platform, into, "restore backup");
    try {
      await restoreFiles(source.disk, opened.disk, manifest, options);
    } catch (error) {
      await removeCopied(opened.disk); // it is no node's directory without its file
      throw error;
    } finally {
      await opened.close();
    }
    const verifiedVshards = await verifyRestored(manifest, into, options, start).catch(async (error: unknown) => {
      if (ShardloomError.is(error) && error.code === "ERR_CORRUPT") await disown(platform, into).catch(() => undefined); // the first error says more
      throw error;
    });
    return { ...reportOf(manifest, clock.nowMs() - startMs), verifiedVshards };
  } finally {
    await source.close();
  }
}

/** Makes of a directory none of a node: nobody is to start on it. */
async function disown(platform: Platform, path: string): Promise<void> {
  const opened = await platform.openDirectory(path, { existing: true });
  try {
    await opened.disk.remove(DIRECTORY_FILE);
    await opened.disk.syncDirectory("");
  } finally {
    await opened.close();
  }
}

/** Reads every file of a backup. @throws {ShardloomError} `ERR_CORRUPT` naming the first that is not what the manifest says */
export async function verifyBackup(disk: Disk, options: BackupOptions = {}): Promise<BackupManifest> {
  const manifest = await readManifest(disk);
  const watch = watchOf(manifest, "verifying", options);
  for (const file of filesOf(manifest)) await verifyFile(disk, file, watch);
  return manifest;
}

async function restoreFiles(
  source: Disk,
  target: Disk,
  manifest: BackupManifest,
  options: BackupOptions,
): Promise<void> {
  const watch = watchOf(manifest, "copying", options);
  for (const expected of filesOf(manifest)) {
    const file = await source.open(expected.path, "read");
    try {
      const size = await file.size();
      if (size !== expected.bytes) throw changed(expected, `${expected.bytes} bytes`, size);
      const { sha256 } = await copyFile(file, expected.bytes, target, expected.path, watch);
      if (sha256 !== expected.sha256) throw changed(expected, `SHA-256 ${expected.sha256}`, sha256);
    } finally {
      await file.close();
    }
  }
  throwIfAborted(options.signal);
  await writeCollections(target, manifest.collections);
  await writeDataDirectory(target, manifest.directory);
}

/** Files of a backup, which lie where those of shards do, and the map. */
function filesOf(manifest: BackupManifest): BackupFile[] {
  const files = backupFiles(manifest);
  const stray = files.find((file) =>
    file === manifest.map ? file.path !== MAP_FILE : !file.path.startsWith("shards/"),
  );
  if (stray !== undefined) throw changed(stray, `path below shards/, or ${MAP_FILE} of the map`, stray.path);
  return files;
}

function watchOf(
  manifest: BackupManifest,
  phase: "copying" | "verifying",
  options: BackupOptions,
): Parameters<typeof copyFile>[4] {
  const { bytes: totalBytes } = reportOf(manifest, 0);
  let bytes = 0;
  return {
    onBytes: (more) => {
      bytes += more;
      options.onProgress?.({ phase, bytes, totalBytes });
    },
    check: () => throwIfAborted(options.signal),
  };
}

/** Compares what a cluster on the restored directory holds with what the backup says. @returns how many vshards were compared */
async function verifyRestored(
  manifest: BackupManifest,
  into: string,
  { verify = true, cluster: given, signal }: RestoreOptions,
  start: (options: ClusterOptions) => Promise<Cluster>,
): Promise<number> {
  const { ownShards, shards, vshards, replicationFactor } = manifest.directory;
  if (!verify || ownShards.length !== shards) return 0;
  throwIfAborted(signal);
  const shape = { directory: into, workers: shards, vshards, replicationFactor };
  const cluster = await start({ ...given, ...shape });
  try {
    const expected = expectedContents(manifest);
    if (expected.size === 0) return 0;
    return compareContents(expected, await cluster.audit(signal === undefined ? {} : { signal }));
  } finally {
    await cluster.close();
  }
}

/** What each vshard must hold: what the copy that was ahead held, which the others have caught up with. */
export function expectedContents({ parts }: BackupManifest): ReadonlyMap<number, VshardContent> {
  const expected = new Map<number, VshardContent>();
  for (const content of parts.flatMap((part) => part.vshards)) {
    const known = expected.get(content.vshard);
    if (known === undefined || content.lsn > known.lsn) expected.set(content.vshard, content);
  }
  return expected;
}

/** @throws {ShardloomError} `ERR_CORRUPT` naming the first vshard that holds something else */
export function compareContents(
  expected: ReadonlyMap<number, VshardContent>,
  { vshards }: Pick<AuditReport, "vshards">,
): number {
  for (const { vshard, hash, lsn } of expected.values()) {
    const copies = vshards.find((audited) => audited.vshard === vshard)?.copies ?? [];
    const wrong = copies.find((copy) => copy.hash !== hash);
    if (copies.length > 0 && wrong === undefined) continue;
    throw new ShardloomError(
      "ERR_CORRUPT",
      `Cannot restore backup as vshard ${vshard} must hold what has the hash ${hash}: current value is ${wrong?.hash ?? "nothing"} on shard ${wrong?.shard ?? "none"}`,
      { details: { vshard, lsn, expected: hash, value: wrong?.hash ?? "", shard: wrong?.shard ?? -1 } },
    );
  }
  return expected.size;
}

function changed({ path }: BackupFile, rule: string, value: unknown): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot restore ${path} as it must be what was backed up, with ${rule}: current value is ${String(value)}`,
    { details: { path, value } },
  );
}
