/**
 * The coordinator: takes one topology snapshot, plans who answers, sends one envelope per shard, gathers typed answers.
 *
 * An actor without I/O of its own: requesters, clock and snapshot come in as parameters, so that the same code runs on
 * any client thread and in a simulated world.
 *
 * Invariant: every call ends under one absolute deadline, made once when the call begins, and in exactly one outcome.
 */
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import { Gather, type Gathered, type PartialPolicy, plainOutcome } from "../src/routing/gather.ts";
import type { Payload, PendingRequest, ReplyFrame, ReplySink, Requester } from "../src/routing/requester.ts";
import type { Clock } from "../src/runtime/clock.ts";
import type { Scheduler } from "../src/runtime/scheduler.ts";
import type { TopologySnapshot } from "../src/topology/snapshot.ts";
import type { TopologySource } from "../src/topology/topology-source.ts";
import { PRIORITY } from "../src/wire/envelope-layout.ts";

/** Options of every call that waits. */
export interface CallOptions {
  /** Time until the call fails with `ERR_TIMEOUT`, in ms, in `(0, 2^31)`. @default the cluster's `requestTimeoutMs` */
  readonly timeoutMs?: number;
  /** Ends the call with `ERR_ABORTED`; what has not started on a shard never starts. */
  readonly signal?: AbortSignal;
}

/** Options of a call to several shards. */
export interface ScatterOptions extends CallOptions {
  /** What to do when a shard gives no answer: fail the call, or answer with what there is and say so. @default "fail" */
  readonly partial?: PartialPolicy;
}

/** What a coordinator works with. */
export interface CoordinatorOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly topology: TopologySource;
  readonly requester: (shard: number) => Requester;
  readonly requestTimeoutMs: number;
}

const TIMEOUT_LIMIT_MS = 2 ** 31 - 1;

/** Plans and sends on behalf of one client thread. */
export class Coordinator {
  readonly #options: CoordinatorOptions;

  constructor(options: CoordinatorOptions) {
    this.#options = options;
  }

  /** The newest topology; take it once and plan with it whole. */
  get snapshot(): TopologySnapshot {
    return this.#options.topology.current();
  }

  /** All shards, in order. */
  get shards(): number[] {
    return Array.from({ length: this.snapshot.shards }, (_, shard) => shard);
  }

  /** The time on which deadlines are made. */
  nowMs(): number {
    return this.#options.clock.nowMs();
  }

  /** Resolves after a while. */
  pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.#options.scheduler.timer(delayMs, resolve));
  }

  /** The absolute deadline of a call that begins now. */
  deadlineAtMs(options: CallOptions | undefined): number {
    return this.#deadline(options, this.#options.clock.nowMs());
  }

  #deadline(options: CallOptions | undefined, nowMs: number): number {
    const timeoutMs = options?.timeoutMs ?? this.#options.requestTimeoutMs;
    if (!(timeoutMs > 0 && timeoutMs <= TIMEOUT_LIMIT_MS)) {
      throw invalidArgument(
        "make call",
        "timeoutMs",
        `a number of milliseconds between 0 and ${TIMEOUT_LIMIT_MS}`,
        timeoutMs,
      );
    }
    return nowMs + timeoutMs;
  }

  /** The requester of a shard's current worker. */
  requester(shard: number): Requester {
    return this.#options.requester(shard);
  }

  /** Sends one request to one shard; every failure is a rejection. `decode` runs while the reply is in place. */
  ask<T>(
    shard: number,
    type: number,
    vshard: number,
    payload: Payload,
    decode: (frame: ReplyFrame) => T,
    options: CallOptions | undefined,
    priority: number = PRIORITY.NORMAL,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const nowMs = this.#options.clock.nowMs();
      const signal = options?.signal;
      if (signal?.aborted === true) throw abortError(signal);
      const deadlineAtMs = this.#deadline(options, nowMs);
      const requester = this.requester(shard);
      const call = new AskCall(resolve, reject, decode);
      const pending = requester.request(type, vshard, priority, deadlineAtMs, payload, call, nowMs);
      if (signal !== undefined) call.unlisten = onAbort(signal, (error) => requester.cancel(pending, error));
    });
  }

  /**
   * Sends the same request to several shards at once and gathers their answers under one deadline.
   *
   * @param count Items in an answer, for the completeness record.
   */
  async scatter<T>(
    shards: readonly number[],
    type: number,
    vshard: number,
    payload: (shard: number) => Payload,
    decode: (frame: ReplyFrame, shard: number) => T,
    count: (answer: T) => number,
    options: ScatterOptions | undefined,
  ): Promise<Gathered<T>> {
    const signal = options?.signal;
    if (signal?.aborted === true) throw abortError(signal);
    const deadlineAtMs = this.deadlineAtMs(options);
    const gather = new Gather<T>(shards.length, options?.partial === "allow" ? "best-effort" : "all");
    const open: { requester: Requester; pending: PendingRequest }[] = [];
    for (const [part, shard] of shards.entries()) {
      try {
        const requester = this.requester(shard);
        const sink = partSink(gather, part, shard, decode, count);
        open.push({
          requester,
          pending: requester.request(type, vshard, PRIORITY.NORMAL, deadlineAtMs, payload(shard), sink),
        });
      } catch (error) {
        gather.end(part, plainOutcome(shard, 0, ShardloomError.from(error)), []);
      }
    }
    const unlisten = signal === undefined ? undefined : onAbort(signal, (error) => gather.abort(error));
    try {
      return await gather.promise;
    } catch (error) {
      const reason = ShardloomError.from(error);
      for (const { requester, pending } of open) requester.cancel(pending, reason);
      throw error;
    } finally {
      unlisten?.();
    }
  }
}

/** Where one shard's part of a scatter ends. */
function partSink<T>(
  gather: Gather<T>,
  part: number,
  shard: number,
  decode: (frame: ReplyFrame, shard: number) => T,
  count: (answer: T) => number,
): ReplySink {
  const onFailure = (error: ShardloomError): void => gather.end(part, plainOutcome(shard, 0, error), []);
  return {
    onFailure,
    onReply: (frame) => {
      try {
        const answer = decode(frame, shard);
        gather.end(part, plainOutcome(shard, count(answer)), [answer]);
      } catch (error) {
        onFailure(ShardloomError.from(error, "ERR_CORRUPT"));
      }
    },
  };
}

/** Where one ask ends: its promise. */
class AskCall<T> implements ReplySink {
  unlisten: (() => void) | undefined = undefined;
  readonly #resolve: (answer: T) => void;
  readonly #reject: (error: ShardloomError) => void;
  readonly #decode: (frame: ReplyFrame) => T;

  constructor(resolve: (answer: T) => void, reject: (error: ShardloomError) => void, decode: (frame: ReplyFrame) => T) {
    this.#resolve = resolve;
    this.#reject = reject;
    this.#decode = decode;
  }

  onReply(frame: ReplyFrame): void {
    this.unlisten?.();
    try {
      this.#resolve(this.#decode(frame));
    } catch (error) {
      this.#reject(ShardloomError.from(error, "ERR_CORRUPT"));
    }
  }

  onFailure(error: ShardloomError): void {
    this.unlisten?.();
    this.#reject(error);
  }
}

function abortError(signal: AbortSignal): ShardloomError {
  return new ShardloomError("ERR_ABORTED", "Cannot finish call as its signal was aborted", { cause: signal.reason });
}

function onAbort(signal: AbortSignal, act: (error: ShardloomError) => void): () => void {
  const listener = (): void => act(abortError(signal));
  signal.addEventListener("abort", listener, { once: true });
  return () => signal.removeEventListener("abort", listener);
}
