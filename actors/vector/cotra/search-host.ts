/**
 * The shard as one of its searches sees it.
 *
 * Invariant: no behaviour.
 */
import type { CotraCounters } from "./cotra-counters.ts";
import type { CotraMessage } from "./cotra-messages.ts";
import type { GraphView } from "./graph-view.ts";
import type { PrimarySearch } from "./primary-search.ts";

/** What a search needs of the shard that it runs on. */
export interface SearchHost {
  readonly view: GraphView;
  readonly counters: CotraCounters;
  send(to: number, message: CotraMessage): void;
  /** Computes distances of this shard's own vertices; `done` may be called at once or later, with whether another worker did it. */
  compute(query: Uint8Array, vertices: Int32Array, done: (distances: Float64Array, stolen: boolean) => void): void;
  /** The search is over and must be forgotten. */
  ended(search: PrimarySearch): void;
}
