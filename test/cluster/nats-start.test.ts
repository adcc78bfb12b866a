/**
 * Starts while servers of NATS are not up yet, stand still, or start again: they wait, say so, and go on when the servers answer; or they end typed at
 * their limit. What no waiting mends is refused at once.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { openNode } from "../../src/cluster-wire.ts";
import { realPlatform } from "../../src/cluster-workers.ts";
import { Cluster, type ClusterOptions, type ServerWaiting, type ShardloomError } from "../../src/index.ts";
import { foundCluster, nodeOptions } from "../../src/node.ts";
import { eventually } from "../support/cluster.ts";
import { codeOf } from "../support/copies.ts";
import { CALL_MS, LEASE_MS, openDocs } from "../support/kept-in-nats.ts";
import { NatsServer } from "../support/nats-server.ts";
import { freePort } from "../support/node-process.ts";

const MIB = 1024 * 1024;
const AWAY = ["ERR_UNAVAILABLE", "ERR_TIMEOUT", "ERR_IO"];
const cleanups: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function serverOf(options?: Parameters<typeof NatsServer.start>[0]): Promise<NatsServer> {
  const server = await NatsServer.start(options);
  cleanups.push(() => server[Symbol.asyncDispose]());
  return server;
}

/** For calls to servers that are there: nobody is to wait for one that is slow. */
const PATIENT_MS = 10_000;

/** A start, and what it has said of its waiting. */
function begin(
  url: string,
  options: Pick<ClusterOptions, "startTimeoutMs"> = { startTimeoutMs: 60_000 },
  callMs: number = CALL_MS,
): { readonly cluster: Promise<Cluster>; readonly waited: readonly ServerWaiting[] } {
  const waited: ServerWaiting[] = [];
  const cluster = Cluster.start({
    workers: 1,
    vshards: 8,
    memoryBytes: 64 * MIB,
    leaseMs: LEASE_MS,
    nats: { servers: [url], store: "start", timeoutMs: callMs, onWaiting: (waiting) => void waited.push(waiting) },
    ...options,
  });
  cluster.then(
    (started) => cleanups.push(() => started.close()),
    () => undefined,
  );
  return { cluster, waited };
}

/** What was said of waiting follows on, within the limit. */
function expectProgress(waited: readonly ServerWaiting[], limitMs: number): void {
  expect(waited.map(({ tries }) => tries)).toEqual(waited.map((_, at) => at + 1));
  for (const [at, { elapsedMs, limitMs: said, error }] of waited.entries()) {
    expect(AWAY).toContain(error.code);
    expect(said).toBe(limitMs);
    expect(elapsedMs).toBeLessThanOrEqual(limitMs);
    expect(elapsedMs).toBeGreaterThanOrEqual(waited[at - 1]?.elapsedMs ?? 0);
  }
}

describe("a start with a server of NATS", () => {
  test("that is not up waits for it; that stands still, too; that starts again meanwhile, too; and has what was written", async () => {
    const server = await serverOf();
    await server.stop();
    const first = begin(server.url);
    await eventually("it waits", () => first.waited.length >= 2, 30_000);
    await server.startAgain();
    const docs = await openDocs(await first.cluster);
    await docs.upsert([{ id: 1, vector: [1, 2, 3, 4] }]);
    expectProgress(first.waited, 60_000);
    await (await first.cluster).close();

    await server.freeze();
    const second = begin(server.url);
    try {
      await eventually("it waits", () => second.waited.length >= 1, 30_000);
      await server.stop();
      await server.startAgain();
    } finally {
      server.thaw();
    }
    const again = await openDocs(await second.cluster);
    expect(await again.get(1)).toMatchObject({ id: 1 });
    expectProgress(second.waited, 60_000);
  }, 120_000);

  test("that never comes up ends typed at its limit, with what it has waited for", async () => {
    const url = `nats://127.0.0.1:${await freePort()}`;
    const { cluster, waited } = begin(url, { startTimeoutMs: 700 });
    const error = (await cluster.catch((reason: unknown) => reason)) as ShardloomError;
    expect([error.code, error.details, error.message]).toEqual([
      "ERR_UNAVAILABLE",
      { servers: [url], limitMs: 700 },
      expect.stringContaining("within 700 ms"),
    ]);
    expect(waited.length).toBeGreaterThan(0);
    expectProgress(waited, 700);
  });

  test("that does not let it in, or whose store is open elsewhere, is refused without waiting", async () => {
    const guarded = await serverOf({
      arguments: ["--user", "a", "--pass", "b"],
      connection: { user: "a", password: "b" },
    });
    const stranger = begin(guarded.url, undefined, PATIENT_MS);
    expect(await stranger.cluster.then(() => "started", codeOf)).toBe("ERR_UNAVAILABLE");
    expect(stranger.waited).toEqual([]);

    const server = await serverOf();
    await begin(server.url).cluster;
    const other = begin(server.url, undefined, PATIENT_MS);
    expect(await other.cluster.then(() => "started", codeOf)).toBe("ERR_DIRECTORY_IN_USE");
    expect(other.waited).toEqual([]);
  }, 60_000);
});

test("a node of several whose leases are in NATS waits for its servers, or ends typed at its limit", async () => {
  const server = await serverOf();
  await server.stop();
  const directory = await mkdtemp(join(tmpdir(), "shardloom-start-"));
  cleanups.push(() => rm(directory, { recursive: true, force: true }));
  const members = await Promise.all(
    ["a", "b"].map(async (name) => ({ name, address: `tls://127.0.0.1:${await freePort()}` })),
  );
  await foundCluster(directory, "a", { cluster: "waits", members, nats: [server.url] });
  const { node } = await nodeOptions(directory);
  const waited: ServerWaiting[] = [];
  const nats = { servers: [server.url], onWaiting: (waiting: ServerWaiting) => void waited.push(waiting) };
  const { runtime } = realPlatform();
  const refused = await openNode({ ...node, nats }, runtime, true, 300).catch((reason: unknown) => reason);
  expect(refused).toMatchObject({ code: "ERR_UNAVAILABLE", details: { limitMs: 300 } });
  expectProgress(waited.splice(0), 300);

  const opening = openNode({ ...node, nats }, runtime, true, 60_000);
  await eventually("it waits", () => waited.length >= 1, 30_000);
  await server.startAgain();
  const opened = await opening;
  cleanups.push(async () => opened.transport.close());
  expectProgress(waited, 60_000);
  expect(await opened.leases?.put("node/a", Uint8Array.of(1), 0, 5_000)).toBeGreaterThan(0);
}, 90_000);
