/**
 * When somebody last asked about each run of a shard, so that what was abandoned does not stay for ever.
 *
 * A client that is alive asks after its run several times a second; one whose thread has ended does not. Invariant: a run that nobody has
 * asked about for its `idleMs` may be ended by whoever needs the graph; a result for its `resultIdleMs`, when its place is needed.
 */

/** How long a run waits for its client, as the client has chosen. */
export interface RunLimits {
  /** Until a run that is under way is ended, in ms. */
  readonly idleMs: number;
  /** Until a result may give way to another run's, in ms. */
  readonly resultIdleMs: number;
}

/** Of runs whose client has not said otherwise, or whose worker was replaced. */
export const DEFAULT_RUN_LIMITS: RunLimits = { idleMs: 60_000, resultIdleMs: 600_000 };
/** A client looks four times a second, but its thread may have other things to do. */
export const LEAST_IDLE_MS = 1_000;

interface Times {
  readonly limits: RunLimits;
  heardMs: number;
}

export class RunTimes {
  readonly #nowMs: () => number;
  readonly #runs: Map<number, Times> = new Map();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Somebody asks about a run. @param limits Of a run that is new, or begins again. */
  heard(run: number, limits?: RunLimits): void {
    const known = this.#runs.get(run);
    if (known === undefined || limits !== undefined)
      this.#runs.set(run, { limits: limits ?? DEFAULT_RUN_LIMITS, heardMs: this.#nowMs() });
    else known.heardMs = this.#nowMs();
  }

  has(run: number): boolean {
    return this.#runs.has(run);
  }

  forget(run: number): void {
    this.#runs.delete(run);
  }

  /** By how much a run is over its time, in ms; not above 0: it is not. */
  overdueMs(run: number, limit: keyof RunLimits): number {
    const times = this.#runs.get(run);
    return times === undefined ? 0 : this.#nowMs() - times.heardMs - times.limits[limit];
  }
}
