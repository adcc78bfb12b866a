/** Barriers over real threads: main thread, workers and connected threads as members, and what their deaths do. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { afterEach, describe, expect, it } from "vitest";
import { vshardOfBarrier } from "../../../actors/barrier/client-barrier.ts";
import { drive } from "../../../actors/barrier/drive.ts";
import type { OpenBarrierOptions, TickBarrier } from "../../../src/actor/tick-barrier.ts";
import type { ShardloomError } from "../../../src/errors.ts";
import { Cluster } from "../../../src/index.ts";
import { ownerOf } from "../../../src/topology/snapshot.ts";
import { eventually } from "../../support/cluster.ts";
import { type Walk, walk, walker } from "./actors.ts";

const LONG = process.env["SHARDLOOM_LONG"] === "1";
const PHASES = ["sense", "act", "decay"];

let cluster: Cluster;
const threads: Worker[] = [];

async function start(): Promise<void> {
  cluster = await Cluster.start({
    workers: 2,
    memoryBytes: 64 * 1024 * 1024,
    requestTimeoutMs: LONG ? 600_000 : 20_000,
    actors: [new URL("./actors.js", import.meta.url)],
  });
}

afterEach(async () => {
  await cluster.close();
  for (const thread of threads.splice(0)) await thread.terminate();
});

/** A name of a barrier that a shard hosts. */
function nameOn(shard: number, prefix = "barrier"): string {
  for (let at = 0; ; at++) {
    const name = `${prefix}-${at}`;
    if (ownerOf(cluster.topology, vshardOfBarrier(cluster.topology, name)) === shard) return name;
  }
}

/** One of two actors of a shard. */
function walkerOn(shard: number, which = 0) {
  for (let at = 0, found = 0; ; at++)
    if (cluster.shardOfActor(walker, `key-${at}`) === shard && found++ === which)
      return cluster.actor(walker, `key-${at}`);
}

async function startThread(): Promise<{ worker: Worker; ask: (command: string, order: Walk) => Promise<unknown> }> {
  const { transferList, ...port } = await cluster.port();
  const worker = new Worker(new URL("./thread.worker.js", import.meta.url), {
    workerData: { port },
    transferList: [...transferList],
  });
  threads.push(worker);
  await once(worker, "message");
  const ask = async (command: string, order: Walk): Promise<unknown> => {
    worker.postMessage({ command, order });
    const [answer] = (await once(worker, "message")) as [{ value?: unknown; code?: string }];
    if (answer.code !== undefined) throw new Error(answer.code);
    return answer.value;
  };
  return { worker, ask };
}

/** Kills a shard's worker. @returns when its successor serves */
async function kill(shard: number): Promise<void> {
  const restarted = once(cluster, "worker-restarted");
  walkerOn(shard)
    .exit(1)
    .catch(() => undefined);
  await restarted;
}

async function failureOf(work: Promise<unknown>): Promise<ShardloomError> {
  return work.then(
    (value) => {
      throw new Error(`did not fail: ${JSON.stringify(value)}`);
    },
    (error: unknown) => error as ShardloomError,
  );
}

describe("a barrier of a cluster", () => {
  it("is one for client, workers and connected threads, wherever it is hosted", async () => {
    await start();
    const thread = await startThread();
    for (const shard of [0, 1]) {
      const name = nameOn(shard);
      const barrier = await cluster.barrier(name, { phases: PHASES, minMembers: 8 });
      const orders = ["main", "w0", "w1", "thread"].map(
        (where): Walk => ({
          barrier: name,
          members: [`${where}-a`, `${where}-b`],
          ticks: 20,
          seed: 3,
        }),
      );
      const [main, first, second, third] = orders as [Walk, Walk, Walk, Walk];
      for (const member of main.members) await barrier.join(member);
      expect(await walkerOn(0).join(first)).toBe(0);
      expect(await walkerOn(1).join(second)).toBe(0);
      expect(await thread.ask("join", third)).toBe(0);
      const [here, ...there] = await Promise.all([
        walk(barrier, main),
        walkerOn(0).walk(first),
        walkerOn(1).walk(second),
        thread.ask("walk", third),
      ]);
      const last = { round: 19, phase: "decay", arrived: 8, members: 8 };
      expect(here.releases).toBe(120);
      expect(here.results.at(-1)).toEqual(last);
      for (const answer of there) expect(answer).toEqual({ releases: 120, last });
      expect(await barrier.currentTick()).toBe(20);
      await barrier.close();
    }
  });

  it(
    "loses no wake-up: three threads that hesitate at random, each phase under a deadline",
    async () => {
      await start();
      const seed = Number(process.env["SEED"] ?? 1) % 1_000_003;
      const ticks = LONG ? 50_000 : 2_500; // of two phases each
      const name = nameOn(1);
      const barrier = await cluster.barrier(name, {
        phases: ["p", "q"],
        minMembers: 12,
        phaseDeadlineMs: 30_000,
      });
      const order = (where: string, at: number): Walk => ({
        barrier: name,
        members: [0, 1, 2, 3].map((member) => `${where}-${member}`),
        ticks,
        seed: seed + at,
      });
      const orders = [order("main", 0), order("w0", 1), order("w1", 2)] as const;
      for (const member of orders[0].members) await barrier.join(member);
      await walkerOn(0).join(orders[1]);
      await walkerOn(1).join(orders[2]);
      const timeoutMs = LONG ? 1_200_000 : 170_000;
      const [here, first, second] = await Promise.all([
        walk(barrier, orders[0]),
        walkerOn(0).walk(orders[1], { timeoutMs }),
        walkerOn(1).walk(orders[2], { timeoutMs }),
      ]);
      expect(here.results.every(({ arrived, members }) => arrived === 12 && members === 12)).toBe(true);
      expect([here.releases, first.releases, second.releases]).toEqual([8 * ticks, 8 * ticks, 8 * ticks]);
    },
    LONG ? 1_500_000 : 180_000,
  );

  it("goes on while members come and go in mid-phase on other threads", async () => {
    await start();
    const name = nameOn(1);
    const visits = LONG ? 3_000 : 300;
    const barrier = await cluster.barrier(name, { phases: ["p", "q"], members: ["stays"], phaseDeadlineMs: 30_000 });
    const left = Promise.all(
      [0, 1].map((shard) =>
        walkerOn(shard).visit(
          { barrier: name, member: `guest-${shard}`, visits },
          { timeoutMs: LONG ? 800_000 : 80_000 },
        ),
      ),
    );
    let done = false;
    void left.then(() => (done = true));
    const sizes = new Set<number>();
    for (let tick = 0; !done; tick++) {
      for (const phase of barrier.phases) {
        const result = await barrier.arrive("stays", phase);
        expect(result).toMatchObject({ round: tick, phase });
        expect(result.arrived).toBe(result.members);
        sizes.add(result.members);
      }
    }
    expect(await left).toEqual([2 * visits, 2 * visits]);
    expect([...sizes]).toEqual(expect.arrayContaining([1, 2]));
    expect((await barrier.state()).members).toEqual(["stays"]);
  });

  it("holds up no cluster that closes: who waits is told", async () => {
    await start();
    for (const shard of [0, 1]) await cluster.barrier(nameOn(shard), { phases: ["p"], members: ["a", "b"] });
    const waits = [0, 1].flatMap((host) =>
      [0, 1].map((shard) =>
        failureOf(walkerOn(shard, host).arrive({ barrier: nameOn(host), member: "a", phase: "p", round: 0 })),
      ),
    );
    await eventually("they wait", async () => (await (await cluster.barrier(nameOn(1))).state()).arrived === 1);
    const started = performance.now();
    await cluster.close();
    expect(performance.now() - started).toBeLessThan(15_000);
    for (const wait of waits) expect((await wait).code).toBe("ERR_CLOSED");
  });

  it("tells a late opener its options, and refuses others", async () => {
    await start();
    const name = nameOn(1);
    expect(await failureOf(cluster.barrier(name))).toMatchObject({
      code: "ERR_BARRIER",
      details: { reason: "not-open" },
    });
    const barrier = await cluster.barrier(name, { phases: PHASES, minMembers: 2 });
    expect((await cluster.barrier(name)).phases).toEqual(PHASES);
    const thread = await startThread();
    await thread.ask("join", { barrier: name, members: ["x"], ticks: 0, seed: 0 });
    expect((await barrier.state()).members).toEqual(["x"]);
    expect(await failureOf(cluster.barrier(name, { phases: PHASES, minMembers: 3 }))).toMatchObject({
      code: "ERR_INVALID_ARGUMENT",
      details: { name: "minMembers", value: 3 },
    });
  });

  it("refuses bad arrivals typed, also those that share a message with good ones", async () => {
    await start();
    const barrier = await cluster.barrier(nameOn(0), { phases: PHASES, members: ["a", "b", "c"] });
    await Promise.all(
      PHASES.map((phase) => Promise.all(["a", "b", "c"].map((member) => barrier.arrive(member, phase)))),
    );
    const bad: [() => Promise<unknown>, string][] = [
      [() => barrier.arrive("x", "sense"), "unknown-member"],
      [() => barrier.arrive("a", "none"), "unknown-phase"],
      [() => barrier.arrive("a", "sense", { round: 0 }), "stale-round"],
      [() => barrier.arrive("a", "sense", { round: 7 }), "future-round"],
      [() => barrier.arrive("a", "sense", { round: 0.5 }), "stale-round"],
      [() => barrier.arrive("b", "act", { round: 1 }), "phase-order"],
    ];
    for (const [call, reason] of bad)
      expect(await failureOf(call())).toMatchObject({ code: "ERR_INVALID_ARGUMENT", details: { reason } });
    // In one message: b is out of order, a and c are not.
    const [good, wrong, alsoGood] = [
      barrier.arrive("a", "sense"),
      failureOf(barrier.arrive("b", "act")),
      barrier.arrive("c", "sense"),
    ];
    expect(await wrong).toMatchObject({ details: { reason: "phase-order", member: "b" } });
    expect(await barrier.state()).toMatchObject({ tick: 1, phase: "sense", arrived: 2 });
    expect(await barrier.arrive("b", "sense")).toEqual({ round: 1, phase: "sense", arrived: 3, members: 3 });
    expect(await good).toEqual(await alsoGood);
  });

  it("poisons, waits for advanceTick, and goes on, on every thread", async () => {
    await start();
    const name = nameOn(0);
    const barrier = await cluster.barrier(name, { phases: PHASES, members: ["here", "there"] });
    const far = walkerOn(1).arrive({ barrier: name, member: "there", phase: "sense", round: 0 });
    await eventually("the other has arrived", async () => (await barrier.state()).arrived === 1);
    await barrier.poison(new RangeError("bad data"), "here");
    const error = await failureOf(far);
    expect(error).toMatchObject({ code: "ERR_BARRIER", details: { reason: "poisoned", member: "here", tick: 0 } });
    expect((error.cause as Error).message).toBe("bad data");
    expect(await failureOf(barrier.arrive("here", "sense"))).toMatchObject({ code: "ERR_BARRIER" });
    expect(await barrier.advanceTick()).toBe(1);
    expect(await failureOf(barrier.advanceTick())).toMatchObject({ details: { reason: "unfinished" } });
    const next = walkerOn(1).arrive({ barrier: name, member: "there", phase: "sense", round: 1 });
    expect(await barrier.arrive("here", "sense")).toEqual(await next);
  });

  it("ends the wait of an actor that may wait no longer, and keeps its arrival", async () => {
    await start();
    for (const shard of [0, 1]) {
      const name = nameOn(0, `patience-${shard}`);
      const barrier = await cluster.barrier(name, { phases: ["p"], minMembers: 1 });
      await barrier.join("here");
      await barrier.join("there");
      await barrier.arrive("here", "p");
      const wait = walkerOn(shard).wait({ barrier: name, member: "there", timeoutMs: 500 });
      expect(await failureOf(wait)).toMatchObject({ code: "ERR_TIMEOUT" });
      expect(await barrier.arrive("here", "p")).toMatchObject({ round: 1, arrived: 2 });
    }
  });

  it("lets more actors wait for each other than may be asked at once", async () => {
    await start();
    const members = Array.from({ length: 200 }, (_, at) => `m${at}`);
    await cluster.barrier("crowd", { phases: ["p"], members });
    const arrivals = members.map((member) =>
      cluster.actor(walker, member).arrive({ barrier: "crowd", member, phase: "p", round: 0 }),
    );
    const { limits } = cluster.routerStats().admission;
    expect(limits.reduce((sum, limit) => sum + limit)).toBeLessThan(members.length);
    for (const result of await Promise.all(arrivals)) expect(result).toMatchObject({ arrived: 200, members: 200 });
  });

  it("fails a phase at its deadline, on the host's clock", async () => {
    await start();
    for (const shard of [0, 1]) {
      const started = performance.now();
      const barrier = await cluster.barrier(nameOn(shard), { phases: ["p"], members: ["a", "b"], deadlineMs: 50 });
      expect(await failureOf(barrier.arrive("a", "p"))).toMatchObject({
        code: "ERR_BARRIER",
        details: { reason: "deadline", missing: ["b"] },
      });
      expect(performance.now() - started).toBeGreaterThanOrEqual(49);
    }
  });

  it("is gone when nobody has it open any more", async () => {
    await start();
    const name = nameOn(1);
    const first = await cluster.barrier(name, { phases: ["p"], members: ["a", "b"] });
    const second = await cluster.barrier(name);
    await first.arrive("a", "p", { timeoutMs: 5 }).catch(() => undefined);
    await first.close();
    await first.close();
    expect(await failureOf(first.arrive("a", "p"))).toMatchObject({ code: "ERR_CLOSED" });
    expect((await second.state()).members).toEqual(["b"]); // a has left with the first handle
    await second.close();
    expect(await failureOf(cluster.barrier(name))).toMatchObject({ details: { reason: "not-open" } });
  });
});

describe("a barrier whose threads die", () => {
  it("host: open waits fail typed on every thread, and it can be opened again at the tick it was at", async () => {
    await start();
    const name = nameOn(1);
    const options = { phases: ["p"], members: ["here", "far"], startTick: 40 };
    const barrier = await cluster.barrier(name, options);
    const ticks = [40, 41, 42];
    for (const round of ticks) {
      const far = walkerOn(0).arrive({ barrier: name, member: "far", phase: "p", round });
      expect(await barrier.arrive("here", "p")).toEqual(await far);
    }
    const wait = failureOf(barrier.arrive("here", "p"));
    await kill(1);
    expect(await wait).toMatchObject({ code: "ERR_BARRIER", details: { reason: "host-lost", tick: 43 } });
    expect(await failureOf(barrier.arrive("here", "p"))).toMatchObject({ details: { reason: "host-lost" } });
    expect(await failureOf(barrier.state())).toMatchObject({ details: { reason: "host-lost" } });
    const again = await cluster.barrier(name, { ...options, startTick: barrier.tick });
    expect(await again.currentTick()).toBe(43);
    // The other worker's handle learns of the loss when it asks, and its actor opens it anew.
    expect(await failureOf(walkerOn(0).arrive({ barrier: name, member: "far", phase: "p", round: 43 }))).toMatchObject({
      code: "ERR_BARRIER",
    });
    const far = walkerOn(0).arrive({ barrier: name, member: "far", phase: "p", round: 43 });
    expect(await again.arrive("here", "p")).toEqual(await far);
  });

  it("host: a wait of an actor on another worker fails too", async () => {
    await start();
    const name = nameOn(1);
    const barrier = await cluster.barrier(name, { phases: ["p"], members: ["here", "far"] });
    const far = failureOf(walkerOn(0).arrive({ barrier: name, member: "far", phase: "p", round: 0 }));
    await eventually("it waits", async () => (await barrier.state()).arrived === 1);
    await kill(1);
    expect(await far).toMatchObject({ code: "ERR_BARRIER", details: { reason: "host-lost" } });
  });

  const policies: [string, OpenBarrierOptions, (wait: Promise<unknown>) => Promise<void>][] = [
    [
      "abort: the tick fails with the loss as its cause",
      { phases: ["p"], minMembers: 3 },
      async (wait) => {
        const error = await failureOf(wait);
        expect(error).toMatchObject({ code: "ERR_BARRIER", details: { reason: "lost", tick: 0 } });
        expect(error.cause).toMatchObject({ code: "ERR_WORKER_LOST" });
      },
    ],
    [
      "shrink: the others go on",
      { phases: ["p"], minMembers: 3, lossPolicy: "shrink" },
      async (wait) => expect(await wait).toEqual({ round: 0, phase: "p", arrived: 1, members: 1 }),
    ],
    [
      "quorum: fails when too few are left",
      { phases: ["p"], minMembers: 3, lossPolicy: "quorum", quorum: 2 },
      async (wait) => expect(await failureOf(wait)).toMatchObject({ details: { reason: "quorum" } }),
    ],
  ];

  it.each(policies)("a worker with members, %s", async (_, options, check) => {
    await start();
    const name = nameOn(0);
    const barrier = await cluster.barrier(name, options);
    await barrier.join("here");
    await walkerOn(1).join({ barrier: name, members: ["far-1", "far-2"], ticks: 0, seed: 0 });
    const wait = barrier.arrive("here", "p");
    wait.catch(() => undefined);
    await kill(1);
    await check(wait);
    expect((await barrier.state()).lost).toBe(2);
    // The successor's members are new ones.
    await walkerOn(1).join({ barrier: name, members: ["far-1"], ticks: 0, seed: 0 });
    const { members, joining } = await barrier.state();
    expect([...members, ...joining].sort()).toEqual(["far-1", "here"]);
  });

  it.each(policies)("a connected thread with members, %s", async (_, options, check) => {
    await start();
    const name = nameOn(1);
    const barrier = await cluster.barrier(name, options);
    await barrier.join("here");
    const { worker, ask } = await startThread();
    await ask("join", { barrier: name, members: ["far-1", "far-2"], ticks: 0, seed: 0 });
    const wait = barrier.arrive("here", "p");
    wait.catch(() => undefined);
    await worker.terminate();
    await check(wait);
  });
});

describe("drive", () => {
  const open = (options: Partial<OpenBarrierOptions>): Promise<TickBarrier> =>
    cluster.barrier(nameOn(0), { phases: PHASES, minMembers: 3, ...options });
  const refs = (count = 3) => Array.from({ length: count }, (_, at) => cluster.actor(walker, `driven-${at}`));

  it("runs every phase on every actor, in order, and reports", async () => {
    await start();
    const driver = await drive(await open({}), refs());
    for (const tick of [0, 1, 2]) {
      const report = await driver.runTick();
      expect(report.tick).toBe(tick);
      expect(report.phases.map(({ name, arrived, lost, errors }) => ({ name, arrived, lost, errors }))).toEqual(
        PHASES.map((name) => ({ name, arrived: 3, lost: [], errors: [] })),
      );
      for (const { tookMs } of report.phases) expect(tookMs).toBeGreaterThan(0);
    }
    for (const ref of refs())
      expect(await ref.log()).toEqual([0, 1, 2].flatMap((tick) => PHASES.map((phase) => `${phase} ${tick}`)));
  });

  it("abort: a failing handler fails the tick with its error; the next tick runs whole", async () => {
    await start();
    const driver = await drive(await open({}), refs());
    await refs()[1]?.failAt(1);
    await driver.runTick();
    const error = await failureOf(driver.runTick());
    expect(error).toMatchObject({
      code: "ERR_BARRIER",
      details: { reason: "lost", member: "walker/driven-1", tick: 1, phase: "act" },
      cause: { code: "ERR_ACTOR_FAILED" },
    });
    expect((await driver.runTick()).tick).toBe(2);
  });

  it("fails with the first error when every actor is lost at once", async () => {
    await start();
    const driver = await drive(await open({ lossPolicy: "shrink", minMembers: 1 }), refs());
    for (const ref of refs()) await ref.failAt(0);
    expect(await failureOf(driver.runTick())).toMatchObject({
      code: "ERR_BARRIER",
      details: { reason: "lost", tick: 0, phase: "act" },
      cause: { code: "ERR_ACTOR_FAILED" },
    });
  });

  it("shrink: the others finish the tick, and the lost one is back in the next", async () => {
    await start();
    const driver = await drive(await open({ lossPolicy: "shrink" }), refs());
    await refs()[1]?.failAt(0);
    const { phases } = await driver.runTick();
    expect(phases.map(({ arrived }) => arrived)).toEqual([3, 2, 2]);
    expect(phases[1]).toMatchObject({ lost: ["walker/driven-1"], errors: [{ error: { code: "ERR_ACTOR_FAILED" } }] });
    const next = await driver.runTick();
    expect(next.phases.map(({ arrived }) => arrived)).toEqual([3, 3, 3]);
  });

  it("drives by hand too, with handlers of other names, and refuses what it cannot run", async () => {
    await start();
    const barrier = await open({ advance: "manual", phases: ["first", "second"], minMembers: 2 });
    const handlers = { first: "decay", second: "sense" };
    const driver = await drive(barrier, refs(2), { handlers });
    expect((await driver.runTick()).tick).toBe(0);
    expect(await barrier.currentTick()).toBe(0);
    expect((await driver.runTick()).tick).toBe(1);
    expect(await refs(1)[0]?.log()).toEqual(["decay 0", "sense 0", "decay 1", "sense 1"]);
    const first = driver.runTick();
    expect(await failureOf(driver.runTick())).toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
    await first;
    for (const call of [drive(barrier, []), drive(barrier, [...refs(1), ...refs(1)]), drive(barrier, refs(1))])
      expect(await failureOf(call)).toMatchObject({ code: "ERR_INVALID_ARGUMENT" });
  });
});
