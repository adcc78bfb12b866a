/**
 * Ends all workers of a node: the actors of all of them first, then their loops, then, if need be, their threads.
 *
 * Invariant: no actor ends while a loop that carries its messages has ended before; no thread is terminated inside a native call, which
 * could abort the process.
 */
import { HEARTBEAT } from "../../native-bridge/heartbeat.ts";
import { ShardloomError } from "../errors.ts";
import { type Scheduler, withinMs } from "../runtime/scheduler.ts";
import type { ControlConnection } from "./control-rpc.ts";
import type { RunningWorker } from "./platform.ts";
import type { ShardControl } from "./shard-task.ts";
import type { WorkerBlock } from "./worker-block.ts";

/** A worker that may be asked to stop. */
export interface StoppableWorker {
  readonly shard: number;
  readonly block: WorkerBlock;
  readonly control: ControlConnection<ShardControl>;
  readonly running: RunningWorker;
}

/** How long the workers get, and whether those that hang in JavaScript are terminated. */
export interface StopOptions {
  readonly timeoutMs: number;
  readonly force: boolean;
}

/** Share of the closing time that handlers get to end by themselves. */
const STOP_SHARE = 0.5;

/** @throws {ShardloomError} `ERR_TIMEOUT` naming the shards that would not stop. */
export async function stopWorkers(
  open: readonly StoppableWorker[],
  scheduler: Scheduler,
  { timeoutMs, force }: StopOptions,
): Promise<void> {
  await quiesce(open, scheduler, timeoutMs * STOP_SHARE);
  for (const worker of open) worker.control.remote.stop().catch(() => undefined);
  const late = await settle(open, scheduler, timeoutMs);
  const stuck = late.filter((worker) => worker.block.heartbeat.read().state === HEARTBEAT.NATIVE);
  const hung = late.filter((worker) => !stuck.includes(worker));
  if (force) {
    for (const worker of hung) worker.running.terminate();
    await settle(hung, scheduler, timeoutMs);
  }
  const closed = new ShardloomError("ERR_CLOSED", "Cannot call worker as the cluster is closed");
  for (const worker of open) worker.control.end(closed);
  const remaining = force ? stuck : late;
  if (remaining.length === 0) return;
  const shards = remaining.map((worker) => worker.shard);
  throw new ShardloomError(
    "ERR_TIMEOUT",
    `Cannot close cluster as shards ${shards.join(", ")} did not stop within ${timeoutMs} ms`,
    { details: { shards, native: stuck.map((worker) => worker.shard) } },
  );
}

/** Ends the actors of all workers before any loop ends, so that what they ask of each other settles. */
async function quiesce(workers: readonly StoppableWorker[], scheduler: Scheduler, timeoutMs: number): Promise<void> {
  const quiet = workers.map((worker) => worker.control.remote.quiesce(timeoutMs).catch(() => undefined));
  await withinMs(scheduler, timeoutMs, Promise.all(quiet));
}

/** Waits for workers to end. @returns those that did not in time */
async function settle<W extends StoppableWorker>(
  workers: readonly W[],
  scheduler: Scheduler,
  timeoutMs: number,
): Promise<W[]> {
  const open = new Set(workers);
  const ended = workers.map((worker) => worker.running.done.catch(() => undefined).then(() => open.delete(worker)));
  await withinMs(scheduler, timeoutMs, Promise.all(ended));
  return [...open];
}
