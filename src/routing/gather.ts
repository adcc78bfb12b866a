/**
 * Turns what became of the parts of a plan into one answer, by policy, and tells how complete it is.
 *
 * Invariant: `planned` is fixed at creation; every planned part ends in exactly one outcome, an empty answer is an
 * answer, and what is missing is never silent: it is in `outcomes` with its error. A gather that nobody answered is a
 * failure under every policy.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";

/** How one planned part ended. */
export type OutcomeStatus = "answered" | "empty" | "failed" | "timed-out" | "unavailable" | "stale";

/** How one planned part ended, whoever answered for it in the end. */
export interface ShardOutcome {
  /** The shard that was planned; `NO_SHARD` (0xffff) where no copy could be planned. */
  readonly shard: number;
  /** Shards whose answers count, in the order of arrival: one, unless the part was split over several copies. */
  readonly servedBy: readonly number[];
  /** `answered` or `empty` only when every vshard of the part was answered. */
  readonly status: OutcomeStatus;
  /** Items in the answers that count. */
  readonly count: number;
  /** vshards of the part. */
  readonly vshards: number;
  /** Those of them that were answered. */
  readonly vshardsAnswered: number;
  /** Requests sent for the part, hedges included. */
  readonly attempts: number;
  /** Requests among them that were hedges. */
  readonly hedges: number;
  /** Longest wait before a handler, of the answers that count, in us. */
  readonly queueUs: number;
  /** Longest run of a handler, of the answers that count, in us. */
  readonly serviceUs: number;
  /** From the begin of the call to the end of the part, in us. */
  readonly latencyUs: number;
  /** Bytes of the answers that count. */
  readonly bytes: number;
  /** Present unless the part was answered. */
  readonly error?: ShardloomError;
}

/** How much of what was planned was answered. */
export interface Completeness {
  /** Parts of the plan: its targets, and one for each group of vshards that no copy could be planned for. */
  readonly planned: number;
  readonly answered: number;
  /** Parts answered with nothing; they count as answered too. */
  readonly empty: number;
  readonly failed: number;
  readonly timedOut: number;
  readonly unavailable: number;
  /** Parts that no copy was fresh enough for. */
  readonly stale: number;
  /** Whether every planned part was answered. */
  readonly complete: boolean;
  /** Where each part is about every vshard, as in searches that a strategy sends to some shards, they are shared out among the parts. */
  readonly vshards: { readonly planned: number; readonly answered: number };
  /** One per part, ascending by shard. */
  readonly outcomes: readonly ShardOutcome[];
}

/** What a gather does when a shard gives no answer. */
export type PartialPolicy = "fail" | "allow";

/**
 * When a gather has its answer.
 *
 * - `all`: when every part was answered; the first part that fails for good fails the call.
 * - `quorum`: when a majority of the planned parts (or `{ quorum: n }` of them) was answered; the rest is given up.
 * - `best-effort`: when every part has ended, by the deadline at the latest, with whatever came.
 */
export type GatherPolicy = "all" | "quorum" | "best-effort" | { readonly quorum: number };

/** Answers of the parts that gave one, in the order of the plan, and the record of all. */
export interface Gathered<T> {
  readonly answers: readonly T[];
  readonly completeness: Completeness;
}

/** Collects the outcomes of a fixed number of parts. */
export class Gather<T> {
  readonly promise: Promise<Gathered<T>>;
  /** Whether the first failure ends the call. */
  readonly failsFast: boolean;
  readonly #planned: number;
  readonly #needed: number;
  readonly #outcomes: (ShardOutcome | undefined)[];
  readonly #answers: (readonly T[] | undefined)[];
  #ended = 0;
  #answered = 0;
  #settled = false;
  #resolve!: (gathered: Gathered<T>) => void;
  #reject!: (error: ShardloomError) => void;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a quorum larger than the plan. */
  constructor(planned: number, policy: GatherPolicy) {
    this.#planned = planned;
    this.failsFast = policy === "all";
    this.#needed = quorumOf(planned, policy);
    this.#outcomes = new Array<ShardOutcome | undefined>(planned).fill(undefined);
    this.#answers = new Array<readonly T[] | undefined>(planned).fill(undefined);
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    if (planned === 0) this.#settle();
  }

  /** Whether the caller has been answered; later outcomes change nothing. */
  get settled(): boolean {
    return this.#settled;
  }

  /** Whether enough parts were answered: the others may be ended as not needed. */
  get enough(): boolean {
    return this.#answered >= this.#needed;
  }

  /** Whether a part has ended. */
  hasEnded(index: number): boolean {
    return this.#outcomes[index] !== undefined;
  }

  /**
   * Records how a part ended; only the first word on a part counts.
   *
   * @param index The part's place in the plan.
   * @param answers What it answered, also when it did not answer whole.
   * @param excused Whether the caller has said beforehand that this part may be missing.
   */
  end(index: number, outcome: ShardOutcome, answers: readonly T[], excused = false): void {
    if (this.#settled || this.#outcomes[index] !== undefined) return;
    this.#outcomes[index] = outcome;
    this.#answers[index] = answers;
    this.#ended++;
    const { error } = outcome;
    if (error === undefined) this.#answered++;
    else if (this.failsFast && !excused) return this.abort(error);
    else if (this.#needed !== Infinity && this.#answered + this.#planned - this.#ended < this.#needed)
      return this.abort(this.#quorumMissed(error));
    if (this.#ended === this.#planned) this.#settle();
  }

  /** Ends the gather at once, whatever is still missing. */
  abort(error: ShardloomError): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#reject(error);
  }

  #settle(): void {
    this.#settled = true;
    const outcomes = this.#outcomes as ShardOutcome[];
    const completeness = summarize(outcomes);
    const error = outcomes.find((outcome) => outcome.error !== undefined)?.error;
    if (completeness.vshards.answered === 0 && completeness.answered === 0 && error !== undefined) this.#reject(error);
    else this.#resolve({ answers: flat(this.#answers), completeness });
  }

  #quorumMissed(error: ShardloomError): ShardloomError {
    const failed = this.#ended - this.#answered;
    return new ShardloomError(
      error.code,
      `Cannot gather a quorum of ${this.#needed} of ${this.#planned} parts as ${failed} failed, the last with: ${error.message}`,
      { cause: error, details: { planned: this.#planned, needed: this.#needed, answered: this.#answered, failed } },
    );
  }
}

function flat<T>(lists: readonly (readonly T[] | undefined)[]): T[] {
  const all: T[] = [];
  for (const list of lists) if (list !== undefined) all.push(...list);
  return all;
}

/** The status that an error stands for. */
export function statusOf(error: ShardloomError): OutcomeStatus {
  switch (error.code) {
    case "ERR_TIMEOUT":
      return "timed-out";
    case "ERR_UNAVAILABLE":
      return "unavailable";
    case "ERR_STALE_REPLICA":
    case "ERR_STALE_EPOCH":
      return "stale";
    default:
      return "failed";
  }
}

/** The outcome of a part that one shard was asked for once. @param vshards Of the part. @default 1 */
export function plainOutcome(shard: number, count: number, error?: ShardloomError, vshards = 1): ShardOutcome {
  const answered = error === undefined;
  return {
    shard,
    servedBy: answered ? [shard] : [],
    status: error === undefined ? (count === 0 ? "empty" : "answered") : statusOf(error),
    count,
    vshards,
    vshardsAnswered: answered ? vshards : 0,
    attempts: 1,
    hedges: 0,
    queueUs: 0,
    serviceUs: 0,
    latencyUs: 0,
    bytes: 0,
    ...(answered ? {} : { error }),
  };
}

/**
 * Parts that must answer for the call to have its answer early; infinity: all are waited for.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for what is no policy, and for a quorum larger than the plan.
 */
export function quorumOf(planned: number, policy: GatherPolicy): number {
  if (policy === "all" || policy === "best-effort") return Number.POSITIVE_INFINITY;
  if (policy === "quorum") return Math.floor(planned / 2) + 1;
  if (typeof policy !== "object" || policy === null)
    throw invalidArgument("gather answers", "gather", '"all", "quorum", "best-effort" or { quorum }', policy);
  const { quorum } = policy;
  if (!Number.isInteger(quorum) || quorum < 1 || quorum > planned)
    throw invalidArgument("gather answers", "quorum", `an integer between 1 and ${planned} (parts)`, quorum);
  return quorum;
}

/** The record of these outcomes, as that of one gather. */
export function summarize(outcomes: readonly ShardOutcome[]): Completeness {
  const counts = { answered: 0, empty: 0, failed: 0, "timed-out": 0, unavailable: 0, stale: 0 };
  let planned = 0;
  let answered = 0;
  for (const { status, vshards, vshardsAnswered } of outcomes) {
    counts[status]++;
    planned += vshards;
    answered += vshardsAnswered;
  }
  return {
    planned: outcomes.length,
    answered: counts.answered + counts.empty,
    empty: counts.empty,
    failed: counts.failed,
    timedOut: counts["timed-out"],
    unavailable: counts.unavailable,
    stale: counts.stale,
    complete: counts.answered + counts.empty === outcomes.length,
    vshards: { planned, answered },
    outcomes: outcomes.toSorted((a, b) => a.shard - b.shard),
  };
}
