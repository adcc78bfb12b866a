/**
 * What a caller gives an executor: the plan, and how to send, cancel and read.
 *
 * Invariant: the executor calls `send` only with targets whose vshards are a part of the plan's (or of a newer plan's),
 * each of them at most once at a time but for hedges, and reads a reply only inside the call that brings it.
 */
import type { ShardloomError } from "../errors.ts";
import type { GatherPolicy } from "./gather.ts";
import type { HedgePolicy } from "./hedge.ts";
import type { Decoded } from "./part.ts";
import type { ReplyFrame, ReplySink, RequestHeader } from "./pending-request.ts";
import type { Plan, PlanTarget, UnavailablePolicy } from "./plan.ts";

/** What stands for a request that was sent. The executor only gives it back, to be cancelled. */
export type SentRequest = object;

/** What one call may do. */
export interface CallLimits {
  /** Requests of the call that are under way at once, hedges included; the rest waits. @default 64 */
  readonly maxConcurrentShards: number;
  /** Requests for one piece, the first included; a hedge does not count. @default 3 */
  readonly maxAttempts: number;
  /** Shortest time that an attempt gets, in ms, unless less is left. @default 5 */
  readonly minAttemptMs: number;
  /** When to ask a second copy: after the shard's observed p95, after so many ms, never. @default "p95" */
  readonly hedgeAfter: HedgePolicy;
}

/** One call. */
export interface ExecutionCall<T> {
  readonly plan: Plan;
  /** By the caller's clock, in ms. */
  readonly deadlineAtMs: number;
  /** Whether asking twice is the same as asking once: only then is anything retried or hedged. */
  readonly idempotent: boolean;
  /**
   * Plans these vshards with the newest topology. The plan may have more vshards; those are passed over. Without it, a
   * stale map and waiting for a copy are failures.
   */
  readonly replan?: ((vshards: Uint16Array) => Plan) | undefined;
  /**
   * Sends one request; may throw when it cannot. Targets made by the executor after a failure carry no more than is named
   * in `PlanTarget` by its executor-facing fields (`shard`, `vshards`, `whole`): what else belongs to a request follows
   * from its vshards.
   */
  send(target: PlanTarget, header: RequestHeader, deadlineAtMs: number, sink: ReplySink, nowMs: number): SentRequest;
  /** Ends a request that was sent to a shard, as `Requester.cancel`. */
  cancel(shard: number, request: SentRequest, error: ShardloomError): void;
  /** Reads a reply while it is in place; what it throws is a definite failure. */
  decode(frame: ReplyFrame, target: PlanTarget): Decoded<T>;
  /** @default "all" */
  readonly policy?: GatherPolicy | undefined;
  /** About vshards that no copy may answer for, at first or after planning anew. @default "fail" */
  readonly unavailable?: UnavailablePolicy | undefined;
  /** As in the envelope: bulk is never hedged. @default `PRIORITY.NORMAL` */
  readonly priority?: number | undefined;
  /** Whose call it is, for the envelope. @default 0 */
  readonly tenant?: number | undefined;
  readonly limits?: Partial<CallLimits> | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Tells when the topology changes until the returned function is called; waiting looks then, and now and then anyway. */
  readonly watch?: ((changed: () => void) => () => void) | undefined;
}
