/** Search of the whole graph: exact scores from the rows, documents that are gone or changed, chunks that are taken away. */

import { describe, expect, test } from "vitest";
import { type DocumentReader, RowDocuments } from "../../../../actors/vector/graph/graph-documents.ts";
import type { GraphPartition } from "../../../../actors/vector/graph/graph-partition.ts";
import { GraphSearch } from "../../../../actors/vector/graph/graph-search.ts";
import { NOT_FOUND } from "../../../../actors/vector/row-reader.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES, USER0, USER1, USER2, USER3 } from "../../../../native-bridge/cell-layout.ts";
import { STOPPED } from "../../../../native-bridge/graph-kernels.ts";
import { ELEMENT, Kernels, METRIC } from "../../../../native-bridge/kernels.ts";
import { STATUS } from "../../../../native-bridge/status.ts";
import { generator, seedOf } from "../../../native-bridge/memory-support.ts";
import { clusters, MODULE, recallOf, Site } from "./graph-support.ts";

const SEED = seedOf("graph search");
const DIMENSIONS = 32;
const DOCUMENTS = 512;

function filled(
  metric: number = METRIC.L2,
  element: number = ELEMENT.U8,
): { site: Site; partition: GraphPartition; vertices: number[] } {
  const arena = new Arena(createArena({ capacityBytes: 32 * 1_048_576 }));
  const site = Site.create(arena, { dimensions: DIMENSIONS, element, metric, degree: 16, chunkShift: 7 }, DOCUMENTS);
  const vectors = clusters(SEED, DIMENSIONS, 20);
  const partition = site.partition(0);
  const writer = site.writer();
  const vertices: number[] = [];
  for (let row = 0; row < DOCUMENTS; row++) {
    site.rows.put(row, vectors());
    const vertex = site.take(partition, row);
    writer.insert(vertex);
    partition.markLinked(vertex);
    vertices.push(vertex);
  }
  writer.close();
  return { site, partition, vertices };
}

describe("search of the whole graph", () => {
  test.each(Object.entries(METRIC))("%s: hits carry the exact distances of their rows, nearest first", (_, metric) => {
    for (const element of [ELEMENT.U8, ELEMENT.F32]) {
      const { site } = filled(metric, element);
      const search = site.search();
      const kernels = new Kernels(MODULE, site.arena);
      const vectors = clusters(SEED + 1, DIMENSIONS, 20);
      const at = site.arena.allocate(DIMENSIONS * 4);
      let same = 0;
      for (let query = 0; query < 30; query++) {
        const vector = vectors();
        site.arena.f32.set(vector, at >>> 2);
        const { hits, status } = search.search(site.root.ref, { code: site.codeOf(vector), vector }, 10, { ef: 80 });
        expect([status, hits.length]).toEqual([STATUS.SUCCESS, 10]);
        const exact = (row: number): number =>
          kernels.distance(metric, ELEMENT.F32, site.rows.addressOf(row) + CELL_HEADER_BYTES, at, DIMENSIONS);
        for (const hit of hits) expect(hit.distance).toBeCloseTo(exact(site.rows.rowOf(hit.address)), 5);
        expect(hits.map(({ distance }) => distance)).toEqual(
          [...hits].map(({ distance }) => distance).sort((a, b) => a - b),
        );
        const nearest = Array.from({ length: DOCUMENTS }, (_, row) => exact(row)).sort((a, b) => a - b);
        same += hits.filter(({ distance }) => distance <= (nearest[9] as number) + 1e-6).length;
      }
      expect(same / 300).toBeGreaterThan(metric === METRIC.INNER_PRODUCT ? 0.8 : 0.97);
    }
  });

  test("an updated document has its new distance, a deleted one is gone, and others come in its place", () => {
    const { site } = filled();
    const search = site.search();
    const query = site.rows.vector(3);
    const near = site.find(search, query, 40, { ef: 40 });
    expect(near[0]).toBe(3);
    site.rows.put(
      3,
      query.map((value) => 255 - value),
    ); // the vertex still has the old code
    const updated = search.search(site.root.ref, { code: site.codeOf(query), vector: query }, 40, { ef: 64 });
    expect(
      updated.hits.find(({ address }) => site.rows.rowOf(address) === 3)?.distance ?? Number.POSITIVE_INFINITY,
    ).toBeGreaterThan(10_000);
    for (const row of near.slice(0, 30)) site.rows.remove(row); // the graph does not know yet
    const left = search.search(site.root.ref, { code: site.codeOf(query), vector: query }, 40, { ef: 40 });
    expect(left.hits).toHaveLength(40);
    expect(left.stale).toBe(30);
    for (const { address } of left.hits) expect(near.slice(0, 30)).not.toContain(site.rows.rowOf(address));
    const found = left.hits.map(({ address }) => site.rows.rowOf(address));
    expect(recallOf(site.rows, DOCUMENTS, query, found, 40)).toBeGreaterThan(0.9);
  });

  test("a row that was taken by another document is not a hit of the old vertex", () => {
    const { site, partition } = filled();
    const query = site.rows.vector(9);
    site.rows.remove(9);
    site.rows.put(9, query);
    expect(site.find(site.search(), query, 10)).not.toContain(9);
    const writer = site.writer();
    const fresh = site.take(partition, 9);
    writer.insert(fresh);
    const { hits } = site.search().search(site.root.ref, { code: site.codeOf(query), vector: query }, 10);
    expect(hits.map(({ vertex }) => vertex)).toContain(fresh); // though the old vertex is as near, and comes first
    expect(hits.filter(({ address }) => site.rows.rowOf(address) === 9)).toHaveLength(1);
    partition.take(
      { address: site.rows.addressOf(9), incarnation: site.rows.incarnationOf(9), shard: 0 },
      site.codeOf(query),
    );
    expect(writer.insert(fresh + 1)).toBe(true);
    expect(site.find(site.search(), query, 10).filter((row) => row === 9)).toHaveLength(1); // two vertices for one document
    writer.close();
  });

  test("a filter of vertices, a budget of distances, reads by partition", () => {
    const { site, vertices } = filled();
    const filter = site.arena.allocate(DOCUMENTS / 8);
    for (const vertex of vertices)
      if (vertex % 5 === 0)
        site.arena.bytes[filter + (vertex >>> 3)] =
          (site.arena.bytes[filter + (vertex >>> 3)] as number) | (1 << (vertex & 7));
    const search = site.search();
    const vector = site.rows.vector(1);
    const query = { code: site.codeOf(vector), vector };
    const result = search.search(site.root.ref, query, 10, { ef: 40, filter, filterBits: DOCUMENTS, countReads: true });
    expect(result.hits).toHaveLength(10);
    expect(result.hits.every(({ vertex }) => vertex % 5 === 0)).toBe(true);
    expect(result.reads).toEqual([result.distances]);
    const short = search.search(site.root.ref, query, 10, { ef: 64, limitDistances: 50 });
    expect(short.stopped).toBe(STOPPED.BUDGET);
    expect(short.distances).toBeLessThan(50 + 16);
    expect(search.searchMany(site.root.ref, [query, query], 3).map(({ hits }) => hits[0]?.vertex)).toEqual([
      vertices[1],
      vertices[1],
    ]);
  });

  test("a chunk that is taken away while hits are read: no hits, a status, and the partition", () => {
    const { site, vertices } = filled();
    const chunk = site.root.chunk(1);
    const inner = new RowDocuments(
      site.arena,
      site.verbs,
      new Kernels(MODULE, site.arena),
      METRIC.L2,
      () => site.rows.places,
    );
    let armed = true;
    const documents: DocumentReader = {
      begin(query) {
        inner.begin(query);
        if (armed) site.regions.deregister(chunk as never);
        armed = false;
      },
      expect: (address, shard) => inner.expect(address, shard),
      score: (address, incarnation, shard) => inner.score(address, incarnation, shard),
      get distance() {
        return inner.distance;
      },
    };
    const search = new GraphSearch(site.arena, site.verbs, MODULE, documents);
    const vector = site.rows.vector(vertices.findIndex((vertex) => vertex >>> 7 === 1));
    const query = { code: site.codeOf(vector), vector };
    const result = search.search(site.root.ref, query, 5);
    expect([result.status, result.hits]).toEqual([STATUS.REGION_REVOKED, []]);
    expect(search.lostPartition).toBe(0);
    site.root.adoptChunks(0, new Map());
    expect(search.search(site.root.ref, query, 5).hits).toHaveLength(5);
    expect(search.search(undefined, query, 5).status).toBe(STATUS.INVALID_RKEY);
    site.regions.deregister(site.root.ref);
    expect(search.search(site.root.ref, query, 5).status).toBe(STATUS.REGION_REVOKED);
  });

  test("a row whose region was taken away is unread, not a hit", () => {
    const { site } = filled();
    const documents = new RowDocuments(
      site.arena,
      site.verbs,
      new Kernels(MODULE, site.arena),
      METRIC.L2,
      () => undefined,
    );
    const search = new GraphSearch(site.arena, site.verbs, MODULE, documents);
    const vector = site.rows.vector(1);
    const result = search.search(site.root.ref, { code: site.codeOf(vector), vector }, 5, { ef: 20 });
    expect([result.hits.length, result.unread]).toEqual([0, 20]);
  });

  test("addresses that are no row's, incarnations that are another's", () => {
    const { site } = filled();
    const documents = new RowDocuments(
      site.arena,
      site.verbs,
      new Kernels(MODULE, site.arena),
      METRIC.L2,
      () => site.rows.places,
    );
    documents.begin(site.rows.vector(0));
    const address = site.rows.addressOf(4);
    const incarnation = site.rows.incarnationOf(4);
    expect(documents.score(address, incarnation, 0)).toBe(STATUS.SUCCESS);
    for (const wrong of [address + 16, address - 16, 0, 4, 0xffff_ff00, site.rows.addressOf(DOCUMENTS)])
      expect(documents.score(wrong, incarnation, 0)).toBe(NOT_FOUND);
    expect(documents.score(address, incarnation + 1, 0)).toBe(NOT_FOUND);
    for (const any of [address, 0, 0xffff_ff00]) documents.expect(any, 0); // touches rows alone
    expect(Number.isInteger(documents.touched)).toBe(true);
  });

  test("random words in the headers of vertices: every hit is a document that is there, with its exact distance", () => {
    const { site, partition, vertices } = filled();
    const random = generator(SEED);
    const search = site.search();
    const { i32 } = site.arena;
    for (let round = 0; round < 2000; round++) {
      const record = partition.addressOf(vertices[random() % DOCUMENTS] as number);
      const word = [USER0, USER1, USER2, USER3, 8, 9 + (random() % 16)][random() % 6] as number;
      i32[(record >>> 2) + word] = random() % 2 === 0 ? random() | 0 : site.rows.addressOf(random() % DOCUMENTS);
      if (round % 10 !== 0) continue;
      const row = random() % DOCUMENTS;
      if (random() % 4 === 0 && site.rows.isThere(row)) site.rows.remove(row);
      const vector = site.rows.vector(random() % DOCUMENTS);
      const result = search.search(site.root.ref, { code: site.codeOf(vector), vector }, 10, { ef: 40 });
      expect(result.status).toBe(STATUS.SUCCESS);
      for (const hit of result.hits) {
        const found = site.rows.rowOf(hit.address);
        expect(site.rows.isThere(found)).toBe(true);
        expect(site.rows.incarnationOf(found)).toBe(hit.incarnation);
        const exact = site.rows.vector(found).reduce((sum, x, at) => sum + (x - (vector[at] as number)) ** 2, 0);
        expect(hit.distance).toBe(exact);
      }
    }
  });
});
