/** The kernel that sums over edges: what a plain loop gives, to the bit, and nothing beside the rows that it is given. */
import { expect, test } from "vitest";
import { compileKernels, Kernels } from "../../native-bridge/kernels.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { makeArena } from "./kernels-support.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_121);
const ROWS = 300;

test.each([0, 1, 7, ROWS])(`sums rows from %i on as a plain loop does (SEED=${SEED})`, (from) => {
  const random = createSeededRandom(SEED + from);
  const arena = makeArena();
  const { buffer } = arena.memory;
  const kernels = new Kernels(compileKernels(), arena);
  const degrees = Array.from({ length: ROWS }, () => (random.float() < 0.3 ? 0 : Math.floor(random.float() * 20)));
  const edges = degrees.reduce((sum, degree) => sum + degree, 0);
  const offsets = new Uint32Array(buffer, arena.allocate((ROWS + 1) * 4), ROWS + 1);
  for (const [row, degree] of degrees.entries()) offsets[row + 1] = (offsets[row] as number) + degree;
  // 4-aligned, not 8-aligned, as in an adjacency.
  const targets = new Uint32Array(buffer, arena.allocate((edges + 1) * 4) + 4, edges);
  for (let at = 0; at < edges; at++) targets[at] = Math.floor(random.float() * ROWS);
  const values = new Float64Array(buffer, arena.allocate(ROWS * 8), ROWS);
  const into = new Float64Array(buffer, arena.allocate(ROWS * 8), ROWS);
  for (let row = 0; row < ROWS; row++) {
    values[row] = random.float() * 10 ** Math.floor(random.float() * 12);
    into[row] = random.float();
  }
  const to = Math.max(from, ROWS - 5);
  const expected = Float64Array.from(into, (start, row) => {
    if (row < from || row >= to) return start;
    let sum = start;
    for (let at = offsets[row] as number; at < (offsets[row + 1] as number); at++)
      sum += values[targets[at] as number] as number;
    return sum;
  });
  kernels.pullSum(into.byteOffset, offsets.byteOffset, targets.byteOffset, values.byteOffset, from, to);
  expect([...into]).toEqual([...expected]);
  kernels.close();
});
