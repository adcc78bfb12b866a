/**
 * `shardloom.json`: what the directory of a node is, and how often it was started.
 *
 * Invariant: a directory belongs to one node of one cluster with one shape for ever; another one, a newer format or a directory of something
 * else is refused before anything in it is changed. `starts` rises durably with every start, before the start may do anything that others see,
 * so no two lives of the node have the same number.
 */
import { ShardloomError } from "../errors.ts";
import type { Disk } from "../runtime/disk.ts";
import { NEW_SUFFIX, readCheckedJson, writeCheckedJson } from "./checked-json.ts";
import { COLLECTIONS_FILE } from "./collection-store.ts";

/** Name of the file. */
export const DIRECTORY_FILE = "shardloom.json";
const FORMAT = 1;

/** Whose directory it is, and the shape of what is in it. */
export interface DirectoryShape {
  /** Name of the node. */
  readonly node: string;
  /** Numbers of the shards that the node hosts. */
  readonly ownShards: readonly number[];
  /** Shards of all nodes. */
  readonly shards: number;
  readonly vshards: number;
  readonly replicationFactor: number;
  /** Name of the cluster, where it has one: compared where the directory has one too. */
  readonly clusterName?: string;
}

/** What the file says. */
export interface DirectoryRecord extends DirectoryShape {
  /** Id of the cluster, made when the directory was made. */
  readonly cluster: string;
  /** How often the directory was started: the incarnation of the node. */
  readonly starts: number;
}

/** How a directory is started. */
export interface StartDirectoryOptions {
  readonly shape: DirectoryShape;
  /** Id of the cluster. @default what the directory says, or a new one */
  readonly cluster?: string;
  /** The number of this start is at least this. @default 1 */
  readonly leastStarts?: number;
  /** Most starts. */
  readonly maxStarts: number;
  readonly randomU32: () => number;
}

/**
 * What the directory is; undefined when it is empty, or has only what an interrupted first start left. Changes nothing.
 *
 * @throws {ShardloomError} `ERR_DIRECTORY_MISMATCH` when it is something else's, `ERR_UNSUPPORTED_FORMAT`, `ERR_CORRUPT`.
 */
export async function readDataDirectory(disk: Disk): Promise<DirectoryRecord | undefined> {
  for (;;) {
    const content = await readCheckedJson(disk, DIRECTORY_FILE, FORMAT);
    if (content !== undefined) return checkedRecord(content);
    const names = await disk.list("");
    if (names.includes(DIRECTORY_FILE)) continue; // it came meanwhile
    const foreign = names.filter((name) => !isOfFirstStart(name));
    if (foreign.length === 0) return undefined;
    throw new ShardloomError(
      "ERR_DIRECTORY_MISMATCH",
      `Cannot open directory as it must have a ${DIRECTORY_FILE} or be empty: current value is ${foreign.length} other names, the first is ${JSON.stringify(foreign[0])}`,
      { details: { name: DIRECTORY_FILE, files: foreign.slice(0, 10) } },
    );
  }
}

/** As {@link readDataDirectory}, of one that must be a node's directory. @throws {ShardloomError} `ERR_NO_FILE` */
export async function existingDirectory(disk: Disk): Promise<DirectoryRecord> {
  const record = await readDataDirectory(disk);
  if (record !== undefined) return record;
  throw new ShardloomError("ERR_NO_FILE", `Cannot read directory as it must have a ${DIRECTORY_FILE}: it is empty`, {
    details: { path: DIRECTORY_FILE },
  });
}

/**
 * Throws unless a node of this shape may open the directory. Changes nothing.
 *
 * @throws {ShardloomError} `ERR_DIRECTORY_MISMATCH` naming what differs, with both values; and as {@link readDataDirectory}.
 */
export async function checkDataDirectory(disk: Disk, shape: DirectoryShape, cluster?: string): Promise<void> {
  const record = await readDataDirectory(disk);
  if (record !== undefined) assertSame(record, shape, cluster);
}

/**
 * Counts one more start, durably; makes the directory when it is empty.
 *
 * @throws {ShardloomError} As {@link checkDataDirectory}; `ERR_UNAVAILABLE` when it was started too often; and as disks do.
 */
export async function startDataDirectory(disk: Disk, options: StartDirectoryOptions): Promise<DirectoryRecord> {
  const { shape, cluster, leastStarts = 1, maxStarts, randomU32 } = options;
  const known = await readDataDirectory(disk);
  if (known !== undefined) assertSame(known, shape, cluster);
  const starts = Math.max((known?.starts ?? 0) + 1, leastStarts);
  if (starts > maxStarts)
    throw new ShardloomError(
      "ERR_UNAVAILABLE",
      `Cannot open directory as it must have been started at most ${maxStarts} times: current value is ${starts}`,
      { details: { starts, maxStarts }, retryable: false },
    );
  const clusterName = shape.clusterName ?? known?.clusterName;
  const named = clusterName === undefined ? shape : { ...shape, clusterName };
  const record: DirectoryRecord = { ...shapeOf(named), cluster: known?.cluster ?? cluster ?? newId(randomU32), starts };
  await writeDataDirectory(disk, record);
  return record;
}

/** Writes what a directory is. For {@link startDataDirectory} and for backups that are restored. */
export function writeDataDirectory(disk: Disk, record: DirectoryRecord): Promise<void> {
  const { cluster, starts } = record;
  return writeCheckedJson(disk, DIRECTORY_FILE, FORMAT, { cluster, ...shapeOf(record), starts });
}

/** Checks a record that was read. @throws {ShardloomError} `ERR_CORRUPT` */
export function checkedRecord(content: unknown): DirectoryRecord {
  const record = (typeof content === "object" && content !== null ? content : {}) as DirectoryRecord;
  const { cluster, clusterName, node, ownShards, shards, vshards, replicationFactor, starts } = record;
  const counts = [shards, vshards, replicationFactor, starts];
  const isWhole =
    typeof cluster === "string" &&
    typeof node === "string" &&
    (clusterName === undefined || typeof clusterName === "string") &&
    Array.isArray(ownShards) &&
    [...ownShards, ...counts].every((value) => Number.isSafeInteger(value) && (value as number) >= 0);
  if (isWhole) return record;
  throw new ShardloomError(
    "ERR_CORRUPT",
    `Cannot read ${DIRECTORY_FILE} as it must name a cluster, a node and its shards: current value is ${JSON.stringify(content)}`,
    { details: { path: DIRECTORY_FILE } },
  );
}

function assertSame(record: DirectoryRecord, wanted: DirectoryShape, cluster: string | undefined): void {
  if (cluster !== undefined && cluster !== record.cluster) throw mismatch("cluster", cluster, record.cluster);
  const { clusterName } = record;
  if (clusterName !== undefined && wanted.clusterName !== undefined && clusterName !== wanted.clusterName)
    throw mismatch("cluster", wanted.clusterName, clusterName);
  const found = shapeOf(record);
  for (const [name, expected] of Object.entries(shapeOf(wanted))) {
    if (name === "clusterName") continue; // what has none yet is given one
    const value: unknown = found[name as keyof DirectoryShape];
    if (JSON.stringify(value) !== JSON.stringify(expected)) throw mismatch(name, expected, value);
  }
}

function mismatch(name: string, expected: unknown, value: unknown): ShardloomError {
  return new ShardloomError(
    "ERR_DIRECTORY_MISMATCH",
    `Cannot open directory as its ${name} must be ${JSON.stringify(expected)}: current value is ${JSON.stringify(value)}`,
    { details: { name, expected, value } },
  );
}

function shapeOf(shape: DirectoryShape): DirectoryShape {
  const { clusterName, node, ownShards, shards, vshards, replicationFactor } = shape;
  const name = clusterName === undefined ? {} : { clusterName };
  return { ...name, node, ownShards: [...ownShards], shards, vshards, replicationFactor };
}

/** Whether a start that was interrupted before it had made the directory leaves a file of that name, or every file system does. */
function isOfFirstStart(name: string): boolean {
  const made = [COLLECTIONS_FILE, `${COLLECTIONS_FILE}${NEW_SUFFIX}`, `${DIRECTORY_FILE}${NEW_SUFFIX}`, "lost+found"];
  return made.includes(name) || name === "lock" || name.startsWith("lock.");
}

/** 128 random bits. */
function newId(randomU32: () => number): string {
  return Array.from({ length: 4 }, () => randomU32().toString(16).padStart(8, "0")).join("");
}
