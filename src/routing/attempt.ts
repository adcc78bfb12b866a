/**
 * One request for a piece of a part: who is asked for which vshards, after whom, and where it stands.
 *
 * Invariant: `waiting` → `sent` → `ended`, or `waiting` → `ended`, and never back: another try is another attempt.
 * Whoever ends an attempt sets its state before he does anything that could call back.
 */
import type { ShardloomError } from "../errors.ts";
import type { Due } from "./due-queue.ts";
import type { SentRequest } from "./execution-call.ts";
import type { Answered, Part } from "./part.ts";
import type { ReplyFrame, ReplySink } from "./pending-request.ts";
import type { Plan, PlanTarget } from "./plan.ts";

/** What an attempt tells of itself to the execution that it belongs to. */
export interface AttemptOwner<T> {
  onReply(attempt: Attempt<T>, frame: ReplyFrame): void;
  onFailure(attempt: Attempt<T>, error: ShardloomError): void;
  /** Its pause is over, or it is time to hedge it. */
  onAttemptDue(attempt: Attempt<T>, nowMs: number): void;
  onQueueClosed(): void;
}

/** The second way to the answer of one attempt: its vshards, asked of their next copies. */
export interface Hedge<T> {
  readonly original: Attempt<T>;
  readonly children: Attempt<T>[];
  /** Children without an answer. */
  missing: number;
  /** Whether both ways are still open. */
  live: boolean;
}

/** One request, before, while and after it is under way. */
export class Attempt<T> implements ReplySink, Due {
  dueAtMs = 0;
  dueIndex = -1;
  state: "waiting" | "sent" | "ended" = "waiting";
  sentAtMs = 0;
  deadlineAtMs = 0;
  /** Whether it is the one request that looks whether its shard is back. */
  probe = false;
  pending: SentRequest | undefined = undefined;
  /** The second way to its answer, when it was hedged. */
  hedge: Hedge<T> | undefined = undefined;
  /** The hedge that it is a part of. */
  within: Hedge<T> | undefined = undefined;
  /** Its answer, while its hedge has not won. */
  held: Answered<T> | undefined = undefined;
  readonly owner: AttemptOwner<T>;
  readonly part: Part<T>;
  readonly plan: Plan;
  readonly target: PlanTarget;
  /** Copies asked for these vshards before, the latest last. */
  readonly tried: readonly number[];
  /** Requests for these vshards before this one. */
  readonly number: number;
  /** Plans for these vshards before this one's, that their shards refused. */
  readonly replans: number;
  /** Why the one before it failed. */
  readonly cause: ShardloomError | undefined;

  constructor(
    owner: AttemptOwner<T>,
    part: Part<T>,
    plan: Plan,
    target: PlanTarget,
    tried: readonly number[],
    number: number,
    replans: number,
    cause: ShardloomError | undefined,
  ) {
    this.owner = owner;
    this.part = part;
    this.plan = plan;
    this.target = target;
    this.tried = tried;
    this.number = number;
    this.replans = replans;
    this.cause = cause;
  }

  /** Requests for these vshards before this one that a shard may have worked on. */
  get tries(): number {
    return this.number - this.replans;
  }

  /** Copies asked so far, this one included. */
  triedBy(): number[] {
    return [...this.tried, this.target.shard];
  }

  onReply(frame: ReplyFrame): void {
    this.owner.onReply(this, frame);
  }

  onFailure(error: ShardloomError): void {
    this.owner.onFailure(this, error);
  }

  onDue(nowMs: number): void {
    this.owner.onAttemptDue(this, nowMs);
  }

  onQueueClosed(): void {
    this.owner.onQueueClosed();
  }
}
