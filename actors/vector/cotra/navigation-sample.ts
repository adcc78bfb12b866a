/**
 * Where collaborative searches begin: at the medoids of the leaves nearest to the query, by the leaf table that all shards of the node know; and
 * where there is none, at the vertices nearest to it out of a small sample of the graph.
 *
 * Of medoids no distance is told: whoever computes for them does that, so that no code is read for the way in. Of a sample codes are read where they
 * lie, and count as moved.
 * Invariant: the sample has at most {@link MOST_SAMPLED} vertices, about one in {@link SHARE}, and is at most {@link KEPT_MS} old; entry vertices that
 * partitions offer are among it, so that it is never empty while anything is linked, and so are landmarks, at once. What it leads to may be gone:
 * searches find out.
 * Source: the replicated navigation index of CoTra. Divergence: the leaf table, which is one for all threads of a node.
 */
import { ELEMENT } from "../../../native-bridge/kernels.ts";
import type { RegionRef } from "../../../native-bridge/region-layout.ts";
import { leafOfFlags, versionOfFlags } from "../../../src/store/graph-layout.ts";
import { MAX_LANDMARK_ENTRIES } from "../graph/graph-view.ts";
import type { LeafPlacer } from "../graph/leaf-placer.ts";
import type { ArenaView } from "./arena-view.ts";
import type { Pairs } from "./message-bytes.ts";

const MOST_SAMPLED = 128;
const SHARE = 200;
const KEPT_MS = 1000;
/** Vertices of a sample that a search begins with: their shards take part. */
const ENTRIES = 8;
/** What is read of a medoid that is another shard's: whether it is there. */
const WORD_BYTES = 4;

/** A shard's part in a graph. */
export interface SharedGraph {
  readonly root: RegionRef;
  readonly placer: Pick<LeafPlacer, "medoidsNear">;
}

/** What a {@link NavigationSample} reads. */
export interface NavigationOptions {
  readonly view: ArenaView;
  /** The graph, as its collection knows it now. */
  readonly graph: () => SharedGraph | undefined;
  readonly nowMs: () => number;
}

export class NavigationSample {
  /** Distances that the last {@link entries} computed, and bytes that it read of other shards' vertices. */
  computed = 0;
  bytes = 0;
  readonly #options: NavigationOptions;
  #vertices: Int32Array = new Int32Array(0);
  #landmarks: readonly number[] = [];
  /** Landmarks by leaf, and what they were grouped of. */
  #grouped: {
    readonly of: readonly number[];
    readonly version: number;
    readonly byLeaf: ReadonlyMap<number, readonly number[]>;
  } = { of: [], version: 0, byLeaf: new Map() };
  #generation = -1;
  #madeAtMs = 0;

  constructor(options: NavigationOptions) {
    this.#options = options;
  }

  /** The entries for a query, nearest first; those whose distance is not a number are to be computed by who has them. */
  entries(query: Uint8Array): Pairs {
    const medoids = this.#medoids(query);
    if (medoids.length > 0)
      return { vertices: Int32Array.from(medoids), distances: new Float32Array(medoids.length).fill(Number.NaN) };
    const { view, nowMs } = this.#options;
    const now = nowMs();
    const landmarks = view.landmarks();
    const isOld = this.#generation !== view.generation || now - this.#madeAtMs >= KEPT_MS;
    if (isOld || landmarks !== this.#landmarks) this.#draw(now, landmarks);
    this.computed = this.#vertices.length;
    this.bytes = this.#foreign(this.#vertices) * view.codeBytes;
    return view.nearest(query, this.#vertices, ENTRIES);
  }

  /** Medoids of the leaves near a query that are there, and landmarks of these leaves; none while the leaves are not known. */
  #medoids(query: Uint8Array): number[] {
    const { view, graph } = this.#options;
    const code = view.geometry?.element === ELEMENT.F32 ? new Float32Array(query.slice().buffer) : query;
    const near = graph()?.placer.medoidsNear(code);
    if (near === undefined) return [];
    const landmarks = this.#landmarksOf(near.version);
    const begin = near.leaves.flatMap((leaf, at) => [near.vertices[at] as number, ...(landmarks.get(leaf) ?? [])]);
    const medoids = begin.filter((vertex) => vertex >= 0 && view.usedRecordOf(vertex) !== 0);
    this.computed = near.computed;
    this.bytes = this.#foreign(medoids) * WORD_BYTES;
    return medoids;
  }

  /** Landmarks by leaf. */
  #landmarksOf(version: number): ReadonlyMap<number, readonly number[]> {
    const { view } = this.#options;
    const landmarks = view.landmarks();
    if (this.#grouped.of === landmarks && this.#grouped.version === version) return this.#grouped.byLeaf;
    const byLeaf = new Map<number, number[]>();
    for (const vertex of landmarks) {
      const flags = view.flagsOf(vertex);
      if (flags === 0 || versionOfFlags(flags) !== version) continue;
      const leaf = leafOfFlags(flags);
      byLeaf.set(leaf, [...(byLeaf.get(leaf) ?? []), vertex]);
    }
    this.#grouped = { of: landmarks, version, byLeaf };
    return byLeaf;
  }

  #foreign(vertices: ArrayLike<number>): number {
    const { view } = this.#options;
    return Array.from(vertices).filter((vertex) => view.partitionOf(vertex) !== view.self).length;
  }

  #draw(now: number, landmarks: readonly number[]): void {
    const { view } = this.#options;
    const drawn = view.spread(SHARE, MOST_SAMPLED);
    const offered = view.offered();
    const few = offered.slice(0, Math.max(1, Math.min(offered.length, ENTRIES)));
    this.#vertices = Int32Array.from(new Set([...drawn, ...few, ...landmarks.slice(0, MAX_LANDMARK_ENTRIES)]));
    this.#landmarks = landmarks;
    this.#generation = view.generation;
    this.#madeAtMs = now;
  }
}
