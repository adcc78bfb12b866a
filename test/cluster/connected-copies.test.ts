/** Other threads that plan for themselves, calls that are open when the cluster closes, and what `explain` tells. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster, VectorCollection } from "../../src/index.ts";
import { codeOf, kill, startCopies, whenAllUp, whenCopiesEqual } from "../support/copies.ts";
import { block } from "../support/holds.ts";

const FOUR = (value: number): Float32Array => new Float32Array(4).fill(value);
/** How a call may end while shards die: the last two where one is long in coming back. */
const TYPED = new Set(["ok", "ERR_WORKER_LOST", "ERR_QUORUM", "ERR_TIMEOUT", "ERR_UNAVAILABLE"]);
const OPTIONS = { dimensions: 4, metric: "l2" } as const;

interface Told {
  readonly acked: ReadonlyMap<string, number>;
  readonly tried: ReadonlyMap<string, number>;
  readonly codes: Readonly<Record<string, number>>;
  readonly wrong: readonly string[];
}

async function startThread(cluster: Cluster, name: string): Promise<Worker> {
  const { transferList, ...port } = await cluster.port();
  return new Worker(new URL("./copies.worker.js", import.meta.url), {
    workerData: { port, name },
    transferList: [...transferList],
  });
}

describe("connected threads", () => {
  it("read their own writes and lose none, while workers die and states change", async () => {
    const cluster = await startCopies();
    const docs = await cluster.vectors("docs", OPTIONS);
    const threads = [await startThread(cluster, "a"), await startThread(cluster, "b")];
    try {
      await Promise.all(threads.map((thread) => once(thread, "message")));
      for (const shard of [0, 1, 2]) {
        cluster.drain((shard + 1) % 3);
        await kill(cluster, shard);
        cluster.resume((shard + 1) % 3);
        await whenAllUp(cluster);
      }
      const told = threads.map(async (thread) => {
        const message = once(thread, "message");
        thread.postMessage("stop");
        return (await message)[0] as Told;
      });
      const all = await Promise.all(told);
      const copies = await whenCopiesEqual(cluster, docs);
      for (const { acked, tried, codes, wrong } of all) {
        expect(wrong).toEqual([]);
        expect(codes["ok"]).toBeGreaterThan(10);
        expect(Object.keys(codes).filter((code) => !TYPED.has(code))).toEqual([]);
        for (const [id, value] of tried) {
          const held = copies.get(id) ?? 0;
          expect(held, id).toBeGreaterThanOrEqual(acked.get(id) ?? 0);
          expect(held, id).toBeLessThanOrEqual(value);
        }
      }
    } finally {
      await Promise.all(threads.map((thread) => thread.terminate()));
      await cluster.close();
    }
  });
});

describe("a cluster that closes", () => {
  it("ends what waits for copies, shards and hedges with ERR_CLOSED, at once", async () => {
    const cluster = await startCopies({ replicationFactor: 2, maxHandlerMs: 60_000, requestTimeoutMs: 60_000 });
    const docs = await cluster.vectors("docs", OPTIONS);
    await docs.upsert(
      Array.from({ length: 60 }, (_, id) => ({ id, vector: FOUR(id) })),
      { acks: "all" },
    );
    const blocked = await block(cluster, 1, 30_000);
    const session = cluster.session();
    const open = [
      ...Array.from({ length: 10 }, (_, at) => docs.get(at, { consistency: "strong" })),
      docs.search(FOUR(1), { consistency: "strong" }),
      docs.search(FOUR(1), { consistency: "eventual", strategy: "round-robin" }),
      docs.count({ consistency: "bounded-staleness", maxStalenessMs: 0 }),
      docs.upsert(
        Array.from({ length: 60 }, (_, id) => ({ id, vector: FOUR(id) })),
        { acks: "all", session },
      ),
      docs.delete([1, 2, 3, 4, 5, 6], { acks: "all" }),
    ];
    const settled = Promise.allSettled(open);
    const began = performance.now();
    const closing = cluster.close({ timeoutMs: 60_000 });
    for (const outcome of await settled)
      if (outcome.status === "rejected") expect(codeOf(outcome.reason)).toBe("ERR_CLOSED");
    expect(performance.now() - began, "before the block has ended").toBeLessThan(15_000);
    void blocked.release().catch(() => undefined);
    await closing;
    await expect(docs.count()).rejects.toMatchObject({ code: "ERR_CLOSED" });
  });
});

describe("explain", () => {
  let cluster: Cluster;
  let docs: VectorCollection;
  beforeAll(async () => {
    cluster = await startCopies({ maxHandlerMs: 60_000 });
    docs = await cluster.vectors("docs", OPTIONS);
    await docs.upsert(
      Array.from({ length: 100 }, (_, id) => ({ id, vector: FOUR(id) })),
      { acks: "all" },
    );
  });
  afterAll(() => cluster.close());

  it("gives the plan, and each part's outcome with its times and bytes", async () => {
    const { topology } = cluster;
    const { explain, completeness } = await docs.search(FOUR(1), { k: 5, consistency: "strong", explain: true });
    if (explain === undefined) throw new Error("no explanation");
    expect(explain.plan).toMatchObject({
      kind: "scatter",
      consistency: "strong",
      topologyEpoch: topology.topologyEpoch,
      unavailable: [],
    });
    for (const { shard, vshards } of explain.plan.targets)
      for (const vshard of vshards) expect(topology.owners[vshard]).toBe(shard);
    expect(explain.plan.targets.flatMap(({ vshards }) => vshards).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 16 }, (_, vshard) => vshard),
    );
    expect(explain.outcomes).toEqual(completeness.outcomes);
    expect(explain.outcomes).toHaveLength(3);
    expect(explain.attempts).toBe(3);
    expect(explain.planUs).toBeGreaterThan(0);
    for (const { shard, servedBy, attempts, hedges, serviceUs, latencyUs, bytes, count } of explain.outcomes) {
      expect(servedBy).toEqual([shard]);
      expect([attempts, hedges]).toEqual([1, 0]);
      expect(serviceUs).toBeGreaterThan(0);
      expect(latencyUs).toBeGreaterThan(serviceUs);
      expect(latencyUs).toBeLessThanOrEqual(explain.totalUs + 1_000);
      expect(bytes).toBeGreaterThan(0);
      expect(count).toBeLessThanOrEqual(5);
    }
    expect((await docs.search(FOUR(1), { k: 5 })).explain).toBeUndefined();
  });

  it("tells queueing apart from service, and a second attempt from the first", async () => {
    const blocked = await block(cluster, 1, 20_000);
    const asked = docs.search(FOUR(1), { consistency: "strong", explain: true, timeoutMs: 20_000 });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await blocked.release();
    const { explain } = await asked;
    const outcome = explain?.outcomes.find(({ shard }) => shard === 1);
    expect(outcome?.queueUs).toBeGreaterThan(100_000);
    expect(outcome?.serviceUs).toBeLessThan(outcome?.queueUs as number);
    await whenAllUp(cluster);
    const restarted = kill(cluster, 2);
    const open = Array.from({ length: 20 }, () =>
      docs.search(FOUR(1), { consistency: "eventual", strategy: "random", hedge: false, explain: true }),
    );
    const retried = (await Promise.all(open))
      .flatMap(({ explain: told }) => told?.outcomes ?? [])
      .filter(({ attempts }) => attempts > 1);
    for (const { servedBy, status } of retried) {
      expect(status).toBe("answered");
      expect(servedBy).not.toEqual([]);
    }
    await restarted;
  });

  it("answers in pages are whole, from whichever copy, also while a worker dies", async () => {
    const small = await startCopies({ replyRingBytes: 16 * 1024, requestRingBytes: 64 * 1024 });
    try {
      const large = await small.vectors("large", { dimensions: 64, metric: "l2" });
      const documents = Array.from({ length: 300 }, (_, id) => ({ id, vector: new Float32Array(64).fill(id) }));
      await large.upsert(documents, { acks: "all" });
      const read = { k: 300, exact: true, includeVector: true } as const;
      for (const consistency of ["strong", "eventual", "bounded-staleness"] as const) {
        const { hits } = await large.search(new Float32Array(64), { ...read, consistency });
        expect(hits.map(({ id }) => id)).toEqual(documents.map(({ id }) => id));
      }
      const searches = Array.from({ length: 6 }, () =>
        large.search(new Float32Array(64), { ...read, consistency: "eventual" }),
      );
      const restarted = kill(small, 1);
      const outcomes = await Promise.allSettled(searches);
      for (const outcome of outcomes) {
        if (outcome.status === "fulfilled")
          expect(outcome.value.hits.map(({ id }) => id)).toEqual(documents.map(({ id }) => id));
        else expect(outcome.reason).toBeUndefined();
      }
      await restarted;
    } finally {
      await small.close();
    }
  });
});
