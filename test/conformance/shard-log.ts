/**
 * What every shard log does, without faults: the suite of the {@link ShardLog} interface.
 *
 * Each implementation gives an empty log that can be opened again, and a way to wait; a simulated one has to turn its loop meanwhile.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { LogFrame, ShardLog } from "../../src/store/log.ts";
import { ALL, codeOf, entryOf, framesIn, framesOf, valuesIn } from "../support/log-frames.ts";
import { fails } from "./disk.ts";

export interface ShardLogUnderTest {
  /** Opens it, whoever has it open: in a new process, when {@link crash} was called or it was closed. */
  open(options?: { readonly maxLineBytes?: number }): Promise<ShardLog>;
  /** Resolves as the work does. */
  run<T>(work: Promise<T>): Promise<T>;
  /** Waits until nothing that was appended can be lost any more by a process that ends. */
  keep(log: ShardLog): Promise<void>;
  /** Ends the process that has it open, and its machine. */
  crash(): void;
  /** Lets time pass, where it is simulated. */
  idle(ms: number): Promise<void>;
  close(): Promise<void>;
}

const SEED = Number(process.env["SEED"] ?? 1);

const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ f: fc.constant("append"), a: fc.nat(200), b: fc.nat(1_800) }) },
  {
    weight: 2,
    arbitrary: fc.record({ f: fc.constant("read"), a: fc.nat(40), b: fc.constantFrom(0, 1, 900, 5_000, ALL) }),
  },
  { weight: 1, arbitrary: fc.record({ f: fc.constant("flush"), a: fc.nat(0), b: fc.nat(0) }) },
  { weight: 1, arbitrary: fc.record({ f: fc.constant("idle"), a: fc.nat(60), b: fc.nat(0) }) },
  { weight: 1, arbitrary: fc.record({ f: fc.constant("fence"), a: fc.nat(5), b: fc.nat(0) }) },
  { weight: 1, arbitrary: fc.record({ f: fc.constant("truncate"), a: fc.nat(40), b: fc.nat(0) }) },
  { weight: 1, arbitrary: fc.record({ f: fc.constantFrom("close", "crash", "stop"), a: fc.nat(0), b: fc.nat(0) }) },
);

/** What a list says a read gives. */
function checkRead(found: readonly LogFrame[], frames: readonly LogFrame[], from: number, first: number): void {
  const expected = frames.filter(({ position }) => position >= Math.max(from, first));
  expect(found).toEqual(expected.slice(0, found.length));
  if (expected.length > 0) expect(found.length).toBeGreaterThan(0);
}

/** Declares the tests. @param runs Of the property */
export function shardLogConformance(create: (seed: number) => Promise<ShardLogUnderTest>, runs: number): void {
  /** One test of an empty log. */
  const check = (name: string, body: (given: ShardLogUnderTest) => Promise<void>): void =>
    test(name, async () => {
      const given = await create(1);
      try {
        await given.run(body(given));
      } finally {
        await given.close();
      }
    });

  test("is a list, whatever is done to it (property)", { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.array(step, { maxLength: 60 }), async (seed, steps) => {
        const given = await create(seed);
        try {
          await given.run(beList(given, steps));
        } finally {
          await given.close();
        }
      }),
      { numRuns: runs, seed: SEED },
    );
  });

  check("tells of every rise of what is durable, and of nothing before", async ({ open, keep }) => {
    const log = await open();
    const seen: number[] = [];
    log.onChange = () => seen.push(log.durable);
    for (let value = 0; value < 5; value++) {
      expect(log.append(framesOf(value, 100))).toBe(value + 1);
      await log.flush();
      expect(log.durable).toBe(value + 1);
      await keep(log);
    }
    expect([...new Set(seen)]).toEqual([1, 2, 3, 4, 5]);
  });

  check("becomes durable by itself, also what nobody waits for", async ({ open, keep }) => {
    const log = await open();
    const isDurable = new Promise<void>((resolve) => {
      log.onChange = () => log.durable === 2 && resolve();
    });
    log.append(framesOf(1, 10), { lazy: true });
    log.append(framesOf(2, 10), { lazy: true });
    await isDurable;
    // Whoever flushes does not wait for later.
    log.append(framesOf(3, 10), { lazy: true });
    await log.flush();
    await keep(log);
    expect(await valuesIn(log)).toEqual([1, 2, 3]);
  });

  check("refuses a writer that another one has overtaken, also after it was opened again", async ({ open, crash }) => {
    let log = await open();
    log.append(framesOf(1, 10), { expectedHead: 0 });
    expect(codeOf(() => log.append(framesOf(1, 10), { expectedHead: 0 }))).toBe("ERR_STALE_EPOCH");
    await log.fence(7);
    expect(codeOf(() => log.append(framesOf(1, 10), { leaseEpoch: 6 }))).toBe("ERR_STALE_EPOCH");
    expect([log.head, log.leaseEpoch]).toEqual([1, 7]);
    crash();
    log = await open();
    expect([log.head, log.leaseEpoch]).toEqual([1, 7]);
    expect(codeOf(() => log.append(framesOf(1, 10), { leaseEpoch: 6 }))).toBe("ERR_STALE_EPOCH");
    expect(log.append(framesOf(1, 10), { leaseEpoch: 7, expectedHead: 1 })).toBe(2);
    await fails(log.fence(6), "ERR_STALE_EPOCH");
  });

  check("keeps its lease epoch when the frames before it are truncated", async ({ open, keep, crash }) => {
    let log = await open();
    await log.fence(9);
    for (let value = 0; value < 60; value++) {
      log.append(framesOf(value, 900));
      await keep(log);
    }
    await log.truncateBelow(log.head);
    expect(log.first).toBeGreaterThan(20);
    expect((await log.read(1, 1))[0]?.position).toBe(log.first);
    const { first } = log;
    crash();
    log = await open();
    expect([log.leaseEpoch, log.head, log.first]).toEqual([9, 60, first]);
  });

  check(
    "refuses what is too large, empty, or has too long a key, and then has appended nothing",
    async ({ open, keep }) => {
      const log = await open();
      const codes = [
        () => log.append([entryOf(2, 33 * 1024 * 1024)]),
        () => log.assertRoom(33 * 1024 * 1024),
        () => log.append([]),
        () => log.append([{ ...entryOf(2, 1), idempotencyKey: "ø".repeat(129) }]),
      ].map(codeOf);
      expect(codes).toEqual([
        "ERR_RECORD_TOO_LARGE",
        "ERR_RECORD_TOO_LARGE",
        "ERR_INVALID_ARGUMENT",
        "ERR_INVALID_ARGUMENT",
      ]);
      expect(log.append([{ ...entryOf(2, 1), idempotencyKey: "ø".repeat(128) }])).toBe(1);
      await keep(log);
      expect((await log.read(1, 1))[0]?.entries[0]?.idempotencyKey).toBe("ø".repeat(128));
    },
  );

  check("refuses appends while too much waits", async ({ open, keep }) => {
    const log = await open({ maxLineBytes: 10_000 });
    for (let value = 0; value < 8; value++) log.append([entryOf(2, 1_000)]);
    expect(codeOf(() => log.append([entryOf(2, 2_000)]))).toBe("ERR_OVERLOADED");
    expect(codeOf(() => log.assertRoom(2_000))).toBe("ERR_OVERLOADED");
    await log.flush();
    await keep(log);
    expect(log.append([entryOf(2, 20_000)])).toBe(9);
  });

  check("holds frames of every size", async ({ open, keep, crash }) => {
    let log = await open();
    const sizes = [10, 70_000, 0, 9 * 1024 * 1024, 5_000];
    for (const [at, size] of sizes.entries()) log.append([entryOf(at, size)]);
    await keep(log);
    crash();
    log = await open();
    const bodies = (await framesIn(log, 1)).map(({ entries }) => entries[0]?.body ?? new Uint8Array(0));
    expect(bodies.map(({ length }) => length)).toEqual(sizes);
    expect(bodies.every((body, at) => Buffer.compare(body, entryOf(at, sizes[at] as number).body) === 0)).toBe(true);
    await log.truncateBelow(4);
    expect((await log.read(4, 1))[0]?.entries[0]?.body.length).toBe(9 * 1024 * 1024);
  });

  check("has nothing to read where there is nothing", async ({ open, keep }) => {
    const log = await open();
    expect([log.head, log.durable, log.first, log.leaseEpoch, log.failure]).toEqual([0, 0, 1, 0, undefined]);
    expect([await log.read(0, ALL), await log.read(1, ALL)]).toEqual([[], []]);
    await log.truncateBelow(100);
    log.append(framesOf(1, 10));
    await keep(log);
    expect([await log.read(2, ALL), await log.read(99, ALL)]).toEqual([[], []]);
    expect(await valuesIn(log)).toEqual([1]);
  });

  check("takes no appends once closed, and has what was appended before", async ({ open }) => {
    const log = await open();
    log.append(framesOf(1, 10));
    await log.close();
    expect([log.durable, codeOf(() => log.append(framesOf(1, 10))), codeOf(() => log.assertRoom(1))]).toEqual([
      1,
      "ERR_CLOSED",
      "ERR_CLOSED",
    ]);
    await fails(log.truncateBelow(1), "ERR_CLOSED");
    await log.close();
    expect(await valuesIn(await open())).toEqual([1]);
  });
}

/** Does the steps to a log and to a list. */
async function beList(
  { open, keep, crash, idle }: ShardLogUnderTest,
  steps: readonly { readonly f: string; readonly a: number; readonly b: number }[],
): Promise<void> {
  const model: LogFrame[] = [];
  let epoch = 0;
  let log = await open();
  for (const { f, a, b } of steps) {
    if (f === "append") {
      const entries = framesOf(a, b);
      const options = { expectedHead: model.length, leaseEpoch: epoch, lazy: b % 3 === 0 };
      expect(log.append(entries, options)).toBe(model.length + 1);
      model.push({ position: model.length + 1, entries });
    } else if (f === "read") {
      await keep(log);
      checkRead(await log.read(a, b), model, a, log.first);
    } else if (f === "idle") await idle(a);
    else if (f === "fence" && a >= epoch) {
      await log.fence(a);
      epoch = a;
    } else if (f === "fence") await fails(log.fence(a), "ERR_STALE_EPOCH");
    else if (f === "truncate") {
      await log.truncateBelow(a);
      expect(log.first).toBeLessThanOrEqual(Math.max(1, a));
    } else if (f === "flush") {
      await log.flush();
      expect(log.durable).toBe(log.head);
    } else {
      await (f === "close" ? log.close() : keep(log));
      if (f === "crash") crash();
      log = await open();
    }
    expect([log.head, log.leaseEpoch, log.failure]).toEqual([model.length, epoch, undefined]);
  }
  await log.close();
  const last = await open();
  expect(await framesIn(last, 4_000)).toEqual(model.slice(last.first - 1));
}
