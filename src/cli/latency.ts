/**
 * The demo's table of latencies: one-sided reads, asks and the platform's own messages, measured in this process now.
 *
 * Invariant: every row is measured with the same clock, validates what it reads, and says how often; a row that could not be
 * measured is not invented. For comparisons that hold, run the benches, which interleave their sides.
 */
import { once } from "node:events";
import { MessageChannel, Worker } from "node:worker_threads";
import * as Comlink from "comlink";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import type { Cluster } from "../cluster.ts";
import { ShardloomError } from "../errors.ts";
import { blocker } from "./demo-actors.ts";

/** One measured way to reach another thread. */
export interface LatencyRow {
  readonly what: string;
  readonly samples: number;
  readonly medianNs: number;
  readonly p99Ns: number;
}

/** Reads per sample of a one-sided read: one alone is shorter than the clock's resolution. */
const READS_PER_SAMPLE = 200;
const READ_SAMPLES = 200;
const MESSAGE_SAMPLES = 2_000;
/** Round trips before the first sample: until the compiler and the spinning have settled. */
const WARM_UPS = 5_000;
const PARKED_SAMPLES = 25;
/** Long enough for a worker to have parked. */
const PARK_MS = 8;

/** Measures every row. `region` is any stored vector. */
export async function measureLatencies(cluster: Cluster, region: RegionRef, shard: number): Promise<LatencyRow[]> {
  const rows = [
    oneSided(cluster, { ...region, length: 64 }, "one-sided read, 64 B"),
    oneSided(cluster, region, `one-sided read, ${region.length} B`),
  ];
  let key = "latency";
  for (let at = 0; cluster.shardOfActor(blocker, key) !== shard; at++) key = `latency-${at}`;
  const echo = cluster.actor(blocker, key);
  const ask = async (value: number): Promise<void> => expectEcho(await echo.echo(value), value);
  rows.push(await roundTrips("ask, one after the other", MESSAGE_SAMPLES, ask));
  rows.push(await roundTrips("ask, both sides parked", PARKED_SAMPLES, ask, PARK_MS));
  return [...rows, ...(await baselines())];
}

function oneSided(cluster: Cluster, region: RegionRef, what: string): LatencyRow {
  const reader = cluster.reader();
  const target = new Uint8Array(region.length);
  const samples: number[] = [];
  for (let sample = -50; sample < READ_SAMPLES; sample++) {
    const started = performance.now();
    let failed = 0;
    for (let at = 0; at < READS_PER_SAMPLE; at++) failed |= reader.read(region, target);
    const elapsedNs = ((performance.now() - started) * 1e6) / READS_PER_SAMPLE;
    if (failed !== 0)
      throw new ShardloomError("ERR_REGION_ACCESS", "Cannot measure one-sided reads as one of them failed", {
        details: { status: failed },
      });
    if (sample >= 0) samples.push(elapsedNs);
  }
  return summarize(what, samples);
}

async function baselines(): Promise<LatencyRow[]> {
  const raw = new MessageChannel();
  const rpc = new MessageChannel();
  const worker = new Worker(new URL("./baseline.worker.js", import.meta.url), {
    workerData: { raw: raw.port2, rpc: rpc.port2 },
    transferList: [raw.port2, rpc.port2],
  });
  await once(worker, "online");
  const remote = Comlink.wrap<{ echo(value: number): number }>(rpc.port1);
  let answered: (value: number) => void = () => undefined;
  raw.port1.on("message", (value: number) => answered(value));
  const post = (value: number): Promise<void> =>
    new Promise((resolve) => {
      answered = (answer) => {
        expectEcho(answer, value);
        resolve();
      };
      raw.port1.postMessage(value);
    });
  const call = async (value: number): Promise<void> => expectEcho(await remote.echo(value), value);
  try {
    return [
      await roundTrips("postMessage, one after the other", MESSAGE_SAMPLES, post),
      await roundTrips("postMessage, both sides idle", PARKED_SAMPLES, post, PARK_MS),
      await roundTrips("Comlink, one after the other", MESSAGE_SAMPLES, call),
      await roundTrips("Comlink, both sides idle", PARKED_SAMPLES, call, PARK_MS),
    ];
  } finally {
    raw.port1.close();
    rpc.port1.close();
    await worker.terminate();
  }
}

async function roundTrips(
  what: string,
  count: number,
  call: (value: number) => Promise<void>,
  pauseMs = 0,
): Promise<LatencyRow> {
  const samples: number[] = [];
  for (let at = pauseMs > 0 ? 0 : -WARM_UPS; at < count; at++) {
    if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
    const started = performance.now();
    await call(at);
    if (at >= 0) samples.push((performance.now() - started) * 1e6);
  }
  return summarize(what, samples);
}

function summarize(what: string, samples: number[]): LatencyRow {
  const sorted = samples.sort((a, b) => a - b);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] as number;
  return { what, samples: sorted.length, medianNs: at(0.5), p99Ns: at(0.99) };
}

function expectEcho(answer: number, value: number): void {
  if (answer !== value)
    throw new ShardloomError("ERR_INTERNAL", `Cannot measure as the echo of ${value} was ${answer}`);
}
