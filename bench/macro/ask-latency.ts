/**
 * A3 and M4: round trips in the four states of two waiting threads, and one-sided reads beside them.
 *
 * A state is not assumed: the worker's heartbeat word says whether it was parked when the ask began, and whether the
 * caller polled or slept is seen by whether its event loop turned before the answer came. Samples in another state
 * than their row's are left out, and a row without samples fails the bench.
 */
import type { Cluster } from "../../src/index.ts";
import { type GoalResult, judge } from "../harness/goals.ts";
import { type BenchContext, type BenchRow, median, sized, toRow } from "../harness/harness.ts";
import type { Baseline } from "./ask-baseline.ts";
import { echoOf } from "./ask-side.ts";

/** Asks timed together: one alone is close to the clock's resolution. */
const BATCH = 10;
/** Long enough for both threads to have parked: workers spin for 50 us at most. */
const GAP_MS = 3;
const IN_FLIGHT = 64;
const READS_PER_SAMPLE = 500;
const DIMENSIONS = 16;

type Call = (value: number) => Promise<number>;

/** The two clusters that are asked: one as users get it, one whose caller polls for longer than a parked worker needs. */
export interface AskClusters {
  readonly usual: Cluster;
  readonly polling: Cluster;
}

/** Measures A3a to A3d, M4 and M4b. */
export async function latency(
  context: BenchContext,
  clusters: AskClusters,
  baseline: Baseline,
): Promise<{ rows: BenchRow[]; goals: GoalResult[] }> {
  const { mode, goals } = context;
  const usual = echoOf(clusters.usual);
  const polling = echoOf(clusters.polling);
  const post: Call = (value) => baseline.post(value);
  const comlink: Call = (value) => baseline.call(value);
  const read = await oneSided(clusters.usual);
  const samples = {
    spin: [],
    comlink: [],
    post: [],
    polled: [],
    asleep: [],
    parkedComlink: [],
    parkedPost: [],
    flight: [],
    flightComlink: [],
    read: [],
  } as Record<string, number[]>;
  const add = (row: string, values: readonly number[]): unknown => samples[row]?.push(...values);
  const rounds = sized(mode, 2, 7, 15);
  const parked = sized(mode, 30, 60, 150);
  await chained(usual, sized(mode, 5_000, 20_000, 50_000));
  for (let round = 0; round < rounds; round++) {
    add("spin", await chained(usual, 4_000));
    add("comlink", await chained(comlink, 400));
    add("post", await chained(post, 400));
    add("read", read());
    add("flight", [await inFlight(usual, sized(mode, 20_000, 50_000, 100_000))]);
    add("flightComlink", [await inFlight(comlink, 5_000)]);
    for (let part = 0; part < 3; part++) {
      add("parkedPost", await afterGap(post, parked / 3, () => true));
      add("parkedComlink", await afterGap(comlink, parked / 3, () => true));
      add(
        "polled",
        await afterGap(
          polling,
          parked / 3,
          (turned) => !turned && wasParked,
          () => isIdle(clusters.polling),
        ),
      );
      add(
        "asleep",
        await afterGap(
          usual,
          parked / 3,
          (turned) => turned && wasParked,
          () => isIdle(clusters.usual),
        ),
      );
    }
  }
  const of = (name: string, side: string, unit: string, note?: string): BenchRow => {
    const values = samples[name] as number[];
    if (values.length === 0) throw new Error(`no sample of "${name}" was in the state that it claims`);
    return toRow(name, side, unit, values, note);
  };
  const us = "us";
  const rows = [
    of("spin", "shardloom", us, "asks in a chain; caller and worker spin, budget 50 us each"),
    of("comlink", "comlink", us, "calls in a chain"),
    of("post", "postMessage", us, "round trips in a chain"),
    of("polled", "shardloom", us, `worker parked for ${GAP_MS} ms, caller polls, budget 1000 us`),
    of("parkedComlink", "comlink", us, `both idle for ${GAP_MS} ms`),
    of("asleep", "shardloom", us, `worker parked for ${GAP_MS} ms, caller parks: budget 50 us`),
    of("parkedPost", "postMessage", us, `both idle for ${GAP_MS} ms`),
    of("flight", "shardloom", "asks/s", `${IN_FLIGHT} in flight, spin budget 50 us`),
    of("flightComlink", "comlink", "calls/s", `${IN_FLIGHT} in flight`),
    of("read", "shardloom", us, `one-sided read of a vector of ${DIMENSIONS * 4} B`),
  ];
  const m = (name: string): number => median(samples[name] as number[]);
  return {
    rows,
    goals: [
      judge(goals, "A3a", m("comlink") / m("spin")),
      judge(goals, "A3b", m("parkedComlink") / m("polled")),
      judge(goals, "A3c", m("asleep") / m("parkedPost")),
      judge(goals, "A3d", m("flight") / m("flightComlink")),
      judge(goals, "M4", m("spin") / m("read")),
      judge(goals, "M4b", m("asleep") / m("read")),
    ],
  };
}

/** Whether worker 0 was parked when the last ask began. */
let wasParked = false;

function isIdle(cluster: Cluster): void {
  wasParked = cluster.heartbeats()[0]?.activity === "idle";
}

/** One call after the other. @returns microseconds of each, averaged over batches */
async function chained(call: Call, count: number): Promise<number[]> {
  const samples: number[] = [];
  for (let at = 0; at < count; at += BATCH) {
    const started = performance.now();
    for (let value = at; value < at + BATCH; value++) expectEcho(await call(value), value);
    samples.push(((performance.now() - started) * 1000) / BATCH);
  }
  return samples;
}

/** Single calls after an idle gap. @returns microseconds of those that `keep` accepts, told whether the event loop turned */
async function afterGap(
  call: Call,
  count: number,
  keep: (turned: boolean) => boolean,
  before: () => void = () => undefined,
): Promise<number[]> {
  const samples: number[] = [];
  for (let value = 0; value < count; value++) {
    await new Promise((resolve) => setTimeout(resolve, GAP_MS));
    before();
    let turned = false;
    const started = performance.now();
    const answer = call(value);
    const immediate = setImmediate(() => {
      turned = true;
    });
    expectEcho(await answer, value);
    const elapsedUs = (performance.now() - started) * 1000;
    clearImmediate(immediate);
    if (keep(turned)) samples.push(elapsedUs);
  }
  return samples;
}

/** Keeps {@link IN_FLIGHT} calls open. @returns calls per second */
async function inFlight(call: Call, count: number): Promise<number> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) {
      const value = next++;
      expectEcho(await call(value), value);
    }
  };
  const started = performance.now();
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
  return (count / (performance.now() - started)) * 1000;
}

/** Prepares reads of one stored vector. @returns one run: microseconds a read, in batches */
async function oneSided(cluster: Cluster): Promise<() => number[]> {
  const docs = await cluster.vectors("bench", { dimensions: DIMENSIONS });
  const vector = Float32Array.from({ length: DIMENSIONS }, (_, at) => at + 1);
  await docs.upsert([{ id: "a", vector }]);
  const region = docs.region("a");
  if (region === undefined) throw new Error("the stored vector has no region");
  const reader = cluster.reader();
  const target = new Float32Array(DIMENSIONS);
  return () => {
    const samples: number[] = [];
    for (let sample = 0; sample < 40; sample++) {
      target.fill(0);
      let failed = 0;
      const started = performance.now();
      for (let at = 0; at < READS_PER_SAMPLE; at++) failed |= reader.read(region, target);
      samples.push(((performance.now() - started) * 1000) / READS_PER_SAMPLE);
      if (failed !== 0 || target.some((value, at) => value !== vector[at]))
        throw new Error("a one-sided read gave other data than was stored");
    }
    return samples;
  };
}

function expectEcho(answer: number, value: number): void {
  if (answer !== value) throw new Error(`the echo of ${value} was ${answer}`);
}
