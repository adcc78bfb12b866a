/**
 * What a world's options mean for its parts: names of nodes, options of their clusters, what faults may hit.
 *
 * Invariant: everything here follows from options and seed.
 */
import type { ClusterOptions } from "../cluster-options.ts";
import type { ClusterNode } from "../plane/node-members.ts";
import type { Random } from "../runtime/random.ts";
import type { FaultKind } from "./fault-types.ts";
import { type FaultShape, resolveFaultShape } from "./faults.ts";
import type { ResolvedWorldOptions, WorldDurability } from "./world-types.ts";

/** Rings of a simulated node, in bytes: small, as five nodes have dozens of them. */
const LEAST_RING_BYTES = 65_536;
const CREDIT_MESSAGES = 256;
/** Silence after which nodes and workers are suspect, and down: longer than a machine's default, as signs of life are most of what an idle world does. */
const SUSPECT_MS = 1_500;
const DOWN_MS = 3_000;
/** In a world no handler can hang, as threads are not preempted; looks for hung ones wake everybody. */
const MAX_HANDLER_MS = 7_500;

/** Where nodes keep their data, on the disk of their machine. */
const DIRECTORY = "/data";
/** Log after which a shard takes a snapshot: between these, so that some runs see many. */
const LEAST_SNAPSHOT_BYTES = 4_096;
const SNAPSHOT_SPREAD = 256;
/** So slow that faults hit snapshots in the middle. */
const SNAPSHOT_BYTES_PER_SECOND = 65_536;
/** Faults after which a node has on its disk all that it acknowledged. */
const SURVIVED: Readonly<Record<WorldDurability, readonly FaultKind[]>> = {
  none: [],
  memory: [],
  os: ["node-kill"],
  fsync: ["node-kill", "crash"],
};

/** Nodes are n0, n1, ... */
export function nodeName(at: number): string {
  return `n${at}`;
}

/** All nodes and their shards, as each of them is told. */
export function membersOf({ nodes, shardsPerNode }: ResolvedWorldOptions): readonly ClusterNode[] {
  return Array.from({ length: nodes }, (_, at) => ({
    name: nodeName(at),
    shards: Array.from({ length: shardsPerNode }, (_unused, shard) => at * shardsPerNode + shard),
  }));
}

/** Options of the cluster of every node. @param random Draws how much log a shard keeps, where it keeps any. */
export function clusterOptionsOf(
  options: ResolvedWorldOptions,
  actors: readonly URL[],
  random: Random,
): ClusterOptions {
  const { shardsPerNode, vshards, replicationFactor, consistency, memoryBytes, requestTimeoutMs } = options;
  const ringBytes = ringBytesFor(vshards);
  return {
    workers: shardsPerNode,
    vshards,
    replicationFactor,
    consistency,
    memoryBytes,
    requestTimeoutMs,
    actors,
    requestRingBytes: ringBytes,
    replyRingBytes: ringBytes,
    meshRingBytes: ringBytes,
    creditMessages: CREDIT_MESSAGES,
    suspectMs: SUSPECT_MS,
    downMs: DOWN_MS,
    maxHandlerMs: MAX_HANDLER_MS,
    spinLimitUs: 0, // a thread that spins would never let the world go on
    ...storageOf(options.durability, random),
  };
}

function storageOf(durability: WorldDurability, random: Random): Partial<ClusterOptions> {
  if (durability === "none") return {};
  return {
    directory: DIRECTORY,
    durability,
    snapshotBytes: Math.round(LEAST_SNAPSHOT_BYTES * SNAPSHOT_SPREAD ** random.float()),
    snapshotBytesPerSecond: SNAPSHOT_BYTES_PER_SECOND,
  };
}

/** A request may list every vshard with an LSN, and a message is a quarter of its ring. */
function ringBytesFor(vshards: number): number {
  const leastBytes = 4 * (12 * vshards + 2_048);
  return Math.max(LEAST_RING_BYTES, 2 ** Math.ceil(Math.log2(leastBytes)));
}

/** What faults may hit. */
export function faultShapeOf(options: ResolvedWorldOptions): FaultShape {
  return resolveFaultShape({
    nodes: Array.from({ length: options.nodes }, (_, at) => nodeName(at)),
    workersPerNode: options.shardsPerNode,
    acks: Math.floor(options.replicationFactor / 2) + 1,
    disks: true,
    nats: true,
    storage: options.durability !== "none",
    survives: SURVIVED[options.durability],
  });
}
