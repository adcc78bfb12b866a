/**
 * A scan of the vertices that pass a filter: of their codes where they stand, or, once the same ones were scanned a few times, of copies that lie
 * one after the other, which is about three times as fast.
 *
 * Invariant: what is copied is what was listed: the copies are given up when one of the vertices is taken for something else, or the list changes.
 * Distances are for choosing whose documents are read, as everywhere; a copy that was torn costs recall until its vertex tells of the change.
 * One thread only. The memory is the thread's own; copies are made in room that the filters of a thread share, and never when memory is short.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES } from "../../../native-bridge/cell-layout.ts";
import { type Kernels, METRIC } from "../../../native-bridge/kernels.ts";
import { ShardloomError } from "../../../src/errors.ts";
import type { GraphGeometry } from "../../../src/store/graph-layout.ts";
import { TopList } from "../routing/top-list.ts";

/** Scans of the same vertices before their codes are copied: what that takes is about what two scans save. */
const SCANS_BEFORE_COPY = 3;
/** Scans until it is tried again, as there was no room. */
const SCANS_BEFORE_RETRY = 64;
/** Bytes of a scan's work for each vertex: its address, its distance. */
const WORK_BYTES = 12;

/** The vertices of a chunk that pass, ascending. */
export interface PassingChunk {
  readonly address: number;
  readonly vertices: Int32Array;
}

/** What a scan found: vertices, nearest first, ties by vertex, and their distances. Valid until the next scan. */
export interface NearestPassing {
  readonly vertices: Int32Array;
  readonly distances: Float64Array;
}

/** Memory that copies may take, of all filters of a thread. */
export interface CopyRoom {
  /** @returns whether there is room; what was used least recently may be given up for it */
  claim(scan: PassingScan, byteLength: number): boolean;
}

interface Block {
  readonly address: number;
  readonly byteLength: number;
}

const NO_BLOCK: Block = { address: 0, byteLength: 0 };

export class PassingScan {
  readonly #arena: Arena;
  readonly #room: CopyRoom | undefined;
  #work: Block = NO_BLOCK;
  #copies: Block = NO_BLOCK;
  #vertices: Int32Array = new Int32Array(0);
  /** Whether the list is that of what passes. */
  #isListed = false;
  #scansBeforeCopy = 0;
  #readsRecords = false;
  #best: TopList = new TopList(0);

  /** @param room Without it nothing is copied. */
  constructor(arena: Arena, room?: CopyRoom) {
    this.#arena = arena;
    this.#room = room;
  }

  /** Bytes of the copies. */
  get copyBytes(): number {
    return this.#copies.byteLength;
  }

  /** What passes is not what it was, or one of them is another document's now. */
  changed(): void {
    this.#isListed = false;
    this.dropCopies();
  }

  /** The vertices nearest by their codes, of all that pass. @throws {ShardloomError} `ERR_OUT_OF_MEMORY`. */
  nearest(
    chunks: readonly (PassingChunk | undefined)[],
    geometry: GraphGeometry,
    kernels: Kernels,
    code: Uint8Array,
    most: number,
  ): NearestPassing {
    const { metric, element, dimensions } = geometry;
    this.#list(chunks, geometry);
    const count = this.#vertices.length;
    const { bytes, f64 } = this.#arena;
    const records = this.#work.address;
    const out = (records + 4 * count + 15) & ~15;
    const query = out + 8 * count;
    bytes.set(code, query);
    const norm = metric === METRIC.COSINE ? kernels.inverseNorm(element, query, dimensions) : 0;
    const codeOffset = this.#copies.byteLength > 0 ? CELL_HEADER_BYTES : geometry.codeOffset;
    kernels.distancesAt(metric, element, dimensions, query, norm, codeOffset, records, count, out);
    const room = Math.min(most, count);
    if (this.#best.limit !== room) this.#best = new TopList(room);
    return nearestOf(this.#best, this.#vertices, f64, out >>> 3);
  }

  /** Whether what is listed is scanned where it is, as there was no room for copies. */
  get lacksRoom(): boolean {
    return this.#isListed && this.#scansBeforeCopy > SCANS_BEFORE_COPY;
  }

  /** Whether the last scan read the vertices' own records, which are to be checked then; else copies that were checked when they were made. */
  get readsRecords(): boolean {
    return this.#readsRecords;
  }

  /** Gives up the copies: they are made anew when the vertices were scanned again. */
  dropCopies(): void {
    if (this.#copies.byteLength === 0) return;
    this.#arena.free(this.#copies.address, this.#copies.byteLength);
    this.#copies = NO_BLOCK;
    this.#isListed = false;
  }

  /** Gives the memory back. */
  close(): void {
    this.changed();
    if (this.#work.byteLength > 0) this.#arena.free(this.#work.address, this.#work.byteLength);
    this.#work = NO_BLOCK;
  }

  /** Writes where the records of all that pass are, or their copies. */
  #list(chunks: readonly (PassingChunk | undefined)[], geometry: GraphGeometry): void {
    if (!this.#isListed) {
      this.#vertices = joined(chunks.flatMap((chunk) => (chunk === undefined ? [] : [chunk.vertices])));
      this.#ensure(WORK_BYTES * this.#vertices.length + geometry.codeBytes + 64);
      let word = this.#work.address >>> 2;
      const mask = (1 << geometry.chunkShift) - 1;
      for (const chunk of chunks)
        for (const vertex of chunk?.vertices ?? [])
          this.#arena.u32[word++] = (chunk?.address ?? 0) + (vertex & mask) * geometry.stride;
      this.#isListed = true;
      this.#scansBeforeCopy = SCANS_BEFORE_COPY;
    }
    this.#readsRecords = this.#copies.byteLength === 0;
    if (this.#readsRecords && this.#scansBeforeCopy-- === 0 && !this.#copy(geometry))
      this.#scansBeforeCopy = SCANS_BEFORE_RETRY;
  }

  /** Copies the records' headers, which tell the codes' lengths, and codes. @returns whether there was room */
  #copy({ codeOffset, codeBytes }: GraphGeometry): boolean {
    const stride = (CELL_HEADER_BYTES + codeBytes + 15) & ~15;
    const byteLength = (this.#vertices.length * stride + 63) & ~63;
    if (byteLength === 0 || this.#room?.claim(this, byteLength) !== true) return false;
    try {
      this.#copies = { address: this.#arena.allocate(byteLength), byteLength };
    } catch (error) {
      if (ShardloomError.is(error) && error.code === "ERR_OUT_OF_MEMORY") return false;
      throw error;
    }
    const { bytes, u32 } = this.#arena;
    let word = this.#work.address >>> 2;
    let copy = this.#copies.address;
    for (let left = this.#vertices.length; left > 0; left--, copy += stride) {
      const record = u32[word] as number;
      bytes.copyWithin(copy, record, record + CELL_HEADER_BYTES);
      bytes.copyWithin(copy + CELL_HEADER_BYTES, record + codeOffset, record + codeOffset + codeBytes);
      u32[word++] = copy;
    }
    return true;
  }

  #ensure(needed: number): void {
    if (needed <= this.#work.byteLength) return;
    const byteLength = (Math.max(needed, 2 * this.#work.byteLength) + 63) & ~63;
    const address = this.#arena.allocate(byteLength);
    if (this.#work.byteLength > 0) this.#arena.free(this.#work.address, this.#work.byteLength);
    this.#work = { address, byteLength };
  }
}

function joined(lists: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(lists.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const list of lists) {
    all.set(list, at);
    at += list.length;
  }
  return all;
}

/** The vertices of the smallest distances. What has no distance is farthest. */
function nearestOf(best: TopList, vertices: Int32Array, distances: Float64Array, first: number): NearestPassing {
  best.clear();
  let { bound } = best;
  for (let at = 0; at < vertices.length; at++) {
    const distance = distances[first + at] as number;
    if (best.count === best.limit && !(distance < bound)) continue; // as all before it have smaller numbers
    best.offer(vertices[at] as number, Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance);
    bound = best.bound;
  }
  return { vertices: best.ids, distances: best.distances };
}
