/**
 * What a worker does, read from its shared words without a message: for people, and for failure detectors.
 *
 * Invariant: reading changes nothing and never waits; words that change meanwhile give a view that was true a moment ago.
 */
import { HEARTBEAT } from "../../native-bridge/heartbeat.ts";
import type { ShardProbe } from "../topology/failure-detector.ts";
import type { PeeredWorker } from "./remote-peers.ts";
import type { ShardReady } from "./shard-task.ts";
import type { StoppableWorker } from "./stop-workers.ts";
import type { WorkerBlock } from "./worker-block.ts";
import type { WorkerMonitor } from "./worker-monitor.ts";

/** A worker as its control plane has it. */
export interface Worker extends StoppableWorker {
  readonly incarnation: number;
  readonly ready: Promise<ShardReady>;
  readonly monitor: WorkerMonitor;
  state: "starting" | "up" | "quarantined" | "lost" | "stopped";
}

/** What one worker does. */
export interface WorkerHeartbeat {
  readonly shard: number;
  readonly incarnation: number;
  readonly state: string;
  readonly activity: "idle" | "js" | "native";
  /** When that began, in ms of the machine's clock. */
  readonly sinceMs: number;
  readonly parks: number;
  readonly wakes: number;
}

/** A worker as it is looked at. */
interface ViewedWorker {
  readonly shard: number;
  readonly incarnation: number;
  readonly state: string;
  readonly block: WorkerBlock;
}

export function heartbeatOf({ shard, incarnation, state, block }: ViewedWorker): WorkerHeartbeat {
  const { state: doing, sinceMs } = block.heartbeat.read();
  return { shard, incarnation, state, activity: activityOf(doing), sinceMs, ...block.bell.counters() };
}

/** @param worker Undefined: the shard has none any more. */
export function probeOf(worker: ViewedWorker | undefined): ShardProbe {
  if (worker === undefined) return { progress: 0, beats: 0, activity: "idle", dead: true };
  const { state, block } = worker;
  const { state: doing, beats } = block.heartbeat.read();
  const { progress } = block;
  return { progress, beats, activity: activityOf(doing), dead: state === "lost" || doing === HEARTBEAT.DEAD };
}

/** Whether a worker serves, or is about to. */
export function isComing({ state }: Worker): boolean {
  return state === "up" || state === "starting";
}

/** A worker as those of other nodes are told of it. */
export function peered({ shard, block, control }: Worker): PeeredWorker {
  const tell: PeeredWorker["tell"] = (peer) => void control.remote.attachPeer(peer).catch(() => undefined); // its successor is told anew
  return { shard, block: block.memory, tell };
}

function activityOf(doing: number): "idle" | "js" | "native" {
  return doing === HEARTBEAT.JS ? "js" : doing === HEARTBEAT.NATIVE ? "native" : "idle";
}
