/** Collections of several nodes: what is opened or dropped on one is so on all, also on those that were away. */
import { afterEach, expect, it } from "vitest";
import { eventually } from "../support/cluster.ts";
import { TestNodes } from "../support/nodes.ts";

const OPTIONS = { dimensions: 2, metric: "l2" } as const;
const COUNT = 60;

let of: TestNodes | undefined;
afterEach(async () => {
  await of?.[Symbol.asyncDispose]();
  of = undefined;
});

async function start(options: ConstructorParameters<typeof TestNodes>[1] = {}): Promise<TestNodes> {
  of = await new TestNodes(3, { replicationFactor: 2, acks: "all", ...options }).start();
  return of;
}

const items = Array.from({ length: COUNT }, (_, id) => ({ id, vector: [id, 1] }));
const code = (name: string): unknown => expect.objectContaining({ code: name });

it("are open on all nodes when one has opened them, and gone when one has dropped them", async () => {
  const nodes = await start();
  const vectors = await nodes.node(0).vectors("docs", OPTIONS);
  const texts = await nodes.node(1).text("notes", { fields: ["body"] });
  // At once, with a copy of everything on another node; nobody else has opened anything.
  await vectors.upsert(items, { timeoutMs: 2_000 });
  await texts.upsert({ id: 1, fields: { body: "tea" } }, { timeoutMs: 2_000 });
  for (const node of nodes.nodes) {
    expect(await (await node.vectors("docs")).count()).toBe(COUNT);
    expect(await (await node.text("notes")).count()).toBe(1);
    await expect(node.vectors("docs", { ...OPTIONS, dimensions: 3 })).rejects.toThrow(
      /dimensions must be 2: current value is 3/,
    );
  }
  const held = await nodes.node(2).vectors("docs");
  expect(await nodes.node(1).dropVectors("docs")).toBe(true);
  for (const node of nodes.nodes) await expect(node.vectors("docs")).rejects.toThrow(code("ERR_UNKNOWN_COLLECTION"));
  await expect(held.count()).rejects.toThrow(code("ERR_UNKNOWN_COLLECTION"));
  // Another one of the name, with other options.
  const next = await nodes.node(2).vectors("docs", { ...OPTIONS, dimensions: 3 });
  await next.upsert({ id: 1, vector: [1, 2, 3] }, { timeoutMs: 2_000 });
  expect(await (await nodes.node(0).vectors("docs")).count()).toBe(1);
});

it("reach a node that was away before it is asked for them, and what was dropped meanwhile does not come back with it", async () => {
  const nodes = await start();
  for (const name of ["kept", "dropped"]) await nodes.node(1).vectors(name, OPTIONS);
  for (const other of [0, 2]) nodes.network.cut("n1", `n${other}`);
  const isAlone = (): boolean =>
    nodes
      .node(1)
      .linkStats()
      .every(({ state }) => state === "down");
  await eventually("it is cut off", isAlone);
  await nodes.node(0).vectors("new", OPTIONS);
  expect(await nodes.node(2).dropVectors("dropped")).toBe(true);
  await nodes.node(1).vectors("dropped", OPTIONS); // it has not heard
  for (const other of [0, 2]) nodes.network.heal("n1", `n${other}`);
  await nodes.whenWhole();
  const added = await nodes.node(2).vectors("new");
  await added.upsert(items, { timeoutMs: 5_000 });
  expect(await (await nodes.node(1).vectors("new")).count()).toBe(COUNT);
  await eventually("it has heard of the drop", () =>
    nodes
      .node(1)
      .vectors("dropped")
      .then(
        () => false,
        () => true,
      ),
  );
  for (const node of nodes.nodes) await expect(node.vectors("dropped")).rejects.toThrow(code("ERR_UNKNOWN_COLLECTION"));
  expect(await nodes.node(0).dropVectors("kept")).toBe(true);
  // A new life knows nothing, and is told before it may be asked.
  nodes.network.crash("n1");
  await nodes.node(1).close({ timeoutMs: 5_000 });
  const again = await nodes.startNode(1, 2);
  const found = await again.vectors("new");
  await nodes.whenWhole();
  expect(await found.count({ timeoutMs: 5_000 })).toBe(COUNT);
  for (const name of ["kept", "dropped"])
    await expect(again.vectors(name)).rejects.toThrow(code("ERR_UNKNOWN_COLLECTION"));
});

it("that two nodes have made differently while they could not reach each other are refused on both, until one is dropped", async () => {
  const nodes = await start({ replicationFactor: 1 });
  nodes.network.cut("n0", "n1");
  nodes.network.cut("n2", "n1");
  await eventually("it is cut off", () =>
    nodes
      .node(1)
      .linkStats()
      .every(({ state }) => state === "down"),
  );
  await nodes.node(0).vectors("docs", OPTIONS);
  await nodes.node(1).vectors("docs", { ...OPTIONS, dimensions: 3 });
  nodes.network.heal("n0", "n1");
  nodes.network.heal("n2", "n1");
  await nodes.whenWhole();
  for (const node of nodes.nodes)
    await eventually("it is refused", () =>
      node.vectors("docs").then(
        () => false,
        (error: unknown) => /dimensions must be [23]: current value is [23]/.test((error as Error).message),
      ),
    );
  expect(await nodes.node(1).dropVectors("docs")).toBe(true);
  await nodes.node(2).vectors("docs", OPTIONS);
  for (const node of nodes.nodes) expect((await node.vectors("docs")).options.dimensions).toBe(2);
});
