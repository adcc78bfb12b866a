/** Workers that do not come back: others take over what they are primary of, and nothing that a majority had is lost. */
import { afterEach, describe, expect, it } from "vitest";
import type { Cluster, ClusterOptions, VectorCollection } from "../../src/index.ts";
import { eventually } from "../support/cluster.ts";
import { codeOf, kill, startCopies, stateOf, whenCopiesEqual } from "../support/copies.ts";
import { holdStarts } from "../support/gate.ts";
import { Stalls } from "../support/stalls.ts";

const SABOTEUR = new URL("../support/actors.js", import.meta.url);
const TROUBLE = new URL("../support/start-trouble.js", import.meta.url);
const DIMENSIONS = 4;
/** From the death of a worker to the first write that its successors acknowledge. */
const LIMIT_MS = 2_000;

afterEach(() => {
  delete process.env["SHARDLOOM_TEST_START"];
});

function start(options: ClusterOptions = {}): Promise<Cluster> {
  return startCopies({ actors: [SABOTEUR, TROUBLE], requestTimeoutMs: 3_000, ...options });
}

/** An id whose vshard has its primary on a shard now. */
function idOn(cluster: Cluster, shard: number): number {
  for (let id = 0; ; id++) if (cluster.shardOfId(id) === shard) return id;
}

/** Writes one document again and again. */
function startWriter(docs: VectorCollection, id: number) {
  const log = { acknowledged: 0, tried: 0, lastOkMs: 0, longestGapMs: 0, codes: new Set<string>() };
  let running = true;
  const done = (async () => {
    while (running) {
      log.tried++;
      try {
        await docs.upsert({ id, vector: new Float32Array(DIMENSIONS).fill(log.tried) }, { timeoutMs: 400 });
        const nowMs = performance.now();
        if (log.lastOkMs > 0) log.longestGapMs = Math.max(log.longestGapMs, nowMs - log.lastOkMs);
        log.lastOkMs = nowMs;
        log.acknowledged = log.tried;
      } catch (error) {
        log.codes.add(codeOf(error));
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
  })();
  const stop = async (): Promise<void> => {
    running = false;
    await done;
  };
  return { log, stop };
}

async function readOne(docs: VectorCollection, id: number): Promise<number | undefined> {
  return (await docs.get(id))?.vector?.[0];
}

describe("a worker that is given up", () => {
  it("loses its vshards to holders of copies: writes go on, and all that was acknowledged is there", async () => {
    await using cluster = await start();
    await using stalls = await Stalls.begin();
    const docs = await cluster.vectors("docs", { dimensions: DIMENSIONS });
    await docs.upsert(
      Array.from({ length: 200 }, (_, id) => ({ id: 1_000 + id, vector: new Float32Array(DIMENSIONS).fill(id) })),
    );
    const id = idOn(cluster, 1);
    const version = cluster.topology.mapVersion;
    const writer = startWriter(docs, id);
    await eventually("some writes", () => writer.log.acknowledged > 20);
    process.env["SHARDLOOM_TEST_START"] = "fail";
    const down = new Promise<void>((resolve) => cluster.once("worker-down", () => resolve()));
    void kill(cluster, 1);
    await down;
    const before = writer.log.acknowledged;
    await eventually("writes go on", () => writer.log.acknowledged > before + 20);
    await writer.stop();
    expect(writer.log.longestGapMs).toBeLessThan(LIMIT_MS + stalls.totalMs);
    expect(cluster.topology.mapVersion).toBeGreaterThan(version);
    expect([...cluster.topology.owners].includes(1)).toBe(false);
    expect(await readOne(docs, id)).toBeGreaterThanOrEqual(writer.log.acknowledged);
    const kept = await docs.getMany(Array.from({ length: 200 }, (_, at) => 1_000 + at));
    expect(kept.map((row) => row?.vector?.[0])).toEqual(Array.from({ length: 200 }, (_, at) => at));
    expect(stateOf(cluster, 1)).toBe("down");
  });

  it("keeps them where there is one copy only", async () => {
    await using cluster = await start({ replicationFactor: 1, vshards: 8 });
    const docs = await cluster.vectors("docs", { dimensions: DIMENSIONS });
    const id = idOn(cluster, 1);
    process.env["SHARDLOOM_TEST_START"] = "fail";
    const down = new Promise<void>((resolve) => cluster.once("worker-down", () => resolve()));
    void kill(cluster, 1);
    await down;
    await new Promise((resolve) => setTimeout(resolve, 800));
    expect(cluster.shardOfId(id)).toBe(1);
    const late = docs.upsert({ id, vector: new Float32Array(DIMENSIONS) }, { timeoutMs: 500 });
    await expect(late).rejects.toMatchObject({ code: expect.stringMatching(/ERR_/) });
  });
});

describe("a worker that comes back late", () => {
  it("is a copy then, which its successors fill, and gets its vshards back when it is level", async () => {
    await using cluster = await start();
    await using stalls = await Stalls.begin();
    const docs = await cluster.vectors("docs", { dimensions: DIMENSIONS });
    const id = idOn(cluster, 2);
    const owners = [...cluster.topology.owners];
    const writer = startWriter(docs, id);
    await eventually("some writes", () => writer.log.acknowledged > 20);
    const version = cluster.topology.mapVersion;
    const letStart = holdStarts();
    const back = kill(cluster, 2);
    await eventually("others take over", () => cluster.topology.mapVersion > version);
    expect([...cluster.topology.owners].includes(2)).toBe(false);
    const { acknowledged } = writer.log;
    await eventually("writes go on", () => writer.log.acknowledged > acknowledged + 20);
    letStart();
    await back;
    await eventually("it has its vshards again", () => [...cluster.topology.owners].join() === owners.join(), 20_000);
    const then = writer.log.acknowledged;
    await eventually("writes go on", () => writer.log.acknowledged > then + 20);
    await writer.stop();
    expect(writer.log.longestGapMs).toBeLessThan(LIMIT_MS + stalls.totalMs);
    const held = await whenCopiesEqual(cluster, docs);
    expect(held.get(id)).toBeGreaterThanOrEqual(writer.log.acknowledged);
  });
});
