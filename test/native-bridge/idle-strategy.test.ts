import { describe, expect, test } from "vitest";
import { AdaptiveSpin } from "../../native-bridge/idle-strategy.ts";

/** A world of one waiting thread on a virtual clock: each look at the clock takes 0.5 µs. */
function makeWorld(): { clock: { us: number }; nowUs: () => number } {
  const clock = { us: 0 };
  return { clock, nowUs: () => (clock.us += 0.5) };
}

/** One wait: work comes after `arrivalUs`, and `wakeUs` later still when the thread parked. Returns how it ended. */
function waitOnce(
  spin: AdaptiveSpin,
  clock: { us: number },
  arrivalUs: number,
  wakeUs: number,
): { hit: boolean; waitUs: number } {
  const startUs = clock.us;
  const hit = spin.spin(() => clock.us - startUs >= arrivalUs);
  if (!hit) {
    clock.us = Math.max(clock.us, startUs + arrivalUs) + wakeUs;
    spin.woke();
  }
  return { hit, waitUs: clock.us - startUs };
}

function hits(spin: AdaptiveSpin, clock: { us: number }, arrivalUs: number, wakeUs: number, waits: number): number {
  let count = 0;
  for (let wait = 0; wait < waits; wait++) if (waitOnce(spin, clock, arrivalUs, wakeUs).hit) count++;
  return count;
}

describe("AdaptiveSpin", () => {
  test("polls when work comes soon", () => {
    const { clock, nowUs } = makeWorld();
    const spin = new AdaptiveSpin({ nowUs });
    hits(spin, clock, 50, 60, 60);
    expect(hits(spin, clock, 50, 60, 200)).toBeGreaterThan(190);
  });

  test("parks when work comes late, and polls again when it comes soon again", () => {
    const { clock, nowUs } = makeWorld();
    const spin = new AdaptiveSpin({ nowUs });
    hits(spin, clock, 5000, 60, 20);
    const before = spin.counters();
    expect(hits(spin, clock, 5000, 60, 200)).toBe(0);
    expect(spin.counters().parks - before.parks).toBe(200); // no time is burnt before each park
    hits(spin, clock, 20, 60, 100);
    expect(hits(spin, clock, 20, 60, 200)).toBeGreaterThan(150);
  });

  test("parks when polling holds the core that the work needs", () => {
    const { clock, nowUs } = makeWorld();
    const spin = new AdaptiveSpin({ nowUs });
    let burnt = 0;
    for (let wait = 0; wait < 400; wait++) {
      const startUs = clock.us;
      // The work can only be done once this thread has given up its core.
      if (spin.spin(() => false)) throw new Error("cannot hit");
      burnt += clock.us - startUs;
      clock.us += 5;
      spin.woke();
    }
    expect(burnt / 400).toBeLessThan(8); // µs a wait
  });

  test("maxSpinUs 0 parks at once, and nonsense is refused", () => {
    const { clock, nowUs } = makeWorld();
    const spin = new AdaptiveSpin({ nowUs, maxSpinUs: 0 });
    expect(hits(spin, clock, 10, 60, 50)).toBe(0);
    expect(spin.counters()).toMatchObject({ parks: 50, misses: 0 });
    expect(() => new AdaptiveSpin({ nowUs, maxSpinUs: -1 })).toThrow(
      /maxSpinUs must be a number in \[0, 1000000\]: current value is -1/,
    );
  });

  test("work that is there already is found without a look at the clock", () => {
    const spin = new AdaptiveSpin({
      nowUs: () => {
        throw new Error("looked");
      },
    });
    expect(spin.spin(() => true)).toBe(true);
    spin.woke();
    expect(spin.counters().hits).toBe(1);
  });
});
