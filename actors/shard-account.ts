/**
 * Counts requests to single shards: how many, how often they were answered, and where their time and bytes went.
 *
 * Invariant: every request is counted when it is sent, and once more when it is answered; what failed is the difference.
 */
import type { ReplyFrame } from "../src/routing/requester.ts";

/** What was asked of one shard. */
export interface AskedShard {
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

type Decode<T> = (frame: ReplyFrame, offset: number, length: number) => T;
type Counted = { -readonly [K in keyof AskedShard]: AskedShard[K] };

export class ShardAccount {
  readonly #shards: Map<number, Counted> = new Map();

  sent(shard: number, bytes: number): void {
    const outcome = this.#of(shard);
    outcome.attempts++;
    outcome.bytesSent += bytes;
  }

  answered(shard: number, { queueUs, serviceUs, length }: Pick<ReplyFrame, "queueUs" | "serviceUs" | "length">): void {
    const outcome = this.#of(shard);
    outcome.answered++;
    outcome.bytes += length;
    outcome.queueUs = Math.max(outcome.queueUs, queueUs);
    outcome.totalQueueUs += queueUs;
    outcome.serviceUs = Math.max(outcome.serviceUs, serviceUs);
    outcome.totalServiceUs += serviceUs;
  }

  /** Counts a request that is sent now, and its answer when that is decoded. */
  counting<T>(shard: number, bytes: number, decode: Decode<T>): Decode<T> {
    this.sent(shard, bytes);
    return (frame, offset, length) => {
      this.answered(shard, frame);
      return decode(frame, offset, length);
    };
  }

  /** Takes in what another has counted. */
  add(other: ShardAccount): void {
    for (const { shard, queueUs, serviceUs, ...sums } of other.#shards.values()) {
      const outcome = this.#of(shard);
      outcome.queueUs = Math.max(outcome.queueUs, queueUs);
      outcome.serviceUs = Math.max(outcome.serviceUs, serviceUs);
      outcome.attempts += sums.attempts;
      outcome.answered += sums.answered;
      outcome.totalQueueUs += sums.totalQueueUs;
      outcome.totalServiceUs += sums.totalServiceUs;
      outcome.bytesSent += sums.bytesSent;
      outcome.bytes += sums.bytes;
    }
  }

  /** As it is now, one per shard that was asked, ascending. */
  outcomes(): AskedShard[] {
    return [...this.#shards.values()].map((outcome) => ({ ...outcome })).sort((a, b) => a.shard - b.shard);
  }

  #of(shard: number): Counted {
    const none = { attempts: 0, answered: 0, queueUs: 0, totalQueueUs: 0, serviceUs: 0, totalServiceUs: 0 };
    const outcome = this.#shards.get(shard) ?? { shard, ...none, bytesSent: 0, bytes: 0 };
    this.#shards.set(shard, outcome);
    return outcome;
  }
}

/** Sums that every explanation has. */
export function sumsOf(outcomes: readonly Pick<AskedShard, "attempts" | "bytes">[]): {
  readonly attempts: number;
  readonly bytes: number;
} {
  return {
    attempts: outcomes.reduce((sum, { attempts }) => sum + attempts, 0),
    bytes: outcomes.reduce((sum, { bytes }) => sum + bytes, 0),
  };
}
