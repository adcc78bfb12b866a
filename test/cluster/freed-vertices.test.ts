/** Deleted documents over real threads: their vertices are swept out of all lists and freed, and who comes next takes their memory. */
import { afterEach, expect, it } from "vitest";
import type { Cluster, VectorCollection } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { eventually, randomVector, startTestCluster } from "../support/cluster.ts";
import { OwnAnswers } from "../support/own-answers.ts";

const DIMENSIONS = 8;
const COUNT = 700;
const WORKERS = [0, 1];
/** Deleted vertices that may stay: too few for a pass over all lists. */
const LEFT = 64;

let cluster: Cluster;
afterEach(() => cluster.close());

interface Vertices {
  /** Those of documents, and of what were documents. */
  readonly ids: ReadonlySet<number>;
  readonly deleted: number;
  /** Neighbours of those that are not deleted which are no vertex any more. */
  readonly loose: number;
}

/** All vertices of the node, as a reader of its memory sees them. */
async function verticesOf(docs: VectorCollection): Promise<Vertices> {
  const memory = docs.memory(cluster.readerOf(0));
  const ids: number[] = [];
  for (const shard of WORKERS)
    for (const { first, count } of await docs.memory(cluster.readerOf(shard)).ranges())
      for (let at = 0; at < count; at++) ids.push(first + at);
  const found = (await memory.vertices(ids)).filter((vertex) => vertex !== undefined);
  const known = new Set(found.map(({ vertex }) => vertex));
  return {
    ids: known,
    deleted: found.filter(({ isDeleted }) => isDeleted).length,
    loose: found.flatMap(({ isDeleted, neighbours }) => (isDeleted ? [] : neighbours.filter((id) => !known.has(id))))
      .length,
  };
}

it("their vertices are freed, lists lead to none of them, what stays is found, and their places are taken again", async () => {
  cluster = await startTestCluster({ workers: WORKERS.length });
  const docs = await cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2", strategy: "one-sided" });
  const random = createSeededRandom(3);
  const vectors = Array.from({ length: COUNT }, () => randomVector(random, DIMENSIONS));
  const documents = vectors.map((vector, id) => ({ id, vector }));
  await docs.upsert(documents);
  await docs.indexed({ timeoutMs: 60_000 });
  const before = await verticesOf(docs);
  expect([before.ids.size - before.deleted, before.loose]).toEqual([COUNT, 0]);
  expect(
    before.deleted,
    "let go of, as a neighbour was held by the other shard while it was to be linked",
  ).toBeLessThan(LEFT);
  const gone = documents.filter(({ id }) => id % 2 === 0).map(({ id }) => id);
  const left = COUNT - gone.length;
  await docs.delete(gone);
  let after = before;
  await eventually("the deleted are freed", async () => {
    after = await verticesOf(docs);
    return after.deleted <= LEFT && after.ids.size - after.deleted === left && after.loose === 0;
  });
  const own = new OwnAnswers(docs);
  let missed = 0;
  for (const { id, vector } of documents.filter((document) => document.id % 2 === 1))
    if ((await own.search(vector)).hits[0]?.id !== id) missed++;
  expect(missed).toBeLessThan(4);
  own.expectSome("after the sweep");
  const freed = new Set([...before.ids].filter((id) => !after.ids.has(id)));
  await eventually("a place is taken again that has rested", async () => {
    const [again = 0] = gone.splice(0, 1);
    await docs.upsert({ id: again, vector: vectors[again] as Float32Array });
    await docs.indexed();
    return [...(await verticesOf(docs)).ids].some((id) => freed.has(id));
  });
});
