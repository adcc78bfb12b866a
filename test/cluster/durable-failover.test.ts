/**
 * Clusters on directories whose workers die, come back late or not at all, and whose nodes are cut off while they think that they are primaries:
 * what was acknowledged is there meanwhile, afterwards, and after all processes have ended and begun again.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Cluster, ClusterOptions, VectorCollection } from "../../src/index.ts";
import type { Random } from "../../src/runtime/random.ts";
import { AcknowledgedWrites } from "../support/acknowledged.ts";
import { ACTORS_URL, eventually } from "../support/cluster.ts";
import { kill, SABOTAGES, seeded, startCopies, whenAllUp } from "../support/copies.ts";
import { DurableNodes } from "../support/durable-nodes.ts";
import { holdStarts } from "../support/gate.ts";

const TROUBLE = new URL("../support/start-trouble.js", import.meta.url);
const DIMENSIONS = 4;
const MIB = 1024 * 1024;
const LONG = process.env["SHARDLOOM_LONG"] === "1";
/** Workers killed in one life of a cluster: a shard whose worker dies more than eight times in a minute is given up. */
const DEATHS = LONG ? 7 : 3;
const ROUNDS = LONG ? 30 : 2;

let root = "";
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-failover-"));
});
afterEach(async () => {
  delete process.env["SHARDLOOM_TEST_START"];
  await rm(root, { recursive: true });
});

function start(options: ClusterOptions): Promise<Cluster> {
  return startCopies({
    actors: [ACTORS_URL, TROUBLE],
    directory: join(root, "data"),
    memoryBytes: 128 * MIB,
    requestTimeoutMs: 10_000,
    startTimeoutMs: 60_000,
    ...options,
  });
}

function open(cluster: Cluster): Promise<VectorCollection> {
  return cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2" });
}

function writes(timeoutMs: number): AcknowledgedWrites {
  return new AcknowledgedWrites({
    ids: Array.from({ length: 240 }, (_, id) => id),
    writers: 4,
    documentOf: (id, generation) => ({ id, vector: [generation, id, 0, 0], payload: { filling: "x".repeat(200) } }),
    generationOf: (vector) => vector[0] as number,
    timeoutMs,
  });
}

async function expectEqualCopies(cluster: Cluster): Promise<void> {
  await whenAllUp(cluster);
  const { differing, behind, silent, equal } = await cluster.audit({ timeoutMs: 60_000 });
  expect({ differing, behind, silent, equal }).toEqual({ differing: 0, behind: 0, silent: 0, equal: true });
}

/** Kills the worker of a shard that is the primary of something. @returns when its successor serves */
async function killAny(cluster: Cluster, random: Random): Promise<void> {
  const restarted = new Set<number>();
  cluster.on("worker-restarted", ({ shard }) => restarted.add(shard));
  for (let dead: number | undefined; dead === undefined; ) {
    const lost = new Promise<number>((resolve) => cluster.once("worker-lost", ({ shard }) => resolve(shard)));
    const owners = [...new Set(cluster.topology.owners)];
    const victim = owners[random.u32() % owners.length] as number;
    void kill(cluster, victim, SABOTAGES[random.u32() % SABOTAGES.length]);
    // Its vshard may go to another one before the actor is asked, or the actor may not be served at that moment.
    const late = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 4_000));
    dead = await Promise.race([lost, late]);
    const shard = dead ?? -1;
    if (shard >= 0) await eventually(`shard ${shard} is back`, () => restarted.has(shard), 60_000);
  }
}

const KEPT = [
  [1, "fsync"],
  [2, "fsync"],
  [3, "fsync"],
  [2, "memory"],
] as const;

/** In short runs two of them, by the seed of the run. */
describe.each(KEPT.filter((_, at) => LONG || at % 2 === Number(process.env["SEED"] ?? 1) % 2))(
  "workers of %i copies on a directory (%s) that die under writes",
  (replicationFactor, durability) => {
    test("lose nothing that was acknowledged, now or in the next life", {
      timeout: LONG ? 900_000 : 180_000,
    }, async () => {
      const { seed, random } = seeded(40 + replicationFactor);
      console.info(`durable failover: SEED=${seed}`);
      const options = { replicationFactor, durability, snapshotBytes: 64 * 1024, maxHandlerMs: 500 };
      const written = writes(5_000);
      const rounds = LONG || durability === "fsync" ? ROUNDS : 1;
      for (let round = 0; round < rounds; round++) {
        await using cluster = await start(options);
        const docs = await open(cluster);
        if (round > 0) await written.check(docs);
        if (replicationFactor > 1) await expectEqualCopies(cluster);
        written.start(() => docs);
        for (let death = 0; death < DEATHS; death++) {
          const before = written.acknowledgements;
          await eventually("writes", () => written.acknowledgements > before + 10, 60_000);
          await killAny(cluster, random);
        }
        await written.stop();
        await whenAllUp(cluster);
        await written.check(docs);
        if (replicationFactor > 1) await expectEqualCopies(cluster);
      }
      await using cluster = await start(options);
      const docs = await open(cluster);
      await written.check(docs);
      if (replicationFactor > 1) await expectEqualCopies(cluster);
      console.info(
        JSON.stringify({ acknowledged: written.acknowledgements, codes: Object.fromEntries(written.codes) }),
      );
    });
  },
);

describe("a worker that does not come back", () => {
  test("is replaced as primary; eventual reads answer meanwhile, and the next life has what its successors wrote", {
    timeout: 120_000,
  }, async () => {
    const written = writes(500);
    {
      await using cluster = await start({});
      const docs = await open(cluster);
      written.start(() => docs);
      await eventually("some writes", () => written.acknowledgements > 50, 60_000);
      process.env["SHARDLOOM_TEST_START"] = "fail";
      const down = new Promise<void>((resolve) => cluster.once("worker-down", () => resolve()));
      void kill(cluster, 1);
      // Without a pause, so also when nobody is primary.
      let reads = 0;
      let isDown = false;
      void down.then(() => {
        isDown = true;
      });
      while (!isDown) {
        const rows = await docs.getMany([1, 2, 3, 4, 5, 6, 7, 8], { consistency: "eventual" });
        expect(rows.filter((row) => row !== undefined).length).toBeGreaterThan(0);
        reads++;
      }
      expect(reads).toBeGreaterThan(10);
      const before = written.acknowledgements;
      await eventually("writes go on", () => written.acknowledgements > before + 100, 60_000);
      await written.stop();
      expect([...cluster.topology.owners].includes(1)).toBe(false);
      await written.check(docs);
      // The shard that is gone is silent, so each audit lasts as long as it may.
      await eventually("no copy is behind", async () => {
        const { differing, behind } = await cluster.audit({ timeoutMs: 2_000 });
        expect(differing).toBe(0);
        return behind === 0;
      });
    }
    delete process.env["SHARDLOOM_TEST_START"];
    await using cluster = await start({});
    const docs = await open(cluster);
    await written.check(docs);
    await expectEqualCopies(cluster);
  });

  test("in time is a copy when it does: all copies are equal then, and in the next life", {
    timeout: 120_000,
  }, async () => {
    const written = writes(500);
    {
      await using cluster = await start({ snapshotBytes: 64 * 1024 });
      const docs = await open(cluster);
      written.start(() => docs);
      await eventually("some writes", () => written.acknowledgements > 50, 60_000);
      const letStart = holdStarts();
      const back = kill(cluster, 2);
      await eventually("nothing left to it", () => !cluster.topology.owners.includes(2), 30_000);
      letStart();
      await back;
      const before = written.acknowledgements;
      await eventually("writes go on", () => written.acknowledgements > before + 50, 60_000);
      await written.stop();
      await written.check(docs);
      await expectEqualCopies(cluster);
    }
    delete process.env["SHARDLOOM_TEST_START"];
    await using cluster = await start({});
    await written.check(await open(cluster));
    await expectEqualCopies(cluster);
  });
});

/** How writes end at a primary that was replaced: it has no lease or no copies, or its copies know of a newer one. */
const REFUSALS: ReadonlySet<string> = new Set([
  "ERR_UNAVAILABLE",
  "ERR_QUORUM",
  "ERR_WORKER_LOST",
  "ERR_TIMEOUT",
  "ERR_STALE_EPOCH",
]);

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((all, count) => all + count, 0);
}

describe.each(["cut", "lying"] as const)("a primary that is cut off, its lease store %s", (state) => {
  test("has a successor, and what it does beside it is refused; nothing acknowledged is lost", {
    timeout: 180_000,
  }, async () => {
    const written = writes(1_500);
    {
      await using nodes = await new DurableNodes(root).start();
      const docs = await Promise.all(nodes.nodes.map(open));
      // Writers on all nodes, so also on the one that is cut off and thinks that it is primary.
      written.start((writer) => docs[writer % 3] as VectorCollection);
      await eventually("some writes", () => written.acknowledgements > 50, 60_000);
      for (let round = 0; round < ROUNDS; round++) {
        const [victim, witness] = nodes.busiest();
        const doubtful = nodes.doubtful[victim] as (typeof nodes.doubtful)[number];
        doubtful.state = state;
        nodes.separate(victim, true);
        await eventually("it has successors", () => !nodes.node(witness).topology.owners.includes(victim), 60_000);
        expect(nodes.node(victim).topology.owners.includes(victim)).toBe(true); // it does not know
        const before = written.acknowledgements;
        // From now on its vshards have other primaries: it may acknowledge nothing, however long it thinks that it is one.
        const told = written.watch((writer) => writer % 3 === victim);
        await eventually("writes go on", () => written.acknowledgements > before + 30, 60_000);
        await eventually("it is refused", () => sum(told()) > 1, 60_000);
        const { ok = 0, ...refused } = told();
        expect(ok).toBe(0);
        expect(Object.keys(refused).filter((code) => !REFUSALS.has(code))).toEqual([]);
        nodes.separate(victim, false);
        await new Promise((resolve) => setTimeout(resolve, 100));
        doubtful.state = "honest";
        await eventually(
          "all know the same map",
          () => nodes.nodes.every(({ topology }) => topology.mapVersion === nodes.node(witness).topology.mapVersion),
          60_000,
        );
      }
      await written.stop();
      for (const collection of docs) await written.check(collection);
      await nodes.untilEqual();
    }
    await using nodes = await new DurableNodes(root).start();
    for (const node of nodes.nodes) await written.check(await open(node));
    console.info(
      JSON.stringify({ state, acknowledged: written.acknowledgements, codes: Object.fromEntries(written.codes) }),
    );
  });
});
