/** Life of a vertex: taken, linked, deleted, freed, taken again; what remains of a dead worker; who may free memory when. */

import { describe, expect, test } from "vitest";
import { GraphPartition } from "../../../../actors/vector/graph/graph-partition.ts";
import { GraphRoot } from "../../../../actors/vector/graph/graph-root.ts";
import { GraphView } from "../../../../actors/vector/graph/graph-view.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { INCARNATION, USER0, VERSION_LOW } from "../../../../native-bridge/cell-layout.ts";
import { ELEMENT, METRIC } from "../../../../native-bridge/kernels.ts";
import { RegionTable } from "../../../../native-bridge/region-table.ts";
import { STATUS } from "../../../../native-bridge/status.ts";
import { GRAPH_WRITERS, VERTEX_DEGREE, vertexLock, WRITER_ACTIVE } from "../../../../src/store/graph-layout.ts";
import { dieAt, generator, seedOf } from "../../../native-bridge/memory-support.ts";
import { clusters, Site } from "./graph-support.ts";

const SEED = seedOf("graph partition");
const SHAPE = { dimensions: 24, element: ELEMENT.U8, metric: METRIC.L2, degree: 8, chunkShift: 5, maxChunks: 64 };

function bed(documents = 256): { site: Site; vectors: () => Float32Array } {
  const arena = new Arena(createArena({ capacityBytes: 32 * 1_048_576 }));
  return { site: Site.create(arena, SHAPE, documents), vectors: clusters(SEED, SHAPE.dimensions, 8) };
}

/** Fills a partition with linked vertices of rows [from, to). */
function fill(site: Site, partition: GraphPartition, vectors: () => Float32Array, from: number, to: number): number[] {
  const writer = site.writer();
  const vertices: number[] = [];
  for (let row = from; row < to; row++) {
    site.rows.put(row, vectors());
    const vertex = site.take(partition, row);
    expect(writer.insert(vertex)).toBe(true);
    partition.markLinked(vertex);
    vertices.push(vertex);
  }
  writer.close();
  return vertices;
}

function codeOf(run: () => unknown): unknown {
  try {
    run();
    return "no error";
  } catch (error) {
    return (error as { code?: string }).code ?? error;
  }
}

function incarnation(site: Site, partition: GraphPartition, vertex: number): number {
  return site.arena.i32[(partition.addressOf(vertex) >>> 2) + INCARNATION] as number;
}

describe("life of a vertex", () => {
  test("a deleted vertex is no result at once, freed only after a pass of every partition, taken again only after its rest", () => {
    const { site, vectors } = bed();
    let now = 1000;
    site.nowMs = () => now;
    const [first, second] = [site.partition(0, 50), site.partition(1, 50)];
    const vertices = fill(site, first, vectors, 0, 40);
    fill(site, second, vectors, 40, 60);
    const search = site.search();
    const victim = vertices[7] as number;
    const query = site.rows.vector(7);
    expect(site.find(search, query, 1)).toEqual([7]);
    const before = incarnation(site, first, victim);

    expect(first.delete(victim)).toBe(true);
    expect(first.delete(victim)).toBe(false);
    expect(site.find(search, query, 1)).not.toContain(7);
    expect([first.count, first.deletedCount, site.root.counts()]).toEqual([39, 1, { live: 59, deleted: 1 }]);

    const writer = site.writer();
    const repair = (vertex: number): number => writer.repair(vertex);
    expect(first.sweep(repair, Number.POSITIVE_INFINITY)).toBe(true);
    expect(first.deletedCount).toBe(1); // the other partition may lead to it still
    expect(second.sweep(repair, Number.POSITIVE_INFINITY)).toBe(true);
    expect(first.freeDeleted()).toBe(1);
    expect(site.root.counts()).toEqual({ live: 59, deleted: 0 });
    expect(incarnation(site, first, victim)).toBeGreaterThan(before);
    for (const partition of [first, second]) {
      partition.forEach((vertex) => {
        const word = (partition.addressOf(vertex) + VERTEX_DEGREE) >>> 2;
        const degree = site.arena.i32[word] as number;
        expect([...site.arena.i32.slice(word + 1, word + 1 + degree)]).not.toContain(victim);
      });
    }
    writer.close();

    // 24 slots of the second chunk are left; the freed one is not among those taken until it has rested.
    site.rows.put(100, vectors());
    for (let slot = 0; slot < 24; slot++) expect(site.take(first, 100)).not.toBe(victim);
    now += 49;
    expect(site.take(first, 100)).not.toBe(victim);
    now += 1;
    expect(site.take(first, 100)).toBe(victim);
  });

  test("a pass that began before a deletion does not free it", () => {
    const { site, vectors } = bed();
    let now = 0;
    site.nowMs = () => now++;
    const partition = site.partition(0);
    const vertices = fill(site, partition, vectors, 0, 96);
    const writer = site.writer();
    const repair = (vertex: number): number => writer.repair(vertex);
    expect(partition.sweep(repair, now)).toBe(false); // one slice of it
    partition.delete(vertices[0] as number);
    while (!partition.sweep(repair, Number.POSITIVE_INFINITY));
    expect(partition.deletedCount).toBe(1);
    while (!partition.sweep(repair, Number.POSITIVE_INFINITY));
    expect(partition.deletedCount).toBe(0);
    writer.close();
  });

  test("searches go on when every entry vertex is deleted, again and again", () => {
    const { site, vectors } = bed();
    const partition = site.partition(0);
    const vertices = fill(site, partition, vectors, 0, 120);
    const search = site.search();
    const writer = site.writer();
    for (let row = 0; row < 110; row++) {
      partition.delete(vertices[row] as number);
      site.rows.remove(row);
      if (row % 10 === 0) while (!partition.sweep((vertex) => writer.repair(vertex), Number.POSITIVE_INFINITY));
      const found = site.find(search, site.rows.vector(119), 10);
      expect(found).toHaveLength(Math.min(10, 119 - row));
      expect(found.every((each) => each > row)).toBe(true);
    }
    writer.close();
  });

  test("arguments are checked, and a full table of chunks is a typed error", () => {
    const { site, vectors } = bed();
    const partition = site.partition(0);
    site.rows.put(0, vectors());
    const document = { address: site.rows.addressOf(0), incarnation: 1, shard: 0 };
    expect(codeOf(() => partition.take(document, new Uint8Array(23)))).toBe("ERR_INVALID_ARGUMENT");
    expect(codeOf(() => partition.take({ ...document, address: 0 }, new Uint8Array(24)))).toBe("ERR_INVALID_ARGUMENT");
    expect(codeOf(() => GraphPartition.create(site.root, 256, { nowMs: () => 0 }))).toBe("ERR_INVALID_ARGUMENT");
    for (let slot = 0; slot < 64 * 32; slot++) partition.take(document, new Uint8Array(24));
    const before = site.arena.stats().usedBytes;
    expect(codeOf(() => partition.take(document, new Uint8Array(24)))).toBe("ERR_OUT_OF_MEMORY");
    expect(site.arena.stats().usedBytes).toBe(before);
    expect(partition.delete(5)).toBe(true);
    expect(partition.delete(1 << 20)).toBe(false);
  });
});

describe("death of a worker", () => {
  /** What a successor does: closes the dead one's writer, adopts its regions. */
  function succeed(site: Site, dead: number): { root: GraphRoot; partition: GraphPartition; unlinked: number[] } {
    const regions = new RegionTable(site.arena, dead + 10, generator(99));
    const adopted = new Map(regions.adopt(dead, dead + 10).map((region) => [region.address, region]));
    const root = GraphRoot.adopt(site.arena, regions, site.root.ref.address, adopted, 1);
    root.closeWriter(dead);
    const { partition, unlinked } = GraphPartition.adopt(root, 0, adopted, { nowMs: () => site.nowMs(), graceMs: 0 });
    return { root, partition, unlinked };
  }

  test("at any step of taking, linking and deleting: the graph stays whole, and what was not linked is handed out", () => {
    let deaths = 0;
    for (let n = 0; ; n++) {
      const { site, vectors } = bed(64);
      const partition = site.partition(0);
      const vertices = fill(site, partition, vectors, 0, 33); // the next one needs a chunk
      const writer = site.writer();
      site.rows.put(40, vectors());
      const died = dieAt(n, () => {
        const vertex = site.take(partition, 40);
        writer.insert(vertex);
        partition.markLinked(vertex);
        partition.delete(vertices[3] as number);
        while (!partition.sweep((each) => writer.repair(each), Number.POSITIVE_INFINITY));
      });
      const heir = succeed(site, site.owner);
      heir.partition.repairLocks();
      const seen = new Set<number>();
      heir.partition.forEach((vertex) => void seen.add(vertex));
      for (const vertex of vertices) if (vertex !== vertices[3]) expect(seen.has(vertex)).toBe(true);
      expect(heir.unlinked.length).toBeLessThanOrEqual(1);
      const next = new Site(site.arena, 30, (regions) => ({
        root: GraphRoot.open(site.arena, regions, heir.root.ref),
        rows: site.rows,
      }));
      const other = next.writer();
      for (const vertex of heir.unlinked) {
        expect(other.insert(vertex)).toBe(true);
        heir.partition.markLinked(vertex);
      }
      while (!heir.partition.sweep((vertex) => other.repair(vertex), Number.POSITIVE_INFINITY));
      const found = next.find(next.search(), site.rows.vector(0), 40, { ef: 64 });
      const expected = vertices.map((_, row) => row).filter((row) => row !== 3);
      expect(found).toEqual(expect.arrayContaining(expected));
      expect(found.filter((row) => row !== 40 && row !== 3).length).toBe(expected.length);
      expect(heir.root.counts()).toEqual({ live: heir.partition.count, deleted: heir.partition.deletedCount });
      if (!died) break;
      deaths++;
    }
    expect(deaths).toBeGreaterThan(80);
  });

  test("at any step of moving vertices: every document that could be found can be found", () => {
    let deaths = 0;
    for (let n = 0; ; n++) {
      const { site, vectors } = bed(64);
      const partition = site.partition(0);
      const vertices = fill(site, partition, vectors, 0, 40);
      const writer = site.writer();
      const died = dieAt(n, () => {
        for (const row of [3, 7]) {
          const copy = site.take(partition, row);
          expect(writer.move(vertices[row] as number, copy)).toBe(true);
          partition.markLinked(copy);
          partition.delete(vertices[row] as number);
        }
      });
      const heir = succeed(site, site.owner);
      for (const vertex of heir.unlinked) heir.partition.delete(vertex); // as an index does whose row has a vertex
      const next = new Site(site.arena, 30, (regions) => ({
        root: GraphRoot.open(site.arena, regions, heir.root.ref),
        rows: site.rows,
      }));
      const other = next.writer();
      while (!heir.partition.sweep((vertex) => other.repair(vertex), Number.POSITIVE_INFINITY));
      const found = next.find(next.search(), site.rows.vector(0), 40, { ef: 64 });
      expect(found.sort((a, b) => a - b)).toEqual(vertices.map((_, row) => row));
      if (!died) break;
      deaths++;
    }
    expect(deaths).toBeGreaterThan(20);
  });

  test("a lock of a dead writer is passed over by others in bounded time, and cleared by the owner; a live one's is not", () => {
    const { site, vectors } = bed();
    const partition = site.partition(0);
    const vertices = fill(site, partition, vectors, 0, 60);
    const writer = site.writer({}, 1);
    const entry = site.root.openWriter(7);
    const token = site.root.get(entry + 1);
    const setLocks = (of: readonly number[], to: number): void => {
      for (const vertex of of)
        site.arena.i32[(partition.addressOf(vertex) + vertexLock(site.root.geometry)) >>> 2] = to;
    };
    setLocks(vertices, token);
    site.rows.put(100, vectors());
    const fresh = site.take(partition, 100);
    const start = performance.now();
    expect(writer.insert(fresh), "nothing could lead to it").toBe(false);
    expect(performance.now() - start).toBeLessThan(10_000);
    expect(writer.repair(vertices[0] as number)).toBe(-1);
    setLocks(vertices.slice(30, 40), 0);
    expect(writer.insert(fresh), "one of some does").toBe(true);
    expect(writer.skippedEdges).toBeGreaterThan(0);
    expect(site.find(site.search(), site.rows.vector(100), 1, { ef: 100 })).toEqual([100]);
    setLocks(vertices, token);
    expect(partition.repairLocks()).toBe(0); // its thread lives
    site.root.closeWriter(7);
    expect(partition.repairLocks()).toBe(60);
    expect(writer.insert(fresh)).toBe(true);
    expect(site.find(site.search(), site.rows.vector(100), 1)).toEqual([100]);
    writer.close();
  });

  test("a successor under the same number has another token: what its predecessor held is cleared while it writes", () => {
    const { site, vectors } = bed();
    const partition = site.partition(0);
    const [vertex] = fill(site, partition, vectors, 0, 4) as [number];
    const dead = site.root.get(site.root.openWriter(7) + 1);
    site.arena.i32[(partition.addressOf(vertex) + vertexLock(site.root.geometry)) >>> 2] = dead;
    expect(site.root.get(site.root.openWriter(7) + 1)).not.toBe(dead);
    expect(partition.repairLocks()).toBe(1);
  });

  test("a reader's view follows the new keys, and says which partition is lost in between", () => {
    const { site, vectors } = bed();
    const partition = site.partition(0);
    fill(site, partition, vectors, 0, 40);
    const search = site.search();
    expect(site.find(search, site.rows.vector(5), 1)).toEqual([5]);
    const view = new GraphView(site.arena, site.verbs);
    expect(view.refresh(site.root.ref)).toBe(STATUS.SUCCESS);
    const address = view.chunks[0]?.address;
    const regions = new RegionTable(site.arena, 40, generator(5));
    const info = site.regions.list(site.owner).find(({ ref }) => ref.address === address);
    site.regions.deregister(info?.ref as never);
    const query = { code: site.codeOf(site.rows.vector(5)), vector: site.rows.vector(5) };
    const lost = search.search(site.root.ref, query, 1);
    expect([lost.status, lost.hits]).toEqual([STATUS.REGION_REVOKED, []]);
    expect(search.lostPartition).toBe(0);
    site.root.adoptChunks(0, new Map());
    expect(site.find(search, site.rows.vector(5), 1)).toEqual([5]);
    expect(regions.list(40)).toEqual([]);
  });
});

describe("memory", () => {
  test("chunks are freed only once no writer is inside an insertion", () => {
    const { site, vectors } = bed();
    const partition = site.partition(0);
    fill(site, partition, vectors, 0, 40);
    const entry = site.root.openWriter(7);
    expect(entry).toBeGreaterThanOrEqual(GRAPH_WRITERS);
    site.root.set(entry + WRITER_ACTIVE, 1);
    let now = 0;
    site.nowMs = () => (now += 100);
    const used = site.arena.stats().usedBytes;
    expect(codeOf(() => partition.drop())).toBe("ERR_TIMEOUT");
    expect(site.arena.stats().usedBytes).toBe(used);
    const other = site.partition(1);
    fill(site, other, vectors, 40, 50);
    site.root.closeWriter(7);
    other.drop();
    expect(site.arena.stats().usedBytes).toBe(used);
  });

  test("create, fill, search, drop leaves nothing behind", () => {
    const { site, vectors } = bed();
    const start = site.arena.stats().usedBytes;
    for (let round = 0; round < 5; round++) {
      const root = GraphRoot.create(site.arena, site.regions, 2, SHAPE);
      const inner = new Site(site.arena, 3, () => ({ root, rows: site.rows }));
      const partition = inner.partition(0);
      fill(inner, partition, vectors, 0, 100);
      const search = inner.search(3);
      expect(inner.find(search, site.rows.vector(9), 1)).toEqual([9]);
      search.close();
      partition.drop();
      root.drop();
      expect(search.search(root.ref, { code: new Uint8Array(24), vector: new Float32Array(24) }, 1).status).not.toBe(
        STATUS.SUCCESS,
      );
    }
    const scratchOfKernels = 5 * 65_536; // of the documents' kernels, which the test does not close
    expect(site.arena.stats().usedBytes - start).toBeLessThanOrEqual(scratchOfKernels);
  });

  test("a root is opened only where one is", () => {
    const { site } = bed();
    const at = site.arena.allocate(65_536);
    expect(codeOf(() => GraphRoot.open(site.arena, site.regions, { address: at, rkey: 1, length: 64 }))).toBe(
      "ERR_CORRUPT",
    );
    expect(codeOf(() => GraphRoot.adopt(site.arena, site.regions, site.root.ref.address, new Map(), 2))).toBe(
      "ERR_CORRUPT",
    );
  });

  test("a vertex that is being written is skipped by reads, not waited for", () => {
    const { site, vectors } = bed();
    const partition = site.partition(0);
    const vertices = fill(site, partition, vectors, 0, 20);
    const record = partition.addressOf(vertices[4] as number);
    Atomics.add(site.arena.i32, (record >>> 2) + VERSION_LOW, 1);
    expect(site.find(site.search(), site.rows.vector(4), 19)).toHaveLength(19);
    Atomics.add(site.arena.i32, (record >>> 2) + VERSION_LOW, 1);
    expect(site.find(site.search(), site.rows.vector(4), 1)).toEqual([4]);
    expect(site.arena.i32[(record >>> 2) + USER0]).not.toBe(0);
  });
});
