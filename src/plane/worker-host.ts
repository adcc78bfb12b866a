/**
 * The data-plane threads: one perpetual piscina task per worker.
 *
 * piscina gives the thread pool, its resource limits and its replacement of dead threads; it is no supervisor, so
 * who died and what takes over is decided in `control-plane.ts`. `atomics` is disabled, as the default would put idle threads
 * to sleep where no control message reaches them; one task fills one thread for its whole life. A second task
 * for the same shard may start while a quarantined thread is still stuck in a native call, hence `maxThreads`.
 */

import type { Transferable } from "node:worker_threads";
import { Piscina } from "piscina";
import { ShardloomError } from "../errors.ts";

/** How the pool of data-plane threads is made. */
export interface WorkerHostOptions {
  /** The compiled `*.worker.js` that exports the task. */
  readonly workerUrl: URL;
  readonly workers: number;
  /** V8 heap limit of each worker in MiB. @default V8's own */
  readonly maxHeapMb?: number;
  /** Added to the nice value of each worker's thread. */
  readonly workerNice: number;
}

/** One running worker. */
export interface RunningWorker {
  /** Settles when the task ends: with its value, or with the reason of its thread's death. */
  readonly done: Promise<unknown>;
  /** Terminates the thread. Never call while it is inside a native call: that can abort the process. */
  terminate(): void;
}

/** A fixed-size pool whose threads each run one perpetual task. */
export class WorkerHost {
  readonly #pool: Piscina;

  constructor(options: WorkerHostOptions) {
    this.#pool = new Piscina({
      filename: options.workerUrl.href,
      minThreads: options.workers,
      maxThreads: options.workers * 2 + 2,
      idleTimeout: Number.POSITIVE_INFINITY,
      concurrentTasksPerWorker: 1,
      maxQueue: options.workers * 2,
      atomics: "disabled",
      recordTiming: false,
      niceIncrement: options.workerNice,
      ...(options.maxHeapMb === undefined ? {} : { resourceLimits: { maxOldGenerationSizeMb: options.maxHeapMb } }),
    });
    // Deaths arrive as rejections of the task; without a listener the same event would end the process.
    this.#pool.on("error", () => undefined);
  }

  /** Starts the perpetual task of one worker, once `after` has resolved. */
  run(task: unknown, transferList: readonly Transferable[], after?: Promise<void>): RunningWorker {
    const abort = new AbortController();
    const start = (): Promise<unknown> =>
      this.#pool.run(task, { signal: abort.signal, transferList: [...transferList] as never });
    return { done: after === undefined ? start() : after.then(start), terminate: () => abort.abort() };
  }

  /** Ends the idle threads. All tasks must have settled. */
  async close(): Promise<void> {
    await this.#pool.destroy();
  }
}

/** Says in our words why a task's thread died. */
export function describeDeath(shard: number, reason: unknown): ShardloomError {
  const message = reason instanceof Error ? reason.message : String(reason);
  return new ShardloomError(
    "ERR_WORKER_LOST",
    `Cannot finish request as the worker of shard ${shard} died: ${message}`,
    {
      details: { shard, reason: (reason as { code?: unknown })?.code ?? "unknown" },
      cause: reason,
    },
  );
}

/** For calls to a worker that may fail once it is lost, and then only. */
export function unlessLost(worker: { readonly state: string }): (error: unknown) => void {
  return (error) => {
    if (worker.state !== "lost") throw error;
  };
}
