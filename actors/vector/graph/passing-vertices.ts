/**
 * The vertices of a graph whose documents pass a filter, kept by a thread that searches: bits that the search kernel reads, and lists that are
 * scanned where few pass (passing-scan.ts).
 *
 * Invariant: a document that passes and does not wait to be linked has its bit once `update` said so: a chunk is walked again when it tells of a
 * change, which it does before the row stops waiting. Bits may stand for documents that are gone or do not pass any more: who reads the rows asks
 * the filter again. One thread only. The memory is the thread's own.
 * Cost: a payload is looked at once for each vertex that is taken, a chunk's headers whenever it has changed.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { USER0, USER1, USER2, USER3, VERSION_LOW } from "../../../native-bridge/cell-layout.ts";
import type { KernelChunk } from "../../../native-bridge/graph-kernels.ts";
import type { Kernels } from "../../../native-bridge/kernels.ts";
import { type GraphGeometry, VERTEX_FLAG } from "../../../src/store/graph-layout.ts";
import type { GraphView } from "./graph-view.ts";
import { type CopyRoom, type NearestPassing, PassingScan } from "./passing-scan.ts";

/** The version that the document of a vertex has ({@link versionBits}), if it passes; {@link FAILS}; undefined: that cannot be told now. */
export type PassesAt = (address: number, incarnation: number, shard: number) => number | undefined;

/** What does not pass. */
export const FAILS = -1;

/** What a document's version is told apart by. */
export function versionBits(low: number): number {
  return low & 0x7fff_ffff;
}

interface Chunk {
  /** As the chunk said before it was walked; −1: it has to be walked again. */
  changes: number;
  readonly address: number;
  /** Version of each vertex when its document was looked at; −1: it was not. */
  readonly versions: Int32Array;
  /** Version of each document when it was found to pass; −1: it was not. */
  readonly passed: Int32Array;
  vertices: Int32Array;
}

const UNKNOWN = -1;

export class PassingVertices {
  /** Vertices that passed when they were looked at. */
  count = 0;
  readonly #arena: Arena;
  #chunks: (Chunk | undefined)[] = [];
  #chunkShift = 0;
  #bits = { address: 0, byteLength: 0 };
  readonly #scan: PassingScan;

  /** @param room For copies of what passes. @default none are made */
  constructor(arena: Arena, room?: CopyRoom) {
    this.#arena = arena;
    this.#scan = new PassingScan(arena, room);
  }

  /** Byte offset of the bitmap over vertices, and its bits. */
  get address(): number {
    return this.#bits.address;
  }

  get bits(): number {
    return this.#bits.byteLength * 8;
  }

  /**
   * Looks at what has changed, at most so many documents of vertices that were not known.
   *
   * @param view A current one.
   * @returns Whether all that passes is known.
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY`.
   */
  update(view: GraphView, most: number, passes: PassesAt): boolean {
    const { chunks, geometry } = view;
    const changes = geometry === undefined ? undefined : view.readChanges();
    if (geometry === undefined || changes === undefined) return false;
    this.#ensure(chunks.length << geometry.chunkShift);
    this.#chunkShift = geometry.chunkShift;
    let left = most;
    let whole = true;
    for (let number = 0; number < chunks.length; number++) {
      const address = chunks[number]?.address ?? 0;
      let chunk = this.#chunks[number];
      if (chunk !== undefined && chunk.address === address && chunk.changes === changes(number)) continue;
      if (address === 0) {
        if (chunk !== undefined) this.#forget(number, chunk);
        continue;
      }
      if (chunk === undefined || chunk.address !== address) {
        if (chunk !== undefined) this.#forget(number, chunk);
        const column = (): Int32Array => new Int32Array(1 << geometry.chunkShift).fill(UNKNOWN);
        chunk = { changes: UNKNOWN, address, versions: column(), passed: column(), vertices: new Int32Array(0) };
        this.#chunks[number] = chunk;
      }
      if (left <= 0) {
        chunk.changes = UNKNOWN;
        whole = false;
        continue;
      }
      const looked = this.#walk(number, chunk, geometry, left, passes);
      left -= looked < 0 ? left : looked;
      chunk.changes = looked < 0 ? UNKNOWN : changes(number);
      if (looked < 0) whole = false;
    }
    return whole;
  }

  /** Whether a vertex' document passed in that version. */
  passed(vertex: number, version: number): boolean {
    const shift = this.#chunkShift;
    return this.#chunks[vertex >>> shift]?.passed[vertex & ((1 << shift) - 1)] === version;
  }

  /** Whether nothing has changed since the last update that was whole. */
  isCurrent(view: GraphView): boolean {
    const changes = view.readChanges();
    return (
      changes !== undefined &&
      view.chunks.every(({ address }, number) => address === 0 || this.#chunks[number]?.changes === changes(number))
    );
  }

  /**
   * The vertices that pass and are nearest by their codes: all of them are looked at.
   *
   * @returns Undefined when a chunk changed hands.
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY`.
   */
  nearest(view: GraphView, kernels: Kernels, code: Uint8Array, most: number): NearestPassing | undefined {
    if (view.geometry === undefined) return undefined;
    const found = this.#scan.nearest(this.#chunks, view.geometry, kernels, code, most);
    const isGood = ({ stampAddress, stamp }: KernelChunk): boolean =>
      stampAddress === 0 || Atomics.load(this.#arena.i32, stampAddress >>> 2) === stamp;
    if (!this.#scan.readsRecords || view.chunks.every(isGood)) return found;
    this.#scan.changed();
    return undefined;
  }

  /** What scans them. */
  get scan(): PassingScan {
    return this.#scan;
  }

  /** Gives the memory back. */
  close(): void {
    const { address, byteLength } = this.#bits;
    if (byteLength > 0) this.#arena.free(address, byteLength);
    this.#bits = { address: 0, byteLength: 0 };
    this.#scan.close();
    this.#chunks = [];
    this.count = 0;
  }

  /** Looks at the vertices of a chunk whose documents are not known. @returns how many; −1 when some are not known still */
  #walk(number: number, chunk: Chunk, geometry: GraphGeometry, most: number, passes: PassesAt): number {
    const { i32, u32 } = this.#arena;
    const { chunkShift, stride } = geometry;
    const passing: number[] = [];
    let looked = 0;
    let whole = true;
    let isOther = false;
    for (let slot = 0; slot < 1 << chunkShift; slot++) {
      const word = (chunk.address + slot * stride) >>> 2;
      const version = Atomics.load(i32, word + VERSION_LOW);
      const vertex = (number << chunkShift) | slot;
      if (chunk.versions[slot] !== version) {
        const document = u32[word + USER0] as number;
        const isGone = document === 0 || ((i32[word + USER3] as number) & VERTEX_FLAG.TOMBSTONE) !== 0;
        const [incarnation, shard] = [i32[word + USER1] as number, i32[word + USER2] as number];
        let passed: number | undefined = FAILS;
        if (!isGone && looked < most) {
          passed = passes(document, incarnation, shard);
          looked++;
        } else if (!isGone) passed = undefined;
        // What is being written now tells of a change when it is done.
        const isRead = Atomics.load(i32, word + VERSION_LOW) === version;
        if (passed === undefined) whole = false;
        chunk.versions[slot] = passed !== undefined && isRead ? version : UNKNOWN;
        chunk.passed[slot] = passed ?? UNKNOWN;
        isOther ||= passed !== FAILS || this.#has(vertex);
        this.#set(vertex, passed !== FAILS);
      }
      if (this.#has(vertex)) passing.push(vertex);
    }
    if (isOther) {
      this.count += passing.length - chunk.vertices.length;
      chunk.vertices = Int32Array.from(passing);
      this.#scan.changed();
    }
    return whole ? looked : -1;
  }

  #forget(number: number, { vertices }: Chunk): void {
    for (const vertex of vertices) this.#set(vertex, false);
    this.count -= vertices.length;
    this.#chunks[number] = undefined;
    this.#scan.changed();
  }

  #has(vertex: number): boolean {
    return (((this.#arena.u32[(this.#bits.address >>> 2) + (vertex >>> 5)] as number) >>> (vertex & 31)) & 1) === 1;
  }

  #set(vertex: number, passes: boolean): void {
    const { u32 } = this.#arena;
    const word = (this.#bits.address >>> 2) + (vertex >>> 5);
    const bit = 1 << (vertex & 31);
    u32[word] = passes ? (u32[word] as number) | bit : (u32[word] as number) & ~bit;
  }

  /** Room for the bits of so many vertices. */
  #ensure(vertices: number): void {
    const byteLength = (((vertices + 31) >>> 5) * 4 + 63) & ~63;
    const { byteLength: before, address } = this.#bits;
    if (byteLength <= before) return;
    const room = Math.max(byteLength, 2 * before);
    const wider = this.#arena.allocate(room);
    const { bytes } = this.#arena;
    bytes.copyWithin(wider, address, address + before);
    bytes.fill(0, wider + before, wider + room);
    if (before > 0) this.#arena.free(address, before);
    this.#bits = { address: wider, byteLength: room };
  }
}
