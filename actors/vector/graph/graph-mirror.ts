/**
 * Copies of those vertices of a graph that a batch of searches has come to, in which each of them is done as if it had the whole graph.
 *
 * Vertices are copied in pages of neighbours in memory, each by one read of its cell. A search meets the same empty page wherever there is no copy
 * yet, which is how it is known which pages it needs: it is done again when they are there, until it needs none. So it finds what it would have
 * found in place, and the searches of a batch need about as many rounds as the longest of them has hops.
 * Invariant: a page that searches see was copied whole, each vertex in one version under a good key; nothing is copied twice. One thread only.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { USER0, USER1, USER2, USER3 } from "../../../native-bridge/cell-layout.ts";
import { GraphKernels, type KernelChunk } from "../../../native-bridge/graph-kernels.ts";
import { STATUS } from "../../../native-bridge/status.ts";
import { OPCODE } from "../../../native-bridge/verbs.ts";
import { type GraphGeometry, VERTEX_FLAG } from "../../../src/store/graph-layout.ts";
import type { PostedLists } from "../posted-lists.ts";
import type { MutableRef } from "../shard-view.ts";
import type { Slices } from "../slices.ts";
import type { GraphView } from "./graph-view.ts";

/** What a vertex stands for. */
export interface VertexDocument {
  readonly address: number;
  readonly incarnation: number;
  readonly shard: number;
}

/** Pages of a graph, about: each costs a word to every search. */
const MOST_PAGES = 4096;
/** Vertices of a page, as a shift, at least. */
const LEAST_SHIFT = 3;
/** Pages that are taken from the arena at a time. */
const SLAB_PAGES = 64;
/** Rounds in which a vertex was being written to each time it was read. */
const MOST_RETRIES = 16;
/** Share of the free memory that copies may take. */
const MEMORY_SHARE = 0.25;

export class GraphMirror {
  readonly #arena: Arena;
  readonly #view: GraphView;
  readonly #lists: PostedLists;
  readonly #kernels: GraphKernels;
  readonly #geometry: GraphGeometry;
  readonly #shift: number;
  #pages: KernelChunk[] = [];
  readonly #slabs: number[] = [];
  #empty = 0;
  readonly #spareBytes: number;
  /** Pages to be copied in the next round. */
  #wanted: number[] = [];
  readonly #ref: MutableRef = { address: 0, rkey: 0, length: 0 };
  #used: number = SLAB_PAGES;
  #retries = 0;

  /** @param view Current. @throws {ShardloomError} `ERR_OUT_OF_MEMORY` */
  constructor(arena: Arena, module: WebAssembly.Module, view: GraphView, lists: PostedLists) {
    const { geometry, chunks } = view as { geometry: GraphGeometry; chunks: readonly KernelChunk[] };
    this.#arena = arena;
    this.#view = view;
    this.#lists = lists;
    this.#geometry = geometry;
    const most = Math.log2((chunks.length << geometry.chunkShift) / MOST_PAGES);
    this.#shift = Math.min(geometry.chunkShift, Math.max(LEAST_SHIFT, Math.ceil(most)));
    this.#spareBytes = arena.stats().freeBytes * MEMORY_SHARE;
    this.#kernels = new GraphKernels(module, arena, { ...geometry, chunkShift: this.#shift });
    const count = chunks.length << (geometry.chunkShift - this.#shift);
    try {
      this.#empty = arena.allocate(this.#pageBytes);
      this.#pages = Array.from({ length: count }, (_, page) => {
        const isThere = (chunks[page >>> (geometry.chunkShift - this.#shift)] as KernelChunk).address !== 0;
        return { address: isThere ? this.#empty : 0, partition: page, stampAddress: 0, stamp: 0 };
      });
      this.#kernels.setChunks(this.#pages, count);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Of the last search. */
  get distances(): number {
    return this.#kernels.distances;
  }

  /** Whether the last search was led to nothing: then pages are of different times, between which a vertex came, moved or went. */
  get isTorn(): boolean {
    return this.#kernels.dangling + this.#kernels.damaged > 0;
  }

  /**
   * Searches in what is there.
   *
   * @returns How many vertices were found; −1 when it takes more pages, which the next {@link fetch} brings.
   */
  search(code: Uint8Array, entries: readonly number[], ef: number): number {
    this.#kernels.setEntries(entries);
    const found = this.#kernels.search(code, { ef, countReads: true });
    let isWhole = true;
    for (let page = 0; page < this.#pages.length; page++) {
      if (this.#pages[page]?.address !== this.#empty || this.#kernels.readsOf(page) === 0) continue;
      isWhole = false;
      if (this.#lists.wants(page)) this.#wanted.push(page);
    }
    return isWhole ? found : -1;
  }

  /** The document of a vertex that the last search found; undefined when it has none. */
  documentOf(index: number): VertexDocument | undefined {
    const word = this.#kernels.addressOf(this.#kernels.resultVertex(index)) >>> 2;
    const { i32, u32 } = this.#arena;
    const address = u32[word + USER0] as number;
    if (address === 0 || ((i32[word + USER3] as number) & VERTEX_FLAG.TOMBSTONE) !== 0) return undefined;
    return { address, incarnation: i32[word + USER1] as number, shard: i32[word + USER2] as number };
  }

  /** Distance of a vertex that was found. */
  distanceOf(index: number): number {
    return this.#kernels.resultDistance(index);
  }

  /**
   * Copies the pages that searches need: one list to each peer.
   *
   * @returns SUCCESS; or why a page cannot be read from here, after which nothing more can be.
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY`
   */
  *fetch(): Slices<number> {
    this.#widen();
    const size = 1 << this.#shift;
    const copies: number[] = [];
    for (const page of this.#wanted) {
      const to = this.#take();
      if (to === 0) return STATUS.LOCAL_LENGTH_ERROR;
      copies.push(to);
      for (let slot = 0; slot < size; slot++) {
        const vertex = page * size + slot;
        if (!this.#view.vertexRef(vertex, this.#ref)) return STATUS.INVALID_RKEY;
        const localOffset = to + slot * this.#geometry.stride;
        const request = { opcode: OPCODE.READ, ref: { ...this.#ref }, local: this.#arena.bytes, localOffset };
        this.#lists.add(this.#view.partitionOf(vertex), vertex, request);
      }
      yield;
    }
    let failed: number = STATUS.SUCCESS;
    const torn = new Set<number>();
    yield* this.#lists.post((vertex, status) => {
      if (status === STATUS.RETRY_EXCEEDED) torn.add(vertex >>> this.#shift);
      else if (status !== STATUS.SUCCESS) failed = status;
    });
    for (const [at, page] of this.#wanted.entries())
      if (!torn.has(page)) this.#pages[page] = { ...(this.#pages[page] as KernelChunk), address: copies[at] as number };
    this.#wanted = [];
    this.#kernels.setChunks(this.#pages, this.#pages.length);
    if (torn.size > 0 && ++this.#retries > MOST_RETRIES) return STATUS.RETRY_EXCEEDED;
    return failed;
  }

  /** Who needs most of what there is takes all of it, and is spared the rounds for the rest. */
  #widen(): void {
    const missing = [...this.#pages.keys()].filter((page) => this.#pages[page]?.address === this.#empty);
    const slabs = Math.ceil(missing.length / SLAB_PAGES) + this.#slabs.length;
    if (this.#wanted.length * 2 < missing.length || slabs * this.#slabBytes > this.#spareBytes) return;
    this.#wanted.push(...missing.filter((page) => this.#lists.isUnwanted(page)));
  }

  /** Gives all memory back. */
  close(): void {
    this.#kernels.close();
    if (this.#empty !== 0) this.#arena.free(this.#empty, this.#pageBytes);
    for (const slab of this.#slabs) this.#arena.free(slab, this.#slabBytes);
  }

  get #pageBytes(): number {
    return this.#geometry.stride << this.#shift;
  }

  get #slabBytes(): number {
    return this.#pageBytes * SLAB_PAGES;
  }

  /** Room for a page, 0 when copies have taken what they may. */
  #take(): number {
    if (this.#used === SLAB_PAGES) {
      if ((this.#slabs.length + 1) * this.#slabBytes > this.#spareBytes) return 0;
      this.#slabs.push(this.#arena.allocate(this.#slabBytes));
      this.#used = 0;
    }
    return (this.#slabs.at(-1) as number) + this.#used++ * this.#pageBytes;
  }
}
