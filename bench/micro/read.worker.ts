/** The thread that owns the regions of the read bench. It answers nothing while it is told to block. */
import { randomBytes } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import { Arena } from "../../native-bridge/arena.ts";
import { ACCESS, RegionTable } from "../../native-bridge/region-table.ts";
import {
  BLOCK_MS,
  BLOCKED,
  CELLS,
  COMMAND,
  LARGE_STRIDE_BYTES,
  type OwnerRefs,
  STRIDE_BYTES,
  WORD,
} from "./read-owner.ts";

const { memory, control } = workerData as { memory: WebAssembly.Memory; control: SharedArrayBuffer };
const arena = new Arena(memory);
const words = new Int32Array(control);
const table = new RegionTable(arena, 1, () => randomBytes(4).readUInt32LE());

function share(byteLength: number, cellStrideBytes: number): { address: number; rkey: number } {
  const byteOffset = arena.allocate(byteLength);
  for (let cell = byteOffset; cell < byteOffset + byteLength; cell += cellStrideBytes) {
    for (let word = (cell + 32) >>> 2; word < (cell + cellStrideBytes) >>> 2; word++)
      arena.i32[word] = (cell - byteOffset) / cellStrideBytes + 1;
  }
  return table.register({ byteOffset, byteLength, access: ACCESS.READ, cellStrideBytes });
}

/** Answers pings until the command changes: by polling, or asleep in between. */
function echo(parked: boolean, command: number): void {
  let seen = Atomics.load(words, WORD.PONG); // not PING: the first ping may be there already
  while (Atomics.load(words, WORD.COMMAND) === command) {
    const ping = Atomics.load(words, WORD.PING);
    if (ping === seen) {
      if (parked) Atomics.wait(words, WORD.PING, seen, 20);
      continue;
    }
    seen = ping;
    Atomics.store(words, WORD.PONG, ping);
  }
}

const refs: OwnerRefs = {
  cells: share(CELLS * STRIDE_BYTES, STRIDE_BYTES),
  large: share(LARGE_STRIDE_BYTES, LARGE_STRIDE_BYTES),
};
parentPort?.postMessage(refs);
const nobody = new Int32Array(new SharedArrayBuffer(4));
for (;;) {
  Atomics.wait(words, WORD.COMMAND, COMMAND.IDLE);
  const command = Atomics.load(words, WORD.COMMAND);
  if (command === COMMAND.EXIT) break;
  if (command === COMMAND.BLOCK) {
    Atomics.store(words, WORD.STATE, BLOCKED);
    Atomics.wait(nobody, 0, 0, BLOCK_MS);
    Atomics.store(words, WORD.STATE, 0);
    Atomics.compareExchange(words, WORD.COMMAND, COMMAND.BLOCK, COMMAND.IDLE);
  } else echo(command === COMMAND.PARK, command);
}
