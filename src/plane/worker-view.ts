/**
 * What a worker does, read from its shared words without a message: for people, and for failure detectors.
 *
 * Invariant: reading changes nothing and never waits; words that change meanwhile give a view that was true a moment ago.
 */
import { HEARTBEAT } from "../../native-bridge/heartbeat.ts";
import type { ShardProbe } from "../topology/failure-detector.ts";
import type { WorkerBlock } from "./worker-block.ts";

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

export function probeOf({ state, block }: ViewedWorker): ShardProbe {
  const { state: doing, beats } = block.heartbeat.read();
  const { progress } = block;
  return { progress, beats, activity: activityOf(doing), dead: state === "lost" || doing === HEARTBEAT.DEAD };
}

function activityOf(doing: number): "idle" | "js" | "native" {
  return doing === HEARTBEAT.JS ? "js" : doing === HEARTBEAT.NATIVE ? "native" : "idle";
}
