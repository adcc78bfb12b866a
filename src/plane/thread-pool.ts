/**
 * The data-plane threads: one perpetual piscina task per worker.
 *
 * piscina gives the thread pool, its resource limits and its replacement of dead threads; it is no supervisor, so
 * who died and what takes over is decided in `control-plane.ts`. `atomics` is disabled, as the default would put idle threads
 * to sleep where no control message reaches them; one task fills one thread for its whole life. A second task
 * for the same shard may start while a quarantined thread is still stuck in a native call, hence `maxThreads`.
 */

import { Piscina } from "piscina";
import type { RunningWorker, WorkerHost, WorkerHostOptions } from "./platform.ts";

/** A fixed-size pool whose threads each run one perpetual task. */
export class ThreadPool implements WorkerHost {
  readonly #pool: Piscina;

  /** @param workerUrl The compiled `*.worker.js` that exports the task. */
  constructor(workerUrl: URL, options: WorkerHostOptions) {
    this.#pool = new Piscina({
      filename: workerUrl.href,
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

  run(task: unknown, transfer: readonly unknown[], after?: Promise<void>): RunningWorker {
    const abort = new AbortController();
    const start = (): Promise<unknown> =>
      this.#pool.run(task, { signal: abort.signal, transferList: [...transfer] as never });
    return { done: after === undefined ? start() : after.then(start), terminate: () => abort.abort() };
  }

  async close(): Promise<void> {
    await this.#pool.destroy();
  }
}
