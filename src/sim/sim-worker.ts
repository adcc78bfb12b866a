/**
 * A worker of a simulated node: the production worker's code on a simulated thread.
 *
 * Invariant: its end is told once, to the thread that started it and some time later, as a message; after it nothing of the worker runs.
 */
import { hostShard } from "../../actors/shard-host.ts";
import { ShardloomError } from "../errors.ts";
import type { RunningWorker } from "../plane/platform.ts";
import type { ShardTask } from "../plane/shard-task.ts";
import type { ThreadDisk } from "./disk.ts";
import { directoryOf } from "./disk-directory.ts";
import type { SimThread } from "./threads.ts";
import type { VirtualChannel } from "./virtual-channel.ts";

/** Time until the end of a thread is known to its process, in µs. */
const END_US = 100;
/** Says that the event loop holds something open, so that the worker parks without blocking: nothing may block a world. */
const OPEN: readonly string[] = ["Simulation"];

/** What a worker is made of. */
export interface SimWorkerOptions {
  /** The thread that starts it and is told of its end. */
  readonly main: SimThread;
  readonly thread: SimThread;
  readonly task: ShardTask;
  /** Modules of actors by URL. */
  readonly modules: ReadonlyMap<string, Record<string, unknown>>;
  /** The node's, as the worker's thread has it. */
  readonly disk: ThreadDisk;
  /** It died, rather than end in an orderly way. */
  readonly onDeath: () => void;
}

/** One life of a worker. */
export class SimWorker implements RunningWorker {
  readonly done: Promise<unknown>;
  readonly thread: SimThread;
  readonly #options: SimWorkerOptions;
  #resolve!: (ending: string) => void;
  #reject!: (reason: unknown) => void;
  #ended = false;

  constructor(options: SimWorkerOptions) {
    this.#options = options;
    this.thread = options.thread;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** The shard that it serves, and the node's memory. */
  get task(): ShardTask {
    return this.#options.task;
  }

  /** Starts the thread. @param delayUs How long that takes */
  start(delayUs: number): void {
    if (this.#ended) return;
    this.thread.post(delayUs, "thread starts", () => {
      this.#run().then(
        (ending) => this.#end(() => this.#resolve(ending)),
        (reason: unknown) => this.die(reason),
      );
    });
  }

  terminate(): void {
    this.die(new Error("the thread was terminated"));
  }

  /** Ends the thread as one that dies ends. */
  die(reason: unknown): void {
    if (this.#ended) return;
    this.#options.onDeath();
    this.#end(() => this.#reject(reason));
  }

  #run(): Promise<string> {
    const { thread, task, modules } = this.#options;
    return hostShard(task, {
      runtime: thread.runtime,
      serveControl: (port, api) => (port as VirtualChannel).serve(thread, api),
      importModule: (url) => loadedModule(modules, url),
      activeResources: () => OPEN,
      hasFiles: false,
      openDisk: async (directory) => directoryOf(this.#options.disk.disk, directory),
      heapUsedBytes: () => 0, // what the real heap holds is no business of the world
      exitThread: () => {
        const exited = new Error("the thread exited");
        this.die(exited);
        throw exited;
      },
    });
  }

  #end(tell: () => void): void {
    if (this.#ended) return;
    this.#ended = true;
    this.thread.kill();
    const { disk, main } = this.#options;
    main.post(Math.max(END_US, disk.detach()), "thread ends", tell); // a thread has ended when its I/O has
  }
}

async function loadedModule(
  modules: ReadonlyMap<string, Record<string, unknown>>,
  url: string,
): Promise<Record<string, unknown>> {
  const found = modules.get(url);
  if (found !== undefined) return found;
  throw new ShardloomError(
    "ERR_MODULE_NOT_LOADED",
    `Cannot load ${url} in a world as it was not loaded before the run`,
  );
}
