/**
 * What is in the log of a shard that nobody writes to: for tools.
 *
 * Invariant: it changes nothing, not even a torn tail. Every record that is told of was whole; where one is damaged, that is told, with what
 * can be known of it, and the log is read up to there.
 */
import { type Disk, listIfThere } from "../runtime/disk.ts";
import { shardPaths } from "./backup-shard.ts";
import { LOG_ENTRY } from "./log.ts";
import { hasBegun } from "./log-marks.ts";
import { segmentsOf } from "./segment-format.ts";
import { SegmentReader } from "./segment-reader.ts";
import { type Damage, findLog } from "./segment-recovery.ts";
import { isSnapshot } from "./snapshot-file.ts";

/** Entries of one vshard in a log. */
export interface VshardSummary {
  readonly vshard: number;
  /** The lowest and the highest LSN of its effects. */
  readonly firstLsn: number;
  readonly lastLsn: number;
  readonly effects: number;
  /** How often it was restored as a whole. */
  readonly restores: number;
  readonly bytes: number;
}

/** What is in a log. */
export interface LogSummary {
  readonly shard: number;
  readonly segments: number;
  readonly snapshots: readonly string[];
  /** Positions of the first and the last whole frame; the last is below the first when there is none. */
  readonly first: number;
  readonly last: number;
  /** The last position that the log says was synced. */
  readonly synced: number;
  readonly leaseEpoch: number;
  /** Bytes of a torn tail, which the next start cuts off. */
  readonly cutBytes: number;
  readonly corrupt: Damage | undefined;
  readonly frames: number;
  readonly vshards: readonly VshardSummary[];
}

/** Bytes of frames that are read at once. */
const READ_BYTES: number = 4 * 1024 * 1024;

interface Counted {
  vshard: number;
  firstLsn: number;
  lastLsn: number;
  effects: number;
  restores: number;
  bytes: number;
}

/** Reads a whole log. @param onFrames Called with how many frames were read since the last call; may throw to stop */
export async function inspectLog(disk: Disk, shard: number, onFrames?: (frames: number) => void): Promise<LogSummary> {
  const paths = shardPaths(shard);
  const names = await listIfThere(disk, paths.log);
  const snapshots = await listIfThere(disk, paths.snapshots);
  const found = await findLog(disk, paths.log, names, 0, await hasBegun(disk, shard));
  const { head, synced, leaseEpoch, cutBytes, corrupt, firsts } = found;
  const first = firsts[0] ?? 1;
  const vshards = new Map<number, Counted>();
  let frames = 0;
  const reader = new SegmentReader(disk, paths.log);
  try {
    for (let next = first; next <= head; ) {
      const read = await reader.read(next, READ_BYTES, head);
      const last = read.at(-1);
      if (last === undefined) break;
      next = last.position + 1;
      frames += read.length;
      for (const frame of read) for (const entry of frame.entries) count(vshards, entry);
      onFrames?.(read.length);
    }
  } finally {
    await reader.close();
  }
  return {
    shard,
    segments: segmentsOf(names).size,
    snapshots: snapshots.filter(isSnapshot),
    first,
    last: head,
    synced,
    leaseEpoch,
    cutBytes,
    corrupt,
    frames,
    vshards: [...vshards.values()].sort((one, other) => one.vshard - other.vshard),
  };
}

function count(
  vshards: Map<number, Counted>,
  entry: { readonly kind: number; readonly vshard: number; readonly lsn: number; readonly body: Uint8Array },
): void {
  const { kind, vshard, lsn, body } = entry;
  const counted = vshards.get(vshard) ?? { vshard, firstLsn: 0, lastLsn: 0, effects: 0, restores: 0, bytes: 0 };
  vshards.set(vshard, counted);
  counted.bytes += body.length;
  if (kind === LOG_ENTRY.EFFECT) {
    counted.firstLsn = counted.effects === 0 ? lsn : Math.min(counted.firstLsn, lsn);
    counted.effects++;
  }
  if (kind === LOG_ENTRY.RESTORE_END) counted.restores++;
  if (kind === LOG_ENTRY.EFFECT || kind === LOG_ENTRY.RESTORE_END) counted.lastLsn = Math.max(counted.lastLsn, lsn);
}
