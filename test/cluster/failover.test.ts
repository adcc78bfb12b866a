/** Workers that die under reads and writes: every call ends, answers are right, and what was acknowledged stays. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Acks, Consistency, PlainReadOptions, VectorCollection } from "../../src/index.ts";
import { eventually, randomVector } from "../support/cluster.ts";
import { codeOf, kill, SABOTAGES, seeded, startCopies, whenAllUp, whenCopiesEqual } from "../support/copies.ts";
import { hold } from "../support/holds.ts";
import { Stalls } from "../support/stalls.ts";

const long = process.env["SHARDLOOM_LONG"] === "1";
const DIMENSIONS = 4;
const rejections: unknown[] = [];
const note = (reason: unknown): void => void rejections.push(reason);
beforeAll(() => void process.on("unhandledRejection", note));
afterAll(() => {
  process.off("unhandledRejection", note);
  expect(rejections).toEqual([]);
});

/** How a read that meets a dead worker may end without an answer. */
const READ_FAILURES = ["ERR_WORKER_LOST", "ERR_HANDLER_HUNG", "ERR_TIMEOUT", "ERR_UNAVAILABLE"];
/** How a write may end in doubt, or refused. */
const WRITE_FAILURES = ["ERR_WORKER_LOST", "ERR_HANDLER_HUNG", "ERR_TIMEOUT", "ERR_QUORUM", "ERR_UNAVAILABLE"];

interface Load {
  readonly reads: Record<string, number>;
  readonly writes: Record<string, number>;
  /** Slowest call, in ms. */
  slowestMs: number;
  stop(): Promise<void>;
}

/** What each id may hold: its last acknowledged value, or a later one that is in doubt. */
type Known = Map<number, { acked: number; tried: number }>;

const TIMEOUT_MS = 3_000;

async function timed<T>(load: { slowestMs: number }, call: Promise<T>): Promise<T> {
  const began = performance.now();
  try {
    return await call;
  } finally {
    load.slowestMs = Math.max(load.slowestMs, performance.now() - began);
  }
}

function count(of: Record<string, number>, what: string): void {
  of[what] = (of[what] ?? 0) + 1;
}

/** Searches over a fixed set that no writer touches, with every kind of read. */
function startReaders(docs: VectorCollection, fixed: ReadonlyMap<number, Float32Array>, salt: number): Load {
  const { random } = seeded(salt);
  const load: Load = { reads: {}, writes: {}, slowestMs: 0, stop };
  let running = true;
  const consistencies: Consistency[] = ["strong", "bounded-staleness", "eventual"];
  const loops = consistencies.map(async (consistency) => {
    while (running) {
      const query = randomVector(random, DIMENSIONS);
      const options: PlainReadOptions = { consistency, timeoutMs: TIMEOUT_MS };
      try {
        const search = { ...options, k: 10, exact: true, filter: { fixed: true } };
        const { hits, completeness } = await timed(load, docs.search(query, search));
        expect(completeness.complete).toBe(true);
        expectNearest(idsOf(hits), fixed, query, 10);
        const id = random.u32() % fixed.size;
        expect((await timed(load, docs.get(id, options)))?.vector).toEqual(fixed.get(id));
        count(load.reads, "ok");
      } catch (error) {
        count(load.reads, codeOf(error));
      }
    }
  });
  async function stop(): Promise<void> {
    running = false;
    await Promise.all(loops);
  }
  return load;
}

const idsOf = (hits: readonly { readonly id: unknown }[]): unknown[] => hits.map(({ id }) => id);

function squared(vector: Float32Array, query: Float32Array): number {
  return vector.reduce((sum, x, at) => sum + (x - (query[at] as number)) ** 2, 0);
}

/** The nearest k, each once, up to what single precision cannot tell apart. */
function expectNearest(
  ids: readonly unknown[],
  fixed: ReadonlyMap<number, Float32Array>,
  query: Float32Array,
  k: number,
  place = "",
): void {
  const distances = Array.from(fixed.values(), (vector) => squared(vector, query)).sort((a, b) => a - b);
  expect(new Set(ids).size, place).toBe(k);
  for (const [at, id] of ids.entries())
    expect(squared(fixed.get(id as number) as Float32Array, query), place).toBeCloseTo(distances[at] as number, 5);
}

function startWriters(docs: VectorCollection, known: Known, acks: Acks): Load {
  const load: Load = { reads: {}, writes: {}, slowestMs: 0, stop };
  let running = true;
  const loops = Array.from({ length: 4 }, async (_, writer) => {
    const last = Math.max(0, ...Array.from(known.values(), ({ tried }) => tried));
    for (let round = last + 1; running; round++) {
      const ids = Array.from({ length: 8 }, (_, at) => 10_000 + 100 * writer + ((round * 8 + at) % 64));
      for (const id of ids) known.set(id, { acked: known.get(id)?.acked ?? 0, tried: round });
      try {
        const documents = ids.map((id) => ({ id, vector: new Float32Array(DIMENSIONS).fill(round) }));
        await timed(load, docs.upsert(documents, { acks, timeoutMs: TIMEOUT_MS }));
        for (const id of ids) known.set(id, { acked: round, tried: round });
        count(load.writes, "ok");
      } catch (error) {
        count(load.writes, codeOf(error));
      }
    }
  });
  async function stop(): Promise<void> {
    running = false;
    await Promise.all(loops);
  }
  return load;
}

/** Everything acknowledged is there, and nothing that was never written. */
function expectKept(copy: ReadonlyMap<string | number, number>, known: Known, place: string): void {
  const wrong: string[] = [];
  for (const [id, { acked, tried }] of known) {
    const value = copy.get(id) ?? 0;
    if (value < acked || value > tried) wrong.push(`${id} holds ${value}, acknowledged ${acked}, tried ${tried}`);
  }
  expect(wrong, place).toEqual([]);
}

async function fill(docs: VectorCollection, salt: number): Promise<Map<number, Float32Array>> {
  const { random } = seeded(salt);
  const fixed = new Map(Array.from({ length: 200 }, (_, id) => [id, randomVector(random, DIMENSIONS)] as const));
  const documents = Array.from(fixed, ([id, vector]) => ({ id, vector, payload: { fixed: true } }));
  await docs.upsert(documents, { acks: "all" });
  return fixed;
}

function subset(load: Record<string, number>, allowed: readonly string[]): string[] {
  return Object.keys(load).filter((code) => code !== "ok" && !allowed.includes(code));
}

describe.each(["all", "quorum"] as const)("every worker killed in turn under load, acks %s", (acks) => {
  it.each(SABOTAGES)(
    "by %s: nothing acknowledged is lost, copies end equal, every call ends typed",
    async (sabotage) => {
      const salt = acks === "all" ? 11 : 12;
      const { seed } = seeded(salt);
      const cluster = await startCopies({ maxHandlerMs: 500 });
      await using stalls = await Stalls.begin();
      try {
        const docs = await cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2" });
        const fixed = await fill(docs, salt);
        const known: Known = new Map();
        for (let round = 0; round < (long ? 7 : 1); round++) {
          const readers = startReaders(docs, fixed, salt + round);
          const writers = startWriters(docs, known, acks);
          for (let shard = 0; shard < 3; shard++) {
            await kill(cluster, shard, sabotage);
            const before = writers.writes["ok"] ?? 0;
            await eventually("writes go on", () => (writers.writes["ok"] ?? 0) > before + 8);
          }
          await Promise.all([readers.stop(), writers.stop()]);
          const place = `seed ${seed}, ${sabotage}, acks ${acks}, round ${round}: ${JSON.stringify([readers, writers])}`;
          if (process.env["VERBOSE"]) process.stderr.write(`${place}\n`);
          expect(subset(readers.reads, READ_FAILURES), place).toEqual([]);
          expect(subset(writers.writes, WRITE_FAILURES), place).toEqual([]);
          expect(readers.reads["ok"], place).toBeGreaterThan(10);
          expect(writers.writes["ok"], place).toBeGreaterThan(10);
          expect(Math.max(readers.slowestMs, writers.slowestMs), place).toBeLessThan(TIMEOUT_MS + 500 + stalls.totalMs);
          const copy = await whenCopiesEqual(cluster, docs);
          expectKept(copy, known, place);
          for (const id of fixed.keys()) expect(copy.has(id), place).toBe(true);
        }
      } finally {
        await cluster.close();
      }
    },
  );
});

describe("a worker killed in the middle of a scatter", () => {
  it.each(SABOTAGES)("by %s: eventual reads are answered by other copies, whole, each id once", async (sabotage) => {
    const { random, seed } = seeded(13);
    const cluster = await startCopies({ maxHandlerMs: 1_000 });
    try {
      const docs = await cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2" });
      const fixed = await fill(docs, 13);
      let moved = 0;
      for (let round = 0; round < (long ? 15 : 3); round++) {
        const query = randomVector(random, DIMENSIONS);
        const options = { k: 10, exact: true, consistency: "eventual", hedge: false, explain: true } as const;
        const victim = round % 3;
        await eventually("it has its vshards again", () => cluster.topology.owners.includes(victim));
        // Held first, so that searches are with it when it dies.
        const held = await hold(cluster, victim, 800);
        const next = kill(cluster, victim, sabotage);
        const searches = Array.from({ length: 25 }, () => docs.search(query, options));
        held.release().catch(() => undefined); // it dies of what follows
        for (const settled of await Promise.allSettled(searches)) {
          const place = `seed ${seed}, ${sabotage}, round ${round}`;
          if (settled.status === "rejected") {
            expect(settled.reason, place).toBeUndefined();
            continue;
          }
          const { hits, completeness } = settled.value;
          expect(completeness, place).toMatchObject({ complete: true, vshards: { planned: 16, answered: 16 } });
          expectNearest(idsOf(hits), fixed, query, 10, place);
          const onVictim = completeness.outcomes.find(({ shard }) => shard === victim);
          if (onVictim !== undefined && onVictim.attempts > 1 && !onVictim.servedBy.includes(victim)) moved++;
        }
        await next;
        await whenAllUp(cluster);
        // Retries are paid for by other calls, a fifth each.
        for (let paid = 0; paid < 150; paid++) await docs.get(paid, { consistency: "eventual" });
      }
      // Who throws from a timer has answered before what had come.
      if (sabotage !== "throw") expect(moved, "searches that were with it, answered by others").toBeGreaterThan(0);
    } finally {
      await cluster.close();
    }
  });
});
