/**
 * The unit of work of a collaborative search, as a plain record, and the hook by which an idle worker may take it over.
 *
 * Invariant: a task says all that computing it takes: whoever can read the codes of `partition` (its owner, or any worker of the node by
 * one-sided reads) gets the same distances. The shard that submitted a task alone acts on them, once, in `CotraShard.complete`; a task
 * that nobody completes is computed by that shard when it is told so (`done: false`), so a thief that dies costs time and no result.
 * Source: the local queue with work stealing of CoTra.
 */

/** Distances to compute: `distances[i]` is to be that of `vertices[i]`. */
export interface ComputeTask {
  /** Unique on the shard that submitted it. */
  readonly id: number;
  /** Where all the vertices live, which is also the shard that submitted the task. */
  readonly partition: number;
  readonly query: Uint8Array;
  readonly vertices: Int32Array;
  /** Written by whoever computes. */
  readonly distances: Float64Array;
}

/** Where a shard's tasks go. */
export interface ComputePool {
  /**
   * Takes a task.
   *
   * @returns Whether its distances are written already; otherwise `CotraShard.complete` must be called once, later.
   */
  submit(task: ComputeTask): boolean;
}
