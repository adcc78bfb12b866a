/** A loop that a test turns event by event, so that it can stop the world between any two. */
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import type { Scheduler, Timer } from "../../src/runtime/scheduler.ts";
import type { Loop, LoopTimer } from "../../src/sim/loop-types.ts";

interface Event {
  readonly timeUs: number;
  readonly order: number;
  readonly callback: () => void;
}

export class SteppedLoop implements Loop {
  nowUs = 0;
  readonly traced: string[] = [];
  readonly #seed: number;
  readonly #order: Random;
  #events: Event[] = [];

  constructor(seed: number) {
    this.#seed = seed;
    this.#order = this.stream("order");
  }

  at(timeUs: number, callback: () => void): LoopTimer {
    const event: Event = { timeUs: Math.max(timeUs, this.nowUs), order: this.#order.u32(), callback };
    this.#events.push(event);
    return {
      cancel: () => {
        this.#events = this.#events.filter((other) => other !== event);
      },
    };
  }

  stream(name: string): Random {
    let hash = this.#seed | 0;
    for (const letter of name) hash = Math.imul(hash ^ (letter.codePointAt(0) ?? 0), 0x01000193);
    return createSeededRandom(hash);
  }

  trace(kind: string, where: string, detail: string | number = ""): void {
    this.traced.push(`${this.nowUs} ${kind} ${where} ${detail}`);
  }

  /** Lets everything that was called have its say. */
  settle(): Promise<void> {
    return new Promise((resolve) => setImmediate(resolve));
  }

  /** Runs the next event with all its consequences. @returns false when there is none */
  async step(): Promise<boolean> {
    const next = this.#events.reduce<Event | undefined>(
      (first, event) => (first === undefined || isBefore(event, first) ? event : first),
      undefined,
    );
    if (next === undefined) return false;
    this.#events = this.#events.filter((event) => event !== next);
    this.nowUs = next.timeUs;
    next.callback();
    await this.settle();
    return true;
  }

  /** Runs events until the work has settled. @throws its error, or when nothing is left to run before it has */
  async finish<T>(work: Promise<T>): Promise<T> {
    let settled = false;
    const note = (): void => {
      settled = true;
    };
    work.then(note, note);
    await this.settle();
    while (!settled) {
      if (!(await this.step()) && !settled)
        throw new Error(`the loop ran dry at ${this.nowUs} us: ${this.traced.at(-1)}`);
    }
    return work;
  }

  /** Runs everything until a time. */
  async runUntil(timeUs: number): Promise<void> {
    await this.settle();
    while (this.#events.some((event) => event.timeUs <= timeUs)) await this.step();
    this.nowUs = Math.max(this.nowUs, timeUs);
  }
}

function isBefore(one: Event, other: Event): boolean {
  return one.timeUs < other.timeUs || (one.timeUs === other.timeUs && one.order < other.order);
}

/** Runs what a thread does, or does not, as it is dead. */
type Guard = (act: () => void) => void;

/** The loop as one thread has it. */
export function guardedLoop(loop: Loop, guard: Guard): Loop {
  return {
    get nowUs() {
      return loop.nowUs;
    },
    at: (timeUs, callback) => loop.at(timeUs, () => guard(callback)),
    stream: (name) => loop.stream(name),
    trace: () => undefined,
  };
}

/** "Later" of whoever runs on a loop. @param guard Of a thread whose loop is guarded, too. @default everything runs */
export function schedulerOf(loop: Loop, guard: Guard = (act) => act()): Scheduler {
  const timer = (delayMs: number, callback: () => void): Timer => {
    const made = loop.at(loop.nowUs + delayMs * 1000, callback);
    return { cancel: () => made.cancel(), ref: () => undefined, unref: () => undefined };
  };
  return {
    defer: (callback) => queueMicrotask(() => guard(callback)),
    turn: (callback) => void timer(0, callback),
    timer,
    after: (delayMs, callback) => {
      const made = timer(delayMs, callback);
      return () => made.cancel();
    },
  };
}
