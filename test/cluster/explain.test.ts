/** Every read that says how it was answered: `explain: true` gives one account of a call, a function is told the same once. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Cluster,
  type Explanation,
  hybridSearch,
  type TextCollection,
  type VectorCollection,
} from "../../src/index.ts";
import { startTestCluster } from "../support/cluster.ts";
import { codeOf } from "../support/copies.ts";

const RING_BYTES = 32 * 1024;
const COUNT = 600;

let cluster: Cluster;
let docs: VectorCollection;
let texts: TextCollection;

beforeAll(async () => {
  // Replies of so small rings hold little: answers come in pages, and long lists are asked for in halves.
  cluster = await startTestCluster({ workers: 2, replyRingBytes: RING_BYTES, requestRingBytes: RING_BYTES });
  docs = await cluster.vectors("docs", { dimensions: 2, metric: "l2" });
  texts = await cluster.text("texts", {});
  const payload = { note: "n".repeat(100) };
  const range = Array.from({ length: COUNT }, (_, id) => id);
  await docs.upsert(range.map((id) => ({ id, vector: [id, 1], payload })));
  await texts.upsert(range.map((id) => ({ id, text: `tea number ${id}`, payload })));
});

afterAll(() => cluster.close());

/** An account that has everything, and whose sums are right. */
function checked(account: Explanation | undefined): Explanation {
  if (account === undefined) throw new Error("it was not explained");
  const { plan, planUs, totalUs, outcomes, pages = [], attempts, hedges, bytes, stalenessMs } = account;
  expect(plan).toMatchObject({ topologyEpoch: cluster.topology.topologyEpoch, consistency: "strong", unavailable: [] });
  const shards = [plan.targets, outcomes].map((list) => list.map(({ shard }) => shard).sort((a, b) => a - b));
  expect(shards[0]).toEqual(shards[1]);
  const requests = [...outcomes, ...pages];
  expect(attempts).toBe(requests.reduce((sum, request) => sum + request.attempts, 0));
  expect(bytes).toBe(requests.reduce((sum, request) => sum + request.bytes, 0));
  expect([hedges, stalenessMs]).toEqual([0, 0]);
  expect(planUs).toBeGreaterThan(0);
  for (const { serviceUs, queueUs, bytes: own } of requests) {
    expect([serviceUs >= 0, queueUs >= 0, own > 0, totalUs > serviceUs]).toEqual([true, true, true, true]);
  }
  return account;
}

describe.each(["vectors", "texts"])("of %s", (kind) => {
  const collection = (): VectorCollection | TextCollection => (kind === "vectors" ? docs : texts);

  it("plain reads give their result beside its account, or as it is", async () => {
    const of = collection() as VectorCollection;
    const { point, batch } = cluster.routerStats().reads;
    const one = await of.get(7, { explain: true, includeVector: false });
    expect(cluster.routerStats().reads).toMatchObject({ point: point + 1, batch });
    expect(one.value?.id).toBe(7);
    expect(checked(one.explain)).toMatchObject({ plan: { kind: "point" }, attempts: 1, outcomes: [{ count: 1 }] });
    const count = await of.count({ explain: true });
    expect(count.value).toBe(COUNT);
    expect(checked(count.explain)).toMatchObject({ plan: { kind: "scatter" }, attempts: 2 });
    const told: Explanation[] = [];
    const plain = await of.count({ explain: (account) => told.push(account) });
    expect([plain, told.map(checked).length, await of.count({ explain: false })]).toEqual([COUNT, 1, COUNT]);
    const wrong = of.get(7, { explain: "yes" as never });
    expect(await Promise.resolve(wrong).then(() => "ok", codeOf)).toBe("ERR_INVALID_ARGUMENT");
  });

  it("a list that takes several plans has one account", async () => {
    const of = collection() as VectorCollection;
    const ids = Array.from({ length: COUNT }, (_, id) => id);
    const { value, explain } = await of.getMany(ids, { explain: true });
    expect(value.map((document) => document?.id)).toEqual(ids);
    expect(checked(explain).outcomes.length, "its answer fits no reply").toBeGreaterThan(2);
    expect(explain.outcomes.reduce((sum, { count }) => sum + count, 0)).toBe(COUNT);
    const none = await of.getMany([], { explain: true });
    expect(none).toMatchObject({ value: [], explain: { plan: { targets: [] }, attempts: 0, outcomes: [] } });
  });

  it("what is asked for the rest of an answer is part of its account, which is told once", async () => {
    const told: Explanation[] = [];
    const explain = (account: Explanation): number => told.push(account);
    const search = async (options: object): Promise<Explanation | undefined> =>
      (kind === "vectors" ? await docs.search([0, 1], options) : await texts.search("tea", options)).explain;
    const small = checked(await search({ k: 3, explain: true }));
    expect(small.pages).toBeUndefined();
    const large = checked(await search({ k: COUNT, explain }));
    expect(told).toEqual([large]);
    expect(large.pages?.map(({ shard, answered }) => [shard, answered > 0])).toEqual([
      [0, true],
      [1, true],
    ]);
    expect(large.bytes).toBeGreaterThan(100 * COUNT);
    expect(large.outcomes.every(({ serviceUs }) => serviceUs > 0)).toBe(true);
    expect(await search({ k: 3 })).toBeUndefined();
  });
});

it("both phases of a text search, and both parts of a hybrid one, are told at once", async () => {
  const told: unknown[] = [];
  const explain = (account: object): number => told.push(account);
  const byText = await texts.search("tea", { explain });
  expect(told.splice(0)).toEqual([byText.explain]);
  expect(checked(byText.explain?.statistics).outcomes).toHaveLength(2);
  const both = await hybridSearch(texts, docs, { text: "tea", vector: [1, 0] }, { explain });
  expect(told).toEqual([both.explain]);
  checked(both.explain?.vector);
  checked(both.explain?.text);
});
