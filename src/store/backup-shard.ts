/**
 * Copies one shard's newest snapshot and its log into a backup, also while the shard writes.
 *
 * Invariant: what is copied ends exactly at one position of the log, at which the contents that come with it hold. Files are opened before that
 * position is taken and read through what was opened, so whatever the shard forgets meanwhile is still there; what it adds is cut off. The
 * snapshot was whole before the position was taken, so the log reaches beyond its end.
 */
import { ShardloomError } from "../errors.ts";
import { type Disk, type DiskFile, listIfThere } from "../runtime/disk.ts";
import type { BackupFile, BackupPart, VshardContent } from "./backup-manifest.ts";
import { type CopyWatch, copyFile } from "./copy-file.ts";
import type { ShardLog } from "./log.ts";
import { hasBegun } from "./log-marks.ts";
import {
  decodeRecordHeader,
  decodeSegmentHeader,
  encodeSegmentHeader,
  SEGMENT_HEADER_BYTES,
  segmentsOf,
  viewOf,
} from "./segment-format.ts";
import { type Damage, findLog } from "./segment-recovery.ts";
import { isSnapshot } from "./snapshot-file.ts";

/** Where a shard has its things, below its node's directory. */
export function shardPaths(shard: number): { readonly log: string; readonly snapshots: string } {
  return { log: `shards/${shard}/log`, snapshots: `shards/${shard}/snapshots` };
}

/** What a shard that is being written to says. */
export interface BackupSource {
  readonly log: Pick<ShardLog, "fence" | "leaseEpoch">;
  /** What the shard's vshards hold, and the head of its log, both of one moment. */
  readonly contents: () => Promise<{ readonly position: number; readonly contents: readonly VshardContent[] }>;
}

export interface BackupShardOptions {
  readonly shard: number;
  readonly source: Disk;
  readonly target: Disk;
  /** The shard that writes. @default nobody does: everything that is whole is copied, and its contents are not known */
  readonly live?: BackupSource;
  readonly watch: CopyWatch;
  /** Called when it is known how much will be copied. */
  readonly onTotal?: (bytes: number) => void;
}

/** Times that a shard may forget what is about to be copied, before the backup fails. */
const ATTEMPTS = 5;
/** Bytes of a segment that are looked through at once. */
const CHUNK_BYTES: number = 1024 * 1024;

/** A file that will be copied, open. */
interface Pinned {
  readonly path: string;
  readonly file: DiskFile;
}

/** What a shard has at one time. */
interface Pins {
  readonly snapshot: Pinned | undefined;
  /** Position that the snapshot begins at; 0 without one. */
  readonly from: number;
  /** By first position. */
  readonly segments: Map<number, Pinned>;
  /** Their names, in order. */
  readonly names: string[];
}

/**
 * Copies one shard.
 *
 * @throws {ShardloomError} `ERR_CORRUPT` when its log is damaged, `ERR_UNAVAILABLE` when it changes too fast, what `watch.check` throws, and as
 *   disks do.
 */
export async function backupShard(options: BackupShardOptions): Promise<BackupPart> {
  for (let attempt = 1; ; attempt++) {
    const pins = await pin(options);
    try {
      const part = pins === undefined ? undefined : await copyPinned(options, pins);
      if (part !== undefined) return part;
    } finally {
      for (const { file } of pins === undefined ? [] : allOf(pins)) await file.close();
    }
    if (attempt === ATTEMPTS)
      throw new ShardloomError(
        "ERR_UNAVAILABLE",
        `Cannot back up shard ${options.shard} as its log was replaced ${ATTEMPTS} times meanwhile`,
        { details: { shard: options.shard, attempts: ATTEMPTS } },
      );
  }
}

/** Opens the newest snapshot and the log from there on; undefined when a part was forgotten meanwhile. */
async function pin({ shard, source }: BackupShardOptions): Promise<Pins | undefined> {
  const paths = shardPaths(shard);
  const name = (await listIfThere(source, paths.snapshots)).filter(isSnapshot).at(-1);
  const from = name === undefined ? 0 : Number(name.slice(0, 20));
  const pins: Pins = {
    snapshot: name === undefined ? undefined : await openIfThere(source, `${paths.snapshots}/${name}`),
    from,
    segments: new Map(),
    names: [],
  };
  const isWhole = (name === undefined || pins.snapshot !== undefined) && (await pinSegments(source, paths.log, pins));
  if (isWhole) return pins;
  for (const { file } of allOf(pins)) await file.close();
  return undefined;
}

/** Opens the segments that are not open yet. @returns whether the log is there from the snapshot on */
async function pinSegments(source: Disk, directory: string, { from, segments, names }: Pins): Promise<boolean> {
  const found = segmentsOf(await listIfThere(source, directory));
  const firsts = [...found.keys()];
  const known = [...segments.keys()].at(-1) ?? 0;
  const begin = firsts.findLast((first) => first <= from + 1) ?? firsts[0];
  for (const first of firsts) {
    if (first <= known || (begin !== undefined && first < begin)) continue;
    const pinned = await openIfThere(source, `${directory}/${found.get(first)}`);
    if (pinned === undefined) return false;
    segments.set(first, pinned);
    names.push(found.get(first) as string);
  }
  const [oldest] = segments.keys();
  return oldest === undefined || oldest <= from + 1;
}

/** Copies what is open; undefined when that does not make a log. */
async function copyPinned(options: BackupShardOptions, pins: Pins): Promise<BackupPart | undefined> {
  const { shard, source, target, live, watch, onTotal } = options;
  const { log } = shardPaths(shard);
  let end = Number.POSITIVE_INFINITY;
  let contents: readonly VshardContent[] = [];
  if (live === undefined) {
    const { head, corrupt } = await findLog(source, log, pins.names, 0, await hasBegun(source, shard));
    if (corrupt !== undefined) throw damaged(shard, corrupt);
    end = head;
  } else {
    const { position, contents: held } = await live.contents();
    await live.log.fence(live.log.leaseEpoch); // syncs what was appended, whatever the log's durability
    end = position;
    contents = held;
    if (!(await pinSegments(source, log, pins))) return undefined;
  }
  const copied: Copied[] = [];
  if (pins.snapshot !== undefined) {
    const { path, file } = pins.snapshot;
    copied.push({ path, source: file, bytes: await file.size(), position: pins.from });
  }
  const firsts = [...pins.segments.keys()].filter((first) => first <= end);
  for (const first of firsts) copied.push(await cutAt(pins.segments.get(first) as Pinned, end));
  const position = copied.reduce((most, cut) => Math.max(most, cut.position), 0);
  onTotal?.(copied.reduce((sum, { bytes }) => sum + bytes, 0));
  const files: BackupFile[] = [];
  for (const { path, source: file, bytes } of copied) files.push(await copyFile(file, bytes, target, path, watch));
  // What was copied is read again: a log that was replaced under it is found here, and so is a disk that keeps something else.
  const found = await findLog(target, log, pins.names.slice(0, firsts.length), 0);
  const isWhole = found.corrupt === undefined && (firsts.length === 0 || found.head === position);
  if (isWhole && position === end) return { shard, position, files, vshards: contents };
  if (live === undefined) throw damaged(shard, found.corrupt ?? { position });
  for (const { path } of files) await target.remove(path);
  return undefined;
}

/** What is copied of one file. */
interface Copied {
  readonly path: string;
  readonly source: Pick<DiskFile, "read">;
  readonly bytes: number;
  /** The last one that is in it. */
  readonly position: number;
}

/**
 * A segment up to a position. Where it says that more was synced when it got its name, the copy says that so much was: a log must have what
 * anything in it says was synced.
 */
async function cutAt({ path, file }: Pinned, last: number): Promise<Copied> {
  const header = decodeSegmentHeader(await file.read(0, SEGMENT_HEADER_BYTES), path);
  if (header === undefined)
    throw new ShardloomError("ERR_CORRUPT", `Cannot back up ${path} as it must begin with a header`, {
      details: { path },
    });
  const beginning = encodeSegmentHeader({ ...header, durable: Math.min(header.durable, last) });
  const source = {
    read: async (offset: number, length: number): Promise<Uint8Array> => {
      const bytes = await file.read(offset, length);
      if (offset < beginning.length) bytes.set(beginning.subarray(offset, offset + bytes.length));
      return bytes;
    },
  };
  let offset = SEGMENT_HEADER_BYTES;
  let position = header.first - 1;
  let wanted = CHUNK_BYTES;
  for (;;) {
    const bytes = await file.read(offset, wanted);
    const view = viewOf(bytes);
    let at = 0;
    for (;;) {
      const record = decodeRecordHeader(bytes, view, at, header);
      const isHere = record !== undefined && at + record.length <= bytes.length;
      if (record === undefined && bytes.length === wanted && bytes.length - at < SEGMENT_HEADER_BYTES) break;
      if (record === undefined || record.position > last) return { path, source, bytes: offset + at, position };
      if (!isHere) {
        if (bytes.length < wanted) return { path, source, bytes: offset + at, position };
        wanted = Math.max(wanted, record.length);
        break;
      }
      position = record.position;
      at += record.length;
    }
    offset += at;
  }
}

function allOf({ snapshot, segments }: Pins): Pinned[] {
  return [...(snapshot === undefined ? [] : [snapshot]), ...segments.values()];
}

async function openIfThere(disk: Disk, path: string): Promise<Pinned | undefined> {
  const file = await disk.open(path, "read").catch(ignoreMissing);
  return file === undefined ? undefined : { path, file };
}

function ignoreMissing(error: unknown): undefined {
  if (ShardloomError.is(error) && error.code === "ERR_NO_FILE") return undefined;
  throw error;
}

function damaged(shard: number, where: Damage): ShardloomError {
  const { position, vshard, lsn, gone } = where;
  const entry = lsn === undefined ? "" : `, LSN ${lsn} of vshard ${vshard}`;
  const what = gone === true ? "gone" : `damaged at position ${position}${entry}`;
  return new ShardloomError("ERR_CORRUPT", `Cannot back up shard ${shard} as its log is ${what}`, {
    details: { shard, ...where },
  });
}
