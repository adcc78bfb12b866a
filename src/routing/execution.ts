/**
 * One call: its parts, the requests that are under way for them, and what is done when one of those ends.
 *
 *   piece answered ───────────────▶ counts; vshards refused in it are pieces again
 *   refused, stale map ───────────▶ planned anew, as long as there is a newer map
 *   no answer, worth another try ─▶ next copies at once, or the same shard after a jittered pause; both from the retry budget
 *   slow ─────────────────────────▶ hedged: next copies as well, the first complete way wins
 *   breaker open ─────────────────▶ next copies, for nothing was sent; else lost
 *   anything else ────────────────▶ lost: policy `all` fails the call, the others record it
 *
 * Invariant: a vshard is in exactly one of: a piece that waits or is under way (with its hedge), a wait for a copy, an
 * answer that counts, or what was lost. Only idempotent calls are retried or hedged. Requests under way never exceed
 * `maxConcurrentShards`.
 * Divergence: the time that is left is split over the copies that are left, and the last gets it all: cutting short the
 * only copy would throw its work away to ask it again.
 */
import { ShardloomError } from "../errors.ts";
import { onceAborted } from "../runtime/abort.ts";
import { NO_SHARD } from "../topology/snapshot.ts";
import { PRIORITY } from "../wire/envelope-layout.ts";
import { Attempt, type AttemptOwner } from "./attempt.ts";
import { type Signal, signalOf } from "./breaker.ts";
import type { CallLimits, ExecutionCall } from "./execution-call.ts";
import { aborted, deadlineInPast, GIVEN_UP, notNeeded, OUTRUN, tooLate, unavailable } from "./execution-errors.ts";
import type { ExecutorState } from "./executor.ts";
import { Gather, type Gathered } from "./gather.ts";
import { dropHedge, promoteHedge, sendHedge, settleChild } from "./hedge-race.ts";
import { type Decoded, Part } from "./part.ts";
import type { ReplyFrame, RequestHeader } from "./pending-request.ts";
import type { Plan, UnavailableVshards } from "./plan.ts";
import { hasFallback } from "./regroup.ts";
import { redirect, retry, retryRefused } from "./retry.ts";
import { VshardWait } from "./vshard-wait.ts";

const NONE: readonly number[] = [];
/** Lent to `fallback` for one call at a time. */
const ONE_TRIED: number[] = [0];

/** One call under way. Methods that are not `run` or `abort` are for the files that deal with one kind of ending each. */
export class Execution<T> implements AttemptOwner<T> {
  readonly state: ExecutorState;
  readonly call: ExecutionCall<T>;
  readonly limits: CallLimits;
  readonly #gather: Gather<T>;
  readonly #parts: Part<T>[] = [];
  /** Pieces that wait for their turn; retries before first requests. */
  readonly #queue: Attempt<T>[] = [];
  /** Whatever was sent or paused, ended ones included. */
  readonly #begun: Attempt<T>[] = [];
  readonly #waits: VshardWait<T>[] = [];
  readonly #hedged: boolean;
  #header: RequestHeader;
  #startedMs = 0;
  #running = 0;
  #pumping = false;
  #released = false;
  #unlisten: (() => void) | undefined;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a quorum larger than the plan. */
  constructor(state: ExecutorState, call: ExecutionCall<T>, limits: CallLimits) {
    this.state = state;
    this.call = call;
    this.limits = limits;
    this.#gather = new Gather(call.plan.targets.length + call.plan.unavailable.length, call.policy ?? "all");
    this.#hedged = call.idempotent && limits.hedgeAfter !== "off" && (call.priority ?? PRIORITY.NORMAL) > PRIORITY.BULK;
    this.#header = { topologyEpoch: call.plan.snapshot.topologyEpoch, attempt: 0, tenant: call.tenant ?? 0 };
  }

  /** Sends the plan. Called once. */
  run(): Promise<Gathered<T>> {
    const { plan, signal, deadlineAtMs, unavailable: policy = "fail" } = this.call;
    const nowMs = this.state.clock.nowMs();
    this.#startedMs = nowMs;
    if (signal?.aborted === true) return Promise.reject(aborted(signal));
    if (!(deadlineAtMs > nowMs)) return Promise.reject(deadlineInPast(deadlineAtMs, nowMs));
    const [nobody] = plan.unavailable;
    if (nobody !== undefined && policy === "fail") return Promise.reject(unavailable(nobody));
    for (const target of plan.targets) {
      const part = this.#addPart(target.shard, target.vshards.length);
      part.open = 1;
      this.#queue.push(new Attempt(this, part, plan, target, NONE, 0, 0, undefined));
    }
    if (signal !== undefined) this.#unlisten = onceAborted(signal, () => this.abort(aborted(signal)));
    for (const group of plan.unavailable) {
      const part = this.#addPart(NO_SHARD, group.vshards.length);
      part.open = 1;
      this.giveUp(part, group, nowMs);
      this.leave(part, nowMs);
    }
    this.pump(nowMs);
    if (this.#gather.settled) this.#release(nowMs);
    return this.#gather.promise;
  }

  /** Ends the call now. */
  abort(error: ShardloomError): void {
    this.#gather.abort(error);
    this.#release(this.state.clock.nowMs());
  }

  /** Requests that may still be sent at once. */
  get spare(): number {
    return this.limits.maxConcurrentShards - this.#running;
  }

  /** A new piece of a part, which goes as soon as it may, before parts that have not begun. */
  enqueue(attempt: Attempt<T>): void {
    attempt.part.open++;
    this.#queue.unshift(attempt);
  }

  /** A new piece of a part, which goes later. */
  pause(attempt: Attempt<T>, untilMs: number, nowMs: number): void {
    attempt.part.open++;
    this.#begun.push(attempt);
    if (!this.#gather.settled) this.state.due.add(attempt, untilMs, nowMs);
  }

  /** Sends what waits, as far as it may. */
  pump(nowMs: number): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#running < this.limits.maxConcurrentShards && !this.#gather.settled) {
      const next = this.#queue.shift();
      if (next === undefined) break;
      this.start(next, nowMs);
    }
    this.#pumping = false;
  }

  /** Sends one request, if its shard's breaker lets it. */
  start(attempt: Attempt<T>, nowMs: number): void {
    const { call, state } = this;
    const { target, plan, within } = attempt;
    const { shard } = target;
    if (nowMs >= call.deadlineAtMs) {
      attempt.state = "ended";
      this.#failed(attempt, tooLate(shard, attempt.cause), nowMs);
      return;
    }
    const admitted = state.breakers.admit(shard, nowMs);
    if (admitted === "refused") {
      attempt.state = "ended";
      state.stats.passedOver++;
      if (within !== undefined) return settleChild(this, attempt, undefined, nowMs);
      redirect(this, attempt, nowMs);
      return this.leave(attempt.part, nowMs);
    }
    const canMove = call.idempotent && this.#canMove(attempt);
    attempt.probe = admitted === "probe";
    attempt.state = "sent";
    attempt.sentAtMs = nowMs;
    attempt.deadlineAtMs = canMove ? this.#shareOf(attempt, nowMs) : call.deadlineAtMs;
    attempt.part.attempts++;
    this.#running++;
    this.#begun.push(attempt);
    this.#count(attempt);
    state.loads.begin(shard);
    try {
      attempt.pending = call.send(target, this.#headerOf(plan, attempt.number), attempt.deadlineAtMs, attempt, nowMs);
    } catch (error) {
      return this.onFailure(attempt, ShardloomError.from(error));
    }
    if (!canMove || !this.#hedged || within !== undefined || attempt.state !== "sent") return;
    const hedgeAtMs = nowMs + state.hedger.delayMs(shard, this.limits.hedgeAfter);
    if (hedgeAtMs < attempt.deadlineAtMs) state.due.add(attempt, hedgeAtMs, nowMs);
  }

  onReply(attempt: Attempt<T>, frame: ReplyFrame): void {
    if (attempt.state !== "sent") return;
    const nowMs = this.state.clock.nowMs();
    const { part, target, within, hedge } = attempt;
    this.#ended(attempt, nowMs, true, "answered");
    let decoded: Decoded<T>;
    try {
      decoded = this.call.decode(frame, target);
    } catch (error) {
      this.#failed(attempt, ShardloomError.from(error, "ERR_CORRUPT"), nowMs);
      return this.pump(nowMs);
    }
    const { answer, items, refused } = decoded;
    const { serviceUs, queueUs, length } = frame;
    if (hedge !== undefined) dropHedge(this, hedge, nowMs);
    const whole = refused.length === 0;
    const missing = whole || within !== undefined ? 0 : retryRefused(this, attempt, refused, nowMs);
    const vshards = target.vshards.length - missing;
    const answered = { shard: target.shard, answer, items, vshards, queueUs, serviceUs, bytes: length };
    if (within !== undefined) settleChild(this, attempt, whole ? answered : undefined, nowMs);
    else {
      if (vshards > 0) part.record(answered);
      this.leave(part, nowMs);
    }
    this.pump(nowMs);
  }

  onFailure(attempt: Attempt<T>, error: ShardloomError): void {
    if (attempt.state !== "sent") return;
    const nowMs = this.state.clock.nowMs();
    // A caller in a hurry says nothing about the shard.
    const hurried = attempt.deadlineAtMs - attempt.sentAtMs < this.limits.minAttemptMs;
    const signal = signalOf(error);
    this.#ended(attempt, nowMs, false, hurried && error.code === "ERR_TIMEOUT" ? "unknown" : signal);
    this.#failed(attempt, error, nowMs);
    this.pump(nowMs);
  }

  onAttemptDue(attempt: Attempt<T>, nowMs: number): void {
    if (attempt.state === "sent") sendHedge(this, attempt, nowMs);
    else if (attempt.state === "waiting") {
      this.#queue.unshift(attempt);
      this.pump(nowMs);
    }
  }

  onQueueClosed(): void {
    this.abort(new ShardloomError("ERR_CLOSED", "Cannot finish call as its executor is closed"));
  }

  /** Ends a request without its answer; nobody is told. */
  cancel(attempt: Attempt<T>, error: ShardloomError, nowMs: number): void {
    const { state, target, pending, sentAtMs } = attempt;
    if (state === "ended") return;
    if (state === "sent") {
      // Outrun after its p95, it counts as an answer that came now: left out, the slow would be missing from the p95.
      const soFarUs = (nowMs - sentAtMs) * 1000;
      if (error === OUTRUN && attempt.within === undefined) this.state.loads.end(target.shard, soFarUs, true);
      else this.state.loads.cancel(target.shard, soFarUs);
      // A probe that another copy has outrun found its shard slow to answer still; else nobody knows.
      const signal = attempt.probe && error === OUTRUN ? "silent" : "unknown";
      this.state.breakers.record(target.shard, signal, attempt.probe, nowMs);
      this.#running--;
    }
    attempt.state = "ended";
    this.state.due.remove(attempt);
    if (pending !== undefined) this.call.cancel(target.shard, pending, error);
  }

  /** Some vshards of a part will not be answered. */
  lose(part: Part<T>, error: ShardloomError, excused = false): void {
    part.lose(error, excused);
    if (!excused && this.#gather.failsFast) this.#gather.abort(error);
  }

  /** Deals with vshards that no copy may answer for, as the call says. @param firstLookMs When to look again, if it waits. @default soon */
  giveUp(part: Part<T>, group: UnavailableVshards, nowMs: number, firstLookMs?: number): void {
    const { unavailable: policy = "fail", replan } = this.call;
    if (policy === "fail") this.#gather.abort(unavailable(group));
    else if (policy === "partial") this.lose(part, unavailable(group), true);
    else if (replan === undefined) this.lose(part, unavailable(group));
    else {
      part.open++;
      const wait = new VshardWait(this, part, group, nowMs, firstLookMs);
      this.#waits.push(wait);
      wait.begin(nowMs);
    }
  }

  /** One piece of a part has ended; what it left behind was enqueued, paused or lost before. */
  leave(part: Part<T>, nowMs: number): void {
    const gather = this.#gather;
    part.open--;
    if (part.open === 0) this.#end(part, nowMs);
    if (gather.enough && !gather.settled) {
      const error = notNeeded();
      for (const other of this.#parts) {
        if (gather.hasEnded(other.index)) continue;
        other.lose(error, false);
        this.#end(other, nowMs);
      }
    }
    if (gather.settled) this.#release(nowMs);
  }

  #end(part: Part<T>, nowMs: number): void {
    const latencyUs = (nowMs - this.#startedMs) * 1000;
    this.#gather.end(part.index, part.outcome(latencyUs), part.answers, part.excused);
  }

  #addPart(shard: number, vshards: number): Part<T> {
    const part = new Part<T>(this.#parts.length, shard, vshards);
    this.#parts.push(part);
    return part;
  }

  /** A request has ended without an answer, or could not be sent. */
  #failed(attempt: Attempt<T>, error: ShardloomError, nowMs: number): void {
    const { within, hedge, part, target } = attempt;
    if (within !== undefined) return settleChild(this, attempt, undefined, nowMs);
    if (hedge !== undefined) {
      if (error.retryable && error.code !== "ERR_STALE_EPOCH") return promoteHedge(this, hedge, nowMs);
      dropHedge(this, hedge, nowMs);
    }
    retry(this, attempt, target.vshards, error, nowMs);
    this.leave(part, nowMs);
  }

  #ended(attempt: Attempt<T>, nowMs: number, ok: boolean, signal: Signal): void {
    const { shard } = attempt.target;
    attempt.state = "ended";
    this.#running--;
    this.state.due.remove(attempt);
    this.state.loads.end(shard, (nowMs - attempt.sentAtMs) * 1000, ok);
    this.state.breakers.record(shard, signal, attempt.probe, nowMs);
  }

  #count({ number, within }: Attempt<T>): void {
    const { stats, retries, hedger } = this.state;
    stats.requests++;
    if (within !== undefined) stats.hedges++;
    else if (number > 0) stats.retries++;
    else {
      retries.deposit();
      hedger.budget.deposit();
    }
  }

  #canMove({ plan, target, tried }: Attempt<T>): boolean {
    if (tried.length > 0) return hasFallback(plan, target.vshards, [...tried, target.shard]);
    ONE_TRIED[0] = target.shard;
    return hasFallback(plan, target.vshards, ONE_TRIED);
  }

  /** When an attempt ends that may be followed by others. */
  #shareOf({ plan, tries, tried }: Attempt<T>, nowMs: number): number {
    const { maxAttempts, minAttemptMs } = this.limits;
    const { deadlineAtMs } = this.call;
    const left = Math.min(maxAttempts - tries, plan.snapshot.replicationFactor - tried.length);
    if (left <= 1) return deadlineAtMs;
    return Math.min(deadlineAtMs, nowMs + Math.max(minAttemptMs, (deadlineAtMs - nowMs) / left));
  }

  #headerOf({ snapshot: { topologyEpoch } }: Plan, attempt: number): RequestHeader {
    const header = this.#header;
    if (header.attempt === attempt && header.topologyEpoch === topologyEpoch) return header;
    return { topologyEpoch, attempt, tenant: header.tenant };
  }

  /** Takes back whatever is still open: the caller has been answered. */
  #release(nowMs: number): void {
    if (this.#released) return;
    this.#released = true;
    this.#unlisten?.();
    this.#queue.length = 0;
    for (const wait of this.#waits) wait.end();
    for (const attempt of this.#begun) this.cancel(attempt, GIVEN_UP, nowMs);
  }
}
