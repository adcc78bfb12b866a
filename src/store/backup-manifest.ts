/**
 * `backup.json`: what is in a backup of a node's directory, and what it must hold when it is restored.
 *
 * Invariant: the manifest is written last, after everything that it names is durable, so a backup that was not finished has none and is no
 * backup. Every file of a backup is in it with size and hash.
 */
import { ShardloomError } from "../errors.ts";
import type { Disk } from "../runtime/disk.ts";
import { readCheckedJson, writeCheckedJson } from "./checked-json.ts";
import { checkedCollections, type KeptCollections } from "./collection-store.ts";
import { checkedRecord, type DirectoryRecord } from "./data-directory.ts";

/** Name of the file. */
export const MANIFEST_FILE = "backup.json";
const FORMAT = 1;

/** What one copy of a vshard holds, at one moment. */
export interface VshardContent {
  readonly vshard: number;
  /** The last one that is in it. */
  readonly lsn: number;
  /** Of all that it holds, see `ReplicatedEngine.contentHash`; 16 hexadecimal digits. */
  readonly hash: string;
  readonly role: "primary" | "replica";
}

/** A file of a backup. */
export interface BackupFile {
  /** Below the backup's directory, and below that of the node. */
  readonly path: string;
  readonly bytes: number;
  /** Hexadecimal. */
  readonly sha256: string;
}

/** What one shard has put into a backup. */
export interface BackupPart {
  readonly shard: number;
  /** The last position of its log that is in the backup. */
  readonly position: number;
  readonly files: readonly BackupFile[];
  /** What its vshards held at that position; empty when that is not known. */
  readonly vshards: readonly VshardContent[];
}

/** What a backup is. */
export interface BackupManifest {
  /** The directory that it is of. */
  readonly directory: DirectoryRecord;
  readonly collections: KeptCollections;
  readonly parts: readonly BackupPart[];
  /** The directory's map, see kept-lease-store.ts; absent where it has none, or the backup is of before maps were in it. */
  readonly map?: BackupFile;
}

/** All files of a backup. */
export function backupFiles({ parts, map }: Pick<BackupManifest, "parts" | "map">): BackupFile[] {
  return [...parts.flatMap(({ files }) => files), ...(map === undefined ? [] : [map])];
}

export function writeManifest(disk: Disk, manifest: BackupManifest): Promise<void> {
  return writeCheckedJson(disk, MANIFEST_FILE, FORMAT, manifest);
}

/** @throws {ShardloomError} `ERR_NO_FILE` where there is no finished backup, `ERR_CORRUPT`, `ERR_UNSUPPORTED_FORMAT`. */
export async function readManifest(disk: Disk): Promise<BackupManifest> {
  const content = await readCheckedJson(disk, MANIFEST_FILE, FORMAT);
  if (content === undefined)
    throw new ShardloomError(
      "ERR_NO_FILE",
      `Cannot read backup as it must have a ${MANIFEST_FILE}: it was not finished`,
      {
        details: { path: MANIFEST_FILE },
      },
    );
  const { directory, collections, parts, map } = content as BackupManifest;
  const isWhole = Array.isArray(parts) && parts.every(isPart) && (map === undefined || isFile(map));
  const manifest = { directory: checkedRecord(directory), collections: checkedCollections(collections), parts };
  if (isWhole) return map === undefined ? manifest : { ...manifest, map };
  throw new ShardloomError("ERR_CORRUPT", `Cannot read ${MANIFEST_FILE} as it must list the files of every shard`, {
    details: { path: MANIFEST_FILE },
  });
}

function isPart(value: unknown): boolean {
  const { shard, position, files, vshards } = (value ?? {}) as Partial<BackupPart>;
  if (!Number.isSafeInteger(shard) || !Number.isSafeInteger(position)) return false;
  if (!Array.isArray(files) || !Array.isArray(vshards)) return false;
  return files.every(isFile);
}

function isFile(value: unknown): boolean {
  const { path, bytes, sha256 } = (value ?? {}) as Partial<BackupFile>;
  return typeof path === "string" && Number.isSafeInteger(bytes) && typeof sha256 === "string";
}
