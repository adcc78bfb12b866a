/** A collection with a graph in an arena that is full: what was acknowledged stays, searches are answered or fail typed, and it works again. */
import { afterEach, expect, it, vi } from "vitest";
import type { Arena, Cluster, StrategyName, VectorCollection } from "../../src/index.ts";
import { ShardloomError } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";
import { clustered, DIMENSIONS as FEW_DIMENSIONS } from "../support/clustered.ts";

const MIB = 1024 * 1024;
const BALLAST_BYTES: number = 4 * MIB;
const DIMENSIONS = 512;
/** Directions in which documents differ: few, as in real ones, so that a graph leads to each of them. */
const DIRECTIONS = 6;
/** Documents that each shard has room for in its graph, about half of them, before there is none left. */
const LINKED_FIRST = 600;
const STRATEGIES: readonly StrategyName[] = ["scatter", "one-sided", "compass", "spire", "cotra", "auto"];
const OUT_OF_MEMORY = { code: "ERR_OUT_OF_MEMORY" };
const random = createSeededRandom(Number(process.env["SEED"] ?? 1));
const directions = Array.from({ length: DIRECTIONS }, () => Array.from({ length: DIMENSIONS }, () => random.float()));

interface Document {
  readonly id: number;
  readonly vector: Float32Array;
  readonly payload: { readonly note: string };
}

let cluster: Cluster;
afterEach(() => cluster.close());

function documentOf(id: number): Document {
  const vector = new Float32Array(DIMENSIONS);
  for (const direction of directions) {
    const share = random.float();
    for (let at = 0; at < DIMENSIONS; at++) vector[at] = (vector[at] as number) + share * (direction[at] as number);
  }
  return { id, vector, payload: { note: `${id} `.repeat(20) } };
}

/** Writes new documents until not one more fits, and notes what was acknowledged. */
async function fill(docs: VectorCollection, stored: Map<number, Document>): Promise<void> {
  for (let size = 256; size >= 1; ) {
    const batch = Array.from({ length: size }, (_, at) => documentOf(stored.size + at));
    try {
      await docs.upsert(batch);
      for (const document of batch) stored.set(document.id, document);
    } catch (error) {
      expect(error).toMatchObject(OUT_OF_MEMORY);
      size >>= 1;
    }
  }
}

/** Waits until nothing more is linked, as all is or there is no room. */
async function strained(docs: VectorCollection): Promise<void> {
  let [waiting, same] = [-1, 0];
  await eventually("linking comes to its end", async () => {
    const unindexed = (await docs.status()).reduce((sum, shard) => sum + shard.unindexed, 0);
    same = unindexed === waiting ? same + 1 : 0;
    waiting = unindexed;
    return same > 50 || unindexed === 0;
  });
}

async function expectStored(docs: VectorCollection, stored: ReadonlyMap<number, Document>): Promise<void> {
  const ids = [...stored.keys()];
  for (let from = 0; from < ids.length; from += 500) {
    const some = ids.slice(from, from + 500);
    for (const [at, found] of (await docs.getMany(some)).entries()) {
      const { vector, payload } = stored.get(some[at] as number) as Document;
      if (Buffer.compare(bytesOf(found?.vector), bytesOf(vector)) !== 0) throw new Error(`vector of ${some[at]}`);
      expect(found?.payload).toEqual(payload);
    }
  }
  expect(await docs.count()).toBe(stored.size);
}

function bytesOf(vector: Float32Array | undefined): Uint8Array {
  return vector === undefined ? new Uint8Array(0) : new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
}

/** Infinite where there is no such document. */
function distance(a: Float32Array | undefined, b: Float32Array): number {
  return a?.reduce((sum, x, at) => sum + (x - (b[at] as number)) ** 2, 0) ?? Number.POSITIVE_INFINITY;
}

/** Takes all that is left. @returns gives it back */
function exhaust(arena: Arena): () => void {
  const blocks: [number, number][] = [];
  for (let size = MIB; size >= 64; ) {
    try {
      blocks.push([arena.allocate(size), size]);
    } catch {
      size >>= 1;
    }
  }
  return () => {
    for (const block of blocks.splice(0)) arena.free(...block);
  };
}

/** By how each strategy answered a search for a document that is there. Every hit is of a document, with its true score. */
async function answersOf(
  docs: VectorCollection,
  stored: ReadonlyMap<unknown, Document>,
  { id, vector }: Document,
  ef: number,
): Promise<Map<string, string>> {
  const answers = new Map<string, string>();
  for (const by of STRATEGIES) {
    const width = by === "spire" ? {} : { ef };
    const found = await docs.search(vector, { k: 10, ...width, by }).catch((error: unknown) => {
      expect(error, by).toMatchObject(OUT_OF_MEMORY);
      return undefined;
    });
    answers.set(by, found === undefined ? "full" : `${found.by} ${found.fallback ?? ""}`.trim());
    if (found === undefined) continue;
    expect(found.hits, by).toHaveLength(10);
    expect(found.completeness.complete, by).toBe(true);
    for (const hit of found.hits) {
      const truth = distance(stored.get(hit.id)?.vector, vector);
      expect(Number.isFinite(truth), by).toBe(true);
      expect(Math.abs(hit.score - truth), by).toBeLessThanOrEqual(1e-3 * truth);
    }
    // Of the others one may be missed: they are approximate.
    if (found.by === "scatter" || (found.by === "one-sided" && ef > stored.size))
      expect(found.hits[0], by).toMatchObject({ id, score: 0 });
  }
  return answers;
}

it("a full arena loses nothing, ends no worker, and is left again when documents are deleted", async () => {
  cluster = await startTestCluster({ memoryBytes: 20 * MIB, requestTimeoutMs: 30_000 });
  const ballast = cluster.arena.allocate(BALLAST_BYTES);
  let restarts = 0;
  cluster.on("worker-restarted", () => restarts++);
  const docs = await cluster.vectors("docs", {
    ...{ dimensions: DIMENSIONS, metric: "l2", strategy: "one-sided" },
    ...{ connectivity: 8, expansionAdd: 24 },
  });
  const stored = new Map<number, Document>();
  for (let id = 0; id < LINKED_FIRST; id++) stored.set(id, documentOf(id));
  await docs.upsert([...stored.values()]);
  await docs.indexed({ timeoutMs: 60_000 });
  await fill(docs, stored);
  await strained(docs);
  await expectStored(docs, stored);

  const release = exhaust(cluster.arena);
  const probes = [5, 700, stored.size - 1].map((id) => stored.get(id) as Document);
  for (const probe of probes) {
    expect(() => docs.reader().search(probe.vector, 10)).toThrow(expect.objectContaining(OUT_OF_MEMORY));
    const answers = await answersOf(docs, stored, probe, 0);
    expect(answers.get("scatter")).toBe("scatter");
    expect(answers.get("one-sided")).toBe("scatter memory");
    expect(answers.get("auto")).toBe("scatter memory");
    expect([...answers.values()]).not.toContain("full");
  }
  const { results, batch } = await docs.searchMany(probes.map(({ vector }) => vector));
  expect(results.map(({ hits, by }) => [hits[0]?.id, by])).toEqual(probes.map(({ id }) => [id, "scatter"]));
  expect(batch.alone).toBe(probes.length);
  expect(["memory", "waiting"], "waiting: many could not be linked").toContain(batch.reason);
  expect(await docs.delete([0, 1, 2, 3])).toBe(4);
  for (const id of [0, 1, 2, 3]) stored.delete(id);
  release();

  for (const probe of [...probes, ...probes]) await answersOf(docs, stored, probe, 65_536);
  await expectStored(docs, stored);

  // So few stay that their vertices fit the chunks that each shard has; kernels may still lack what they work in.
  const gone = [...stored.keys()].slice(LINKED_FIRST / 3);
  expect(await docs.delete(gone)).toBe(gone.length);
  for (const id of gone) stored.delete(id);
  const added = Array.from({ length: LINKED_FIRST / 3 }, (_, at) => documentOf(100_000 + at));
  await eventually("documents fit again", () =>
    docs.upsert(added).then(
      () => true,
      (error: unknown) => {
        expect(error).toMatchObject(OUT_OF_MEMORY);
        return false;
      },
    ),
  );
  for (const document of added) stored.set(document.id, document);
  await expectStored(docs, stored);
  const last = [...stored.values()].slice(-3);
  for (const probe of last) await answersOf(docs, stored, probe, 0);
  cluster.arena.free(ballast, BALLAST_BYTES);
  await docs.indexed({ timeoutMs: 60_000 });
  await expectStored(docs, stored);
  for (const probe of last) {
    const answers = await answersOf(docs, stored, probe, 0);
    expect(answers.get("one-sided")).toBe("one-sided");
    expect([...answers.values()].filter((answer) => /memory|full/.test(answer))).toEqual([]);
  }
  expect(restarts).toBe(0);
});

it("whatever a searching thread has no memory for, the search goes another way, and says why", async () => {
  cluster = await startTestCluster({ requestTimeoutMs: 30_000 });
  const docs = await cluster.vectors("docs", { dimensions: FEW_DIMENSIONS, metric: "l2", strategy: "compass" });
  const vectors = clustered(1_100); // enough to learn leaves of
  await docs.upsert(vectors.map((vector, id) => ({ id, vector })));
  await docs.indexed({ timeoutMs: 60_000 });
  const query = vectors[7] as Float32Array;
  await eventually("the leaves are known", async () => (await docs.search(query)).by === "compass");
  await eventually("shards know each other's", async () =>
    (await docs.status()).every(({ knownShards }) => knownShards === 2),
  );

  const lacking = (): never => {
    throw new ShardloomError("ERR_OUT_OF_MEMORY", "Cannot allocate as a test lets it fail");
  };
  const expectAnswer = async (by: StrategyName, answer: string): Promise<void> => {
    const found = await docs.search(query, { by });
    expect([`${found.by} ${found.fallback}`, found.hits[0]?.id], by).toEqual([answer, 7]);
  };
  const reader = docs.reader();
  const [halves, batch] = [reader.halves.bind(reader), reader.batch.bind(reader)];
  for (const [step, by, answer] of [
    ["scanWaiting", "compass", "scatter memory"],
    ["finish", "compass", "scatter memory"],
    ["scanWaiting", "spire", "scatter memory"],
    ["finish", "spire", "scatter memory"],
    ["scanWaiting", "cotra", "one-sided memory"],
    ["rank", "cotra", "one-sided memory"],
  ] as const) {
    const spy = vi.spyOn(reader, "halves").mockImplementation((...asked) => ({ ...halves(...asked), [step]: lacking }));
    await expectAnswer(by, answer);
    spy.mockRestore();
    await expectAnswer(by, `${by} undefined`);
  }
  for (const step of ["begin", "finish"] as const) {
    const spy = vi.spyOn(reader, "batch").mockImplementation((...asked) => {
      const made = batch(...asked);
      vi.spyOn(made, step).mockImplementation(lacking);
      return made;
    });
    const { results, batch: told } = await docs.searchMany([query, query]);
    expect(results.map(({ by, fallback, hits }) => [by, fallback, hits[0]?.id])).toEqual(
      Array(2).fill(["one-sided", undefined, 7]),
    );
    expect(told).toMatchObject({ alone: 2, reason: "memory" });
    spy.mockRestore();
  }
  vi.spyOn(reader, "search").mockImplementation(lacking);
  await expectAnswer("one-sided", "scatter memory");
});
