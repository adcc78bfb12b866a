/**
 * Shards that answer as a script says, in virtual time, behind the interface that an executor sends through.
 *
 * Like the real requester, it ends every request exactly once, fails it at its deadline, and calls the sink from `cancel`.
 */
import { getEventListeners } from "node:events";
import { ShardloomError } from "../../src/errors.ts";
import type { ExecutionCall } from "../../src/routing/execution-call.ts";
import { Executor, type ExecutorOptions, type LoadBook } from "../../src/routing/executor.ts";
import type { Gathered } from "../../src/routing/gather.ts";
import type { RefusedVshard } from "../../src/routing/part.ts";
import {
  type MemoryViews,
  PendingRequest,
  type ReplyFrame,
  type ReplySink,
  type RequestHeader,
} from "../../src/routing/pending-request.ts";
import type { Plan, PlanTarget, UnavailableVshards } from "../../src/routing/plan.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import type { Cancel } from "../../src/runtime/scheduler.ts";
import { createVirtualTime, type VirtualTime } from "../../src/runtime/scheduler.ts";
import { createSnapshot, NO_SHARD, type TopologySnapshot } from "../../src/topology/snapshot.ts";

/** What a shard answered: who it is, and the vshards that it answered for. */
export interface Answer {
  readonly shard: number;
  readonly vshards: readonly number[];
}

/** What becomes of one request. */
export type Fate =
  | { readonly afterMs: number; readonly items?: number; readonly refuse?: readonly RefusedVshard[] }
  | { readonly afterMs: number; readonly error: ShardloomError }
  | { readonly throws: ShardloomError }
  | "silence"
  | "garbage";

/** One request as a shard saw it. */
export interface Sent {
  readonly shard: number;
  readonly vshards: readonly number[];
  readonly whole: boolean;
  readonly attempt: number;
  readonly epoch: number;
  readonly tenant: number;
  readonly atMs: number;
  readonly deadlineAtMs: number;
  ended: "open" | "answered" | "failed" | "cancelled";
}

export type Script = (sent: Sent, earlier: readonly Sent[]) => Fate;

/** Loads that only count, and know the latency that a test sets. */
export class CountedLoads implements LoadBook {
  readonly inFlight: Map<number, number> = new Map();
  readonly ends: { readonly shard: number; readonly latencyUs: number; readonly ok: boolean | "cancelled" }[] = [];
  p95Us: number = Number.POSITIVE_INFINITY;

  begin(shard: number): void {
    this.inFlight.set(shard, (this.inFlight.get(shard) ?? 0) + 1);
  }

  end(shard: number, latencyUs: number, ok: boolean): void {
    this.inFlight.set(shard, (this.inFlight.get(shard) ?? 0) - 1);
    this.ends.push({ shard, latencyUs, ok });
  }

  cancel(shard: number, latencyUs: number): void {
    this.inFlight.set(shard, (this.inFlight.get(shard) ?? 0) - 1);
    this.ends.push({ shard, latencyUs, ok: "cancelled" });
  }

  quantileUs(): number {
    return this.p95Us;
  }

  allQuantileUs(): number {
    return this.p95Us;
  }
}

/** An error of a code. */
export const failing = (code: ShardloomError["code"], afterMs = 1): Fate => ({
  afterMs,
  error: new ShardloomError(code, `scripted ${code}`),
});

/** A plan of all vshards: each on the copy that `choose` takes (the primary by default), one target per shard. */
export function planOf(
  snapshot: TopologySnapshot,
  options: {
    readonly vshards?: Iterable<number>;
    readonly choose?: (copies: readonly number[], vshard: number) => number;
    readonly unavailable?: readonly UnavailableVshards[];
    readonly consistency?: Plan["consistency"];
  } = {},
): Plan {
  const missing = new Set(options.unavailable?.flatMap(({ vshards }) => [...vshards]));
  const lists = new Map<number, number[]>();
  for (const vshard of options.vshards ?? Array(snapshot.vshards).keys()) {
    if (missing.has(vshard)) continue;
    const copies = copiesOf(snapshot, vshard);
    const shard = options.choose?.(copies, vshard) ?? copies[0] ?? NO_SHARD;
    lists.set(shard, [...(lists.get(shard) ?? []), vshard]);
  }
  return {
    snapshot,
    kind: "scatter",
    strategy: "power-of-two",
    consistency: options.consistency ?? "eventual",
    targets: [...lists].map(([shard, list]) => ({ shard, vshards: Uint16Array.from(list), whole: true })),
    unavailable: options.unavailable ?? [],
    fallback: (vshard, tried) =>
      options.consistency === "strong"
        ? NO_SHARD
        : (copiesOf(snapshot, vshard).find((shard) => !tried.includes(shard)) ?? NO_SHARD),
  };
}

function copiesOf({ copies, replicationFactor }: TopologySnapshot, vshard: number): number[] {
  return [...copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor)].filter(
    (shard) => shard !== NO_SHARD,
  );
}

/** A cluster of scripted shards and the executor under test. */
export class Scripted {
  readonly time: VirtualTime = createVirtualTime(1_000);
  readonly loads: CountedLoads = new CountedLoads();
  readonly executor: Executor;
  readonly sent: Sent[] = [];
  readonly snapshot: TopologySnapshot;
  script: Script = () => ({ afterMs: 1 });
  /** Most requests that were open at once. */
  peak = 0;
  #open = 0;
  readonly #ends = new Map<PendingRequest, (error: Error) => void>();

  constructor(
    shape: { readonly shards: number; readonly vshards: number; readonly replicationFactor: number },
    options: Partial<ExecutorOptions> = {},
    seed = 1,
  ) {
    this.snapshot = createSnapshot(shape);
    this.executor = new Executor({
      clock: this.time.clock,
      scheduler: this.time.scheduler,
      random: createSeededRandom(seed),
      loads: this.loads,
      ...options,
    });
  }

  get nowMs(): number {
    return this.time.clock.nowMs();
  }

  /** A call that may be retried, 1 s long, of every vshard. */
  call(overrides: Partial<ExecutionCall<Answer>> = {}): ExecutionCall<Answer> {
    return {
      plan: planOf(this.snapshot),
      deadlineAtMs: this.nowMs + 1_000,
      idempotent: true,
      send: (target, header, deadlineAtMs, sink) => this.#send(target, header, deadlineAtMs, sink),
      cancel: (_shard, pending, error) => this.#ends.get(pending as PendingRequest)?.(error),
      decode: (frame, { shard }) => {
        const { vshards, items, refuse } = frame as unknown as Body;
        if (vshards === undefined) throw new RangeError("garbage");
        const refused = new Set(refuse.map(({ vshard }) => vshard));
        return {
          answer: { shard, vshards: vshards.filter((vshard) => !refused.has(vshard)) },
          items: items ?? vshards.length - refused.size,
          refused: refuse,
        };
      },
      ...overrides,
    };
  }

  /** Executes a call and runs time until it has settled. */
  async run(overrides: Partial<ExecutionCall<Answer>> = {}): Promise<Gathered<Answer>> {
    const result = this.executor.execute(this.call(overrides));
    await this.finish(result);
    return result;
  }

  /** Runs time until a promise has settled; fails when it has not within a minute. */
  async finish(promise: Promise<unknown>): Promise<void> {
    let settled = false;
    void promise.then(
      () => (settled = true),
      () => (settled = true),
    );
    await this.time.settle();
    for (let step = 0; !settled && step < 60_000; step++) await this.time.advance(1);
    if (!settled) throw new Error("the call did not settle within a minute");
  }

  /** Throws when something is left: a timer, an open request, a listener, a count of load. */
  assertClean(signal?: AbortSignal): void {
    const left = {
      timers: this.time.pending(),
      open: this.#open,
      waiting: this.executor.waiting,
      loads: [...this.loads.inFlight.values()].reduce((sum, count) => sum + Math.abs(count), 0),
      listeners: signal === undefined ? 0 : getEventListeners(signal, "abort").length,
    };
    if (Object.values(left).some((count) => count !== 0)) throw new Error(`left behind: ${JSON.stringify(left)}`);
  }

  #send(target: PlanTarget, header: RequestHeader, deadlineAtMs: number, sink: ReplySink): PendingRequest {
    const { nowMs } = this;
    const sent: Sent = {
      shard: target.shard,
      vshards: [...target.vshards],
      whole: target.whole,
      attempt: header.attempt,
      epoch: header.topologyEpoch,
      tenant: header.tenant,
      atMs: nowMs,
      deadlineAtMs,
      ended: "open",
    };
    const earlier = [...this.sent];
    this.sent.push(sent);
    const fate = this.script(sent, earlier);
    if (typeof fate === "object" && "throws" in fate) {
      sent.ended = "failed";
      throw fate.throws;
    }
    const payload = { byteLength: 0, write: (_target: MemoryViews, _offset: number): void => undefined };
    const pending = new PendingRequest(1, 0, 1, deadlineAtMs, payload, sink, undefined, header);
    const timers: Cancel[] = [];
    const end = (how: Sent["ended"], act: () => void): void => {
      if (sent.ended !== "open") return;
      sent.ended = how;
      this.#open--;
      this.#ends.delete(pending);
      for (const cancel of timers) cancel();
      act();
    };
    this.#open++;
    this.peak = Math.max(this.peak, this.#open);
    this.#ends.set(pending, (error) => end("cancelled", () => sink.onFailure(error as ShardloomError)));
    const late = new ShardloomError("ERR_TIMEOUT", "scripted deadline");
    const { after } = this.time.scheduler;
    if (fate === "garbage") timers.push(after(1, () => end("answered", () => sink.onReply(frameOf({})))));
    else if (fate !== "silence" && "error" in fate)
      timers.push(after(fate.afterMs, () => end("failed", () => sink.onFailure(fate.error))));
    else if (fate !== "silence") {
      const body = { vshards: sent.vshards, items: fate.items, refuse: fate.refuse ?? [] };
      timers.push(after(fate.afterMs, () => end("answered", () => sink.onReply(frameOf(body)))));
    }
    timers.push(after(Math.max(0, deadlineAtMs - nowMs), () => end("failed", () => sink.onFailure(late))));
    return pending;
  }
}

interface Body {
  readonly vshards: readonly number[] | undefined;
  readonly items: number | undefined;
  readonly refuse: readonly RefusedVshard[];
}

function frameOf(body: Partial<Body>): ReplyFrame {
  return { offset: 0, length: 100, serviceUs: 7, queueUs: 3, ...body } as unknown as ReplyFrame;
}

/** The vshards of all answers, ascending; doubles stay. */
export function answered({ answers }: Gathered<Answer>): number[] {
  return answers.flatMap(({ vshards }) => vshards).sort((a, b) => a - b);
}

/** 0…count−1 */
export const range = (count: number): number[] => [...Array(count).keys()];
