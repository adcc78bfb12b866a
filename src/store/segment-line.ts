/**
 * What a shard log has yet to make durable: encoded records, in groups that are written as one.
 *
 * Invariant: a record leaves the line only when it was synced. Groups are in the order of their records; those before `#next` have been
 * given out to be written and are not added to. Buffers are used again, so a group may be kept by nobody once it has been dropped.
 */
import type { ShardLogEntry } from "./log.ts";
import { encodeRecord, frameBytes, RECORD_HEADER_BYTES, viewOf } from "./segment-format.ts";

/** Bytes after which a group takes no more. */
const GROUP_BYTES: number = 4 * 1024 * 1024;
const FIRST_BUFFER_BYTES: number = 64 * 1024;
/** Largest buffer that is kept for later groups. */
const KEPT_BUFFER_BYTES: number = GROUP_BYTES * 2;

/** Records that are written as one. */
export interface Group {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly length: number;
  /** Position of its first frame; of the next one when it holds marks alone. */
  readonly first: number;
  /** Position of its last frame; of the one before it when it holds marks alone. */
  readonly last: number;
  /** Number of its last record, counted from 1 over all that were ever in line. */
  readonly sequence: number;
}

type Filling = { -readonly [Key in keyof Group]: Group[Key] };

export class FrameLine {
  #groups: Filling[] = [];
  /** Index of the first group that was not given out. */
  #next = 0;
  #bytes = 0;
  #sequence = 0;
  readonly #buffers: Uint8Array[] = [];

  /** Bytes of all records in line. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Number of the last record that was put in line. */
  get sequence(): number {
    return this.#sequence;
  }

  get isEmpty(): boolean {
    return this.#groups.length === 0;
  }

  /** Puts a frame in line, or a mark when there are no entries. @param bytes `frameBytes(entries)` */
  append(
    position: number,
    leaseEpoch: number,
    entries: readonly ShardLogEntry[],
    bytes: number = frameBytes(entries),
  ): void {
    const group = this.#room(bytes, entries.length === 0 ? position + 1 : position);
    group.length = encodeRecord(group.bytes, group.view, group.length, { position, leaseEpoch, entries });
    group.last = position;
    group.sequence = ++this.#sequence;
    this.#bytes += bytes;
  }

  /** Puts records in line that a log was found to have. */
  adopt(records: Uint8Array, first: number, last: number): void {
    const group = this.#room(records.length, first);
    group.bytes.set(records, group.length);
    group.length += records.length;
    group.last = last;
    group.sequence = ++this.#sequence;
    this.#bytes += records.length;
  }

  /** Gives the next group out; undefined when all have been. */
  take(): Group | undefined {
    const group = this.#groups[this.#next];
    if (group !== undefined) this.#next++;
    return group;
  }

  /** Whether a group waits to be given out. */
  get hasNext(): boolean {
    return this.#next < this.#groups.length;
  }

  /** Bytes of what waits to be given out. */
  get waitingBytes(): number {
    let bytes = 0;
    for (let index = this.#next; index < this.#groups.length; index++) bytes += this.#groups[index]?.length ?? 0;
    return bytes;
  }

  /** All that was given out has to be written again. */
  rewind(): void {
    this.#next = 0;
  }

  /** Groups up to a record are durable. */
  drop(sequence: number): void {
    const count = this.#groups.filter((group) => group.sequence <= sequence).length;
    for (const { bytes, length } of this.#groups.splice(0, count)) {
      this.#bytes -= length;
      if (bytes.length <= KEPT_BUFFER_BYTES && this.#buffers.length < 2) this.#buffers.push(bytes);
    }
    this.#next -= count;
  }

  /** The group that is being filled, with room for so many bytes more. */
  #room(bytes: number, first: number): Filling {
    const last = this.#groups.at(-1);
    if (last !== undefined && this.#next < this.#groups.length && last.length < GROUP_BYTES) {
      if (last.bytes.length - last.length < bytes) grow(last, bytes);
      return last;
    }
    let buffer = this.#buffers.pop();
    if (buffer === undefined || buffer.length < bytes) buffer = new Uint8Array(sizeFor(bytes, FIRST_BUFFER_BYTES));
    const group = { bytes: buffer, view: viewOf(buffer), length: 0, first, last: first - 1, sequence: this.#sequence };
    this.#groups.push(group);
    return group;
  }
}

function grow(group: Filling, bytes: number): void {
  const grown = new Uint8Array(sizeFor(group.length + bytes, group.bytes.length * 2));
  grown.set(group.bytes.subarray(0, group.length));
  group.bytes = grown;
  group.view = viewOf(grown);
}

function sizeFor(bytes: number, atLeast: number): number {
  return Math.max(atLeast, Math.ceil(bytes / RECORD_HEADER_BYTES) * RECORD_HEADER_BYTES);
}
