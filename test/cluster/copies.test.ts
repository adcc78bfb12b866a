/** Reads over copies: whoever answers, under whatever rules, the answer is that of a cluster of one worker. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster, Consistency, PlainReadOptions, Strategy, VectorCollection } from "../../src/index.ts";
import { randomVector, startTestCluster } from "../support/cluster.ts";
import { copyAt, seeded, startCopies, whenCopiesEqual } from "../support/copies.ts";

const long = process.env["SHARDLOOM_LONG"] === "1";
const DIMENSIONS = 8;
const STRATEGIES: Strategy[] = [
  "round-robin",
  "least-connections",
  "random",
  "prefer-local",
  "primary-only",
  "power-of-two",
];
const CONSISTENCIES: Consistency[] = ["strong", "session", "bounded-staleness", "eventual"];

async function load(docs: VectorCollection, ids: readonly number[], seed: number, group: string): Promise<void> {
  const { random } = seeded(seed);
  const documents = ids.map((id) => ({ id, vector: randomVector(random, DIMENSIONS), payload: { group } }));
  await docs.upsert(documents, { acks: "all" });
}

describe.each([2, 3])("%i copies", (replicationFactor) => {
  let cluster: Cluster;
  let single: Cluster;
  let docs: VectorCollection;
  let reference: VectorCollection;
  const stable = Array.from({ length: 400 }, (_, id) => id);
  beforeAll(async () => {
    [cluster, single] = await Promise.all([
      startCopies({ replicationFactor }),
      startTestCluster({ workers: 1, vshards: 16 }),
    ]);
    docs = await cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2" });
    reference = await single.vectors("docs", { dimensions: DIMENSIONS, metric: "l2" });
    await load(docs, stable, 1, "stable");
    await load(reference, stable, 1, "stable");
  });
  afterAll(async () => {
    await cluster.close();
    await single.close();
  });

  const rules = STRATEGIES.flatMap((strategy) => CONSISTENCIES.map((consistency) => [strategy, consistency] as const));

  it.each(rules)("%s, %s: search, count and getMany as one worker has them", async (strategy, consistency) => {
    const { random, seed } = seeded(2);
    const session = cluster.session();
    const options: PlainReadOptions = { strategy, consistency, ...(consistency === "session" ? { session } : {}) };
    for (let round = 0; round < (long ? 500 : 25); round++) {
      const query = randomVector(random, DIMENSIONS);
      const k = 1 + (random.u32() % 50);
      const search = { k, exact: true, filter: { group: "stable" } };
      const [ours, theirs] = await Promise.all([
        docs.search(query, { ...search, ...options }),
        reference.search(query, search),
      ]);
      const place = `seed ${seed}, round ${round}`;
      expect(ours.completeness, place).toMatchObject({ complete: true, vshards: { planned: 16, answered: 16 } });
      expect(
        ours.hits.map(({ id, score }) => [id, score]),
        place,
      ).toEqual(theirs.hits.map(({ id, score }) => [id, score]));
    }
    expect(await docs.count({ ...options, filter: { group: "stable" } })).toBe(stable.length);
    const ids = [...stable, -1, 99_999].sort(() => random.float() - 0.5);
    const [ours, theirs] = await Promise.all([docs.getMany(ids, options), reference.getMany(ids)]);
    expect(ours.map((document) => document?.vector)).toEqual(theirs.map((document) => document?.vector));
  });

  it("asks replicas: reads that may go anywhere do not all go to primaries", async () => {
    const { owners } = cluster.topology;
    const asked = { primary: 0, replica: 0 };
    for (let round = 0; round < 50; round++) {
      const { explain } = await docs.search(new Float32Array(DIMENSIONS), { consistency: "eventual", explain: true });
      for (const { shard, vshards } of explain?.plan.targets ?? [])
        for (const vshard of vshards) asked[owners[vshard] === shard ? "primary" : "replica"]++;
    }
    expect(asked.primary + asked.replica).toBe(50 * 16);
    expect(asked.primary).toBeGreaterThan(80);
    expect(asked.replica).toBeGreaterThan(80);
  });

  it("one-sided readers see each document once", async () => {
    const found = docs
      .reader()
      .scanExact(new Float32Array(DIMENSIONS), 1_000)
      .hits.map(({ id }) => id);
    expect(new Set(found).size).toBe(found.length);
    expect(found.length).toBe(await docs.count());
  });

  it("goes on being right for what is not written while the rest is upserted and deleted", async () => {
    const { random, seed } = seeded(3);
    let writing = true;
    let writes = 0;
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      while (writing) {
        const ids = Array.from({ length: 20 }, (_, at) => 10_000 + 100 * writer + ((at * 7 + writes) % 100));
        const documents = ids.map((id) => ({
          id,
          vector: randomVector(random, DIMENSIONS),
          payload: { group: "moving" },
        }));
        await docs.upsert(documents, { acks: writer % 2 === 0 ? "one" : "quorum" });
        await docs.delete(ids.slice(0, 10));
        writes++;
      }
    });
    try {
      for (let round = 0; round < (long ? 3_000 : 200); round++) {
        const [strategy, consistency] = rules[random.u32() % rules.length] as (typeof rules)[number];
        const session = consistency === "session" ? { session: cluster.session() } : {};
        const query = randomVector(random, DIMENSIONS);
        const options = { k: 30, exact: true, strategy, consistency, ...session } as const;
        const [all, kept, expected] = await Promise.all([
          docs.search(query, { ...options, k: 2_000 }),
          docs.search(query, { ...options, filter: { group: "stable" } }),
          reference.search(query, { k: 30, exact: true }),
        ]);
        const place = `seed ${seed}, round ${round}, ${strategy}, ${consistency}`;
        expect(
          kept.hits.map(({ id, score }) => [id, score]),
          place,
        ).toEqual(expected.hits.map(({ id, score }) => [id, score]));
        const ids = all.hits.map(({ id }) => id as number);
        expect(new Set(ids).size, place).toBe(ids.length);
        expect(ids.filter((id) => id < 10_000).length, place).toBe(stable.length);
        expect(
          all.hits.map(({ score }) => score),
          place,
        ).toEqual(all.hits.map(({ score }) => score).sort((a, b) => a - b));
      }
    } finally {
      writing = false;
      await Promise.all(writers);
    }
    expect(writes).toBeGreaterThan(8);
    await docs.delete(Array.from({ length: 400 }, (_, at) => 10_000 + at));
    expect(await docs.count({ consistency: "strong" })).toBe(stable.length);
    if (replicationFactor === 3) expect((await whenCopiesEqual(cluster, docs)).size).toBe(stable.length);
  });

  it.runIf(replicationFactor === 3)("a write acknowledged by all is on all copies at once", async () => {
    for (let round = 0; round < 20; round++) {
      await docs.upsert({ id: "all", vector: new Float32Array(DIMENSIONS).fill(round) }, { acks: "all" });
      for (let shard = 0; shard < 3; shard++) expect((await copyAt(cluster, docs, shard)).get("all")).toBe(round);
    }
    await docs.delete("all", { acks: "all" });
    for (let shard = 0; shard < 3; shard++) expect((await copyAt(cluster, docs, shard)).has("all")).toBe(false);
  });
});

describe("a session", () => {
  let cluster: Cluster;
  let docs: VectorCollection;
  beforeAll(async () => {
    cluster = await startCopies();
    docs = await cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2" });
  });
  afterAll(() => cluster.close());

  it("sees its own writes at once, on whatever copy it reads, also carried over by its token", async () => {
    let byReplica = 0;
    const loops = Array.from({ length: 8 }, async (_, client) => {
      let session = cluster.session();
      for (let round = 1; round <= (long ? 4_000 : 250); round++) {
        const id = `client-${client}`;
        const vector = new Float32Array(DIMENSIONS).fill(round);
        const strategy = STRATEGIES[round % STRATEGIES.length] as Strategy;
        await docs.upsert({ id, vector }, { acks: "one", session });
        if (round % 50 === 0) session = cluster.session(session.toString());
        const [stored, found] = await Promise.all([
          docs.get(id, { session, strategy }),
          docs.search(vector, { k: 8, exact: true, session, strategy, includeVector: true, explain: true }),
        ]);
        expect(stored?.vector?.[0]).toBe(round);
        expect(found.hits.find((hit) => hit.id === id)?.vector?.[0]).toBe(round);
        expect(found.explain?.plan.consistency).toBe("session");
        if ((found.explain?.outcomes.length ?? 3) < 3) byReplica++;
        if (round % 10 !== 0) continue;
        expect(await docs.delete(id, { acks: "one", session })).toBe(1);
        expect(await docs.get(id, { session, strategy })).toBeUndefined();
      }
    });
    await Promise.all(loops);
    expect(byReplica).toBeGreaterThan(10);
  });
});
