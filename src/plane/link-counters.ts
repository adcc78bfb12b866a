/**
 * What became of the messages that the threads of one node sent to another node.
 *
 * Invariant: at any moment `sent = delivered + rejected + dead + inDoubt + open`, each message in exactly one of them.
 */

/** Counters of one peer, over all connections to it; they only grow, but for `open`. */
export interface LinkCounters {
  /** Requests and tells taken from the rings of local threads. Notices of cancellation are not among them. */
  sent: number;
  /** Requests that a shard answered, with a result or an error; tells that are in a worker's ring. */
  delivered: number;
  /** Requests and tells that were refused before a shard saw them. */
  rejected: number;
  /** Requests that nobody waited for any more; tells to a node that could not be reached. */
  dead: number;
  /** Sent, and the connection or the worker was lost, or the time was over, before anything was known. */
  inDoubt: number;
  /** Sent and without an outcome yet. */
  open: number;
  /** Answers to what had ended otherwise before. */
  late: number;
}

/** Counters at zero. */
export function createLinkCounters(): LinkCounters {
  return { sent: 0, delivered: 0, rejected: 0, dead: 0, inDoubt: 0, open: 0, late: 0 };
}
