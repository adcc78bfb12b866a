/** One of several threads that allocate and free in one arena, each marking its blocks, so that an overlap is seen by its owner. */
import { parentPort, workerData } from "node:worker_threads";
import { Arena } from "../../native-bridge/arena.ts";
import { generator } from "./memory-support.ts";

const { memory, mark, operations, seed, sizes } = workerData as {
  memory: WebAssembly.Memory;
  mark: number;
  operations: number;
  seed: number;
  sizes: readonly number[];
};
const arena = new Arena(memory);
const random = generator(seed);
const live: { at: number; length: number }[] = [];
const faults: string[] = [];
let allocated = 0;
let refused = 0;

function release(index: number): void {
  const [block] = live.splice(index, 1) as [{ at: number; length: number }];
  for (let word = block.at >>> 2; word < (block.at + block.length) >>> 2; word++) {
    if (arena.i32[word] !== mark) faults.push(`thread ${mark} found ${arena.i32[word]} in its block ${block.at}`);
  }
  arena.free(block.at, block.length);
}

for (let operation = 0; operation < operations && faults.length < 10; operation++) {
  if (live.length > 40 || (live.length > 0 && (random() & 1) === 0)) {
    release(random() % live.length);
    continue;
  }
  const length = sizes[random() % sizes.length] as number;
  let at = 0;
  try {
    at = arena.allocate(length);
  } catch (error) {
    if ((error as { code?: string }).code !== "ERR_OUT_OF_MEMORY") throw error;
    refused++;
    if (live.length > 0) release(0);
    continue;
  }
  for (let word = at >>> 2; word < (at + length) >>> 2; word++) {
    if (arena.i32[word] !== 0) faults.push(`thread ${mark} got a block at ${at} that holds ${arena.i32[word]}`);
    arena.i32[word] = mark;
  }
  allocated++;
  live.push({ at, length });
}
while (live.length > 0) release(0);
parentPort?.postMessage({ mark, allocated, refused, faults });
