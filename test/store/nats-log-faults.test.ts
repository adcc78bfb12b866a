/**
 * The log over the stand-in for NATS, with every fault that has: a server that freezes, restarts, applies what its client has given up; and
 * with writers that die at any moment, or go on beside their successor. Nothing that was acknowledged is lost, nothing is there twice.
 */
import { describe, expect, test } from "vitest";
import type { NatsStream } from "../../src/runtime/nats.ts";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { type Scheduler, sleep } from "../../src/runtime/scheduler.ts";
import type { DrawnFault } from "../../src/sim/fault-types.ts";
import { createFaultInjector } from "../../src/sim/injector.ts";
import { SimNats } from "../../src/sim/nats.ts";
import type { NatsClient } from "../../src/sim/nats-client.ts";
import { NatsLog } from "../../src/store/nats-log.ts";
import { guardedLoop, SteppedLoop, schedulerOf } from "../sim/stepped-loop.ts";
import { codeOf, entryOf, valuesIn } from "../support/log-frames.ts";

const SEED = Number(process.env["SEED"] ?? 1);
const RUNS = process.env["SHARDLOOM_LONG"] === "1" ? 2_000 : 120;
const LIVES = 5;
const CALL_MS = 50;
/** Answers that come so late that something else may have come before. */
const SLOW = { share: 0.3, ms: 300 } as const;

/** What all lives together were told. */
interface Ledger {
  /** Values that were appended, and how often. */
  readonly asked: Set<number>;
  /** Value → position at which its life saw it durable. */
  readonly acknowledged: Map<number, number>;
  /** Nobody appends any more. */
  isOver: boolean;
}

/** A stream of the stand-in, which has no purge. Some answers are slow. @param isFenced Whether it looks at the sequence that is expected */
function streamOf(client: NatsClient, isFenced: boolean, scheduler: Scheduler, random: Random): NatsStream {
  return {
    name: "log",
    maxMessageBytes: 700,
    append: (bytes, expected, timeoutMs) => client.append("log", bytes, isFenced ? expected : undefined, timeoutMs),
    get: async (sequence, timeoutMs) => {
      const { entries } = await client.read("log", sequence, 1, timeoutMs);
      if (random.float() < SLOW.share) await sleep(scheduler, random.float() * SLOW.ms);
      return entries[0]?.bytes;
    },
    bounds: async (timeoutMs) => ({ first: 1, last: (await client.read("log", 1, 1, timeoutMs)).last }),
    purgeBelow: () => Promise.reject(new Error("the stand-in has no purge")),
  };
}

/** Opens the log, as often as it takes. */
async function open(stream: NatsStream, scheduler: Scheduler, random: Random): Promise<NatsLog> {
  for (;;) {
    try {
      return await NatsLog.open(stream, { scheduler, random, timeoutMs: CALL_MS });
    } catch {
      await sleep(scheduler, 20); // the server is away, or another one opens it
    }
  }
}

/** One life of a writer: appends for a while, and notes what it is told. */
async function live(
  stream: NatsStream,
  scheduler: Scheduler,
  random: Random,
  ledger: Ledger,
  firstValue: number,
): Promise<NatsLog> {
  const log = await open(stream, scheduler, random);
  const positions = new Map<number, number>();
  log.onChange = () => {
    for (const [value, position] of positions) {
      if (position > log.durable) continue;
      ledger.acknowledged.set(value, position);
      positions.delete(value);
    }
  };
  for (let value = firstValue; !ledger.isOver && log.failure?.code !== "ERR_READ_ONLY"; value++) {
    const size = Math.floor(random.float() ** 4 * 3_000);
    const isRefused = codeOf(() => positions.set(value, log.append([entryOf(value, size)])));
    if (isRefused === undefined) ledger.asked.add(value);
    if (random.float() < 0.3) await log.flush().catch(() => undefined);
    if (random.float() < 0.6) await sleep(scheduler, random.float() * 3);
  }
  return log;
}

/** The server is away, in one way or the other, at some time within 300 ms. */
function disturb(loop: SteppedLoop, nats: SimNats, random: Random, hits: string[]): void {
  const kind = random.float() < 0.5 ? "nats-frozen" : "nats-restarted";
  const durationMs = random.float() * 600;
  loop.at(loop.nowUs + random.float() * 300_000, () => {
    nats.begin({ kind, atMs: 0, durationMs, targets: ["nats"], size: 0 });
    hits.push(kind);
  });
}

/** @returns what is wrong at the end, and what faults there were */
async function run(
  seed: number,
  isFenced: boolean,
): Promise<{ problems: string[]; hits: string[]; acknowledged: number }> {
  const loop = new SteppedLoop(seed);
  const random = createSeededRandom(seed);
  const hits: string[] = [];
  const onHit = ({ kind }: DrawnFault): number => hits.push(kind);
  const faults = createFaultInjector({ "nats-late-apply": 0.05 }, (name) => loop.stream(name), [], onHit);
  const nats = new SimNats({ loop, faults });
  const ledger: Ledger = { asked: new Set(), acknowledged: new Map(), isOver: false };
  for (let at = 0; at < LIVES; at++) {
    let isAlive = true;
    const guard = (act: () => void): void => {
      if (isAlive) act();
    };
    const own = guardedLoop(loop, guard);
    const scheduler = schedulerOf(loop, guard);
    const stream = streamOf(nats.connect(`life-${at}`, own), isFenced, scheduler, random);
    void live(stream, scheduler, loop.stream(`life-${at}`), ledger, at * 10_000);
    if (random.float() < 0.6) disturb(loop, nats, random, hits);
    await loop.runUntil(loop.nowUs + 50_000 + random.float() * 700_000);
    // Some die, with what they have sent on its way; others go on beside the next.
    isAlive = random.float() < 0.5;
  }
  faults.quiet();
  nats.heal();
  ledger.isOver = true;
  await loop.runUntil(loop.nowUs + 20_000_000); // what is late has come
  const stream = streamOf(nats.connect("last"), isFenced, schedulerOf(loop), random);
  const log = await loop.finish(open(stream, schedulerOf(loop), random));
  const values = await loop.finish(valuesIn(log));
  expect(log.head).toBe(values.length);
  return { problems: problemsOf(values, ledger), hits, acknowledged: ledger.acknowledged.size };
}

function problemsOf(values: readonly number[], { asked, acknowledged }: Ledger): string[] {
  const problems: string[] = [];
  const positions = new Map(values.map((value, at) => [value, at + 1]));
  if (positions.size < values.length) problems.push("a value is there twice");
  for (const value of values) if (!asked.has(value)) problems.push(`${value} is there and nobody appended it`);
  for (const [value, position] of acknowledged)
    if (positions.get(value) !== position)
      problems.push(`${value} was durable at ${position}: ${positions.get(value)}`);
  return problems;
}

describe("the log over the stand-in for NATS", () => {
  test("loses nothing that was acknowledged and has nothing twice, whatever server and writers do", async () => {
    console.info(`log over NATS: SEED=${SEED}`);
    const counts = new Map<string, number>();
    let acknowledged = 0;
    for (let seed = SEED; seed < SEED + RUNS; seed++) {
      const outcome = await run(seed, true);
      expect(outcome.problems, `seed ${seed}`).toEqual([]);
      for (const hit of outcome.hits) counts.set(hit, (counts.get(hit) ?? 0) + 1);
      acknowledged += outcome.acknowledged;
    }
    expect(acknowledged).toBeGreaterThan(30 * RUNS);
    for (const kind of ["nats-late-apply", "nats-frozen", "nats-restarted"])
      expect(counts.get(kind) ?? 0, kind).toBeGreaterThan(RUNS / 2);
  });

  test("keeps a writer that has no other beside it, and all that it has appended", async () => {
    let late = 0;
    for (let seed = SEED; seed < SEED + RUNS; seed++) {
      const loop = new SteppedLoop(seed);
      const random = createSeededRandom(seed);
      const faults = createFaultInjector(
        { "nats-late-apply": 0.1 },
        (name) => loop.stream(name),
        [],
        () => late++,
      );
      const nats = new SimNats({ loop, faults });
      const ledger: Ledger = { asked: new Set(), acknowledged: new Map(), isOver: false };
      const stream = streamOf(nats.connect("n0"), true, schedulerOf(loop), random);
      const living = live(stream, schedulerOf(loop), random, ledger, 1);
      for (let time = 0; time < 2; time++) {
        disturb(loop, nats, random, []);
        await loop.runUntil(loop.nowUs + 600_000);
      }
      ledger.isOver = true;
      faults.quiet();
      nats.heal();
      const log = await loop.finish(living);
      await loop.runUntil(loop.nowUs + 20_000_000);
      expect([log.failure, log.durable], `seed ${seed}`).toEqual([undefined, log.head]);
      expect(await loop.finish(valuesIn(log)), `seed ${seed}`).toEqual([...ledger.asked]);
      expect(ledger.acknowledged.size).toBe(log.head);
    }
    expect(late).toBeGreaterThan(RUNS);
  });

  test("is found out where the stream does not look at the sequence that is expected", async () => {
    let found = 0;
    for (let seed = SEED; seed < SEED + 10; seed++) {
      const problems = await run(seed, false).then(
        (outcome) => outcome.problems,
        (error: unknown) => [String(error)],
      );
      if (problems.length > 0) found++;
    }
    expect(found).toBeGreaterThan(2);
  });
});
