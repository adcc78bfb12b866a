/**
 * What became of one question about a graph: whom it asked, how often, and where the time and the bytes went.
 *
 * Questions about graphs go straight to the shards that own the vertices: there is one copy of each, so no replica is chosen and none is
 * hedged. They go on in rounds, as the answers to one say what to ask next.
 *
 * Invariant: an account is made only for those who ask for one, and tells what was counted until it is looked at.
 */
import type { Coordinator } from "../coordinator.ts";
import { type AskedShard, ShardAccount, sumsOf } from "../shard-account.ts";

/** What a question had to do with one shard. */
export type GraphOutcome = AskedShard;

/** How a question about a graph was answered. */
export interface GraphExplanation {
  /** Who was to be asked: the shards that own the vertices, each for its own. */
  readonly plan: { readonly kind: "graph"; readonly topologyEpoch: number; readonly shards: number };
  /** From the call to its result, in us: with what the client did between the rounds. */
  readonly totalUs: number;
  /** Questions that were put: for batches of vertices, or pages of them; those for properties to each shard by itself. */
  readonly rounds: number;
  /** Of these, those that were asked for again, as a shard had changed or its worker was lost. */
  readonly repeats: number;
  /** One per shard that was asked, ascending. */
  readonly outcomes: readonly GraphOutcome[];
  /** Sums over the outcomes; graphs have one copy, so that nothing is hedged. */
  readonly attempts: number;
  readonly hedges: 0;
  readonly bytes: number;
}

/** An option: whether the result comes with its explanation, or who is told it. */
export type ExplainGraph = boolean | ((explanation: GraphExplanation) => void);

/** Counts for one question. */
export class GraphAccount extends ShardAccount {
  #rounds = 0;
  #repeats = 0;
  readonly #topologyEpoch: number;
  readonly #coordinator: Coordinator;
  readonly #startedMs: number;

  constructor(coordinator: Coordinator) {
    super();
    this.#topologyEpoch = coordinator.snapshot.topologyEpoch;
    this.#coordinator = coordinator;
    this.#startedMs = coordinator.nowMs();
  }

  /** Counts a question. */
  put(again: boolean): void {
    this.#rounds++;
    if (again) this.#repeats++;
  }

  /** @param shards Of the graph. */
  explain(shards: number): GraphExplanation {
    const outcomes = this.outcomes();
    return {
      plan: { kind: "graph", topologyEpoch: this.#topologyEpoch, shards },
      totalUs: (this.#coordinator.nowMs() - this.#startedMs) * 1000,
      rounds: this.#rounds,
      repeats: this.#repeats,
      outcomes,
      hedges: 0,
      ...sumsOf(outcomes),
    };
  }
}
