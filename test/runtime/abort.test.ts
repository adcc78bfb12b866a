/** Signals that many calls share: all of them are told, once, and the platform sees no leak. */
import { getEventListeners } from "node:events";
import { describe, expect, it } from "vitest";
import { onceAborted } from "../../src/runtime/abort.ts";

describe("a signal that many go by", () => {
  it("tells each once, in the order in which they came, with one listener of the platform", () => {
    const controller = new AbortController();
    const told: number[] = [];
    for (let at = 0; at < 30; at++) onceAborted(controller.signal, () => told.push(at));
    expect(getEventListeners(controller.signal, "abort").length).toBe(1);
    controller.abort();
    controller.abort();
    expect(told).toEqual(Array.from({ length: 30 }, (_, at) => at));
    expect(getEventListeners(controller.signal, "abort")).toEqual([]);
  });

  it("tells nobody who has taken it back, also while others are told", () => {
    const controller = new AbortController();
    const told: string[] = [];
    const early = onceAborted(controller.signal, () => told.push("early"));
    onceAborted(controller.signal, () => late());
    const late = onceAborted(controller.signal, () => told.push("late"));
    early();
    early();
    controller.abort();
    late();
    expect(told).toEqual([]);
  });

  it("keeps no listener while nobody listens, and listens again", () => {
    const { signal } = new AbortController();
    const same = (): void => undefined;
    const ends = [onceAborted(signal, same), onceAborted(signal, same)];
    ends[0]?.();
    expect(getEventListeners(signal, "abort").length).toBe(1);
    ends[1]?.();
    expect(getEventListeners(signal, "abort").length).toBe(0);
    onceAborted(signal, same);
    expect(getEventListeners(signal, "abort").length).toBe(1);
  });
});
