/**
 * The loop as a thread of a node sees it: what is scheduled on it runs on that thread, and not at all once the thread is gone.
 *
 * Invariant: time, streams and trace are the world's.
 */
import type { WorldLoop } from "./loop.ts";
import type { Loop } from "./loop-types.ts";
import type { SimThread } from "./threads.ts";

/** A view of the world's loop for what answers to a thread: its disk, its connections. */
export function loopOfThread(loop: WorldLoop, thread: SimThread): Loop {
  return {
    get nowUs() {
      return loop.nowUs;
    },
    at: (timeUs, callback) => thread.post(Math.max(0, timeUs - loop.nowUs), "device", callback),
    stream: (name) => loop.stream(name),
    trace: (kind, where, detail) => loop.trace(kind, where, detail),
  };
}
