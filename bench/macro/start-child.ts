/** One measurement of A5 in a process of its own: `start-child.js cluster|bare|idle|passivate SIZE` prints one number. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { Cluster } from "../../src/index.ts";
import { resident, sleeper } from "./ask-actors.ts";
import { keyOn, startCluster } from "./ask-side.ts";

const WORKERS = 2;
/** Tells between two asks that say that all have come. */
const WAVE = 1_000;

const TASKS: Readonly<Record<string, (size: number) => Promise<number>>> = { cluster, bare, idle, passivate };

/** Milliseconds until a cluster of `size` workers serves. */
async function cluster(size: number): Promise<number> {
  const started = performance.now();
  const running = await Cluster.start({ workers: size });
  const elapsedMs = performance.now() - started;
  if (running.heartbeats().length !== size) throw new Error("workers are missing");
  await running.close();
  return elapsedMs;
}

/** Milliseconds until `size` bare workers have loaded their modules. */
async function bare(size: number): Promise<number> {
  const started = performance.now();
  const workers = Array.from({ length: size }, () => new Worker(new URL("./start-bare.worker.js", import.meta.url)));
  await Promise.all(workers.map((worker) => once(worker, "message")));
  const elapsedMs = performance.now() - started;
  await Promise.all(workers.map((worker) => worker.terminate()));
  return elapsedMs;
}

/** Heap bytes of one idle actor. */
async function idle(size: number): Promise<number> {
  const running = await startCluster({ workers: WORKERS });
  await activate(running, resident, 0, 2_000);
  const before = await heaps(running);
  await activate(running, resident, 2_000, size);
  const active = await activeActors(running);
  if (active < size + 2_000) throw new Error(`only ${active} actors are active`);
  const bytes = ((await heaps(running)) - before) / size;
  await running.close();
  return bytes;
}

/** Heap bytes that one activation leaves behind once it rests. */
async function passivate(size: number): Promise<number> {
  const running = await startCluster({ workers: WORKERS });
  await activate(running, sleeper, 0, Math.min(size, 100_000));
  await untilResting(running);
  const before = await heaps(running);
  await activate(running, sleeper, 100_000, size);
  await untilResting(running);
  const growth = ((await heaps(running)) - before) / size;
  await running.close();
  return growth;
}

type Touchable = typeof sleeper;

async function activate(running: Cluster, definition: Touchable, from: number, count: number): Promise<void> {
  for (let at = from; at < from + count; at++) {
    const accepted = running.actor(definition, `actor-${at}`).tell.touch(at);
    if (at % WAVE === WAVE - 1) await accepted;
  }
  await heaps(running); // an ask comes after the tells before it
}

async function heaps(running: Cluster): Promise<number> {
  let bytes = 0;
  for (let shard = 0; shard < WORKERS; shard++)
    bytes += await running.actor(resident, keyOn(running, resident, shard)).heap();
  return bytes;
}

async function activeActors(running: Cluster): Promise<number> {
  const { workers } = await running.info();
  return workers.reduce((sum, { stats }) => sum + Number(stats?.actors["active"] ?? Number.NaN), 0);
}

/** Only the actors that answer `heap` stay. */
async function untilResting(running: Cluster): Promise<void> {
  const deadline = performance.now() + 120_000;
  while ((await activeActors(running)) > WORKERS) {
    if (performance.now() > deadline) throw new Error("the actors did not passivate");
    await heaps(running);
  }
}

const [task = "", size = ""] = process.argv.slice(2);
const measured = await TASKS[task]?.(Number(size));
process.stdout.write(`${measured}\n`);
