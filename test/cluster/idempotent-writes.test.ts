/** Writes with keys over real threads: workers die between applying a write and answering it, and clients come again. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster, TextCollection, VectorCollection } from "../../src/index.ts";
import { vshardOfId } from "../../src/topology/snapshot.ts";
import { eventually } from "../support/cluster.ts";
import {
  codeOf,
  kill as killShard,
  SABOTAGES,
  type Sabotage,
  seeded,
  startCopies,
  whenAllUp,
  whenCopiesEqual,
} from "../support/copies.ts";
import { block as blockShard, type Hold } from "../support/holds.ts";

const long = process.env["SHARDLOOM_LONG"] === "1";
const OPTIONS = { dimensions: 4, metric: "l2" } as const;
const FOUR = (value: number): Float32Array => new Float32Array(4).fill(value);
const rejections: unknown[] = [];
const note = (reason: unknown): void => void rejections.push(reason);
beforeAll(() => void process.on("unhandledRejection", note));
afterAll(() => {
  process.off("unhandledRejection", note);
  expect(rejections).toEqual([]);
});

/** What the primary shows, settled or not. */
const FRESH = { consistency: "bounded-staleness", maxStalenessMs: 1 } as const;

/** The shard, or another one when it is the primary of nothing since its worker died. */
function serving(cluster: Cluster, shard: number): number {
  const { owners } = cluster.topology;
  return owners.includes(shard) ? shard : (owners[shard % owners.length] as number);
}

function block(cluster: Cluster, shard: number, milliseconds: number): Promise<Hold> {
  return blockShard(cluster, serving(cluster, shard), milliseconds);
}

function kill(cluster: Cluster, shard: number, sabotage: Sabotage = "exit"): Promise<void> {
  return killShard(cluster, serving(cluster, shard), sabotage);
}

/** An id whose primary is the shard. */
function idOn(cluster: Cluster, wanted: number, salt: string): string {
  const shard = serving(cluster, wanted);
  for (let at = 0; ; at++) if (cluster.shardOfId(`${salt}${at}`) === shard) return `${salt}${at}`;
}

async function failure(call: Promise<unknown>): Promise<string> {
  return call.then(() => "ok", codeOf);
}

/** In short runs none, and one or two more, by the seed of the run. */
const COPIES = long ? [1, 2, 3] : [1, 2 + (Number(process.env["SEED"] ?? 1) % 2)];

describe.each(COPIES)("with %i copies", (replicationFactor) => {
  let cluster: Cluster;
  let docs: VectorCollection;
  let texts: TextCollection;
  beforeAll(async () => {
    cluster = await startCopies({ replicationFactor, maxHandlerMs: 60_000 });
    docs = await cluster.vectors("docs", OPTIONS);
    texts = await cluster.text("texts", {});
  });
  afterAll(() => cluster.close());

  it("a repetition does nothing and is answered as the first one, also by the next workers", async () => {
    const ids = [0, 1, 2].map((shard) => idOn(cluster, shard, `rep-${shard}-`));
    const batch = ids.map((id) => ({ id, vector: FOUR(1) }));
    const call = { idempotencyKey: "rep/ä", acks: "all" } as const;
    const first = await docs.upsert(batch, call);
    expect(first).toEqual({ written: 3, inserted: 3 });
    const told = await texts.upsert(
      ids.map((id) => ({ id, text: "one" })),
      call,
    );
    expect(told).toEqual({ written: 3, inserted: 3 });
    await docs.upsert({ id: ids[0] as string, vector: FOUR(2) });
    await docs.delete(ids[1] as string);
    await texts.upsert({ id: ids[0] as string, text: "two" });
    for (let round = 0; round < 2; round++) {
      expect(await docs.upsert(batch, call)).toEqual(first);
      expect(
        await texts.upsert(
          ids.map((id) => ({ id, text: "one" })),
          call,
        ),
      ).toEqual(told);
      expect((await docs.getMany(ids)).map((found) => found?.vector?.[0])).toEqual([2, undefined, 1]);
      expect((await texts.getMany(ids)).map((found) => found?.fields?.["text"])).toEqual(["two", "one", "one"]);
      const shards = new Set([0, 1, 2].map((shard) => serving(cluster, shard)));
      await Promise.all([...shards].map((shard) => kill(cluster, shard)));
      await whenAllUp(cluster);
    }
  });

  it("a repeated delete leaves what was written after it", async () => {
    const ids = Array.from({ length: 12 }, (_, at) => `del-${at}`);
    const key = { idempotencyKey: "delete them" };
    await docs.upsert(ids.slice(0, 8).map((id) => ({ id, vector: FOUR(1) })));
    await texts.upsert(ids.slice(0, 8).map((id) => ({ id, text: "one" })));
    expect(await docs.delete([...ids, "del-0"], key)).toBe(8);
    expect(await texts.delete([...ids, "del-0"], key)).toBe(8);
    await docs.upsert(ids.slice(6).map((id) => ({ id, vector: FOUR(2) })));
    await texts.upsert(ids.slice(6).map((id) => ({ id, text: "two" })));
    await kill(cluster, 1);
    expect(await docs.delete([...ids, "del-0"], key)).toBe(8);
    expect(await texts.delete([...ids, "del-0"], key)).toBe(8);
    expect((await docs.getMany(ids)).filter((found) => found !== undefined)).toHaveLength(6);
    expect((await texts.getMany(ids)).filter((found) => found !== undefined)).toHaveLength(6);
  });

  it("a batch of many requests is answered whole, however often it comes, and what it met half done is done once", async () => {
    const batch = Array.from({ length: 1_500 }, (_, at) => ({
      id: `many-${at}`,
      vector: FOUR(1),
      payload: { text: "x".repeat(at % 700) },
    }));
    const key = { idempotencyKey: "many", acks: "all", timeoutMs: 20_000 } as const;
    const blocked = await block(cluster, 1, 20_000);
    expect(["ERR_TIMEOUT", "ERR_QUORUM"]).toContain(await failure(docs.upsert(batch, { ...key, timeoutMs: 300 })));
    await blocked.release();
    const there = (await docs.getMany(batch.map(({ id }) => id))).filter((found) => found !== undefined).length;
    const overwritten = idOn(cluster, 0, "many-");
    const hadIt = (await docs.get(overwritten)) !== undefined;
    if (hadIt) await docs.upsert({ id: overwritten, vector: FOUR(9) });
    expect(await docs.upsert(batch, key)).toEqual({ written: 1_500, inserted: 1_500 });
    expect(await docs.upsert(batch, key)).toEqual({ written: 1_500, inserted: 1_500 });
    expect((await docs.get(overwritten))?.vector?.[0]).toBe(hadIt ? 9 : 1);
    expect(await docs.delete(batch.map(({ id }) => id))).toBe(1_500);
    if (process.env["VERBOSE"]) process.stderr.write(`${there} of 1500 were there after the first attempt\n`);
  });

  it.each(SABOTAGES)(
    "workers that die by %s under load: every write ends well, and was done once",
    async (sabotage) => {
      const { seed } = seeded(21);
      // A cluster of its own: a shard that dies more than eight times in a minute is given up.
      await using own = await startCopies({ replicationFactor, maxHandlerMs: 500 });
      const documents = await own.vectors("docs", OPTIONS);
      let running = true;
      const answers = { upserts: 0, deletes: 0, wrong: [] as string[] };
      const call = (key: string) => ({ idempotencyKey: key, acks: "all", timeoutMs: 15_000 }) as const;
      const writers = Array.from({ length: 3 }, async (_, writer) => {
        for (let round = 0; running; round++) {
          const ids = Array.from({ length: 5 }, (_, at) => `${sabotage}-${writer}-${round}-${at}`);
          const name = `${sabotage} ${writer} ${round}`;
          const up = await documents.upsert(
            ids.map((id) => ({ id, vector: FOUR(round) })),
            call(name),
          );
          if (up.inserted !== 5 || up.written !== 5) answers.wrong.push(`${name}: ${JSON.stringify(up)}`);
          answers.upserts++;
          if (round % 2 === 0) continue;
          const gone = await documents.delete(ids, call(name));
          if (gone !== 5) answers.wrong.push(`${name}: deleted ${gone}`);
          answers.deletes++;
        }
      });
      for (let round = 0; round < (long ? 12 : 3); round++) {
        const before = answers.upserts;
        await kill(own, round % 3, sabotage);
        await eventually("writes go on", () => answers.upserts > before + 10);
      }
      running = false;
      await Promise.all(writers);
      expect(answers.wrong, `seed ${seed}`).toEqual([]);
      expect(answers.deletes).toBeGreaterThan(5);
      await whenAllUp(own);
      if (replicationFactor === 3) await whenCopiesEqual(own, documents);
    },
  );
});

describe("a primary that dies between applying a write and answering it", () => {
  it("is asked again by the client itself; the write was done once, and what came after it stays", async () => {
    const cluster = await startCopies({ replicationFactor: 2, maxHandlerMs: 60_000 });
    try {
      const docs = await cluster.vectors("docs", OPTIONS);
      const id = idOn(cluster, 0, "a");
      await docs.upsert({ id, vector: FOUR(1) }, { acks: "all" });
      const before = (await docs.get(id))?.version as number;
      const copy = cluster.topology.copies[2 * vshardOf(cluster, id) + 1] as number;
      const blocked = await block(cluster, copy, 20_000);
      const write = docs.upsert({ id, vector: FOUR(2) }, { acks: "all", idempotencyKey: "k", timeoutMs: 15_000 });
      // The primary shows it, and waits for the copy.
      await eventually("it is applied", async () => {
        const found = await docs.get(id, FRESH);
        return found?.vector?.[0] === 2;
      });
      const applied = (await docs.get(id, FRESH))?.version as number;
      expect(applied).toBeGreaterThan(before);
      const lost = failure(
        docs.upsert({ id: idOn(cluster, 0, "b"), vector: FOUR(1) }, { acks: "all", timeoutMs: 15_000 }),
      );
      const restarted = kill(cluster, 0);
      expect(await lost, "without a key it is in doubt").toBe("ERR_WORKER_LOST");
      await blocked.release();
      await restarted;
      expect(await write).toEqual({ written: 1, inserted: 0 });
      expect((await docs.get(id))?.version, "not written again").toBe(applied);
      await docs.upsert({ id, vector: FOUR(3) });
      expect(await docs.upsert({ id, vector: FOUR(2) }, { idempotencyKey: "k" })).toEqual({ written: 1, inserted: 0 });
      expect((await docs.get(id))?.vector?.[0]).toBe(3);
    } finally {
      await cluster.close();
    }
  });

  it("leaves a write that its copies miss: a repetition waits for them, and its session sees it", async () => {
    const cluster = await startCopies({ replicationFactor: 3, maxHandlerMs: 60_000, requestTimeoutMs: 20_000 });
    try {
      const docs = await cluster.vectors("docs", OPTIONS);
      const id = idOn(cluster, 0, "w");
      const blocked = await block(cluster, 2, 20_000);
      const key = { idempotencyKey: "once" };
      await docs.upsert({ id, vector: FOUR(1) }, { ...key, acks: "one" });
      const session = cluster.session();
      let isDone = false;
      const again = docs.upsert({ id, vector: FOUR(1) }, { ...key, acks: "all", session }).then(() => {
        isDone = true;
      });
      await new Promise((resolve) => setTimeout(resolve, 250));
      expect(isDone, "it waits for the blocked copy").toBe(false);
      await blocked.release();
      await again;
      expect(session.lsnOf(vshardOf(cluster, id))).toBeGreaterThan(0);
      expect((await docs.get(id, { session }))?.version).toBe((await docs.get(id))?.version);
    } finally {
      await cluster.close();
    }
  });
});

describe("a key", () => {
  let cluster: Cluster;
  let docs: VectorCollection;
  let texts: TextCollection;
  beforeAll(async () => {
    cluster = await startCopies({ replicationFactor: 1, workers: 2 });
    docs = await cluster.vectors("docs", OPTIONS);
    texts = await cluster.text("texts", {});
  });
  afterAll(() => cluster.close());

  it.each([
    ["empty", "", /must be in \[1, 256\] bytes: current value is 0/],
    ["too long", "ä".repeat(129), /must be in \[1, 256\] bytes: current value is 258/],
    ["no text", 7, /must be text/],
    ["ill-formed", "\ud800", /well-formed/],
  ])("that is %s is refused, and nothing is written", async (_, key, message) => {
    const options = { idempotencyKey: key as string };
    const vector = { id: "x", vector: FOUR(1) };
    for (const write of [
      () => docs.upsert(vector, options),
      () => docs.delete("x", options),
      () => texts.upsert({ id: "x", text: "x" }, options),
      () => texts.delete("x", options),
    ]) {
      const error: unknown = await write().catch((cause: unknown) => cause);
      expect(codeOf(error)).toBe("ERR_INVALID_ARGUMENT");
      expect((error as Error).message).toMatch(message);
    }
    expect(await docs.count()).toBe(0);
    expect(await texts.count()).toBe(0);
  });

  it("of 256 bytes is taken; an iterable has none; other documents under it are refused", async () => {
    const long256 = { idempotencyKey: "k".repeat(256) };
    expect(await docs.upsert({ id: "x", vector: FOUR(1) }, long256)).toEqual({ written: 1, inserted: 1 });
    expect(await docs.upsert({ id: "x", vector: FOUR(1) }, long256)).toEqual({ written: 1, inserted: 1 });
    const many = new Set([1, 2].map((id) => ({ id, vector: FOUR(1) })));
    expect(await failure(docs.upsert(many, { idempotencyKey: "k" }))).toBe("ERR_INVALID_ARGUMENT");
    const same = { idempotencyKey: "same" };
    const ids = Array.from({ length: 64 }, (_, id) => id);
    await docs.delete(ids, same);
    expect(await failure(docs.delete([...ids, ...ids.map((id) => id + 64)], same))).toBe("ERR_INVALID_ARGUMENT");
  });
});

function vshardOf(cluster: Cluster, id: string): number {
  return vshardOfId(cluster.topology, id);
}
