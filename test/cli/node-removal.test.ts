/** `shardloom cluster remove NODE` over three processes: what a node had is elsewhere, whoever dies in the middle, and nothing is given up unasked. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cluster } from "../../src/cli/cluster.ts";
import type { NodeRow, NodeStatus } from "../../src/cli/node-control.ts";
import { type AuditReport, mergeAudits, type NodeRemovalReport } from "../../src/index.ts";
import { eventually } from "../support/cluster.ts";
import { type Finished, shardloom, shardloomHere } from "../support/command.ts";
import { NatsServer } from "../support/nats-server.ts";
import { NODE_NAMES, type NodeName, type Said, ThreeNodes } from "../support/node-process.ts";
import { DOCUMENTS_PER_NODE } from "../support/node-program.ts";

const LONG = process.env["SHARDLOOM_LONG"] === "1";
const COUNT = NODE_NAMES.length * DOCUMENTS_PER_NODE;
const STAYING = ["a", "c"] as const;

let root = "";
let nodes: ThreeNodes;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-removal-"));
  nodes = new ThreeNodes(root);
});
afterEach(async () => {
  await nodes.kill();
  await rm(root, { recursive: true, force: true });
});

const remove = (asked: NodeName, node: string, ...more: string[]): Promise<Finished> =>
  shardloomHere([cluster], "cluster", "remove", node, "--json", "--data", join(root, asked), ...more);

async function refusal(...args: Parameters<typeof remove>): Promise<unknown> {
  const { code, objects } = await remove(...args);
  expect(code).toBe(1);
  return (objects[0] as { error: unknown }).error;
}

async function begin(...options: string[]): Promise<void> {
  await nodes.found("--copies", "2", ...options);
  for (const name of NODE_NAMES)
    expect(await nodes.at(name).ask("store")).toMatchObject({ stored: DOCUMENTS_PER_NODE });
}

async function expectWhole(): Promise<void> {
  for (const name of STAYING)
    expect(await nodes.at(name).ask("find"), name).toMatchObject({ complete: true, count: COUNT });
}

const rowOf = ({ nodes: rows }: NodeStatus, node: string): NodeRow | undefined => rows.find((row) => row.node === node);

/** Both that stay say that b is gone, and have two copies of everything that are equal. */
async function expectRemoved(): Promise<void> {
  await eventually(
    "b is removed for both",
    async () => {
      const seen = await Promise.all(STAYING.map((name) => nodes.statusOf(name)));
      return seen.every((status) => rowOf(status, "b")?.state === "removed");
    },
    20_000,
  );
  for (const name of STAYING) {
    const { shards } = await nodes.statusOf(name);
    expect(shards.map(({ node, copies }) => [node, copies])).toEqual([
      ["a", 16],
      ["c", 16],
    ]);
  }
  const isLevel = async (): Promise<boolean> => {
    const reports = await Promise.all(STAYING.map((name) => nodes.at(name).ask("audit")));
    const report = mergeAudits(reports as unknown as AuditReport[]);
    return report.equal && report.copies === 32;
  };
  await eventually("copies are level", isLevel, 30_000);
  await expectWhole();
}

describe("a node that is removed", { timeout: 120_000 }, () => {
  it("gives what it has to the others, ends, and is refused when it comes back", async () => {
    await using nats = await NatsServer.start();
    await begin("--nats", nats.url);
    const leaving = nodes.at("b");
    expect(await refusal("a", "nobody")).toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await nats.freeze();
    expect(await refusal("a", "b", "--timeout", "1")).toMatchObject({ code: "ERR_TIMEOUT" });
    nats.thaw();
    await expectWhole();
    const { objects, code, stderr } = await remove("a", "b");
    expect(code, stderr).toBe(0);
    const report = objects[0] as unknown as NodeRemovalReport;
    expect(report).toMatchObject({ action: "remove", node: "b", shards: [1], filling: [], givenUp: [] });
    expect(report.copies).toBeGreaterThan(0);
    expect(await leaving.next("removed")).toMatchObject({ node: "b", cluster: "demo" });
    await eventually("b has ended", () => leaving.code !== undefined, 20_000);
    expect(leaving.code, leaving.log).toBe(0);
    await expectRemoved();

    const back = await shardloom("node", "--json", "--data", join(root, "b"));
    expect([back.code, back.objects.at(-1)]).toEqual([
      1,
      {
        error: expect.objectContaining({
          code: "ERR_UNTRUSTED",
          message: expect.stringContaining("node b as it was removed from its cluster") as string,
        }) as unknown,
      },
    ]);
    expect(await refusal("a", "b")).toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    // What they have is on their disks, and so is who is there no more.
    await Promise.all(STAYING.map((name) => nodes.at(name).end("SIGKILL")));
    await Promise.all(STAYING.map((name) => nodes.start(name).next("serving")));
    await expectRemoved();
  });

  it("is removed by whoever is asked next when it, and who was asked, die in the middle", async () => {
    await using nats = await NatsServer.start();
    await begin("--nats", nats.url, "--keep", "nats");
    const { mapVersion } = await nodes.statusOf("c");
    nodes.at("b").pause(); // so it is not through before the other dies
    const first = remove("a", "b");
    await eventually("it has begun", async () => (await nodes.statusOf("c")).mapVersion > mapVersion);
    await nodes.at("a").end("SIGKILL");
    expect((await first).code).toBe(1);
    const isDown = async (): Promise<boolean> => rowOf(await nodes.statusOf("c"), "a")?.state === "down";
    await eventually("a is missed", isDown, 20_000);
    expect(await refusal("c", "b", "--timeout", "1", "--force")).toMatchObject({
      code: "ERR_UNAVAILABLE",
      message: expect.stringContaining("2 shards that may hold copies must be left: 1 would be") as string,
    });
    await nodes.start("a").next("serving");
    const second = remove("c", "b");
    await nodes.at("b").end("SIGKILL");
    await eventually(
      "c has removed it",
      async () => rowOf(await nodes.statusOf("c"), "b")?.state === "removed",
      30_000,
    );
    await nodes.at("a").end("SIGKILL"); // as it may be filled
    await nodes.start("a").next("serving");
    expect((await second).objects[0]).toMatchObject({ action: "remove", node: "b", givenUp: [] });
    await expectRemoved();
  });

  it.skipIf(!LONG)("of several shards leaves under load, and no idempotent request fails", async () => {
    await using nats = await NatsServer.start();
    await begin("--nats", nats.url, "--shards", "2");
    for (const name of NODE_NAMES) await nodes.at(name).ask("load");
    const loaded = async (): Promise<readonly Said[]> => Promise.all(STAYING.map((name) => nodes.at(name).ask("load")));
    const goesOn = async (): Promise<boolean> => {
      const said = await loaded();
      expect(said.map(({ failed }) => failed)).toEqual([[], []]);
      return said.every(({ done }) => (done as number) > 0);
    };
    await eventually("it begins", goesOn);
    const leaving = nodes.at("b");
    expect((await remove("c", "b")).objects[0]).toMatchObject({ node: "b", shards: [2, 3], givenUp: [] });
    expect(await leaving.next("load")).toMatchObject({ failed: [] });
    await eventually("it goes on", goesOn);
    await eventually("b has ended", () => leaving.code === 0, 20_000);
  });
});
