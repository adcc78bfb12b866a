/** The stand-in for NATS: streams, keys and watches without faults, each fault seen to happen, and registers checked for linearizability. */
import { describe, expect, test } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import type { FaultRates, TimedFault } from "../../src/sim/fault-types.ts";
import { createFaultInjector } from "../../src/sim/injector.ts";
import { SimNats } from "../../src/sim/nats.ts";
import type { NatsClient } from "../../src/sim/nats-client.ts";
import type { KeyEntry } from "../../src/sim/nats-store.ts";
import type { Workload } from "../../src/sim/workload-types.ts";
import { createNatsWorkload, type NatsWorkloadOptions } from "../../src/sim/workloads/nats-workload.ts";
import { fails } from "../conformance/disk.ts";
import { type MiniOptions, runMini } from "./mini-world.ts";
import { SteppedLoop } from "./stepped-loop.ts";

const SEED = Number(process.env["SEED"] ?? 1);
const LONG = process.env["SHARDLOOM_LONG"] === "1";
const WAIT_MS = 1_000;

interface Bench {
  readonly loop: SteppedLoop;
  readonly nats: SimNats;
  readonly client: NatsClient;
  run<T>(work: Promise<T>): Promise<T>;
  /** Lets simulated time pass. */
  pass(ms: number): Promise<void>;
}

function bench(rates: FaultRates = {}, seed = SEED): Bench {
  const loop = new SteppedLoop(seed);
  const faults = createFaultInjector(rates, (name) => loop.stream(name), []);
  const nats = new SimNats({ loop, faults });
  const client = nats.connect("n0");
  return { loop, nats, client, run: (work) => loop.finish(work), pass: (ms) => loop.runUntil(loop.nowUs + ms * 1000) };
}

const timed = (kind: "nats-frozen" | "nats-restarted", durationMs = 0, atMs = 0): TimedFault => ({
  kind,
  atMs,
  durationMs,
  targets: ["nats"],
  size: 0,
});

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** What a watch gives, as "key=value@revision", noted as it comes. */
function noted(watch: AsyncIterable<KeyEntry>): { readonly seen: string[]; readonly done: Promise<void> } {
  const seen: string[] = [];
  const follow = async (): Promise<void> => {
    for await (const { key, value, revision, operation } of watch) {
      seen.push(`${key}${operation === "delete" ? " gone" : `=${textOf(value)}`}@${revision}`);
    }
  };
  return { seen, done: follow() };
}

describe("a stream", () => {
  test("is appended to where its last sequence is the expected one", async () => {
    const { client, run } = bench();
    expect(await run(client.read("s", 1, 10, WAIT_MS))).toEqual({ entries: [], last: 0 });
    expect(await run(client.append("s", text("a"), 0, WAIT_MS))).toBe(1);
    expect(await run(client.append("s", text("b"), undefined, WAIT_MS))).toBe(2);
    await fails(run(client.append("s", text("c"), 1, WAIT_MS)), "ERR_STALE_EPOCH");
    const error = await run(client.append("s", text("c"), 3, WAIT_MS).catch((reason: unknown) => reason));
    expect(error).toMatchObject({ details: { expected: 3, last: 2 } });
    expect(await run(client.append("other", text("z"), 0, WAIT_MS))).toBe(1);
    const { entries, last } = await run(client.read("s", 1, 10, WAIT_MS));
    expect([last, ...entries.map(({ sequence, bytes }) => `${sequence}${textOf(bytes)}`)]).toEqual([2, "1a", "2b"]);
    expect((await run(client.read("s", 2, 1, WAIT_MS))).entries.map(({ sequence }) => sequence)).toEqual([2]);
    expect((await run(client.read("s", 3, 1, WAIT_MS))).entries).toEqual([]);
  });

  test("has one winner of many who expect the same, and keeps the order of one client", async () => {
    const { nats, run } = bench();
    const clients = Array.from({ length: 8 }, (_, index) => nats.connect(`c${index}`));
    const work = clients.map((client, index) => client.append("s", text(`${index}`), 0, WAIT_MS).catch(() => 0));
    expect((await run(Promise.all(work))).filter((sequence) => sequence === 1)).toHaveLength(1);
    const one = clients[0] as NatsClient;
    const sequences = await run(
      Promise.all(Array.from({ length: 100 }, () => one.append("s", text("x"), undefined, WAIT_MS))),
    );
    expect(sequences).toEqual(Array.from({ length: 100 }, (_, index) => index + 2));
  });

  test("has the bytes of the moment of the call", async () => {
    const { client, run } = bench();
    const bytes = text("a");
    const work = client.append("s", bytes, 0, WAIT_MS);
    bytes.fill(0);
    await run(work);
    expect(textOf((await run(client.read("s", 1, 1, WAIT_MS))).entries[0]?.bytes ?? text(""))).toBe("a");
  });
});

describe("a bucket", () => {
  test("changes a key where its revision is the expected one", async () => {
    const { client, run } = bench();
    expect(await run(client.get("b", "k", WAIT_MS))).toBeUndefined();
    expect(await run(client.put("b", "k", text("1"), 0, WAIT_MS))).toBe(1);
    expect(await run(client.put("b", "other", text("1"), undefined, WAIT_MS))).toBe(2);
    await fails(run(client.put("b", "k", text("2"), 0, WAIT_MS)), "ERR_STALE_EPOCH");
    await fails(run(client.put("b", "k", text("2"), 2, WAIT_MS)), "ERR_STALE_EPOCH");
    expect(await run(client.put("b", "k", text("2"), 1, WAIT_MS))).toBe(3);
    expect(await run(client.get("b", "k", WAIT_MS))).toEqual({
      key: "k",
      value: text("2"),
      revision: 3,
      operation: "put",
    });
    await fails(run(client.delete("b", "k", 1, WAIT_MS)), "ERR_STALE_EPOCH");
    expect(await run(client.delete("b", "k", 3, WAIT_MS))).toBe(4);
    expect(await run(client.get("b", "k", WAIT_MS))).toMatchObject({ operation: "delete", revision: 4 });
    expect(await run(client.put("b", "k", text("3"), 0, WAIT_MS))).toBe(5);
  });

  test("is watched: what is there, then what comes, in the order of revisions", async () => {
    const { client, nats, run, pass } = bench();
    await run(client.put("b", "x/1", text("a"), 0, WAIT_MS));
    await run(client.put("b", "y/1", text("b"), 0, WAIT_MS));
    await run(client.put("b", "x/1", text("c"), 1, WAIT_MS));
    const all = noted(nats.connect("w").watch("b"));
    const some = noted(client.watch("b", { prefix: "x/" }));
    const later = noted(client.watch("b", { afterRevision: 2 }));
    await pass(100);
    expect(all.seen).toEqual(["y/1=b@2", "x/1=c@3"]);
    expect(some.seen).toEqual(["x/1=c@3"]);
    expect(later.seen).toEqual(["x/1=c@3"]);
    await run(client.delete("b", "x/1", 3, WAIT_MS));
    for (let at = 0; at < 20; at++) await run(client.put("b", `z/${at}`, text("d"), 0, WAIT_MS));
    await pass(100);
    expect(all.seen.slice(2)).toEqual(["x/1 gone@4", ...Array.from({ length: 20 }, (_, at) => `z/${at}=d@${at + 5}`)]);
    expect(some.seen.slice(1)).toEqual(["x/1 gone@4"]);
    expect(later.seen).toEqual(all.seen.slice(1));
  });

  test("gives a slow reader the last change of each key, once", async () => {
    const { client, run, pass } = bench();
    const watch = client.watch("b");
    await pass(10);
    for (let at = 0; at < 5; at++)
      await run(client.put("b", at % 2 === 0 ? "even" : "odd", text(`${at}`), undefined, WAIT_MS));
    await pass(100);
    const seen = [await watch.next(), await watch.next()].map(({ value }) => (value as KeyEntry).revision);
    expect(seen).toEqual([4, 5]);
    const third = watch.next();
    await run(client.put("b", "new", text("6"), 0, WAIT_MS));
    expect((await run(third)).value).toMatchObject({ key: "new", revision: 6 });
  });

  test("is watched until the signal, the reader or the connection ends it", async () => {
    const { client, nats, run, pass } = bench();
    const controller = new AbortController();
    const bySignal = noted(client.watch("b", { signal: controller.signal }));
    const byReader = client.watch("b");
    const closing = nats.connect("n1");
    const byClose = noted(closing.watch("b"));
    await run(client.put("b", "k", text("1"), 0, WAIT_MS));
    await pass(100);
    controller.abort();
    closing.close();
    await run(Promise.all([bySignal.done, byClose.done]));
    expect(await run(byReader.next())).toMatchObject({ done: false });
    await byReader.return?.();
    expect(await byReader.next()).toEqual({ done: true, value: undefined });
    await run(client.put("b", "k", text("2"), 1, WAIT_MS));
    await pass(100);
    expect([bySignal.seen, byClose.seen]).toEqual([["k=1@1"], ["k=1@1"]]);
    const over = client.watch("b", { signal: controller.signal });
    expect(await over.next()).toEqual({ done: true, value: undefined });
  });
});

describe("a connection", () => {
  test("refuses a timeout that is none, and everything once it is closed", async () => {
    const { client, run } = bench();
    for (const timeoutMs of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
      await fails(run(client.get("b", "k", timeoutMs)), "ERR_INVALID_ARGUMENT");
    }
    const open = client.append("s", text("a"), 0, WAIT_MS);
    client.close();
    client.close();
    await fails(run(open), "ERR_CLOSED");
    await fails(run(client.get("b", "k", WAIT_MS)), "ERR_CLOSED");
  });

  test("of a process that is gone settles nothing, and what it sent is applied", async () => {
    const { client, nats, pass } = bench();
    const settled: string[] = [];
    const note = (name: string, work: Promise<unknown>): unknown =>
      work.then(() => settled.push(name)).catch(() => settled.push(name));
    note("sent", client.append("s", text("a"), 0, WAIT_MS));
    const watch = noted(client.watch("b"));
    nats.disconnect("n0");
    note("after", client.append("s", text("b"), undefined, WAIT_MS));
    client.close();
    await pass(10_000);
    expect(settled).toEqual([]);
    expect(watch.seen).toEqual([]);
    expect(nats.store.read("s", 1, 9).entries.map(({ bytes }) => textOf(bytes))).toEqual(["a"]);
    note("replaced", nats.connect("n1").get("b", "k", WAIT_MS));
    nats.connect("n1");
    await pass(10_000);
    expect(settled).toEqual([]);
  });
});

describe("a frozen server", () => {
  test("answers the patient late, and applies what the impatient gave up", async () => {
    const { client, nats, run, pass, loop } = bench();
    await run(client.append("s", text("a"), 0, WAIT_MS));
    expect(nats.begin(timed("nats-frozen", 2_000))).toBe(true);
    const startUs = loop.nowUs;
    const patient = client.append("s", text("b"), 1, 5_000);
    const impatient = client.append("s", text("c"), 2, 500);
    const error = await run(impatient.catch((reason: unknown) => reason));
    expect(error).toMatchObject({ code: "ERR_TIMEOUT", details: { inDoubt: true, timeoutMs: 500 } });
    expect(loop.nowUs - startUs).toBe(500_000);
    expect(nats.store.read("s", 1, 9).last).toBe(1);
    expect(await run(patient)).toBe(2);
    expect(loop.nowUs - startUs).toBeGreaterThan(2_000_000);
    expect(nats.store.read("s", 1, 9).last).toBe(3);
    const read = client.read("s", 1, 9, WAIT_MS);
    expect((await run(read)).last).toBe(3);
    await pass(10);
  });

  test("says of a read that nothing is in doubt", async () => {
    const { client, nats, run } = bench();
    nats.begin(timed("nats-frozen", 2_000));
    const error = await run(client.get("b", "k", 500).catch((reason: unknown) => reason));
    expect(error).toMatchObject({ code: "ERR_TIMEOUT", details: { inDoubt: false } });
  });
});

describe("a restarted server", () => {
  test("keeps what it has; of what is under way some is applied, and no answer comes", async () => {
    const outcomes = new Set<string>();
    for (let seed = 1; seed <= 40; seed++) {
      const { client, nats, run, pass, loop } = bench({}, seed);
      await run(client.append("s", text("a"), 0, WAIT_MS));
      const work = client.append("s", text("b"), 1, WAIT_MS).then(
        () => "ok",
        (error: unknown) => ShardloomError.from(error).code,
      );
      await loop.settle();
      if (seed % 2 === 0) await loop.step(); // the request has arrived, its answer is on the way
      expect(nats.begin(timed("nats-restarted"))).toBe(true);
      const outcome = await run(work);
      await pass(5_000);
      const { last } = await run(client.read("s", 1, 9, 5_000));
      outcomes.add(`${seed % 2 === 0 ? "arrived" : "under way"} ${outcome} ${last}`);
    }
    expect([...outcomes].sort()).toEqual([
      "arrived ERR_TIMEOUT 2",
      "under way ERR_TIMEOUT 1",
      "under way ERR_TIMEOUT 2",
    ]);
  });

  test("gets what was asked meanwhile, in order, when connections are back", async () => {
    const { client, nats, run, pass, loop } = bench();
    nats.begin(timed("nats-restarted"));
    const startUs = loop.nowUs;
    const patient = [1, 2, 3].map((value) => client.append("s", text(`${value}`), value - 1, 10_000));
    const impatient = client.append("s", text("4"), 3, 100);
    await fails(run(impatient), "ERR_TIMEOUT");
    expect(await run(Promise.all(patient))).toEqual([1, 2, 3]);
    expect(loop.nowUs - startUs).toBeGreaterThan(500_000);
    await pass(100);
    expect(nats.store.read("s", 1, 9).last).toBe(4);
    const fresh = bench();
    fresh.nats.begin(timed("nats-restarted"));
    expect(await fresh.run(fresh.nats.connect("late").append("s", text("a"), 0, 10_000))).toBe(1);
  });

  test("loses no change of a watch, and repeats none", async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const { client, nats, run, pass } = bench({}, seed);
      const watch = noted(client.watch("b"));
      const writer = nats.connect("writer");
      for (let at = 1; at <= 60; at++) {
        if (at % 15 === 0) nats.begin(timed("nats-restarted"));
        if (at % 20 === 0) nats.begin(timed("nats-frozen", 300));
        // One in doubt is asked again: expecting what is there, it changes nothing twice.
        await run(writer.put("b", `k${at % 4}`, text(`${at}`), undefined, 20_000).catch(() => 0));
      }
      await pass(20_000);
      const revisions = watch.seen.map((line) => Number(line.split("@")[1]));
      expect(revisions).toEqual([...new Set(revisions)].sort((a, b) => a - b));
      const known = new Map(watch.seen.map((line) => [line.split("=")[0], line]));
      for (const { key, value, revision } of nats.store.changesAfter("b", 0)) {
        expect(known.get(key)).toBe(`${key}=${textOf(value)}@${revision}`);
      }
      expect(watch.seen.length).toBeGreaterThan(8);
    }
  });
});

describe("healing", () => {
  test("ends a freeze and a restart at once", async () => {
    const { client, nats, run, loop } = bench();
    nats.begin(timed("nats-frozen", 1e9));
    const frozen = client.append("s", text("a"), 0, WAIT_MS);
    await loop.runUntil(loop.nowUs + 100_000);
    nats.heal();
    expect(await run(frozen)).toBe(1);
    nats.begin(timed("nats-restarted"));
    const waiting = client.append("s", text("b"), 1, WAIT_MS);
    const startUs = loop.nowUs;
    nats.heal();
    expect(await run(waiting)).toBe(2);
    expect(loop.nowUs - startUs).toBeLessThan(100_000);
    expect(nats.begin({ ...timed("nats-frozen"), kind: "crash" })).toBe(false);
  });
});

describe("a late apply", () => {
  test("comes after its client gave up, once", async () => {
    const { client, nats, run, pass } = bench({ "nats-late-apply": 1 });
    await fails(run(client.append("s", text("a"), 0, WAIT_MS)), "ERR_TIMEOUT");
    expect(nats.store.read("s", 1, 9).last).toBe(0);
    await pass(3_100);
    expect(nats.store.read("s", 1, 9).last).toBe(1);
    await pass(60_000);
    expect(nats.store.read("s", 1, 9).last).toBe(1);
    expect((await run(client.read("s", 1, 9, WAIT_MS))).last).toBe(1);
  });

  test("changes nothing where another one was first", async () => {
    const { client, nats, run, pass } = bench({ "nats-late-apply": 1 });
    const early = client.put("b", "k", text("late"), 0, 100).catch(() => 0);
    await run(early);
    nats.store.change("b", { key: "k", value: text("first"), operation: "put" }, 0);
    await pass(10_000);
    expect(textOf((await run(client.get("b", "k", WAIT_MS)))?.value ?? text(""))).toBe("first");
  });
});

const RATES = { "nats-late-apply": 0.03 } as const;

function optionsOf(seed: number, nodes = 3, durationMs = 20_000): MiniOptions {
  const times = Array.from({ length: 6 }, (_, at) => {
    const kind = (["nats-frozen", "nats-restarted", "crash"] as const)[(seed + at) % 3] ?? "crash";
    const atMs = ((at + 0.5) * durationMs) / 6;
    return kind === "crash"
      ? ({ kind, atMs, durationMs: 500, targets: [`n${at % nodes}`], size: 0 } as const)
      : timed(kind, kind === "nats-frozen" ? 1_000 : 0, atMs);
  });
  return { seed, nodes, durationMs, rates: RATES, timed: times };
}

/** The workload with a client that somebody spoiled. */
function spoiled(spoil: (client: NatsClient) => NatsClient, options: NatsWorkloadOptions): Workload {
  const workload = createNatsWorkload(options);
  const clients = new Map<NatsClient, NatsClient>();
  return {
    ...workload,
    invoke: (operation, context) => {
      const client = clients.get(context.nats) ?? spoil(context.nats);
      clients.set(context.nats, client);
      return workload.invoke(operation, { ...context, nats: client });
    },
  };
}

const whole = (client: NatsClient): NatsClient => ({
  append: (...given) => client.append(...given),
  read: (...given) => client.read(...given),
  get: (...given) => client.get(...given),
  put: (...given) => client.put(...given),
  delete: (...given) => client.delete(...given),
  watch: (...given) => client.watch(...given),
  close: () => client.close(),
});

describe("the NATS workload", () => {
  test("finds registers over it linearizable, whatever happens to it", async () => {
    const hits = new Map<string, number>();
    const outcomes = new Map<string, number>();
    for (let seed = SEED; seed < SEED + (LONG ? 100 : 10); seed++) {
      const { violations, faults, history } = await runMini(createNatsWorkload(), optionsOf(seed));
      expect(violations, `seed ${seed}`).toEqual([]);
      for (const { kind } of faults) hits.set(kind, (hits.get(kind) ?? 0) + 1);
      for (const { f, type, value } of history) {
        const isFalse = f === "cas" && type === "ok" && (value as unknown[])[1] === false;
        const name = `${f} ${isFalse ? "false" : type}`;
        outcomes.set(name, (outcomes.get(name) ?? 0) + 1);
      }
    }
    for (const kind of ["nats-frozen", "nats-restarted", "nats-late-apply", "crash"])
      expect(hits.get(kind) ?? 0).toBeGreaterThan(0);
    for (const name of ["read ok", "write ok", "write info", "cas ok", "cas false", "cas info", "read fail"]) {
      expect(outcomes.get(name) ?? 0, name).toBeGreaterThan(0);
    }
  }, 60_000);

  test("is the same again from its seed", async () => {
    const [first, second] = [
      await runMini(createNatsWorkload(), optionsOf(SEED)),
      await runMini(createNatsWorkload(), optionsOf(SEED)),
    ];
    expect(second.history).toEqual(first.history);
    expect(second.faults).toEqual(first.faults);
  });

  test.for([
    [
      "reads from a cache",
      { keys: 2 },
      20_000,
      (client: NatsClient): NatsClient => {
        const cache = new Map<string, { entry: KeyEntry | undefined; uses: number }>();
        return {
          ...whole(client),
          get: async (bucket, key, timeoutMs) => {
            const cached = cache.get(key);
            if (cached !== undefined && cached.uses-- > 0) return cached.entry;
            const entry = await client.get(bucket, key, timeoutMs);
            cache.set(key, { entry, uses: 3 });
            return entry;
          },
        };
      },
    ],
    [
      "sets without comparing",
      { keys: 1, ratePerSecond: 80 },
      4_000, // longer histories of one key at that rate are seldom decided
      (client: NatsClient): NatsClient => ({
        ...whole(client),
        put: (bucket, key, value, _, timeoutMs) => client.put(bucket, key, value, undefined, timeoutMs),
      }),
    ],
    [
      "takes a timeout for a refusal",
      { keys: 30 },
      20_000,
      (client: NatsClient): NatsClient => ({
        ...whole(client),
        put: async (bucket, key, value, expected, timeoutMs) => {
          try {
            return await client.put(bucket, key, value, expected, timeoutMs);
          } catch (error) {
            if (ShardloomError.from(error).code !== "ERR_TIMEOUT") throw error;
            throw new ShardloomError("ERR_STALE_EPOCH", "Cannot put as it took long: so it was refused");
          }
        },
      }),
    ],
  ] as const)("finds a client that %s", async ([, options, durationMs, spoil]) => {
    let found = 0;
    for (let seed = SEED; seed < SEED + 20 && found === 0; seed++) {
      const given = { ...optionsOf(seed, 3, durationMs), rates: { "nats-late-apply": 0.1 } };
      const { violations } = await runMini(spoiled(spoil, options), given);
      if (violations.length > 0) found++;
      for (const { rule, entries } of violations) {
        expect(rule).toBe("linearizable");
        expect(entries.length).toBeGreaterThan(0);
      }
    }
    expect(found).toBeGreaterThan(0);
  });

  test.for([
    [{ keys: 0 }, "keys"],
    [{ processesPerNode: 1.5 }, "processesPerNode"],
    [{ ratePerSecond: -1 }, "ratePerSecond"],
    [{ timeoutMs: 0 }, "timeoutMs"],
  ] as const)("refuses %o", ([options, name]) => {
    expect(() => createNatsWorkload(options)).toThrow(new RegExp(`Cannot create NATS workload as ${name} must be`));
  });
});
