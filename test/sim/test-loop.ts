/** A loop for tests: a list of callbacks by time, ties by the seed, streams by name, and the trace as lines. */
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import type { Loop, LoopTimer } from "../../src/sim/loop-types.ts";
import { createHashStream } from "./streams.ts";

interface Event {
  readonly timeUs: number;
  readonly tie: number;
  readonly callback: () => void;
}

export class TestLoop implements Loop {
  nowUs = 0;
  readonly lines: string[] = [];
  readonly stream: (name: string) => Random;
  readonly #ties: Random;
  #events: Event[] = [];

  constructor(seed: number) {
    this.#ties = createSeededRandom(seed);
    this.stream = createHashStream(seed);
  }

  at(timeUs: number, callback: () => void): LoopTimer {
    const event = { timeUs: Math.max(timeUs, this.nowUs), tie: this.#ties.u32(), callback };
    let index = this.#events.length; // the next one is last
    while (index > 0 && isBefore(this.#events[index - 1] as Event, event)) index--;
    this.#events.splice(index, 0, event);
    return {
      cancel: () => {
        this.#events = this.#events.filter((other) => other !== event);
      },
    };
  }

  trace(kind: string, where: string, detail: string | number = ""): void {
    this.lines.push(`${this.nowUs} ${kind} ${where} ${detail}`);
  }

  /** Runs everything that is due up to a time, and is then at that time. */
  run(untilUs: number): void {
    for (let next = this.#events.at(-1); next !== undefined && next.timeUs <= untilUs; next = this.#events.at(-1)) {
      this.#events.pop();
      this.nowUs = next.timeUs;
      next.callback();
    }
    this.nowUs = Math.max(this.nowUs, untilUs);
  }
}

function isBefore(one: Event, other: Event): boolean {
  return one.timeUs < other.timeUs || (one.timeUs === other.timeUs && one.tie < other.tie);
}
