/**
 * What the documents' thread of a node is given, and what it says back.
 *
 * Invariant: everything here may be posted to another thread.
 */

/** The task of the documents' thread: it runs until it is told to stop. */
export interface DocumentsTask {
  /** Path of the node's directory, whose lock the node's main thread holds. */
  readonly directory: string;
  readonly clusterId: string;
  /** Shards of this node. */
  readonly shards: readonly number[];
  /** Numbers of the collections that are open at the start; what earlier lives have left of others is removed. */
  readonly collections: readonly number[];
  /** Up to where each shard's log is durable, 0 until that is known. Shape: `Float64Array`, by shard. */
  readonly durable: SharedArrayBuffer;
  /** Up to where each shard's documents are durable. Shape: `Float64Array`, by shard. */
  readonly applied: SharedArrayBuffer;
  /** What the thread's transactions pass, see WriteGate: `process.exit` shuts it. */
  readonly gate: SharedArrayBuffer;
  /** Scrubs also documents that were closed in order. */
  readonly scrubAlways: boolean;
  /** Where the thread is told to stop ({@link StopDocuments}), and says what has failed ({@link DocumentsFailure}). */
  readonly port: unknown;
}

/** Asks the thread to end: when its documents have all that is durable, but before so many ms have passed. */
export interface StopDocuments {
  readonly drainMs: number;
}

/** Documents of a shard do not follow its log at present, or do so again. */
export interface DocumentsFailure {
  readonly shard: number;
  readonly code: string | undefined;
  readonly message: string;
}

/**
 * A position that another thread publishes in a `Float64Array`.
 *
 * Positions only rise and lie below 2^53. A double that is written in two halves is read as something that the next read does not confirm;
 * and if it ever were, the documents would be ahead of the log after a crash, which their next opening finds.
 */
export function readPosition(positions: Float64Array, index: number): number {
  for (let last = positions[index] as number; ; ) {
    const again = positions[index] as number;
    if (again === last) return Number.isSafeInteger(again) && again > 0 ? again : 0;
    last = again;
  }
}
