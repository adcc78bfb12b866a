/**
 * Where collaborative searches begin: the vertices nearest to the query out of a small sample of the graph, which every shard knows.
 *
 * Invariant: the sample has at most {@link MOST_SAMPLED} vertices, about one in {@link SHARE}, and is at most {@link KEPT_MS} old; entry vertices that
 * partitions offer are among it, so that it is never empty while anything is linked, and so are landmarks, at once. What it leads to may be gone: searches find out.
 * Source: the replicated navigation index of CoTra. Divergence: in one memory it is a list of vertices, whose codes are read where they lie.
 */
import { MAX_LANDMARK_ENTRIES } from "../graph/graph-view.ts";
import type { ArenaView } from "./arena-view.ts";
import type { Pairs } from "./message-bytes.ts";

const MOST_SAMPLED = 128;
const SHARE = 200;
const KEPT_MS = 1000;
/** Vertices that a search begins with: their shards take part. */
const ENTRIES = 8;

export class NavigationSample {
  readonly #view: ArenaView;
  readonly #nowMs: () => number;
  #vertices: Int32Array = new Int32Array(0);
  #landmarks: readonly number[] = [];
  #generation = -1;
  #madeAtMs = 0;

  constructor(view: ArenaView, nowMs: () => number) {
    this.#view = view;
    this.#nowMs = nowMs;
  }

  /** Distances that the last {@link entries} computed. */
  get size(): number {
    return this.#vertices.length;
  }

  /** The entries for a query, nearest first. */
  entries(query: Uint8Array): Pairs {
    const now = this.#nowMs();
    const landmarks = this.#view.landmarks();
    const isOld = this.#generation !== this.#view.generation || now - this.#madeAtMs >= KEPT_MS;
    if (isOld || landmarks !== this.#landmarks) this.#draw(now, landmarks);
    return this.#view.nearest(query, this.#vertices, ENTRIES);
  }

  #draw(now: number, landmarks: readonly number[]): void {
    const drawn = this.#view.spread(SHARE, MOST_SAMPLED);
    const offered = this.#view.offered();
    const few = offered.slice(0, Math.max(1, Math.min(offered.length, ENTRIES)));
    this.#vertices = Int32Array.from(new Set([...drawn, ...few, ...landmarks.slice(0, MAX_LANDMARK_ENTRIES)]));
    this.#landmarks = landmarks;
    this.#generation = this.#view.generation;
    this.#madeAtMs = now;
  }
}
