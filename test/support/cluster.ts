/** What the cluster tests share: a small cluster, its actors, and waiting with a deadline instead of sleeping. */
import type { AnyActorDefinition } from "../../src/actor/define-actor.ts";
import { Cluster, type ClusterOptions } from "../../src/index.ts";

/** The compiled module of `actors.ts`. */
export const ACTORS_URL: URL = new URL("./actors.js", import.meta.url);

/** A busy machine must not look like a dead one: for tests that are not about who is suspected when. */
export const PATIENT_DETECTOR = { suspectMs: 5_000, downMs: 10_000 } as const;

/** Two workers with the test actors, and little memory. */
export function startTestCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const base = { workers: 2, memoryBytes: 256 * 1024 * 1024, actors: [ACTORS_URL] };
  return Cluster.start({ ...base, ...PATIENT_DETECTOR, ...options });
}

/** Resolves when the condition holds; rejects, naming it, when it does not within the deadline. */
export async function eventually(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 20_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`${what} did not happen within ${timeoutMs} ms`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** A key of an actor that lives on the given shard, which must be the primary of something. @param skip Keys before it that do, too. */
export function keyOnShard(cluster: Cluster, definition: AnyActorDefinition, shard: number, skip = 0): string {
  if (!cluster.topology.owners.includes(shard)) throw new Error(`no actor lives on shard ${shard}`);
  for (let at = 0, found = 0; ; at++)
    if (cluster.shardOfActor(definition, `key-${at}`) === shard && found++ === skip) return `key-${at}`;
}

/** A uniform vector. */
export function randomVector(random: { float(): number }, dimensions: number): Float32Array {
  return Float32Array.from({ length: dimensions }, () => random.float() * 2 - 1);
}
