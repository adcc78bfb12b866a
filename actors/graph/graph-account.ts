/**
 * What became of one question about a graph: whom it asked, how often, and where the time and the bytes went.
 *
 * Questions about graphs go straight to the shards that own the vertices: there is one copy of each, so no replica is chosen and none is
 * hedged. They go on in rounds, as the answers to one say what to ask next.
 *
 * Invariant: every request is counted when it is sent, and once more when it is answered; what failed is the difference.
 */
import type { ReplyFrame } from "../../src/routing/requester.ts";

/** What a question had to do with one shard. */
export interface GraphOutcome {
  readonly shard: number;
  /** Requests sent to it, and those that it answered; the others failed. */
  readonly attempts: number;
  readonly answered: number;
  /** Longest wait of a request before its handler, and sum of all, in us. */
  readonly queueUs: number;
  readonly totalQueueUs: number;
  /** Longest run of a handler, and sum of all, in us. */
  readonly serviceUs: number;
  readonly totalServiceUs: number;
  /** Bytes of the requests' bodies, and of the answers'. */
  readonly bytesSent: number;
  readonly bytes: number;
}

/** How a question about a graph was answered. */
export interface GraphExplanation {
  /** Who was to be asked: the shards that own the vertices, each for its own. */
  readonly plan: { readonly kind: "graph"; readonly topologyEpoch: number; readonly shards: number };
  /** From the call to its result, in us: with what the client did between the rounds. */
  readonly totalUs: number;
  /** Batches of vertices, or pages of them, that were asked for one after the other. */
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

type Counted = { -readonly [K in keyof GraphOutcome]: GraphOutcome[K] };

/** Counts for one question. */
export class GraphAccount {
  readonly #shards: Map<number, Counted> = new Map();
  rounds = 0;
  repeats = 0;

  sent(shard: number, bytes: number): void {
    const outcome = this.#of(shard);
    outcome.attempts++;
    outcome.bytesSent += bytes;
  }

  answered(shard: number, { queueUs, serviceUs, length }: ReplyFrame): void {
    const outcome = this.#of(shard);
    outcome.answered++;
    outcome.bytes += length;
    outcome.queueUs = Math.max(outcome.queueUs, queueUs);
    outcome.totalQueueUs += queueUs;
    outcome.serviceUs = Math.max(outcome.serviceUs, serviceUs);
    outcome.totalServiceUs += serviceUs;
  }

  explain(totalUs: number, topologyEpoch: number, shards: number): GraphExplanation {
    const outcomes = [...this.#shards.values()].sort((a, b) => a.shard - b.shard);
    const { rounds, repeats } = this;
    return {
      plan: { kind: "graph", topologyEpoch, shards },
      totalUs,
      rounds,
      repeats,
      outcomes,
      attempts: outcomes.reduce((sum, { attempts }) => sum + attempts, 0),
      hedges: 0,
      bytes: outcomes.reduce((sum, { bytes }) => sum + bytes, 0),
    };
  }

  #of(shard: number): Counted {
    const none = { attempts: 0, answered: 0, queueUs: 0, totalQueueUs: 0, serviceUs: 0, totalServiceUs: 0 };
    const outcome = this.#shards.get(shard) ?? { shard, ...none, bytesSent: 0, bytes: 0 };
    this.#shards.set(shard, outcome);
    return outcome;
  }
}
