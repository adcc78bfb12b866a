/**
 * Nodes that are removed while others die or are cut off: what was acknowledged is where the map says, copies that were not filled yet are taken for
 * nothing, and what only the dead had is given up when that is asked for, and not before.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Cluster, type NodeRemovalReport, ShardloomError, type VectorCollection } from "../../src/index.ts";
import { isRemoved, vshardOfId } from "../../src/topology/snapshot.ts";
import { ACTORS_URL, eventually } from "../support/cluster.ts";
import { kill } from "../support/copies.ts";
import { type Doubtful, DurableNodes } from "../support/durable-nodes.ts";

const IDS: readonly number[] = Array.from({ length: 120 }, (_, id) => id);

let root = "";
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-removal-"));
});
afterEach(async () => {
  await rm(root, { recursive: true });
});

const open = (node: Cluster): Promise<VectorCollection> => node.vectors("docs", { dimensions: 2, metric: "l2" });

async function store(node: Cluster): Promise<void> {
  await (await open(node)).upsert(
    IDS.map((id) => ({ id, vector: [id, 1] })),
    { acks: "all" },
  );
}

/** Ids of the documents that are found by a strong read; undefined while there is none. */
async function found(node: Cluster, timeoutMs: number): Promise<number[] | undefined> {
  try {
    const rows = await (await open(node)).getMany([...IDS], { consistency: "strong", timeoutMs });
    return IDS.filter((id) => rows[id]?.vector?.[0] === id);
  } catch (error) {
    if (ShardloomError.is(error)) return undefined;
    throw error;
  }
}

async function refusal(call: Promise<unknown>): Promise<ShardloomError> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!ShardloomError.is(error)) throw new Error("it was not refused");
  return error;
}

/** Three nodes, of which the middle one is removed; from the moment at which it is, the two others hear nothing of each other. */
async function removeUnfilled(nodes: DurableNodes): Promise<{ removed: Promise<NodeRemovalReport> }> {
  const [first, leaving, last] = nodes.nodes as [Cluster, Cluster, Cluster];
  await store(first);
  const isOver = (): boolean => [first, last].some(({ topology }) => isRemoved(topology, 1));
  const between = ["n0", "n2"];
  nodes.network.transform = (from, to, bytes) =>
    between.includes(from) && between.includes(to) && isOver() ? undefined : bytes;
  const told = new Promise<void>((resolve) => leaving.once("removed", resolve));
  const removed = first.removeNode("n1");
  await told;
  await eventually("both know", () => [first, last].every(({ topology }) => isRemoved(topology, 1)));
  return { removed };
}

/** The first node is to be the primary of all, with what it has, and then hears of the last one. */
async function expectPatience(nodes: DurableNodes, meetAgain: () => unknown): Promise<void> {
  const first = nodes.node(0);
  await eventually("it is primary of all", () => first.topology.owners.every((owner) => owner === 0), 20_000);
  // What it has been given and was never filled it has to wait for.
  expect(await found(first, 1_500)).toBeUndefined();
  await meetAgain();
  await eventually("all is found", async () => (await found(first, 10_000))?.length === IDS.length, 40_000);
}

test("copies that were not filled when all nodes ended are no witnesses that there was nothing", async () => {
  await using nodes = await new DurableNodes(root, { replicationFactor: 2 }).start();
  const { removed } = await removeUnfilled(nodes);
  const { places } = nodes.node(0).topology;
  await Promise.all(nodes.nodes.map((node) => node.close({ timeoutMs: 5_000 })));
  const { copies, filling } = await removed;
  expect(copies).toBeGreaterThan(0);
  expect(filling.length).toBeGreaterThan(0);
  nodes.network.transform = (_from, _to, bytes) => bytes;
  const back = await nodes.startNode(0);
  expect(isRemoved(back.topology, 1)).toBe(true);
  expect(back.topology.places).toEqual(places);
  await expectPatience(nodes, () => nodes.startNode(2));
}, 90_000);

test("nor are those of a worker that comes in the place of one that was never filled", async () => {
  await using nodes = await new DurableNodes(root, { replicationFactor: 2, actors: [ACTORS_URL] }).start();
  const first = nodes.node(0);
  await removeUnfilled(nodes);
  const restarted = new Promise((resolve) => first.once("worker-restarted", resolve));
  void kill(first, 0);
  await restarted;
  const last = nodes.doubtful[2] as Doubtful;
  last.state = "cut"; // so it is no primary any more
  await expectPatience(nodes, () => {
    last.state = "honest";
    nodes.network.transform = (_from, _to, bytes) => bytes;
  });
}, 90_000);

test("what only dead nodes had is given up by force, and not without; the rest is as it was", async () => {
  const options = { replicationFactor: 2, suspectMs: 300, downMs: 600 };
  await using nodes = await new DurableNodes(root, options, 4).start();
  const asked = nodes.node(0);
  await store(asked);
  const { copies, replicationFactor } = asked.topology;
  const lost = Array.from({ length: 16 }, (_, vshard) => vshard).filter((vshard) =>
    [0, 1].every(
      (shard) => !copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor).includes(shard),
    ),
  );
  expect(lost.length).toBeGreaterThan(0);
  const theirs = expect.arrayContaining(lost) as unknown; // more, if another one is suspected just then
  for (const at of [2, 3]) {
    nodes.separate(at, true);
    (nodes.doubtful[at] as Doubtful).state = "cut";
  }
  const stateOf = (id: string): string | undefined => asked.members().find((member) => member.id === id)?.state;
  await eventually("both are down", () => stateOf("n2") === "down" && stateOf("n3") === "down", 20_000);
  // Nor is a node that lives removed while nobody could hold what it has: what it has begun to give away it gets back.
  const states: string[] = [];
  asked.on("member-changed", ({ member, to }) => member.id === "shard-1" && states.push(to));
  const few = await refusal(asked.removeNode("n1", { timeoutMs: 1_500 }));
  expect(few.message).toContain("2 shards that may hold copies must be left: 1 would be");
  await eventually("it has given it up", () => states.includes("draining") && stateOf("shard-1") === "up");
  await eventually("it serves again", () => asked.topology.owners.includes(1), 20_000);
  const refused = await refusal(asked.removeNode("n2", { timeoutMs: 2_000 }));
  expect(refused).toMatchObject({ code: "ERR_UNAVAILABLE", details: { node: "n2", vshards: theirs } });
  expect(refused.message).toContain("--force");
  expect(isRemoved(asked.topology, 2)).toBe(false);

  const report = await asked.removeNode("n2", { timeoutMs: 2_000, force: true });
  expect(report).toMatchObject({ node: "n2", shards: [2], givenUp: theirs });
  // The other dead one may have it still: nobody says that there is nothing.
  expect(await found(asked, 1_000)).toBeUndefined();
  expect(await asked.removeNode("n3", { timeoutMs: 2_000, force: true })).toMatchObject({ givenUp: theirs });
  // Who was not dead hears of it, and is to end.
  const removed = [2, 3].map((at) => new Promise<void>((resolve) => nodes.node(at).once("removed", resolve)));
  for (const at of [2, 3]) {
    nodes.separate(at, false);
    (nodes.doubtful[at] as Doubtful).state = "honest";
  }
  await Promise.all(removed);
  await Promise.all([2, 3].map((at) => nodes.node(at).close()));
  const rest = IDS.filter((id) => !lost.includes(vshardOfId(asked.topology, id)));
  await eventually("the rest is found", async () => (await found(asked, 5_000))?.join() === rest.join(), 30_000);
}, 90_000);
