/**
 * What a thread knows of the world around it: the time, later, and chance.
 *
 * Invariant: the three belong to one thread. Whatever lies below a thread's entry point gets them from here, which is what lets a
 * simulated world run many threads, each with a clock of its own, in one.
 */
import { type Clock, systemClock } from "./clock.ts";
import { type Random, systemRandom } from "./random.ts";
import { type Scheduler, systemScheduler } from "./scheduler.ts";

/** Time, later and chance of one thread. */
export interface Runtime {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  /** Fit for keys that must not be guessed, except where a run must repeat. */
  readonly random: Random;
}

/** The platform's, for the calling thread. */
export const systemRuntime: Runtime = { clock: systemClock, scheduler: systemScheduler, random: systemRandom };
