/** Clusters whose rings are as small as they may be: what does not fit is done in parts, and copies do not suffer from it. */
import { afterEach, expect, it } from "vitest";
import type { Cluster, ClusterOptions } from "../../src/index.ts";
import { eventually } from "../support/cluster.ts";
import { clustered, DIMENSIONS, queriesOf } from "../support/clustered.ts";
import { kill, startCopies, whenCopiesEqual } from "../support/copies.ts";

const RING_BYTES: number = 16 * 1024;
const range = (count: number): number[] => Array.from({ length: count }, (_, at) => at);
let cluster: Cluster | undefined;

async function started(options: ClusterOptions): Promise<Cluster> {
  cluster = await startCopies({ workers: 2, replicationFactor: 2, ...options });
  return cluster;
}

afterEach(() => cluster?.close());

it.each([1, 2])("a delete whose reply does not fit deletes everything, once, with %i copies", async (copies) => {
  const own = await started({ replicationFactor: copies, replyRingBytes: RING_BYTES });
  const docs = await own.vectors("docs", { dimensions: 2, metric: "l2" });
  await docs.upsert(
    range(10_000).map((id) => ({ id, vector: [id, 1] })),
    { acks: "all" },
  );
  expect(await docs.delete(range(9_990), { acks: 1 })).toBe(9_990);
  expect(await docs.count({ consistency: "strong" })).toBe(10);
  if (copies > 1)
    expect(new Set((await whenCopiesEqual(own, docs)).keys())).toEqual(new Set(range(10_000).slice(9_990)));
});

it("copies of more vshards than one answer can tell of are followed, also after a restart", async () => {
  const own = await started({ vshards: 2048, meshRingBytes: RING_BYTES, requestTimeoutMs: 20_000 });
  const docs = await own.vectors("docs", { dimensions: 2, metric: "l2" });
  const documents = range(300).map((id) => ({ id, vector: [id, 1] }));
  expect(await docs.upsert(documents, { acks: 2 })).toMatchObject({ written: 300 });
  await kill(own, 1);
  expect(await docs.upsert(documents, { acks: 2 })).toMatchObject({ inserted: 0 });
});

it.each([
  ["compass", { replyRingBytes: RING_BYTES }],
  ["spire", { replyRingBytes: RING_BYTES }],
  ["spire", { meshRingBytes: RING_BYTES }],
] as const)(
  "a search by %s for more than one answer of a shard has room for says so, and misses nothing by it: %j",
  async (by, rings) => {
    const own = await started({ replicationFactor: 1, requestTimeoutMs: 20_000, ...rings });
    const docs = await own.vectors("docs", { dimensions: DIMENSIONS, metric: "l2", strategy: by });
    await docs.upsert(clustered(1_200).map((vector, id) => ({ id, vector })));
    await docs.indexed({ timeoutMs: 60_000 });
    await eventually("all shards know all leaves", async () =>
      (await docs.status()).every(({ knownShards }) => knownShards === 2),
    );
    const [query] = queriesOf(1) as [Float32Array];
    const few = await docs.search(query, { recall: 1 });
    expect([few.by, few.fallback]).toEqual([by, undefined]);
    const k = 300;
    const exact = await docs.search(query, { k, exact: true });
    const truth = new Set(exact.hits.map(({ id }) => id));
    for (const gather of ["all", "best-effort"] as const) {
      const many = await docs.search(query, { k, gather, recall: 1 });
      expect([many.by, many.fallback, many.completeness.complete]).toEqual(["one-sided", "size", true]);
      expect(many.hits.filter(({ id }) => truth.has(id)).length / k).toBeGreaterThan(0.95);
    }
  },
);
