/**
 * The clock of a simulated node: world time, bent by a rate and moved by steps, with an origin of its own.
 *
 * Invariant: it never goes backwards, as the clock that it stands for is monotonic; a step is always forward. Timers count its time: when
 * its rate or its reading changes, what is left of them is counted anew.
 */
import type { Timer } from "../runtime/scheduler.ts";
import type { LoopTimer } from "./loop-types.ts";

/** Makes the event of a timer, at a world time. */
type Place = (worldUs: number, run: () => void) => LoopTimer;

/** A timer of a node's clock. */
class ClockTimer implements Timer {
  readonly owner: object;
  readonly dueUs: number;
  readonly #waiting: Set<ClockTimer>;
  readonly #place: Place;
  readonly #run: () => void;
  #event: LoopTimer | undefined;

  constructor(owner: object, dueUs: number, waiting: Set<ClockTimer>, place: Place, callback: () => void) {
    this.owner = owner;
    this.dueUs = dueUs;
    this.#waiting = waiting;
    this.#place = place;
    this.#run = () => {
      waiting.delete(this);
      callback();
    };
  }

  /** Makes the event that stands for it, instead of the one that did. */
  placeAt(worldUs: number): void {
    this.#event?.cancel();
    this.#event = this.#place(worldUs, this.#run);
  }

  cancel(): void {
    this.#waiting.delete(this);
    this.#event?.cancel();
  }

  ref(): void {
    // Nothing keeps a world alive but its run.
  }

  unref(): void {
    // As ref.
  }
}

/** One per node: its threads read the same clock. */
export class NodeClock {
  readonly #worldNowUs: () => number;
  readonly #waiting: Set<ClockTimer> = new Set();
  /** Local time at `#baseWorldUs`. */
  #baseUs: number;
  #baseWorldUs = 0;
  #rate = 1;

  /** @param originUs What it reads at world time 0: clocks of two machines have nothing in common. */
  constructor(worldNowUs: () => number, originUs: number) {
    this.#worldNowUs = worldNowUs;
    this.#baseUs = originUs;
  }

  /** Its reading at a world time that is not before the last change. */
  localUs(worldUs: number): number {
    return this.#baseUs + (worldUs - this.#baseWorldUs) * this.#rate;
  }

  /** @param rate Its seconds in a second of the world: 1.0001 gains 100 µs a second. */
  setRate(rate: number): void {
    this.#rebase();
    this.#rate = rate;
    this.#replace();
  }

  /** Jumps forward. @param us ≥ 0 */
  step(us: number): void {
    this.#rebase();
    this.#baseUs += Math.max(0, us);
    this.#replace();
  }

  /** Runs a callback when this clock reads `dueUs`, unless its owner is forgotten before. */
  timer(owner: object, dueUs: number, place: Place, callback: () => void): Timer {
    const timer = new ClockTimer(owner, dueUs, this.#waiting, place, callback);
    timer.placeAt(this.#worldUs(dueUs));
    this.#waiting.add(timer);
    return timer;
  }

  /** Drops the timers of a thread that is gone. */
  forget(owner: object): void {
    for (const timer of this.#waiting) if (timer.owner === owner) timer.cancel();
  }

  /** World time at which it will read `localUs`. */
  #worldUs(localUs: number): number {
    return this.#baseWorldUs + (localUs - this.#baseUs) / this.#rate;
  }

  #rebase(): void {
    const worldUs = this.#worldNowUs();
    this.#baseUs = this.localUs(worldUs);
    this.#baseWorldUs = worldUs;
  }

  #replace(): void {
    for (const timer of this.#waiting) timer.placeAt(this.#worldUs(timer.dueUs));
  }
}
