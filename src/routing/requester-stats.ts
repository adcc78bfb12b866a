/**
 * What became of the messages of one requester.
 *
 * Invariant: each accepted message stands in exactly one outcome, so that the sums below hold at any moment.
 */

/**
 * Counters of one requester; they only grow.
 *
 * At any moment `accepted = told + replied + failed + timedOut + cancelled + open`, each message in exactly one of them, and
 * `sent = accepted - unsent - queued`. When nothing is open, the peer has counted `sent - skipped - inDoubt` messages.
 */
export interface RequesterStats {
  /** Requests and tells taken, and notices of cancellation sent, which count as tells. */
  accepted: number;
  /** Requests and tells refused: too large, or too many wait. */
  rejected: number;
  /** Records handed to the peer, tells included. */
  sent: number;
  /** Tells handed to the peer. */
  told: number;
  /** Requests answered with a result. */
  replied: number;
  /** Requests that ended with an error of the peer, or as the peer was lost; tells that were lost while they waited. */
  failed: number;
  /** Of the failed: refused as they were planned with another topology. */
  stale: number;
  timedOut: number;
  cancelled: number;
  /** Of those that ended otherwise than `told` and `replied`: how many were never handed to the peer. */
  unsent: number;
  /** Replies that came after their request had ended. */
  late: number;
  /** Records that the peer skipped as their request had ended before it came to them. */
  skipped: number;
  /** Records of a lost peer that it had not taken, or not answered: it is not known what became of them. */
  inDoubt: number;
}

/** Counters at zero. */
export function createRequesterStats(): RequesterStats {
  return {
    accepted: 0,
    rejected: 0,
    sent: 0,
    told: 0,
    replied: 0,
    failed: 0,
    stale: 0,
    timedOut: 0,
    cancelled: 0,
    unsent: 0,
    late: 0,
    skipped: 0,
    inDoubt: 0,
  };
}
