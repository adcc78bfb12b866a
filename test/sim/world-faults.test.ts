/** Faults of a world from the option to their effect: each kind, alone and often, hits, and what the rules make of it. */
import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { BUILT_IN_WORKLOADS } from "../../src/sim/built-in-workloads.ts";
import { createWorld } from "../../src/sim/create-world.ts";
import { FAULT_TABLE } from "../../src/sim/fault-table.ts";
import { FAULT_KINDS, type FaultKind, type FaultRates } from "../../src/sim/fault-types.ts";
import type { NodeService } from "../../src/sim/node-service.ts";
import { checkRun } from "../../src/sim/workload-run.ts";
import type { Workload, WorkloadRef } from "../../src/sim/workload-types.ts";
import { registerWorkload } from "../../src/sim/workloads/register-workload.ts";
import { MapRecords } from "../../src/sim/world-records.ts";

const LONG = process.env["SHARDLOOM_LONG"] === "1";
const SEED = Number(process.env["SEED"] ?? 1);
const builtIn = (name: string): WorkloadRef => BUILT_IN_WORKLOADS[name] as WorkloadRef;

/** Kinds that hit clusters that keep nothing. */
const IN_MEMORY: ReadonlySet<FaultKind> = new Set(
  FAULT_KINDS.filter((kind) => !["node-kill", "cluster-crash", "worker-io-crash"].includes(kind)),
);
/** Every other kind in short runs, by the seed of the run: the next run has the others. */
function byTurn(kinds: readonly FaultKind[]): FaultKind[] {
  return kinds.filter((_, at) => LONG || at % 2 === SEED % 2);
}

/** What crashes do to disks. */
const UNSYNCED: readonly FaultKind[] = ["disk-torn", "disk-lost-write"];
/** Kinds that clusters which keep their data meet in another way. */
/** A torn write needs one of several sectors that is on its way when the power fails: logs that sync at once have it in few worlds. */
const DURABLE_KINDS: readonly FaultKind[] = FAULT_KINDS.filter(
  (kind) => kind !== "disk-torn" && ["node", "power", "worker", "disk"].includes(FAULT_TABLE[kind].scope),
);
const DURABLE_RATES: FaultRates = { "worker-io-crash": 0.003, "disk-bit-rot": 0.05, "disk-misdirected": 0.005 };

/** A workload that gives the kind something to hit. */
function workloadFor(kind: FaultKind): WorkloadRef {
  const { scope } = FAULT_TABLE[kind];
  return builtIn(scope === "disk" ? "log" : scope === "nats" ? "nats" : "register");
}

describe("a world", () => {
  it.each(byTurn(FAULT_KINDS.filter((kind) => IN_MEMORY.has(kind))))(
    "has %s hit where it is asked for alone, and the workload's rules hold all the same",
    async (kind) => {
      const rate = FAULT_TABLE[kind].form === "drawn" ? 0.1 : 30;
      // What a crash does to a disk needs crashes; one in a few of them finds something unsynced.
      const crash = kind === "disk-torn" || kind === "disk-lost-write" ? { crash: 60, "disk-slow": 60 } : {};
      const durationMs = "crash" in crash ? 120_000 : 8_000;
      await using world = createWorld({
        seed: 3,
        nodes: 4,
        durationMs,
        faults: { ...crash, [kind]: "crash" in crash ? 1 : rate },
      });
      const { faultsByKind, violations, history } = await world.run(workloadFor(kind));
      expect(violations).toEqual([]);
      expect(faultsByKind[kind] ?? 0).toBeGreaterThan(0);
      expect(history.filter(({ type }) => type === "ok").length).toBeGreaterThan(0);
    },
  );

  it.each(byTurn(DURABLE_KINDS))(
    "that keeps its data has %s hit alone, and everything acknowledged is there",
    async (kind) => {
      const { form, scope } = FAULT_TABLE[kind];
      // What a crash does to a disk, and what a start reads of it, needs crashes; a slow disk has more that is not synced.
      const crash = scope === "disk" && form === "drawn" ? { crash: 60, "disk-slow": 60 } : {};
      const rate = form === "timed" ? 40 : UNSYNCED.includes(kind) ? 1 : (DURABLE_RATES[kind] ?? 0.05);
      const faults: FaultRates = { ...crash, [kind]: rate };
      await using world = createWorld({ nodes: 3, vshards: 4, durability: "fsync", durationMs: 8_000, faults });
      const workload = registerWorkload({ clients: 6, keys: 4, perSecond: 5 });
      let hits = 0;
      let answered = 0;
      for (let seed = 3; seed < 9 && (hits === 0 || answered <= 20); seed++) {
        const { faultsByKind, violations, history } = await world.run(workload, { seed });
        expect(violations).toEqual([]);
        answered += history.filter(({ type }) => type === "ok").length;
        hits += faultsByKind[kind] ?? 0;
      }
      expect(hits).toBeGreaterThan(0);
      expect(answered).toBeGreaterThan(20);
    },
  );

  it.each(["os", "memory"] as const)(
    "that keeps its data for %s forgets nothing by what that survives",
    async (durability) => {
      const faults: FaultRates = {
        "node-kill": durability === "os" ? 60 : 5,
        "worker-crash": 20,
        crash: 5,
        "disk-lost-write": 1,
      };
      await using world = createWorld({ nodes: 3, vshards: 4, durability, durationMs: 8_000, faults });
      for (const seed of [1, 2, 3]) {
        const { violations, faults: hit } = await world.run(registerWorkload({ clients: 6, keys: 4, perSecond: 5 }), {
          seed,
        });
        expect(violations).toEqual([]);
        expect(hit.length).toBeGreaterThan(0);
      }
    },
  );

  it.each(["barrier", "list-append"])(
    "passes with %s, whose state depends on the shape, and replays its own record to the same trace",
    async (name) => {
      await using world = createWorld({ seed: 101, nodes: 4, durationMs: 8_000, faults: "swarm" });
      const { faults, operations, traceHash, violations, history } = await world.run(builtIn(name));
      expect(violations).toEqual([]);
      expect(faults.length).toBeGreaterThan(0);
      expect(history.filter(({ type }) => type === "ok").length).toBeGreaterThan(0);
      expect((await world.run(builtIn(name), { replay: { faults, operations } })).traceHash).toBe(traceHash);
    },
  );

  it("judges registers, searches and messages also where a node with their only primary is lost", async () => {
    await using world = createWorld({ nodes: 4, durationMs: 20_000, faults: { lose: 15 } });
    for (const [name, seed] of [
      ["register", 5],
      ["search", 1],
    ] as const) {
      const { violations, faultsByKind } = await world.run(builtIn(name), { seed });
      expect(faultsByKind).toEqual({ lose: 1 });
      expect(violations).toEqual([]);
    }
  });
});

describe("the last check", () => {
  const workload = (error: Error): Workload => ({
    name: "w",
    generate: () => [],
    invoke: async () => null,
    check: () => Promise.reject(error),
  });
  const view = { history: [], faults: [], mayForget: false, lost: [], nodes: [] };

  it("finds that the cluster does not answer, and blames all else on the workload", async () => {
    const silent = workload(new ShardloomError("ERR_UNAVAILABLE", "nobody answers"));
    expect(await checkRun(silent, view)).toMatchObject([{ rule: "answers after everything healed" }]);
    for (const error of [new RangeError("x"), new ShardloomError("ERR_INVALID_ARGUMENT", "x")])
      await expect(checkRun(workload(error), view)).rejects.toMatchObject({ code: "ERR_WORKLOAD_FAILED" });
  });
});

describe("MapRecords", () => {
  const node = (name: string, topologyEpoch: number, owners: readonly number[]): NodeService =>
    ({
      name,
      node: { incarnation: 1 },
      serving: { cluster: { topology: { topologyEpoch, mapEpoch: 1, owners } } },
    }) as unknown as NodeService;

  it("finds another primary within an epoch, also when one node alone changes its mind", () => {
    const good = new MapRecords();
    for (const [name, epoch] of [
      ["n0", 1],
      ["n0", 2],
      ["n1", 1],
    ] as const)
      good.look(node(name, epoch, [0, 1]));
    expect(good.violations()).toEqual([]);
    const bad = new MapRecords();
    bad.look(node("n0", 1, [0, 1]));
    bad.look(node("n0", 2, [1, 1]));
    expect(bad.violations()).toMatchObject([{ rule: "one primary per vshard and epoch" }]);
  });
});
