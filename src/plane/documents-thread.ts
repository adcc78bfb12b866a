/**
 * The main thread's side of the documents' thread: starts it, knows how far it is, ends it.
 *
 * Invariant: the thread is asked to end and never terminated: inside a transaction it holds a lock of LMDB that the whole process shares. One
 * that has died is not replaced, for the same reason: the documents stay where they are, and the next start of the node scrubs them.
 */
import { MessageChannel, type MessagePort } from "node:worker_threads";
import { ShardloomError } from "../errors.ts";
import { WriteGate } from "../runtime/write-gate.ts";
import { type DocumentsFailure, type DocumentsTask, readPosition, type StopDocuments } from "./documents-task.ts";
import { ThreadPool } from "./thread-pool.ts";

export type DocumentsOptions = Omit<DocumentsTask, "port" | "applied" | "scrubAlways" | "gate"> & {
  /** Up to where each shard's documents are durable, for others to read as well. Shape: `Float64Array`, by shard. @default a new one */
  readonly applied?: SharedArrayBuffer;
  /** Scrubs also documents that were closed in order. @default false */
  readonly scrubAlways?: boolean;
  /** Added to the nice value of the thread. @default 10 */
  readonly nice?: number;
};

/** The documents of a node. */
export interface DocumentsThread {
  /** Position of a shard's log up to which its documents are durable; 0 while that is not known. */
  applied(shard: number): number;
  /** Why the documents of a shard do not follow its log at present. */
  failure(shard: number): ShardloomError | undefined;
  /**
   * Ends the thread between two transactions, and marks the documents as closed in order.
   *
   * @param drainMs How long documents may go on being brought up to the log's durable position. @default 2000
   */
  close(drainMs?: number): Promise<void>;
}

/**
 * Starts it. Every shard's log is open, and its durable position published: documents that are ahead of it are thrown away.
 *
 * @param workerUrl The compiled entry point of the thread.
 */
export function startDocumentsThread(workerUrl: URL, options: DocumentsOptions): DocumentsThread {
  const {
    nice = 10,
    scrubAlways = false,
    applied = new SharedArrayBuffer(options.durable.byteLength),
    ...rest
  } = options;
  const { port1, port2 } = new MessageChannel();
  const pool = new ThreadPool(workerUrl, { workers: 1, workerNice: nice });
  const gate = new SharedArrayBuffer(4);
  const task: DocumentsTask = { ...rest, applied, scrubAlways, gate, port: port2 };
  const running = pool.run(task, [port2]);
  return new Thread(pool, port1, running.done, new Float64Array(applied), new WriteGate(gate));
}

/** Gates of the threads of this process. */
const GATES: Set<WriteGate> = new Set();
/** How long the process waits at its exit for a transaction to end. */
const EXIT_MS = 10_000;

/** Runs when the process exits, before its threads are ended. */
function shutGates(): void {
  for (const gate of GATES) gate.shut(EXIT_MS);
}

class Thread implements DocumentsThread {
  readonly #pool: ThreadPool;
  readonly #port: MessagePort;
  readonly #ended: Promise<void>;
  readonly #applied: Float64Array;
  readonly #failures: Map<number, ShardloomError> = new Map();
  #death: ShardloomError | undefined;
  #closed: Promise<void> | undefined;

  constructor(pool: ThreadPool, port: MessagePort, done: Promise<unknown>, applied: Float64Array, gate: WriteGate) {
    this.#pool = pool;
    this.#port = port;
    this.#applied = applied;
    if (GATES.size === 0) process.on("exit", shutGates);
    GATES.add(gate);
    this.#ended = done
      .catch((error: unknown) => {
        this.#death = ShardloomError.from(error);
      })
      .then(() => {
        GATES.delete(gate);
        if (GATES.size === 0) process.off("exit", shutGates);
      });
    port.on("message", ({ shard, code, message }: DocumentsFailure) => {
      if (code === undefined) this.#failures.delete(shard);
      else
        this.#failures.set(shard, new ShardloomError(code as ShardloomError["code"], message, { details: { shard } }));
    });
    port.unref();
  }

  applied(shard: number): number {
    return readPosition(this.#applied, shard);
  }

  failure(shard: number): ShardloomError | undefined {
    return this.#death ?? this.#failures.get(shard);
  }

  close(drainMs = 2_000): Promise<void> {
    this.#closed ??= this.#close({ drainMs });
    return this.#closed;
  }

  async #close(stop: StopDocuments): Promise<void> {
    this.#port.postMessage(stop);
    await this.#ended;
    this.#port.close();
    await this.#pool.close();
  }
}
