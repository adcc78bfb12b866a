/**
 * How one thread reaches a barrier: by messages to the shard that hosts it, or by calls when that shard is this thread.
 *
 * Invariant: both ways do the same, and every arrival batch ends exactly once (`released` or `failed`), also when the host
 * dies: then with the requester's error.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { ResolvedBarrierOptions } from "../../src/routing/barrier-options.ts";
import type { MemoryViews, Payload, ReplyFrame, ReplySink } from "../../src/routing/requester.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import type { Scheduler, Timer } from "../../src/runtime/scheduler.ts";
import { PRIORITY } from "../../src/wire/envelope-layout.ts";
import { errorToValue } from "../../src/wire/error-codec.ts";
import {
  BARRIER_ADVANCE,
  BARRIER_ARRIVE,
  BARRIER_CLOSE,
  BARRIER_JOIN,
  BARRIER_LEAVE,
  BARRIER_OPEN,
  BARRIER_POISON,
  BARRIER_STATE,
} from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import type { Coordinator } from "../coordinator.ts";
import type { BarrierHost, BarrierWait, JoinedMember, NumberedState, OpenedBarrier } from "./barrier-host.ts";
import { arriveBytes, decodeBody, encodeBody, readArriveReply, writeArrive } from "./barrier-messages.ts";

/** Waits as long as this have no limit. */
export const LONGEST_WAIT_MS: number = 2 ** 31 - 1;

/** Arrivals of several members of one thread at one phase. */
export interface ArrivalBatch extends BarrierWait {
  readonly tick: number;
  readonly phase: number;
  /** Shape: `ids[0, count)`. */
  readonly ids: readonly number[];
  readonly count: number;
  /** How long its members wait at most, in ms. */
  readonly timeoutMs: number;
}

/** A session of an open barrier. */
export interface OpenSession {
  readonly barrier: number;
  readonly session: number;
}

/** What a thread can do to the barriers of one shard. */
export interface BarrierLink {
  open(name: string, options: ResolvedBarrierOptions | undefined, origin: string): Promise<OpenedBarrier>;
  close(at: OpenSession): Promise<boolean>;
  join(at: OpenSession, member: string): Promise<JoinedMember>;
  leave(at: OpenSession, member: string): Promise<boolean>;
  lose(at: OpenSession, member: string, cause: unknown): Promise<boolean>;
  arrive(at: OpenSession, batch: ArrivalBatch): void;
  advance(at: OpenSession, from: number): Promise<number>;
  poison(at: OpenSession, cause: unknown, member: string | undefined): Promise<void>;
  state(at: OpenSession): Promise<NumberedState>;
}

/** Throws while a thread may not host what others could host by now. */
export interface Hosting {
  assertHosting(): void;
}

/** A barrier on this thread. */
export class LocalLink implements BarrierLink {
  readonly #host: BarrierHost;
  readonly #tenure: Hosting | undefined;
  readonly #waits: LocalWaits;

  /** @param tenure Whether the thread still hosts what others reach too. @default it always does */
  constructor(
    host: BarrierHost,
    parts: { readonly clock: Clock; readonly scheduler: Scheduler },
    tenure: Hosting | undefined = undefined,
  ) {
    this.#host = host;
    this.#tenure = tenure;
    this.#waits = new LocalWaits(parts.clock, parts.scheduler);
  }

  async open(name: string, options: ResolvedBarrierOptions | undefined, origin: string): Promise<OpenedBarrier> {
    return this.#hosting.open(name, options, origin);
  }

  async close({ barrier, session }: OpenSession): Promise<boolean> {
    return this.#host.close(barrier, session);
  }

  async join({ barrier, session }: OpenSession, member: string): Promise<JoinedMember> {
    return this.#hosting.join(barrier, session, member);
  }

  async leave({ barrier }: OpenSession, member: string): Promise<boolean> {
    return this.#hosting.leave(barrier, member);
  }

  async lose({ barrier }: OpenSession, member: string, cause: unknown): Promise<boolean> {
    return this.#host.lose(barrier, member, cause);
  }

  arrive({ barrier, session }: OpenSession, batch: ArrivalBatch): void {
    const { tick, phase } = batch;
    let host: BarrierHost;
    let complete: boolean;
    try {
      host = this.#hosting;
      complete = host.arrive(barrier, session, tick, phase, batch.ids, 0, batch.count);
    } catch (error) {
      batch.failed(error as ShardloomError);
      return;
    }
    if (!complete) host.wait(barrier, tick, phase, this.#waits.limit(batch));
    else batch.released(tick, phase, host.arrivedAt(barrier, tick, phase), host.membersAt(barrier, tick, phase));
  }

  async advance({ barrier }: OpenSession, from: number): Promise<number> {
    return this.#hosting.advance(barrier, from);
  }

  async poison({ barrier }: OpenSession, cause: unknown, member: string | undefined): Promise<void> {
    this.#hosting.poison(barrier, cause, member);
  }

  async state({ barrier }: OpenSession): Promise<NumberedState> {
    return this.#hosting.state(barrier);
  }

  get #hosting(): BarrierHost {
    this.#tenure?.assertHosting();
    return this.#host;
  }
}

/** Waits on this thread that have a limit, under one timer. */
class LocalWaits {
  readonly #clock: Clock;
  readonly #scheduler: Scheduler;
  readonly #open: Set<LocalWait> = new Set();
  #timer: Timer | undefined;
  #timerAtMs = 0;

  constructor(clock: Clock, scheduler: Scheduler) {
    this.#clock = clock;
    this.#scheduler = scheduler;
  }

  limit(batch: ArrivalBatch): BarrierWait {
    if (batch.timeoutMs >= LONGEST_WAIT_MS) return batch;
    const nowMs = this.#clock.nowMs();
    const wait = new LocalWait(batch, this.#open, nowMs + batch.timeoutMs);
    this.#open.add(wait);
    if (this.#timer === undefined || wait.deadlineAtMs < this.#timerAtMs) this.#watch(wait.deadlineAtMs, nowMs);
    return wait;
  }

  /** Set once per limit, not once per wait: when it rings too early it is set again, when nobody waits it is not. */
  #watch(atMs: number, nowMs: number): void {
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    this.#timer = this.#scheduler.timer(Math.max(0, atMs - nowMs), () => {
      this.#timer = undefined;
      const rungAtMs = this.#clock.nowMs();
      let earliestMs = Number.POSITIVE_INFINITY;
      for (const wait of [...this.#open]) {
        if (wait.deadlineAtMs <= rungAtMs) wait.expire();
        else if (wait.deadlineAtMs < earliestMs) earliestMs = wait.deadlineAtMs;
      }
      if (earliestMs < Number.POSITIVE_INFINITY) this.#watch(earliestMs, rungAtMs);
    });
  }
}

class LocalWait implements BarrierWait {
  readonly deadlineAtMs: number;
  abandoned = false;
  readonly #batch: ArrivalBatch;
  readonly #open: Set<LocalWait>;

  constructor(batch: ArrivalBatch, open: Set<LocalWait>, deadlineAtMs: number) {
    this.#batch = batch;
    this.#open = open;
    this.deadlineAtMs = deadlineAtMs;
  }

  released(tick: number, phase: number, arrived: number, members: number): void {
    if (this.#open.delete(this)) this.#batch.released(tick, phase, arrived, members);
  }

  failed(error: ShardloomError): void {
    if (this.#open.delete(this)) this.#batch.failed(error);
  }

  expire(): void {
    const { tick, phase, timeoutMs } = this.#batch;
    this.abandoned = true;
    this.failed(
      new ShardloomError("ERR_TIMEOUT", `Cannot wait for phase ${phase} of tick ${tick} longer than ${timeoutMs} ms`, {
        details: { tick, phase, timeoutMs },
      }),
    );
  }
}

/** A barrier on another thread. */
export class RemoteLink implements BarrierLink {
  readonly #coordinator: Coordinator;
  readonly #shard: number;
  readonly #vshard: number;
  readonly #options: CallOptions | undefined;

  /** @param timeoutMs How long calls other than arrivals take at most. */
  constructor(coordinator: Coordinator, shard: number, vshard: number, timeoutMs: number | undefined) {
    this.#coordinator = coordinator;
    this.#shard = shard;
    this.#vshard = vshard;
    this.#options = timeoutMs === undefined ? undefined : { timeoutMs };
  }

  open(name: string, options: ResolvedBarrierOptions | undefined, origin: string): Promise<OpenedBarrier> {
    return this.#ask(BARRIER_OPEN, { name, origin, options });
  }

  close({ barrier, session }: OpenSession): Promise<boolean> {
    return this.#ask(BARRIER_CLOSE, { barrier, session });
  }

  join({ barrier, session }: OpenSession, member: string): Promise<JoinedMember> {
    return this.#ask(BARRIER_JOIN, { barrier, session, member });
  }

  leave({ barrier, session }: OpenSession, member: string): Promise<boolean> {
    return this.#ask(BARRIER_LEAVE, { barrier, session, member });
  }

  lose({ barrier, session }: OpenSession, member: string, cause: unknown): Promise<boolean> {
    return this.#ask(BARRIER_LEAVE, { barrier, session, member, lost: errorToValue(cause) });
  }

  arrive(at: OpenSession, batch: ArrivalBatch): void {
    const call = new ArriveCall(at, batch);
    const coordinator = this.#coordinator;
    try {
      const nowMs = coordinator.nowMs();
      coordinator
        .requester(this.#shard)
        .request(BARRIER_ARRIVE, this.#vshard, PRIORITY.NORMAL, nowMs + batch.timeoutMs, call, call, nowMs);
    } catch (error) {
      batch.failed(error as ShardloomError);
    }
  }

  advance({ barrier, session }: OpenSession, from: number): Promise<number> {
    return this.#ask(BARRIER_ADVANCE, { barrier, session, from });
  }

  poison({ barrier, session }: OpenSession, cause: unknown, member: string | undefined): Promise<void> {
    return this.#ask(BARRIER_POISON, { barrier, session, cause: errorToValue(cause), member });
  }

  state({ barrier, session }: OpenSession): Promise<NumberedState> {
    return this.#ask(BARRIER_STATE, { barrier, session });
  }

  async #ask<T>(type: number, value: unknown): Promise<T> {
    const body = encodeBody(value);
    const payload: Payload = {
      byteLength: body.length,
      write: (target, offset) => target.bytes.set(body, offset),
    };
    const decode = (frame: ReplyFrame): T => decodeBody(frame) as T;
    return this.#coordinator.ask(this.#shard, type, this.#vshard, payload, decode, this.#options, PRIORITY.CONTROL);
  }
}

/** One message of arrivals and where its answer goes. */
class ArriveCall implements Payload, ReplySink {
  readonly byteLength: number;
  readonly #at: OpenSession;
  readonly #batch: ArrivalBatch;

  constructor(at: OpenSession, batch: ArrivalBatch) {
    this.#at = at;
    this.#batch = batch;
    this.byteLength = arriveBytes(batch.count);
  }

  write(target: MemoryViews, offset: number): void {
    const { tick, phase, ids, count } = this.#batch;
    writeArrive(target, offset, this.#at.barrier, this.#at.session, tick, phase, ids, count);
  }

  onReply(frame: ReplyFrame): void {
    const { tick, phase } = this.#batch;
    try {
      const { arrived, members } = readArriveReply(frame);
      this.#batch.released(tick, phase, arrived, members);
    } catch (error) {
      this.#batch.failed(error as ShardloomError);
    }
  }

  onFailure(error: ShardloomError): void {
    this.#batch.failed(error);
  }
}
