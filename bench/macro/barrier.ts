/** Bench `barrier`: rounds a second with 16 members, C4 in one thread and C4b over two that spin. */
import { openLocalBarrier } from "../../actors/barrier/client-barrier.ts";
import type { TickBarrier } from "../../src/actor/tick-barrier.ts";
import { Cluster } from "../../src/index.ts";
import { Barrier } from "../../src/routing/barrier.ts";
import { resolveBarrierOptions } from "../../src/routing/barrier-options.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { judge } from "../harness/goals.ts";
import {
  type Bench,
  type BenchCase,
  type BenchContext,
  type BenchReport,
  interleave,
  median,
  sized,
} from "../harness/harness.ts";
import { group, type MemberTotals, PHASE, runMembers } from "./barrier-actors.ts";

const MEMBERS = 16;
const UNIT = "thousand rounds/s";
const ACTORS_URL: URL = new URL("./barrier-actors.js", import.meta.url);
const names: readonly string[] = Array.from({ length: MEMBERS }, (_, at) => `member-${at}`);

/** What a case says of its last run: every member arrived at, and was released from, every round. */
function check(totals: readonly MemberTotals[], rounds: number): void {
  const released = totals.reduce((sum, one) => sum + one.released, 0);
  const arrived = totals.reduce((sum, one) => sum + one.arrived, 0);
  if (released !== MEMBERS * rounds || arrived !== MEMBERS * MEMBERS * rounds)
    throw new Error(`${released} releases of ${arrived} arrivals in ${rounds} rounds of ${MEMBERS}`);
}

/** The state machine with a callback, as an engine uses it: no promise, every arrival a call of its own. */
function machineCase(rounds: number): BenchCase {
  let completed = 0;
  const barrier = new Barrier({
    name: "bench",
    options: resolveBarrierOptions({ phases: [PHASE], members: names }),
    clock: systemClock,
    scheduler: systemScheduler,
    listener: {
      onPhase: (_tick, _phase, arrived, members) => {
        if (arrived === MEMBERS && members === MEMBERS) completed++;
      },
      onFailed: (_, error) => {
        throw error;
      },
    },
  });
  const members = names.map((name) => [barrier.member(name)]);
  let run = 0;
  return {
    name: "16 members, calls",
    side: "one thread",
    unit: UNIT,
    run: () => {
      completed = 0;
      run = rounds * 4;
      const started = performance.now();
      for (let round = 0; round < run; round++) {
        const tick = barrier.currentTick;
        for (const member of members) barrier.arrive(member, tick, 0);
      }
      return run / (performance.now() - started);
    },
    validate: () => {
      if (completed !== run || run === 0) throw new Error(`${completed} of ${run} rounds were completed`);
    },
  };
}

/** Sixteen asynchronous members of one thread, each awaiting its release. */
function localCase(rounds: number): BenchCase {
  let barrier: TickBarrier;
  let totals: MemberTotals | undefined;
  return {
    name: "16 members, awaits",
    side: "one thread",
    unit: UNIT,
    setup: async () => {
      barrier = await openLocalBarrier(
        { phases: [PHASE], members: names },
        { clock: systemClock, scheduler: systemScheduler },
      );
    },
    run: async () => {
      totals = await runMembers(barrier, names, rounds);
      return rounds / totals.elapsedMs;
    },
    validate: () => check(totals === undefined ? [] : [totals], rounds),
    close: () => barrier.close(),
  };
}

/** Eight members on this thread, eight on a worker that hosts the barrier, over the cluster's bridge. */
function clusterCase(rounds: number): BenchCase {
  let cluster: Cluster;
  let barrier: TickBarrier;
  let totals: readonly MemberTotals[] = [];
  const here = names.slice(0, MEMBERS / 2);
  const there = names.slice(MEMBERS / 2);
  const order = { barrier: "bench", members: there, rounds };
  return {
    name: "8 + 8 members, awaits",
    side: "two threads",
    unit: UNIT,
    setup: async () => {
      cluster = await Cluster.start({
        workers: 1,
        memoryBytes: 64 * 1024 * 1024,
        requestTimeoutMs: 120_000,
        actors: [ACTORS_URL],
      });
      barrier = await cluster.barrier("bench", { phases: [PHASE], minMembers: MEMBERS });
      for (const member of here) await barrier.join(member);
      await cluster.actor(group, "there").join(order);
    },
    run: async () => {
      const remote = cluster.actor(group, "there").run(order);
      const local = await runMembers(barrier, here, rounds);
      totals = [local, await remote];
      return rounds / local.elapsedMs;
    },
    validate: () => check(totals, rounds),
    close: async () => {
      await barrier.close();
      await cluster.close();
    },
  };
}

async function run(context: BenchContext): Promise<BenchReport> {
  const rounds = sized(context.mode, 1_000, 20_000, 50_000);
  context.log("barrier: one thread and two");
  const rows = await interleave(
    [machineCase(rounds), localCase(rounds), clusterCase(rounds)],
    sized(context.mode, 2, 15, 31),
  );
  const value = (name: string): number => median(rows.find((row) => row.case === name)?.samples ?? []);
  return {
    rows,
    goals: [
      judge(context.goals, "C4", value("16 members, awaits"), "every member awaits its own release"),
      judge(context.goals, "C4b", value("8 + 8 members, awaits"), "one message a thread and round; spin budget 50 us"),
    ],
    notes: [
      "one thread: 16 members arrive by name and await; calls: the state machine alone",
      "two threads: this one and a worker, which hosts the barrier; arrivals of one thread share a message",
    ],
  };
}

export const bench: Bench = { name: "barrier", run };
