/** Threads that serve nobody for a while: held without using a core, or blocked while they use one. */
import type { Cluster } from "../../src/index.ts";
import { saboteur } from "./actors.ts";
import { eventually, keyOnShard } from "./cluster.ts";

/** Longer than any slice of background work takes: who is in one handler for so long is held. */
const HELD_MS = 25;

export interface Hold {
  /** Whether the thread is held still. */
  readonly isOn: boolean;
  /** Resolves when it is not any more. */
  readonly end: Promise<unknown>;
}

/** Holds a shard's thread without using a core. @returns when it is really held */
export function hold(cluster: Cluster, shard: number, milliseconds: number): Promise<Hold> {
  const target = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard));
  return begun(cluster, shard, target.hold(milliseconds * 1000, { timeoutMs: 20_000 }));
}

/** Blocks a shard's thread in JavaScript. @returns when it is really blocked */
export function block(cluster: Cluster, shard: number, milliseconds: number): Promise<Hold> {
  const target = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard));
  return begun(cluster, shard, target.block(milliseconds, { timeoutMs: 20_000 }));
}

async function begun(cluster: Cluster, shard: number, end: Promise<unknown>): Promise<Hold> {
  const held = { isOn: true, end };
  const over = (): void => {
    held.isOn = false;
  };
  end.then(over, over);
  await eventually(`shard ${shard} is held`, () => {
    const beat = cluster.heartbeats()[shard];
    return beat?.activity === "js" && performance.timeOrigin + performance.now() - beat.sinceMs > HELD_MS;
  });
  return held;
}
