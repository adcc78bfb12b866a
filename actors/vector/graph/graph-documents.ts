/**
 * The exact distances of documents that a search of the graph came upon, read one-sidedly from their rows.
 *
 * Invariant: SUCCESS means that the row held that document, in one version of the cell, under a key that was good: a document
 * that was deleted is NOT_FOUND at once, one that was updated has its new distance.
 * One thread only: it shares its verbs, and its kernels are in a scan from `begin` on.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { INCARNATION, USER0 } from "../../../native-bridge/cell-layout.ts";
import { ELEMENT, type Kernels } from "../../../native-bridge/kernels.ts";
import { STATUS } from "../../../native-bridge/status.ts";
import type { Verbs } from "../../../native-bridge/verbs.ts";
import { rowsInChunk } from "../../../src/store/collection-layout.ts";
import { ATTEMPTS, NOT_FOUND } from "../row-reader.ts";
import type { ShardView } from "../shard-view.ts";

/** Words of a cache line. */
const LINE_WORDS = 16;

/** Status of a document that was read, and lies farther away now than the vertex that led to it: it is no reason to look at fewer others. */
export const MOVED = -4;

/** Where a search finds the documents behind its hits. */
export interface DocumentReader {
  /** Begins the hits of one query. */
  begin(query: Float32Array): void;
  /** Says that a document is about to be read, so that its memory may be fetched while others are. */
  expect?(address: number, shard: number): void;
  /** The same of what its row leads to, as soon as the rows of all that are expected may have come. */
  expectRecord?(address: number): void;
  /**
   * Reads one document.
   *
   * @returns SUCCESS with its exact distance in `distance`; NOT_FOUND when it is not there any more; MOVED; another status of
   * the verbs when it cannot be read now.
   *
   * @param vertex Which stands for it.
   * @param version Low word of the document's version whose vector is the vertex's code; 0: it is not known, or the distance is not.
   * @param distance Of that code; NaN: it is not known.
   */
  score(address: number, incarnation: number, shard: number, vertex: number, version: number, distance: number): number;
  /** Of the last document that was read with SUCCESS. */
  readonly distance: number;
}

/** What is needed of a shard's view to find its rows. */
export type RowPlaces = Pick<ShardView, "geometry" | "chunkAddresses" | "chunkRkeys">;

/** The documents of a collection, in the rows of its shards. */
export class RowDocuments implements DocumentReader {
  distance = 0;
  readonly #arena: Arena;
  readonly #verbs: Verbs;
  readonly #kernels: Kernels;
  readonly #metric: number;
  readonly #view: (shard: number) => RowPlaces | undefined;
  readonly #ref = { address: 0, rkey: 0, length: 0 };
  #touched = 0;

  /** @param view The current view of a shard, refreshed by the caller once a search; undefined when it cannot be read. */
  constructor(
    arena: Arena,
    verbs: Verbs,
    kernels: Kernels,
    metric: number,
    view: (shard: number) => RowPlaces | undefined,
  ) {
    this.#arena = arena;
    this.#verbs = verbs;
    this.#kernels = kernels;
    this.#metric = metric;
    this.#view = view;
  }

  begin(query: Float32Array): void {
    this.#kernels.beginScan(this.#metric, ELEMENT.F32, query, 1);
  }

  /** Loads a word of every line of a row: such loads miss the cache side by side, those of a sum one after the other. */
  expect(address: number, shard: number): void {
    const view = this.#view(shard);
    if (view === undefined || !this.#locate(view, address)) return;
    const { i32 } = this.#arena;
    const end = (address + view.geometry.stride) >>> 2;
    let sum = 0;
    for (let word = address >>> 2; word < end; word += LINE_WORDS) sum = (sum + (i32[word] as number)) | 0;
    this.#touched = sum;
  }

  /** What {@link expect} loaded last: of no use but that the loads have one. */
  get touched(): number {
    return this.#touched;
  }

  score(address: number, incarnation: number, shard: number): number {
    const view = this.#view(shard);
    if (view === undefined) return STATUS.REGION_REVOKED;
    if (!this.#locate(view, address)) return NOT_FOUND;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const begun = this.#verbs.beginInPlace(this.#ref);
      if (begun === STATUS.RETRY_EXCEEDED) continue;
      if (begun !== STATUS.SUCCESS) return begun;
      const word = address >>> 2;
      const there = this.#arena.i32[word + USER0] !== 0 && this.#arena.i32[word + INCARNATION] === incarnation;
      const distance = there ? this.#kernels.scoreCell(address) : 0;
      const ended = this.#verbs.endInPlace();
      if (ended === STATUS.RETRY_EXCEEDED) continue;
      if (ended !== STATUS.SUCCESS) return ended;
      this.distance = distance;
      return there ? STATUS.SUCCESS : NOT_FOUND;
    }
    return STATUS.RETRY_EXCEEDED;
  }

  /** Puts the row at an address in the reference; false when no row of the shard begins there. */
  #locate(view: RowPlaces, address: number): boolean {
    const { geometry, chunkAddresses, chunkRkeys } = view;
    for (let chunk = 0; chunk < chunkAddresses.length; chunk++) {
      const within = address - (chunkAddresses[chunk] as number);
      if (within < 0 || within >= rowsInChunk(geometry, chunk) * geometry.stride) continue;
      if (within % geometry.stride !== 0) return false;
      this.#ref.address = address;
      this.#ref.rkey = chunkRkeys[chunk] as number;
      this.#ref.length = geometry.stride;
      return true;
    }
    return false;
  }
}
