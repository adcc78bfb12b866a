import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  FailureDetector,
  type FailureDetectorOptions,
  type LivenessChange,
  type ShardProbe,
} from "../../src/topology/failure-detector.ts";

const LOOK_MS = 100;

/** A detector with its own time, which looks every 100 ms unless told otherwise. */
class Watch {
  readonly changes: LivenessChange[] = [];
  readonly detector: FailureDetector;
  nowMs: number;

  constructor(options: FailureDetectorOptions = {}, startMs = 1e6) {
    this.nowMs = startMs;
    this.detector = new FailureDetector({ ...options, onChange: (change) => this.changes.push(change) });
    this.detector.look(startMs);
  }

  /** Time passes in looks; before each of them `during` happens. */
  pass(forMs: number, during: (nowMs: number) => void = () => undefined, everyMs = LOOK_MS): this {
    for (const endMs = this.nowMs + forMs; this.nowMs < endMs; ) {
      this.nowMs = Math.min(endMs, this.nowMs + everyMs);
      during(this.nowMs);
      this.detector.look(this.nowMs);
    }
    return this;
  }

  seen(): string[] {
    return this.changes.map(({ member, from, to }) => `${member}: ${from} → ${to}`);
  }
}

/** A shard's words that a test changes. */
function words(activity: ShardProbe["activity"] = "js"): { -readonly [K in keyof ShardProbe]: ShardProbe[K] } {
  return { progress: 5, beats: 9, activity, dead: false };
}

describe("failure detector: nodes", () => {
  it("keeps a node up that is heard, and finds one that is not suspect, then down, within the promised times", () => {
    const watch = new Watch();
    const { detector } = watch;
    detector.watchNode("a", 1, watch.nowMs);
    detector.watchNode("b", 1, watch.nowMs);
    let sequence = 0;
    watch.pass(2000, (nowMs) => {
      sequence++;
      expect(detector.heard("a", 1, sequence, nowMs)).toBe("taken");
      expect(detector.heard("b", 1, sequence, nowMs)).toBe("taken");
    });
    expect(watch.seen()).toEqual([]);
    const silentFromMs = watch.nowMs;
    watch.pass(2000, (nowMs) => detector.heard("a", 1, ++sequence, nowMs));
    expect(watch.seen()).toEqual(["b: up → suspect", "b: suspect → down"]);
    expect(watch.changes.map(({ nowMs }) => nowMs - silentFromMs)).toEqual([400, 1000]);
    expect(watch.changes.map(({ reason }) => reason)).toEqual(["silent for 400 ms", "silent for 1000 ms"]);
    expect([detector.livenessOf("a"), detector.livenessOf("b"), detector.livenessOf("c")]).toEqual([
      "up",
      "down",
      undefined,
    ]);
  });

  it("keeps its promise for every phase of the last heartbeat and for late looks (property)", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 99 }),
        fc.array(fc.integer({ min: 60, max: 200 }), { minLength: 40, maxLength: 40 }),
        (phaseMs, intervals) => {
          const watch = new Watch();
          watch.detector.watchNode("a", 1, watch.nowMs);
          watch.nowMs += phaseMs;
          watch.detector.heard("a", 1, 1, watch.nowMs);
          const lastMs = watch.nowMs;
          for (const interval of intervals) watch.pass(interval, undefined, interval);
          const [suspect, down] = watch.changes;
          expect(watch.seen()).toEqual(["a: up → suspect", "a: suspect → down"]);
          expect((suspect as LivenessChange).nowMs - lastMs).toBeLessThanOrEqual(600);
          expect((suspect as LivenessChange).nowMs - lastMs).toBeGreaterThanOrEqual(400);
          expect((down as LivenessChange).nowMs - lastMs).toBeLessThanOrEqual(1200);
          expect((down as LivenessChange).nowMs - lastMs).toBeGreaterThanOrEqual(1000);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("accuses nobody when its own clock steps by an hour, be it between heartbeats or again and again", () => {
    const watch = new Watch();
    watch.detector.watchNode("a", 1, watch.nowMs);
    let sequence = 0;
    const isHeard = (nowMs: number): unknown => watch.detector.heard("a", 1, ++sequence, nowMs);
    for (let step = 0; step < 5; step++) {
      watch.pass(1_000, isHeard);
      watch.nowMs += 3_600_000;
      watch.detector.look(watch.nowMs);
    }
    watch.pass(1_000, isHeard);
    expect(watch.changes).toEqual([]);
    // And it watches all the same.
    watch.pass(2_000);
    expect(watch.seen()).toEqual(["a: up → suspect", "a: suspect → down"]);
  });

  it("lets a paused node return by itself, from suspect and from down", () => {
    const watch = new Watch();
    const { detector } = watch;
    detector.watchNode("a", 3, watch.nowMs);
    watch.pass(500);
    expect(detector.heard("a", 3, 1, watch.nowMs)).toBe("taken");
    watch.pass(1500);
    expect(detector.heard("a", 3, 2, watch.nowMs)).toBe("taken");
    expect(watch.seen()).toEqual([
      "a: up → suspect",
      "a: suspect → up",
      "a: up → suspect",
      "a: suspect → down",
      "a: down → up",
    ]);
    expect(watch.changes.at(-1)).toMatchObject({ reason: "heard again", incarnation: 3, nowMs: watch.nowMs });
  });

  it("ignores older incarnations, repetitions and overtaken heartbeats", () => {
    const watch = new Watch();
    const { detector } = watch;
    detector.watchNode("a", 3, watch.nowMs);
    expect(detector.heard("a", 3, 10, watch.nowMs)).toBe("taken");
    watch.pass(1500, (nowMs) => {
      expect(detector.heard("a", 2, 999, nowMs)).toBe("old");
      expect(detector.heard("a", 3, 10, nowMs)).toBe("old");
      expect(detector.heard("a", 3, 4, nowMs)).toBe("old");
      expect(detector.heard("stranger", 1, 1, nowMs)).toBe("unknown");
    });
    expect(detector.livenessOf("a")).toBe("down");
    // A restarted node counts its heartbeats anew.
    expect(detector.heard("a", 4, 0, watch.nowMs)).toBe("taken");
    expect(watch.changes.at(-1)).toMatchObject({ to: "up", incarnation: 4 });
    expect(detector.heard("a", 3, 11, watch.nowMs)).toBe("old");
  });

  it("never suspects itself", () => {
    const watch = new Watch({ self: "me" });
    watch.detector.watchNode("me", 1, watch.nowMs);
    watch.detector.watchNode("a", 1, watch.nowMs);
    watch.pass(10_000);
    expect(watch.detector.livenessOf("me")).toBe("up");
    expect(watch.seen()).toEqual(["a: up → suspect", "a: suspect → down"]);
  });

  it("judges who joins late from when it joined", () => {
    const watch = new Watch();
    watch.pass(5000);
    watch.detector.watchNode("a", 1, watch.nowMs + 50);
    watch.pass(400);
    expect(watch.changes).toEqual([]);
    watch.pass(100);
    expect(watch.seen()).toEqual(["a: up → suspect"]);
  });

  it("forgets, and starts over when somebody is watched again", () => {
    const watch = new Watch();
    const { detector } = watch;
    detector.watchNode("a", 1, watch.nowMs);
    detector.watchNode("b", 1, watch.nowMs);
    watch.pass(1500);
    expect(detector.forget("a")).toBe(true);
    expect(detector.forget("a")).toBe(false);
    detector.watchNode("b", 1, watch.nowMs);
    expect(detector.livenessOf("b")).toBe("up");
    expect(detector.heard("b", 1, 0, watch.nowMs)).toBe("taken");
    watch.changes.length = 0;
    watch.pass(300);
    expect(watch.changes).toEqual([]);
  });

  it("lets a listener stop a watch in the middle of a look", () => {
    const changes: string[] = [];
    const detector: FailureDetector = new FailureDetector({
      onChange: ({ member, to }) => {
        changes.push(`${member} ${to}`);
        detector.forget(member === "a" ? "b" : "a");
      },
    });
    detector.watchNode("a", 1, 0);
    detector.watchNode("b", 1, 0);
    for (let nowMs = 0; nowMs <= 3000; nowMs += 100) detector.look(nowMs);
    expect(changes).toEqual(["a suspect", "a down"]);
  });
});

describe("failure detector: a detector that was asleep", () => {
  it("accuses nobody after one long gap, whoever is heard soon after (property)", () => {
    fc.assert(
      fc.property(fc.integer({ min: 201, max: 3_600_000 }), fc.integer({ min: 0, max: 399 }), (gapMs, silentMs) => {
        const watch = new Watch();
        const { detector } = watch;
        detector.watchNode("a", 1, watch.nowMs);
        watch.pass(300, (nowMs) => detector.heard("a", 1, nowMs, nowMs));
        watch.pass(silentMs);
        watch.pass(gapMs, undefined, gapMs);
        // The heartbeats that came during the gap are read after the look that was due first.
        detector.heard("a", 1, watch.nowMs, watch.nowMs + 1);
        watch.pass(300);
        expect(watch.changes).toEqual([]);
      }),
      { numRuns: 200 },
    );
  });

  it("does not take a gap for silence, but finds who stays silent after it", () => {
    const watch = new Watch();
    watch.detector.watchNode("a", 1, watch.nowMs);
    watch.pass(3_600_000, undefined, 3_600_000);
    expect(watch.changes).toEqual([]);
    const awakeMs = watch.nowMs;
    watch.pass(2000);
    expect(watch.seen()).toEqual(["a: up → suspect", "a: suspect → down"]);
    expect((watch.changes[1] as LivenessChange).nowMs - awakeMs).toBe(800);
  });

  it("still finds the dead when all its looks are late", () => {
    const watch = new Watch();
    watch.detector.watchNode("a", 1, watch.nowMs);
    watch.pass(10_000, undefined, 1000);
    expect(watch.seen()).toEqual(["a: up → suspect", "a: suspect → down"]);
  });

  it("gives no credit for looks that are caught up in one burst, nor for a clock that goes back", () => {
    const watch = new Watch();
    watch.detector.watchNode("a", 1, watch.nowMs);
    watch.pass(100);
    for (let look = 0; look < 1000; look++) watch.detector.look(watch.nowMs);
    for (let look = 0; look < 1000; look++) watch.detector.look(watch.nowMs - look);
    expect(watch.changes).toEqual([]);
  });
});

describe("failure detector: shards", () => {
  it("keeps up who is in a long native call, for as long as it takes", () => {
    const watch = new Watch();
    const word = words("native");
    watch.detector.watchShard("s", 1, watch.nowMs, () => word);
    watch.pass(60_000);
    expect(watch.changes).toEqual([]);
  });

  it("keeps up who is parked, as silence is what it does", () => {
    const watch = new Watch();
    watch.detector.watchShard("s", 1, watch.nowMs, () => words("idle"));
    watch.pass(60_000);
    expect(watch.changes).toEqual([]);
  });

  it("finds who is silent in JavaScript suspect, then down, within 1.2 s, and lets it return", () => {
    const watch = new Watch();
    const word = words("js");
    watch.detector.watchShard("s", 1, watch.nowMs, () => word);
    // It makes progress for the last time right after a look, which only the next look sees.
    watch.pass(LOOK_MS);
    const lastMs = watch.nowMs;
    word.progress++;
    watch.pass(2000);
    expect(watch.seen()).toEqual(["s: up → suspect", "s: suspect → down"]);
    expect(watch.changes.map(({ nowMs }) => nowMs - lastMs)).toEqual([500, 1100]);
    word.progress++;
    watch.pass(LOOK_MS);
    expect(watch.changes.at(-1)).toMatchObject({ from: "down", to: "up", reason: "it makes progress" });
  });

  it.each(["progress", "beats"] as const)("takes a change of %s for life, also when it wraps", (name) => {
    const watch = new Watch();
    const word = words("js");
    word[name] = 2 ** 31 - 3;
    watch.detector.watchShard("s", 1, watch.nowMs, () => word);
    watch.pass(5000, () => {
      word[name] = (word[name] + 1) | 0;
    });
    expect(watch.changes).toEqual([]);
  });

  it("takes a suspect that goes native, or parks, for alive", () => {
    const watch = new Watch();
    const word = words("js");
    watch.detector.watchShard("s", 1, watch.nowMs, () => word);
    watch.pass(600);
    word.activity = "native";
    watch.pass(LOOK_MS);
    word.activity = "js";
    watch.pass(600);
    word.activity = "idle";
    watch.pass(LOOK_MS);
    expect(watch.changes.map(({ to, reason }) => `${to}: ${reason}`)).toEqual([
      expect.stringMatching(/^suspect: silent/),
      "up: it is in a native call",
      expect.stringMatching(/^suspect: silent/),
      "up: it is parked",
    ]);
  });

  it.each(["idle", "js", "native"] as const)(
    "finds the dead down at its next look, whatever it did last: %s",
    (activity) => {
      const watch = new Watch();
      const word = words(activity);
      watch.detector.watchShard("s", 7, watch.nowMs, () => word);
      watch.pass(350, () => {
        word.progress++;
      });
      word.dead = true;
      watch.pass(LOOK_MS);
      expect(watch.changes).toMatchObject([
        { from: "up", to: "down", incarnation: 7, reason: "its thread has exited" },
      ]);
      watch.pass(5000);
      expect(watch.changes).toHaveLength(1);
    },
  );

  it("finds the dead down also after a gap: death is no guess", () => {
    const watch = new Watch();
    watch.detector.watchShard("s", 1, watch.nowMs, () => ({ ...words("idle"), dead: true }));
    watch.detector.look(watch.nowMs + 1e6);
    expect(watch.seen()).toEqual(["s: up → down"]);
  });

  it("watches a replacement by its own words", () => {
    const watch = new Watch();
    const old = { ...words("js"), dead: true };
    watch.detector.watchShard("s", 1, watch.nowMs, () => old);
    watch.pass(200);
    const next = words("js");
    watch.detector.watchShard("s", 2, watch.nowMs, () => next);
    expect(watch.detector.livenessOf("s")).toBe("up");
    watch.changes.length = 0;
    watch.pass(5000, () => {
      next.progress++;
    });
    expect(watch.changes).toEqual([]);
    expect(watch.detector.heard("s", 3, 1, watch.nowMs)).toBe("unknown"); // shards send no heartbeats
  });
});

describe("failure detector: bad input", () => {
  it.each([
    [{ suspectMs: 200 }, /suspectMs must be more than 200 \(two looks\): current value is 200/],
    [{ suspectMs: Number.NaN }, /suspectMs/],
    [{ downMs: 600 }, /downMs must be more than 600 \(suspectMs\): current value is 600/],
    [{ downMs: Number.POSITIVE_INFINITY }, /downMs/],
    [{ lookIntervalMs: 0 }, /lookIntervalMs must be a positive number: current value is 0/],
    [{ lookIntervalMs: 300 }, /suspectMs must be more than 600/],
  ])("%# is refused with the value and the rule", (options, message) => {
    expect(() => new FailureDetector(options)).toThrow(message);
  });

  it("refuses times and incarnations that are none", () => {
    const detector = new FailureDetector();
    expect(() => detector.look(Number.NaN)).toThrow(/nowMs must be a finite number/);
    expect(() => detector.watchNode("a", -1, 0)).toThrow(/incarnation must be/);
    expect(() => detector.watchNode("a", 1, Number.POSITIVE_INFINITY)).toThrow(/nowMs/);
    detector.watchNode("a", 1, 0);
    expect(() => detector.heard("a", 1, 1, Number.NaN)).toThrow(/nowMs/);
  });
});
