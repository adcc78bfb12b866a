/**
 * The levels above a table of leaves as they lie beside it: clusters, the shards that read them, and what was learnt for them.
 *
 * Layout: part of the JSON of the table's calibration (calibration-codec.ts), lowest level first; codes of centroids as base64 of their bytes.
 * Invariant: what {@link encodeLevels} wrote is read bit for bit, but for recalls, which are rounded down: it never promises more. Levels belong to
 * one version of their table and are replaced with it.
 */
import type { RecallCurve } from "./adaptive-probing.ts";
import { type Code, type CodeSpace, newCode } from "./code-table.ts";
import type { MultiLevelCalibration } from "./multi-level-search.ts";

/** Clusters of one level above the leaves; its members are the clusters of the level below. */
export interface UpperLevel {
  /** Centroids, one after the other. */
  readonly codes: Code;
  /** Members of cluster c: `members[starts[c] .. starts[c + 1])`. */
  readonly starts: Int32Array;
  readonly members: Int32Array;
  /** Shards that read a cluster; −1 where there is no second one. */
  readonly shardOf: Int32Array;
  readonly secondOf: Int32Array;
}

export interface LevelTable {
  /** Lowest first. */
  readonly upper: readonly UpperLevel[];
  readonly calibration: MultiLevelCalibration;
}

/** Plain data, fit for JSON. */
export interface EncodedLevels {
  readonly upper: readonly {
    readonly codes: string;
    readonly starts: readonly number[];
    readonly members: readonly number[];
    readonly shards: readonly number[];
    readonly seconds: readonly number[];
  }[];
  readonly calibration: MultiLevelCalibration;
}

const UNITS = 10_000;

export function encodeLevels({ upper, calibration }: LevelTable): EncodedLevels {
  const down = ({ thresholds, recalls }: RecallCurve): RecallCurve => ({
    thresholds,
    recalls: recalls.map((recall) => Math.floor(recall * UNITS) / UNITS),
  });
  return {
    upper: upper.map(({ codes, starts, members, shardOf, secondOf }) => ({
      codes: Buffer.from(codes.buffer, codes.byteOffset, codes.byteLength).toString("base64"),
      starts: [...starts],
      members: [...members],
      shards: [...shardOf],
      seconds: [...secondOf],
    })),
    calibration: calibration.map(({ depth, levels }) => ({
      depth,
      levels: levels.map(({ model, curve }) => ({ model, curve: down(curve) })),
    })),
  };
}

/** What {@link encodeLevels} made of levels over codes of that space. */
export function decodeLevels(space: CodeSpace, { upper, calibration }: EncodedLevels): LevelTable {
  return {
    upper: upper.map(({ codes, starts, members, shards, seconds }) => {
      const code = newCode(space, starts.length - 1);
      const bytes = new Uint8Array(code.buffer);
      bytes.set(Buffer.from(codes, "base64").subarray(0, bytes.length));
      const [shardOf, secondOf] = [Int32Array.from(shards), Int32Array.from(seconds)];
      return { codes: code, starts: Int32Array.from(starts), members: Int32Array.from(members), shardOf, secondOf };
    }),
    calibration,
  };
}
