/** Options of faults to rates, the plan of timed faults, and the injector. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { planTimed } from "../../src/sim/fault-plan.ts";
import { FAULT_TABLE, kindsOf } from "../../src/sim/fault-table.ts";
import {
  FAULT_KINDS,
  type Fault,
  type FaultKind,
  type FaultsOption,
  type TimedFault,
} from "../../src/sim/fault-types.ts";
import { checkFaults, type FaultShapeOptions, isDown, resolveFaultShape, resolveFaults } from "../../src/sim/faults.ts";
import { createFaultInjector, createReplayInjector } from "../../src/sim/injector.ts";
import { chiSquareRatio } from "../routing/chi-square.ts";
import { createHashStream } from "./streams.ts";

const seed = Number(process.env["SEED"]);
const NODES = ["n0", "n1", "n2", "n3", "n4"];
const HOUR_MS = 3_600_000;
const shape = resolveFaultShape({ nodes: NODES, workersPerNode: 2, acks: 2, disks: true, nats: true });
const durable = resolveFaultShape({ ...shape, storage: true, survives: ["crash", "node-kill"] });
const streams = createHashStream(seed);

describe("the table", () => {
  it("describes every kind, drawn ones with a probability and timed ones with a span", () => {
    for (const kind of FAULT_KINDS) {
      const { form, defaultRate, durationMs, sentence, where } = FAULT_TABLE[kind];
      expect(defaultRate, kind).toBeGreaterThan(0);
      if (form === "drawn") expect(defaultRate, kind).toBeLessThanOrEqual(1);
      expect(durationMs[0], kind).toBeLessThanOrEqual(durationMs[1]);
      expect(sentence, kind).toMatch(/^[A-Z].*\.$/);
      expect(where, kind).not.toBe("");
    }
    expect([...kindsOf("drawn"), ...kindsOf("timed")].sort()).toEqual([...FAULT_KINDS].sort());
  });
});

describe("resolveFaults", () => {
  const resolve = (option: FaultsOption, at: FaultShapeOptions = { nodes: NODES, acks: 2, disks: true, nats: true }) =>
    resolveFaults(option, streams("swarm"), resolveFaultShape(at));

  it("knows none, all, names and rates", () => {
    expect(resolve("none")).toEqual({});
    expect(Object.keys(resolve("all", durable))).toEqual([...FAULT_KINDS]);
    expect(resolve(["drop", "crash"])).toEqual({
      drop: FAULT_TABLE.drop.defaultRate,
      crash: FAULT_TABLE.crash.defaultRate,
    });
    expect(resolve({ drop: 0.5, delay: 0, pause: 12 })).toEqual({ drop: 0.5, pause: 12 });
  });

  it("leaves out what the world has nothing for", () => {
    const kinds = Object.keys(resolve("all", { nodes: ["n0", "n1", "n2"] }));
    for (const kind of ["crash", "lose", "partition-ring", "disk-full", "nats-frozen", "nats-late-apply"])
      expect(kinds).not.toContain(kind);
    expect(kinds).toContain("partition-bridge");
    expect(Object.keys(resolve("all", { nodes: ["n0"] }))).not.toContain("drop");
    // Who keeps nothing has no use for a kind of crash that leaves the disk, and nothing after a crash of all.
    const inMemory = new Set(Object.keys(resolve("all")));
    expect(FAULT_KINDS.filter((kind) => !inMemory.has(kind))).toEqual([
      "node-kill",
      "cluster-crash",
      "worker-io-crash",
    ]);
    // Who keeps everything may crash alone.
    expect(Object.keys(resolve("all", { ...durable, nodes: ["n0"] }))).toContain("crash");
  });

  it("draws another subset and other rates for each swarm, each kind in half of them", () => {
    const counts = new Map<string, number>();
    const rates = new Set<number | undefined>();
    for (let swarm = 0; swarm < 400; swarm++) {
      const drawn = resolveFaults("swarm", streams(`swarm/${swarm}`), durable);
      rates.add(drawn.pause);
      for (const kind of Object.keys(drawn)) counts.set(kind, (counts.get(kind) ?? 0) + 1);
      for (const kind of kindsOf("drawn")) expect(drawn[kind] ?? 0).toBeLessThanOrEqual(1);
    }
    expect(rates.size).toBeGreaterThan(150);
    for (const kind of FAULT_KINDS)
      expect(chiSquareRatio([counts.get(kind) ?? 0, 400 - (counts.get(kind) ?? 0)], [200, 200]), kind).toBeLessThan(1);
    expect(resolveFaults("swarm", streams("a"), durable)).toEqual(resolveFaults("swarm", streams("a"), durable));
  });

  it.each<[unknown, string, unknown]>([
    [{ drop: 1.01 }, 'faults["drop"]', 1.01],
    [{ drop: -0.1 }, 'faults["drop"]', -0.1],
    [{ drop: Number.NaN }, 'faults["drop"]', Number.NaN],
    [{ crash: Number.POSITIVE_INFINITY }, 'faults["crash"]', Number.POSITIVE_INFINITY],
    [{ crash: -1 }, 'faults["crash"]', -1],
    [{ crash: "1" }, 'faults["crash"]', "1"],
    [{ frob: 0.1 }, "a name in faults", "frob"],
    [{ toString: 0.1 }, "a name in faults", "toString"],
    [["drop", "frob"], "faults[1]", "frob"],
    [["drop", 3], "faults[1]", 3],
    ["most", "faults", "most"],
    [null, "faults", null],
    [7, "faults", 7],
  ])("refuses %j, naming %s and the value", (option, name, value) => {
    expect(() => resolve(option as FaultsOption)).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", details: { name, value } }),
    );
  });

  it.each<[Partial<FaultShapeOptions>, string]>([
    [{ maxCrashed: 6 }, "maxCrashed"],
    [{ maxCrashed: -1 }, "maxCrashed"],
    [{ maxCrashed: 1.5 }, "maxCrashed"],
    [{ maxCrashed: 2, maxLost: 3 }, "maxLost"],
    [{ workersPerNode: 0 }, "workersPerNode"],
    [{ acks: Number.NaN }, "acks"],
    [{ recoveryMs: -1 }, "recoveryMs"],
    [{ nodes: [] }, "nodes"],
    [{ nodes: ["a", "a"] }, "nodes"],
  ])("refuses the shape %j, naming %s", (wrong, name) => {
    expect(() => resolveFaultShape({ nodes: NODES, ...wrong })).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", details: expect.objectContaining({ name }) }),
    );
  });

  it("lets fewer nodes crash than a majority, and than hold each write", () => {
    expect(resolveFaultShape({ nodes: NODES }).maxCrashed).toBe(0);
    expect(resolveFaultShape({ nodes: NODES, acks: 2 }).maxCrashed).toBe(1);
    expect(resolveFaultShape({ nodes: NODES, acks: 5 }).maxCrashed).toBe(2);
    expect(resolveFaultShape({ nodes: ["a", "b"], acks: 2 }).maxCrashed).toBe(0);
  });
});

describe("planTimed", () => {
  const timedKinds = kindsOf("timed").filter((kind) => kind !== "clock-skew" && !isDown(kind));

  it("has the rates that were asked for, at times that are spread evenly", () => {
    for (const kind of timedKinds) {
      const plan = planTimed({ [kind]: 6 }, streams, shape, 10 * HOUR_MS);
      const perHour = Array.from({ length: 10 }, () => 0);
      for (const { atMs } of plan) perHour[Math.floor(atMs / HOUR_MS)] = (perHour[Math.floor(atMs / HOUR_MS)] ?? 0) + 1;
      // A Poisson count has its mean as variance, so the statistic of ten counts over ten expectations is a chi-square's.
      expect(
        chiSquareRatio(
          perHour,
          perHour.map(() => 360),
        ),
        kind,
      ).toBeLessThan(1);
    }
  });

  it("draws targets, durations and sizes within the table, and nothing of another kind when a rate changes", () => {
    const one = planTimed({ pause: 5, partition: 5, clog: 5 }, streams, shape, HOUR_MS);
    const other = planTimed({ pause: 5, partition: 1, clog: 5, "worker-slow": 9 }, streams, shape, HOUR_MS);
    const ofKind = (plan: readonly TimedFault[], kind: FaultKind) => plan.filter((fault) => fault.kind === kind);
    expect(ofKind(other, "pause")).toEqual(ofKind(one, "pause"));
    expect(ofKind(other, "clog")).toEqual(ofKind(one, "clog"));
    expect(ofKind(other, "partition").length).toBeLessThan(ofKind(one, "partition").length);
    expect(ofKind(one, "pause").length).toBeGreaterThan(0);
  });

  const shapes = fc.record({
    nodes: fc.integer({ min: 1, max: 9 }),
    workersPerNode: fc.integer({ min: 1, max: 4 }),
    acks: fc.integer({ min: 1, max: 4 }),
    disks: fc.boolean(),
    nats: fc.boolean(),
    storage: fc.boolean(),
    survives: fc.subarray<FaultKind>(["crash", "node-kill"]),
    factor: fc.integer({ min: 1, max: 40 }),
    run: fc.nat(),
  });

  it("gives only faults that a script may have, with never too many nodes down", () => {
    let crashes = 0;
    fc.assert(
      fc.property(shapes, ({ nodes, factor, run, ...rest }) => {
        const names = Array.from({ length: nodes }, (_, index) => `n${index}`);
        const world = resolveFaultShape({ nodes: names, ...rest });
        const rates = resolveFaults("all", streams("unused"), world);
        const busy = Object.fromEntries(Object.entries(rates).map(([kind, rate]) => [kind, rate * factor]));
        const drawnOff = Object.fromEntries(kindsOf("drawn").map((kind) => [kind, 0]));
        const plan = planTimed({ ...busy, ...drawnOff }, createHashStream(run), world, 600_000);
        checkFaults(plan, world); // throws for an unknown target, a time, a size, or too many nodes down
        const isOutside = ({ kind, durationMs }: TimedFault, index: number): boolean =>
          durationMs < FAULT_TABLE[kind].durationMs[0] ||
          durationMs > FAULT_TABLE[kind].durationMs[1] ||
          (plan[index] as TimedFault).atMs < (plan[index - 1]?.atMs ?? 0);
        expect(plan.filter(isOutside)).toEqual([]);
        crashes += plan.filter(({ kind }) => kind === "crash").length;
      }),
      { seed, numRuns: 100 },
    );
    expect(crashes).toBeGreaterThan(100);
  });
});

describe("checkFaults", () => {
  const crash = (node: string, atMs: number): Fault => ({
    kind: "crash",
    atMs,
    durationMs: 1000,
    targets: [node],
    size: 0,
  });
  const drop: Fault = { kind: "drop", site: "n0>n1", ordinal: 3, size: 0 };

  it("takes a script that the world can play", () => {
    expect(() => checkFaults([drop, crash("n0", 0), crash("n1", 16_000.5)], shape)).not.toThrow();
  });

  it("takes crashes of all nodes where each has everything on its disk, but no more losses, and none of a node that is down", () => {
    const all = NODES.map((node, at) => crash(node, at));
    expect(() => checkFaults([...all, crash("n0", 1_000)], durable)).not.toThrow();
    expect(() => checkFaults([...all, crash("n0", 999)], durable)).toThrow("not down");
    const lose = (node: string, atMs: number): Fault => ({ ...crash(node, atMs), kind: "lose", durationMs: 0 });
    expect(() => checkFaults([lose("n0", 0), ...all.slice(1)], durable)).not.toThrow();
    expect(() => checkFaults([lose("n0", 0), lose("n1", 50_000)], durable)).toThrow("at most 1 nodes");
  });

  it.each<[string, readonly unknown[]]>([
    ["faults[1].targets[0]", [crash("n0", 0), crash("n1", 15_999)]],
    ["faults[1].targets[0]", [crash("n0", 0), { ...crash("n1", 15_999), kind: "node-kill" }]],
    ["faults[0].targets", [{ ...crash("n0", 0), kind: "cluster-crash", targets: [] }]],
    ["faults[0].targets[1]", [{ ...crash("n0", 0), kind: "cluster-crash", targets: ["n0", "n9"] }]],
    ["faults[0].targets[0]", [crash("n1", 10), crash("n0", 0)]],
    ["faults[1].targets[0]", [crash("n0", 0), crash("n0", 500)]],
    ["faults[0].targets[0]", [crash("n9", 0)]],
    ["faults[0].targets[0]", [{ kind: "worker-crash", atMs: 0, durationMs: 0, targets: ["n0/w2"], size: 0 }]],
    ["faults[0].targets[0]", [{ kind: "disk-full", atMs: 0, durationMs: 0, targets: ["n0"], size: 0 }]],
    ["faults[0].targets", [{ kind: "clog", atMs: 0, durationMs: 0, targets: ["n0"], size: 0 }]],
    ["faults[0].kind", [{ ...drop, kind: "frob" }]],
    ["faults[0].ordinal", [{ ...drop, ordinal: -1 }]],
    ["faults[0].ordinal", [{ ...crash("n0", 0), kind: "drop" }]],
    ["faults[0].atMs", [{ ...drop, kind: "crash" }]],
    ["faults[0].atMs", [crash("n0", Number.NaN)]],
    ["faults[0].size", [{ ...drop, size: 1 }]],
  ])("refuses, naming %s", (name, faults) => {
    expect(() => checkFaults(faults as Fault[], shape)).toThrow(
      expect.objectContaining({ code: "ERR_INVALID_ARGUMENT", details: expect.objectContaining({ name }) }),
    );
  });
});

describe("an injector", () => {
  /** Draws `count` opportunities at each of some sites, in an order that the run decides. */
  function drawAll(
    injector: ReturnType<typeof createReplayInjector>,
    order: readonly number[],
    count: number,
  ): Fault[] {
    for (let round = 0; round < count; round++) {
      for (const index of order) {
        injector.draw(index % 2 === 0 ? "drop" : "delay", `site${index >> 1}`);
      }
    }
    return [...injector.injected];
  }

  const byPlace = (faults: readonly Fault[]): Fault[] =>
    [...faults].sort((one, other) => JSON.stringify(one).localeCompare(JSON.stringify(other)));

  it.each([0.001, 0.05, 0.5, 1])("hits with rate %d, and one opportunity like another", (rate) => {
    const draws = 40_000;
    const injector = createFaultInjector({ drop: rate, delay: rate }, streams, []);
    const drop = injector.point("drop", "a");
    const delay = injector.point("delay", "a");
    const eighths = Array.from({ length: 8 }, () => 0);
    let hits = 0;
    let both = 0;
    for (let draw = 0; draw < draws; draw++) {
      const isHit = drop.draw() !== undefined;
      if (delay.draw() !== undefined && isHit) both++;
      if (!isHit) continue;
      hits++;
      eighths[Math.floor((draw * 8) / draws)] = (eighths[Math.floor((draw * 8) / draws)] ?? 0) + 1;
    }
    if (rate === 1) {
      expect(hits).toBe(draws);
      return;
    }
    const expected = [draws * rate, draws * (1 - rate)];
    expect(chiSquareRatio([hits, draws - hits], expected)).toBeLessThan(1);
    expect(
      chiSquareRatio(
        eighths,
        eighths.map(() => (draws * rate) / 8),
      ),
    ).toBeLessThan(1);
    expect(chiSquareRatio([both, draws - both], [draws * rate ** 2, draws * (1 - rate ** 2)])).toBeLessThan(
      rate < 0.01 ? 3 : 1,
    );
  });

  it("hits sites and kinds independently of each other, and of the order of draws", () => {
    const rates = { drop: 0.1, delay: 0.2 };
    const all = drawAll(createFaultInjector(rates, streams, []), [0, 1, 2, 3, 4, 5], 200);
    const turned = drawAll(createFaultInjector(rates, streams, []), [5, 3, 1, 0, 4, 2], 200);
    const without = drawAll(createFaultInjector({ drop: 0.1 }, streams, []), [0, 1, 2, 3, 4, 5], 200);
    const fewer = drawAll(createFaultInjector(rates, streams, []), [2, 3], 200);
    expect(all.length).toBeGreaterThan(100);
    expect(byPlace(turned)).toEqual(byPlace(all));
    expect(without).toEqual(all.filter(({ kind }) => kind === "drop"));
    expect(fewer).toEqual(all.filter((fault) => "site" in fault && fault.site === "site1"));
  });

  it("replays exactly what was recorded, and any part of it", () => {
    const rates = { drop: 0.1, delay: 0.3 };
    fc.assert(
      fc.property(fc.nat(), fc.infiniteStream(fc.boolean()), (run, keeps) => {
        const recorded = drawAll(createFaultInjector(rates, createHashStream(run), []), [0, 1, 2, 3], 60);
        expect(drawAll(createReplayInjector(recorded), [0, 1, 2, 3], 60)).toEqual(recorded);
        const part = recorded.filter(() => keeps.next().value);
        const shuffled = [...part].reverse().concat(part.slice(0, 3)); // in any order, some twice
        expect(drawAll(createReplayInjector(shuffled), [0, 1, 2, 3], 60)).toEqual(part);
      }),
      { seed, numRuns: 100 },
    );
  });

  it("counts through handles and by name alike, and does nothing once quiet", () => {
    const list: Fault[] = [1, 2, 5].map((ordinal) => ({ kind: "drop", site: "a", ordinal, size: 0 }));
    const injector = createReplayInjector(list);
    const point = injector.point("drop", "a");
    const hits = [point.draw(), injector.draw("drop", "a"), point.draw()].map((fault) => fault?.ordinal);
    expect(hits).toEqual([undefined, 1, 2]);
    injector.quiet();
    for (let draw = 0; draw < 10; draw++) expect(point.draw()).toBeUndefined();
    expect(injector.draw("drop", "b")).toBeUndefined();
    expect(injector.injected.length).toBe(2);
  });

  it("hands out the timed faults of a list by time, and records those that began", () => {
    const pause = (atMs: number): TimedFault => ({ kind: "pause", atMs, durationMs: 1, targets: ["n0"], size: 0 });
    const injector = createReplayInjector([pause(9), { kind: "drop", site: "a", ordinal: 0, size: 0 }, pause(2)]);
    expect(injector.timed.map(({ atMs }) => atMs)).toEqual([2, 9]);
    expect(injector.injected).toEqual([]);
    injector.began(injector.timed[0] as TimedFault);
    expect(injector.injected).toEqual([pause(2)]);
  });
});
