/** One-sided reads where shards are on several nodes: of this node's memory only, and of nothing that is on its way back into it. */
import { afterEach, expect, it } from "vitest";
import { STATUS } from "../../native-bridge/status.ts";
import type { ShardloomError } from "../../src/errors.ts";
import type { VectorCollection } from "../../src/index.ts";
import { eventually } from "../support/cluster.ts";
import { TestNodes } from "../support/nodes.ts";

const COUNT = 120;
const OPTIONS = { dimensions: 4, metric: "l2" } as const;

let of: TestNodes | undefined;
afterEach(async () => {
  await of?.[Symbol.asyncDispose]();
  of = undefined;
});

function vectorOf(id: number): Float32Array {
  return Float32Array.of(id, id + 1, id + 2, id + 3);
}

async function filled(nodes: TestNodes): Promise<VectorCollection[]> {
  const collections = await Promise.all(nodes.nodes.map((node) => node.vectors("docs", OPTIONS)));
  await collections[0]?.upsert(Array.from({ length: COUNT }, (_, id) => ({ id, vector: vectorOf(id) })));
  return collections;
}

it("reads what is in this node's memory without a message, and everything else with one", async () => {
  of = await new TestNodes(3, { replicationFactor: 2, acks: "all" }).start();
  const ways = { "one-sided": 0, message: 0 };
  for (const [node, docs] of (await filled(of)).entries()) {
    const target = new Float32Array(4);
    for (let id = 0; id < COUNT; id++) {
      const own = of.node(node).shardOfId(id) === node;
      const found = await docs.read(id, target);
      expect(found?.by, `document ${id} from node ${node}`).toBe(own ? "one-sided" : "message");
      expect(target).toEqual(vectorOf(id));
      expect(docs.region(id) !== undefined).toBe(own);
      if (found !== undefined) ways[found.by]++;
    }
    const { statuses, hits } = docs.reader().scanExact(vectorOf(3), COUNT);
    expect(statuses).toEqual([0, 1, 2].map((shard) => (shard === node ? STATUS.SUCCESS : STATUS.INVALID_RKEY)));
    expect(hits.length).toBe(
      Array.from({ length: COUNT }, (_, id) => id).filter((id) => of?.node(0).shardOfId(id) === node).length,
    );
  }
  expect(ways).toEqual({ "one-sided": COUNT, message: 2 * COUNT });
});

it("does not take for unknown what is on its way back from copies", async () => {
  of = await new TestNodes(3, { replicationFactor: 3, acks: "all" }).start();
  await filled(of);
  const own = Array.from({ length: COUNT }, (_, id) => id).filter((id) => of?.node(0).shardOfId(id) === 1);
  expect(own.length).toBeGreaterThan(10);
  of.network.crash("n1");
  await of.node(1).close({ timeoutMs: 5_000 });
  const again = await of.startNode(1, 2);
  const docs = await again.vectors("docs", OPTIONS);
  const target = new Float32Array(4);
  let oneSided = 0;
  await eventually("all of its own are read one-sidedly again", async () => {
    for (const id of own) {
      // Either there or refused: never unknown.
      const found = await docs
        .read(id, target, { timeoutMs: 500 })
        .catch((error: unknown) => (error as ShardloomError).code);
      expect(found, `document ${id}`).toBeDefined();
      if (typeof found === "string") return false;
      expect(target).toEqual(vectorOf(id));
      if (found?.by === "one-sided") oneSided++;
    }
    return own.every((id) => docs.region(id) !== undefined);
  });
  expect(oneSided).toBeGreaterThan(0);
});
