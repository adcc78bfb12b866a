/** The gate that work on another thread passes: shut while nobody is inside, while somebody is, and for good. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { WriteGate } from "../../src/runtime/write-gate.ts";

test("runs what passes, also inside of itself, and nothing once it is shut", () => {
  const gate = new WriteGate(new SharedArrayBuffer(4));
  expect(gate.run(() => gate.run(() => 7))).toBe(7);
  const fail = (): never => {
    throw new Error("inside");
  };
  expect(() => gate.run(fail)).toThrow("inside");
  expect(gate.shut(0)).toBe(true);
  expect(gate.shut(0)).toBe(true);
  expect(() => gate.run(() => 1)).toThrow(/exiting/);
});

test("is shut only when the other thread's work has ended", async () => {
  const memory = new SharedArrayBuffer(4);
  const count = new Int32Array(new SharedArrayBuffer(8));
  const url = JSON.stringify(new URL("../../src/runtime/write-gate.js", import.meta.url).href);
  const worker = new Worker(
    `const { workerData: { memory, count }, parentPort } = require("node:worker_threads");
     import(${url}).then(({ WriteGate }) => {
       const gate = new WriteGate(memory);
       parentPort.postMessage("ready");
       for (;;) gate.run(() => { // the two counts differ only inside
         Atomics.add(count, 0, 1);
         for (const end = Date.now() + 3; Date.now() < end; );
         Atomics.add(count, 1, 1);
       });
     });`,
    { eval: true, workerData: { memory, count } },
  );
  worker.on("error", () => undefined); // it ends of the gate that is shut
  await once(worker, "message");
  while (Atomics.load(count, 1) < 3);
  expect(new WriteGate(memory).shut(5_000)).toBe(true);
  const [begun, ended] = [Atomics.load(count, 0), Atomics.load(count, 1)];
  expect(begun).toBe(ended);
  await worker.terminate();
  expect(Atomics.load(count, 0)).toBe(begun);
});
