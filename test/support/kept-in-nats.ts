/** Clusters that keep what they have in a server of NATS, and writers who remember what they were told. */
import { Cluster, type ClusterOptions, type VectorCollection } from "../../src/index.ts";
import { AcknowledgedWrites } from "./acknowledged.ts";
import { ACTORS_URL } from "./cluster.ts";

const MIB = 1024 * 1024;
export const DIMENSIONS = 4;
/** How long a call to the server may take. */
export const CALL_MS = 400;
export const LEASE_MS = 1_000;

/** Two workers, small snapshots, short times. */
export function startInNats(url: string, store: string, options: ClusterOptions = {}): Promise<Cluster> {
  return Cluster.start({
    workers: 2,
    vshards: 16,
    memoryBytes: 64 * MIB,
    actors: [ACTORS_URL],
    nats: { servers: [url], store, timeoutMs: CALL_MS },
    snapshotBytes: 64 * 1024,
    leaseMs: LEASE_MS,
    requestTimeoutMs: 20_000,
    startTimeoutMs: 60_000,
    ...options,
  });
}

export function openDocs(cluster: Cluster): Promise<VectorCollection> {
  return cluster.vectors("docs", { dimensions: DIMENSIONS, metric: "l2" });
}

/** Three writers of 60 documents. */
export function writesInNats(timeoutMs: number): AcknowledgedWrites {
  return new AcknowledgedWrites({
    ids: Array.from({ length: 60 }, (_, id) => id),
    writers: 3,
    documentOf: (id, generation) => ({ id, vector: [generation, id, 0, 0], payload: { filling: "x".repeat(300) } }),
    generationOf: (vector) => vector[0] as number,
    timeoutMs,
  });
}
