/**
 * A cluster that keeps its shards in NATS, over real threads and a real server: it goes on elsewhere with all that it had, workers die, the server is
 * frozen for longer than a call may take, is killed and comes back. What was acknowledged is there, and what cannot be done says so.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { openNatsNode } from "../../src/cluster-nats.ts";
import { resolveClusterOptions } from "../../src/cluster-options.ts";
import { ClusterStorage } from "../../src/cluster-storage.ts";
import { realPlatform } from "../../src/cluster-workers.ts";
import {
  Cluster,
  type ClusterOptions,
  type ShardloomError,
  type VectorCollection,
  type VectorDocument,
} from "../../src/index.ts";
import type { NodesOptions } from "../../src/plane/node-links.ts";
import type { AcknowledgedWrites } from "../support/acknowledged.ts";
import { eventually } from "../support/cluster.ts";
import { codeOf, kill, SABOTAGES } from "../support/copies.ts";
import { CALL_MS, LEASE_MS, openDocs, startInNats, writesInNats } from "../support/kept-in-nats.ts";
import { NatsServer } from "../support/nats-server.ts";

const LONG = process.env["SHARDLOOM_LONG"] === "1";
const ROUNDS = LONG ? 12 : 1;
/** What a call may fail with while the server or a worker is away. */
const TROUBLE = ["ERR_TIMEOUT", "ERR_IO", "ERR_UNAVAILABLE", "ERR_OVERLOADED", "ERR_WORKER_LOST", "ERR_QUORUM"];

let server: NatsServer;
const clusters: Cluster[] = [];
let stores = 0;

beforeAll(async () => {
  server = await NatsServer.start();
});
afterEach(async () => {
  for (const cluster of clusters.splice(0)) await cluster.close();
});
afterAll(() => server[Symbol.asyncDispose]());

async function start(store: string, options?: ClusterOptions): Promise<Cluster> {
  const cluster = await startInNats(server.url, store, options);
  clusters.push(cluster);
  return cluster;
}

function newStore(): string {
  return `test-${++stores}`;
}

async function closeAll(): Promise<void> {
  for (const cluster of clusters.splice(0)) await cluster.close();
}

/** The error of a start that must fail. */
async function refusal(options: ClusterOptions): Promise<ShardloomError> {
  try {
    clusters.push(await Cluster.start({ workers: 2, memoryBytes: 64 * 1024 * 1024, ...options }));
  } catch (error) {
    return error as ShardloomError;
  }
  throw new Error(`it has started with ${JSON.stringify(options)}`);
}

/** As `eventually`, and leaves the cores to the cluster meanwhile. */
async function whenSo(what: string, condition: () => boolean | Promise<boolean>, timeoutMs?: number): Promise<void> {
  await eventually(
    what,
    async () => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      return condition();
    },
    timeoutMs,
  );
}

describe("a cluster in NATS", () => {
  test("has vectors, payloads and texts in its next life, which is one at a time and of the same shape, also without one log", {
    timeout: 60_000,
  }, async () => {
    const store = newStore();
    const nats = { servers: [server.url], store };
    const count = 400;
    const patient = { servers: [server.url], store, timeoutMs: 5_000 }; // nothing of this is about a server that is late
    const first = await start(store, {
      replicationFactor: 2,
      snapshotBytes: 32 * 1024,
      nats: patient,
      leaseMs: 20_000,
    });
    const docs = await openDocs(first);
    const vectorOf = (id: number): number[] => [id, id % 7, 1, 0];
    // Enough of it for snapshots, after which the log before them goes.
    const documentOf = (id: number): VectorDocument => ({
      id,
      vector: vectorOf(id),
      payload: { id, filling: "y".repeat(700) },
    });
    for (let from = 0; from < count; from += 40)
      await docs.upsert(Array.from({ length: 40 }, (_, at) => documentOf(from + at)));
    await docs.delete([3, 4, 5]);
    const notes = await first.text("notes", { fields: ["body"] });
    await notes.upsert(Array.from({ length: 50 }, (_, id) => ({ id: `n${id}`, fields: { body: `number${id} dogs` } })));
    await notes.delete(["n7"]);
    const connection = await server.connect();
    const firstOf = async (shard: number): Promise<number> =>
      (await (await connection.openStream({ name: `${store}-shard-${shard}-log-1` }, CALL_MS)).bounds(CALL_MS)).first;
    for (const shard of [0, 1])
      await whenSo("snapshots make the log shorter", async () => {
        // Snapshots are taken while something is written.
        await docs.upsert(Array.from({ length: 40 }, (_, at) => documentOf(at + 10)));
        return (await firstOf(shard)) > 1;
      });
    expect(await refusal({ nats, vshards: 16, replicationFactor: 2 })).toMatchObject({
      code: "ERR_DIRECTORY_IN_USE",
      message: expect.stringContaining(store) as unknown,
    });
    await expect(first.snapshot("/nowhere/backup")).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await docs.upsert({ id: 3, vector: vectorOf(3), payload: { id: 3 } }); // it serves on
    await closeAll();
    expect(await refusal({ nats, vshards: 32, replicationFactor: 2 })).toMatchObject({
      code: "ERR_DIRECTORY_MISMATCH",
      details: { name: "vshards", expected: 32, value: 16 },
    });

    const again = await openDocs(await start(store, { replicationFactor: 2 }));
    expect(await again.count()).toBe(count - 2);
    const rows = await again.getMany(Array.from({ length: count }, (_, id) => id));
    for (const [id, row] of rows.entries()) {
      if (id === 4 || id === 5) expect(row).toBeUndefined();
      else {
        expect([...(row?.vector ?? [])]).toEqual(vectorOf(id));
        expect(row?.payload?.["id"]).toBe(id);
      }
    }
    const { hits } = await again.search(new Float32Array(vectorOf(17)), { k: 1, exact: true });
    expect(hits[0]?.id).toBe(17);
    const texts = await (clusters[0] as Cluster).text("notes");
    expect((await texts.search("dogs", { k: 100 })).hits).toHaveLength(49);
    expect((await texts.search("number9", { k: 3 })).hits.map(({ id }) => id)).toEqual(["n9"]);
    await closeAll();

    // Without its log a shard has what its copies have.
    await server.deleteStream(`${store}-shard-0-log-1`);
    const third = await start(store, { replicationFactor: 2 });
    expect(await (await openDocs(third)).count()).toBe(count - 2);
    await whenSo("copies are equal", async () => (await third.audit()).equal);
  });

  test("has everything acknowledged when workers die and the server is frozen, killed and back", {
    timeout: 120_000 * ROUNDS,
  }, async () => {
    const store = newStore();
    const cluster = await start(store);
    const docs = await openDocs(cluster);
    const writes = writesInNats(3 * CALL_MS);
    const goOn = (): Promise<void> => {
      const before = writes.acknowledgements;
      return whenSo("writes go on", () => writes.acknowledgements > before + 10, 30_000);
    };
    for (let round = 0; round < ROUNDS; round++) {
      writes.start(() => docs);
      await goOn();
      const back = new Promise((resolve) => cluster.once("worker-restarted", resolve));
      void kill(cluster, round % 2, SABOTAGES[round % 2]);
      await back;
      await goOn();
      await freeze(docs, writes);
      await goOn();
      await server.stop("SIGKILL");
      // A worker that dies meanwhile waits for the server.
      const lost = new Promise((resolve) => cluster.once("worker-lost", resolve));
      const backToo = new Promise((resolve) => cluster.once("worker-restarted", resolve));
      void kill(cluster, 1 - (round % 2));
      await lost;
      await server.startAgain();
      await backToo;
      await goOn();
      await writes.stop();
      await writes.check(docs);
      if (round % 4 === 3) await new Promise((resolve) => setTimeout(resolve, 60_000)); // or too many die in a minute
    }
    expect([...writes.codes.keys()].filter((code) => !TROUBLE.includes(code))).toEqual([]);
    await closeAll();
    await writes.check(await openDocs(await start(store)));
  });

  /** Freezes the server for longer than a call may take and the lease lasts. */
  async function freeze(docs: VectorCollection, writes: AcknowledgedWrites): Promise<void> {
    await server.freeze();
    // What it had done before is told for a while still.
    let atRest = -1;
    while (atRest !== writes.acknowledgements) {
      atRest = writes.acknowledgements;
      await new Promise((resolve) => setTimeout(resolve, CALL_MS));
    }
    await new Promise((resolve) => setTimeout(resolve, 3 * LEASE_MS));
    expect(writes.acknowledgements).toBe(atRest);
    expect(writes.codes.size).toBeGreaterThan(0);
    // Somebody else might have it by now, so strong reads are not answered either.
    expect(TROUBLE).toContain(await docs.get(1, { timeoutMs: CALL_MS }).then(String, codeOf));
    server.thaw();
  }

  test.skipIf(!LONG)("refuses what was in a stream that is gone and nowhere else", { timeout: 60_000 }, async () => {
    const store = newStore();
    const docs = await openDocs(await start(store));
    await docs.upsert(Array.from({ length: 40 }, (_, id) => ({ id, vector: [id, 1, 0, 0] })));
    await closeAll();
    await server.deleteStream(`${store}-shard-0-log-1`);
    const broken = await openDocs(await start(store));
    expect(await broken.count().then(String, codeOf)).toBe("ERR_CORRUPT");
  });
});

describe("options that cannot be", () => {
  test("are refused with what is wrong of them", async () => {
    const nats = { servers: [server.url] };
    const cases: [ClusterOptions, string][] = [
      [{ nats, directory: "/tmp/both" }, '"/tmp/both"'],
      [{ nats, durability: "os" }, '"os"'],
      [{ nats, documents: true }, "true"],
      [{ nats: { servers: [] } }, "nats.servers"],
      [{ nats: { servers: ["http://127.0.0.1:4222"] } }, '"http://127.0.0.1:4222"'],
      [{ nats: { ...nats, store: "a.b" } }, '"a.b"'],
      [{ nats: { ...nats, replicas: 2 } }, "2"],
      [{ nats: { ...nats, timeoutMs: 0 } }, "0"],
      [{ nats: { ...nats, bucket: "x" } as ClusterOptions["nats"] & object }, '"bucket"'],
      [{ nats: "nats://127.0.0.1:4222" as never }, '"nats://127.0.0.1:4222"'],
    ];
    for (const [options, value] of cases) {
      const error = await refusal(options);
      expect([error.code, error.message]).toEqual(["ERR_INVALID_ARGUMENT", expect.stringContaining(value)]);
    }
  });

  test("cannot be of another cluster than the store is of", async () => {
    const nats = { servers: [server.url], store: newStore() };
    const members = [{ name: "a", shards: [0] }];
    const open = (cluster: string): Promise<ClusterStorage | undefined> => {
      const nodes = { cluster, self: "a", incarnation: 1, members } as unknown as NodesOptions;
      const environment = { platform: realPlatform(), openNats: openNatsNode, nodes };
      return ClusterStorage.open(environment, resolveClusterOptions({ nats }));
    };
    await (await open("one"))?.close();
    await expect(open("two")).rejects.toMatchObject({
      code: "ERR_DIRECTORY_MISMATCH",
      details: { name: "cluster", expected: "two", value: "one" },
    });
    await (await open("one"))?.close();
  });

  test("name a server that is not there, or has no JetStream", async () => {
    const absent = "nats://127.0.0.1:9";
    expect(await refusal({ nats: { servers: [absent] }, startTimeoutMs: 500 })).toMatchObject({
      code: "ERR_UNAVAILABLE",
      message: expect.stringContaining(absent) as unknown,
    });
    const plain = await NatsServer.start({ jetStream: false });
    try {
      expect(await refusal({ nats: { servers: [plain.url], timeoutMs: 1_000 }, startTimeoutMs: 500 })).toMatchObject({
        code: "ERR_UNAVAILABLE",
      });
    } finally {
      await plain[Symbol.asyncDispose]();
    }
  });
});
