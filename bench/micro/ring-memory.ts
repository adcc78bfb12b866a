/**
 * R6: heap bytes per message. Runs in a child process with `--expose-gc`, so that nothing else allocates; also a program:
 * `node --expose-gc dist/bench/micro/ring-memory.js MESSAGES` prints `{ messages, heapBytes, collections }`.
 */
import { execFileSync } from "node:child_process";
import { PerformanceObserver } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { initializeRing, RingConsumer, RingProducer, ringByteLength } from "../../native-bridge/spsc-ring.ts";

export interface HeapDelta {
  readonly messages: number;
  /** Growth of the used heap over the run; no collection may hide any when `collections` is 0. */
  readonly heapBytes: number;
  readonly collections: number;
}

/** Measures in a child process. */
export function measureHeapDelta(messages: number): HeapDelta {
  const output = execFileSync(process.execPath, ["--expose-gc", fileURLToPath(import.meta.url), String(messages)], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    timeout: 60_000,
  });
  return JSON.parse(output) as HeapDelta;
}

function pass(
  producer: RingProducer,
  consumer: RingConsumer,
  take: (type: number, offset: number, length: number) => void,
  messages: number,
): void {
  for (let sent = 0; sent < messages; ) {
    const offset = producer.tryClaim(1 + (sent & 0xff), 8 + (sent & 63));
    if (offset < 0) {
      consumer.drain(take, 64);
      continue;
    }
    producer.i32[offset >> 2] = sent;
    producer.commit(offset);
    sent++;
    if ((sent & 31) === 0) producer.flush();
  }
  producer.flush();
  while (consumer.drain(take, 64) > 0);
}

async function main(messages: number): Promise<void> {
  const memory = new SharedArrayBuffer(ringByteLength(65_536));
  initializeRing(memory, 0, 65_536);
  const producer = new RingProducer(memory);
  const consumer = new RingConsumer(memory);
  let seen = 0;
  const take = (): void => {
    seen = (seen + 1) | 0;
  };
  pass(producer, consumer, take, 1_000_000); // compiles
  let collections = 0;
  const observer = new PerformanceObserver((list) => {
    collections += list.getEntries().length;
  });
  const collect = (globalThis as { gc?: () => void }).gc;
  if (collect === undefined) throw new Error("run with --expose-gc");
  collect();
  observer.observe({ entryTypes: ["gc"] });
  const before = process.memoryUsage().heapUsed;
  pass(producer, consumer, take, messages);
  const heapBytes = process.memoryUsage().heapUsed - before;
  await new Promise((resolve) => setTimeout(resolve, 20)); // the observer is told a turn later
  observer.disconnect();
  if (seen !== messages + 1_000_000) throw new Error(`void: ${seen} messages seen`);
  process.stdout.write(JSON.stringify({ messages, heapBytes, collections } satisfies HeapDelta));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(Number(process.argv[2]));
