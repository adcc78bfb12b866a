/**
 * A simulated thread: a runtime of its own whose time, turns and chance are the world's, and which can be busy, slow, paused or dead.
 *
 * Invariant: everything that a thread does is an event of the loop that it owns; while it is busy or paused its events wait in the order
 * in which they fell due, and once it is dead none ever runs. Within one event its clock stands still, unless the event charges for
 * work. Timers of one instant run in any order, turns in the order in which they were asked for, as on the platform.
 * Divergence: code is not interrupted, so a pause or a crash hits a thread between two events only; what shared memory can look
 * like in the middle of an event is the explorer's matter (explore/), not the world's.
 */
import { ShardloomError } from "../errors.ts";
import type { Random } from "../runtime/random.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
import type { LoopEvent, Owner, WorldLoop } from "./loop.ts";
import type { NodeClock } from "./node-clock.ts";

/** What an event costs its thread, in µs of world time: between these, most often near the lower one. */
const LEAST_COST_US = 1;
const SPREAD_COST_US = 8;
/** One event in so many takes much longer: a collection of garbage, a neighbour on the core. */
const LONG_EVERY = 1024;
const LONG_COST_US = 2_000;
/** The platform's shortest timer. */
const LEAST_DELAY_MS = 1;
/** The platform's longest timer: longer ones would fire at once. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;

const SETTLED: Promise<void> = Promise.resolve();
const NOTHING = (): void => undefined;

/** How a thread is made. */
export interface SimThreadOptions {
  /** "n0", "n0/w1". */
  readonly name: string;
  /** Tells the threads of one name from each other. */
  readonly incarnation: number;
  readonly clock: NodeClock;
  /** Whether another thread finds out when this one hangs, as a worker's does. @default false */
  readonly supervised?: boolean;
  /** What to do when an event of the thread throws. @default the run fails */
  readonly onError?: (error: unknown) => void;
}

/** A thread of a simulated node. */
export class SimThread implements Owner {
  readonly name: string;
  readonly word: number;
  readonly runtime: Runtime;
  readonly supervised: boolean;
  readonly #loop: WorldLoop;
  readonly #clock: NodeClock;
  readonly #costs: Random;
  readonly #onError: ((error: unknown) => void) | undefined;
  readonly #timerWord: number;
  readonly #turnWord: number;
  readonly #resumeWord: number;
  readonly #enterWord: number;
  /** Events whose time has come and that wait for the thread, oldest first. */
  #ready: LoopEvent[] = [];
  #turns: (() => void)[] = [];
  #entering: (() => void)[] = [];
  #busyUntilUs = 0;
  #chargedUs = 0;
  #slow = 1;
  #paused = false;
  #dead = false;
  #resuming = false;
  #events = 0;
  readonly #runTurn: () => void = () => (this.#turns.shift() as () => void)();
  readonly #runEntering: () => void = () => (this.#entering.shift() as () => void)();
  readonly #resumed: Owner;
  readonly #placeTimer: (worldUs: number, run: () => void) => LoopEvent = (worldUs, run) =>
    this.#loop.schedule(this, worldUs, this.#timerWord, run);

  constructor(loop: WorldLoop, options: SimThreadOptions) {
    const { name, incarnation, clock, onError } = options;
    this.name = name;
    this.word = loop.word(name);
    this.#loop = loop;
    this.#clock = clock;
    this.#onError = onError;
    this.supervised = options.supervised ?? false;
    this.#costs = loop.stream(`${name}#${incarnation}/cost`);
    this.#timerWord = loop.word("timer");
    this.#turnWord = loop.word("turn");
    this.#resumeWord = loop.word("resume");
    this.#enterWord = loop.word("enter");
    this.#resumed = { name, word: this.word, admit: () => this.#takeUp(), failed: (error) => this.failed(error) };
    this.runtime = {
      clock: { nowMs: () => this.nowUs() / 1000, nowUs: () => this.nowUs() },
      scheduler: this.#scheduler(),
      random: loop.stream(`${name}#${incarnation}/random`),
    };
  }

  /** The thread's clock, in µs. */
  nowUs(): number {
    return this.#clock.localUs(this.#loop.nowUs + this.#chargedUs);
  }

  get dead(): boolean {
    return this.#dead;
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** Events that have run on it. */
  get events(): number {
    return this.#events;
  }

  /** Runs a callback on this thread after some world time: a message, a wake, the start of work. */
  post(delayUs: number, kind: string, callback: () => void): LoopEvent {
    return this.#loop.schedule(this, this.#loop.nowUs + delayUs, this.#loop.word(kind), callback);
  }

  /**
   * Runs a callback on this thread as soon as that is free: at once, as what the present event of the world goes on with, where it may.
   * Callbacks of this kind keep their order.
   */
  enter(callback: () => void): void {
    if (this.#dead) return;
    if (this.#entering.length === 0 && this.#isFree() && this.#loop.handOver(this)) {
      this.#begin();
      try {
        callback();
      } catch (error) {
        this.failed(error);
      }
      return;
    }
    this.#entering.push(callback);
    this.#loop.schedule(this, this.#loop.nowUs, this.#enterWord, this.#runEntering);
  }

  /** The event that runs does work that takes world time: the thread's clock goes on, and what comes next comes later. */
  charge(us: number): void {
    this.#chargedUs += us * this.#slow;
    this.#busyUntilUs += us * this.#slow;
  }

  /** Everything takes so many times as long. 1 is the usual speed. */
  slow(factor: number): void {
    this.#slow = factor;
  }

  /** Nothing runs until {@link resume}; what falls due waits. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#resumeLater();
  }

  /** Nothing of it ever runs again. */
  kill(): void {
    this.#dead = true;
    this.#clock.forget(this);
    this.#ready = [];
    this.#turns = [];
    this.#entering = [];
  }

  admit(event: LoopEvent): LoopEvent | undefined {
    if (this.#dead) return undefined;
    if (!this.#isFree()) {
      this.#ready.push(event);
      this.#resumeLater();
      return undefined;
    }
    this.#begin();
    return event;
  }

  failed(error: unknown): void {
    if (this.#dead) return;
    if (this.#onError === undefined) this.#loop.fail(error);
    else this.#onError(error);
  }

  #isFree(): boolean {
    return !this.#paused && !this.#resuming && this.#busyUntilUs <= this.#loop.nowUs;
  }

  /** An event begins: the thread is busy for what it costs. */
  #begin(): void {
    this.#events++;
    this.#chargedUs = 0;
    this.#busyUntilUs = this.#loop.nowUs + this.#drawCost() * this.#slow;
  }

  #drawCost(): number {
    const drawn = this.#costs.u32();
    if (drawn % LONG_EVERY === 0) return (drawn >>> 10) % LONG_COST_US;
    return LEAST_COST_US + (((drawn >>> 10) % SPREAD_COST_US) * ((drawn >>> 20) % SPREAD_COST_US)) / SPREAD_COST_US;
  }

  #resumeLater(): void {
    if (this.#resuming || this.#paused || this.#ready.length === 0) return;
    this.#resuming = true;
    this.#loop.schedule(this.#resumed, this.#busyUntilUs, this.#resumeWord, NOTHING);
  }

  /** The thread may be free: what it goes on with. */
  #takeUp(): LoopEvent | undefined {
    this.#resuming = false;
    if (this.#dead || this.#paused) return undefined;
    const event = this.#busyUntilUs > this.#loop.nowUs ? undefined : this.#nextReady();
    if (event !== undefined) this.#begin();
    this.#resumeLater();
    return event;
  }

  #nextReady(): LoopEvent | undefined {
    for (let event = this.#ready.shift(); event !== undefined; event = this.#ready.shift()) {
      if (!event.cancelled) return event;
    }
    return undefined;
  }

  #scheduler(): Scheduler {
    const timer = (delayMs: number, callback: () => void): Timer => {
      const keptMs = Math.min(Math.max(delayMs, LEAST_DELAY_MS), LONGEST_DELAY_MS);
      if (Number.isNaN(keptMs))
        throw new ShardloomError("ERR_INTERNAL", "Cannot set timer as its delay is not a number");
      return this.#clock.timer(this, this.nowUs() + keptMs * 1000, this.#placeTimer, callback);
    };
    return {
      // A reaction as in the platform's: it runs before the event is over, so it is this thread's.
      defer: (callback) => {
        void SETTLED.then(callback);
      },
      turn: (callback) => {
        this.#turns.push(callback);
        this.#loop.schedule(this, this.#loop.nowUs, this.#turnWord, this.#runTurn);
      },
      timer,
      after: (delayMs, callback) => {
        const made = timer(delayMs, callback);
        return () => made.cancel();
      },
    };
  }
}
