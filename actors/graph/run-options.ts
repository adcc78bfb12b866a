/**
 * What every run over a graph takes, and what it tells while it goes on.
 */
import type { CallOptions } from "../call-options.ts";
import type { ExplainRun } from "./run-account.ts";
import type { Exchange } from "./run-messages.ts";

/** How far a run is. */
export interface RunProgress {
  readonly superstep: number;
  /** How values came in this superstep. */
  readonly exchange: Exchange;
  /** Vertices that have sent, or will compute without being sent to. */
  readonly active: number;
  /** Values that were pushed from shard to shard. */
  readonly messages: number;
  /** Change of the result since the last superstep, where the algorithm measures it. */
  readonly delta: number | undefined;
  /** 1, and one more after each worker that was lost. */
  readonly attempt: number;
}

/** Options of every run. */
export interface RunOptions extends CallOptions {
  /** Called after every superstep. */
  readonly onProgress?: (progress: RunProgress) => void;
  /** How values travel: pushed as messages, pulled out of the senders' memory, or as is cheaper in each superstep. @default "auto" */
  readonly exchange?: "auto" | "push" | "pull";
  /** Supersteps between two checkpoints; 0: none, and a lost worker means to begin anew. @default 8 */
  readonly checkpointEvery?: number;
  /**
   * Most supersteps that the shards do at one order, when their number is known beforehand: they wait for each other then, and progress is
   * told of several at a time, about every 50 ms. An order ends at a checkpoint. 1: the coordinator stands between any two. @default 64
   */
  readonly superstepsAtOnce?: number;
  /** Longest time of one superstep, or of those of one order, in ms. `timeoutMs` is that of the whole run. @default 60000 */
  readonly superstepTimeoutMs?: number;
  /** How long shards keep the run when nobody asks about it, as its thread has ended or is busy, in ms, at least 1000. @default 60000 */
  readonly idleMs?: number;
  /** How long a result is not looked at until it may give way to another, when there is no place left, in ms, at least 1000. @default 600000 */
  readonly resultIdleMs?: number;
  /** Gives the result an account of every superstep and of what was asked of whom, or tells it to a function. @default false */
  readonly explain?: ExplainRun;
}
