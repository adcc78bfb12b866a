/**
 * What the parts of a simulated world need from its loop: the world's time, later, chance, and a trace.
 *
 * Invariant: everything that happens in a world is an event of its loop, so that the seed decides all of it.
 */
import type { Random } from "../runtime/random.ts";

/** The loop of a world. World time is in microseconds, from 0. */
export interface Loop {
  readonly nowUs: number;
  /** Runs a callback at a world time (now or later). Events of one instant run in an order that the seed draws. */
  at(timeUs: number, callback: () => void): LoopTimer;
  /** A random stream of its own: drawing from one never shifts another. Same seed and name, same numbers. */
  stream(name: string): Random;
  /** Adds something that happened to the trace: to its hash, and to the recorded trace where that is kept. */
  trace(kind: string, where: string, detail?: string | number): void;
}

export interface LoopTimer {
  cancel(): void;
}
