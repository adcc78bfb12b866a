/**
 * What a node's control plane stands on: its thread's runtime, threads for workers, and channels to them.
 *
 * Invariant: the control plane knows threads and channels by these interfaces alone, so that the same control plane runs real
 * threads (`system-platform.ts`) and simulated ones.
 */
import type { KernelBuild } from "../../native-bridge/kernels.ts";
import type { Disk } from "../runtime/disk.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { ControlConnection } from "./control-rpc.ts";

/** How the threads of a node's workers are made. */
export interface WorkerHostOptions {
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

/** The threads of a node's workers, each of which runs one perpetual task. */
export interface WorkerHost {
  /** Starts the perpetual task of one worker, once `after` has resolved. @param transfer Parts of the task that move to the thread */
  run(task: unknown, transfer: readonly unknown[], after?: Promise<void>): RunningWorker;
  /** Ends the idle threads. All tasks must have settled. */
  close(): Promise<void>;
}

/** A way for calls to one worker. */
export interface ControlChannel {
  /** The worker's end: goes into its task, and moves to its thread. */
  readonly port: unknown;
  /** Connects this thread's end. @param afterPost Called after each call was posted, to ring the worker's doorbell. */
  connect<T>(afterPost: () => void): ControlConnection<T>;
}

/** What a control plane stands on. */
export interface Platform {
  readonly runtime: Runtime;
  /** Which build of the kernels its threads run: where a run must repeat, one whose results are the same on every machine. @default the fastest */
  readonly kernels?: KernelBuild;
  createWorkerHost(options: WorkerHostOptions): WorkerHost;
  createControlChannel(): ControlChannel;
  /**
   * Opens a directory of this node's machine, made when it is missing, for this node alone until it is closed.
   *
   * @throws {ShardloomError} `ERR_DIRECTORY_IN_USE` while another process, or another cluster of this one, has it open; and as disks do.
   */
  openDirectory(path: string, options?: OpenDirectoryOptions): Promise<OpenDirectory>;
}

/** How a directory is opened. */
export interface OpenDirectoryOptions {
  /** Looks at the directory before anything in it is written: what it throws leaves it as it was. */
  readonly check?: (disk: Disk) => Promise<void>;
  /** It must be there: `ERR_NO_FILE`. @default false */
  readonly existing?: boolean;
  /** It is only read, and others may read it too: nothing is locked, and it must be there. @default false */
  readonly shared?: boolean;
}

/** A directory that one node has for itself. */
export interface OpenDirectory {
  readonly disk: Disk;
  /** Gives the directory free; harmless a second time. */
  close(): Promise<void>;
}
