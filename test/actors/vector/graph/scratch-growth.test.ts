/** Kernels whose scratch cannot grow: the call fails typed, and all is as if it had not been made; nothing beside their range is written, ever. */
import { describe, expect, test } from "vitest";
import type { GraphPartition } from "../../../../actors/vector/graph/graph-partition.ts";
import { GraphView } from "../../../../actors/vector/graph/graph-view.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { GraphKernels } from "../../../../native-bridge/graph-kernels.ts";
import { ELEMENT, METRIC } from "../../../../native-bridge/kernels.ts";
import { ShardloomError } from "../../../../src/errors.ts";
import { GRAPH_TREE_ROOT } from "../../../../src/store/graph-layout.ts";
import { generator, seedOf } from "../../../native-bridge/memory-support.ts";
import { FailingArena } from "./failing-arena.ts";
import { clusters, MODULE, Site } from "./graph-support.ts";

const MIB = 1_048_576;
const DOCUMENTS = 320;
const DIMENSIONS = 8;
const OWNER = 7;
const TOKEN = 77;
const CALLS = 120;

/** A graph whose vertices are all taken, in chunks of 16, and kernels that link and search in it. */
class Linked {
  readonly site: Site;
  readonly memory: FailingArena;
  readonly kernels: GraphKernels;
  readonly vertices: readonly number[];
  readonly #view: GraphView;

  constructor(seed: number, owner: number | undefined) {
    const arena = new Arena(createArena({ capacityBytes: 4 * MIB }));
    const shape = { dimensions: DIMENSIONS, element: ELEMENT.F32, metric: METRIC.L2, degree: 6, chunkShift: 4 };
    this.site = Site.create(arena, shape, 512);
    const partition: GraphPartition = this.site.partition(0);
    const next = clusters(seed, DIMENSIONS, 4);
    this.vertices = Array.from({ length: DOCUMENTS }, (_, row) => {
      this.site.rows.put(row, next());
      return this.site.take(partition, row);
    });
    this.#view = new GraphView(arena, this.site.verbs);
    this.#view.refresh(this.site.root.ref);
    this.memory = new FailingArena(arena, 3 * MIB);
    this.kernels = new GraphKernels(MODULE, this.memory, this.site.root.geometry, owner);
  }

  get chunkCount(): number {
    return this.#view.chunks.length;
  }

  setChunks(count: number, partitions: number): void {
    this.kernels.setChunks(this.#view.chunks.slice(0, count), partitions);
  }

  insert(vertex: number, efConstruction: number): number {
    const treeRoot = this.site.root.wordOf(GRAPH_TREE_ROOT) * 4;
    return this.kernels.insert(vertex, { efConstruction, alpha: 1.2, token: TOKEN, treeRoot });
  }

  search(row: number, ef: number): unknown {
    const { kernels, site } = this;
    const count = kernels.search(site.codeOf(site.rows.vector(row)), { ef, countReads: true });
    const hits = Array.from({ length: count }, (_, at) => [kernels.resultVertex(at), kernels.resultDistance(at)]);
    const { distances, expansions, damaged, dangling, stopped, partitionsTouched } = kernels;
    return { hits, distances, expansions, damaged, dangling, stopped, partitionsTouched };
  }

  /** All that was ever written into chunks: lists, locks and tree words. */
  chunks(): readonly Uint8Array[] {
    const { arena, geometry } = this.site.root;
    const byteLength = geometry.stride << geometry.chunkShift;
    return this.#view.chunks.map(({ address }) => arena.bytes.slice(address, address + byteLength));
  }
}

/** A random call, which asks for ever more room; what it gives. */
function callOf(random: () => number, at: number): (linked: Linked) => unknown {
  const share = (at + 1) / CALLS;
  const upTo = (most: number): number => 1 + (random() % Math.max(1, Math.ceil(share * most)));
  const [kind, first, second, row] = [random() % 8, random(), upTo(20), random() % DOCUMENTS];
  if (kind === 0) return (linked) => linked.setChunks(Math.min(linked.chunkCount, second), 1 + (first % 40));
  if (kind === 1) {
    const entries = Array.from({ length: upTo(200) }, () => random() % DOCUMENTS);
    return (linked) => linked.kernels.setEntries(entries);
  }
  if (kind < 5) {
    const efConstruction = 8 + upTo(first % 4 === 0 ? 1_500 : 60);
    return (linked) => linked.insert(linked.vertices[row] as number, efConstruction);
  }
  const ef = upTo(first % 4 === 0 ? 4_000 : 100);
  return (linked) => linked.search(row, ef);
}

/**
 * The same calls to two kernels, each with a graph of its own: one whose allocations fail, and one that is spared the calls that failed by it.
 *
 * @returns how many failed
 */
function compare(seed: number, owner: number | undefined, fails: (allocation: number) => boolean): number {
  const [linked, twin] = [new Linked(seed, owner), new Linked(seed, owner)];
  for (const each of [linked, twin]) {
    each.setChunks(2, 1);
    each.kernels.setEntries([each.vertices[0] as number]);
  }
  const before = linked.memory.asked;
  linked.memory.fails = (allocation) => fails(allocation - before);
  const random = generator(seed);
  let failed = 0;
  for (let at = 0; at < CALLS; at++) {
    const call = callOf(random, at);
    let given: unknown;
    try {
      given = call(linked);
    } catch (error) {
      if (!ShardloomError.is(error) || error.code !== "ERR_OUT_OF_MEMORY") throw error;
      failed++;
      continue;
    }
    expect(given, `call ${at}`).toEqual(call(twin));
  }
  expect(linked.memory.strayByte()).toBeUndefined();
  const lists = twin.chunks();
  for (const [number, bytes] of linked.chunks().entries())
    expect(Buffer.compare(bytes, lists[number] as Uint8Array), `chunk ${number}`).toBe(0);
  const { skippedEdges, listsPruned } = linked.kernels;
  expect({ skippedEdges, listsPruned }).toEqual({
    skippedEdges: twin.kernels.skippedEdges,
    listsPruned: twin.kernels.listsPruned,
  });
  linked.kernels.close();
  expect(linked.memory.taken).toBe(0);
  return failed;
}

describe.each([
  ["with a range of their own", undefined],
  ["with the range of a thread's number", OWNER],
] as const)("graph kernels %s", (_, owner) => {
  test("go on as they were after any one growth that failed", () => {
    const seed = seedOf("scratch growth");
    let n = 1;
    while (compare(seed, owner, (allocation) => allocation === n) === 1) n++;
    expect(n, "growths").toBeGreaterThan(6);
  });

  test("and after half of all", () => {
    const seed = seedOf("scratch growths");
    const random = generator(seed + 1);
    let failed = 0;
    for (let round = 0; round < 3; round++) failed += compare(seed + round, owner, () => random() % 2 === 0);
    expect(failed).toBeGreaterThan(6);
  });
});
