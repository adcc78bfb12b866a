/**
 * Bulk build of one partition: places documents in the order given, links them in a random order. Runs on all workers at once.
 *
 * Invariant: a vertex is linked once it is reported; a build that was cancelled or died leaves a graph that is whole, in which
 * the vertices that were not linked yet are taken without the LINKED flag.
 * Order of places is order in memory: documents that are near each other should come one after the other. Order of linking
 * is random, so that the first lists span the whole space. Owner thread only.
 */
import { ShardloomError } from "../../../src/errors.ts";
import type { GraphDocument, GraphPartition } from "./graph-partition.ts";
import type { GraphWriter } from "./graph-writer.ts";

/** A document to be placed. */
export interface GraphBuildItem extends GraphDocument {
  readonly code: Uint8Array;
  readonly inverseNorm?: number;
}

/** How to run a build. */
export interface GraphBuildOptions {
  readonly nowMs: () => number;
  /** Uniform uint32. */
  readonly randomU32: () => number;
  /** Lets others run between two slices, e.g. until the next turn of the event loop. */
  readonly pause: () => Promise<void>;
  readonly signal?: AbortSignal;
  /** Milliseconds between two pauses. @default 5 */
  readonly sliceMs?: number;
  /** Called after each slice. */
  readonly onProgress?: (progress: GraphBuildProgress) => void;
  /** Called for each vertex once it is linked. */
  readonly onLinked?: (vertex: number) => void;
}

export interface GraphBuildProgress {
  readonly linked: number;
  readonly total: number;
  /** Distances computed while neighbours were searched. */
  readonly distances: number;
}

const DEFAULT_SLICE_MS = 5;
/** Tries of a vertex whose lock is held. */
const LINK_ATTEMPTS = 8;

/** Places documents in a partition, in their order. Returns their vertices. */
export function placeVertices(partition: GraphPartition, items: Iterable<GraphBuildItem>): number[] {
  const vertices: number[] = [];
  for (const item of items) vertices.push(partition.take(item, item.code, item.inverseNorm));
  return vertices;
}

/**
 * Links vertices that were placed, or that a crash left unlinked.
 *
 * @throws {ShardloomError} `ERR_ABORTED` between two slices; what was linked stays. What {@link GraphWriter.insert} throws.
 */
export async function linkVertices(
  partition: GraphPartition,
  writer: GraphWriter,
  vertices: readonly number[],
  options: GraphBuildOptions,
): Promise<GraphBuildProgress> {
  const { nowMs, pause, signal, sliceMs = DEFAULT_SLICE_MS } = options;
  const order = shuffled(vertices, options.randomU32);
  let linked = 0;
  let distances = 0;
  const progress = (): GraphBuildProgress => ({ linked, total: order.length, distances });
  while (linked < order.length) {
    if (signal?.aborted === true) {
      throw new ShardloomError("ERR_ABORTED", "Cannot build graph as the signal was aborted", {
        cause: signal.reason,
        details: { linked, total: order.length },
      });
    }
    const deadline = nowMs() + sliceMs;
    do {
      const vertex = order[linked] as number;
      link(partition, writer, vertex);
      distances += writer.distances;
      options.onLinked?.(vertex);
      linked++;
    } while (linked < order.length && nowMs() < deadline);
    options.onProgress?.(progress());
    await pause();
  }
  return progress();
}

function link(partition: GraphPartition, writer: GraphWriter, vertex: number): void {
  if (!partition.isLive(vertex)) return; // it was deleted meanwhile
  for (let attempt = 0; attempt < LINK_ATTEMPTS; attempt++) {
    if (writer.insert(vertex)) {
      partition.markLinked(vertex);
      return;
    }
    partition.repairLocks();
  }
  throw new ShardloomError("ERR_UNAVAILABLE", "Cannot link vertex as its lock stays held", { details: { vertex } });
}

function shuffled(vertices: readonly number[], randomU32: () => number): number[] {
  const order = [...vertices];
  for (let index = order.length - 1; index > 0; index--) {
    const other = (randomU32() >>> 0) % (index + 1);
    [order[index], order[other]] = [order[other] as number, order[index] as number];
  }
  return order;
}
