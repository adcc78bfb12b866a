/** Vertices are placed by leaves that are learnt from the collection's own vectors, and stay placed while documents change and workers die. */
import { once } from "node:events";
import { afterEach, describe, expect, it, vi } from "vitest";
import { graphShapeOf } from "../../actors/vector/graph/graph-code.ts";
import { GraphRoot } from "../../actors/vector/graph/graph-root.ts";
import { LeafTable } from "../../actors/vector/graph/leaf-table.ts";
import { hasMoved, isLiveRecord } from "../../actors/vector/graph/vertex-record.ts";
import { compileKernels, Kernels } from "../../native-bridge/kernels.ts";
import type { Cluster, ClusterOptions, VectorCollection, VectorCollectionOptions } from "../../src/index.ts";
import { RegionTable } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import {
  GRAPH_LEAVES_READY,
  graphGeometry,
  graphRootBytes,
  leafOfFlags,
  VERTEX_DEGREE,
  VERTEX_FLAG,
  VERTEX_NEIGHBOURS,
  versionOfFlags,
  vertexTreeWord,
} from "../../src/store/graph-layout.ts";
import { saboteur } from "../support/actors.ts";
import { eventually, keyOnShard, startTestCluster } from "../support/cluster.ts";
import { OwnAnswers } from "../support/own-answers.ts";

const DIMENSIONS = 16;
const seed = Number(process.env["SEED"] ?? 1);
const GRAPH: VectorCollectionOptions = { dimensions: DIMENSIONS, metric: "l2", strategy: "one-sided" };
const MAIN_OWNER = 65_535;

vi.setConfig({ testTimeout: 120_000 });

let cluster: Cluster;
afterEach(() => cluster.close());

async function start(options: ClusterOptions = {}): Promise<Cluster> {
  cluster = await startTestCluster({ requestTimeoutMs: 20_000, maxHandlerMs: 20_000, ...options });
  return cluster;
}

function clustered(count: number, random = createSeededRandom(seed)): Float32Array[] {
  const shape = createSeededRandom(7);
  const centres = Array.from({ length: 30 }, () => Array.from({ length: DIMENSIONS }, () => shape.float()));
  return Array.from({ length: count }, () => {
    const centre = centres[Math.floor(random.float() * centres.length)] as number[];
    return Float32Array.from(centre, (x) => x + (random.float() - 0.5) * 0.4);
  });
}

const toDocuments = (vectors: readonly Float32Array[], first = 0): { id: number; vector: Float32Array }[] =>
  vectors.map((vector, at) => ({ id: first + at, vector }));

/** The only graph of a cluster, and its table. */
function graphOf(docs: VectorCollection): { root: GraphRoot; table: LeafTable | undefined } {
  const { arena } = cluster;
  const length = graphRootBytes(graphGeometry(graphShapeOf(docs.options)));
  for (let owner = MAIN_OWNER; owner >= 0; owner--) {
    const regions = new RegionTable(arena, owner, () => 0);
    const found = regions.list(owner).find(({ ref }) => ref.length === length);
    if (found === undefined) continue;
    const root = GraphRoot.open(arena, regions, found.ref);
    return { root, table: LeafTable.open(root, { arena, kernels: new Kernels(compileKernels(), arena) }) };
  }
  throw new Error("there is no graph");
}

interface Placed {
  readonly live: number;
  readonly misplaced: number;
  /** Vertices by label. */
  readonly loads: Map<number, number>;
  /** Medoids that are no live vertex of their leaf. */
  readonly badMedoids: number;
  readonly counts: number;
  /** Vertices that are said to be elsewhere. */
  readonly moved: number;
  /** Neighbours of vertices that are none any more: lists that name them where they were. */
  readonly stale: number;
}

/** Looks at every vertex of the graph. */
function inspect(docs: VectorCollection): Placed {
  const { root, table } = graphOf(docs);
  if (table === undefined) throw new Error("there is no leaf table");
  const { i32 } = cluster.arena;
  const { chunkShift, stride } = root.geometry;
  const loads = new Map<number, number>();
  const leafOf = new Map<number, number>();
  const named: number[] = [];
  let misplaced = 0;
  let moved = 0;
  for (let number = 0; number < root.chunkCount; number++) {
    const chunk = root.chunk(number);
    for (let slot = 0; chunk !== undefined && slot < 1 << chunkShift; slot++) {
      const word = (chunk.address + slot * stride) >>> 2;
      const flags = i32[word + 6] as number;
      if (i32[word + 3] === 0 || (flags & VERTEX_FLAG.TOMBSTONE) !== 0) continue;
      const leaf = leafOfFlags(flags);
      leafOf.set((number << chunkShift) | slot, leaf);
      loads.set(chunk.label, (loads.get(chunk.label) ?? 0) + 1);
      if (hasMoved(cluster.arena, root.geometry, chunk.address + slot * stride)) moved++;
      const first = word + VERTEX_NEIGHBOURS / 4;
      named.push(...i32.subarray(first, first + (i32[word + VERTEX_DEGREE / 4] as number)));
      if (versionOfFlags(flags) !== table.version || table.label(leaf) !== chunk.label) misplaced++;
    }
  }
  let badMedoids = 0;
  let counts = 0;
  for (let leaf = 0; leaf < table.count; leaf++) {
    const medoid = table.medoid(leaf);
    if (medoid >= 0 && leafOf.get(medoid) !== leaf) badMedoids++;
    counts += table.vertices(leaf);
  }
  const stale = named.filter((vertex) => !leafOf.has(vertex)).length;
  return { live: leafOf.size, misplaced, loads, badMedoids, counts, stale, moved };
}

/** Has a vertex of a shard say that it has moved to another one. @returns its vector */
function forgeMove(docs: VectorCollection, shard: number): Float32Array {
  const { root } = graphOf(docs);
  const { i32, f32 } = cluster.arena;
  const { geometry } = root;
  for (let number = 0; number < root.chunkCount; number++) {
    const chunk = root.chunk(number);
    for (let slot = 0; chunk?.partition === shard && slot < 1 << geometry.chunkShift; slot++) {
      const record = chunk.address + slot * geometry.stride;
      const neighbour = i32[(record + VERTEX_NEIGHBOURS) >>> 2] as number;
      if (!isLiveRecord(cluster.arena, record) || i32[(record + VERTEX_DEGREE) >>> 2] === 0) continue;
      i32[(record + vertexTreeWord(geometry)) >>> 2] = -neighbour - 1;
      const code = (record + geometry.codeOffset) >>> 2;
      return f32.slice(code, code + DIMENSIONS);
    }
  }
  throw new Error(`shard ${shard} has no vertices`);
}

function expectPlaced(docs: VectorCollection, live: number): void {
  const placed = inspect(docs);
  expect(placed).toMatchObject({ live, misplaced: 0, badMedoids: 0, counts: live });
  const loads = [...placed.loads.values()];
  expect(loads.length).toBe(2);
  expect(Math.max(...loads) / (live / 2)).toBeLessThan(1.5);
}

describe("vertices", () => {
  it("lie in chunks of the label of their leaf, wherever their documents are, and searches find what they found", async () => {
    await start();
    const docs = await cluster.vectors("docs", GRAPH);
    const vectors = clustered(3_000);
    await docs.upsert(toDocuments(vectors));
    await docs.indexed({ timeoutMs: 60_000 });
    expectPlaced(docs, 3_000);
    expect(inspect(docs).stale).toBe(0);
    const { root, table } = graphOf(docs);
    expect(root.get(GRAPH_LEAVES_READY)).toBe(table?.version);
    let missed = 0;
    const own = new OwnAnswers(docs);
    for (const [id, vector] of vectors.slice(0, 300).entries())
      if ((await own.search(vector)).hits[0]?.id !== id) missed++;
    expect(missed).toBeLessThanOrEqual(3);
    own.expectSome("once they are placed");
  });

  it("are where they are to be after inserts, updates and deletes too, searches going on meanwhile, and after a worker's death", async () => {
    await start();
    const docs = await cluster.vectors("docs", GRAPH);
    const random = createSeededRandom(seed + 1);
    const live = new Map(clustered(1_500, random).map((vector, id) => [id, vector] as const));
    await docs.upsert([...live].map(([id, vector]) => ({ id, vector })));
    const own = new OwnAnswers(docs);
    for (let round = 0; round < 30; round++) {
      const batch = new Map(
        clustered(60, random).map((vector) => [Math.floor(random.float() * 4_000), vector] as const),
      );
      await docs.upsert([...batch].map(([id, vector]) => ({ id, vector })));
      for (const [id, vector] of batch) live.set(id, vector);
      const gone = [...live.keys()].filter(() => random.float() < 0.02);
      await docs.delete(gone);
      for (const id of gone) live.delete(id);
      for (const [id, vector] of [...batch].filter(([id]) => live.has(id)).slice(0, 8))
        expect((await own.search(vector)).hits[0]).toMatchObject({ id, score: 0 });
      const { hits } = await own.search(clustered(1, random)[0] as Float32Array, { k: 20 });
      for (const { id } of hits) expect(live.has(id as number)).toBe(true);
    }
    own.expectSome("while they are placed");
    await docs.indexed({ timeoutMs: 60_000 });
    expectPlaced(docs, live.size);
    for (const shard of [0, 1]) {
      const restarted = once(cluster, "worker-restarted");
      // As if it had died between moving a vertex and linking its copy.
      const torn = forgeMove(docs, shard);
      await cluster
        .actor(saboteur, keyOnShard(cluster, saboteur, shard))
        .exit(1)
        .catch(() => undefined);
      await restarted;
      await eventually(
        "memory can be read again",
        async () => (await docs.search(new Float32Array(DIMENSIONS))).by === "one-sided",
      );
      const [vector] = clustered(1, random) as [Float32Array];
      await docs.upsert({ id: 5_000 + shard, vector });
      live.set(5_000 + shard, vector);
      await docs.indexed({ timeoutMs: 60_000 });
      expectPlaced(docs, live.size);
      expect(inspect(docs).moved).toBe(0);
      expect((await docs.search(torn, { k: 1 })).hits[0]?.score, "it is linked anew").toBe(0);
    }
  });

  it("of a collection that has grown are placed anew, by more leaves", async () => {
    await start();
    const docs = await cluster.vectors("docs", GRAPH);
    await docs.upsert(toDocuments(clustered(1_200)));
    await docs.indexed({ timeoutMs: 60_000 });
    const before = graphOf(docs).table;
    await docs.upsert(toDocuments(clustered(4_800, createSeededRandom(seed + 2)), 1_200));
    await docs.indexed({ timeoutMs: 60_000 });
    expect(inspect(docs).stale).toBe(0);
    const after = graphOf(docs).table;
    expect(after?.version).toBeGreaterThan(before?.version as number);
    expect(after?.count).toBeGreaterThan(before?.count as number);
    expectPlaced(docs, 6_000);
  });
});
