/** Options that make no sense are refused before anything is sent, with the value and the rule. */
import { getEventListeners } from "node:events";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Cluster, type ClusterOptions, ShardloomError, type VectorCollection } from "../../src/index.ts";
import { relay, saboteur } from "../support/actors.ts";
import { startCopies } from "../support/copies.ts";

const untyped = (value: unknown): never => value as never;
const ONE = Float32Array.of(1, 1);

/** The call is refused: it throws or rejects with the code, and names what was wrong and the rule. */
async function refuses(call: () => unknown, name: string, code = "ERR_INVALID_ARGUMENT"): Promise<void> {
  let caught: unknown;
  try {
    await call();
  } catch (error) {
    caught = error;
  }
  expect(caught, `no refusal of ${name}`).toBeInstanceOf(ShardloomError);
  const { code: found, message, details } = caught as ShardloomError;
  expect(found, message).toBe(code);
  expect(message).toMatch(/^Cannot .* must be .*: current value is /);
  expect(details["name"]).toBe(name);
}

describe("options of calls", () => {
  let cluster: Cluster;
  let docs: VectorCollection;
  beforeAll(async () => {
    cluster = await startCopies({ replicationFactor: 2 });
    docs = await cluster.vectors("docs", { dimensions: 2, metric: "l2" });
    await docs.upsert({ id: 1, vector: ONE }, { acks: "all" });
  });
  afterAll(() => cluster.close());

  const reads: [string, string, unknown[]][] = [
    ["consistency", "consistency", ["Strong", "", 1, "linearizable"]],
    ["hedge", "hedge", ["no", 1]],
    ["maxAttempts", "maxAttempts", [0, -1, 1.5, "2"]],
    ["maxConcurrentShards", "maxConcurrentShards", [0, -1, Number.NaN]],
    ["strategy", "strategy", ["first", "", 0]],
    ["unavailable", "unavailable", ["ignore", "", true]],
    ["maxStalenessMs", "maxStalenessMs", [-1, Number.NaN, "5", null, -Infinity]],
    ["gather", "gather", ["some", "", 1, true]],
    ["priority", "priority", ["high", 1, "", null]],
    ["tenant", "tenant", ["", 7, "x".repeat(257), null]],
    ["timeoutMs", "timeoutMs", [0, -1, Number.NaN, Infinity, 2 ** 31, "100", 10n]],
    ["session", "session", ["s1.", 7, {}, []]],
    ["signal", "signal", [{}, null, 1, "abort"]],
  ];
  const calls = [
    ["search", (options: object) => docs.search(ONE, untyped(options))],
    ["get", (options: object) => docs.get(1, untyped(options))],
    ["getMany", (options: object) => docs.getMany([1, 2, 3], untyped(options))],
    ["count", (options: object) => docs.count(untyped(options))],
  ] as const;
  it("a tenant on a worker is refused: its calls are part of admitted ones", () =>
    refuses(() => cluster.actor(relay, "any").addFor("acme"), "tenant"));

  for (const [what, call] of calls)
    it.each(reads)(`${what}: refuses a bad %s`, async (option, name, values) => {
      for (const value of values) await refuses(() => call({ [option]: value }), name);
    });

  it("refuses a session read without a session, and a quorum that the plan cannot give", async () => {
    await refuses(() => docs.search(ONE, { consistency: "session" }), "session");
    for (const quorum of [0, -1, 4, 1.5, Number.NaN])
      await refuses(() => docs.search(ONE, { consistency: "strong", gather: { quorum } }), "quorum");
    // Their results cannot say what is missing.
    await refuses(() => docs.get(1, untyped({ gather: "quorum" })), "gather");
    await refuses(() => docs.count(untyped({ gather: "best-effort" })), "gather");
    await refuses(() => docs.getMany([1, 2], untyped({ unavailable: "partial" })), "unavailable");
  });

  it.each([
    ["acks", [0, -1, 3, 1.5, Number.NaN, "most", "", "2"]],
    ["timeoutMs", [0, -1, Number.NaN, Infinity, 2 ** 31, "100"]],
    ["priority", ["high", 1]],
    ["tenant", ["", 7]],
    ["session", ["s1.", 7, {}]],
  ] as [string, unknown[]][])("writes: refuse a bad %s, and write nothing", async (option, values) => {
    for (const value of values) {
      const options = untyped({ [option]: value });
      await refuses(
        () =>
          docs.upsert(
            [
              { id: 1, vector: [2, 2] },
              { id: 2, vector: [2, 2] },
            ],
            options,
          ),
        option,
      );
      await refuses(() => docs.delete([1, 2], options), option);
      await refuses(() => docs.upsert([], options), option);
      await refuses(() => docs.delete([], options), option);
    }
    expect((await docs.get(1, { consistency: "strong" }))?.vector).toEqual(ONE);
    expect(await docs.count()).toBe(1);
  });

  it("an iterable's writes keep acks and session", async () => {
    await refuses(() => docs.upsert(new Set([{ id: 3, vector: ONE }]), { acks: 3 }), "acks");
    const session = cluster.session();
    await docs.upsert(new Set([{ id: 3, vector: ONE }]), { acks: "one", session });
    expect(session.size).toBe(1);
    expect(await docs.delete(3, { session, acks: "all" })).toBe(1);
  });

  it("refuses tokens that no session made", async () => {
    const session = cluster.session();
    await docs.upsert({ id: 1, vector: ONE }, { session });
    const token = session.toString();
    expect(cluster.session(token).toString()).toBe(token);
    const altered = `${token.slice(0, -1)}${token.endsWith("A") ? "B" : "A"}`;
    for (const bad of [
      "",
      "garbage",
      "s1.",
      "s2.AAAA",
      token.slice(0, -2),
      `${token}A`,
      altered,
      ` ${token}`,
      "s1.!!!!",
      null,
      7,
      {},
    ]) {
      let caught: unknown;
      try {
        cluster.session(untyped(bad));
      } catch (error) {
        caught = error;
      }
      expect(caught, JSON.stringify(bad)).toMatchObject({ code: "ERR_INVALID_ARGUMENT", details: { name: "token" } });
    }
  });

  it("a signal that has fired already ends every call, and nothing is sent", async () => {
    const signal = AbortSignal.abort();
    const before = cluster.routerStats();
    for (const call of [
      () => docs.search(ONE, { signal }),
      () => docs.get(1, { signal }),
      () => docs.count({ signal }),
      () => docs.upsert({ id: 9, vector: ONE }, { signal }),
      () => docs.delete(1, { signal }),
    ])
      await expect(call()).rejects.toMatchObject({ code: "ERR_ABORTED" });
    expect(cluster.routerStats().requests).toBe(before.requests);
    expect(await docs.count()).toBe(1);
  });

  it("a signal may be that of many calls at once: the platform, which warns of many listeners, sees one", async () => {
    const { signal } = new AbortController();
    const calls = Array.from({ length: 20 }, (_, at) => [
      docs.search(ONE, { signal }),
      docs.get(1, { signal }),
      docs.count({ signal }),
      docs.upsert({ id: 100 + at, vector: ONE }, { signal }),
      cluster.actor(saboteur, `many-${at}`).calls(undefined, { signal }),
    ]).flat();
    expect(getEventListeners(signal, "abort").length).toBe(1);
    await Promise.all(calls);
    expect(getEventListeners(signal, "abort")).toEqual([]);
    await docs.delete(Array.from({ length: 20 }, (_, at) => 100 + at));
  });

  it("refuses a signal that is none for writes and asks too, and sends nothing", async () => {
    const stats = cluster.routerStats();
    for (const signal of [{}, null, 7]) {
      await refuses(() => docs.upsert({ id: 1, vector: ONE }, { signal: untyped(signal) }), "signal");
      await refuses(() => docs.delete(1, { signal: untyped(signal) }), "signal");
      await refuses(() => cluster.actor(saboteur, "one").calls(undefined, { signal: untyped(signal) }), "signal");
    }
    expect(cluster.routerStats().requests).toBe(stats.requests);
  });

  it("drain and resume name a shard that does not exist", async () => {
    for (const shard of [-1, 3, 1.5, Number.NaN, "1", undefined, null]) {
      await refuses(() => cluster.drain(untyped(shard)), "shard");
      await refuses(() => cluster.resume(untyped(shard)), "shard");
    }
    expect(cluster.members().filter(({ state }) => state === "draining")).toEqual([]);
  });

  it("previews of placement name what is no list of shards that are there, no weight, no factor", async () => {
    for (const bad of [5, "1", [1.5], [Number.NaN], [3], [0, -1]]) {
      await refuses(() => cluster.previewPlacement({ drain: untyped(bad) }), "drain");
      await refuses(() => cluster.previewPlacement({ remove: untyped(bad) }), "remove");
    }
    await refuses(() => cluster.previewPlacement({ add: untyped(7) }), "add");
    await refuses(() => cluster.previewPlacement({ add: [{ shard: 3, weight: 0 }] }), "weight of shard 3");
    await refuses(() => cluster.previewPlacement({ replicationFactor: 17 }), "replicationFactor");
    expect(() => cluster.previewPlacement({ remove: [0, 1, 2] })).toThrow(/none of 0 members may hold copies/);
  });

  it("has changed nothing by all that", async () => {
    expect(await docs.getMany([1, 2, 3, 9]).then((found) => found.map((document) => document?.id))).toEqual([
      1,
      undefined,
      undefined,
      undefined,
    ]);
    expect(cluster.routerStats().shards.map(({ inFlight }) => inFlight)).toEqual([0, 0, 0]);
  });
});

describe("options of a cluster", () => {
  it.each<[string, ClusterOptions]>([
    ["replicationFactor", { workers: 2, replicationFactor: 3 }],
    ["replicationFactor", { workers: 2, replicationFactor: 0 }],
    ["replicationFactor", { workers: 2, replicationFactor: 1.5 }],
    ["consistency", { consistency: untyped("weak") }],
    ["consistency", { consistency: "session" }],
    ["strategy", { strategy: untyped("best") }],
    ["acks", { workers: 3, replicationFactor: 2, acks: 3 }],
    ["acks", { acks: untyped("both") }],
    ["suspectMs", { suspectMs: 99 }],
    ["suspectMs", { suspectMs: Number.NaN }],
    ["downMs", { suspectMs: 600, downMs: 600 }],
    ["downMs", { suspectMs: 700, downMs: 650 }],
    ["zones", { workers: 3, zones: ["a", "b"] }],
    ["zones", { workers: 1, zones: untyped("a") }],
    ["zones", { workers: 2, zones: ["a", ""] }],
    ["zones", { workers: 2, zones: untyped(["a", 7]) }],
    ["weights", { workers: 3, weights: [1, 2] }],
    ["weights", { workers: 1, weights: untyped(1) }],
    ["weights", { workers: 2, weights: [1, 2], directory: "anywhere" }],
    ["weights[1]", { workers: 2, weights: [1, 0] }],
    ["weights[0]", { workers: 2, weights: [-1, 1] }],
    ["weights[0]", { workers: 2, weights: [Number.NaN, 1] }],
    ["weights[1]", { workers: 2, weights: untyped([1, "2"]) }],
    ["weights[1]", { workers: 2, weights: [1, 101] }],
  ])("%s: %j is refused, and nothing starts", async (name, options) => {
    await refuses(() => Cluster.start(options), name);
  });
});

it("workers get vshards by their weights", async () => {
  await using cluster = await startCopies({ workers: 2, replicationFactor: 1, vshards: 64, weights: [1, 3] });
  const count = (shard: number): number => cluster.topology.owners.filter((owner) => owner === shard).length;
  expect([count(0), count(1)]).toEqual([16, 48]);
});

it("copies go to different zones while there are enough of them", async () => {
  const cluster = await startCopies({ workers: 4, replicationFactor: 2, zones: ["a", "a", "b", "b"] });
  try {
    const { copies, zones, vshards } = cluster.topology;
    for (let vshard = 0; vshard < vshards; vshard++) {
      const [first, second] = copies.subarray(2 * vshard, 2 * vshard + 2);
      expect(zones[first as number]).not.toBe(zones[second as number]);
    }
    const docs = await cluster.vectors("docs", { dimensions: 2, metric: "l2" });
    await docs.upsert(
      Array.from({ length: 50 }, (_, id) => ({ id, vector: ONE })),
      { acks: "all" },
    );
    cluster.drain(0);
    cluster.drain(1);
    const { hits, completeness } = await docs.search(ONE, { k: 50, consistency: "eventual", exact: true });
    expect(hits).toHaveLength(50);
    expect(completeness.outcomes.flatMap(({ servedBy }) => servedBy).filter((shard) => shard < 2)).toEqual([]);
  } finally {
    await cluster.close();
  }
});
