/** The times of failover, with no option given: detection within 1.2 s, leases of 1 s, promotion within 0.5 s. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Cluster, type ClusterOptions } from "../../src/index.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { ownerOf, vshardOfId } from "../../src/topology/snapshot.ts";
import { saboteur } from "../support/actors.ts";
import { ACTORS_URL, keyOnShard } from "../support/cluster.ts";
import { codeOf, kill, stateOf } from "../support/copies.ts";
import { DurableNodes } from "../support/durable-nodes.ts";
import { holdStarts } from "../support/gate.ts";
import { Stalls } from "../support/stalls.ts";

const TROUBLE = new URL("../support/start-trouble.js", import.meta.url);
/** What a machine with other work takes besides. */
const SLACK_MS = 1_000;
const LIMIT_MS = 10_000;

let root = "";
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-defaults-"));
});
afterEach(async () => {
  delete process.env["SHARDLOOM_TEST_START"];
  await rm(root, { recursive: true });
});

/** Three workers with copies of everything, and no times given. */
function start(options: ClusterOptions): Promise<Cluster> {
  const base = { workers: 3, vshards: 16, replicationFactor: 3, memoryBytes: 256 * 1024 * 1024, actors: [ACTORS_URL] };
  return Cluster.start({ ...base, ...options });
}

/** @returns ms until a condition holds */
async function timeUntil(condition: () => boolean | Promise<boolean>): Promise<number> {
  const began = performance.now();
  while (!(await condition())) {
    if (performance.now() - began > LIMIT_MS) throw new Error(`nothing happened within ${LIMIT_MS} ms`);
    await sleep(2);
  }
  return performance.now() - began;
}

test("a worker that is silent is suspect after 0.6 s and down after 1.2 s", async () => {
  await using cluster = await start({ maxHandlerMs: 20_000 });
  await using stalls = await Stalls.begin();
  expect(cluster.options).toMatchObject({ suspectMs: 600, downMs: 1_200, leaseMs: 1_000 });
  const target = cluster.actor(saboteur, keyOnShard(cluster, saboteur, 2));
  const held = target.hold(3_000_000, { timeoutMs: 20_000 }).catch(() => undefined);
  const silentMs = (): number => systemClock.nowMs() - (cluster.heartbeats()[2]?.sinceMs ?? Number.NaN);
  await timeUntil(() => stateOf(cluster, 2) === "suspect");
  const suspectMs = silentMs();
  await timeUntil(() => stateOf(cluster, 2) === "down");
  const downMs = silentMs();
  expect(suspectMs).toBeGreaterThan(400);
  const slackMs = SLACK_MS + 2 * stalls.totalMs;
  expect(suspectMs).toBeLessThan(600 + slackMs);
  expect(downMs).toBeGreaterThan(1_000);
  expect(downMs).toBeLessThan(1_200 + slackMs);
  await held;
});

test("what a worker was primary of that is known to be lost is another one's within 0.5 s", async () => {
  await using cluster = await start({ actors: [ACTORS_URL, TROUBLE], directory: join(root, "data") });
  await using stalls = await Stalls.begin();
  const letStart = holdStarts();
  const lost = new Promise((resolve) => cluster.once("worker-lost", resolve));
  const back = kill(cluster, 1);
  await lost;
  const promotionMs = await timeUntil(() => !cluster.topology.owners.includes(1));
  expect(promotionMs).toBeLessThan(500 + SLACK_MS + stalls.totalMs);
  letStart();
  await back;
});

test("a node that cannot renew its lease answers strong reads for less than 1 s, and eventual ones on", async () => {
  await using nodes = await new DurableNodes(root).start();
  await using stalls = await Stalls.begin();
  const docs = await Promise.all(nodes.nodes.map((node) => node.vectors("docs", { dimensions: 1, metric: "l2" })));
  const [victim] = nodes.busiest();
  const { topology } = nodes.node(victim);
  const id = Array.from({ length: 1_000 }, (_, at) => at).find(
    (at) => ownerOf(topology, vshardOfId(topology, at)) === victim,
  ) as number;
  const own = docs[victim] as (typeof docs)[number];
  await own.upsert({ id, vector: [7] }, { acks: "all" });
  const doubtful = nodes.doubtful[victim] as (typeof nodes.doubtful)[number];
  doubtful.state = "cut";
  let answered = 0;
  let code = "";
  const leaseMs = await timeUntil(async () => {
    const found = await own.get(id, { timeoutMs: 3_000, unavailable: "fail" }).catch(codeOf);
    if (typeof found !== "string") answered++;
    else code = found;
    return code !== "";
  });
  expect(code).toBe("ERR_UNAVAILABLE");
  // By the lease that it has, unless that was over before it could be asked.
  if (stalls.totalMs < 500) expect(answered).toBeGreaterThan(0);
  expect(leaseMs).toBeLessThan(1_000 + SLACK_MS + stalls.totalMs);
  expect((await own.get(id, { consistency: "eventual" }))?.vector?.[0]).toBe(7);
});
