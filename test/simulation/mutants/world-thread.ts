/**
 * A thread that runs worlds of many programs, one after the other: production, and copies of it in which something is patched.
 *
 * Invariant: a run depends on its program, options, seed and workload alone. What programs share is loaded once, and stays compiled by the engine:
 * starting a thread and warming it up cost more than most of these runs.
 */
import { Worker } from "node:worker_threads";
import type { WorkloadRef } from "../../../src/sim/workload-types.ts";
import type { WorldCommand, WorldReport } from "../../../src/sim/world-messages.ts";
import { resolveWorldOptions } from "../../../src/sim/world-options.ts";
import type { ReplayPlan, RunResult, WorldOptions } from "../../../src/sim/world-types.ts";
import { decodeErrorAt } from "../../../src/wire/error-codec.ts";

/** What the thread is sent. */
export interface WorldJob {
  /** URL of the program's `src/sim/world-host`. */
  readonly program: string;
  readonly command: WorldCommand;
}

/** As of the threads of `createWorld`. */
const YOUNG_MB = 64;

interface OpenRun {
  readonly resolve: (result: RunResult) => void;
  readonly reject: (error: unknown) => void;
}

export class WorldThread implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #open: Map<number, OpenRun> = new Map();
  #runs = 0;

  constructor() {
    this.#worker = new Worker(new URL("./world-thread.worker.js", import.meta.url), {
      resourceLimits: { maxYoungGenerationSizeMb: YOUNG_MB },
    });
    this.#worker.on("message", (report: WorldReport) => this.#take(report));
    const died = (error: unknown): void => {
      for (const { reject } of this.#open.values()) reject(error);
    };
    this.#worker.on("error", died);
    this.#worker.on("exit", () => died(new Error("the thread of the worlds ended")));
  }

  run(program: string, workload: WorkloadRef, world: WorldOptions, replay?: ReplayPlan): Promise<RunResult> {
    const run = ++this.#runs;
    const command: WorldCommand = { kind: "run", run, options: resolveWorldOptions(world), workload, replay };
    return new Promise((resolve, reject) => {
      this.#open.set(run, { resolve, reject });
      this.#worker.postMessage({ program, command } satisfies WorldJob);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }

  #take(report: WorldReport): void {
    if (report.kind === "progress") return;
    const open = this.#open.get(report.run);
    this.#open.delete(report.run);
    if (report.kind === "result") open?.resolve(report.result);
    else open?.reject(decodeErrorAt(report.error, 0, report.error.length));
  }
}
