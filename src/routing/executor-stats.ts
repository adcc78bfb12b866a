/**
 * Counters of one executor.
 *
 * Invariant: `requests` = first requests + `retries` + `hedges`; a hedge that has ended was won, lost or dropped.
 */

/** What an executor did since it was created. */
export interface ExecutorStats {
  calls: number;
  /** Requests sent, or refused by their ring. */
  requests: number;
  /** Requests that another had failed before. */
  retries: number;
  /** Requests sent to a second copy while the first had not answered. */
  hedges: number;
  /** Requests that were hedged and whose second copies answered first. */
  hedgesWon: number;
  /** Requests that were hedged and answered first after all, or whose hedge failed. */
  hedgesLost: number;
  /** Hedges and retries that the budgets refused. */
  denied: number;
  /** Pieces of a plan that were planned anew with a newer topology. */
  replans: number;
  /** Requests that an open breaker kept from their shard. */
  passedOver: number;
  /** How often a breaker opened. */
  breakersOpened: number;
}

/** All zero. */
export function createExecutorStats(): ExecutorStats {
  return {
    calls: 0,
    requests: 0,
    retries: 0,
    hedges: 0,
    hedgesWon: 0,
    hedgesLost: 0,
    denied: 0,
    replans: 0,
    passedOver: 0,
    breakersOpened: 0,
  };
}
