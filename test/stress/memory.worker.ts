/**
 * Threads of the one-sided memory's stress tests; `workerData.role` says which. Each runs until its count is reached or
 * `control[STOP]` is set, and posts its counters.
 */
import { parentPort, workerData } from "node:worker_threads";
import { Arena } from "../../native-bridge/arena.ts";
import { beginWrite, CellReader, endWrite } from "../../native-bridge/cell.ts";
import { STATUS, Verbs } from "../../native-bridge/verbs.ts";
import { CONTROL, POISON, type StressData, type StressResult } from "./memory-stress.ts";

const data = workerData as StressData;
const arena = new Arena(data.memory);
const verbs = new Verbs(arena, { rmwCheck: data.rmwCheck });
const control = new Int32Array(data.control);
const keys = new Float64Array(data.control);
const payloadBytes = data.stride - 32;
const target = new Uint8Array(new ArrayBuffer(payloadBytes + 8), data.misalignment, payloadBytes);
const result: StressResult = { done: 0, torn: 0, busy: 0, retries: 0, refused: 0 };

const stopped = (): boolean => Atomics.load(control, CONTROL.STOP) !== 0;

/** All words of a payload carry the same number; one that differs is a tear. */
function check(): void {
  const view = new DataView(target.buffer, target.byteOffset, payloadBytes);
  const first = view.getInt32(0, true);
  for (let byte = 4; byte < payloadBytes; byte += 4) {
    if (view.getInt32(byte, true) !== first) {
      result.torn++;
      return;
    }
  }
}

function fill(cell: number, value: number, from: number, to: number): void {
  const word = (cell + 32) >>> 2;
  for (let at = from; at < to; at++) arena.i32[word + at] = value;
}

function write(): void {
  const words = payloadBytes >>> 2;
  for (let value = 1; !stopped(); value++) {
    const cell = data.byteOffset + (value % data.cells) * data.stride;
    if (data.role === "write-without-odd") {
      fill(cell, value, 0, words);
      Atomics.add(arena.i32, cell >>> 2, 2);
      result.done++;
      continue;
    }
    if (!beginWrite(arena.i32, cell)) continue;
    fill(cell, value, 0, words >>> 1);
    if (data.role === "write-slowly") for (let spin = 0; spin < 2000; spin++) Atomics.load(control, CONTROL.STOP);
    if (data.role === "hold") for (let spin = 0; spin < 100_000; spin++) Atomics.load(control, CONTROL.READY);
    fill(cell, value, words >>> 1, words);
    endWrite(arena.i32, cell);
    result.done++;
  }
}

function writeByVerbs(): void {
  const source = new Int32Array(payloadBytes >>> 2);
  const bytes = new Uint8Array(source.buffer);
  for (let value = 1; !stopped(); value++) {
    source.fill(value);
    const status = verbs.write(
      { address: data.byteOffset + (value % data.cells) * data.stride + 32, rkey: data.rkey, length: payloadBytes },
      bytes,
    );
    if (status === STATUS.SUCCESS) result.done++;
    else result.refused++;
  }
}

function read(): void {
  const reader = new CellReader(arena.i32, data.rmwCheck);
  const refs = Array.from({ length: data.cells }, (_, cell) => ({
    address: data.byteOffset + cell * data.stride + 32,
    rkey: data.rkey,
    length: payloadBytes,
  }));
  let torn = 0;
  const visit = (bytes: Uint8Array, at: number): void => target.set(bytes.subarray(at, at + payloadBytes));
  for (let turn = 0; result.done < data.count && !stopped(); turn++) {
    const ref = refs[turn % data.cells]!;
    let status: number;
    if (data.role === "read-in-place") status = verbs.readInPlace(ref, visit).status;
    else if (data.role === "read-cell") {
      status = reader.begin(ref.address - 32) ? STATUS.SUCCESS : STATUS.RETRY_EXCEEDED;
      visit(arena.bytes, ref.address);
      if (status === STATUS.SUCCESS && !reader.validate()) status = STATUS.RETRY_EXCEEDED;
    } else status = verbs.read(ref, target);
    if (status === STATUS.SUCCESS) {
      result.done++;
      check();
      if (result.torn > torn) torn = result.torn;
    } else if (status === STATUS.RETRY_EXCEEDED) result.busy++;
    else result.refused++;
  }
}

/** Uses whatever key is published, while the main thread registers, deregisters and poisons the memory. */
function share(): void {
  const words = new Int32Array(payloadBytes >>> 2);
  const bytes = new Uint8Array(words.buffer);
  while (!stopped()) {
    const ref = { address: data.byteOffset + 32, rkey: keys[CONTROL.KEY_DOUBLE] as number, length: payloadBytes };
    if (data.role === "write-shared") {
      words.fill(1 + (result.done & 0xff));
      if (verbs.write(ref, bytes) === STATUS.SUCCESS) result.done++;
      else result.refused++;
      continue;
    }
    if (verbs.read(ref, bytes) !== STATUS.SUCCESS) {
      result.refused++;
      continue;
    }
    result.done++;
    if (words.includes(POISON)) result.torn++;
  }
}

Atomics.add(control, CONTROL.READY, 1);
Atomics.notify(control, CONTROL.READY);
if (data.role === "read-shared" || data.role === "write-shared") share();
else if (data.role === "verbs-write") writeByVerbs();
else if (data.role.startsWith("write") || data.role === "hold") write();
else read();
result.retries = verbs.retries;
parentPort?.postMessage(result);
