/** Baseline: padenot's ringbuf.js, when it can be resolved; it is not a dependency. */
import { createRequire } from "node:module";

/** The two calls of ringbuf.js that the bench uses, over doubles. */
export interface RingbufQueue {
  push(elements: Float64Array): number;
  pop(elements: Float64Array): number;
}

type RingBufferClass = new (memory: SharedArrayBuffer, type: Float64ArrayConstructor) => RingbufQueue;

/** Opens a ringbuf.js queue of doubles over `memory`; undefined when the package is not installed. */
export function openRingbuf(memory: SharedArrayBuffer): RingbufQueue | undefined {
  const require = createRequire(import.meta.url);
  let RingBuffer: RingBufferClass | undefined;
  try {
    RingBuffer = (require("ringbuf.js") as { RingBuffer?: RingBufferClass }).RingBuffer;
  } catch {
    return undefined; // not installed: the bench says so and goes on
  }
  return RingBuffer === undefined ? undefined : new RingBuffer(memory, Float64Array);
}
