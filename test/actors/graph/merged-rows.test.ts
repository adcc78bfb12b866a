/** Edges of all peers in one list: sums as of one list for each peer, to the bit; and memory that goes back, whoever stops waiting. */
import { beforeEach, describe, expect, it } from "vitest";
import { allocateCsr, type Csr, fillPeer, openCsr, type PeerEdges } from "../../../actors/graph/csr.ts";
import { GraphRoot } from "../../../actors/graph/graph-root.ts";
import { MergedRows } from "../../../actors/graph/merged-rows.ts";
import { pull } from "../../../actors/graph/propagate.ts";
import { Arena, createArena } from "../../../native-bridge/arena.ts";
import { compileKernels, Kernels } from "../../../native-bridge/kernels.ts";
import { RegionTable } from "../../../native-bridge/region-table.ts";
import { createSeededRandom } from "../../../src/runtime/random.ts";

const SEED = Number(process.env["SEED"] ?? 20_261_122);
const ROWS_OF = [40, 0, 70_000, 3];
const OWN = 2;
const ROWS = ROWS_OF[OWN] as number;
const PLAIN = { weighted: false, columns: 0 };

let arena: Arena;
let root: GraphRoot;
beforeEach(() => {
  arena = new Arena(createArena({ capacityBytes: 16 * 1024 * 1024 }));
  const random = createSeededRandom(SEED);
  root = GraphRoot.create(arena, new RegionTable(arena, 0, () => Math.floor(random.float() * 2 ** 32)), 1);
});

function drawn(seed: number): Csr {
  const random = createSeededRandom(seed);
  const below = (count: number): number => Math.floor(random.float() * count);
  const lists = ROWS_OF.map((rows) => {
    const count = Math.min(rows, 1_000) * 30;
    const list = (most: number): Uint32Array => Uint32Array.from({ length: count }, () => below(most));
    return { rows: list(ROWS), targets: list(rows), columns: [] };
  });
  const { address } = allocateCsr(
    root,
    ROWS,
    lists.map(({ rows }) => rows.length),
    PLAIN,
  );
  const csr = openCsr(arena, address);
  for (const [peer, list] of lists.entries())
    for (const _ of fillPeer(csr.peers[peer] as PeerEdges, list, ROWS_OF[peer] as number));
  return csr;
}

function finished<T>(work: Generator<boolean, T>): T {
  for (;;) {
    const { done, value } = work.next();
    if (done === true) return value;
  }
}

describe(`merged rows (SEED=${SEED})`, () => {
  it.each([1, 2])("sum up what %i lists for each peer do, for any rows", (ways) => {
    const origins = Array.from({ length: ways }, (_, at) => drawn(SEED + at));
    const random = createSeededRandom(SEED + 7);
    const sources = ROWS_OF.map((rows) => Float64Array.from({ length: rows }, () => random.float() * 1e9));
    const merged = finished(MergedRows.of(root, origins, ROWS_OF)) as MergedRows;
    const kernels = new Kernels(compileKernels(), arena);
    const into = new Float64Array(arena.buffer, root.allocate(ROWS * 8).address, ROWS);
    // What was sent changes from superstep to superstep.
    for (const factor of [1, 3]) {
      const sent = sources.map((values) => values.map((value) => value * factor));
      finished(merged.take(sent));
      for (const [from, to] of [
        [0, ROWS],
        [0, 1],
        [123, 60_001],
      ] as const) {
        const expected = new Float64Array(ROWS);
        for (const { peers } of origins)
          for (const [peer, edges] of peers.entries())
            pull("sum", "value", expected, edges, sent[peer] as Float64Array, from, to);
        into.fill(0);
        merged.pullSum(kernels, into, from, to);
        expect(Buffer.compare(Buffer.from(into.slice().buffer), Buffer.from(expected.buffer))).toBe(0);
      }
    }
    expect(into.some((sum) => sum > 0)).toBe(true);
  });

  it("give their memory back when nobody waits for them, and are none where there is no room", () => {
    const origins = [drawn(SEED)];
    const { usedBytes } = arena.stats();
    const work = MergedRows.of(root, origins, ROWS_OF);
    work.next();
    expect(arena.stats().usedBytes).toBeGreaterThan(usedBytes + ROWS * 8);
    work.return(undefined);
    expect(arena.stats().usedBytes).toBe(usedBytes);
    expect(() => {
      for (;;) root.allocate(262_144);
    }).toThrow(/no free range/);
    expect(finished(MergedRows.of(root, origins, ROWS_OF))).toBeUndefined();
  });
});
