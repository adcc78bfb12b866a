/**
 * Runs worlds one after the other in a thread of their own: loads workloads and their actors, closes the traps, opens them again.
 *
 * Invariant: whatever can only be had from outside, by I/O or in real time, is had before a run begins: modules, kernels, stemmers.
 */
import { LANGUAGES, loadStemmer } from "../../actors/text/stemmers.ts";
import { compileKernels } from "../../native-bridge/kernels.ts";
import { ShardloomError } from "../errors.ts";
import { encodeError } from "../wire/error-codec.ts";
import type { Traps } from "./traps.ts";
import { makeWorkload } from "./workload-run.ts";
import type { Workload, WorkloadRef } from "./workload-types.ts";
import { beginRun, type RunningWorld } from "./world.ts";
import type { WorldCommand, WorldReport } from "./world-messages.ts";
import type { RunResult } from "./world-types.ts";

type RunCommand = WorldCommand & { readonly kind: "run" };

/** One per thread of worlds. */
export class WorldHost {
  readonly #traps: Traps;
  readonly #send: (report: WorldReport) => void;
  readonly #aborts: Map<number, AbortController> = new Map();
  #running: RunningWorld | undefined;
  #last: Promise<void> = Promise.resolve();

  private constructor(traps: Traps, send: (report: WorldReport) => void) {
    this.#traps = traps;
    this.#send = send;
  }

  /** Loads what every world needs. @param send Posts to the thread that asked for the world */
  static async create(traps: Traps, send: (report: WorldReport) => void): Promise<WorldHost> {
    compileKernels("portable");
    for (const language of LANGUAGES) await loadStemmer(language);
    return new WorldHost(traps, send);
  }

  /** Runs follow one another. */
  take(command: WorldCommand): void {
    if (command.kind === "abort") {
      this.#aborts.get(command.run)?.abort();
      return;
    }
    const abort = new AbortController();
    this.#aborts.set(command.run, abort);
    this.#last = this.#last.then(() => this.#answer(command, abort.signal));
  }

  /** Something threw that nobody caught. */
  uncaught(error: unknown): void {
    if (this.#running === undefined) throw error;
    this.#running.uncaught(error);
  }

  async #answer(command: RunCommand, signal: AbortSignal): Promise<void> {
    const { run } = command;
    try {
      const result = await this.#run(command, signal);
      this.#send({ kind: "result", run, result });
    } catch (error) {
      this.#send({ kind: "error", run, error: encodeError(ShardloomError.from(error)) });
    } finally {
      this.#traps.enter("open");
      this.#running = undefined;
      this.#aborts.delete(run);
    }
  }

  async #run({ run, options, workload: ref, replay }: RunCommand, signal: AbortSignal): Promise<RunResult> {
    const traps = this.#traps;
    traps.onCall = () => undefined;
    traps.enter("loading");
    const exported = await importModule(ref.module);
    traps.enter("armed");
    const workload = makeWorkload(exported, ref);
    traps.enter("loading");
    const modules = await importActors(workload, ref);
    traps.enter("armed");
    this.#running = beginRun({
      options,
      workload,
      modules,
      signal,
      onProgress: (progress) => this.#send({ kind: "progress", run, progress }),
      ...(replay === undefined ? {} : { replay }),
    });
    const { escaped, result } = this.#running;
    traps.onCall = escaped;
    return result;
  }
}

async function importActors(
  workload: Workload,
  ref: WorkloadRef,
): Promise<ReadonlyMap<string, Record<string, unknown>>> {
  const modules = new Map<string, Record<string, unknown>>();
  for (const url of workload.actors ?? []) modules.set(url.href, await importModule(url.href, ref));
  return modules;
}

async function importModule(url: string, ref?: WorkloadRef): Promise<Record<string, unknown>> {
  try {
    return (await import(url)) as Record<string, unknown>;
  } catch (error) {
    if (ShardloomError.is(error)) throw error;
    const what = ref === undefined ? "workload" : `actors of workload ${ref.export}`;
    const message = error instanceof Error ? error.message : String(error);
    throw new ShardloomError("ERR_MODULE_NOT_LOADED", `Cannot load ${what} from ${url}: ${message}`, {
      details: { url },
      cause: error,
    });
  }
}
