/**
 * Waits that can all be given up at once: the pauses before workers are started again.
 *
 * Invariant: a pause ends exactly once, when its time is over or when everything is given up.
 */
import { ShardloomError } from "../errors.ts";
import type { Scheduler } from "../runtime/scheduler.ts";

/** The pauses of one control plane. */
export class Pauses {
  readonly #scheduler: Scheduler;
  /** What gives each of them up. */
  readonly #open: Set<() => void> = new Set();

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
  }

  /** Resolves after a while; rejects with `ERR_CLOSED` when all are given up meanwhile. */
  wait(delayMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = this.#scheduler.timer(delayMs, () => {
        this.#open.delete(giveUp);
        resolve();
      });
      const giveUp = (): void => {
        timer.cancel();
        this.#open.delete(giveUp);
        reject(new ShardloomError("ERR_CLOSED", "Cannot start worker as the cluster is closed"));
      };
      this.#open.add(giveUp);
    });
  }

  giveUp(): void {
    for (const giveUp of this.#open) giveUp();
  }
}
