/** R6: the ring allocates nothing a message. In a child process with --expose-gc, so that nothing else allocates. */
import { expect, test } from "vitest";
import { measureHeapDelta } from "../../bench/micro/ring-memory.ts";

test("10 million messages leave the heap as it was, without one collection", () => {
  const { messages, heapBytes, collections } = measureHeapDelta(10_000_000);
  expect(messages).toBe(10_000_000);
  expect(collections).toBe(0);
  // Bookkeeping of the engine itself (compiled code, feedback): one object a message would be at least 160 MB.
  expect(Math.abs(heapBytes)).toBeLessThan(500_000);
}, 60_000);
