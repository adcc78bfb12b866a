import { describe, expect, test } from "vitest";
import { DOORBELL_BYTES, Doorbell } from "../../native-bridge/doorbell.ts";

describe("Doorbell", () => {
  test("ringing when nobody is parked wakes nobody", () => {
    const bell = new Doorbell(new SharedArrayBuffer(DOORBELL_BYTES));
    expect(bell.ring()).toBe(false);
    expect(bell.counters()).toEqual({ parks: 0, wakes: 0 });
  });

  test("a ring between prepareWait() and wait() is not lost", () => {
    const bell = new Doorbell(new SharedArrayBuffer(DOORBELL_BYTES));
    const ticket = bell.prepareWait();
    expect(bell.ring()).toBe(true);
    expect(bell.wait(ticket, 10_000)).toBe("woken");
  });

  test("many rings give one wake", () => {
    const bell = new Doorbell(new SharedArrayBuffer(DOORBELL_BYTES));
    bell.prepareWait();
    expect([bell.ring(), bell.ring(), bell.ring()]).toEqual([true, false, false]);
    expect(bell.counters().wakes).toBe(1);
  });

  test("cancelWait() takes the announcement back", () => {
    const bell = new Doorbell(new SharedArrayBuffer(DOORBELL_BYTES));
    bell.prepareWait();
    bell.cancelWait();
    expect(bell.ring()).toBe(false);
  });

  test("wait() times out, and is no longer announced then", () => {
    const bell = new Doorbell(new SharedArrayBuffer(DOORBELL_BYTES));
    expect(bell.wait(bell.prepareWait(), 1)).toBe("timed-out");
    expect(bell.ring()).toBe(false);
  });

  test("waitAsync() resolves on a ring, and says when it has rung already", async () => {
    const bell = new Doorbell(new SharedArrayBuffer(DOORBELL_BYTES));
    const waiting = bell.waitAsync(bell.prepareWait());
    expect(waiting).toBeInstanceOf(Promise);
    expect(bell.ring()).toBe(true);
    await waiting;
    const ticket = bell.prepareWait();
    bell.ring();
    expect(bell.waitAsync(ticket)).toBeUndefined();
  });

  test("waits that were left are joined, so that one ring reaches the newest", async () => {
    const bell = new Doorbell(new SharedArrayBuffer(DOORBELL_BYTES));
    const first = bell.waitAsync(bell.prepareWait());
    bell.cancelWait();
    const second = bell.waitAsync(bell.prepareWait());
    expect(second).toBe(first);
    expect(bell.ring()).toBe(true);
    await second;
    expect(bell.counters()).toEqual({ parks: 1, wakes: 1 });
  });

  test.each([-128, 64, 128, 1.5])("byteOffset %s is refused", (byteOffset) => {
    expect(() => new Doorbell(new SharedArrayBuffer(DOORBELL_BYTES), byteOffset)).toThrow(
      /byteOffset must be a multiple of 128 within the buffer/,
    );
  });
});
