/**
 * Waits for vshards that no copy may answer for: looks when the topology changes and, as freshness changes without it,
 * now and then.
 *
 * Invariant: every vshard of the wait becomes a piece of its part, or is lost at the deadline; after that it holds no
 * timer and no listener.
 */
import { ShardloomError } from "../errors.ts";
import { Attempt } from "./attempt.ts";
import type { Due } from "./due-queue.ts";
import type { Execution } from "./execution.ts";
import { unavailable } from "./execution-errors.ts";
import type { Part } from "./part.ts";
import type { Plan, UnavailableVshards } from "./plan.ts";
import { byPlan } from "./regroup.ts";

/** Time to the first look, in ms; it doubles up to the limit. */
const FIRST_LOOK_MS = 5;
const LOOK_LIMIT_MS = 100;

/** One group of vshards that is waited for. */
export class VshardWait<T> implements Due {
  dueAtMs = 0;
  dueIndex = -1;
  readonly #execution: Execution<T>;
  readonly #part: Part<T>;
  readonly #sinceMs: number;
  #group: UnavailableVshards;
  #lookMs: number;
  #ended = false;
  #unwatch: (() => void) | undefined;

  /** The part counts the wait as one of its open pieces. */
  constructor(
    execution: Execution<T>,
    part: Part<T>,
    group: UnavailableVshards,
    nowMs: number,
    firstLookMs: number = FIRST_LOOK_MS,
  ) {
    this.#lookMs = firstLookMs;
    this.#execution = execution;
    this.#part = part;
    this.#group = group;
    this.#sinceMs = nowMs;
  }

  begin(nowMs: number): void {
    const { call, state } = this.#execution;
    this.#unwatch = call.watch?.(() => this.#look(state.clock.nowMs()));
    this.#lookLater(nowMs);
  }

  onDue(nowMs: number): void {
    if (nowMs < this.#execution.call.deadlineAtMs) return this.#look(nowMs);
    this.#lose(unavailable(this.#group, nowMs - this.#sinceMs), nowMs);
  }

  onQueueClosed(): void {
    this.#execution.onQueueClosed();
  }

  /** Stops looking. */
  end(): void {
    this.#ended = true;
    this.#execution.state.due.remove(this);
    this.#unwatch?.();
    this.#unwatch = undefined;
  }

  #look(nowMs: number): void {
    const execution = this.#execution;
    if (this.#ended) return;
    execution.state.due.remove(this);
    let plan: Plan;
    try {
      plan = (execution.call.replan as (vshards: Uint16Array) => Plan)(this.#group.vshards);
    } catch (fault) {
      return this.#lose(ShardloomError.from(fault), nowMs);
    }
    const { targets, unavailable: groups, missing } = byPlan(plan, this.#group.vshards);
    for (const target of targets)
      execution.enqueue(new Attempt(execution, this.#part, plan, target, [], 0, 0, undefined));
    const left = [...missing, ...groups.flatMap(({ vshards }) => [...vshards])];
    if (left.length === 0) {
      this.end();
      execution.leave(this.#part, nowMs);
    } else {
      this.#group = { vshards: Uint16Array.from(left), reason: groups[0]?.reason ?? this.#group.reason };
      this.#lookLater(nowMs);
    }
    execution.pump(nowMs);
  }

  #lookLater(nowMs: number): void {
    const { state, call } = this.#execution;
    if (this.#ended) return;
    state.due.add(this, Math.min(nowMs + this.#lookMs, call.deadlineAtMs), nowMs);
    this.#lookMs = Math.min(LOOK_LIMIT_MS, this.#lookMs * 2);
  }

  #lose(error: ShardloomError, nowMs: number): void {
    const execution = this.#execution;
    this.end();
    execution.lose(this.#part, error);
    execution.leave(this.#part, nowMs);
    execution.pump(nowMs);
  }
}
