/**
 * What three nodes do over a real transport, as a suite: actors across nodes, collections, replies longer than a lane's turn, a node that starts anew.
 *
 * Invariant: what is searched gives what one process gives for the same documents.
 */
import { afterEach, describe, expect, test } from "vitest";
import type { Cluster, TextCollection, VectorCollection } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { counter, relay, saboteur } from "../support/actors.ts";
import { eventually, keyOnShard, randomVector, startTestCluster } from "../support/cluster.ts";
import { type WireNodeOptions, WireNodes } from "../support/wire-nodes.ts";

const DIMENSIONS = 32;
const COUNT = 600;
const WORDS = ["tea", "cup", "pot", "leaf", "water", "fire"];

/** Declares the suite. */
export function describeNodesOver(name: string, wire: () => WireNodeOptions): void {
  let nodes: WireNodes | undefined;
  afterEach(async () => {
    await nodes?.[Symbol.asyncDispose]();
    nodes = undefined;
  });
  const start = (options: ConstructorParameters<typeof WireNodes>[2] = {}): Promise<WireNodes> => {
    nodes = new WireNodes(3, wire(), options);
    return nodes.start();
  };

  describe(`three nodes over ${name}`, () => {
    test("actors are one wherever they are asked from, in each sender's order", async () => {
      const of = await start();
      for (const host of [0, 1, 2]) {
        const key = keyOnShard(of.node(0), counter, host);
        for (const [at, node] of of.nodes.entries()) expect(await node.actor(counter, key).add(10)).toBe(10 * (at + 1));
        const sender = of.node((host + 1) % 3).actor(counter, key);
        const values = Array.from({ length: 500 }, (_, value) => value);
        for (const value of values) void sender.tell.remember(value);
        expect(await sender.seen()).toEqual(values);
        const asker = of.node(2).actor(relay, keyOnShard(of.node(0), relay, (host + 2) % 3));
        expect(await asker.addTo({ key, amount: 7 })).toBe(37);
      }
      const remote = of.node(0).actor(saboteur, keyOnShard(of.node(0), saboteur, 2));
      await expect(remote.fail("over there")).rejects.toMatchObject({ code: "ERR_ACTOR_FAILED" });
    });

    test("searches of vectors and texts give what one process gives", async () => {
      const random = createSeededRandom(Number(process.env["SEED"] ?? 1));
      const items = Array.from({ length: COUNT }, (_, id) => ({
        id,
        vector: randomVector(random, DIMENSIONS),
        payload: { id },
      }));
      const documents = items.map(({ id }) => ({
        id,
        fields: { body: [0, 1, 2].map((at) => WORDS[(id * 7 + at * (1 + (id % 5))) % WORDS.length]).join(" ") },
      }));
      const queries = Array.from({ length: 10 }, () => randomVector(random, DIMENSIONS));
      type Collections = readonly [VectorCollection, TextCollection];
      const openOn = async (cluster: Cluster): Promise<Collections> => [
        await cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "cosine" }),
        await cluster.text("words", { fields: { body: 1 } }),
      ];
      const fill = async ([vectors, texts]: Collections): Promise<void> => {
        await vectors.upsert(items);
        await texts.upsert(documents);
      };
      const ask = async ([vectors, texts]: Collections): Promise<unknown> => ({
        count: await vectors.count(),
        vectors: await Promise.all(
          queries.map(async (query) => (await vectors.search(query, { k: 10, exact: true })).hits.map(({ id }) => id)),
        ),
        texts: (await texts.search("tea leaf", { k: 50 })).hits.map(({ id, score }) => [id, score.toFixed(5)]),
      });
      const alone = await startTestCluster({ workers: 1 });
      const local = await openOn(alone);
      await fill(local);
      const expected = await ask(local);
      await alone.close();
      expect(expected).toMatchObject({ count: COUNT });
      const of = await start({ replicationFactor: 2 });
      const remote = await Promise.all(of.nodes.map(openOn));
      await fill(remote[0] as Collections);
      for (const collections of remote) expect(await ask(collections)).toEqual(expected);
    });

    test("a node that starts anew is known by its new address, and what is asked of it in between fails typed", async () => {
      const of = await start();
      const key = keyOnShard(of.node(0), counter, 1);
      await of.node(0).actor(counter, key).add(1);
      await of.node(1).close({ timeoutMs: 5_000 });
      await eventually("it is gone", () => of.node(0).linkStats()[0]?.state === "down");
      await expect(of.node(0).actor(counter, key).add(1)).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
      await of.startNode(1, 2);
      await of.whenWhole();
      expect(await of.node(0).actor(counter, key).add(5)).toBe(5);
      expect(of.node(0).linkStats()[0]).toMatchObject({ peer: "n1", incarnation: 2 });
    });
  });
}
