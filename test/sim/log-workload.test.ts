/** The log workload and its rules: over the segment log under everything that disks do, over disks that lie, and over histories that do. */
import { describe, expect, test } from "vitest";
import type { Disk } from "../../src/runtime/disk.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";
import type { TimedFault } from "../../src/sim/fault-types.ts";
import type { HistoryEntry } from "../../src/sim/history-types.ts";
import { createLogWorkload } from "../../src/sim/workloads/log-workload.ts";
import { runMini } from "./mini-world.ts";

const SEED = Number(process.env["SEED"] ?? 1);
const LONG = process.env["SHARDLOOM_LONG"] === "1";

/** A disk whose sync of files does nothing. */
function lazy(disk: Disk): Disk {
  return { ...disk, open: async (path, mode) => ({ ...(await disk.open(path, mode)), sync: async () => undefined }) };
}

const RATES = {
  "disk-lost-write": 0.3,
  "disk-torn": 0.8,
  "disk-misdirected": 0.004,
  "disk-bit-rot": 0.01,
  "disk-sync-failed": 0.02,
} as const;

/** Crashes and bad times of disks, at random. */
function badTimes(seed: number, nodes: number, durationMs: number): TimedFault[] {
  const random = createSeededRandom(seed);
  return Array.from({ length: Math.ceil(durationMs / 50) }, () => {
    const node = `n${Math.floor(random.float() * nodes)}`;
    const kind =
      (["crash", "crash", "crash", "disk-full", "disk-slow"] as const)[Math.floor(random.float() * 5)] ?? "crash";
    const targets = [kind === "crash" ? node : `${node}/disk`];
    const atMs = random.float() * durationMs;
    return { kind, atMs, durationMs: random.float() * 80, targets, size: random.float() };
  }).sort((a, b) => a.atMs - b.atMs);
}

/** Whether an answer is of a log that syncs what it acknowledges. */
function isSynced({ value }: HistoryEntry): boolean {
  return !(value as { readonly node: string }).node.endsWith("/os");
}

/** Whether an append had a condition. */
function isConditional({ value }: HistoryEntry): boolean {
  return (value as { readonly condition?: object }).condition !== undefined;
}

describe("the log workload", () => {
  test("finds nothing wrong with the segment log, whatever disks do", async () => {
    const hits = new Map<string, number>();
    let acknowledged = 0;
    let reported = 0;
    for (let seed = SEED; seed < SEED + (LONG ? 100 : 15); seed++) {
      const durationMs = 1_500;
      const timed = badTimes(seed, 2, durationMs);
      // Half the seeds without damage: those must report none.
      const damage = seed % 2 === 0;
      const rates = damage ? RATES : { ...RATES, "disk-misdirected": 0, "disk-bit-rot": 0 };
      const run = await runMini(createLogWorkload({ ratePerSecond: 300 }), {
        seed,
        nodes: 2,
        durationMs,
        rates,
        timed,
      });
      expect(run.violations, `seed ${seed}`).toEqual([]);
      for (const { kind } of run.faults) hits.set(kind, (hits.get(kind) ?? 0) + 1);
      acknowledged += run.history.filter(({ type, f }) => type === "ok" && f === "append").length;
      const corrupt = run.history.filter(({ error }) => error === "ERR_CORRUPT").length;
      if (!damage) expect(corrupt, `seed ${seed}`).toBe(0);
      reported += corrupt;
    }
    for (const kind of [...Object.keys(RATES), "crash", "disk-full", "disk-slow"])
      expect(hits.get(kind) ?? 0, `${kind} of ${JSON.stringify([...hits])}`).toBeGreaterThan(0);
    expect(acknowledged).toBeGreaterThan(1_000);
    expect(reported).toBeGreaterThan(0);
  }, 120_000);

  test("is the same again from its seed", async () => {
    const play = () =>
      runMini(createLogWorkload(), {
        seed: SEED,
        nodes: 2,
        durationMs: 4_000,
        rates: RATES,
        timed: badTimes(SEED, 2, 4_000),
      });
    const [first, second] = [await play(), await play()];
    expect(second.history).toEqual(first.history);
    expect(second.disks.map((disk) => disk.hash())).toEqual(first.disks.map((disk) => disk.hash()));
  });

  test("finds a log on a disk that does not sync", async () => {
    const rules = new Set<string>();
    for (let seed = SEED; seed < SEED + 5; seed++) {
      const options = {
        seed,
        nodes: 2,
        durationMs: 4_000,
        rates: { "disk-lost-write": 0.8 },
        timed: badTimes(seed, 2, 4_000),
      };
      const run = await runMini(createLogWorkload({ ratePerSecond: 20 }), { ...options, wrap: lazy });
      for (const { rule } of run.violations) rules.add(rule);
    }
    expect(rules).toContain("damage is of the disk");
  });

  test.for([
    [
      "nothing invented",
      "append",
      "fail",
      (entry: HistoryEntry) => ({ ...entry, type: "fail", error: "ERR_DISK_FULL" }),
    ],
    [
      "no acknowledged write lost",
      "append",
      "ok",
      (entry: HistoryEntry) => ({ ...entry, value: { node: "n0", position: 9_999 } }),
    ],
    [
      "reads are of the log",
      "read",
      "ok",
      (entry: HistoryEntry) => ({ ...entry, value: { node: "n0", entries: [[1, "p9-9"]] } }),
    ],
    [
      "who was overtaken appends nothing",
      "append",
      "ok",
      (entry: HistoryEntry) => ({
        ...entry,
        value: { ...(entry.value as object), condition: { expectedHead: 1, leaseEpoch: 1e6 } },
      }),
    ],
    [
      "who was overtaken appends nothing",
      "append",
      "ok",
      (entry: HistoryEntry) => {
        const { node, position } = entry.value as { readonly node: string; readonly position: number };
        return { ...entry, value: { node, position, condition: { expectedHead: position - 1, leaseEpoch: 0 } } };
      },
    ],
    [
      "who was overtaken appends nothing",
      "fence",
      "ok",
      (entry: HistoryEntry) => ({ ...entry, value: { node: "n0", epoch: 1 } }),
    ],
  ] as const)("sees a history that breaks the rule: %s, of what %s answers", async ([rule, f, , change]) => {
    const workload = createLogWorkload({ truncateShare: 0 });
    const options = { seed: 5, nodes: 1, durationMs: 3_000, rates: {} };
    const lying = {
      ...workload,
      check: (view: Parameters<typeof workload.check>[0]) => {
        const at = view.history.findLastIndex(
          (entry) => entry.f === f && entry.type === "ok" && isSynced(entry) && !isConditional(entry),
        );
        const history = view.history.map((entry, index) => (index === at ? (change(entry) as HistoryEntry) : entry));
        return workload.check({ ...view, history });
      },
    };
    expect((await runMini(workload, options)).violations).toEqual([]);
    expect((await runMini(lying, options)).violations.map((violation) => violation.rule)).toEqual([rule]);
  });

  test("sees an order that is not kept", async () => {
    const workload = createLogWorkload();
    const swap = (view: Parameters<typeof workload.check>[0]) => {
      const acks = view.history.filter((entry) => entry.f === "append" && entry.type === "ok" && isSynced(entry));
      const [one, other] = [acks[0], acks.at(-1)] as [HistoryEntry, HistoryEntry];
      const history = view.history.map((entry) =>
        entry === one ? { ...entry, value: other.value } : entry === other ? { ...entry, value: one.value } : entry,
      );
      return workload.check({ ...view, history });
    };
    const run = await runMini({ ...workload, check: swap }, { seed: 5, nodes: 1, durationMs: 3_000, rates: {} });
    expect(run.violations.map(({ rule }) => rule)).toContain("order kept");
  });

  test.for([
    [{ processesPerNode: 0 }, "processesPerNode"],
    [{ ratePerSecond: 0 }, "ratePerSecond"],
    [{ readShare: 1.1 }, "readShare"],
    [{ maxBytes: 5 }, "maxBytes"],
    [{ fenceShare: -0.1 }, "fenceShare"],
    [{ conditionalShare: Number.NaN }, "conditionalShare"],
  ] as const)("refuses %o", ([options, name]) => {
    expect(() => createLogWorkload(options)).toThrow(new RegExp(`Cannot create log workload as ${name} must be`));
  });
});
