/**
 * The thread that keeps the documents of a node's shards: one feed for each, in turns, at a low priority.
 *
 * Invariant: between two batches of work there is a pause as long as the work was, and shards that have little to say are asked a few times a
 * second only: documents take what others leave. The thread ends only between two batches, never inside of one.
 */
import {
  type DocumentsFailure,
  type DocumentsTask,
  readPosition,
  type StopDocuments,
} from "../src/plane/documents-task.ts";
import type { Disk } from "../src/runtime/disk.ts";
import type { Runtime } from "../src/runtime/runtime.ts";
import type { Cancel } from "../src/runtime/scheduler.ts";
import { WriteGate } from "../src/runtime/write-gate.ts";
import type { Scrubber } from "../src/store/scrub-documents.ts";
import type { SnapshotTable } from "../src/store/snapshot-table.ts";
import { DocumentFeed, type FeedOptions, type FeedSnapshot, type FrameReader } from "./document-feed.ts";

/** How often a shard is asked whether its log went on. */
const IDLE_MS = 200;
/** Longest pause after a batch. */
const PAUSE_MS = 50;

/** What only the thread's entry point can know. */
export interface DocumentsEnvironment {
  readonly runtime: Runtime;
  readonly openDisk: (directory: string) => Promise<Disk>;
  readonly scrub: Scrubber;
  readonly openReader: (disk: Disk, shard: number) => FrameReader;
  readonly newestSnapshot: (
    disk: Disk,
    shard: number,
    log: { first: number; head: number },
  ) => Promise<FeedSnapshot | undefined>;
  readonly readTable: (table: Uint8Array) => SnapshotTable;
  /** Calls back with every message. */
  readonly onMessage: (port: unknown, listener: (message: unknown) => void) => void;
  readonly post: (port: unknown, message: DocumentsFailure) => void;
  /** Closes the port, so that nothing keeps the thread. */
  readonly done: (port: unknown) => void;
}

/** Runs until it is told to stop. */
export async function hostDocuments(task: DocumentsTask, environment: DocumentsEnvironment): Promise<string> {
  const disk = await environment.openDisk(task.directory);
  await new DocumentsHost(task, environment, disk).run();
  environment.done(task.port);
  return "stopped";
}

class DocumentsHost {
  readonly #task: DocumentsTask;
  readonly #environment: DocumentsEnvironment;
  readonly #feeds: readonly { readonly shard: number; readonly feed: DocumentFeed }[];
  readonly #gate: WriteGate;
  readonly #told: Map<number, string | undefined> = new Map();
  #stop: StopDocuments | undefined;
  #wake: (() => void) | undefined;

  constructor(task: DocumentsTask, environment: DocumentsEnvironment, disk: Disk) {
    this.#task = task;
    this.#environment = environment;
    this.#gate = new WriteGate(task.gate);
    this.#feeds = task.shards.map((shard) => ({ shard, feed: new DocumentFeed(this.#optionsOf(shard, disk)) }));
    environment.onMessage(task.port, (message) => {
      this.#stop = message as StopDocuments;
      this.#wake?.();
    });
  }

  async run(): Promise<void> {
    const { clock } = this.#environment.runtime;
    while (this.#stop === undefined) {
      const startMs = clock.nowMs();
      const isBusy = await this.#round();
      await this.#pause(isBusy ? Math.min(clock.nowMs() - startMs, PAUSE_MS) : IDLE_MS);
    }
    const untilMs = clock.nowMs() + this.#stop.drainMs;
    while (clock.nowMs() < untilMs && (await this.#round()));
    for (const { feed } of this.#feeds) await feed.close();
  }

  /** One batch of each shard. @returns whether any has more at once */
  async #round(): Promise<boolean> {
    let isBusy = false;
    for (const { shard, feed } of this.#feeds) {
      if ((await feed.step()) === "more") isBusy = true;
      this.#tell(shard, feed);
    }
    return isBusy;
  }

  #tell(shard: number, { failure }: DocumentFeed): void {
    if (this.#told.get(shard) === failure?.code) return;
    this.#told.set(shard, failure?.code);
    this.#environment.post(this.#task.port, { shard, code: failure?.code, message: failure?.message ?? "" });
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      let cancel: Cancel | undefined;
      this.#wake = () => {
        cancel?.();
        resolve();
      };
      cancel = this.#environment.runtime.scheduler.after(ms, resolve);
      if (this.#stop !== undefined) this.#wake();
    });
  }

  #optionsOf(shard: number, disk: Disk): FeedOptions {
    const { directory, clusterId, durable, applied, collections, scrubAlways } = this.#task;
    const { runtime, scrub, openReader, newestSnapshot, readTable } = this.#environment;
    const durables = new Float64Array(durable);
    const applieds = new Float64Array(applied);
    return {
      disk,
      shard,
      directory,
      clusterId,
      scrub,
      always: scrubAlways,
      gate: this.#gate,
      randomU32: () => runtime.random.u32(),
      reader: openReader(disk, shard),
      newestSnapshot: (log) => newestSnapshot(disk, shard, log),
      readTable,
      durable: () => readPosition(durables, shard),
      onApplied: (position) => {
        applieds[shard] = position;
      },
      collections: new Set(collections),
      nowMs: () => runtime.clock.nowMs(),
    };
  }
}
