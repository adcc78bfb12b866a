/**
 * The coordinator of a run: broadcasts supersteps, gathers acknowledgements, reduces, decides how values travel and when the run ends.
 *
 * It lives on the client's thread, without I/O of its own. When a worker is lost it waits for the successor, and all shards go on from the
 * last superstep that every one of them has saved, or from the beginning: the run gives the same.
 *
 * Invariant: superstep k + 1 begins when every shard has acknowledged k of this attempt. What was sent to a shard and what it received are equal
 * in number in every superstep, each shard has computed all of its vertices, and the algorithm's own invariant holds; otherwise the run ends with
 * `ERR_INTERNAL`. However a run ends, every shard that can be reached has forgotten it or keeps its result.
 */
import { ShardloomError } from "../../src/errors.ts";
import {
  GRAPH_BEGIN,
  GRAPH_BUILD,
  GRAPH_COMPLETE,
  GRAPH_STATUS,
  GRAPH_SUPERSTEP,
} from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import type { ShardAccount } from "../shard-account.ts";
import { askAll, type GraphHandle } from "./client-calls.ts";
import { askHalted } from "./client-halt.ts";
import { plainRef } from "./graph-messages.ts";
import type { RunAccount } from "./run-account.ts";
import type {
  BeginReply,
  BeginRequest,
  BuildReply,
  Exchange,
  SuperstepAck,
  SuperstepOrder,
  Until,
} from "./run-messages.ts";
import type { RunOptions } from "./run-options.ts";
import { DEFAULT_RUN_LIMITS } from "./run-times.ts";
import { type Totals, totalsOf } from "./run-totals.ts";
import { identityOf } from "./vertex-program.ts";

/** Share of all edges above which pulling is cheaper than pushing; Beamer et al., Direction-Optimizing BFS, §4, has 1/14 of what is left. */
const PULL_ABOVE = 1 / 14;
/**
 * Share of all vertices above which a search by breadth that has pulled goes on so; ibid., 1/24. Few vertices are left then, and most of them
 * find a neighbour at once, while those that sent last have few edges, each of which would be looked at for nothing.
 */
const PULL_ON_ABOVE = 1 / 24;
/** How long supersteps of one order take, about: progress is told as often, and what a wake-up takes is little of it. */
const ORDER_MS = 50;
const MAX_AT_ONCE = 64;
const DEFAULT_SUPERSTEP_MS = 60_000;
const RESUME_PAUSE_MS = 20;
/** Supersteps between two checkpoints. */
export const DEFAULT_CHECKPOINTS = 8;
/** While a superstep goes on: how often the shards are asked whether they still have the run and all their peers. */
const LOOK_MS = 250;
/** How often a run goes on after a loss. */
const MAX_ATTEMPTS = 16;
const LOST: ReadonlySet<string> = new Set([
  "ERR_WORKER_LOST",
  "ERR_HANDLER_HUNG",
  "ERR_NATIVE_QUARANTINED",
  "ERR_REGION_ACCESS",
  "ERR_UNAVAILABLE",
  "ERR_STALE_EPOCH",
  "ERR_UNKNOWN_COLLECTION",
]);

/** What is run, and when it is done. */
export interface RunPlan {
  readonly algorithm: string;
  readonly program: boolean;
  readonly params: (shards: readonly BuildReply[]) => Readonly<Record<string, unknown>>;
  /** Whether every vertex sends in every superstep. */
  readonly dense: boolean;
  /** Whether a vertex takes part once, and the first neighbour that has sent says all: a search by breadth. @default false */
  readonly firstOnly?: boolean;
  /** Most supersteps; one more is an error. */
  readonly limit: number;
  readonly done: (totals: Totals) => boolean;
  /** Whether a shard is asked besides, if its program says when it is done. @default false */
  readonly asks?: boolean;
  /** How many supersteps there are after the first, or at most, when `until` ends them. @default only the coordinator sees the end */
  readonly rounds?: number;
  /** As `done` has it of supersteps but the first. @default `rounds` alone */
  readonly until?: Until | undefined;
  /** Looks at what the algorithm must keep. @throws {ShardloomError} `ERR_INTERNAL`. */
  readonly check?: (totals: Totals, vertices: number) => void;
  readonly delta?: (totals: Totals) => number | undefined;
}

/** A run that has ended well. */
export interface FinishedRun {
  readonly run: number;
  readonly supersteps: number;
  readonly vertices: number;
  readonly edges: number;
  readonly attempts: number;
  readonly totals: Totals | undefined;
  readonly names: readonly string[];
}

/** One run, from its beginning to its end. */
export class RunDriver {
  readonly #handle: GraphHandle;
  readonly #account: RunAccount | undefined;
  readonly #plan: RunPlan;
  readonly #options: RunOptions;
  /** As the first shard gives it; 0: not yet. */
  #run = 0;
  readonly #startedMs: number;
  #attempt = 0;
  #hangs = 0;
  /** How long a superstep of the last order took. */
  #stepMs = Number.POSITIVE_INFINITY;
  #shards: BuildReply[] = [];
  #begun: BeginReply[] = [];
  /** Totals of supersteps that may be saved. */
  readonly #kept: Map<number, Totals> = new Map();

  constructor(handle: GraphHandle, plan: RunPlan, options: RunOptions, account?: RunAccount) {
    this.#handle = handle;
    this.#account = account;
    this.#plan = plan;
    this.#options = options;
    this.#startedMs = handle.coordinator.nowMs();
  }

  /** @throws {ShardloomError} those of every call, and the algorithm's. */
  async drive(): Promise<FinishedRun> {
    try {
      for (;;) {
        try {
          return await this.#attemptOnce();
        } catch (error) {
          await this.#mayGoOn(error);
        }
      }
    } catch (error) {
      await this.#complete(false).catch(() => undefined); // the first failure is the one to tell
      throw error;
    }
  }

  async #attemptOnce(): Promise<FinishedRun> {
    const { collection, roots } = this.#handle;
    this.#attempt++;
    const table = roots().map(plainRef);
    this.#shards = await this.#all<BuildReply>(GRAPH_BUILD, () => ({ collection, run: this.#run, roots: table }));
    if (this.#run === 0) this.#run = this.#shards[0]?.fresh ?? 0;
    const after = this.#lastSaved();
    const { idleMs, resultIdleMs } = { ...DEFAULT_RUN_LIMITS, ...this.#options };
    this.#begun = [];
    const request: BeginRequest = {
      collection,
      run: this.#run,
      attempt: this.#attempt,
      algorithm: this.#plan.algorithm,
      program: this.#plan.program,
      params: this.#plan.params(this.#shards),
      pulls: this.#options.exchange !== "push",
      after,
      limits: { idleMs, resultIdleMs },
      shards: this.#shards,
    };
    const totals = await this.#watched(async (signal) => {
      this.#begun = await this.#all<BeginReply>(GRAPH_BEGIN, () => request, signal);
      return this.#supersteps(after, signal);
    });
    await this.#complete(true);
    const [first] = this.#begun;
    return {
      run: this.#run,
      supersteps: (totals?.superstep ?? -1) + 1,
      vertices: this.#vertices,
      edges: this.#edges,
      attempts: this.#attempt,
      totals,
      names: first?.names ?? [],
    };
  }

  /** Does something with a signal that also fires when a shard has lost the run or a peer. */
  async #watched<T>(act: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { signal } = this.#options;
    const ended = new AbortController();
    const end = (): void => ended.abort(signal?.reason);
    signal?.addEventListener("abort", end, { once: true });
    if (signal?.aborted === true) end();
    const endWatch = this.#watch(ended);
    try {
      return await act(ended.signal);
    } catch (error) {
      if (!ended.signal.aborted || signal?.aborted === true) throw error;
      throw new ShardloomError("ERR_WORKER_LOST", "Cannot finish superstep as a shard has lost a peer", {
        cause: error,
      });
    } finally {
      endWatch();
      signal?.removeEventListener("abort", end);
    }
  }

  /** @param after The superstep that was saved; -1: none */
  async #supersteps(after: number, signal: AbortSignal): Promise<Totals | undefined> {
    let totals = this.#kept.get(after);
    this.#stepMs = Number.POSITIVE_INFINITY;
    for (let next = after + 1; !(await this.#isDone(totals, signal)); next = totals.superstep + 1)
      totals = await this.#order(next, totals, signal);
    return totals;
  }

  /** Orders one superstep, or several when that is as well, and reduces what they came to. */
  async #order(superstep: number, last: Totals | undefined, signal: AbortSignal): Promise<Totals> {
    const { collection, coordinator } = this.#handle;
    const [first] = this.#begun as [BeginReply];
    this.#assertBelow(Math.min(this.#plan.limit, first.maxSupersteps), superstep);
    const { checkpointEvery: every = DEFAULT_CHECKPOINTS } = this.#options;
    const receive = this.#exchange(superstep, last);
    const count = this.#countAtOnce(superstep, every);
    const order: SuperstepOrder = {
      collection,
      run: this.#run,
      attempt: this.#attempt,
      superstep,
      count,
      until: this.#plan.until,
      receive,
      before: last?.sums ?? first.aggregates.map(identityOf),
      save: every > 0 && superstep > 0 && (superstep + count - 1) % every === 0,
      peers: this.#begun,
    };
    const ask = (account?: ShardAccount): Promise<SuperstepAck[][]> =>
      this.#all<SuperstepAck[]>(GRAPH_SUPERSTEP, () => order, signal, account);
    const askedMs = coordinator.nowMs();
    const acks = await (this.#account?.order(order, ask) ?? ask());
    const steps = (acks[0] as SuperstepAck[]).map((_, at) => {
      const each = acks.map((shard) => shard[at] as SuperstepAck);
      return this.#endSuperstep(totalsOf(superstep + at, receive, each, first, this.#shards), every);
    });
    this.#stepMs = (coordinator.nowMs() - askedMs) / steps.length;
    return steps.at(-1) as Totals;
  }

  #endSuperstep(totals: Totals, checkpointEvery: number): Totals {
    this.#plan.check?.(totals, this.#vertices);
    this.#keep(totals, checkpointEvery);
    const { superstep, exchange, active, messages } = totals;
    const delta = this.#plan.delta?.(totals);
    this.#options.onProgress?.({ superstep, exchange, active, messages, delta, attempt: this.#attempt });
    return totals;
  }

  #assertBelow(limit: number, superstep: number): void {
    if (superstep <= limit) return;
    throw new ShardloomError(
      "ERR_OVERLOADED",
      `Cannot go on as a run must end within ${limit} supersteps: current value is ${superstep}`,
      { details: { limit, superstep }, retryable: false },
    );
  }

  /**
   * How many supersteps one order is for. More than one when nothing that the coordinator sees can make a difference between them: not more
   * than are left, than the next checkpoint is away, as one that is saved ends an order, and than take {@link ORDER_MS} and an eighth of the limit.
   */
  #countAtOnce(superstep: number, checkpointEvery: number): number {
    const {
      exchange = "auto",
      superstepsAtOnce = MAX_AT_ONCE,
      superstepTimeoutMs = DEFAULT_SUPERSTEP_MS,
    } = this.#options;
    const { rounds, dense } = this.#plan;
    if (rounds === undefined || superstep === 0 || (exchange === "auto" && !dense)) return 1;
    const left = rounds - superstep + 1;
    const toSaved = checkpointEvery > 0 ? checkpointEvery - ((superstep - 1) % checkpointEvery) : left;
    const inTime = Math.max(1, Math.floor(Math.min(ORDER_MS, superstepTimeoutMs / 8) / this.#stepMs));
    return Math.min(left, toSaved, inTime, superstepsAtOnce);
  }

  #exchange(superstep: number, last: Totals | undefined): Exchange {
    if (superstep === 0) return "none";
    const { exchange = "auto" } = this.#options;
    if (exchange !== "auto") return exchange;
    const { dense, firstOnly = false } = this.#plan;
    const { active, activeEdges, exchange: before } = last as Totals;
    if (dense || activeEdges > this.#edges * PULL_ABOVE) return "pull";
    return firstOnly && before === "pull" && active > this.#vertices * PULL_ON_ABOVE ? "pull" : "push";
  }

  async #isDone(totals: Totals | undefined, signal: AbortSignal): Promise<boolean> {
    if (totals === undefined) return false;
    const { done, asks, algorithm: program } = this.#plan;
    if (done(totals)) return true;
    if (asks !== true || this.#begun[0]?.halts !== true) return false;
    return askHalted(this.#handle, { run: this.#run, program }, totals, this.#callOptions(signal));
  }

  #keep(totals: Totals, every: number): void {
    if (every === 0 || totals.superstep % every !== 0) return;
    this.#kept.set(totals.superstep, totals);
    this.#kept.delete(totals.superstep - 3 * every);
  }

  /** The newest superstep that all shards have saved; -1: there is none. */
  #lastSaved(): number {
    const [first, ...others] = this.#shards as [BuildReply, ...BuildReply[]];
    const common = first.saved.filter(
      (step) => this.#kept.has(step) && others.every(({ saved }) => saved.includes(step)),
    );
    return Math.max(-1, ...common);
  }

  async #mayGoOn(error: unknown): Promise<void> {
    const failure = ShardloomError.from(error);
    const { signal } = this.#options;
    const isSecondHang = failure.code === "ERR_HANDLER_HUNG" && ++this.#hangs > 1; // it will hang again
    if (
      signal?.aborted === true ||
      !LOST.has(failure.code) ||
      !failure.retryable ||
      this.#attempt >= MAX_ATTEMPTS ||
      isSecondHang
    )
      throw failure;
    if (failure.code === "ERR_UNKNOWN_COLLECTION") this.#handle.assertOpen();
    await this.#handle.coordinator.pause(RESUME_PAUSE_MS * Math.min(this.#attempt, 10));
    if (this.#leftMs() <= 0) throw failure;
  }

  /** A shard that is down is asked again: its successor has what the run has saved. */
  async #complete(keep: boolean): Promise<void> {
    const { collection, coordinator } = this.#handle;
    if (this.#run === 0) return;
    for (let attempt = 1; ; attempt++) {
      try {
        await askAll(this.#handle, GRAPH_COMPLETE, () => ({ collection, run: this.#run, keep }), { timeoutMs: 5_000 });
        return;
      } catch (error) {
        if (keep || attempt === MAX_ATTEMPTS || !LOST.has(ShardloomError.from(error).code)) throw error;
        await coordinator.pause(RESUME_PAUSE_MS * attempt);
      }
    }
  }

  /**
   * Looks now and then whether every shard still has the run and all its peers: what a worker has pushed before it died may have died with
   * it, and then nobody fails, but one waits. The shards know by it that somebody waits for them.
   *
   * @returns what ends it
   */
  #watch(disturbed: AbortController): () => void {
    const uncounted: GraphHandle = { ...this.#handle, account: undefined };
    const { coordinator, collection } = uncounted;
    const request = { collection, run: this.#run, attempt: this.#attempt };
    let ended = false;
    const look = async (): Promise<void> => {
      for (;;) {
        await coordinator.pause(LOOK_MS);
        if (ended) return;
        const answers = await askAll<{ readonly whole: boolean }>(uncounted, GRAPH_STATUS, () => request).catch(
          () => [], // a shard that is down fails its superstep as well
        );
        if (this.#begun.length > 0 && !answers.every(({ whole }) => whole)) disturbed.abort();
      }
    };
    look().catch(() => undefined); // it only looks
    return () => {
      ended = true;
    };
  }

  #all<T>(
    type: number,
    body: (shard: number) => unknown,
    signal = this.#options.signal,
    account?: ShardAccount,
  ): Promise<T[]> {
    this.#handle.assertOpen();
    const handle = account === undefined ? this.#handle : { ...this.#handle, account };
    return askAll<T>(handle, type, body, this.#callOptions(signal));
  }

  #callOptions(signal: AbortSignal | undefined): CallOptions {
    const { superstepTimeoutMs = DEFAULT_SUPERSTEP_MS } = this.#options;
    const timeoutMs = Math.max(1, Math.min(superstepTimeoutMs, this.#leftMs()));
    return { timeoutMs, ...(signal === undefined ? {} : { signal }) };
  }

  #leftMs(): number {
    const { timeoutMs = Number.POSITIVE_INFINITY } = this.#options;
    return this.#startedMs + timeoutMs - this.#handle.coordinator.nowMs();
  }

  get #vertices(): number {
    return this.#shards.reduce((sum, { vertices }) => sum + vertices, 0);
  }

  get #edges(): number {
    return this.#shards.reduce((sum, { edges }) => sum + edges, 0);
  }
}
