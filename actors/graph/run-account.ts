/**
 * What a run over a graph took: superstep by superstep what each shard did, and all that was asked of the shards.
 *
 * Invariant: an account is kept only for those who ask for one. A superstep stands in it when every shard has acknowledged it; one that is done
 * again after a worker was lost stands in it again, under its attempt. What was asked in vain is in the outcomes alone.
 */
import type { Coordinator } from "../coordinator.ts";
import { type AskedShard, ShardAccount, sumsOf } from "../shard-account.ts";
import type { Exchange, SuperstepAck, SuperstepRequest } from "./run-messages.ts";

/** What one shard did in one superstep. */
export interface ShardSuperstep {
  readonly shard: number;
  /** Vertices that have sent, or will compute without being sent to. */
  readonly active: number;
  /** Values that it pushed, to itself too, and that were pushed to it; none where values are pulled. */
  readonly sent: number;
  readonly received: number;
  /** Of its messages with values to other shards. */
  readonly pushedBytes: number;
  /** How long the order waited, and how long the shard then computed, pushed and took in; not how long it waited for the others. In us. */
  readonly queueUs: number;
  readonly serviceUs: number;
  /** Of the order's body, and of the acknowledgement. */
  readonly bytesSent: number;
  readonly bytes: number;
}

/** One superstep. */
export interface SuperstepExplanation {
  readonly superstep: number;
  /** 1, and one more after each worker that was lost. */
  readonly attempt: number;
  /** How values came: pushed as messages, pulled out of the senders' memory, or not at all, in the first. */
  readonly exchange: Exchange;
  /** Whether it was saved, to go on from. */
  readonly saved: boolean;
  /** From the order to the last acknowledgement, in us. */
  readonly totalUs: number;
  /** In shard order. */
  readonly shards: readonly ShardSuperstep[];
}

/** How a run came to its result. */
export interface RunExplanation {
  readonly plan: {
    readonly kind: "run";
    readonly algorithm: string;
    readonly exchange: "auto" | "push" | "pull";
    readonly checkpointEvery: number;
    readonly topologyEpoch: number;
    readonly shards: number;
  };
  /** From the call to the result, in us. */
  readonly totalUs: number;
  /** As they were done. */
  readonly supersteps: readonly SuperstepExplanation[];
  /** Everything that was asked of each shard: to build, to begin, to do a superstep, to keep the result. */
  readonly outcomes: readonly AskedShard[];
  /** Sums over the outcomes; a graph has one copy, so that nothing is hedged. */
  readonly attempts: number;
  readonly hedges: 0;
  readonly bytes: number;
  /** Of all messages with values from shard to shard. */
  readonly pushedBytes: number;
}

/** An option: whether the result comes with its explanation, or who is told it. */
export type ExplainRun = boolean | ((explanation: RunExplanation) => void);

/** Keeps the account of one run. */
export class RunAccount extends ShardAccount {
  readonly #coordinator: Coordinator;
  readonly #startedMs: number;
  readonly #topologyEpoch: number;
  readonly #supersteps: SuperstepExplanation[] = [];

  constructor(coordinator: Coordinator) {
    super();
    this.#coordinator = coordinator;
    this.#startedMs = coordinator.nowMs();
    this.#topologyEpoch = coordinator.snapshot.topologyEpoch;
  }

  /** Does a superstep with an account of its own, which counts here too. */
  async superstep(
    { superstep, attempt, receive, save }: SuperstepRequest,
    ask: (account: ShardAccount) => Promise<SuperstepAck[]>,
  ): Promise<SuperstepAck[]> {
    const account = new ShardAccount();
    const startedMs = this.#coordinator.nowMs();
    let acks: SuperstepAck[];
    try {
      acks = await ask(account);
    } finally {
      this.add(account);
    }
    this.#supersteps.push({
      superstep,
      attempt,
      exchange: receive,
      saved: save,
      totalUs: (this.#coordinator.nowMs() - startedMs) * 1000,
      shards: account.outcomes().map(({ shard, queueUs, serviceUs, bytesSent, bytes }, at) => {
        const { active, sent, received, pushedBytes } = acks[at] as SuperstepAck;
        const sum = sent.reduce((total, count) => total + count, 0);
        return { shard, active, sent: sum, received, pushedBytes, queueUs, serviceUs, bytesSent, bytes };
      }),
    });
    return acks;
  }

  explain(plan: Pick<RunExplanation["plan"], "algorithm" | "exchange" | "checkpointEvery" | "shards">): RunExplanation {
    const outcomes = this.outcomes();
    const { algorithm, exchange, checkpointEvery, shards } = plan;
    return {
      plan: { kind: "run", algorithm, exchange, checkpointEvery, topologyEpoch: this.#topologyEpoch, shards },
      totalUs: (this.#coordinator.nowMs() - this.#startedMs) * 1000,
      supersteps: this.#supersteps,
      outcomes,
      ...sumsOf(outcomes),
      hedges: 0,
      pushedBytes: this.#supersteps
        .flatMap(({ shards: each }) => each)
        .reduce((sum, { pushedBytes }) => sum + pushedBytes, 0),
    };
  }
}
