import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { expect, it } from "vitest";
import { Cluster, hybridSearch, STATUS } from "../../src/index.ts";
import { cart } from "./cart.ts";
import type { ReadTask } from "./one-sided-reader.worker.ts";

const MEMORY = { workers: 2, memoryBytes: 64 * 1024 * 1024 };

it("stores and searches vectors in a few lines", async () => {
  await using cluster = await Cluster.start(MEMORY);
  const docs = await cluster.vectors("docs", { dimensions: 3, metric: "cosine" });
  await docs.upsert([
    { id: "a", vector: [1, 0, 0], payload: { lang: "en" } },
    { id: "b", vector: [0.9, 0.1, 0], payload: { lang: "de" } },
  ]);
  const { hits, completeness } = await docs.search([1, 0, 0], { k: 10, filter: { lang: "de" }, timeoutMs: 2_000 });
  expect(hits).toMatchObject([{ id: "b", payload: { lang: "de" } }]);
  expect(completeness.complete).toBe(true);
});

it("talks to an actor of one's own through a typed reference", async () => {
  await using cluster = await Cluster.start({ ...MEMORY, actors: [new URL("./cart.js", import.meta.url)] });
  const alice = cluster.actor(cart, "alice");
  expect(await alice.add({ sku: "tea", quantity: 2 }, { timeoutMs: 2_000 })).toBe(1);
  void alice.tell.add({ sku: "tea", quantity: 3 });
  expect(await alice.lines()).toEqual([["tea", 5]]);
});

it("reads a vector one-sidedly, here and on a thread that is no part of the cluster", async () => {
  await using cluster = await Cluster.start(MEMORY);
  const docs = await cluster.vectors("docs", { dimensions: 4, metric: "l2" });
  await docs.upsert({ id: "a", vector: [1, 2, 3, 4] });
  const region = docs.region("a");
  if (region === undefined) throw new Error("a is stored");

  const target = new Float32Array(4);
  expect(cluster.reader().read(region, target)).toBe(STATUS.SUCCESS);
  expect([...target]).toEqual([1, 2, 3, 4]);

  const workerData: ReadTask = { memory: cluster.arena.memory, region };
  const thread = new Worker(new URL("./one-sided-reader.worker.js", import.meta.url), { workerData });
  expect(await once(thread, "message")).toEqual([{ status: "SUCCESS", vector: [1, 2, 3, 4] }]);
  await docs.delete("a");
  expect(cluster.reader().read(region, target)).toBe(STATUS.STALE_CELL);
});

it("keeps copies, reads what a session wrote, and explains itself", async () => {
  await using cluster = await Cluster.start({ ...MEMORY, workers: 3, replicationFactor: 3 });
  const docs = await cluster.vectors("docs", { dimensions: 3, metric: "cosine" });
  const session = cluster.session();
  await docs.upsert([{ id: "a", vector: [1, 0, 0] }], { acks: "quorum", session });
  const { hits, explain } = await docs.search([1, 0, 0], {
    session,
    strategy: "power-of-two",
    timeoutMs: 2_000,
    tenant: "alice",
    explain: true,
  });
  expect(hits).toMatchObject([{ id: "a" }]);
  expect(explain?.plan).toMatchObject({ strategy: "scatter", consistency: "session", copies: "power-of-two" });
});

it("searches texts, alone and with vectors", async () => {
  await using cluster = await Cluster.start(MEMORY);
  const notes = await cluster.text("notes", { language: "english", positions: true });
  const docs = await cluster.vectors("docs", { dimensions: 3, metric: "cosine" });
  await notes.upsert([{ id: "a", text: "A ring with one producer and one consumer" }]);
  await docs.upsert([{ id: "a", vector: [1, 0, 0] }]);
  expect((await notes.search('"one producer" ring', { scoring: "bm25" })).hits).toMatchObject([{ id: "a" }]);
  const both = await hybridSearch(notes, docs, { text: "ring", vector: [1, 0, 0] }, { fusion: "rank" });
  expect(both.hits).toMatchObject([{ id: "a", text: { rank: 1 }, vector: { rank: 1 } }]);
});

it("works in steps with members anywhere", async () => {
  await using cluster = await Cluster.start(MEMORY);
  const days = await cluster.barrier("days", { phases: ["sense", "act"], members: ["a", "b"] });
  const sensed = days.arrive("a", "sense");
  await days.arrive("b", "sense");
  expect(await sensed).toMatchObject({ phase: "sense", arrived: 2 });
});
