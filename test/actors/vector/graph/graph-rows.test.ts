/** Shards that search the graph of their node, each for its own rows: together they find what one search finds, by few distances; and the layout, byte by byte. */
import { afterEach, describe, expect, it } from "vitest";
import { graphShapeOf } from "../../../../actors/vector/graph/graph-code.ts";
import { GraphRoot } from "../../../../actors/vector/graph/graph-root.ts";
import { isWithin } from "../../../../actors/vector/graph/graph-rows.ts";
import { resolveVectorOptions, type VectorCollectionOptions } from "../../../../actors/vector/vector-options.ts";
import { PLAN, type QueryHits } from "../../../../actors/vector/vector-replies.ts";
import { RegionTable } from "../../../../native-bridge/region-table.ts";
import { graphGeometry } from "../../../../src/store/graph-layout.ts";
import { decodeGraphTables, decodeVertex, vertexRefOf } from "../../../../src/store/graph-vertex.ts";
import { Bed, randomFrom } from "../support.ts";

const COUNT = 1_500;
/** Shards of a large node, and its documents. */
const MANY = 8;
const MOST = 2_400;
const K = 10;
const OPTIONS = { dimensions: 8, metric: "l2", strategy: "one-sided", scanRows: 50, quantization: "f32" } as const;
const random = randomFrom(3);
const vectors = Array.from({ length: MOST }, () => Float32Array.from({ length: 8 }, () => Math.floor(random() * 250)));

let beds: Bed[] = [];
afterEach(() => {
  for (const { engine, context } of beds.splice(0)) {
    engine.close();
    context.kernels.close();
  }
});

/** Shards of a node, with a graph over the documents of all. */
function node(
  quantization: "f32" | "u8" | "f16" = "f32",
  count = 2,
  documents = COUNT,
  others: Partial<VectorCollectionOptions> = {},
): {
  readonly root: GraphRoot;
  readonly shards: readonly Bed[];
} {
  const options = { ...OPTIONS, quantization, ...others };
  const first = new Bed({ workerIndex: 0 });
  beds = [first];
  for (let shard = 1; shard < count; shard++)
    beds.push(new Bed({ workerIndex: shard, memory: first.memory, seed: shard + 1 }));
  const { arena } = first.context;
  const regions = new RegionTable(arena, 9, () => Math.floor(random() * 2 ** 32));
  const root = GraphRoot.create(arena, regions, 1, graphShapeOf(resolveVectorOptions(options)));
  for (const [shard, bed] of beds.entries()) {
    bed.open(options, 1, root.ref);
    const own = vectors
      .slice(0, documents)
      .flatMap((vector, id) => (id % count === shard ? [{ id, vector, payload: { fifth: id % 5 === 0 } }] : []));
    bed.upsert(8, own);
  }
  for (const bed of beds) bed.settle();
  return { root, shards: beds };
}

const queries = Array.from({ length: 20 }, (_, at) => (vectors[at * 31] as Float32Array).map((x) => x + 2));

describe("shards that search their node's graph", () => {
  it.each(["f32", "u8", "f16"] as const)("find together what is near, with codes of %s", (quantization) => {
    const { shards } = node(quantization);
    let found = 0;
    for (const query of queries) {
      const hits = shards.flatMap((shard) => {
        const { hits: own, plan, scored } = shard.search(query, K, { viaGraph: true });
        expect([plan, own.length]).toEqual([PLAN.INDEX, K]);
        expect(scored).toBeLessThan(COUNT / 10);
        return own;
      });
      const exact = shards.flatMap((shard) => {
        const scan = shard.search(query, K);
        expect(scan.plan).toBe(PLAN.SCAN); // the reference is none of the graph's
        return shard.search(query, K, { exact: true, viaGraph: true }).hits;
      });
      const nearest = (all: typeof hits): unknown[] =>
        [...all]
          .sort((a, b) => a.score - b.score)
          .slice(0, K)
          .map(({ id }) => id);
      const truth = new Set(nearest(exact));
      found += nearest(hits).filter((id) => truth.has(id)).length;
    }
    expect(found / queries.length / K).toBeGreaterThan(0.97);
  });

  it("keep to a filter, see what waits and miss what has gone", () => {
    const { shards } = node();
    const [shard] = shards as [Bed];
    const query = vectors[0] as Float32Array;
    const filtered = shard.search(query, 5, { viaGraph: true, filter: { fifth: true } });
    expect(filtered.hits.map(({ id }) => id)).toEqual(
      shard.search(query, 5, { exact: true, filter: { fifth: true } }).hits.map(({ id }) => id),
    );
    expect(shard.search(query, 1, { viaGraph: true }).hits[0]?.id).toBe(0);
    shard.delete([0]);
    expect(shard.search(query, 1, { viaGraph: true }).hits[0]?.id).not.toBe(0);
    // Written again near where it was, and not linked yet: the vertex that it had leads to it as well.
    const nearby = (vectors[4] as Float32Array).map((x) => x + 0.5);
    shard.upsert(8, [{ id: 4, vector: nearby }]);
    const twice = shard.search(nearby, 3, { viaGraph: true }).hits.map(({ id }) => id);
    expect([twice[0], new Set(twice).size]).toEqual([4, 3]);
    // Written again, elsewhere, and not linked yet: one hit, of the new vector.
    shard.upsert(8, [{ id: 2, vector: query }]);
    expect(shard.search(query, 3, { viaGraph: true }).hits.filter(({ id }) => id === 2)).toMatchObject([{ score: 0 }]);
    expect(shard.search(vectors[2] as Float32Array, 3, { viaGraph: true }).hits.map(({ id }) => id)).not.toContain(2);
  });
});

/** The nearest of several answers, and whether they are all, as far as the graph leads to them. */
function joined(answers: readonly QueryHits[], k: number): { readonly ids: unknown[]; readonly isWhole: boolean } {
  const hits = answers.flatMap((answer) => answer.hits).sort((a, b) => a.score - b.score);
  const reach = Math.min(...answers.map((answer) => answer.reach));
  return { ids: hits.slice(0, k).map(({ id }) => id), isWhole: isWithin(hits[k - 1]?.score, reach) };
}

describe("many shards of a node that search its graph", () => {
  const filters = [
    { filter: undefined, plan: PLAN.INDEX },
    { filter: { fifth: false }, plan: PLAN.FILTERED_INDEX },
  ] as const;

  it.each(["f32", "f16"] as const)("give each its own of what is nearest, be it none, and scan nothing: %s", (code) => {
    const k = 5;
    const { shards } = node(code, MANY, MOST, { expansionSearch: k });
    for (const { filter, plan } of filters) {
      const wanted = { viaGraph: true, ...(filter === undefined ? {} : { filter }) };
      const counts = new Set<number>();
      let found = 0;
      for (const query of queries) {
        const answers = shards.map((shard) => shard.search(query, k, wanted));
        for (const { hits, plan: done, scored } of answers) {
          counts.add(hits.length);
          expect(done).toBe(plan);
          expect(scored).toBeLessThan(MOST / MANY / 5);
        }
        const { ids, isWhole } = joined(answers, k);
        expect([ids.length, isWhole]).toEqual([k, true]);
        const exact = shards.map((shard) => shard.search(query, k, { ...wanted, exact: true }));
        const truth = new Set(joined(exact, k).ids);
        found += ids.filter((id) => truth.has(id)).length;
      }
      expect(found / queries.length / k).toBeGreaterThanOrEqual(0.95);
      expect(counts).toContain(0);
    }
  });

  it("tell how far they have looked, so that one sees what others' waiting, deleted and unasked rows took the place of", () => {
    const { shards } = node("f32", 3, COUNT, { expansionSearch: K });
    const [first] = shards as [Bed];
    const query = new Float32Array(8).fill(500);
    const search = (wanted = {}): QueryHits[] =>
      shards.map((shard) => shard.search(query, K, { viaGraph: true, ...wanted }));
    const truth = (wanted = {}): unknown[] =>
      joined(
        shards.map((shard) => shard.search(query, K, { exact: true, ...wanted })),
        K,
      ).ids;
    const near = Array.from({ length: 60 }, (_, at) => ({
      id: 9_000 + at,
      vector: query.map((x) => x + at / 9),
      payload: { fifth: true },
    }));
    first.upsert(8, near);
    first.settle();
    expect(joined(search(), K)).toEqual({ ids: truth(), isWhole: true });
    // They pass no filter: the others have looked no farther than them.
    const filter = { fifth: false };
    expect(joined(search({ filter }), K).isWhole).toBe(false);
    expect(truth({ filter }).some((id) => (id as number) % 3 !== 0)).toBe(true);
    // They lie elsewhere now, and wait to be linked there.
    first.upsert(
      8,
      near.map(({ id, vector }) => ({ id, vector: vector.map((x) => x + 1e6) })),
    );
    expect(joined(search(), K).isWhole).toBe(false);
    first.settle();
    expect(joined(search(), K)).toEqual({ ids: truth(), isWhole: true });
    // What is deleted is no candidate.
    first.delete(near.map(({ id }) => id));
    expect(joined(search(), K)).toEqual({ ids: truth(), isWhole: true });
  });
});

describe("bytes of a graph", () => {
  it("are decoded as they are documented", () => {
    const geometry = graphGeometry({ dimensions: 3, element: 0, metric: 0, degree: 2, codeBytes: 12, chunkShift: 4 });
    const bytes = Buffer.alloc(geometry.stride);
    bytes.writeUInt32LE(0x0000_0006, 0); // version low
    bytes.writeUInt32LE(0x0000_0002, 4); // version high
    bytes.writeUInt32LE(5, 8); // incarnation of the cell
    bytes.writeUInt32LE(0xf000_0010, 12); // document address
    bytes.writeUInt32LE(77, 16); // document incarnation
    bytes.writeUInt32LE(3, 20); // shard
    bytes.writeUInt32LE(0x0700_0902, 24); // flags: linked, leaf 9, table version 7
    bytes.writeFloatLE(0.25, 28); // inverse norm
    bytes.writeInt32LE(9, 32); // degree, beyond what there is room for
    bytes.writeInt32LE(4, 36);
    bytes.writeInt32LE(-8, 40); // leads nowhere
    for (const [at, value] of [1.5, -2, 1e10].entries()) bytes.writeFloatLE(value, geometry.codeOffset + 4 * at);
    expect({ stride: geometry.stride, codeOffset: geometry.codeOffset }).toEqual({ stride: 80, codeOffset: 64 });
    expect(decodeVertex(geometry, 21, Uint8Array.from(bytes))).toEqual({
      vertex: 21,
      version: 2 * 2 ** 32 + 6,
      shard: 3,
      document: { address: 0xf000_0010, incarnation: 77 },
      isDeleted: false,
      isLinked: true,
      neighbours: [4],
      code: Uint8Array.from(bytes.subarray(64, 76)),
      inverseNorm: 0.25,
    });
    bytes.writeUInt32LE(0, 12);
    expect(decodeVertex(geometry, 21, bytes)).toBeUndefined();
    expect(decodeGraphTables(bytes)).toBeUndefined();
  });

  it("name the chunks and entries that its own readers know", () => {
    const { root, shards } = node();
    const { arena } = (shards[0] as Bed).context;
    const tables = decodeGraphTables(arena.bytes.slice(root.ref.address, root.ref.address + root.ref.length));
    expect(tables?.geometry).toEqual(root.geometry);
    expect(tables?.chunks.length).toBe(root.chunkCount);
    for (const chunk of tables?.chunks ?? []) {
      const known = root.chunk(chunk?.number ?? -1);
      expect(chunk).toMatchObject({ label: known?.label, partition: known?.partition });
      expect(chunk?.ref).toEqual({ address: known?.address, rkey: known?.rkey, length: known?.length });
    }
    expect(tables?.entries.length).toBeGreaterThan(1);
    const [entry] = tables?.entries ?? [];
    const ref = vertexRefOf(tables as NonNullable<typeof tables>, entry as number);
    const vertex =
      ref && decodeVertex(root.geometry, entry as number, arena.bytes.slice(ref.address, ref.address + ref.length));
    expect(vertex?.neighbours.length).toBeGreaterThan(0);
    expect(vertex?.isLinked).toBe(true);
  });
});
