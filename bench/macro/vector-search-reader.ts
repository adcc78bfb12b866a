/**
 * The bench's end of a thread that searches one-sidedly (vector-search.worker.ts), and what the two say to each other.
 *
 * Invariant: one command at a time; a thread that fails fails the command that waits for it.
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { Cluster, ClusterPort } from "../../src/index.ts";

/** What a thread is started with: row-major queries in shared memory. */
export interface ReaderTask {
  readonly port: Omit<ClusterPort, "transferList">;
  readonly collection: string;
  readonly queries: Float32Array;
  readonly dimensions: number;
}

/** Searches from one moment to another, in ms of the epoch, beginning with a query. */
export interface LoopCommand {
  readonly type: "loop";
  readonly fromMs: number;
  readonly untilMs: number;
  readonly first: number;
  readonly ef: number;
}

/** Searches every query once, each against an exact scan right after. */
export interface RecallCommand {
  readonly type: "recall";
  readonly queries: number;
  readonly ef: number;
}

/** What a loop did. */
export interface LoopAnswer {
  readonly searches: number;
  /** Searches that the shards answered. */
  readonly fellBack: number;
  /** Answers with fewer hits than asked for. */
  readonly short: number;
}

/** The bench's end of one such thread. */
export class ReaderThread {
  readonly #worker: Worker;

  private constructor(worker: Worker) {
    this.#worker = worker;
  }

  static async start(
    cluster: Cluster,
    collection: string,
    queries: Float32Array,
    dimensions: number,
  ): Promise<ReaderThread> {
    const { transferList, ...port } = await cluster.port();
    const task: ReaderTask = { port, collection, queries, dimensions };
    const worker = new Worker(new URL("./vector-search.worker.js", import.meta.url), {
      workerData: task,
      transferList: [...transferList],
    });
    await once(worker, "message");
    return new ReaderThread(worker);
  }

  loop(command: Omit<LoopCommand, "type">): Promise<LoopAnswer> {
    return this.#ask({ type: "loop", ...command });
  }

  recall(command: Omit<RecallCommand, "type">): Promise<number> {
    return this.#ask({ type: "recall", ...command });
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }

  async #ask<T>(command: LoopCommand | RecallCommand): Promise<T> {
    this.#worker.postMessage(command);
    const [answer] = (await once(this.#worker, "message")) as [T]; // rejects when the thread fails
    return answer;
  }
}
