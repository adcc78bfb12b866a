/**
 * Child of activation-memory.test.ts, run with `--expose-gc`: activates many actors, lets them rest, and prints what memory
 * they took. A process of its own, as the heap of a test runner is noise.
 */

import { createActorSystem } from "../../src/actor/actor-system.ts";
import { defineActor } from "../../src/actor/define-actor.ts";
import type { Delivery, ReplySink } from "../../src/actor/delivery.ts";
import { createManualClock } from "../../src/runtime/clock.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { createVirtualTime } from "../../src/runtime/scheduler.ts";

const count = Number(process.argv[2]);
const idle = defineActor({
  name: "idle",
  init: () => ({ total: 0 }),
  handlers: { add: (state, amount: number) => (state.total += amount) },
  options: { idleAfterMs: 10 },
});

const clock = createManualClock(1000);
const nowhere = { ask: () => Promise.reject(new Error("unused")), tell: () => Promise.resolve() };
const system = createActorSystem({
  definitions: [idle],
  clock,
  scheduler: createVirtualTime().scheduler,
  random: createSeededRandom(1),
  send: nowhere,
});
let answers = 0;
const sink: ReplySink = {
  value: () => {
    answers++;
  },
  error: (_sender, _token, error) => {
    throw error;
  },
};
type Reused = { -readonly [K in keyof Delivery]: Delivery[K] };
const delivery: Reused = {
  actorName: "idle",
  key: "",
  handler: "add",
  message: 1,
  ask: true,
  deadlineAtMs: 0,
  senderId: 1,
  requestToken: 0,
};

function heapBytes(): number {
  for (let round = 0; round < 3; round++) globalThis.gc?.();
  return process.memoryUsage().heapUsed;
}

function activateAll(round: number): void {
  for (let index = 0; index < count; index++) {
    delivery.key = `key-${round}-${index}`;
    system.deliver(delivery, sink);
  }
}

function restAll(nowMs: number): void {
  clock.setMs(nowMs);
  let most = 0;
  while (system.activeCount() > 0) most = Math.max(most, system.sweep(nowMs, 1000));
  if (most > 1000) throw new Error(`A sweep let ${most} actors rest`);
}

activateAll(0); // warm: the table, the compiled code
restAll(2000);
const beforeBytes = heapBytes();
activateAll(1);
const activeBytes = heapBytes();
const active = system.activeCount();
restAll(3000);
const afterBytes = heapBytes();

delivery.key = "hot";
const messages = 3_000_000;
const perMessage: number[] = [];
for (let round = 0; round < 5; round++) {
  const started = process.hrtime.bigint();
  for (let index = 0; index < messages; index++) {
    delivery.requestToken = index;
    system.deliver(delivery, sink);
  }
  perMessage.push(Number(process.hrtime.bigint() - started) / messages);
}
const quietBytes = heapBytes();
for (let index = 0; index < 1_000_000; index++) system.deliver(delivery, sink);
const allocatedBytes = process.memoryUsage().heapUsed - quietBytes;

console.log(
  JSON.stringify({
    active,
    answers,
    bytesPerActivation: (activeBytes - beforeBytes) / count,
    growthBytes: afterBytes - beforeBytes,
    nsPerInlineDeliver: perMessage.sort((one, two) => one - two)[2],
    allocatedBytesPerMessage: allocatedBytes / 1_000_000,
  }),
);
