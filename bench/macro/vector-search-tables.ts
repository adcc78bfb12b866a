/** The shared tables of leaf centroids of bench `vector-search`, one of each shard, and the router that is calibrated on them. */

import { LEAF_TRAINING } from "../../actors/vector/graph/leaf-trainer.ts";
import { describeLeaves, type MergedCentroids, mergeCentroids } from "../../actors/vector/routing/centroid-table.ts";
import { encodedBytes } from "../../actors/vector/routing/centroid-table-codec.ts";
import { Compass } from "../../actors/vector/routing/compass.ts";
import { calibrateCompass, trainingQueries } from "../../actors/vector/routing/compass-calibration.ts";
import { runSteps } from "../../actors/vector/routing/steps.ts";
import { type Placement, packShards } from "./vector-search-placement.ts";

/** The tables of all shards, and the leaf of each row by its number in them. */
export interface Tables {
  readonly merged: MergedCentroids;
  readonly leafOf: Int32Array;
  /** Bytes of the tables over those of the vectors. */
  readonly share: number;
}

/** Packs the leaves on shards, and describes each shard's. */
export function describeShards(place: Placement, shards: number): Tables {
  const { space, base, clustering } = place;
  const { partitionOf } = packShards(place, shards);
  const numbers = new Int32Array(clustering.leaves);
  let next = 0;
  let bytes = 0;
  const tables = Array.from({ length: shards }, (_, shard) => {
    const leaves = Int32Array.from([...partitionOf.keys()].filter((leaf) => partitionOf[leaf] === shard));
    for (const leaf of leaves) numbers[leaf] = next++;
    bytes += encodedBytes(space, leaves.length);
    return { space, shard, epoch: 1, version: 1, ...describeLeaves(base, clustering, { leaves, partitionOf }) };
  });
  return {
    merged: mergeCentroids(tables),
    leafOf: clustering.leafOf.map((leaf) => numbers[leaf] as number),
    share: bytes / (base.count * base.vector(0).byteLength),
  };
}

/** A router that was calibrated on vectors of the base that k-means did not look at, as far as there are enough. */
export function startCompass(place: Placement, { merged, leafOf }: Tables): Compass {
  const { host, table, clustering, seed } = place;
  const seen = new Set(clustering.sample);
  const { queries, depth } = LEAF_TRAINING;
  const options = { seed: seed + 6, queries: queries.leaves, depth, seen };
  const compass = new Compass(host, merged);
  compass.calibrate(runSteps(calibrateCompass(compass, runSteps(trainingQueries(table, leafOf, options)))));
  return compass;
}
