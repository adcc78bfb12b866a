/** Two processes: one reads what the other has registered, a graph's vertices among it; what becomes of that when keys, workers and the process go. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { realPlatform } from "../../src/cluster-workers.ts";
import {
  Cluster,
  type GraphVertex,
  type RegionRef,
  type ShardReader,
  STATUS,
  statusName,
  type VectorCollection,
} from "../../src/index.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { MEMBER_STATE } from "../../src/topology/snapshot.ts";
import { createWireTransport } from "../../src/transport/wire-transport.ts";
import { saboteur } from "../support/actors.ts";
import { eventually, keyOnShard } from "../support/cluster.ts";
import { TestAuthority } from "../support/test-certificates.ts";
import { identifyTestNode } from "../support/wire-nodes.ts";
import { transportOf } from "../transport/under-test.ts";
import { ACTOR_URLS, MEMORY_NODES, MEMORY_OPTIONS, type MemoryCommand, patternAt } from "./memory-nodes.ts";

const CHILD = fileURLToPath(new URL("./memory.child.js", import.meta.url));
const OPTIONS = { dimensions: 6, metric: "l2", strategy: "one-sided", connectivity: 4, scanRows: 20 } as const;
const COUNT = 300;
/** Shards of the other process. */
const THERE = [1, 2];

let child: ChildProcess;
let here: Cluster;
let docs: VectorCollection;

async function tell<T>(command: MemoryCommand): Promise<T> {
  const answer = once(child, "message");
  child.send(command);
  return (await answer)[0] as T;
}

function vectorOf(id: number): Float32Array {
  return Float32Array.from({ length: OPTIONS.dimensions }, (_, at) => Math.sin(id * 1.7 + at * at) * 10);
}

beforeAll(async () => {
  const authority = await TestAuthority.create();
  const [{ name: self }, { name: peer }] = MEMORY_NODES;
  child = fork(CHILD, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const { address } = await tell<{ address: string }>({ do: "start", credentials: await authority.issue(peer) });
  const transport = await createWireTransport({
    scheduler: systemScheduler,
    cluster: "test",
    self,
    transports: [transportOf("tls")],
    listen: [],
    addressOf: () => new URL(address),
    credentials: await authority.issue(self),
    identify: identifyTestNode,
  });
  const nodes = { self, incarnation: 1, members: MEMORY_NODES, transport };
  const options = { ...MEMORY_OPTIONS, workers: 1, actors: ACTOR_URLS };
  here = await Cluster.startOn({ platform: realPlatform(), nodes }, options);
  await eventually("all shards serve", () => here.topology.states.every((state) => state === MEMBER_STATE.UP), 30_000);
  docs = await here.vectors("docs", OPTIONS);
  await docs.upsert(Array.from({ length: COUNT }, (_, id) => ({ id, vector: vectorOf(id) })));
  await docs.indexed({ timeoutMs: 30_000 });
}, 60_000);

afterAll(async () => {
  child?.kill("SIGKILL");
  await here?.close({ timeoutMs: 5_000 });
});

describe("a region of another process", () => {
  const LENGTH = 150_001;

  it("is read whole, in several messages, until its key is revoked", async () => {
    const ref = await tell<RegionRef>({ do: "register", byteLength: LENGTH, isCell: false });
    const reader = here.readerOf(1);
    const bytes = await reader.bytes(ref);
    expect(bytes.length).toBe(LENGTH);
    expect(bytes.findIndex((byte, at) => byte !== patternAt(at))).toBe(-1);
    const target = new Uint8Array(LENGTH).fill(1);
    const local = { opcode: 1, local: target };
    const wrong = { ...ref, rkey: ref.rkey + 4_096 };
    const { completions, by, messages } = await reader.post([
      { id: 1, ref: wrong, ...local },
      { id: 2, ref: { ...ref, length: LENGTH + 1 }, opcode: 1, local: new Uint8Array(LENGTH + 1) },
      { id: 3, ref, ...local, local: new Uint8Array(LENGTH) },
    ]);
    expect(completions.map(({ status }) => statusName(status))).toEqual(["INVALID_RKEY", "OUT_OF_BOUNDS", "SUCCESS"]);
    expect(by).toBe("message");
    expect(messages).toBeGreaterThan(2);
    expect(target.every((byte) => byte === 1)).toBe(true);
    await tell({ do: "deregister", ref });
    expect(await reader.read(ref, target)).toEqual({ status: STATUS.REGION_REVOKED, by: "message" });
    expect(target.every((byte) => byte === 1)).toBe(true);
    await expect(here.readerOf(2).bytes(ref)).rejects.toMatchObject({
      code: "ERR_REGION_ACCESS",
      retryable: false,
      details: { shard: 2, status: "REGION_REVOKED", address: ref.address, rkey: ref.rkey, length: LENGTH },
    });
  });

  it("gives one version of a cell that is larger than a message and is written meanwhile, or none", async () => {
    const ref = await tell<RegionRef>({ do: "register", byteLength: 200_000, isCell: true });
    await tell({ do: "write", ref });
    const values = new Set<number>();
    await eventually(
      "some versions were read",
      async () => {
        const target = new Uint8Array(ref.length).fill(0);
        const { status } = await here.readerOf(1).read(ref, target);
        if (status === STATUS.SUCCESS) {
          const [first] = target.subarray(32);
          expect(target.findIndex((value, at) => at >= 32 && value !== first)).toBe(-1);
          values.add(first as number);
        } else {
          expect(statusName(status)).toBe("RETRY_EXCEEDED");
          expect(target.every((value) => value === 0)).toBe(true);
        }
        return values.size > 3;
      },
      60_000,
    );
  });
});

describe("a graph in another process", () => {
  /** Everything that can be reached from where searches begin. */
  async function walk(shard: number): Promise<GraphVertex[]> {
    const memory = docs.memory(here.readerOf(shard));
    const seen = new Map<number, GraphVertex>();
    for (let next = [...(await memory.entries())]; next.length > 0; ) {
      const found = (await memory.vertices(next)).filter((vertex) => vertex !== undefined);
      for (const vertex of found) seen.set(vertex.vertex, vertex);
      next = [...new Set(found.flatMap(({ neighbours }) => neighbours))].filter((vertex) => !seen.has(vertex));
    }
    expect(memory.by).toBe("message");
    return [...seen.values()];
  }

  const owned = (shards: readonly number[]): number[] =>
    Array.from({ length: COUNT }, (_, id) => id).filter((id) => shards.includes(here.shardOfId(id)));

  it("is walked over its vertices, with vectors, neighbours, ids and versions", async () => {
    const vertices = (await walk(1)).filter(({ isDeleted }) => !isDeleted);
    expect(new Set(vertices.map(({ shard }) => shard))).toEqual(new Set(THERE));
    const memory = docs.memory(here.readerOf(1));
    const documents = await memory.documents(vertices);
    expect(new Set(documents.map((document) => document?.id))).toEqual(new Set(owned(THERE)));
    expect(documents.length).toBe(owned(THERE).length);
    const stored = await docs.getMany(documents.map((document) => document?.id as number));
    for (const [at, vertex] of vertices.entries()) {
      const document = documents[at];
      expect(document).toMatchObject({ id: stored[at]?.id, version: stored[at]?.version, vector: stored[at]?.vector });
      expect(new Float32Array(vertex.code.buffer)).toEqual(vectorOf(document?.id as number));
      expect(vertex).toMatchObject({ isDeleted: false, isLinked: true });
      expect(vertex.neighbours.length).toBeGreaterThan(0);
      expect(vertex.neighbours.length).toBeLessThanOrEqual(2 * OPTIONS.connectivity);
    }
    expect(memory.messages).toBeLessThan(12);
    const ranges = await memory.ranges();
    const mine = vertices.filter(({ shard }) => shard === 1);
    for (const { vertex } of mine)
      expect(ranges.some(({ first, count }) => vertex >= first && vertex < first + count)).toBe(true);
    // Of this process's own shard it is the same by verbs.
    const own = docs.memory(here.readerOf(0));
    const [entry] = await own.vertices(await own.entries());
    expect(own).toMatchObject({ by: "one-sided", messages: 0 });
    const [document] = await own.documents([entry as GraphVertex]);
    expect(owned([0])).toContain(document?.id);
    expect(await memory.vertices([2 ** 31 - 1, -1, 0.5])).toEqual([undefined, undefined, undefined]);
  });

  it("is searched by its own workers, and the nearest of both processes are merged", async () => {
    for (const id of [...owned([0]).slice(0, 3), ...owned(THERE).slice(0, 3)]) {
      const { hits, by, fallback, completeness, explain } = await docs.search(vectorOf(id), { k: 3, explain: true });
      expect(hits[0]).toMatchObject({ id, score: 0 });
      expect(explain?.ways?.map(({ plan }) => plan)).toEqual(["index", "index", "index"]);
      expect({ by, fallback, complete: completeness.complete }).toEqual({
        by: "scatter",
        fallback: "nodes",
        complete: true,
      });
    }
  });

  it("shows what was written since, and no document that has gone", async () => {
    const vertices = (await walk(1)).filter(({ isDeleted }) => !isDeleted);
    const memory = docs.memory(here.readerOf(1));
    const before = await memory.documents(vertices);
    const [gone, changed] = before.map((document) => document?.id as number);
    await docs.delete(gone as number);
    await docs.upsert({ id: changed as number, vector: vectorOf(changed as number).map((x) => x + 1) });
    const after = await memory.documents(vertices);
    expect(after[0]).toBeUndefined();
    expect(after[1]?.version).toBeGreaterThan(before[1]?.version as number);
    expect(after[1]?.vector).toEqual(vectorOf(changed as number).map((x) => x + 1));
    expect(after.slice(2)).toEqual(before.slice(2));
    const old = before[0]?.region as RegionRef;
    expect(await here.readerOf(1).read(old, new Float32Array(OPTIONS.dimensions))).toMatchObject({
      status: STATUS.STALE_CELL,
    });
    await docs.upsert([gone, changed].map((id) => ({ id: id as number, vector: vectorOf(id as number) })));
  });

  it("has other keys once its worker was replaced: old ones are revoked, and those who read by collection go on", async () => {
    const memory = docs.memory(here.readerOf(1));
    const vertices = (await walk(1)).filter(({ shard, isDeleted }) => shard === 1 && !isDeleted);
    const [document] = await memory.documents(vertices);
    const { region } = document as { region: RegionRef };
    const target = new Float32Array(OPTIONS.dimensions);
    expect(await here.readerOf(1).read(region, target)).toEqual({ status: STATUS.SUCCESS, by: "message" });
    const victim = here.actor(saboteur, keyOnShard(here, saboteur, 1));
    await expect(victim.exit(1)).rejects.toMatchObject({ code: "ERR_WORKER_LOST" });
    await eventually("its successor answers, and knows the old key", () => isRevoked(here.readerOf(1), region), 30_000);
    // So does any other worker of that process.
    expect(await isRevoked(here.readerOf(2), region)).toBe(true);
    await eventually("the collection is read by new keys", async () => {
      const [again] = await memory.documents(vertices.slice(0, 1)).catch(() => []);
      return again?.id === document?.id && again?.region.rkey !== region.rkey;
    });
  });
});

async function isRevoked(reader: ShardReader, ref: RegionRef): Promise<boolean> {
  const target = new Float32Array(OPTIONS.dimensions);
  const read = await reader.read(ref, target).catch((error: unknown) => error);
  if (read instanceof Error) {
    expect(read).toMatchObject({ code: expect.stringMatching(/^ERR_(WORKER_LOST|UNAVAILABLE)$/) });
    return false;
  }
  const { status } = read as { status: number };
  if (status === STATUS.SUCCESS) return false; // nobody has taken it over yet
  expect([target.every((value) => value === 0), statusName(status)]).toEqual([true, "REGION_REVOKED"]);
  return true;
}

describe("a process that is gone", () => {
  it("ends reads typed: by their deadline while it stands still, at once when it has ended", async () => {
    const ref = await tell<RegionRef>({ do: "register", byteLength: 64, isCell: false });
    const large = await tell<RegionRef>({ do: "register", byteLength: 1_000_000, isCell: false });
    const reader = here.readerOf(2);
    child.kill("SIGSTOP");
    const half = expect(reader.bytes(large)).rejects.toMatchObject({
      code: "ERR_WORKER_LOST",
      details: { node: "there" },
    });
    await expect(reader.bytes(ref, { timeoutMs: 300 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    const aborted = AbortSignal.abort();
    await expect(reader.bytes(ref, { signal: aborted })).rejects.toMatchObject({ code: "ERR_ABORTED" });
    child.kill("SIGKILL");
    await half;
    const codes = new Set<string>();
    await eventually("it is known to be gone", async () => {
      const error = await reader.bytes(ref, { timeoutMs: 5_000 }).catch((caught: unknown) => caught);
      const { code } = error as { code: string };
      codes.add(code);
      return code === "ERR_UNAVAILABLE";
    });
    for (const code of codes) expect(["ERR_UNAVAILABLE", "ERR_WORKER_LOST", "ERR_TIMEOUT"]).toContain(code);
    const memory = docs.memory(reader);
    await expect(memory.entries()).rejects.toMatchObject({ code: "ERR_UNAVAILABLE" });
  });
});
