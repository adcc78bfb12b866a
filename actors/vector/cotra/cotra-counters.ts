/**
 * What one shard did for collaborative searches, for load statistics, tests and the goals that counters decide.
 *
 * Invariant: counters only grow. A distance is counted where it is asked for, once: `computations` on the owner of the vertex, `pulled` on
 * the reader; a worker that takes over a task counts nothing here (see compute-task.ts).
 */

/** Counters of one shard. */
export interface CotraCounters {
  /** Distances of this shard's own vertices, for its searches and for those of others. */
  computations: number;
  /** Distances of foreign vertices, whose codes were read one-sidedly. */
  pulled: number;
  /** One-sided reads of codes (one a vertex) and of adjacency records, and the bytes of both. */
  codeReads: number;
  adjacencyReads: number;
  readBytes: number;
  /** Pushes: messages that ask an owner for distances, and the vertices that they name. */
  pushes: number;
  pushedVertices: number;
  /** Messages sent to other peers, and their bytes. */
  messages: number;
  messageBytes: number;
  syncs: number;
  tokens: number;
  /** Steps in which a candidate was expanded, and candidates expanded. */
  steps: number;
  expansions: number;
  /** Neighbour ids out of range, vertices asked of the wrong owner, messages that fit no search. */
  damage: number;
  /** Messages that came again. */
  duplicates: number;
  /** Neighbours that nobody could compute as their owner is lost and exposes nothing. */
  unreachable: number;
  /** Searches begun here as primary, and ended in whatever way. */
  started: number;
  ended: number;
}

export function createCounters(): CotraCounters {
  return {
    computations: 0,
    pulled: 0,
    codeReads: 0,
    adjacencyReads: 0,
    readBytes: 0,
    pushes: 0,
    pushedVertices: 0,
    messages: 0,
    messageBytes: 0,
    syncs: 0,
    tokens: 0,
    steps: 0,
    expansions: 0,
    damage: 0,
    duplicates: 0,
    unreachable: 0,
    started: 0,
    ended: 0,
  };
}
