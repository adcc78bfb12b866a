/**
 * Reads the frames of a shard log from its segment files: for the log itself, for another thread of the process, and for tools.
 *
 * Invariant: it writes nothing and asks nobody but the disk. Frames up to a position that the log has published as durable are in the files
 * as they are listed by then, so one that cannot be found there after a fresh look is damaged; a segment that is gone was truncated. A
 * later segment is taken wherever it begins, whatever an earlier one has behind that position.
 */
import { ShardloomError } from "../errors.ts";
import type { Disk, DiskFile } from "../runtime/disk.ts";
import type { LogFrame } from "./log.ts";
import { chainOf } from "./segment-chain.ts";
import {
  corruptFrame,
  decodeFrame,
  decodeRecordHeader,
  decodeSegmentHeader,
  describeDamage,
  isWhole,
  MAX_RECORD_BYTES,
  SEGMENT_HEADER_BYTES,
  type SegmentHeader,
  viewOf,
} from "./segment-format.ts";

/** Bytes that are read at once, unless a record is larger. */
const CHUNK_BYTES: number = 256 * 1024;
/** Bytes between two places of a segment that are remembered. */
const INDEX_BYTES: number = 64 * 1024;

/** A segment that is open. */
interface Opened {
  readonly first: number;
  readonly file: DiskFile;
  readonly header: SegmentHeader;
  /** Places where records begin, rising. */
  readonly places: Place[];
}

interface Place {
  readonly position: number;
  readonly offset: number;
}

/** Why a read cannot go on where it is. */
type Stop = "limit" | "end" | "gone" | { readonly vshard?: number; readonly lsn?: number };

/** What one call of {@link SegmentReader.read} has so far. */
interface Progress {
  next: number;
  readonly upTo: number;
  readonly limitBytes: number;
  bytes: number;
  readonly frames: LogFrame[];
}

export class SegmentReader {
  readonly #disk: Disk;
  readonly #directory: string;
  #firsts: readonly number[] | undefined;
  #names: ReadonlyMap<number, string> = new Map();
  #opened: Opened | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  /** @param directory Of the log, as given to `SegmentLog.open`. */
  constructor(disk: Disk, directory: string) {
    this.#disk = disk;
    this.#directory = directory;
  }

  /**
   * Frames from a position on, in order; from the oldest on when that was truncated. At least one when there is one.
   *
   * @param limitBytes Bytes of records after which no further frame is added.
   * @param upTo The last position to read: at most what the log says is durable. @default as far as frames are whole, of a log that nobody writes to
   * @throws {ShardloomError} `ERR_CORRUPT` with `details.position` where the first frame to be read is damaged; as the disk does.
   */
  read(from: number, limitBytes: number, upTo: number = Number.POSITIVE_INFINITY): Promise<readonly LogFrame[]> {
    const done = this.#turn.then(() => this.#read(from, limitBytes, upTo));
    this.#turn = done.catch(() => undefined); // whoever asked has the error
    return done;
  }

  /** Position of the oldest frame that there is, as the directory says now; 1 when it has no segment. */
  async first(): Promise<number> {
    const firsts = await this.#list();
    return firsts[0] ?? 1;
  }

  async close(): Promise<void> {
    await this.#turn;
    await this.#shut();
  }

  async #read(from: number, limitBytes: number, upTo: number): Promise<readonly LogFrame[]> {
    const progress: Progress = { next: from, upTo, limitBytes, bytes: 0, frames: [] };
    let looked = this.#firsts === undefined;
    if (this.#firsts === undefined) await this.#list();
    while (progress.next <= upTo) {
      const at = progress.next;
      const stop = await this.#readSegment(progress);
      if (stop === "limit") break;
      if (progress.next > at) looked = false;
      if (stop === "end" && progress.next > at) continue;
      if (!looked) {
        looked = true;
        await this.#list();
        continue;
      }
      if (progress.frames.length > 0 || this.#isEnd(progress)) break;
      throw corruptFrame("read log", { position: progress.next, ...(typeof stop === "object" ? stop : {}) });
    }
    return progress.frames;
  }

  /** Whether nothing says that there is more. */
  #isEnd({ next, upTo }: Progress): boolean {
    const last = this.#firsts?.at(-1);
    return upTo === Number.POSITIVE_INFINITY && (last === undefined || next >= last);
  }

  /** Reads on in the segment that has the next position. */
  async #readSegment(progress: Progress): Promise<Stop> {
    const firsts = this.#firsts ?? [];
    const [oldest] = firsts;
    if (oldest === undefined) return "gone";
    if (progress.next < oldest) progress.next = oldest;
    if (progress.next > progress.upTo) return "limit";
    const index = firsts.findLastIndex((first) => first <= progress.next);
    const opened = await this.#open(firsts[index] as number);
    if (opened === "gone" || opened === "damaged") return opened === "gone" ? "gone" : {};
    const before = firsts[index + 1] ?? Number.POSITIVE_INFINITY;
    const place = opened.places.findLast(({ position }) => position <= progress.next) as Place;
    return readRecords(opened, place, before, progress);
  }

  async #open(first: number): Promise<Opened | "gone" | "damaged"> {
    if (this.#opened?.first === first) return this.#opened;
    await this.#shut();
    const path = `${this.#directory}/${this.#names.get(first)}`;
    try {
      const file = await this.#disk.open(path, "read");
      const header = decodeSegmentHeader(await file.read(0, SEGMENT_HEADER_BYTES), path);
      if (header?.first !== first) {
        await file.close();
        return "damaged";
      }
      this.#opened = { first, file, header, places: [{ position: first, offset: SEGMENT_HEADER_BYTES }] };
      return this.#opened;
    } catch (error) {
      if (ShardloomError.is(error) && error.code === "ERR_NO_FILE") return "gone";
      throw error;
    }
  }

  /** Looks at the directory; a segment may have come, gone, or been replaced. */
  async #list(): Promise<readonly number[]> {
    await this.#shut();
    this.#names = await chainOf(this.#disk, this.#directory, await this.#disk.list(this.#directory));
    this.#firsts = [...this.#names.keys()];
    return this.#firsts;
  }

  async #shut(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    await opened?.file.close();
  }
}

/** Reads records from a place on, up to a limit, the segment's end, or one that is not whole. */
async function readRecords(opened: Opened, place: Place, before: number, progress: Progress): Promise<Stop> {
  const { file, header } = opened;
  let { position, offset } = place;
  let wanted = Math.min(CHUNK_BYTES, Math.max(INDEX_BYTES, progress.limitBytes - progress.bytes));
  for (;;) {
    const bytes = await file.read(offset, wanted);
    const view = viewOf(bytes);
    let at = 0;
    for (;;) {
      // Marks lie behind the frames of their position.
      if (position >= before || position > progress.upTo) return position >= before ? "end" : "limit";
      const record = decodeRecordHeader(bytes, view, at, header);
      if (record === undefined && bytes.length === wanted && bytes.length - at < SEGMENT_HEADER_BYTES) break;
      if (record === undefined || record.length > MAX_RECORD_BYTES) return damageOf(bytes, view, at, header);
      if (record.position !== (record.entries === 0 ? position - 1 : position)) return {};
      if (bytes.length - at < record.length && bytes.length === wanted) {
        wanted = at === 0 ? record.length : Math.max(wanted, record.length);
        break;
      }
      const isWanted = position >= progress.next && record.entries > 0;
      if (isWanted) {
        if (!isWhole(bytes, at, record)) return damageOf(bytes, view, at, header);
        if (progress.frames.length > 0 && progress.bytes + record.length > progress.limitBytes) return "limit";
        progress.frames.push(decodeFrame(bytes, view, at, record));
        progress.bytes += record.length;
        progress.next = position + 1;
      }
      if (record.entries > 0) position++;
      at += record.length;
      remember(opened, position, offset + at);
      if (isWanted && progress.bytes >= progress.limitBytes) return "limit";
    }
    offset += at;
  }
}

function damageOf(bytes: Uint8Array, view: DataView, at: number, header: SegmentHeader): Stop {
  return describeDamage(bytes, view, at, header) ?? {};
}

/** Where a reader that comes back goes on: the last place, and some before. */
function remember({ places }: Opened, position: number, offset: number): void {
  const last = places.at(-1) as Place;
  if (offset <= last.offset) return;
  const before = places.at(-2);
  if (before !== undefined && offset - before.offset < INDEX_BYTES) places.pop();
  places.push({ position, offset });
}
