/**
 * What a worker is given by its entry point: everything that only the thread itself can know or do.
 *
 * Invariant: no behaviour.
 */
import type { ShardControl } from "../src/plane/shard-task.ts";
import type { Disk } from "../src/runtime/disk.ts";
import type { Runtime } from "../src/runtime/runtime.ts";
import type { NatsPlace, NatsShard } from "../src/store/nats-shard.ts";

/** What only the thread's entry point can know. */
export interface WorkerEnvironment {
  readonly runtime: Runtime;
  /** Serves the methods of `api` on the worker's end of its control channel. @returns what ends that */
  readonly serveControl: (port: unknown, api: ShardControl) => () => void;
  /** Loads a module of actors. */
  readonly importModule: (url: string) => Promise<Record<string, unknown>>;
  /** Names of what the event loop holds open, as `process.getActiveResourcesInfo` gives them. */
  readonly activeResources: () => readonly string[];
  readonly heapUsedBytes: () => number;
  /** Whether paths of directories mean something to native libraries. */
  readonly hasFiles: boolean;
  /** Opens a directory whose lock the node's main thread holds. */
  readonly openDisk: (directory: string) => Promise<Disk>;
  /** Opens what a shard keeps in NATS. Absent where there is no network to it. */
  readonly openNats?: (place: NatsPlace, shard: number) => Promise<NatsShard>;
  /** Ends this thread at once, with whatever timers user code has left on it. */
  readonly exitThread: () => never;
}
