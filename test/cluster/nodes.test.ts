/** Three nodes with real workers: what each can do with the shards of the others, and what happens when they are cut off or lost. */
import { afterEach, describe, expect, it } from "vitest";
import { vshardOfBarrier } from "../../actors/barrier/client-barrier.ts";
import { realPlatform } from "../../src/cluster-workers.ts";
import { Cluster, connect, type VectorCollection } from "../../src/index.ts";
import { ownerOf } from "../../src/topology/snapshot.ts";
import { counter, relay, saboteur } from "../support/actors.ts";
import { eventually, keyOnShard } from "../support/cluster.ts";
import { TestNodes } from "../support/nodes.ts";

let nodes: TestNodes | undefined;
afterEach(async () => {
  await nodes?.[Symbol.asyncDispose]();
  nodes = undefined;
});

async function threeNodes(options: ConstructorParameters<typeof TestNodes>[1] = {}): Promise<TestNodes> {
  nodes = new TestNodes(3, options);
  return nodes.start();
}

const codeOf = (error: unknown): string => (error as { code: string }).code;

function expectBalanced(cluster: Cluster): void {
  for (const { peer, counters } of cluster.linkStats()) {
    const { sent, delivered, rejected, dead, inDoubt, open } = counters;
    expect(sent, `${peer}: ${JSON.stringify(counters)}`).toBe(delivered + rejected + dead + inDoubt + open);
  }
}

describe("actors of several nodes", () => {
  it("are one actor wherever they are asked from, and keep the order of each sender", async () => {
    const of = await threeNodes();
    for (const host of [0, 1, 2]) {
      const key = keyOnShard(of.node(0), counter, host);
      for (const [at, node] of of.nodes.entries()) {
        expect(node.shardOfActor(counter, key)).toBe(host);
        expect(await node.actor(counter, key).add(10)).toBe(10 * (at + 1));
      }
      const sender = of.node((host + 1) % 3).actor(counter, key);
      const values = Array.from({ length: 500 }, (_, value) => value);
      for (const value of values) void sender.tell.remember(value);
      expect(await sender.seen()).toEqual(values);
    }
    for (const node of of.nodes) expectBalanced(node);
    const [first] = of.node(0).linkStats();
    await eventually("every outcome is known", () => of.node(0).linkStats()[0]?.counters.open === 0);
    expect(first?.counters).toMatchObject({ rejected: 0, dead: 0, inDoubt: 0 });
  });

  it("ask each other from within a handler, across every pair of nodes", async () => {
    const of = await threeNodes();
    for (const from of [0, 1, 2]) {
      for (const to of [0, 1, 2]) {
        const key = keyOnShard(of.node(0), counter, to);
        const before = await of.node(0).actor(counter, key).read();
        const asker = of.node(2).actor(relay, keyOnShard(of.node(0), relay, from));
        expect(await asker.addTo({ key, amount: 7 })).toBe(before + 7);
      }
    }
  });

  it("learn on their node that an ask was given up on another", async () => {
    const of = await threeNodes();
    const key = keyOnShard(of.node(0), saboteur, 1);
    const remote = of.node(0).actor(saboteur, key);
    await remote.calls();
    const controller = new AbortController();
    const asked = remote.noteAbort(20_000, { signal: controller.signal, timeoutMs: 30_000 });
    const failed = expect(asked).rejects.toMatchObject({ code: "ERR_ABORTED" });
    // What follows it on the same way is answered: so it runs.
    await of
      .node(0)
      .actor(counter, keyOnShard(of.node(0), counter, 1))
      .read();
    controller.abort();
    await failed;
    expect(await of.node(2).actor(saboteur, key).aborts()).toBe(1);
  });

  it("are asked by connected threads of any node too", async () => {
    const of = await threeNodes();
    const key = keyOnShard(of.node(0), counter, 1);
    const threads = await Promise.all(of.nodes.map(async (node) => connect(await node.port())));
    for (const [at, thread] of threads.entries()) expect(await thread.actor(counter, key).add(1)).toBe(at + 1);
    await Promise.all(threads.map((thread) => thread.close()));
    expect(await of.node(2).actor(counter, key).read()).toBe(3);
  });

  it("fail typed when they throw, or refuse", async () => {
    const of = await threeNodes();
    const remote = of.node(0).actor(saboteur, keyOnShard(of.node(0), saboteur, 2));
    await expect(remote.fail("over there")).rejects.toMatchObject({ code: "ERR_ACTOR_FAILED" });
    await expect(remote.refuse()).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT", details: { why: "test" } });
  });
});

describe("a connection that is cut", () => {
  it("fails what is open, refuses what comes, and heals", async () => {
    const of = await threeNodes();
    const key = keyOnShard(of.node(0), counter, 1);
    const sleeper = of.node(0).actor(saboteur, keyOnShard(of.node(0), saboteur, 1));
    await sleeper.calls();
    const open = sleeper.sleep(30_000, { timeoutMs: 60_000 });
    const failed = expect(open).rejects.toMatchObject({ code: "ERR_WORKER_LOST", details: { node: "n1" } });
    await eventually("it is sent", () => of.node(0).linkStats()[0]?.counters.open === 1);
    of.network.cut("n0", "n1");
    await failed;
    await expect(of.node(0).actor(counter, key).add(1)).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
    expect(await of.node(2).actor(counter, key).add(1), "others are connected still").toBe(1);
    of.network.heal("n0", "n1");
    await eventually("it is connected", () => of.node(0).linkStats()[0]?.state === "up");
    await eventually("it serves", () =>
      of
        .node(0)
        .actor(counter, key)
        .read()
        .then(
          () => true,
          () => false,
        ),
    );
    expect(await of.node(0).actor(counter, key).add(1)).toBe(2);
    for (const node of of.nodes) expectBalanced(node);
  });
});

describe("a worker that dies", () => {
  it("fails what other nodes asked of it, and its successor serves them", async () => {
    const of = await threeNodes();
    const victim = of.node(0).actor(saboteur, keyOnShard(of.node(0), saboteur, 1));
    await expect(victim.exit(1)).rejects.toMatchObject({ code: "ERR_WORKER_LOST" });
    const key = keyOnShard(of.node(0), counter, 1);
    await eventually("its successor serves", () =>
      of
        .node(0)
        .actor(counter, key)
        .add(1)
        .then(
          () => true,
          () => false,
        ),
    );
    // Workers of other nodes ask the successor too.
    const asker = of.node(0).actor(relay, keyOnShard(of.node(0), relay, 2));
    await eventually("workers reach it", () =>
      asker.addTo({ key, amount: 1 }).then(
        () => true,
        () => false,
      ),
    );
    for (const node of of.nodes) expectBalanced(node);
  });
});

describe("a node that crashes", () => {
  it("fails what was asked of it, and is a member again in its next life", async () => {
    const of = await threeNodes();
    const key = keyOnShard(of.node(0), counter, 1);
    expect(await of.node(0).actor(counter, key).add(5)).toBe(5);
    of.network.crash("n1");
    await of.node(1).close({ timeoutMs: 5_000 });
    await eventually("it is gone", () => of.node(0).linkStats()[0]?.state === "down");
    await expect(of.node(0).actor(counter, key).add(1)).rejects.toSatisfy(
      (error) => codeOf(error) === "ERR_UNAVAILABLE" || codeOf(error) === "ERR_WORKER_LOST",
    );
    await of.startNode(1, 2);
    await eventually("it serves", () =>
      of
        .node(0)
        .actor(counter, key)
        .add(1)
        .then(
          () => true,
          () => false,
        ),
    );
    expect(await of.node(1).actor(counter, key).read(), "a new life begins from nothing").toBe(1);
    expect(of.node(0).linkStats()[0]).toMatchObject({ peer: "n1", incarnation: 2, state: "up" });
    const asker = of.node(0).actor(relay, keyOnShard(of.node(0), relay, 2));
    await eventually("workers reach it", () =>
      asker.addTo({ key, amount: 1 }).then(
        () => true,
        () => false,
      ),
    );
  });
});

describe("barriers of several nodes", () => {
  it("have members on all of them, and lose those of a node's threads when it starts anew", async () => {
    const of = await threeNodes();
    const options = { phases: ["sense", "act"], minMembers: 3, lossPolicy: "shrink" as const };
    const name = barrierAwayFrom(of.node(0), 1);
    const barriers = await Promise.all(of.nodes.map((node) => node.barrier(name, options)));
    for (const [at, barrier] of barriers.entries()) await barrier.join(`member-${at}`);
    for (const phase of options.phases) {
      const results = await Promise.all(barriers.map((barrier, at) => barrier.arrive(`member-${at}`, phase)));
      for (const result of results) expect(result).toMatchObject({ phase, round: 0 });
    }
    const [first] = barriers;
    expect((await first?.state())?.members).toHaveLength(3);
    of.network.crash("n1");
    await of.node(1).close({ timeoutMs: 5_000 });
    await of.startNode(1, 2);
    await of.whenWhole();
    await eventually("its member is lost", async () => (await first?.state())?.members.length === 2);
    expect((await first?.state())?.members).toEqual(["member-0", "member-2"]);
  });
});

/** A name whose barrier is hosted by another node: one on a node that crashes is lost with it. */
function barrierAwayFrom(cluster: Cluster, shard: number): string {
  for (let at = 0; ; at++) {
    const name = `tick-${at}`;
    if (ownerOf(cluster.topology, vshardOfBarrier(cluster.topology, name)) !== shard) return name;
  }
}

describe("graphs of several nodes", () => {
  it("are refused by a typed error that no retry changes", async () => {
    const of = await threeNodes({});
    await expect(of.node(1).graph("roads")).rejects.toMatchObject({
      code: "ERR_UNAVAILABLE",
      retryable: false,
      message: expect.stringMatching(/Cannot open graph "roads" as all \d shards must be of this node/),
    });
    expect(await of.node(1).dropGraph("roads")).toBe(false);
  });
});

describe("vectors of several nodes", () => {
  const DIMENSIONS = 8;
  const COUNT = 200;

  /** Unit vectors: the nearest one of each is itself. */
  function vectorOf(id: number): Float32Array {
    const vector = Float32Array.from({ length: DIMENSIONS }, (_, at) => Math.sin((id + 1) * (at + 1)));
    const norm = Math.hypot(...vector);
    return vector.map((value) => value / norm);
  }

  function openOn(cluster: Cluster): Promise<VectorCollection> {
    return cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "cosine" });
  }

  async function filled(of: TestNodes): Promise<VectorCollection[]> {
    const collections = await Promise.all(of.nodes.map(openOn));
    const items = Array.from({ length: COUNT }, (_, id) => ({ id, vector: vectorOf(id), payload: { id } }));
    await collections[0]?.upsert(items);
    return collections;
  }

  it.each([1, 2, 3])("are found from every node, %i copies", async (replicationFactor) => {
    const of = await threeNodes({ replicationFactor });
    for (const collection of await filled(of)) {
      expect(await collection.count()).toBe(COUNT);
      for (const id of [0, 1, 2, 50, 199]) {
        expect((await collection.get(id))?.payload).toEqual({ id });
        const [hit] = (await collection.search(vectorOf(id), { k: 1 })).hits;
        expect(hit).toMatchObject({ id });
        expect(hit?.score).toBeCloseTo(0, 3);
      }
    }
    for (const node of of.nodes) expectBalanced(node);
  });

  it("are read under a session of another node, and boundedly stale, from any copy", async () => {
    const of = await threeNodes({ replicationFactor: 3, acks: "one" });
    const collections = await filled(of);
    for (let round = 0; round < 20; round++) {
      const writer = round % 3;
      const session = of.node(writer).session();
      await collections[writer]?.upsert([{ id: round, vector: vectorOf(round), payload: { round } }], { session });
      for (const [at, collection] of collections.entries()) {
        const known = of.node(at).session(session.toString());
        const stored = await collection.get(round, { session: known, strategy: "round-robin" });
        expect(stored?.payload, `written on node ${writer}, read on node ${at}`).toEqual({ round });
      }
    }
    for (const collection of collections) {
      const bounded = { consistency: "bounded-staleness", maxStalenessMs: 5_000, strategy: "round-robin" } as const;
      await eventually("copies are known to be fresh", async () => {
        const answers = await Promise.all([0, 1, 2].map(() => collection.search(vectorOf(3), { k: 1, ...bounded })));
        return answers.every(({ hits }) => hits[0]?.id === 3);
      });
    }
  });

  it("are read from other copies while one node is cut off, and written again once it is back", async () => {
    const of = await threeNodes({ replicationFactor: 3, acks: "all" });
    const collections = await filled(of);
    const reader = collections[0] as VectorCollection;
    of.network.cut("n0", "n1");
    await eventually("it is cut off", () => of.node(0).linkStats()[0]?.state === "down");
    for (const id of [0, 1, 2, 50, 199]) {
      const { hits } = await reader.search(vectorOf(id), { k: 1, consistency: "eventual" });
      expect(hits[0]).toMatchObject({ id });
    }
    of.network.heal("n0", "n1");
    await of.whenWhole();
    const write = { id: 1_000, vector: vectorOf(1_000), payload: { id: 1_000 } };
    await eventually("it is written", () =>
      reader.upsert([write]).then(
        () => true,
        () => false,
      ),
    );
    expect((await collections[1]?.get(1_000))?.payload).toEqual({ id: 1_000 });
    for (const node of of.nodes) expectBalanced(node);
  });

  it("survive the crash of a node, whose next life gets its own back from the copies", async () => {
    const of = await threeNodes({ replicationFactor: 2, acks: "all" });
    const collections = await filled(of);
    of.network.crash("n1");
    await of.node(1).close({ timeoutMs: 5_000 });
    const again = await of.startNode(1, 2);
    collections[1] = await openOn(again);
    for (const [at, collection] of collections.entries()) {
      await eventually(`all is there from node ${at}`, async () => {
        const ids = Array.from({ length: COUNT }, (_, id) => id);
        const stored = await collection.getMany(ids).catch(() => []);
        return stored.length === COUNT && stored.every((item, id) => item?.payload?.["id"] === id);
      });
      expect(await collection.count()).toBe(COUNT);
    }
    await eventually("it is written", () =>
      (collections[0] as VectorCollection)
        .upsert([{ id: 3, vector: vectorOf(3), payload: { id: 3, again: true } }])
        .then(
          () => true,
          () => false,
        ),
    );
    for (const collection of collections) expect((await collection.get(3))?.payload).toEqual({ id: 3, again: true });
  });

  it("survive the death of a worker, on its node and on others", async () => {
    const of = await threeNodes({ replicationFactor: 2 });
    const collections = await filled(of);
    const victim = of.node(1).actor(saboteur, keyOnShard(of.node(1), saboteur, 1));
    await expect(victim.exit(1)).rejects.toMatchObject({ code: "ERR_WORKER_LOST" });
    for (const collection of collections) {
      await eventually("all is there", async () => {
        const items = await collection.getMany([0, 1, 2, 50, 199]).catch(() => []);
        return items.length === 5 && items.every((item, at) => item?.payload?.["id"] === [0, 1, 2, 50, 199][at]);
      });
    }
    await eventually("it is written", () =>
      (collections[2] as VectorCollection)
        .upsert([{ id: 7, vector: vectorOf(7), payload: { id: 7, again: true } }])
        .then(
          () => true,
          () => false,
        ),
    );
    expect((await collections[0]?.get(7))?.payload).toEqual({ id: 7, again: true });
  });
});

describe("bad options", () => {
  const transport = { dial: () => undefined as never, listen: () => undefined, close: () => undefined };
  const members = [
    { name: "a", shards: [0] },
    { name: "b", shards: [1] },
  ];
  it.each([
    ["a self that is no member", { self: "c", incarnation: 1, members }],
    ["an incarnation below 1", { self: "a", incarnation: 0, members }],
    ["a shard that two nodes have", { self: "a", incarnation: 1, members: [...members, { name: "c", shards: [1] }] }],
    ["a shard that nobody has", { self: "a", incarnation: 1, members: [...members, { name: "c", shards: [3] }] }],
  ])("are refused: %s", async (_, nodesOptions) => {
    const start = Cluster.startOn({ platform: realPlatform(), nodes: { ...nodesOptions, transport } }, { workers: 1 });
    await expect(start).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  });

  it.each([{ workers: 2 }, { zones: ["east"] }, { vshards: 1 }, { replicationFactor: 3 }])(
    "are refused: %j for one shard of two",
    async (options) => {
      const nodesOptions = { self: "a", incarnation: 1, members, transport };
      const start = Cluster.startOn({ platform: realPlatform(), nodes: nodesOptions }, options);
      await expect(start).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    },
  );

  it("are refused for a shard of another node, where only this node's may be changed", async () => {
    const of = await threeNodes();
    expect(of.node(1).drain(1)).toBe(true);
    expect(() => of.node(1).drain(0)).toThrow(/shard must be one of this node's, 1: current value is 0/);
  });
});
