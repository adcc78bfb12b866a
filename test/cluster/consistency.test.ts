/** What each consistency and each policy does when copies are blocked, behind or gone. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster, VectorCollection } from "../../src/index.ts";
import { vshardOfId } from "../../src/topology/snapshot.ts";
import { eventually } from "../support/cluster.ts";
import { codeOf, kill, startCopies, stateOf, whenAllUp, whenCopiesEqual } from "../support/copies.ts";
import { holdStarts } from "../support/gate.ts";
import { block } from "../support/holds.ts";

const FOUR = (value: number): Float32Array => new Float32Array(4).fill(value);
const OPTIONS = { dimensions: 4, metric: "l2" } as const;
/** For how long a copy is blocked at most: it is let go as soon as the test knows what it wants to. Calls end long before. */
const BLOCK_MS = 20_000;
/** What is not waiting for the blocked copy takes less than this, on any machine. */
const PROMPT_MS = 4_000;
const ACTORS = ["actors", "start-trouble"].map((name) => new URL(`../support/${name}.js`, import.meta.url));

/** An id whose primary is the shard. */
function idOn(cluster: Cluster, shard: number, salt = ""): string {
  for (let at = 0; ; at++) if (cluster.shardOfId(`${salt}${at}`) === shard) return `${salt}${at}`;
}

async function failure(call: Promise<unknown>): Promise<string> {
  return call.then(() => "ok", codeOf);
}

async function elapsedMs(call: Promise<unknown>): Promise<number> {
  const began = performance.now();
  await call.catch(() => undefined);
  return performance.now() - began;
}

/** Reads with the primary dead and its only replica blocked and behind. */
async function readWithoutPrimary(): Promise<void> {
  const twoCopies = await startCopies({ replicationFactor: 2, maxHandlerMs: 60_000, actors: ACTORS });
  const letStart = holdStarts();
  try {
    const two = await twoCopies.vectors("docs", OPTIONS);
    const key = idOn(twoCopies, 0);
    const replica = twoCopies.topology.copies[2 * vshardOfId(twoCopies.topology, key) + 1] as number;
    await two.upsert({ id: key, vector: FOUR(1) }, { acks: "all" });
    const blocked = await block(twoCopies, replica, BLOCK_MS);
    const session = twoCopies.session();
    await two.upsert({ id: key, vector: FOUR(2) }, { acks: "one", session });
    const restarted = kill(twoCopies, 0);
    await eventually("the primary is gone", () => stateOf(twoCopies, 0) !== "up");
    const stale = { consistency: "bounded-staleness", maxStalenessMs: 1 } as const;
    const began = performance.now();
    const waited = Promise.all([two.get(key, stale), two.get(key, { session })]);
    const failures = [
      await failure(two.get(key, { ...stale, unavailable: "fail" })),
      await failure(two.get(key, { session, unavailable: "fail" })),
      await failure(two.get(key, { consistency: "strong", unavailable: "fail" })),
    ];
    const tookMs = performance.now() - began;
    expect([stateOf(twoCopies, 0) === "up", blocked.isOn], "all that was while both were gone").toEqual([false, true]);
    expect(failures).toEqual(["ERR_STALE_REPLICA", "ERR_STALE_REPLICA", "ERR_UNAVAILABLE"]);
    expect(tookMs, "failed at once").toBeLessThan(PROMPT_MS);
    letStart();
    await blocked.release();
    for (const document of await waited) expect(document?.vector).toEqual(FOUR(2));
    await restarted;
  } finally {
    letStart();
    await twoCopies.close();
  }
}

describe("a blocked replica", () => {
  let cluster: Cluster;
  let docs: VectorCollection;
  beforeAll(async () => {
    // Nobody takes the blocked one for dead: what is looked at is what reads do beside it.
    cluster = await startCopies({ maxHandlerMs: 60_000, suspectMs: 60_000, downMs: 120_000 });
    docs = await cluster.vectors("docs", OPTIONS);
    await docs.upsert(
      Array.from({ length: 200 }, (_, id) => ({ id, vector: FOUR(id) })),
      { acks: "all" },
    );
    for (let round = 0; round < 150; round++)
      await docs.search(FOUR(1), { consistency: "eventual", strategy: "random" });
  });
  afterAll(() => cluster.close());

  it("is not read under a bound that it exceeds, nor by a session that is ahead of it", async () => {
    const id = idOn(cluster, 0);
    await docs.upsert({ id, vector: FOUR(1) }, { acks: "all" });
    const blocked = await block(cluster, 2, BLOCK_MS);
    const session = cluster.session();
    const writtenAt = performance.now();
    await docs.upsert({ id, vector: FOUR(2) }, { acks: "one", session });
    await eventually("the bound has passed", () => performance.now() - writtenAt > 60);
    for (const strategy of ["random", "round-robin", "power-of-two", "least-connections"] as const) {
      for (let round = 0; round < 10; round++) {
        const bounded = await docs.get(id, { consistency: "bounded-staleness", maxStalenessMs: 50, strategy });
        expect(bounded?.vector).toEqual(FOUR(2));
        expect((await docs.get(id, { session, strategy }))?.vector).toEqual(FOUR(2));
        expect((await docs.get(id, { consistency: "strong", strategy }))?.vector).toEqual(FOUR(2));
      }
    }
    expect(blocked.isOn, "before the block has ended").toBe(true);
    await blocked.release();
  });

  it("is refused typed under a bound when the primary is gone too, and waited for when the read waits", () =>
    readWithoutPrimary());

  it("holds up no write that needs only a quorum, and fails one that needs it with ERR_QUORUM within the deadline", async () => {
    const blocked = await block(cluster, 1, BLOCK_MS);
    const id = idOn(cluster, 0, "quorum");
    expect(await elapsedMs(docs.upsert({ id, vector: FOUR(1) }, { acks: "quorum" }))).toBeLessThan(PROMPT_MS);
    expect(await elapsedMs(docs.upsert({ id, vector: FOUR(2) }, { acks: 2 }))).toBeLessThan(PROMPT_MS);
    expect(blocked.isOn).toBe(true);
    const began = performance.now();
    for (const acks of ["all", 3] as const)
      await expect(docs.upsert({ id, vector: FOUR(3) }, { acks, timeoutMs: 250 })).rejects.toMatchObject({
        code: "ERR_QUORUM",
        details: { acks: 3 },
      });
    await expect(docs.delete(id, { acks: "all", timeoutMs: 250 })).rejects.toMatchObject({ code: "ERR_QUORUM" });
    expect(performance.now() - began).toBeLessThan(3 * 250 + PROMPT_MS);
    expect(blocked.isOn).toBe(true);
    await blocked.release();
    const copies = await whenCopiesEqual(cluster, docs);
    expect(copies.has(id), "in doubt means that it may well have been done").toBe(false);
  });

  it("keeps strong reads waiting that would show what it must have and has not", async () => {
    const id = idOn(cluster, 0);
    const replica = cluster.topology.copies[cluster.topology.replicationFactor * vshardOfId(cluster.topology, id) + 1];
    await docs.upsert({ id, vector: FOUR(1) }, { acks: "all" });
    const blocked = await block(cluster, replica as number, BLOCK_MS);
    const order: string[] = [];
    const written = docs.upsert({ id, vector: FOUR(2) }, { acks: "all" }).then(() => order.push("written"));
    // Strong reads of what is being acknowledged: none of them may be answered first.
    const read = docs.get(id, { consistency: "strong" }).then((found) => {
      order.push("read");
      return found;
    });
    // One of another vshard waits for nothing.
    const vshard = vshardOfId(cluster.topology, id);
    const other = Array.from({ length: 1_000 }, (_, at) => at).find(
      (at) => cluster.shardOfId(at) === 0 && vshardOfId(cluster.topology, at) !== vshard,
    ) as number;
    await docs.get(other, { consistency: "strong" });
    const impatient = await failure(docs.get(id, { consistency: "strong", timeoutMs: 100, maxAttempts: 1 }));
    expect(order, "nothing was answered while the copy was missing").toEqual([]);
    expect(["ERR_UNAVAILABLE", "ERR_TIMEOUT"]).toContain(impatient);
    expect(blocked.isOn).toBe(true);
    await Promise.all([written, blocked.release()]);
    expect((await read)?.vector).toEqual(FOUR(2));
    expect(order.toSorted()).toEqual(["read", "written"]);
  });

  it("is outrun: eventual reads are hedged and answered well before the block ends", async () => {
    await whenAllUp(cluster);
    for (let round = 0; round < 200; round++) await docs.get(1, { consistency: "eventual", strategy: "round-robin" });
    const before = cluster.routerStats();
    const blocked = await block(cluster, 2, BLOCK_MS);
    const calls = Array.from({ length: 6 }, () =>
      docs.search(FOUR(3), { k: 1, consistency: "eventual", strategy: "random" }),
    );
    for (const { hits } of await Promise.all(calls)) expect(hits[0]?.id).toBe(3);
    expect(blocked.isOn).toBe(true);
    const after = cluster.routerStats();
    expect(after.hedges - before.hedges + after.retries - before.retries).toBeGreaterThan(0);
    await blocked.release();
  });

  it("without a hedge a read of it waits for it", async () => {
    await whenAllUp(cluster);
    const blocked = await block(cluster, 2, BLOCK_MS);
    let answered = 0;
    const calls = Array.from({ length: 12 }, () =>
      docs
        .search(FOUR(3), { k: 1, consistency: "eventual", strategy: "round-robin", hedge: false, timeoutMs: BLOCK_MS })
        .then(() => answered++),
    );
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(answered).toBeLessThan(calls.length);
    await blocked.release();
    await Promise.all(calls);
  });
});

describe("a dead primary", () => {
  let cluster: Cluster;
  let docs: VectorCollection;
  const ids = Array.from({ length: 120 }, (_, id) => id);
  beforeAll(async () => {
    cluster = await startCopies({ replicationFactor: 1, maxHandlerMs: 60_000, actors: ACTORS });
    docs = await cluster.vectors("docs", OPTIONS);
    await docs.upsert(ids.map((id) => ({ id, vector: FOUR(id), payload: { id } })));
  });
  afterAll(() => cluster.close());

  it("each policy does what it says: fail, leave out and say so, wait", async () => {
    const lost = ids.filter((id) => cluster.shardOfId(id) === 1);
    const letStart = holdStarts();
    const restarted = kill(cluster, 1);
    await eventually("shard 1 is gone", () => stateOf(cluster, 1) !== "up");
    const query = { k: 200, exact: true } as const;
    const waiting = [docs.search(FOUR(0), { ...query, unavailable: "wait" }), docs.search(FOUR(0), query)];
    const count = docs.count({ unavailable: "wait" });
    const outcomes = await Promise.all([
      failure(docs.search(FOUR(0), { ...query, unavailable: "fail" })),
      failure(docs.count({ unavailable: "fail" })),
      failure(docs.get(lost[0] as number, { unavailable: "fail" })),
    ]);
    const partial = await docs.search(FOUR(0), { ...query, unavailable: "partial", explain: true });
    expect(stateOf(cluster, 1), "all that was while it was gone").not.toBe("up");
    expect(outcomes).toEqual(["ERR_UNAVAILABLE", "ERR_UNAVAILABLE", "ERR_UNAVAILABLE"]);
    expect(partial.hits).toHaveLength(ids.length - lost.length);
    expect(partial.hits.filter(({ id }) => lost.includes(id as number))).toEqual([]);
    expect(partial.completeness).toMatchObject({ complete: false, unavailable: 1, answered: 2 });
    expect(partial.completeness.vshards.answered).toBeLessThan(partial.completeness.vshards.planned);
    expect(partial.explain?.plan.unavailable).toMatchObject([{ reason: "down" }]);
    expect((await docs.get(ids.find((id) => !lost.includes(id)) as number, { unavailable: "fail" }))?.id).toBeDefined();
    letStart();
    for (const { hits, completeness } of await Promise.all(waiting)) {
      expect(hits).toHaveLength(ids.length);
      expect(completeness.complete).toBe(true);
    }
    expect(await count).toBe(ids.length);
    await restarted;
  });

  it("a wait ends at its deadline, typed, or when its signal fires", async () => {
    await whenAllUp(cluster);
    const letStart = holdStarts();
    const restarted = kill(cluster, 1);
    await eventually("shard 1 is gone", () => stateOf(cluster, 1) !== "up");
    const controller = new AbortController();
    const aborted = failure(docs.search(FOUR(0), { signal: controller.signal }));
    const late = docs.search(FOUR(0), { timeoutMs: 20 });
    controller.abort();
    expect(await aborted).toBe("ERR_ABORTED");
    expect(["ERR_UNAVAILABLE", "ERR_TIMEOUT"]).toContain(await failure(late));
    letStart();
    await restarted;
  });

  it("gather: a quorum and best effort answer without the shard and say what is missing", async () => {
    await whenAllUp(cluster);
    const blocked = await block(cluster, 2, BLOCK_MS);
    const search = { k: 200, exact: true, timeoutMs: 1_500 } as const;
    const [quorum, two, best, all] = await Promise.all([
      docs.search(FOUR(0), { ...search, gather: "quorum" }),
      docs.search(FOUR(0), { ...search, gather: { quorum: 2 } }),
      docs.search(FOUR(0), { ...search, gather: "best-effort" }),
      failure(docs.search(FOUR(0), search)),
    ]);
    for (const { hits, completeness } of [quorum, two, best]) {
      expect(completeness).toMatchObject({ planned: 3, answered: 2, complete: false });
      expect(hits.map(({ id }) => id)).toEqual(ids.filter((id) => cluster.shardOfId(id) !== 2));
    }
    expect(best.completeness.timedOut).toBe(1);
    expect(all).toBe("ERR_TIMEOUT");
    await blocked.release();
  });
});
