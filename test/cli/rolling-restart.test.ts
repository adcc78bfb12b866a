/** Nodes that are told to end hand over what they are primary of: a rolling restart of three processes under load fails no idempotent request. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { NodeStatus } from "../../src/cli/node-control.ts";
import { eventually } from "../support/cluster.ts";
import { NatsServer } from "../support/nats-server.ts";
import { NODE_NAMES, type NodeName, ThreeNodes } from "../support/node-process.ts";

/** What a node says of its load. */
interface Loaded {
  readonly done: number;
  readonly failed: readonly string[];
}

const LONG = process.env["SHARDLOOM_LONG"] === "1";

let root = "";
let nodes: ThreeNodes;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "shardloom-rolling-"));
  nodes = new ThreeNodes(root);
});
afterEach(async () => {
  await nodes.kill();
  await rm(root, { recursive: true, force: true });
});

const primariesOf = ({ shards }: NodeStatus, node: NodeName): number =>
  shards.filter((shard) => shard.node === node).reduce((sum, { primaries }) => sum + primaries, 0);

async function load(): Promise<Loaded[]> {
  return (await Promise.all(NODE_NAMES.map((name) => nodes.at(name).ask("load")))) as unknown as Loaded[];
}

async function restart(name: NodeName): Promise<Loaded> {
  const other = NODE_NAMES.find((each) => each !== name) as NodeName;
  const leaving = nodes.at(name);
  expect(await leaving.end("SIGTERM"), leaving.log).toBe(0);
  // Nobody has waited for its lease to be over.
  expect(primariesOf(await nodes.statusOf(other), name), `primaries of ${name}`).toBe(0);
  const last = (await leaving.next("load")) as unknown as Loaded;
  await nodes.start(name).next("serving");
  await nodes.at(name).ask("load");
  return last;
}

/** Nobody's requests fail, until everybody had some. */
async function goesOn(what: string): Promise<void> {
  const done = NODE_NAMES.map(() => 0);
  await eventually(
    what,
    async () => {
      for (const [at, loaded] of (await load()).entries()) {
        expect(loaded.failed, what).toEqual([]);
        done[at] = (done[at] as number) + loaded.done;
      }
      return done.every((count) => count > 0);
    },
    30_000,
  );
}

it("a rolling restart of three processes under load fails no idempotent request", async () => {
  await using nats = await NatsServer.start();
  await nodes.found("--copies", "3", "--nats", nats.url);
  await goesOn("at first");
  for (const name of LONG ? [...NODE_NAMES, ...NODE_NAMES] : (["b"] as const)) {
    // One that was late when the cluster began gets what is its own when it has been well for a while.
    const isPrimary = async (): Promise<boolean> => primariesOf(await nodes.statusOf("a"), name) > 0;
    await eventually(`${name} is primary`, isPrimary, 30_000);
    expect((await restart(name)).failed, `of ${name} as it ended`).toEqual([]);
    await goesOn(`after ${name} came back`);
  }
}, 300_000);
