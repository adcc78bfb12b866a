/** `shardloom node` and `shardloom cluster`: three processes found a cluster, store and find together, die, stand still and come back. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cluster } from "../../src/cli/cluster.ts";
import { node as nodeCommand } from "../../src/cli/node.ts";
import { type AuditReport, mergeAudits } from "../../src/index.ts";
import { eventually, startTestCluster } from "../support/cluster.ts";
import { type Finished, shardloom, shardloomHere } from "../support/command.ts";
import { NatsServer } from "../support/nats-server.ts";
import { NODE_NAMES, type NodeName, ThreeNodes } from "../support/node-process.ts";
import { DOCUMENTS_PER_NODE, readTexts, TEXT_OPTIONS, textsOf, vectorOf } from "../support/node-program.ts";

const NAMES = NODE_NAMES;
const LONG = process.env["SHARDLOOM_LONG"] === "1";

let root = "";
let nodes: ThreeNodes;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-nodes-"));
  nodes = new ThreeNodes(root);
});
afterEach(async () => {
  await nodes.kill();
  await rm(root, { recursive: true, force: true });
});

/** The commands that are asked most, without a process for each. */
const ask = (...args: string[]): Promise<Finished> => shardloomHere([cluster, nodeCommand], ...args);

/** The nearest of all documents to what the program looks for, as one who holds all would find them. */
function nearest(): string[] {
  const all = NAMES.flatMap((_, node) =>
    Array.from({ length: DOCUMENTS_PER_NODE }, (__, at) => {
      const [x, y] = Float32Array.from(vectorOf(node, at)) as unknown as [number, number];
      return { id: `${node}-${at}`, distance: (x - 0.5) ** 2 + (y - 0.5) ** 2 };
    }),
  );
  return all
    .sort((a, b) => a.distance - b.distance)
    .slice(0, 20)
    .map(({ id }) => id);
}

const WHOLE = { ids: nearest(), complete: true, count: NAMES.length * DOCUMENTS_PER_NODE };

async function storeAll(): Promise<void> {
  for (const name of NAMES) expect(await nodes.at(name).ask("store")).toMatchObject({ stored: DOCUMENTS_PER_NODE });
}

async function expectWhole(names: readonly NodeName[] = NAMES): Promise<void> {
  for (const name of names) expect(await nodes.at(name).ask("find"), name).toMatchObject(WHOLE);
}

/** Every node finds among the texts of all what one process finds that has all of them. */
async function expectTextsOfOneProcess(): Promise<void> {
  await using alone = await startTestCluster({ workers: 1 });
  const texts = await alone.text("texts", TEXT_OPTIONS);
  for (const [at, name] of NAMES.entries()) {
    expect(await nodes.at(name).ask("write")).toMatchObject({ written: textsOf(at).length });
    await texts.upsert(textsOf(at));
  }
  const expected = await readTexts(texts);
  expect(expected).toMatchObject({ count: 180 });
  for (const name of NAMES) expect(await nodes.at(name).ask("read"), name).toMatchObject(expected);
}

/** Whether all copies of all nodes hold the same. */
async function areLevel(): Promise<boolean> {
  const reports = await Promise.all(NAMES.map((name) => nodes.at(name).ask("audit")));
  return mergeAudits(reports as unknown as AuditReport[]).equal;
}

describe("three nodes of a cluster, as processes", { timeout: 120_000 }, () => {
  it("find what each of them stores, go on when one dies or stands still, and end in order", async () => {
    await nodes.found("--copies", "2");
    await storeAll();
    await expectWhole();
    await expectTextsOfOneProcess();
    const kept = await ask("cluster", "remove", "b", "--json", "--data", join(root, "a"));
    expect(kept.objects[0]).toMatchObject({
      error: { code: "ERR_UNAVAILABLE", message: expect.stringContaining("without NATS vshards stay") as string },
    });

    await nodes.at("b").end("SIGKILL");
    await eventually("b is missed", async () => (await nodes.seenBy("a"))[1]?.state === "down", 10_000);
    expect(await nodes.at("c").ask("look")).toMatchObject(WHOLE); // copies answer
    const dead = await shardloom("cluster", "status", "--json", "--data", join(root, "b"));
    expect(dead.objects[0]).toMatchObject({ error: { code: "ERR_UNAVAILABLE" } });
    await nodes.start("b").next("serving");
    await nodes.allUp();
    expect((await nodes.seenBy("c"))[1]).toMatchObject({ node: "b", incarnation: 2 });
    await expectWhole();

    nodes.at("c").pause();
    await eventually("c is missed", async () => (await nodes.seenBy("a"))[2]?.state === "down", 15_000);
    nodes.at("c").resume();
    await nodes.allUp();
    expect((await nodes.seenBy("a"))[2]).toMatchObject({ node: "c", incarnation: 1 });
    await expectWhole();

    for (const name of NAMES) expect(await nodes.at(name).end("SIGTERM"), nodes.at(name).log).toBe(0);
    for (const name of NAMES) expect(nodes.at(name).log).toContain('"msg":"closed"');
  });

  it.each(LONG ? ["directories", "NATS"] : ["NATS"])(
    "with leases in NATS and shards in %s lose a node and go on writing and reading strongly, and take it back",
    async (place) => {
      await using nats = await NatsServer.start();
      await nodes.found("--copies", "3", "--nats", nats.url, ...(place === "NATS" ? ["--keep", "nats"] : []));
      for (const name of ["a", "b"] as const) await nodes.at(name).ask("store");
      await nodes.at("b").end("SIGKILL");
      // Who comes in its place answers within the time that a read waits.
      expect(await nodes.at("c").ask("store")).toMatchObject({ stored: DOCUMENTS_PER_NODE });
      await expectWhole(["a", "c"]);
      await nodes.start("b").next("serving");
      await nodes.allUp();
      await expectWhole();
      // Writes need a quorum, and the copies of b were gone: until they are level eventual reads may miss some.
      await eventually("all copies are level", areLevel, 20_000);
      // Without NATS leases end: nobody serves what another might, and nothing is lost.
      await nats.freeze();
      await eventually(
        "strong reads end typed",
        async () => (await nodes.at("a").ask("find-now"))["error"] === "ERR_UNAVAILABLE",
        20_000,
      );
      expect(await nodes.at("a").ask("look")).toMatchObject(WHOLE);
      nats.thaw();
      await expectWhole();
      if (place === "NATS") for (const name of NAMES) expect(await readdir(join(root, name))).not.toContain("shards");
      if (!LONG) return;
      for (const name of NAMES) await nodes.at(name).end("SIGKILL");
      for (const name of NAMES) nodes.start(name);
      for (const name of NAMES) await nodes.at(name).next("serving");
      await nodes.allUp();
      await expectWhole();
    },
  );

  it("show their cluster as tables, and refuse what is not theirs", async () => {
    await nodes.found();
    const status = await shardloom("cluster", "status", "--data", join(root, "c"));
    expect(status.stdout).toMatch(/c \(asked\)\s+up\s+yes\s+1\s+1/);
    expect(status.stdout).toContain("Everything is up.");
    const drained = await ask("cluster", "drain", "1", "--json", "--data", join(root, "b"));
    expect(drained.objects).toEqual([{ action: "drain", shard: 1, changed: true }]);
    expect((await ask("cluster", "shards", "--data", join(root, "b"))).stdout).toMatch(/1\s+b\s+draining/);
    expect((await ask("cluster", "resume", "1", "--json", "--data", join(root, "b"))).code).toBe(0);
    const all = await ask("cluster", "rebalance", "--dry-run", "--json", "--data", join(root, "b"));
    expect(all.objects[0]).toEqual({ node: "b", moves: [] });
    const less = await ask("cluster", "rebalance", "--dry-run", "--without", "c", "--data", join(root, "b"));
    expect(less.stdout).toMatch(/\d+\s+2\s+[01]\s+primary\s+removed\n/);
    expect(less.stdout).toMatch(/\n[1-9]\d* moves; nothing was moved\.\n/);
    expect((await ask("cluster", "rebalance", "--data", join(root, "b"))).code).toBe(2);
    const refused = await ask("cluster", "drain", "7", "--json", "--data", join(root, "b"));
    expect(refused.code).toBe(1);
    expect(refused.objects[0]).toMatchObject({ error: { code: "ERR_INVALID_ARGUMENT" } });
    const removed = await ask("cluster", "remove", "1", "--json", "--data", join(root, "b"));
    expect(removed.code).toBe(1);
    expect(removed.objects[0]).toMatchObject({
      error: { code: "ERR_UNAVAILABLE", message: expect.stringContaining("shards of several nodes stay") as string },
    });

    const alone = await ask("cluster", "remove", "b", "--json", "--data", join(root, "a"));
    expect(alone.objects[0]).toMatchObject({
      error: { code: "ERR_UNAVAILABLE", message: expect.stringContaining("every vshard has one copy") as string },
    });

    const codeOf = async (...args: string[]): Promise<unknown> => {
      const { code, objects } = await ask("node", "--json", ...args);
      expect(code).toBe(1);
      return (objects.at(-1) as { error: { code: string } }).error.code;
    };
    expect(["ERR_UNAVAILABLE", "ERR_DIRECTORY_IN_USE"]).toContain(await codeOf("--data", join(root, "a")));
    const founding = ["--found", "demo", "--name", "a", "--members", nodes.members];
    expect(await codeOf("--data", join(root, "a"), ...founding)).toBe("ERR_FILE_EXISTS");
    const used = nodes.invitations.find(({ node }) => node === "b")?.["invitation"] as string;
    expect(await codeOf("--data", join(root, "again"), "--join", used)).toBe("ERR_UNTRUSTED");
    expect(await codeOf("--data", join(root, "again"), "--join", used.slice(0, 200))).toBe("ERR_CORRUPT");
    expect(await codeOf("--data", join(root, "nobody"))).toBe("ERR_NO_FILE");
    // Whatever is not TLS is no address, on loopback neither.
    expect(await codeOf("--data", join(root, "a"), "--listen", "http://127.0.0.1:7401")).toBe("ERR_INVALID_ARGUMENT");
    const usage = await ask("node", "--data", join(root, "again"), "--members", nodes.members);
    expect(usage.code).toBe(2);
    const nowhere = await ask("node", "--data", join(root, "again"), ...founding, "--keep", "nats");
    expect([nowhere.code, nowhere.stderr]).toEqual([2, expect.stringContaining("--keep nats needs --nats")]);
  });
});
