/**
 * Where collaborative searches begin: at the medoids of the leaves nearest to the query, by the leaf table that all shards of the node know; and
 * where there is none, at the vertices nearest to it out of a small sample of the graph.
 *
 * Of medoids no distance is told: whoever computes for them does that, so that no code is read for the way in. Of a sample codes are read where they
 * lie, and count as moved.
 * Invariant: the sample has at most {@link MOST_SAMPLED} vertices, about one in {@link SHARE}, and is at most {@link KEPT_MS} old; entry vertices that
 * partitions offer are among it, so that it is never empty while anything is linked. What it leads to may be gone: searches find out.
 * Source: the replicated navigation index of CoTra. Divergence: the leaf table, which is one for all threads of a node.
 */
import { ELEMENT } from "../../../native-bridge/kernels.ts";
import type { RegionRef } from "../../../native-bridge/region-layout.ts";
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
    if (this.#generation !== view.generation || now - this.#madeAtMs >= KEPT_MS) this.#draw(now);
    this.computed = this.#vertices.length;
    this.bytes = this.#foreign(this.#vertices) * view.codeBytes;
    return view.nearest(query, this.#vertices, ENTRIES);
  }

  /** Medoids of the leaves near a query that are there; none while the leaves are not known. */
  #medoids(query: Uint8Array): number[] {
    const { view, graph } = this.#options;
    const code = view.geometry?.element === ELEMENT.F32 ? new Float32Array(query.slice().buffer) : query;
    const near = graph()?.placer.medoidsNear(code);
    if (near === undefined) return [];
    const medoids = near.vertices.filter((vertex) => view.usedRecordOf(vertex) !== 0);
    this.computed = near.computed;
    this.bytes = this.#foreign(medoids) * WORD_BYTES;
    return medoids;
  }

  #foreign(vertices: ArrayLike<number>): number {
    const { view } = this.#options;
    return Array.from(vertices).filter((vertex) => view.partitionOf(vertex) !== view.self).length;
  }

  #draw(now: number): void {
    const { view } = this.#options;
    const drawn = view.spread(SHARE, MOST_SAMPLED);
    const offered = view.offered();
    const few = offered.slice(0, Math.max(1, Math.min(offered.length, ENTRIES)));
    this.#vertices = Int32Array.from(new Set([...drawn, ...few]));
    this.#generation = view.generation;
    this.#madeAtMs = now;
  }
}
