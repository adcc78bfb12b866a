/** Writes that are sent again, on a thread whose timers are late. */
import { expect, test } from "vitest";
import { repeatUndone } from "../../actors/keyed-call.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { Scheduler } from "../../src/runtime/scheduler.ts";

test.each([0, 5, 500])(
  "a write that was not done ends as its shard said when its pause is over %i ms late",
  async (lateMs) => {
    let nowMs = 0;
    const clock = { nowMs: () => nowMs, nowUs: () => nowMs * 1_000 };
    const scheduler = {
      timer: (delayMs: number, run: () => void) => {
        nowMs += delayMs + lateMs;
        queueMicrotask(run);
        return { cancel: () => undefined };
      },
    } as unknown as Scheduler;
    const timeouts: number[] = [];
    const send = (_: number, { timeoutMs = 0 }: { readonly timeoutMs?: number }): Promise<never> => {
      timeouts.push(timeoutMs);
      return Promise.reject(new ShardloomError("ERR_UNAVAILABLE", "not here yet", { details: { written: false } }));
    };
    await expect(repeatUndone({ clock, scheduler }, 100, { timeoutMs: 100 }, send)).rejects.toThrow(
      expect.objectContaining({ code: "ERR_UNAVAILABLE", details: { written: false } }),
    );
    expect(timeouts.every((timeoutMs) => timeoutMs > 0)).toBe(true);
    expect(timeouts.length).toBe(lateMs === 500 ? 1 : lateMs === 5 ? 7 : 9);
  },
);
