/** The memory that connected threads search in: all of it comes back when they leave, when a collection goes, and when they die. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { Cluster, VectorCollection } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";

const DIMENSIONS = 16;
const DOCUMENTS = 400;
const ROUNDS = 32;
/** More clients than the arena's directory of scratch has entries, in threads that die with all of theirs. */
const THREADS = process.env["SHARDLOOM_LONG"] === "1" ? 70 : 7;
const CLIENTS = 10;

let cluster: Cluster;
let threads: Worker[] = [];
beforeEach(async () => {
  cluster = await startTestCluster({ requestTimeoutMs: 20_000 });
});
afterEach(async () => {
  await Promise.all(threads.map((thread) => thread.terminate()));
  threads = [];
  await cluster.close();
});

const used = (): number => cluster.arena.stats().usedBytes;

function startThread(): Worker {
  const thread = new Worker(new URL("./connected-searches.worker.js", import.meta.url));
  threads.push(thread);
  return thread;
}

async function ask(thread: Worker, command: string, argument?: unknown): Promise<unknown> {
  thread.postMessage({ command, argument });
  return answerOf(thread);
}

async function answerOf(thread: Worker): Promise<unknown> {
  const [{ value, code }] = (await once(thread, "message")) as [{ value?: unknown; code?: string }];
  if (code !== undefined) throw new Error(`the thread ended with ${code}`);
  return value;
}

/** Connects the thread once more. */
async function connect(thread: Worker): Promise<void> {
  const { transferList, ...argument } = await cluster.port();
  thread.postMessage({ command: "connect", argument }, transferList);
  await answerOf(thread);
}

/** A collection that rests: all documents are linked, and searches are answered by the graph alone. */
async function fill(name: string): Promise<VectorCollection> {
  const docs = await cluster.vectors(name, { dimensions: DIMENSIONS, metric: "l2", strategy: "one-sided" });
  const random = createSeededRandom(1);
  const vector = (): Float32Array => Float32Array.from({ length: DIMENSIONS }, () => random.float());
  await docs.upsert(
    Array.from({ length: DOCUMENTS }, (_, id) => ({ id, vector: vector(), payload: { even: id % 2 === 0 } })),
  );
  await docs.indexed({ timeoutMs: 60_000 });
  return docs;
}

it("comes back when clients close, and nothing can be taken after", async () => {
  await fill("docs");
  const thread = startThread();
  let before = 0;
  for (let round = 0; round <= ROUNDS; round++) {
    await connect(thread);
    await ask(thread, "searches", "docs");
    expect(used()).toBeGreaterThan(before);
    expect(await ask(thread, "close")).toEqual(Array(5).fill("ERR_CLOSED"));
    if (round === 0) before = used(); // the shards have grown their own once
  }
  await eventually(`${before} bytes are used again`, () => used() === before);
});

it("comes back when its collection is dropped", async () => {
  const thread = startThread();
  await connect(thread);
  let before = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 5; round++) {
    await fill("docs");
    await ask(thread, "searches", "docs");
    const during = used();
    await cluster.dropVectors("docs");
    expect(await ask(thread, "dropped")).toBe("ERR_UNKNOWN_COLLECTION");
    // Workers give back what was theirs in their own time.
    await eventually(`no more than ${before} bytes are used`, () => used() <= before && used() < during);
    before = used();
  }
});

it("comes back when threads die in the middle of searches, and those who live keep theirs", async () => {
  await fill("docs");
  const survivor = startThread();
  await connect(survivor);
  const known = await ask(survivor, "searches", "docs");
  const before = used();
  for (let at = 0; at < THREADS; at++) {
    const thread = startThread();
    for (let client = 1; client < CLIENTS; client++) {
      await connect(thread);
      expect(await ask(thread, "search", "docs")).toBe("one-sided");
    }
    await connect(thread);
    expect(await ask(thread, "searches", "docs")).toEqual(known);
    await ask(thread, at % 2 === 0 ? "searchOnAndOn" : "searchManyOnAndOn");
    const { allocations } = cluster.arena.stats();
    if (at % 2 === 1) await eventually("copies are taken", () => cluster.arena.stats().allocations > allocations);
    await thread.terminate();
  }
  await eventually(`${before} bytes are used again`, () => used() === before);
  expect(await ask(survivor, "searches", "docs")).toEqual(known);
  await connect(survivor);
  expect(await ask(survivor, "searches", "docs")).toEqual(known);
});
