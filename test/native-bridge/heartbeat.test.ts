/** Heartbeat: states, limits at their edges, clocks that go back, a worker killed while it changes state. */
import { describe, expect, it } from "vitest";
import { HEARTBEAT, HEARTBEAT_BYTES, Heartbeat } from "../../native-bridge/heartbeat.ts";

const LIMITS = { maxHandlerMs: 100, maxNativeMs: 1000 };

function pair(): { worker: Heartbeat; peer: Heartbeat; buffer: SharedArrayBuffer } {
  const buffer = new SharedArrayBuffer(HEARTBEAT_BYTES * 2);
  return { buffer, worker: new Heartbeat(buffer, HEARTBEAT_BYTES), peer: new Heartbeat(buffer, HEARTBEAT_BYTES) };
}

describe("Heartbeat", () => {
  it("is idle since 0 on zero memory", () => {
    expect(pair().peer.read()).toEqual({ state: HEARTBEAT.IDLE, sinceMs: 0, beats: 0 });
  });

  it.each([
    [HEARTBEAT.IDLE, 1_000_000, "idle"],
    [HEARTBEAT.JS, 0, "busy"],
    [HEARTBEAT.JS, 100, "busy"],
    [HEARTBEAT.JS, 101, "hung"],
    [HEARTBEAT.NATIVE, 101, "busy"],
    [HEARTBEAT.NATIVE, 1000, "busy"],
    [HEARTBEAT.NATIVE, 1000.5, "native-overdue"],
    [HEARTBEAT.DEAD, 0, "dead"],
    [HEARTBEAT.JS, -50, "busy"],
  ] as const)("state %i after %d ms is %s", (state, ageMs, verdict) => {
    const { worker, peer } = pair();
    const now = 1_763_000_000_000.25;
    worker.enter(state, now);
    expect(peer.read()).toEqual({ state, sinceMs: now, beats: 1 });
    expect(peer.classify(now + ageMs, LIMITS)).toBe(verdict);
  });

  it("shows progress by beats when the state is the same again", () => {
    const { worker, peer } = pair();
    worker.enter(HEARTBEAT.JS, 10);
    worker.enter(HEARTBEAT.JS, 10);
    expect(peer.read().beats).toBe(2);
  });

  it("is still readable, and writable by a successor, when its worker died inside enter", () => {
    const { worker, peer, buffer } = pair();
    worker.enter(HEARTBEAT.JS, 5);
    const words = new Int32Array(buffer, HEARTBEAT_BYTES);
    Atomics.add(words, 0, 1);
    expect(peer.classify(500, LIMITS)).toBe("hung");
    new Heartbeat(buffer, HEARTBEAT_BYTES).enter(HEARTBEAT.IDLE, 6);
    expect(peer.read()).toMatchObject({ state: HEARTBEAT.IDLE, sinceMs: 6 });
  });

  it.each([-8, 4, 1.5, 128, Number.NaN])("refuses byte offset %s", (byteOffset) => {
    expect(() => new Heartbeat(new SharedArrayBuffer(128), byteOffset)).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }),
    );
  });
});
