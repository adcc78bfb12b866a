/**
 * `createWorld`: a simulated cluster in a thread of its own, and the runs of workloads in it.
 *
 * Invariant: options are checked before a thread is started. Runs of one world follow one another, and none influences the next: a run depends
 * on options, seed, workload and replay alone.
 */
import { Worker } from "node:worker_threads";
import { describeValue, invalidArgument, ShardloomError } from "../errors.ts";
import { createSeededRandom } from "../runtime/random.ts";
import { type Cancel, systemScheduler } from "../runtime/scheduler.ts";
import { decodeErrorAt } from "../wire/error-codec.ts";
import { checkFaults, resolveFaults } from "./faults.ts";
import { IMPORT_CALL } from "./trap-table.ts";
import type { WorkloadRef } from "./workload-types.ts";
import type { WorldCommand, WorldReport } from "./world-messages.ts";
import { checkSeed, resolveWorldOptions } from "./world-options.ts";
import { faultShapeOf } from "./world-shape.ts";
import type { ResolvedWorldOptions, RunOptions, RunProgress, RunResult, WorldOptions } from "./world-types.ts";

const WORKER_URL: URL = new URL("./world.worker.js", import.meta.url);

/** Events leave short-lived objects behind: with V8's small default a tenth of a run is copying those that live a little longer. */
const YOUNG_MB = 64;

/**
 * Real time in which a thread that was told to stop must give a sign of life, or is ended: a loop of a user's that never ends gives none. A living
 * one reports some times a second.
 */
const GRACE_MS = 5_000;

/** A simulated cluster. */
export interface World extends AsyncDisposable {
  readonly options: ResolvedWorldOptions;
  /**
   * Runs a workload from the start of all nodes to the last judgement. A run that neither stops nor gives a sign of life after its wall limit or
   * an abort costs the world its thread; the next run starts another.
   *
   * @throws {ShardloomError} `ERR_ABORTED`, `ERR_TIMEOUT` (wall limit, or nodes that do not start), `ERR_WORKLOAD_FAILED`,
   *   `ERR_MODULE_NOT_LOADED`, `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`. What the run found wrong is in its result.
   */
  run(workload: WorkloadRef, options?: RunOptions): Promise<RunResult>;
  /** Ends the world's thread; open runs fail with `ERR_CLOSED`. Idempotent. */
  close(): Promise<void>;
}

/**
 * Makes a world. Its thread starts with the first run.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the option.
 *
 * @example Five nodes for ten simulated minutes, with everything going wrong
 * const world = createWorld({ seed: 7, nodes: 5, minutes: 10, faults: "all" });
 * const { verdict, violations } = await world.run({ module: import.meta.resolve("./bank.js"), export: "bank", options: {} });
 */
export function createWorld(options: WorldOptions = {}): World {
  const resolved = resolveWorldOptions(options);
  resolveFaults(resolved.faults, createSeededRandom(resolved.seed), faultShapeOf(resolved));
  return new WorldThread(resolved);
}

interface OpenRun {
  readonly resolve: (result: RunResult) => void;
  readonly reject: (error: ShardloomError) => void;
  readonly onProgress: ((progress: RunProgress) => void) | undefined;
  readonly watches: Cancel[];
}

class WorldThread implements World {
  readonly options: ResolvedWorldOptions;
  readonly #open: Map<number, OpenRun> = new Map();
  #worker: Worker | undefined;
  #runs = 0;
  /** Counts what the thread has said. */
  #reports = 0;
  #closed = false;

  constructor(options: ResolvedWorldOptions) {
    this.options = options;
  }

  async run(workload: WorkloadRef, options: RunOptions = {}): Promise<RunResult> {
    const { signal, onProgress, replay, seed = this.options.seed } = options;
    checkSeed(seed);
    checkRef(workload);
    if (replay?.faults !== undefined) checkFaults(replay.faults, faultShapeOf(this.options));
    if (this.#closed) throw closed();
    if (signal?.aborted) throw new ShardloomError("ERR_ABORTED", "Cannot run workload as it was aborted");
    const { wallLimitMs } = this.options;
    const run = ++this.#runs;
    const command: WorldCommand = { kind: "run", run, options: { ...this.options, seed }, workload, replay };
    const abort = (): void => {
      this.#worker?.postMessage({ kind: "abort", run } satisfies WorldCommand);
      this.#watch(run, GRACE_MS, () => neverStopped("ERR_ABORTED", "it was aborted"));
    };
    try {
      const result = await new Promise<RunResult>((resolve, reject) => {
        this.#open.set(run, { resolve, reject, onProgress, watches: [] });
        this.#post(command);
        const late = (): ShardloomError =>
          neverStopped("ERR_TIMEOUT", `it took more than ${wallLimitMs} ms of real time`, { limitMs: wallLimitMs });
        this.#watch(run, wallLimitMs + GRACE_MS, late);
        signal?.addEventListener("abort", abort, { once: true });
      });
      if (result.escapes.some(({ call }) => call === IMPORT_CALL)) this.#retire();
      return result;
    } finally {
      for (const cancel of this.#open.get(run)?.watches ?? []) cancel();
      this.#open.delete(run);
      signal?.removeEventListener("abort", abort);
      // The end of a thread keeps the process alive until it has come.
      if (this.#open.size === 0 && !this.#closed) this.#worker?.unref();
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#failAll(closed());
    await this.#worker?.terminate();
    this.#worker = undefined;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Ends the thread, as its loader remembers which modules it refused; the next run gets another one. */
  #retire(): void {
    if (this.#open.size > 1) return;
    const worker = this.#worker;
    this.#worker = undefined;
    void worker?.terminate();
  }

  #post(command: WorldCommand): void {
    const worker = this.#worker ?? this.#start();
    worker.ref();
    try {
      worker.postMessage(command);
    } catch (cause) {
      throw new ShardloomError("ERR_INVALID_ARGUMENT", "Cannot run workload as its options must be plain data", {
        cause,
      });
    }
  }

  #start(): Worker {
    const worker = new Worker(WORKER_URL, {
      name: "shardloom-world",
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
    });
    this.#worker = worker;
    worker.on("message", (report: WorldReport) => this.#take(report));
    const died = (cause: unknown): void => {
      if (this.#worker !== worker) return; // it was closed, or its error has been told
      this.#worker = undefined;
      this.#failAll(worldLost(cause));
    };
    worker.on("error", died);
    worker.on("exit", () => died(undefined));
    return worker;
  }

  /** Ends the thread when it has said nothing for a while: then no message reaches it either. */
  #watch(run: number, silentMs: number, error: () => ShardloomError): void {
    const heard = this.#reports;
    const cancel = systemScheduler.after(silentMs, () => {
      if (this.#reports !== heard) return this.#watch(run, silentMs, error);
      const worker = this.#worker;
      this.#worker = undefined;
      this.#open.get(run)?.reject(error());
      this.#failAll(worldLost(new Error("another run of it never stopped")));
      void worker?.terminate();
    });
    this.#open.get(run)?.watches.push(cancel);
  }

  #take(report: WorldReport): void {
    this.#reports++;
    const open = this.#open.get(report.run);
    if (report.kind === "progress") open?.onProgress?.(report.progress);
    else if (report.kind === "result") open?.resolve(report.result);
    else open?.reject(decodeErrorAt(report.error, 0, report.error.length));
  }

  #failAll(error: ShardloomError): void {
    for (const { reject } of this.#open.values()) reject(error);
  }
}

function checkRef(workload: WorkloadRef): void {
  const refuse = (name: string, rule: string, value: unknown): Error =>
    invalidArgument("run workload", name, rule, value);
  if (typeof workload !== "object" || workload === null) throw refuse("workload", "an object", workload);
  const { module, export: exported } = workload;
  if (typeof module !== "string" || !URL.canParse(module))
    throw refuse("workload.module", "the URL of a module", module);
  if (typeof exported !== "string" || exported === "") throw refuse("workload.export", "a name", exported);
}

function closed(): ShardloomError {
  return new ShardloomError("ERR_CLOSED", "Cannot run workload as the world is closed");
}

function neverStopped(
  code: "ERR_ABORTED" | "ERR_TIMEOUT",
  reason: string,
  details: { readonly limitMs?: number } = {},
): ShardloomError {
  const message = `Cannot finish run as ${reason}, and its thread had to be ended: some code in it does not return`;
  return new ShardloomError(code, message, { details });
}

function worldLost(cause: unknown): ShardloomError {
  const reason = cause instanceof Error ? cause.message : cause === undefined ? "it ended" : describeValue(cause);
  return new ShardloomError("ERR_WORKER_LOST", `Cannot finish run as the thread of its world died: ${reason}`, {
    cause,
  });
}
