/** Threads that serve nobody for a while: held without using a core, or blocked while they use one, until they are let go, to go on or to exit. */
import type { ActorRef, AskOptions, Cluster } from "../../src/index.ts";
import { saboteur } from "./actors.ts";
import { eventually, keyOnShard } from "./cluster.ts";
import { Gate } from "./gate.ts";

/** Longer than any slice of background work takes: who is in one handler for so long is held. */
const HELD_MS = 25;
/** For what a held thread's answer may take when it is let go. */
const PATIENCE_MS = 30_000;

type Saboteur = ActorRef<typeof saboteur>;

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
  return begun(cluster, shard, milliseconds, (target, path, call) =>
    target.holdWhile({ path, milliseconds, isSpinning: false }, call),
  );
}

/** Blocks a shard's thread in JavaScript, for so long at most. @returns when it is really blocked */
export function block(cluster: Cluster, shard: number, milliseconds: number): Promise<Hold> {
  return begun(cluster, shard, milliseconds, (target, path, call) =>
    target.holdWhile({ path, milliseconds, isSpinning: true }, call),
  );
}

/** Holds a shard's thread as {@link hold} does; let go, it exits, and what it was asked meanwhile is under way. @returns when it is really held */
export function doom(cluster: Cluster, shard: number, milliseconds: number): Promise<Hold> {
  return begun(cluster, shard, milliseconds, (target, path, call) =>
    target.exitAfter({ path, milliseconds }, call).catch(() => undefined),
  );
}

async function begun(
  cluster: Cluster,
  shard: number,
  milliseconds: number,
  act: (target: Saboteur, path: string, call: AskOptions) => Promise<unknown>,
): Promise<Hold> {
  const gate = new Gate();
  const target = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard));
  const end = act(target, gate.path, { timeoutMs: milliseconds + PATIENCE_MS });
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
    return (
      gate.isReached && beat?.activity === "js" && performance.timeOrigin + performance.now() - beat.sinceMs > HELD_MS
    );
  });
  return held;
}
