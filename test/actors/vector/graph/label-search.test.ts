/** Search of what one shard computes for, and leaves read whole: nothing of another label, nothing that is gone, and what a scan finds. */
import { describe, expect, test } from "vitest";
import type { GraphPartition } from "../../../../actors/vector/graph/graph-partition.ts";
import type { GraphChunk } from "../../../../actors/vector/graph/graph-root.ts";
import { LabelSearch } from "../../../../actors/vector/graph/label-search.ts";
import { LeafMembers } from "../../../../actors/vector/graph/leaf-members.ts";
import { LeafScan } from "../../../../actors/vector/graph/leaf-scan.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { compileKernels, ELEMENT, Kernels, METRIC } from "../../../../native-bridge/kernels.ts";
import { VERTEX_DEGREE, VERTEX_NEIGHBOURS } from "../../../../src/store/graph-layout.ts";
import { FailingArena } from "./failing-arena.ts";
import { clusters, Site } from "./graph-support.ts";

const DOCUMENTS = 600;
const DIMENSIONS = 12;
const VERSION = 1;
const LEAVES = 6;
const WANTED = 18;

interface Labelled {
  readonly site: Site;
  readonly partition: GraphPartition;
  readonly rows: readonly { readonly vertex: number; readonly leaf: number; readonly row: number }[];
  readonly search: LabelSearch;
  readonly members: LeafMembers;
  readonly scan: LeafScan;
  readonly kernels: Kernels;
  readonly query: Float32Array;
}

/** A graph of one writer whose vertices have labels 0 to 2, and leaves. */
function labelled(): Labelled {
  const arena = new Arena(createArena({ capacityBytes: 64 * 1024 * 1024 }));
  const shape = { dimensions: DIMENSIONS, element: ELEMENT.F32, metric: METRIC.L2, chunkShift: 6 };
  const site = Site.create(arena, shape, DOCUMENTS);
  const next = clusters(5, DIMENSIONS);
  const partition = site.partition(1);
  const writer = site.writer();
  const rows: { vertex: number; leaf: number; row: number }[] = [];
  for (let row = 0; row < DOCUMENTS; row++) {
    site.rows.put(row, next());
    const leaf = row % LEAVES;
    const document = { address: site.rows.addressOf(row), incarnation: site.rows.incarnationOf(row), shard: 0 };
    const place = { label: leaf % 3, leaf, version: VERSION };
    const vertex = partition.take(document, site.codeOf(site.rows.vector(row)), 0, place);
    expect(writer.insert(vertex)).toBe(true);
    partition.markLinked(vertex);
    rows.push({ vertex, leaf, row });
  }
  const module = compileKernels();
  const search = new LabelSearch(site.root, site.verbs, writer.searchKernels(module));
  const members = new LeafMembers(site.root, 2);
  const kernels = new Kernels(module, arena);
  const scan = new LeafScan(site.root, kernels, members, writer.scanArena());
  return { site, partition, rows, search, members, scan, kernels, query: next() };
}

describe("a search of one label", () => {
  test("finds vertices of that label alone, from any entries and from none, and of all labels when none is named", () => {
    const { site, rows, search, query } = labelled();
    const code = site.codeOf(query);
    const labelOf = new Map(rows.map(({ vertex, leaf }) => [vertex, leaf % 3]));
    const everywhere = rows.slice(0, 6).map(({ vertex }) => vertex);
    for (const label of [0, 1, 2]) {
      for (const entries of [everywhere, [], [0x7fff_ffff, -1]]) {
        const found = search.run(code, label, entries, 200, 50) ?? [];
        expect(found.length).toBeGreaterThan(30);
        for (const { vertex } of found) expect(labelOf.get(vertex)).toBe(label);
      }
    }
    const all = search.run(code, undefined, [], 200, 50) ?? [];
    expect(new Set(all.map(({ vertex }) => labelOf.get(vertex)))).toEqual(new Set([0, 1, 2]));
  });

  test("whose entries lead to few vertices, or to none, looks further", () => {
    const made = labelled();
    const { site, partition, rows, search, query } = made;
    const own = rows.filter(({ leaf }) => leaf % 3 === 1).map(({ vertex }) => vertex);
    const [island, other] = own as [number, number];
    const { i32 } = site.root.arena;
    for (const [vertex, list] of [
      [island, [other]],
      [other, []],
    ] as const) {
      const word = partition.addressOf(vertex) >>> 2;
      i32.set(list, word + VERTEX_NEIGHBOURS / 4);
      i32[word + VERTEX_DEGREE / 4] = list.length;
    }
    expect(search.run(site.codeOf(query), 1, [island], 200, 2)).toHaveLength(2);
    const computed = search.distances;
    expect(computed, "they are enough").toBe(2);
    const nearest = [...rows]
      .filter(({ leaf }) => leaf % 3 === 1)
      .sort((a, b) => site.rows.squaredDistance(a.row, query) - site.rows.squaredDistance(b.row, query))
      .slice(0, 50)
      .map(({ vertex }) => vertex);
    const found = search.run(site.codeOf(query), 1, [island], 200, 50)?.map(({ vertex }) => vertex) ?? [];
    expect(found.length).toBe(50);
    expect(nearest.filter((vertex) => found.includes(vertex)).length).toBeGreaterThanOrEqual(45);
    // Also where what another label's search found fills the list, and where more is wanted than there is.
    const known = search.run(site.codeOf(query), 0, [], 60, 60) ?? [];
    const led = search.run(site.codeOf(query), 1, [island], 64, 20, { known: known.slice(0, 40) }) ?? [];
    expect(led.length).toBeGreaterThan(10);
    expect(led.every(({ vertex }) => own.includes(vertex))).toBe(true);
    expect(search.run(site.codeOf(query), 1, [island], 250, 250)).toHaveLength(own.length);
  });

  test("that is told of no entries begins at none that is deleted", () => {
    const { site, partition, rows, search, query } = labelled();
    const own = rows.filter(({ leaf }) => leaf % 3 === 2).map(({ vertex }) => vertex);
    const gone = own.slice(0, own.length - 40);
    for (const vertex of gone) {
      partition.delete(vertex);
      site.root.arena.i32[(partition.addressOf(vertex) + VERTEX_DEGREE) >>> 2] = 0; // it leads to nothing, as one that has moved
    }
    const found = search.run(site.codeOf(query), 2, [], 60, 40)?.map(({ vertex }) => vertex) ?? [];
    expect(new Set(found)).toEqual(new Set(own.slice(-40)));
  });
});

/** Ids in the list of a vertex. */
function listOf({ site, partition }: Labelled, vertex: number): number[] {
  const { i32 } = site.root.arena;
  const word = partition.addressOf(vertex) >>> 2;
  const first = word + VERTEX_NEIGHBOURS / 4;
  return [...i32.subarray(first, first + (i32[word + VERTEX_DEGREE / 4] as number))];
}

describe("a search that goes on from another label's", () => {
  test("is told where the candidates of the first lead to, and finds what lies nearer than those, with less work", () => {
    const made = labelled();
    const { site, rows, search } = made;
    const labelOf = new Map(rows.map(({ vertex, leaf }) => [vertex, leaf % 3]));
    const entries = rows.slice(0, 6).map(({ vertex }) => vertex);
    let [alone, led, missed, crossed] = [0, 0, 0, 0];
    for (let row = 0; row < DOCUMENTS; row += 20) {
      const query = site.rows.vector(row);
      const code = site.codeOf(query);
      const first = search.run(code, 0, entries, 40, WANTED, { others: [1, 7] }) ?? [];
      const { crossings } = search;
      const expected = first
        .flatMap(({ vertex }) => listOf(made, vertex))
        .filter((vertex) => labelOf.get(vertex) === 1);
      expect(new Set(crossings.map(({ vertex }) => vertex))).toEqual(new Set(expected));
      expect(crossings.every(({ shard }) => shard === 1)).toBe(true);
      crossed += crossings.length;
      const known = new Set(first.map(({ vertex }) => vertex));
      const nearest = rows
        .filter(({ leaf, vertex }) => leaf % 3 === 1 || known.has(vertex))
        .sort(
          (a, b) =>
            site.rows.squaredDistance(a.row, query) - site.rows.squaredDistance(b.row, query) || a.vertex - b.vertex,
        )
        .slice(0, WANTED)
        .flatMap(({ vertex }) => (labelOf.get(vertex) === 1 ? [vertex] : []));
      search.run(code, 1, entries, 40, WANTED);
      expect(search.crossings).toEqual([]);
      alone += search.distances;
      const begin = [...crossings.map(({ vertex }) => vertex), ...entries];
      const found = search.run(code, 1, begin, 40, WANTED, { known: first })?.map(({ vertex }) => vertex) ?? [];
      led += search.distances;
      expect(new Set(found).size).toBe(found.length);
      for (const vertex of found) expect(labelOf.get(vertex)).toBe(1);
      missed += nearest.filter((vertex) => !found.includes(vertex)).length;
    }
    expect(crossed).toBeGreaterThan(DOCUMENTS / 20);
    expect(missed).toBeLessThan(3);
    expect(led).toBeLessThan(alone);
  });
});

describe("leaves read whole", () => {
  test("give the nearest of their vectors exactly; what is deleted or new counts at once; another version has none", () => {
    const { site, partition, rows, members, scan, query } = labelled();
    const code = site.codeOf(query);
    const expected = (leaves: readonly number[], gone: ReadonlySet<number>): number[] =>
      rows
        .filter(({ leaf, vertex }) => leaves.includes(leaf) && !gone.has(vertex))
        .sort(
          (a, b) =>
            site.rows.squaredDistance(a.row, query) - site.rows.squaredDistance(b.row, query) || a.vertex - b.vertex,
        )
        .slice(0, 12)
        .map(({ vertex }) => vertex);
    const found = (leaves: readonly number[]): number[] =>
      scan.run(code, leaves, VERSION, 12)?.map(({ vertex }) => vertex) ?? [];
    expect(found([2, 5])).toEqual(expected([2, 5], new Set()));
    expect(scan.distances).toBe(DOCUMENTS / 3);
    expect(found([2])).toEqual(expected([2], new Set()));
    const gone = new Set(found([2, 5]).slice(0, 3));
    for (const vertex of gone) partition.delete(vertex);
    expect(found([2, 5])).toEqual(expected([2, 5], gone));
    const document = { address: site.rows.addressOf(0), incarnation: site.rows.incarnationOf(0), shard: 0 };
    const vertex = partition.take(document, code, 0, { label: 2, leaf: 5, version: VERSION });
    expect(found([5])).not.toContain(vertex); // not linked yet: its row waits
    partition.markLinked(vertex);
    expect(found([5])[0]).toBe(vertex);
    expect(scan.run(code, [2, 5], VERSION + 1, 12)).toEqual([]);
    expect(scan.run(code, [0, 1], VERSION, 12), "of other labels").toEqual([]);
    expect(members.open()).toBe(true);
    expect(members.all(VERSION).get(5)).toContain(vertex);
  });

  test("are not read while there is no room to do it in, nothing is written then, and all are once there is", () => {
    const { site, query, scan, members, kernels } = labelled();
    const { arena, root } = site;
    const code = site.codeOf(query);
    const [two, both] = [scan.run(code, [2], VERSION, 12), scan.run(code, [2, 5], VERSION, 12)];
    const memory = new FailingArena(arena, 1024 * 1024);
    const other = new LeafScan(root, kernels, members, memory);
    const outOfMemory = expect.objectContaining({ code: "ERR_OUT_OF_MEMORY" }) as unknown;
    const head = arena.bytes.slice(0, arena.heapByteOffset);
    memory.fails = (allocation) => allocation !== 3;
    for (let attempt = 0; attempt < 2; attempt++) expect(() => other.run(code, [2], VERSION, 12)).toThrow(outOfMemory);
    expect(other.run(code, [2], VERSION, 12)).toEqual(two);
    for (let attempt = 0; attempt < 2; attempt++)
      expect(() => other.run(code, [2, 5], VERSION, 12)).toThrow(outOfMemory);
    expect(other.run(code, [2], VERSION, 12), "in what it had").toEqual(two);
    memory.fails = () => false;
    expect(other.run(code, [2, 5], VERSION, 12)).toEqual(both);
    expect(memory.strayByte()).toBeUndefined();
    expect(Buffer.compare(arena.bytes.subarray(0, arena.heapByteOffset), head), "what is the arena's own").toBe(0);
    other.close();
    expect(memory.taken).toBe(0);
  });

  test("give nothing where a chunk of the label cannot be read before, or any more after, and all again once it can", () => {
    const { site, query, scan, members, kernels } = labelled();
    const code = site.codeOf(query);
    const { root } = site;
    const chunkOf = (label: number): GraphChunk =>
      Array.from({ length: root.chunkCount }, (_, number) => root.chunk(number)).find(
        (chunk) => chunk?.label === label,
      ) as GraphChunk;
    const found = scan.run(code, [2, 5], VERSION, 12);
    expect(found).toHaveLength(12);
    root.regions.deregister(chunkOf(1));
    expect(scan.run(code, [2, 5], VERSION, 12), "another label's is not read").toEqual(found);
    // The key goes while codes are compared, so what was compared may be anything.
    const { distancesAt } = kernels;
    let compared = 0;
    kernels.distancesAt = (...all) => {
      if (compared++ === 0) root.regions.deregister(chunkOf(2));
      distancesAt.apply(kernels, all);
    };
    expect(scan.run(code, [2, 5], VERSION, 12)).toBeUndefined();
    expect(compared, "then it is not even begun").toBe(1);
    expect(members.open()).toBe(false);
    kernels.distancesAt = distancesAt;
    const { address, rkey, length } = chunkOf(2);
    root.adoptChunks(1, new Map()); // registers what it finds anew
    expect(chunkOf(2)).toMatchObject({ address, length });
    expect(chunkOf(2).rkey).not.toBe(rkey);
    expect(scan.run(code, [2, 5], VERSION, 12)).toEqual(found);
  });
});
