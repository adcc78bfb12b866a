/**
 * What a run over a graph took: superstep by superstep what each shard did, and all that was asked of the shards.
 *
 * Invariant: an account is kept only for those who ask for one. A superstep stands in it when every shard has acknowledged it; one that is done
 * again after a worker was lost stands in it again, under its attempt. What was asked in vain is in the outcomes alone.
 */
import type { Coordinator } from "../coordinator.ts";
import { type AskedShard, ShardAccount, sumsOf } from "../shard-account.ts";
import type { Exchange, SuperstepAck, SuperstepOrder } from "./run-messages.ts";

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
  /** Of the order's body, and of its answer. These and `queueUs` are 0 in supersteps but the first of an order. */
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
  /** The superstep with which the order began that this one was part of. */
  readonly orderedWith: number;
  /** Until the last shard had done it, in us; of the first of an order also what ordering and acknowledging took. */
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
  /** Everything that was asked of each shard: to build, to begin, to do a superstep, to say whether a program is done, to keep the result. */
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

  /** Does an order with an account of its own, which counts here too. */
  async order(
    { superstep, count: ordered, attempt, receive, save }: SuperstepOrder,
    ask: (account: ShardAccount) => Promise<SuperstepAck[][]>,
  ): Promise<SuperstepAck[][]> {
    const account = new ShardAccount();
    const startedMs = this.#coordinator.nowMs();
    let acks: SuperstepAck[][];
    try {
      acks = await ask(account);
    } finally {
      this.add(account);
    }
    const asked = account.outcomes();
    const count = (acks[0] as SuperstepAck[]).length;
    const elapsedUs = Array.from({ length: count }, (_, at) =>
      Math.max(...acks.map((shard) => (shard[at] as SuperstepAck).elapsedUs)),
    );
    const orderUs = (this.#coordinator.nowMs() - startedMs) * 1000 - elapsedUs.reduce((sum, us) => sum + us, 0);
    for (let at = 0; at < count; at++) {
      this.#supersteps.push({
        superstep: superstep + at,
        attempt,
        exchange: receive,
        saved: save && at === ordered - 1,
        orderedWith: superstep,
        totalUs: (elapsedUs[at] as number) + (at === 0 ? Math.max(0, orderUs) : 0),
        shards: asked.map((outcome, place) => shardSuperstep(outcome, at === 0, (acks[place] as SuperstepAck[])[at])),
      });
    }
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

function shardSuperstep(
  { shard, queueUs, bytesSent, bytes }: AskedShard,
  isFirst: boolean,
  ack: SuperstepAck | undefined,
): ShardSuperstep {
  const { active, sent, received, pushedBytes, serviceUs } = ack as SuperstepAck;
  const sum = sent.reduce((total, count) => total + count, 0);
  const order = isFirst ? { queueUs, bytesSent, bytes } : { queueUs: 0, bytesSent: 0, bytes: 0 };
  return { shard, active, sent: sum, received, pushedBytes, serviceUs, ...order };
}
