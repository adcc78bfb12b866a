/**
 * The coordinator of a run: broadcasts supersteps, gathers acknowledgements, reduces, decides how values travel and when the run ends.
 *
 * It lives on the client's thread, without I/O of its own. When a worker is lost it waits for the successor, and all shards go on from the
 * last superstep that every one of them has saved, or from the beginning: the run gives the same.
 *
 * Invariant: superstep k + 1 begins when every shard has acknowledged k of this attempt. What was sent to a shard and what it received
 * are equal in number in every superstep, and the algorithm's own invariant holds; otherwise the run ends with `ERR_INTERNAL`. However a run
 * ends, every shard that can be reached has forgotten it or keeps its result.
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
import { plainRef } from "./graph-messages.ts";
import type { ExplainRun, RunAccount } from "./run-account.ts";
import type { BeginReply, BeginRequest, BuildReply, Exchange, SuperstepAck, SuperstepRequest } from "./run-messages.ts";
import { DEFAULT_RUN_LIMITS } from "./run-times.ts";
import { combined, identityOf } from "./vertex-program.ts";

/** Share of all edges above which pulling is cheaper than pushing; Beamer et al., Direction-Optimizing BFS, §4, has 1/14 of what is left. */
const PULL_ABOVE = 1 / 14;
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

/** How far a run is. */
export interface RunProgress {
  readonly superstep: number;
  /** How values came in this superstep. */
  readonly exchange: Exchange;
  /** Vertices that have sent, or will compute without being sent to. */
  readonly active: number;
  /** Values that were pushed from shard to shard. */
  readonly messages: number;
  /** Change of the result since the last superstep, where the algorithm measures it. */
  readonly delta: number | undefined;
  /** 1, and one more after each worker that was lost. */
  readonly attempt: number;
}

/** Options of every run. */
export interface RunOptions extends CallOptions {
  /** Called after every superstep. */
  readonly onProgress?: (progress: RunProgress) => void;
  /** How values travel: pushed as messages, pulled out of the senders' memory, or as is cheaper in each superstep. @default "auto" */
  readonly exchange?: "auto" | "push" | "pull";
  /** Supersteps between two checkpoints; 0: none, and a lost worker means to begin anew. @default 8 */
  readonly checkpointEvery?: number;
  /** Longest time of one superstep, in ms. `timeoutMs` is that of the whole run. @default 60000 */
  readonly superstepTimeoutMs?: number;
  /** How long shards keep the run when nobody asks about it, as its thread has ended or is busy, in ms, at least 1000. @default 60000 */
  readonly idleMs?: number;
  /** How long a result is not looked at until it may give way to another, when there is no place left, in ms, at least 1000. @default 600000 */
  readonly resultIdleMs?: number;
  /** Gives the result an account of every superstep and of what was asked of whom, or tells it to a function. @default false */
  readonly explain?: ExplainRun;
}

/** What a superstep came to, over all shards. */
export interface Totals {
  readonly superstep: number;
  readonly active: number;
  readonly activeEdges: number;
  readonly sums: readonly number[];
  readonly messages: number;
}

/** What is run, and when it is done. */
export interface RunPlan {
  readonly algorithm: string;
  readonly program: boolean;
  readonly params: (shards: readonly BuildReply[]) => Readonly<Record<string, unknown>>;
  /** Whether every vertex sends in every superstep. */
  readonly dense: boolean;
  /** Most supersteps; one more is an error. */
  readonly limit: number;
  readonly done: (totals: Totals, begun: BeginReply) => boolean;
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
    for (let superstep = after + 1; !this.#isDone(totals); superstep++)
      totals = await this.#superstep(superstep, totals, signal);
    return totals;
  }

  async #superstep(superstep: number, last: Totals | undefined, signal: AbortSignal): Promise<Totals> {
    const { collection } = this.#handle;
    const [first] = this.#begun as [BeginReply];
    const limit = Math.min(this.#plan.limit, first.maxSupersteps);
    if (superstep > limit) {
      throw new ShardloomError(
        "ERR_OVERLOADED",
        `Cannot go on as a run must end within ${limit} supersteps: current value is ${superstep}`,
        {
          details: { limit, superstep },
          retryable: false,
        },
      );
    }
    const receive = this.#exchange(superstep, last);
    const { checkpointEvery = DEFAULT_CHECKPOINTS } = this.#options;
    const request: SuperstepRequest = {
      collection,
      run: this.#run,
      attempt: this.#attempt,
      superstep,
      receive,
      before: last?.sums ?? first.aggregates.map(identityOf),
      save: checkpointEvery > 0 && superstep > 0 && superstep % checkpointEvery === 0,
      peers: this.#begun,
    };
    const ask = (account?: ShardAccount): Promise<SuperstepAck[]> =>
      this.#all<SuperstepAck>(GRAPH_SUPERSTEP, () => request, signal, account);
    const acks = await (this.#account?.superstep(request, ask) ?? ask());
    const totals = this.#reduce(superstep, acks, first);
    this.#plan.check?.(totals, this.#vertices);
    this.#keep(totals, checkpointEvery);
    this.#options.onProgress?.({
      superstep,
      exchange: receive,
      active: totals.active,
      messages: totals.messages,
      delta: this.#plan.delta?.(totals),
      attempt: this.#attempt,
    });
    return totals;
  }

  #exchange(superstep: number, last: Totals | undefined): Exchange {
    if (superstep === 0) return "none";
    const { exchange = "auto" } = this.#options;
    if (exchange !== "auto") return exchange;
    if (this.#plan.dense) return "pull";
    return (last?.activeEdges ?? 0) > this.#edges * PULL_ABOVE ? "pull" : "push";
  }

  #reduce(superstep: number, acks: readonly SuperstepAck[], { aggregates }: BeginReply): Totals {
    let messages = 0;
    for (const [shard, { received }] of acks.entries()) {
      const sent = acks.reduce((sum, ack) => sum + (ack.sent[shard] ?? 0), 0);
      messages += sent;
      if (sent !== received) {
        throw new ShardloomError(
          "ERR_INTERNAL",
          `Cannot accept superstep ${superstep} as shard ${shard} must receive the ${sent} values that were sent to it: current value is ${received}`,
        );
      }
    }
    return {
      superstep,
      messages,
      active: acks.reduce((sum, { active }) => sum + active, 0),
      activeEdges: acks.reduce((sum, { activeEdges }) => sum + activeEdges, 0),
      sums: aggregates.map((rule, at) =>
        acks.reduce((total, { sums }) => combined(rule, total, sums[at] as number), identityOf(rule)),
      ),
    };
  }

  #isDone(totals: Totals | undefined): boolean {
    return totals !== undefined && this.#plan.done(totals, this.#begun[0] as BeginReply);
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
    const { superstepTimeoutMs = 60_000 } = this.#options;
    const timeoutMs = Math.max(1, Math.min(superstepTimeoutMs, this.#leftMs()));
    const handle = account === undefined ? this.#handle : { ...this.#handle, account };
    return askAll<T>(handle, type, body, { timeoutMs, ...(signal === undefined ? {} : { signal }) });
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
