/**
 * Search of the graph on a shard's thread, of all of it or of what the shard computes for alone: candidates, by their codes.
 *
 * Invariant: candidates are not hits: who asked for them reads the documents' rows before he believes in them. A search of one label is led
 * to no vertex of another, so its cost is that of a graph of so many vertices, less where it goes on from what another label's found.
 * One thread only; it shares its verbs.
 */
import { USER0, USER1, USER2, USER3 } from "../../../native-bridge/cell-layout.ts";
import type { GraphKernels, KernelChunk, KnownVertex } from "../../../native-bridge/graph-kernels.ts";
import { STATUS } from "../../../native-bridge/status.ts";
import type { Verbs } from "../../../native-bridge/verbs.ts";
import { VERTEX_DEGREE, VERTEX_FLAG, VERTEX_NEIGHBOURS } from "../../../src/store/graph-layout.ts";
import type { GraphRoot } from "./graph-root.ts";
import { GraphView, MAX_LANDMARK_ENTRIES } from "./graph-view.ts";
import { isLiveRecord } from "./vertex-record.ts";

/** A vertex that was found, and the document it stands for. */
export interface Candidate {
  readonly vertex: number;
  readonly address: number;
  readonly incarnation: number;
  readonly shard: number;
  readonly distance: number;
}

/** A vertex of another label that a candidate's list leads to. */
export interface Crossing {
  /** The shard that computes for it. */
  readonly shard: number;
  readonly vertex: number;
}

/** What searches of several labels tell each other. */
export interface Neighbourhood {
  /** Candidates of other labels, nearest first: what is farther than as many of them as are kept is left out. @default none */
  readonly known?: readonly KnownVertex[];
  /** Other labels whose vertices are told that candidates lead to. @default none */
  readonly others?: ArrayLike<number>;
}

const NO_CHUNK: KernelChunk = { address: 0, partition: 0, stampAddress: 0, stamp: 0 };
/** Searches while chunks change hands. */
const ATTEMPTS = 4;
/** Vertices where a search of one label begins that is told of none, or that was led to too little; and how often it begins again. */
const DEFAULT_ENTRIES = 16;
const MOST_ROUNDS = 4;
/** Candidates whose lists are looked at for crossings, and crossings that are told of one search. */
const MOST_LEADING = 128;
const MOST_CROSSINGS = 512;
const ALL = -1;

export class LabelSearch {
  /** Distances that the last search computed. */
  distances = 0;
  /** Where the last search's candidates lead to in the labels that it was told. */
  crossings: readonly Crossing[] = [];
  readonly #root: GraphRoot;
  readonly #view: GraphView;
  readonly #kernels: GraphKernels;
  #generation = -1;
  #label = ALL;

  constructor(root: GraphRoot, verbs: Verbs, kernels: GraphKernels) {
    this.#root = root;
    this.#view = new GraphView(root.arena, verbs);
    this.#kernels = kernels;
  }

  /**
   * @param label Whose vertices are searched; undefined: everybody's.
   * @param entries Vertices to begin at; those of other labels are left out.
   * @returns At most `wanted` candidates, nearest first; undefined when the graph cannot be read now.
   */
  run(
    code: Uint8Array,
    label: number | undefined,
    entries: readonly number[],
    ef: number,
    wanted: number,
    { known = [], others = [] }: Neighbourhood = {},
  ): Candidate[] | undefined {
    const kernels = this.#kernels;
    this.distances = 0;
    this.crossings = [];
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (this.#view.refresh(this.#root.ref) !== STATUS.SUCCESS) return undefined;
      this.#setChunks(label ?? ALL);
      const own = label === undefined ? entries : entries.filter((vertex) => this.#view.partitionOf(vertex) === label);
      let from = own.length > 0 ? own : this.#defaultEntries(label);
      let candidates: Candidate[] = [];
      let found = 0;
      for (let round = 1; ; round++) {
        kernels.setEntries(from);
        found = kernels.search(code, { ef: Math.max(ef, wanted), known });
        this.distances += kernels.distances;
        candidates = this.#candidates(found, wanted);
        // Where all that entries lead to is too little, and none was left out, the label's other vertices are led to from elsewhere.
        const isEnough = candidates.length >= wanted || found >= Math.max(ef, wanted);
        const more = isEnough || label === undefined || round === MOST_ROUNDS ? [] : this.#unreached(label, found);
        if (more.length === 0) break;
        from = [...from, ...more];
      }
      const crossings = this.#crossings(Math.min(found, wanted, MOST_LEADING), others);
      if (kernels.changedChunk() < 0) {
        this.crossings = crossings;
        return candidates;
      }
      this.#view.forget();
    }
    return undefined;
  }

  /** Chunks of one label, or all; by number. */
  chunksOf(label: number): readonly number[] | undefined {
    if (this.#view.refresh(this.#root.ref) !== STATUS.SUCCESS) return undefined;
    return this.#view.chunks.flatMap((chunk, number) =>
      chunk.address !== 0 && chunk.partition === label ? [number] : [],
    );
  }

  #setChunks(label: number): void {
    const { chunks, partitions, generation } = this.#view;
    if (generation === this.#generation && label === this.#label) return;
    this.#kernels.setChunks(
      label === ALL ? chunks : chunks.map((chunk) => (chunk.partition === label ? chunk : NO_CHUNK)),
      partitions,
    );
    this.#generation = generation;
    this.#label = label;
  }

  #defaultEntries(label: number | undefined): readonly number[] {
    if (label === undefined) return this.#view.readEntries();
    const entries: number[] = [];
    const { chunkShift, stride } = this.#root.geometry;
    for (const [number, { address, partition }] of this.#view.chunks.entries()) {
      if (address === 0 || partition !== label) continue;
      for (let slot = 0; slot < 1 << chunkShift && entries.length < DEFAULT_ENTRIES; slot++) {
        if (isLiveRecord(this.#root.arena, address + slot * stride)) entries.push((number << chunkShift) | slot);
      }
    }
    this.#view.readEntries();
    const landmarks = this.#view.landmarks.filter((vertex) => this.#view.partitionOf(vertex) === label);
    return [...new Set([...entries, ...landmarks.slice(0, MAX_LANDMARK_ENTRIES)])];
  }

  /** Some vertices of a label, all over it, that are none of the results. */
  #unreached(label: number, found: number): readonly number[] {
    const reached = new Set(Array.from({ length: found }, (_, index) => this.#kernels.resultVertex(index)));
    const { chunkShift, stride } = this.#root.geometry;
    const vertices: number[] = [];
    for (const [number, { address, partition }] of this.#view.chunks.entries()) {
      if (address === 0 || partition !== label) continue;
      for (let slot = 0; slot < 1 << chunkShift; slot++) {
        const vertex = (number << chunkShift) | slot;
        if (isLiveRecord(this.#root.arena, address + slot * stride) && !reached.has(vertex)) vertices.push(vertex);
      }
    }
    const step = Math.max(1, vertices.length / DEFAULT_ENTRIES);
    return Array.from(
      { length: Math.min(DEFAULT_ENTRIES, vertices.length) },
      (_, at) => vertices[Math.floor(at * step)] as number,
    );
  }

  #crossings(count: number, others: ArrayLike<number>): Crossing[] {
    const labels = new Set(Array.from(others));
    const crossings = new Map<number, Crossing>();
    const { i32 } = this.#root.arena;
    for (let index = 0; index < count && labels.size > 0 && crossings.size < MOST_CROSSINGS; index++) {
      const address = this.#kernels.addressOf(this.#kernels.resultVertex(index));
      const degree =
        address === 0 ? 0 : Math.min(i32[(address + VERTEX_DEGREE) >>> 2] as number, this.#root.geometry.degree);
      for (let at = 0; at < degree && crossings.size < MOST_CROSSINGS; at++) {
        const vertex = i32[((address + VERTEX_NEIGHBOURS) >>> 2) + at] as number;
        const shard = this.#view.partitionOf(vertex);
        if (labels.has(shard)) crossings.set(vertex, { shard, vertex });
      }
    }
    return [...crossings.values()];
  }

  /** The nearest results that are neither another label's nor gone by now. */
  #candidates(count: number, wanted: number): Candidate[] {
    const kernels = this.#kernels;
    const { i32, u32 } = this.#root.arena;
    const candidates: Candidate[] = [];
    for (let index = 0; index < count && candidates.length < wanted; index++) {
      const vertex = kernels.resultVertex(index);
      const word = kernels.addressOf(vertex) >>> 2;
      const address = u32[word + USER0] as number;
      if (word === 0 || address === 0 || ((i32[word + USER3] as number) & VERTEX_FLAG.TOMBSTONE) !== 0) continue;
      const [incarnation, shard] = [i32[word + USER1] as number, i32[word + USER2] as number];
      candidates.push({ vertex, address, incarnation, shard, distance: kernels.resultDistance(index) });
    }
    return candidates;
  }
}
