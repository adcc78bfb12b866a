/** Our side of the bench `ask`: a cluster of two workers, and asks and tells that check what they get. */
import type { AnyActorDefinition } from "../../src/actor/define-actor.ts";
import { Cluster, type ClusterOptions } from "../../src/index.ts";
import { PACE, pump, sink } from "./ask-actors.ts";

const ACTORS_URL: URL = new URL("./ask-actors.js", import.meta.url);

/** Starts a cluster with the bench's actors. */
export function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  return Cluster.start({
    workers: 2,
    memoryBytes: 64 * 1024 * 1024,
    requestTimeoutMs: 60_000,
    actors: [ACTORS_URL],
    ...options,
  });
}

/** A key of an actor on the given shard. */
export function keyOn(cluster: Cluster, definition: AnyActorDefinition, shard: number): string {
  for (let at = 0; ; at++) if (cluster.shardOfActor(definition, `bench-${at}`) === shard) return `bench-${at}`;
}

/** An ask that is its own check. */
export function echoOf(cluster: Cluster): (value: number) => Promise<number> {
  const ref = cluster.actor(sink, keyOn(cluster, sink, 0));
  return (value) => ref.echo(value);
}

/** Tells from this thread to worker 0. @returns ms until the actor had handled all of them, by its own count */
export async function flood(cluster: Cluster, messages: number): Promise<number> {
  const ref = cluster.actor(sink, keyOn(cluster, sink, 0));
  const body = new Uint8Array(64).fill(1);
  const before = await ref.totals();
  const started = performance.now();
  for (let at = 0; at < messages; at++) {
    const accepted = ref.tell.take(body);
    if (at % PACE === PACE - 1) await accepted;
  }
  const after = await ref.totals();
  const elapsedMs = performance.now() - started;
  checkTotals(after, before, messages);
  return elapsedMs;
}

/** Tells from worker 0 to worker 1, measured on worker 0. */
export async function floodAcross(cluster: Cluster, messages: number): Promise<number> {
  const key = keyOn(cluster, sink, 1);
  const before = await cluster.actor(sink, key).totals();
  const after = await cluster.actor(pump, keyOn(cluster, pump, 0)).run({ key, messages });
  checkTotals(after, before, messages);
  return after.elapsedMs;
}

interface Totals {
  readonly count: number;
  readonly sum: number;
}

function checkTotals(after: Totals, before: Totals, messages: number): void {
  const count = after.count - before.count;
  if (count !== messages || after.sum - before.sum !== 2 * messages)
    throw new Error(`the actor handled ${count} of ${messages} tells`);
}
