/** Shards that are removed: what they had is elsewhere, nothing that was acknowledged is lost, and nobody asks them any more. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { askNode, listenForControl, type NodeStatus } from "../../src/cli/node-control.ts";
import {
  type Cluster,
  type ClusterOptions,
  type MemberStateName,
  type RemovalReport,
  ShardloomError,
} from "../../src/index.ts";
import { vshardOfId } from "../../src/topology/snapshot.ts";
import { saboteur } from "../support/actors.ts";
import { eventually, keyOnShard } from "../support/cluster.ts";
import { codeOf, kill, startCopies, stateOf, whenState } from "../support/copies.ts";
import { hold } from "../support/holds.ts";

const FOUR = (value: number): Float32Array => new Float32Array(4).fill(value);
const COUNT = 200;

function start(options: ClusterOptions = {}): Promise<Cluster> {
  return startCopies({ replicationFactor: 2, ...options });
}

/** What a call is refused with. */
async function refusal(call: Promise<unknown>): Promise<ShardloomError> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!ShardloomError.is(error)) throw new Error("it was not refused");
  return error;
}

describe("a shard that is removed", () => {
  it("gives what it has to the others while writes go on, and is asked no more", async () => {
    await using cluster = await start();
    const docs = await cluster.vectors("docs", { dimensions: 4, metric: "l2" });
    const texts = await cluster.text("texts", { fields: { body: 1 } });
    const session = cluster.session();
    await docs.upsert(
      Array.from({ length: COUNT }, (_, id) => ({ id, vector: FOUR(id) })),
      { session },
    );
    await texts.upsert([{ id: "a", fields: { body: "the shard that is there" } }]);
    const states: MemberStateName[] = [];
    cluster.on("member-changed", ({ member, to }) => {
      if (member.id === "shard-1") states.push(to);
    });
    const { topologyEpoch, mapEpoch, mapVersion, owners, copies } = cluster.topology;
    const planned = cluster.previewPlacement({ remove: [1] }).moves.filter(({ reason }) => reason === "removed");
    let running = true;
    let written = COUNT;
    const codes = new Set<string>();
    const writer = (async () => {
      while (running) {
        try {
          await docs.upsert({ id: written, vector: FOUR(written) });
          written++;
        } catch (error) {
          codes.add(codeOf(error)); // and it is written again
        }
      }
    })();
    await eventually("some writes", () => written > COUNT + 20);
    const report = await cluster.remove(1);
    const then = written;
    await eventually("writes go on", () => written > then + 20);
    running = false;
    await writer;
    // What waited for its copies while its vshard got another primary is in doubt.
    codes.delete("ERR_QUORUM");
    expect([...codes]).toEqual([]);
    expect(report).toEqual({
      shard: 1,
      primaries: owners.filter((owner) => owner === 1).length,
      copies: copies.filter((holder) => holder === 1).length,
      filling: [],
      graphs: [],
    });
    expect(planned).toHaveLength(report.copies);
    expect(states).toEqual(["draining", "removed"]);
    const now = cluster.topology;
    expect(now.copies).not.toContain(1);
    expect(now.owners).not.toContain(1);
    expect(now.copies).not.toContain(0xffff);
    expect(now.topologyEpoch).toBeGreaterThan(topologyEpoch);
    expect(now.mapEpoch).toBeGreaterThan(mapEpoch);
    expect(now.mapVersion).toBeGreaterThan(mapVersion);
    expect(now.states[1]).toBe(5);
    expect(cluster.members().map(({ id }) => id)).not.toContain("shard-1");
    expect(cluster.heartbeats().map(({ shard }) => shard)).toEqual([0, 2]);
    const all = await docs.getMany(
      Array.from({ length: written }, (_, id) => id),
      { session },
    );
    expect(all.map((row) => row?.vector?.[0])).toEqual(Array.from({ length: written }, (_, id) => id));
    expect(await docs.count({ consistency: "eventual" })).toBe(written);
    expect((await texts.search("shard")).hits.map(({ id }) => id)).toEqual(["a"]);
    expect(await cluster.audit()).toMatchObject({ equal: true, copies: 32 });
    expect(await cluster.clusterStats()).toMatchObject({
      shards: 2,
      health: "green",
      quorum: true,
      documents: written + 1,
    });
    expect(await docs.status()).toHaveLength(2);
    const more = await cluster.vectors("more", { dimensions: 4 });
    await more.upsert({ id: 1, vector: FOUR(1) }, { acks: "all" });
    expect(await cluster.dropVectors("more")).toBe(true);
    await Promise.all(Array.from({ length: 20 }, (_, at) => cluster.actor(saboteur, `key-${at}`).block(0)));
    for (const shard of [0, 2]) expect(keyOnShard(cluster, saboteur, shard)).toBeDefined();
  });
});

it("a shard is removed by whoever asks the node of its directory", async () => {
  await using cluster = await start();
  const directory = await mkdtemp(join(tmpdir(), "removal-"));
  const control = await listenForControl(directory, cluster, "local");
  try {
    const report = await askNode<RemovalReport>(directory, { action: "remove", shard: 2 });
    expect(report).toMatchObject({ shard: 2, filling: [] });
    expect(cluster.heartbeats().map(({ shard }) => shard)).toEqual([0, 1]);
    const again = await refusal(askNode(directory, { action: "remove", shard: 2 }));
    expect(again.code).toBe("ERR_INVALID_ARGUMENT");
    const { shards } = await askNode<NodeStatus>(directory, { action: "status" });
    expect(shards.map(({ shard, copies }) => [shard, copies])).toEqual([
      [0, 16],
      [1, 16],
    ]);
  } finally {
    await control.close();
    await rm(directory, { recursive: true });
  }
});

it("a shard of a cluster that keeps something is not removed", async () => {
  const directory = await mkdtemp(join(tmpdir(), "removal-"));
  try {
    await using cluster = await start({ directory: join(directory, "data"), documents: false });
    const { code, message } = await refusal(cluster.remove(1));
    expect(code).toBe("ERR_UNAVAILABLE");
    expect(message).toContain("a directory, or NATS, is of just its shards");
    expect(stateOf(cluster, 1)).toBe("up");
  } finally {
    await rm(directory, { recursive: true });
  }
});

describe("remove()", () => {
  it("refuses what it cannot do, and changes nothing", async () => {
    await using cluster = await start();
    const { topologyEpoch } = cluster.topology;
    const refuse = async (call: Promise<unknown>, code: string, text: string): Promise<void> => {
      const error = await refusal(call);
      expect(error.code).toBe(code);
      expect(error.message).toContain(text);
    };
    for (const shard of [3, -1, 1.5])
      await refuse(cluster.remove(shard), "ERR_INVALID_ARGUMENT", `this node's, 0, 1, 2: current value is ${shard}`);
    await refuse(cluster.remove(1, { timeoutMs: 0 }), "ERR_INVALID_ARGUMENT", "timeoutMs must be a number between 1");
    await cluster.vectors("near", { dimensions: 4, strategy: "one-sided" });
    await refuse(cluster.remove(1), "ERR_UNAVAILABLE", 'no graph of vectors may lie on it: that of "near"');
    await cluster.dropVectors("near");
    expect(cluster.topology.topologyEpoch).toBe(topologyEpoch);
    // The second call for the same shard joins the first, one for another has to wait.
    const [first, second, other] = await Promise.allSettled([cluster.remove(1), cluster.remove(1), cluster.remove(2)]);
    expect(second).toEqual(first);
    expect(first.status).toBe("fulfilled");
    expect(other).toMatchObject({ reason: { code: "ERR_UNAVAILABLE", message: /shard 1 is being removed/ } });
    await refuse(cluster.remove(1), "ERR_INVALID_ARGUMENT", "this node's, 0, 2: current value is 1");
    await refuse(cluster.remove(2), "ERR_UNAVAILABLE", "2 shards that may hold copies must be left");
    for (const act of [() => cluster.drain(1), () => cluster.resume(1)]) expect(act).toThrow("this node's, 0, 2");
  });

  it("refuses to remove the only copy, and names the vshards", async () => {
    await using cluster = await start({ replicationFactor: 1 });
    const { details, code } = await refusal(cluster.remove(1));
    const own = [...cluster.topology.owners].flatMap((owner, vshard) => (owner === 1 ? [vshard] : []));
    expect({ code, details }).toEqual({ code: "ERR_UNAVAILABLE", details: { shard: 1, vshards: own } });
    expect(stateOf(cluster, 1)).toBe("up");
  });

  it("refuses to remove the only copy that is level", async () => {
    await using cluster = await start({ maxHandlerMs: 20_000, downMs: 20_000 });
    const docs = await cluster.vectors("docs", { dimensions: 4 });
    const { owners, copies } = cluster.topology;
    const vshard = owners.findIndex((owner, at) => owner === 1 && copies[2 * at + 1] === 2);
    const id = Array.from({ length: 1_000 }, (_, at) => at).find((at) => vshardOfId(cluster.topology, at) === vshard);
    const held = await hold(cluster, 2, 15_000);
    await docs.upsert({ id: id as number, vector: FOUR(7) }, { acks: 1 });
    const beganMs = performance.now();
    await eventually("the copy is behind", () => performance.now() - beganMs > 1_100);
    expect(held.isOn).toBe(true);
    const { code, details } = await refusal(cluster.remove(1));
    expect({ code, details }).toEqual({ code: "ERR_UNAVAILABLE", details: { shard: 1, vshards: [vshard] } });
    expect(stateOf(cluster, 1)).toBe("up");
    await held.release();
    await whenState(cluster, 2, "up");
    await cluster.remove(1);
    expect((await docs.get(id as number))?.vector?.[0]).toBe(7);
  });

  it("takes itself back when others do not serve in time", async () => {
    await using cluster = await start({ maxHandlerMs: 20_000 });
    const docs = await cluster.vectors("docs", { dimensions: 4 });
    await docs.upsert(Array.from({ length: COUNT }, (_, id) => ({ id, vector: FOUR(id) })));
    const held = await hold(cluster, 2, 10_000);
    const { code, details } = await refusal(cluster.remove(1, { timeoutMs: 100 }));
    expect(code).toBe("ERR_TIMEOUT");
    expect((details["vshards"] as number[]).length).toBeGreaterThan(0);
    expect(stateOf(cluster, 1)).toBe("up");
    expect(cluster.topology.copies).toContain(1);
    await held.release();
    await whenState(cluster, 2, "up");
    const ids = Array.from({ length: COUNT }, (_, id) => id);
    await docs.getMany(ids); // until all primaries serve
    await cluster.remove(1);
    const kept = await docs.getMany(ids);
    expect(kept.map((row) => row?.vector?.[0])).toEqual(Array.from({ length: COUNT }, (_, id) => id));
  });

  it("ends when the cluster is closed meanwhile", async () => {
    const cluster = await start({ maxHandlerMs: 20_000 });
    const docs = await cluster.vectors("docs", { dimensions: 4 });
    await docs.upsert(Array.from({ length: COUNT }, (_, id) => ({ id, vector: FOUR(id) })));
    const held = await hold(cluster, 2, 10_000);
    const removed = refusal(cluster.remove(1));
    await whenState(cluster, 1, "draining");
    const closing = cluster.close();
    held.release().catch(() => undefined); // its caller has gone
    await closing;
    expect((await removed).code).toBe("ERR_CLOSED");
  });

  it("goes on when the worker of the shard dies meanwhile", async () => {
    await using cluster = await start();
    const docs = await cluster.vectors("docs", { dimensions: 4 });
    await docs.upsert(Array.from({ length: COUNT }, (_, id) => ({ id, vector: FOUR(id) })));
    const killed = kill(cluster, 1);
    killed.catch(() => undefined);
    await cluster.remove(1);
    const kept = await docs.getMany(Array.from({ length: COUNT }, (_, id) => id));
    expect(kept.map((row) => row?.vector?.[0])).toEqual(Array.from({ length: COUNT }, (_, id) => id));
    expect(await cluster.audit()).toMatchObject({ equal: true, copies: 32 });
    expect(cluster.heartbeats().map(({ shard }) => shard)).toEqual([0, 2]);
  });
});
