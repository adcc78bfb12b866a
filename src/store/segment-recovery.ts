/**
 * What the segments of a shard log hold after any crash: up to where its frames are whole, and whether what comes then is a torn tail or damage.
 *
 * Invariant: it changes nothing. A segment ends where the next one begins, whatever else is in it (see segment-writer.ts: the later one is
 * written when the earlier one failed). Frames must follow each other without a gap up to the last position that anything readable says was
 * synced; where they do not, that is damage. Behind it the first record that is not whole ends the log: a torn tail.
 * Source: Alagappan et al., FAST 2018 (telling crash from corruption); Divergence: the mark that says what was synced is in the records that
 * come later, so damage of the very last group is found only once one has come.
 */
import { crc32 } from "../runtime/checksum.ts";
import type { Disk } from "../runtime/disk.ts";
import { chainOf } from "./segment-chain.ts";
import {
  decodeRecordHeader,
  decodeSegmentHeader,
  describeDamage,
  isWhole,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
  viewOf,
} from "./segment-format.ts";

/** Where a log is damaged: the position, and the vshard and LSN of its first entry where that can be told. */
export interface Damage {
  readonly position: number;
  /** All of its segments are missing. */
  readonly gone?: true;
  readonly vshard?: number;
  readonly lsn?: number;
}

/** What was found. */
export interface FoundLog {
  /** First positions of the segments that are of use, rising. */
  readonly firsts: readonly number[];
  /** Their names, by first position. */
  readonly names: ReadonlyMap<number, string>;
  readonly log: number;
  /** The highest of all segments. */
  readonly generation: number;
  /** Position of the last whole frame. */
  readonly head: number;
  /** Position up to which frames are known to be synced; at most `head`. */
  readonly synced: number;
  readonly leaseEpoch: number;
  /**
   * Records to be written again, whole, as they were written: those behind `synced`, or the marks at the end of a segment that is resumed. An
   * earlier life may have left them in the page cache alone when a sync failed.
   */
  readonly rest: Uint8Array;
  /** Bytes behind the last whole record that are a torn tail. */
  readonly cutBytes: number;
  readonly corrupt: Damage | undefined;
  /** Where the last segment can be gone on with: behind its last frame, all of which is synced. */
  readonly resume: { readonly generation: number; readonly end: number; readonly size: number } | undefined;
}

/** One segment, scanned. */
interface Scan {
  /** Position of the last whole frame, and where the record behind it begins. */
  readonly last: number;
  readonly end: number;
  /** Where the last whole frame ends: only marks are between here and `end`. */
  readonly frameEnd: number;
  /** The highest position that a record says was synced. */
  readonly durable: number;
  readonly leaseEpoch: number;
  /** Positions and offsets of the whole records. */
  readonly positions: readonly number[];
  readonly offsets: readonly number[];
}

interface Segment {
  readonly first: number;
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly header: SegmentHeader | undefined;
}

/**
 * Reads a log's segments.
 *
 * @param verifyFrom Segments whose frames all lie below this position are not looked into.
 * @param begun Whether there were segments before: then none is damage.
 * @throws {ShardloomError} As the disk does, and `ERR_UNSUPPORTED_FORMAT`.
 */
export async function findLog(
  disk: Disk,
  directory: string,
  names: readonly string[],
  verifyFrom: number,
  begun = false,
): Promise<FoundLog> {
  const segments = await chainOf(disk, directory, names);
  const firsts = [...segments.keys()];
  let found: Progress = { names: segments, log: crc32(directory), generation: 0, head: 0, synced: 0, leaseEpoch: 0 };
  if (begun && firsts.length === 0) return damaged([], found, 0, { position: 1, gone: true });
  for (const [index, first] of firsts.entries()) {
    const next = firsts[index + 1];
    const skips = next !== undefined && next <= verifyFrom;
    const segment = await readSegment(disk, `${directory}/${segments.get(first)}`, first, skips);
    const { header } = segment;
    const before = index === 0 ? first - 1 : found.head;
    // An earlier segment that was not looked into is taken to reach the one that says that it follows it; where none says so, one may be gone.
    const skipped = index > 0 && first <= verifyFrom;
    if (skipped && header !== undefined && header.previousFirst !== firsts[index - 1])
      return findLog(disk, directory, names, 0, begun);
    if (header === undefined || (index > 0 && header.log !== found.log)) {
      return damaged(firsts.slice(0, index), found, before, { position: first });
    }
    found = {
      names: segments,
      log: header.log,
      generation: Math.max(found.generation, header.generation),
      head: before,
      synced: Math.max(found.synced, header.durable),
      leaseEpoch: Math.max(found.leaseEpoch, header.leaseEpoch),
    };
    if (skips) {
      found = { ...found, head: next - 1 };
      continue;
    }
    const scan = scanRecords(segment.bytes, header, next ?? Number.POSITIVE_INFINITY);
    found = { ...found, head: scan.last, leaseEpoch: Math.max(found.leaseEpoch, scan.leaseEpoch) };
    if (next === undefined) return ended(firsts, found, segment, header, scan);
    if (scan.last < next - 1) {
      const known = describeDamage(segment.bytes, viewOf(segment.bytes), scan.end, header);
      return damaged(firsts.slice(0, index + 1), found, scan.last, { position: scan.last + 1, ...known });
    }
  }
  return { ...found, firsts, rest: new Uint8Array(0), cutBytes: 0, corrupt: undefined, resume: undefined };
}

type Progress = Pick<FoundLog, "names" | "log" | "generation" | "head" | "synced" | "leaseEpoch">;

function damaged(firsts: readonly number[], found: Progress, head: number, corrupt: Damage): FoundLog {
  return { ...found, firsts, head, synced: head, rest: new Uint8Array(0), cutBytes: 0, corrupt, resume: undefined };
}

/** The end of the last segment: torn, damaged, or as it should be. */
function ended(
  firsts: readonly number[],
  found: Progress,
  { bytes }: Segment,
  header: SegmentHeader,
  scan: Scan,
): FoundLog {
  const { last, end } = scan;
  const tailEnd = endOfContent(bytes, end);
  const synced = Math.max(found.synced, scan.durable, tailEnd > end ? durableBehind(bytes, header, end) : 0);
  if (synced > last) {
    const known = describeDamage(bytes, viewOf(bytes), end, header);
    return damaged(firsts, found, last, { position: last + 1, ...known });
  }
  const isClean = tailEnd <= end && synced === last;
  const index = scan.positions.findIndex((position) => position > synced);
  const restFrom = isClean ? scan.frameEnd : index < 0 ? end : scan.offsets[index];
  const rest = bytes.slice(restFrom, end);
  return {
    ...found,
    firsts,
    synced,
    rest,
    cutBytes: Math.max(0, tailEnd - end),
    corrupt: undefined,
    resume: isClean ? { generation: header.generation, end: scan.frameEnd, size: bytes.length } : undefined,
  };
}

async function readSegment(disk: Disk, path: string, first: number, headerOnly: boolean): Promise<Segment> {
  const file = await disk.open(path, "read");
  let bytes: Uint8Array;
  try {
    bytes = await file.read(0, headerOnly ? SEGMENT_HEADER_BYTES : await file.size());
  } finally {
    await file.close();
  }
  const header = decodeSegmentHeader(bytes, path);
  return { first, path, bytes, header: header?.first === first ? header : undefined };
}

/** Follows the records from a segment's beginning, up to a position. */
function scanRecords(bytes: Uint8Array, header: SegmentHeader, before: number): Scan {
  const view = viewOf(bytes);
  const positions: number[] = [];
  const offsets: number[] = [];
  let last = header.first - 1;
  let end = SEGMENT_HEADER_BYTES;
  let frameEnd = end;
  let durable = 0;
  let leaseEpoch = 0;
  for (;;) {
    const record = decodeRecordHeader(bytes, view, end, header);
    if (record === undefined || record.position >= before) break;
    if (record.position !== (record.entries === 0 ? last : last + 1) || !isWhole(bytes, end, record)) break;
    positions.push(record.position);
    offsets.push(end);
    last = record.position;
    end += record.length;
    if (record.entries > 0) frameEnd = end;
    durable = Math.max(durable, record.durable);
    leaseEpoch = Math.max(leaseEpoch, record.leaseEpoch);
  }
  return { last, end, frameEnd, durable, leaseEpoch, positions, offsets };
}

/** The highest position that a record behind a damaged one says was synced. */
function durableBehind(bytes: Uint8Array, header: SegmentHeader, from: number): number {
  const view = viewOf(bytes);
  let durable = 0;
  for (let at = from; at + SEGMENT_HEADER_BYTES <= bytes.length; ) {
    const record = decodeRecordHeader(bytes, view, at, header);
    // Its length may lead over others only when it is whole.
    const isSafe = record !== undefined && isWhole(bytes, at, record);
    durable = Math.max(durable, record?.durable ?? 0);
    at += isSafe ? record.length : 8;
  }
  return durable;
}

/** Where the last byte that is not zero ends. */
function endOfContent(bytes: Uint8Array, from: number): number {
  let end = bytes.length;
  while (end > from && bytes[end - 1] === 0) end--;
  return end;
}
