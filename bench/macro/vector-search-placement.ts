/**
 * What the strategies for many shards share in bench `vector-search`: the vectors as a table of codes, and their leaves, packed on shards.
 *
 * Leaves are learnt as a collection learns them: from so many samples, in so many rounds.
 * Invariant: made of the base alone and of the seed; queries play no part.
 */

import { LEAF_TRAINING } from "../../actors/vector/graph/leaf-trainer.ts";
import { leavesWithin } from "../../actors/vector/routing/centroid-table.ts";
import {
  type CodeHost,
  type CodeSpace,
  type CodeTable,
  packedSource,
  tableOf,
  type VectorSource,
} from "../../actors/vector/routing/code-table.ts";
import { leafAffinity } from "../../actors/vector/routing/leaf-affinity.ts";
import { clusterLeaves, type LeafClustering } from "../../actors/vector/routing/leaf-clustering.ts";
import { type LeafPacking, packLeaves } from "../../actors/vector/routing/leaf-packing.ts";
import { runSteps } from "../../actors/vector/routing/steps.ts";
import { Arena, createArena } from "../../native-bridge/arena.ts";
import { compileKernels, ELEMENT, Kernels, METRIC } from "../../native-bridge/kernels.ts";
import { arenaBytes, type VectorSet } from "./vector-search-data.ts";
import { buildGraph, type PlainGraph } from "./vector-search-graph.ts";

/** Room beside the vectors: tables of centroids. */
const ROOM = 1.5;

/** The vectors as codes in an arena, and their leaves. */
export interface Placement {
  readonly host: CodeHost;
  readonly space: CodeSpace;
  readonly base: VectorSource;
  readonly queries: VectorSource;
  readonly table: CodeTable;
  readonly clustering: LeafClustering;
  readonly seed: number;
}

/** Made once for all parts of a run, as they take long. */
const placements = new WeakMap<VectorSet, Placement>();
const graphs = new WeakMap<Placement, PlainGraph>();

/** Clusters the base into leaves. */
export function placeVectors(set: VectorSet, seed: number): Placement {
  let place = placements.get(set);
  if (place === undefined || place.seed !== seed) {
    place = clustered(set, seed);
    placements.set(set, place);
  }
  return place;
}

/** The graph over all vectors; its vertices are their rows. */
export function graphOf(place: Placement): PlainGraph {
  let graph = graphs.get(place);
  if (graph === undefined) {
    const everything = Int32Array.from({ length: place.base.count }, (_, row) => row);
    graph = buildGraph(place.table, everything, place.seed);
    graphs.set(place, graph);
  }
  return graph;
}

function clustered({ base, queries, bytes }: VectorSet, seed: number): Placement {
  const { dimensions } = base;
  const space: CodeSpace = { dimensions, metric: METRIC.L2, element: bytes ? ELEMENT.U8 : ELEMENT.F32 };
  const stride = 64 + dimensions * (bytes ? 1 : 4);
  const arena = new Arena(createArena({ capacityBytes: arenaBytes(ROOM * base.count * stride) }));
  const host = { arena, kernels: new Kernels(compileKernels(), arena) };
  const source = packedSource(space, bytes ? base.toBytes() : base.values);
  const { tableShare, samplePerLeaf, seenShare, rounds } = LEAF_TRAINING;
  const leaves = leavesWithin(space, base.count, tableShare);
  const sampleCount = Math.min(base.count, Math.floor(samplePerLeaf * seenShare * leaves));
  return {
    host,
    space,
    base: source,
    queries: packedSource(space, bytes ? queries.toBytes() : queries.values),
    table: tableOf(host, source),
    clustering: runSteps(clusterLeaves(host, source, { leaves, seed, rounds, sampleCount })),
    seed,
  };
}

/** Packs the leaves on so many shards. */
export function packShards({ host, clustering, seed }: Placement, shards: number): LeafPacking {
  return runSteps(packLeaves(host, clustering, runSteps(leafAffinity(clustering)), { partitions: shards, seed }));
}

/** Row of the vector nearest to the centroid of each leaf; −1: it has none. */
export function medoidsOf({ clustering }: Placement): Int32Array {
  const { leafOf, distances, leaves } = clustering;
  const medoids = new Int32Array(leaves).fill(-1);
  leafOf.forEach((leaf, row) => {
    const best = medoids[leaf] as number;
    if (best < 0 || (distances[row] as number) < (distances[best] as number)) medoids[leaf] = row;
  });
  return medoids;
}
