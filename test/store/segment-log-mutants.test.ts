/** Planted defects of the segment log that show where many writes are torn: worlds of disks alone, with many crashes, find each of them. */
import { expect, test } from "vitest";
import type { TimedFault } from "../../src/sim/fault-types.ts";
import { mutatedCopy, type Patch, unmutated } from "../support/mutated.ts";

const SEED = Number(process.env["SEED"] ?? 1);
const WORLDS = 30;
const NO_DAMAGE = "damage is of the disk";

interface Defect {
  readonly id: string;
  readonly what: string;
  readonly patch: Patch;
  readonly rules: readonly string[];
}

const DEFECTS: readonly Defect[] = [
  {
    id: "takes-torn-frames",
    what: "recovery takes a frame by its header alone: one that was torn behind it counts as written",
    patch: { file: "src/store/segment-recovery", from: " || !isWhole(bytes, end, record))", to: ")" },
    rules: [NO_DAMAGE, "nothing invented"],
  },
  {
    id: "boasts-what-is-synced",
    what: "a group says of itself that it was synced before: a torn tail looks like damage",
    patch: {
      file: "src/store/group-commit",
      from: "durable: this.#synced, leaseEpoch: this.#leaseEpoch };",
      to: "durable: group.last, leaseEpoch: this.#leaseEpoch };",
    },
    rules: [NO_DAMAGE],
  },
  {
    id: "names-before-it-syncs",
    what: "a new segment gets its name before what is in it was synced: after a loss of power its header is not there",
    patch: {
      file: "src/store/segment-writer",
      from: "await file.sync();\n            await disk.rename(path,",
      to: "await disk.rename(path,",
    },
    rules: [NO_DAMAGE, "no acknowledged write lost"],
  },
];

interface Program {
  runMini(workload: unknown, options: object): Promise<{ readonly violations: readonly { readonly rule: string }[] }>;
  createLogWorkload(options: object): unknown;
}

async function programOf({ url }: { url(file: string): string }): Promise<Program> {
  const { runMini } = (await import(url("test/sim/mini-world"))) as Pick<Program, "runMini">;
  const { createLogWorkload } = (await import(url("src/sim/workloads/log-workload"))) as Pick<
    Program,
    "createLogWorkload"
  >;
  return { runMini, createLogWorkload };
}

/** Crashes all the time, of a node that comes back at once. */
function crashes(durationMs: number): TimedFault[] {
  return Array.from({ length: durationMs / 25 }, (_, at) => ({
    kind: "crash",
    atMs: at * 25 + 12,
    durationMs: 2,
    targets: ["n0"],
    size: 0,
  }));
}

/** Rules that a program breaks in one world. */
async function rulesOf({ runMini, createLogWorkload }: Program, seed: number): Promise<string[]> {
  const durationMs = 1_000;
  const { violations } = await runMini(createLogWorkload({ ratePerSecond: 600, maxBytes: 3_000, truncateShare: 0 }), {
    seed,
    nodes: 1,
    durationMs,
    rates: { "disk-lost-write": 0.1, "disk-torn": 0.9 },
    timed: crashes(durationMs),
  });
  return violations.map(({ rule }) => rule);
}

test.for(DEFECTS)("$id is found: $what", { timeout: 120_000 }, async ({ patch, rules }) => {
  const copy = mutatedCopy([patch], ["native-bridge", "src", "actors", "test/sim"]);
  try {
    const program = await programOf(copy);
    let found: string[] = [];
    for (let seed = SEED; seed < SEED + WORLDS && !found.some((rule) => rules.includes(rule)); seed++) {
      found = await rulesOf(program, seed);
    }
    expect(rules).toEqual(expect.arrayContaining([found.find((rule) => rules.includes(rule))]));
  } finally {
    copy.remove();
  }
});

test("production breaks no rule in the worlds that find them", { timeout: 120_000 }, async () => {
  const program = await programOf(unmutated());
  for (let seed = SEED; seed < SEED + 8; seed++) expect(await rulesOf(program, seed), `seed ${seed}`).toEqual([]);
});
