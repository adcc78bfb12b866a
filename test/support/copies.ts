/**
 * What the tests of replicated clusters share: starting one, breaking one of its workers, and looking at one copy at a time.
 *
 * Invariant: everything here goes through the public API, so that what the tests see is what users see.
 */
import { expect } from "vitest";
import {
  type Cluster,
  type ClusterOptions,
  type MemberStateName,
  ShardloomError,
  type VectorCollection,
} from "../../src/index.ts";
import { createSeededRandom, type Random } from "../../src/runtime/random.ts";
import { saboteur } from "./actors.ts";
import { eventually, keyOnShard, startTestCluster } from "./cluster.ts";

/** The seed of this run and a generator made from it. */
export function seeded(salt: number): { seed: number; random: Random } {
  const seed = Number(process.env["SEED"] ?? 1);
  return { seed, random: createSeededRandom((seed ^ Math.imul(salt, 0x9e3779b1)) >>> 0) };
}

/** Admission that holds nothing back: what it sheds is for its own tests. */
const PATIENT = { minInFlightPerShard: 128, initialInFlightPerShard: 128, maxQueueDelayMs: 60_000 };

/** Three workers, a small map of vshards, and as many copies as asked for. */
export function startCopies(options: ClusterOptions = {}): Promise<Cluster> {
  return startTestCluster({ workers: 3, vshards: 16, replicationFactor: 3, admission: PATIENT, ...options });
}

/** How a worker is made to die. */
export type Sabotage = "exit" | "throw" | "hang";
export const SABOTAGES: readonly Sabotage[] = ["exit", "throw", "hang"];

/**
 * Kills the worker of a shard: at once when it is the primary of something, else as soon as it is again, as a busy machine's copies may have
 * taken over before the last one was back.
 *
 * @returns resolves when its successor serves
 */
export function kill(cluster: Cluster, shard: number, sabotage: Sabotage = "exit"): Promise<void> {
  const restarted = killPrimary(cluster, shard, sabotage);
  restarted.catch(() => undefined); // not everybody waits for it
  return restarted;
}

async function killPrimary(cluster: Cluster, shard: number, sabotage: Sabotage): Promise<void> {
  const isPrimary = (): boolean => cluster.topology.owners.includes(shard);
  if (!isPrimary()) await eventually(`shard ${shard} is a primary again`, isPrimary, 60_000);
  const ref = cluster.actor(saboteur, keyOnShard(cluster, saboteur, shard));
  const call = { timeoutMs: 20_000 };
  const restarted = new Promise<void>((resolve, reject) => {
    const end = (event: { shard: number; error?: Error }): void => {
      if (event.shard !== shard) return;
      cluster.off("worker-restarted", end);
      cluster.off("worker-down", end);
      if (event.error === undefined) resolve();
      else reject(new Error(`shard ${shard} is given up: it died too often for one test`, { cause: event.error }));
    };
    cluster.on("worker-restarted", end);
    cluster.on("worker-down", end);
  });
  restarted.catch(() => undefined); // until it is returned
  const death =
    sabotage === "exit"
      ? ref.exit(1, call)
      : sabotage === "throw"
        ? ref.throwOutside(undefined, call)
        : ref.block(1e9, call);
  death.catch(() => undefined);
  return restarted;
}

/** Resolves when a shard is in a state. */
export function whenState(cluster: Cluster, shard: number, state: MemberStateName): Promise<void> {
  return eventually(`shard ${shard} is ${state}`, () => stateOf(cluster, shard) === state);
}

/** The state of a shard. */
export function stateOf(cluster: Cluster, shard: number): MemberStateName | undefined {
  return cluster.members().find(({ id }) => id === `shard-${shard}`)?.state;
}

/** Resolves when every shard is up. */
export async function whenAllUp(cluster: Cluster): Promise<void> {
  for (let shard = 0; shard < cluster.options.workers; shard++) await whenState(cluster, shard, "up");
}

/** The code of a failure, which must be one of ours. */
export function codeOf(error: unknown): string {
  if (!ShardloomError.is(error)) throw error;
  return error.code;
}

/** What one copy of everything holds: the first component of each vector, by id. */
type Copy = ReadonlyMap<string | number, number> | undefined;

/**
 * What a shard's copies hold: all other shards are drained meanwhile. Every vshard must have a copy there.
 *
 * @returns undefined when another shard had to answer for a part, as a copy here is being filled
 */
async function readCopy(cluster: Cluster, docs: VectorCollection, shard: number): Promise<Copy> {
  const others = Array.from({ length: cluster.options.workers }, (_, at) => at).filter((at) => at !== shard);
  for (const other of others) cluster.drain(other);
  try {
    const { hits, explain, completeness } = await docs.search(new Float32Array(docs.options.dimensions), {
      k: 65_536,
      exact: true,
      consistency: "eventual",
      includeVector: true,
      includePayload: false,
      hedge: false,
      explain: true,
    });
    expect(completeness.complete).toBe(true);
    if (explain?.outcomes.some(({ servedBy }) => servedBy.some((by) => by !== shard)) !== false) return undefined;
    expect(new Set(hits.map(({ id }) => id)).size, "each id once").toBe(hits.length);
    return new Map(hits.map(({ id, vector }) => [id, vector?.[0] as number]));
  } finally {
    for (const other of others) cluster.resume(other);
  }
}

/** The same, looked at until the shard itself has answered for everything. */
export async function copyAt(cluster: Cluster, docs: VectorCollection, shard: number): Promise<NonNullable<Copy>> {
  let copy: Copy;
  await eventually(`shard ${shard} answers alone`, async () => {
    copy = await readCopy(cluster, docs, shard);
    return copy !== undefined;
  });
  return copy as NonNullable<Copy>;
}

/** Resolves when all copies hold the same; fails with what differs when they do not in time. @returns what they hold */
export async function whenCopiesEqual(cluster: Cluster, docs: VectorCollection): Promise<NonNullable<Copy>> {
  await whenAllUp(cluster);
  let last: Copy[] = [];
  await eventually("all copies are equal", async () => {
    last = [];
    for (let shard = 0; shard < cluster.options.workers; shard++) last.push(await readCopy(cluster, docs, shard));
    return last.every((copy) => sameEntries(copy, last[0]));
  }).catch((error: unknown) => {
    expect(last.map(sortedEntries)).toEqual(last.map(() => sortedEntries(last[0])));
    throw error;
  });
  return last[0] as NonNullable<Copy>;
}

function sameEntries(a: Copy, b: Copy): boolean {
  return a !== undefined && a.size === b?.size && [...a].every(([id, value]) => b.get(id) === value);
}

function sortedEntries(copy: Copy): [string | number, number][] {
  return [...(copy ?? [])].sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
}
