/**
 * What the parts of bench `durable` share: clustered vectors, and clusters on directories of their own.
 *
 * Invariant: vectors are made of the seed alone. A cluster is durable (`fsync`), keeps its documents, and never spins, as clients and
 * workers share the cores; its directory is below the system's for temporary files and goes with it.
 */
import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cluster, type ClusterOptions, type VectorCollection, type VectorDocument } from "../../src/index.ts";
import { createSeededRandom } from "../../src/runtime/random.ts";

export const DIMENSIONS = 128;
export const WORKERS = 2;
const CLUSTERS = 200;
const SPREAD = 0.5;

/** Gives vectors around {@link CLUSTERS} centres that are the same for every seed. */
export function vectorSource(seed: number, dimensions: number = DIMENSIONS): () => Float32Array {
  const shape = createSeededRandom(1);
  const centres = Array.from({ length: CLUSTERS }, () =>
    Float32Array.from({ length: dimensions }, () => shape.float()),
  );
  const random = createSeededRandom(seed);
  return () => {
    const centre = centres[random.u32() % CLUSTERS] as Float32Array;
    return centre.map((value) => value + (random.float() - 0.5) * SPREAD);
  };
}

/** Documents with numbers for ids. */
export function documentsOf(count: number, seed: number, dimensions?: number): VectorDocument[] {
  const next = vectorSource(seed, dimensions);
  return Array.from({ length: count }, (_, id) => ({ id, vector: next() }));
}

/** A cluster on a directory, and the one collection in it. */
export interface DurableStage {
  readonly cluster: Cluster;
  readonly collection: VectorCollection;
}

/** Starts a cluster on a directory and opens the collection there. */
export async function openDurable(
  directory: string,
  options: ClusterOptions = {},
  dimensions: number = DIMENSIONS,
): Promise<DurableStage> {
  const cluster = await Cluster.start({
    workers: WORKERS,
    directory,
    durability: "fsync",
    spinLimitUs: 0,
    requestTimeoutMs: 60_000,
    ...options,
  });
  return { cluster, collection: await cluster.vectors("bench", { dimensions, metric: "l2" }) };
}

/** Gives directories below one folder, which is removed at the end. */
export async function withFolder<T>(work: (directory: (name: string) => string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "shardloom-durable-"));
  try {
    return await work((name) => join(folder, name));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Throws unless a part of the bench did what it claims. */
export function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(`durable bench: ${what}`);
}
