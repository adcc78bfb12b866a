/**
 * Time as a parameter.
 *
 * Invariant: a clock is monotonic and says nothing about the wall: its origin is arbitrary, so only differences and
 * deadlines made on the same host mean anything. Whatever lies below the composition root takes a {@link Clock} and
 * never reads the platform's, which is what lets the same code run in a simulated world.
 */

/** A monotonic clock. */
export interface Clock {
  /** Milliseconds since an arbitrary origin, with fractions. */
  nowMs(): number;
  /** Microseconds since the same origin. */
  nowUs(): number;
}

/** Readings from which the narrowest is taken: a thread that loses its core between two of them must not keep the error. */
const ORIGIN_READINGS = 16;

/** What to add to this thread's `performance.now()`, whose origin is the thread's start, to count from the machine's. Found when first used. */
let originMs: number = Number.NaN;

function systemNowMs(): number {
  if (Number.isNaN(originMs)) originMs = threadOriginMs();
  return performance.now() + originMs;
}

function threadOriginMs(): number {
  let foundMs = 0;
  let narrowestMs = Number.POSITIVE_INFINITY;
  performance.now(); // its first use loads it
  for (let reading = 0; reading < ORIGIN_READINGS; reading++) {
    const beforeMs = performance.now();
    const machineMs = Number(process.hrtime.bigint()) / 1e6;
    const afterMs = performance.now();
    if (afterMs - beforeMs >= narrowestMs) continue;
    narrowestMs = afterMs - beforeMs;
    foundMs = machineMs - (beforeMs + afterMs) / 2;
  }
  return foundMs;
}

/** The clock of the machine. All threads of one host read the same time, to within a few microseconds. */
export const systemClock: Clock = {
  nowMs: systemNowMs,
  nowUs: () => systemNowMs() * 1000,
};

/** The time of day in milliseconds since 1970, for what outlives this machine, such as certificates. It may jump. */
export function systemWallMs(): number {
  return Date.now();
}

/** A clock that stands still until it is told otherwise. */
export interface ManualClock extends Clock {
  /** Sets the time; going backwards is ignored, as a monotonic clock never does. */
  setMs(nowMs: number): void;
}

/** Creates a clock that only {@link ManualClock.setMs} moves. */
export function createManualClock(startMs = 0): ManualClock {
  let now = startMs;
  return {
    nowMs: () => now,
    nowUs: () => now * 1000,
    setMs: (nowMs) => {
      if (nowMs > now) now = nowMs;
    },
  };
}
