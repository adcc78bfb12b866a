import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Cluster } from "../../src/index.ts";
import { defineActor } from "../../src/index.ts";
import { counter, relay, saboteur } from "../support/actors.ts";
import { ACTORS_URL, eventually, keyOnShard, startTestCluster } from "../support/cluster.ts";
import { hold } from "../support/holds.ts";

describe("actors on real workers", () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await startTestCluster({ maxHandlerMs: 60_000 });
  });
  afterAll(() => cluster.close());

  it("keeps state per key", async () => {
    const alice = cluster.actor(counter, "alice");
    expect(await alice.add(2)).toBe(2);
    expect(await alice.add(3)).toBe(5);
    expect(await cluster.actor(counter, "bob").read()).toBe(0);
  });

  it("keeps the order of one sender's messages, tells and asks mixed", async () => {
    const ref = cluster.actor(counter, "ordered");
    const values = Array.from({ length: 5_000 }, (_, at) => at);
    for (const value of values) void ref.tell.remember(value);
    expect(await ref.seen()).toEqual(values);
  });

  it("asks over the mesh between every pair of shards", async () => {
    for (const from of [0, 1]) {
      for (const to of [0, 1]) {
        const target = keyOnShard(cluster, counter, to);
        const before = await cluster.actor(counter, target).read();
        const key = keyOnShard(cluster, relay, from);
        expect(await cluster.actor(relay, key).addTo({ key: target, amount: 7 })).toBe(before + 7);
      }
    }
  });

  it("keeps the order of tells over the mesh", async () => {
    const values = Array.from({ length: 2_000 }, (_, at) => at);
    const relayKey = keyOnShard(cluster, relay, 0);
    const target = keyOnShard(cluster, counter, 1);
    expect(await cluster.actor(relay, relayKey).burst({ key: target, values })).toEqual(values);
  });

  it("fails an ask at its deadline, and starts nothing whose deadline has passed", async () => {
    const key = keyOnShard(cluster, saboteur, 0);
    const ref = cluster.actor(saboteur, key);
    const before = await ref.calls();
    const other = cluster.actor(saboteur, keyOnShard(cluster, saboteur, 0, 1));
    await expect(other.sleepUntilAborted(60_000, { timeoutMs: 50 })).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    const held = await hold(cluster, 0, 20_000);
    const expired = ref.calls(undefined, { timeoutMs: 50 });
    await expect(expired).rejects.toMatchObject({ code: "ERR_TIMEOUT" });
    await held.release();
    expect(await ref.calls()).toBe(before + 1);
  });

  it("ends an ask when its signal fires, before and while it runs", async () => {
    const ref = cluster.actor(saboteur, "abort");
    await expect(ref.calls(undefined, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "ERR_ABORTED" });
    const controller = new AbortController();
    const sleeping = ref.sleep(60_000, { signal: controller.signal, timeoutMs: 60_000 });
    setImmediate(() => controller.abort());
    await expect(sleeping).rejects.toMatchObject({ code: "ERR_ABORTED" });
  });

  it("fires the signal of a handler that runs when its ask is given up, on this thread and across the mesh", async () => {
    for (const shard of [0, 1]) {
      const key = keyOnShard(cluster, saboteur, shard);
      const ref = cluster.actor(saboteur, key);
      const controller = new AbortController();
      const running = ref.noteAbort(60_000, { signal: controller.signal, timeoutMs: 60_000 });
      const other = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard, 1));
      await eventually("it runs", async () => (await other.noting()) === 1);
      controller.abort();
      await expect(running).rejects.toMatchObject({ code: "ERR_ABORTED" });
      await eventually("the handler saw its signal", async () => (await ref.aborts()) === 1);
    }
  });

  it("hands the loop a turn in a long chain of local asks", async () => {
    const own = await startTestCluster({ maxHandlerMs: 800 });
    try {
      let lost = 0;
      own.on("worker-lost", () => lost++);
      const from = keyOnShard(own, relay, 0);
      const to = keyOnShard(own, counter, 0);
      const chain = own.actor(relay, from).chain({ key: to, milliseconds: 2_000 }, { timeoutMs: 20_000 });
      // The worker answers both in the order in which it had done them.
      const order: string[] = [];
      const ended = chain.then(() => order.push("chain"));
      const served = own
        .actor(saboteur, keyOnShard(own, saboteur, 0))
        .calls()
        .then(() => order.push("other"));
      await Promise.all([served, ended]);
      expect(order).toEqual(["other", "chain"]); // the other actor was served in the middle of the chain
      expect(await chain).toBeGreaterThan(100);
      expect(lost).toBe(0);
    } finally {
      await own.close();
    }
  });

  it("tells the sender of a local tell that the mailbox is full", async () => {
    const from = keyOnShard(cluster, relay, 0);
    const to = keyOnShard(cluster, saboteur, 0);
    const refused = await cluster.actor(relay, from).flood({ key: to, count: 1_500 }, { timeoutMs: 10_000 });
    expect(refused).toBeGreaterThan(400);
  });

  it("brings handler errors back with their class, code and cause", async () => {
    const ref = cluster.actor(saboteur, "errors");
    await expect(ref.fail("boom")).rejects.toMatchObject({
      code: "ERR_ACTOR_FAILED",
      cause: { name: "RangeError", message: "boom" },
    });
    await expect(ref.refuse()).rejects.toMatchObject({ code: "ERR_INVALID_ARGUMENT", details: { why: "test" } });
  });

  it("serves other actors of the shard while a handler awaits", async () => {
    const key = keyOnShard(cluster, saboteur, 1);
    const controller = new AbortController();
    const call = { signal: controller.signal, timeoutMs: 60_000 };
    const sleeping = cluster.actor(saboteur, key).sleepUntilAborted(60_000, call);
    const ended = expect(sleeping).rejects.toMatchObject({ code: "ERR_ABORTED" });
    const other = keyOnShard(cluster, counter, 1);
    await cluster.actor(counter, other).read();
    controller.abort(); // nothing else ends it
    await ended;
  });

  it("refuses actors that no worker hosts, naming them", () => {
    const stranger = defineActor({ name: "stranger", init: () => ({}), handlers: { hello: () => 1 } });
    expect(() => cluster.actor(stranger, "x")).toThrow(/"stranger"/);
  });

  it("refuses messages that cannot be encoded, naming the path", async () => {
    const ref = cluster.actor(relay, "codec");
    await expect(ref.addTo({ key: "x", amount: (() => 1) as unknown as number })).rejects.toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
    });
  });

  it("counts every message: sent = delivered + rejected + dead", async () => {
    const own = await startTestCluster();
    try {
      const ref = own.actor(saboteur, "counted");
      const outcomes = await Promise.allSettled([
        ...Array.from({ length: 200 }, () => ref.calls()),
        ...Array.from({ length: 20 }, () => ref.fail("counted").catch(() => undefined)),
        ...Array.from({ length: 50 }, () => ref.calls(undefined, { timeoutMs: 1 })),
      ]);
      expect(outcomes).toHaveLength(270);
      await eventually("every message is accounted for", async () => {
        const info = await own.info();
        let received = 0;
        let ended = 0;
        for (const worker of info.workers) {
          const actors = worker.stats?.actors as {
            received: number;
            delivered: number;
            rejected: number;
            dead: Record<string, number>;
          };
          received += actors.received;
          ended +=
            actors.delivered + actors.rejected + Object.values(actors.dead).reduce((sum, count) => sum + count, 0);
        }
        const { sent, timedOut, replied, failed, cancelled, late } = info.client;
        return received === ended && received > 0 && sent >= replied + failed + timedOut + cancelled - late;
      });
    } finally {
      await own.close();
    }
  });
});

describe("Cluster.start()", () => {
  it("refuses a module that does not exist, or exports no actor, and leaves nothing running", async () => {
    const missing = new URL("./no-such-module.js", ACTORS_URL);
    await expect(startTestCluster({ actors: [missing] })).rejects.toMatchObject({
      code: "ERR_MODULE_NOT_LOADED",
      details: { url: missing.href },
    });
    const empty = new URL("./cluster.js", ACTORS_URL);
    await expect(startTestCluster({ actors: [empty] })).rejects.toMatchObject({ code: "ERR_MODULE_NOT_LOADED" });
  });

  it.each([
    [{ workers: 0 }, /workers must be an integer between 1 and 256: current value is 0/],
    [{ vshards: 48 }, /vshards must be a power of two: current value is 48/],
    [{ workers: 8, vshards: 4 }, /vshards/],
    [{ requestRingBytes: 100_000 }, /requestRingBytes must be a power of two: current value is 100000/],
    [{ memoryBytes: 1_000_001 }, /memoryBytes/],
    [{ requestTimeoutMs: -1 }, /requestTimeoutMs/],
    [{ wrokers: 2 }, /wrokers/],
  ])("refuses %j", async (options, message) => {
    await expect(startTestCluster(options as object)).rejects.toThrow(message);
  });

  it("closes twice, and fails what comes later", async () => {
    const cluster = await startTestCluster();
    await Promise.all([cluster.close(), cluster.close()]);
    await cluster.close();
    expect(() => cluster.actor(counter, "late")).toThrow(/closed/);
    await expect(cluster.vectors("late", { dimensions: 2 })).rejects.toMatchObject({ code: "ERR_CLOSED" });
  });
});
