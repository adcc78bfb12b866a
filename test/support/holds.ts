/** Threads that serve nobody for a while: held without using a core, or blocked while they use one, until they are let go. */
import type { Cluster } from "../../src/index.ts";
import { saboteur } from "./actors.ts";
import { eventually, keyOnShard } from "./cluster.ts";
import { Gate } from "./gate.ts";

/** Longer than any slice of background work takes: who is in one handler for so long is held. */
const HELD_MS = 25;
/** For what a held thread's answer may take when it is let go. */
const PATIENCE_MS = 30_000;

export interface Hold {
  /** Whether the thread is held still. */
  readonly isOn: boolean;
  /** Resolves when it is not any more. */
  readonly end: Promise<unknown>;
  /** Lets it go. @returns when it is not held any more */
  release(): Promise<unknown>;
}

/** Holds a shard's thread without using a core, for so long at most. @returns when it is really held */
export function hold(cluster: Cluster, shard: number, milliseconds: number): Promise<Hold> {
  return begun(cluster, shard, milliseconds, false);
}

/** Blocks a shard's thread in JavaScript, for so long at most. @returns when it is really blocked */
export function block(cluster: Cluster, shard: number, milliseconds: number): Promise<Hold> {
  return begun(cluster, shard, milliseconds, true);
}

async function begun(cluster: Cluster, shard: number, milliseconds: number, isSpinning: boolean): Promise<Hold> {
  const gate = new Gate();
  const target = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard));
  const call = { timeoutMs: milliseconds + PATIENCE_MS };
  const end = target.holdWhile({ path: gate.path, milliseconds, isSpinning }, call);
  const release = (): Promise<unknown> => {
    gate.open();
    return end;
  };
  const held = { isOn: true, end, release };
  const over = (): void => {
    held.isOn = false;
  };
  // Who is told that its call has failed has not let the thread go.
  end.then(release, () => undefined).then(over, over);
  await eventually(`shard ${shard} is held`, () => {
    const beat = cluster.heartbeats()[shard];
    return beat?.activity === "js" && performance.timeOrigin + performance.now() - beat.sinceMs > HELD_MS;
  });
  return held;
}
