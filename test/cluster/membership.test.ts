/** Members that slow down, block, die, are drained and return: what the cluster says of them, and that calls do not suffer for it. */
import { pbkdf2Sync } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { Cluster, MemberStateName, VectorCollection } from "../../src/index.ts";
import { saboteur } from "../support/actors.ts";
import { eventually, keyOnShard } from "../support/cluster.ts";
import {
  codeOf,
  kill,
  seeded,
  startCopies,
  stateOf,
  whenAllUp,
  whenCopiesEqual,
  whenState,
} from "../support/copies.ts";
import { block } from "../support/holds.ts";
import { Stalls } from "../support/stalls.ts";

const long = process.env["SHARDLOOM_LONG"] === "1";
const FOUR = (value: number): Float32Array => new Float32Array(4).fill(value);
const OPTIONS = { dimensions: 4, metric: "l2" } as const;

/** States that a shard enters from now on. */
function statesOf(cluster: Cluster, shard: number): MemberStateName[] {
  const states: MemberStateName[] = [];
  cluster.on("member-changed", ({ member, to }) => {
    if (member.id === `shard-${shard}`) states.push(to);
  });
  return states;
}

function msOfGrinding(rounds: number): number {
  const began = performance.now();
  pbkdf2Sync("secret", "salt", rounds, 32, "sha512");
  return performance.now() - began;
}

async function filled(cluster: Cluster): Promise<VectorCollection> {
  const docs = await cluster.vectors("docs", OPTIONS);
  await docs.upsert(
    Array.from({ length: 100 }, (_, id) => ({ id, vector: FOUR(id) })),
    { acks: "all" },
  );
  return docs;
}

/** Which shards answer eventual reads now. */
async function servedBy(docs: VectorCollection, rounds = 60): Promise<number[]> {
  const shards = new Set<number>();
  for (let round = 0; round < rounds; round++) {
    const strategy = round % 2 === 0 ? "random" : "round-robin";
    const { completeness } = await docs.search(FOUR(1), { k: 1, consistency: "eventual", strategy, hedge: false });
    for (const outcome of completeness.outcomes) for (const shard of outcome.servedBy) shards.add(shard);
  }
  return [...shards].sort((a, b) => a - b);
}

/** For how long a shard is blocked at most: it is let go when the test has seen enough. */
const BLOCK_MS = 30_000;
/** What a machine with other work takes besides, where no time is promised. */
const SLACK_MS = 1_000;

describe("the failure detector", () => {
  it("suspects a shard that is blocked for 900 ms, reads elsewhere meanwhile, and takes it back by itself", async () => {
    const cluster = await startCopies({ maxHandlerMs: 60_000, suspectMs: 600, downMs: 60_000 });
    try {
      const docs = await filled(cluster);
      const states = statesOf(cluster, 1);
      const blocked = await block(cluster, 1, BLOCK_MS);
      const sinceMs = performance.now();
      await whenState(cluster, 1, "suspect");
      // On a busy machine one of the others may be suspect for a moment, too.
      await eventually("all others are read", async () => (await servedBy(docs, 20)).join() === "0,2");
      await eventually("900 ms are over", () => performance.now() - sinceMs > 900);
      await blocked.release();
      await whenState(cluster, 1, "up");
      expect(states).toEqual(["suspect", "up"]);
      await eventually("all are read", async () => (await servedBy(docs)).join() === "0,1,2");
      expect(cluster.heartbeats()[1]?.incarnation, "nobody replaced it").toBe(1);
    } finally {
      await cluster.close();
    }
  });

  it("takes a shard that is blocked for longer out of service, and back", async () => {
    // Its lease lasts: nobody takes over what it is primary of.
    const limits = { suspectMs: 200, downMs: 400, leaseMs: 60_000 };
    const cluster = await startCopies({ maxHandlerMs: 60_000, ...limits });
    await using stalls = await Stalls.begin();
    try {
      const docs = await filled(cluster);
      const states = statesOf(cluster, 2);
      const began = performance.now();
      const blocked = await block(cluster, 2, BLOCK_MS);
      await whenState(cluster, 2, "down");
      expect(performance.now() - began).toBeLessThan(400 + SLACK_MS + 2 * stalls.totalMs);
      expect(await docs.count({ consistency: "eventual", unavailable: "fail" })).toBe(100);
      await expect(docs.count({ consistency: "strong", unavailable: "fail" })).rejects.toMatchObject({
        code: "ERR_UNAVAILABLE",
      });
      const waiting = docs.count({ consistency: "strong" });
      const id = Array.from({ length: 100 }, (_, at) => at).find((at) => cluster.shardOfId(at) === 2) as number;
      const writing = docs.upsert({ id, vector: FOUR(-1) }, { acks: "all" });
      await blocked.release();
      expect(await waiting).toBe(100);
      await writing;
      await whenState(cluster, 2, "up");
      expect(states).toEqual(["suspect", "down", "up"]);
      expect((await whenCopiesEqual(cluster, docs)).get(id)).toBe(-1);
    } finally {
      await cluster.close();
    }
  });

  it("leaves a shard in a long native call up", async () => {
    const cluster = await startCopies({ suspectMs: 500, downMs: 1_000, maxHandlerMs: 500 });
    try {
      const states = statesOf(cluster, 1); // the others may have to wait for a core on a busy machine
      // By the quickest of some: what a busy machine makes slow here may be quick there.
      const roundMs = Math.min(...Array.from({ length: 5 }, () => msOfGrinding(20_000) / 20_000));
      const rounds = Math.ceil(2_500 / roundMs);
      const calledMs = performance.now();
      await cluster.actor(saboteur, keyOnShard(cluster, saboteur, 1)).grind(rounds, { timeoutMs: 20_000 });
      expect(performance.now() - calledMs, "longer than a silent one has").toBeGreaterThan(600);
      expect(states).toEqual([]);
    } finally {
      await cluster.close();
    }
  });

  it("has a dead worker down within 1.2 s, and tells its way back", async () => {
    const cluster = await startCopies();
    await using stalls = await Stalls.begin();
    try {
      await whenAllUp(cluster);
      const states = statesOf(cluster, 0);
      for (const sabotage of ["exit", "throw"] as const) {
        // On a busy machine copies took over before its worker was back.
        await eventually("the shard is primary of something", () => cluster.topology.owners.includes(0), 60_000);
        const [began, stalledMs] = [performance.now(), stalls.totalMs];
        const restarted = kill(cluster, 0, sabotage);
        await eventually("the shard is down", () => states.includes("down"));
        expect(performance.now() - began).toBeLessThan(1_200 + stalls.totalMs - stalledMs);
        await restarted;
        await whenState(cluster, 0, "up");
        expect(states.splice(0)).toEqual(["down", "joining", "up"]);
      }
      expect(cluster.topology.topologyEpoch).toBeGreaterThan(4);
    } finally {
      await cluster.close();
    }
  });
});

describe("draining", () => {
  it("gives a shard no eventual reads while another copy is up, and uses it again after", async () => {
    const cluster = await startCopies();
    try {
      const docs = await filled(cluster);
      expect(await servedBy(docs)).toEqual([0, 1, 2]);
      expect(cluster.drain(1)).toBe(true);
      expect(cluster.drain(1)).toBe(false);
      expect(stateOf(cluster, 1)).toBe("draining");
      expect(await servedBy(docs)).toEqual([0, 2]);
      expect(await docs.count({ consistency: "strong" }), "its primaries serve on").toBe(100);
      await docs.upsert(
        Array.from({ length: 100 }, (_, id) => ({ id, vector: FOUR(id + 1) })),
        { acks: "all" },
      );
      cluster.drain(0);
      cluster.drain(2);
      expect((await servedBy(docs)).length, "when all drain, all serve").toBeGreaterThan(0);
      for (const shard of [0, 1, 2]) expect(cluster.resume(shard)).toBe(true);
      expect(cluster.resume(1)).toBe(false);
      expect(await servedBy(docs)).toEqual([0, 1, 2]);
    } finally {
      await cluster.close();
    }
  });

  it("survives the death of the drained worker", async () => {
    const cluster = await startCopies();
    try {
      const docs = await filled(cluster);
      cluster.drain(1);
      await kill(cluster, 1);
      await eventually("it serves again", () => ["up", "draining"].includes(stateOf(cluster, 1) as string));
      expect(await docs.count({ consistency: "strong" })).toBe(100);
      cluster.resume(1);
      await whenAllUp(cluster);
      expect(await servedBy(docs)).toEqual([0, 1, 2]);
    } finally {
      await cluster.close();
    }
  });
});

describe("a topology that changes under load", () => {
  it("fails no read and no write, whatever states follow each other", async () => {
    const { random, seed } = seeded(31);
    const cluster = await startCopies();
    try {
      const docs = await filled(cluster);
      const failures: string[] = [];
      let running = true;
      let calls = 0;
      const loop = (call: () => Promise<unknown>) =>
        (async () => {
          for (; running; calls++) await call().catch((error: unknown) => failures.push(codeOf(error)));
        })();
      const loops = [
        loop(async () => expect(await docs.count({ consistency: "strong" })).toBe(100)),
        loop(async () => expect(await docs.count({ consistency: "eventual" })).toBe(100)),
        loop(async () => {
          const { hits, completeness } = await docs.search(FOUR(50.2), {
            k: 2,
            consistency: "bounded-staleness",
            exact: true,
          });
          expect(completeness.complete).toBe(true);
          expect(hits.map(({ id }) => id)).toEqual([50, 51]);
        }),
        loop(() =>
          docs.upsert(
            Array.from({ length: 20 }, (_, id) => ({ id, vector: FOUR(id) })),
            { acks: "all" },
          ),
        ),
        loop(async () => {
          const session = cluster.session();
          await docs.upsert({ id: 7, vector: FOUR(7) }, { session });
          expect((await docs.get(7, { session, strategy: "random" }))?.vector).toEqual(FOUR(7));
        }),
        loop(async () => expect(await docs.delete("nobody")).toBe(0)),
      ];
      const before = cluster.routerStats();
      const epoch = cluster.topology.topologyEpoch;
      // As many changes, and more while the machine has no time for the calls.
      for (let round = 0; round < (long ? 20_000 : 500) || calls <= 100; round++) {
        const shard = random.u32() % 3;
        if (!cluster.drain(shard)) cluster.resume(shard);
        // Sometimes many changes at once, sometimes a while for the calls.
        for (let turns = round % 10 === 0 ? 300 : random.u32() % 40; turns > 0; turns--)
          await new Promise((resolve) => setImmediate(resolve));
      }
      running = false;
      await Promise.all(loops);
      const after = cluster.routerStats();
      expect(failures, `seed ${seed}`).toEqual([]);
      expect(calls).toBeGreaterThan(100);
      expect(cluster.topology.topologyEpoch).toBeGreaterThan(epoch + 300);
      expect(after.topologyEpoch).toBe(cluster.topology.topologyEpoch);
      const replans = after.replans - before.replans;
      expect(replans, "states that change move no vshard: plans stay good").toBeLessThan(calls / 20);
    } finally {
      await cluster.close();
    }
  });
});
