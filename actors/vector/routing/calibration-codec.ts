/**
 * A calibration of Compass as bytes, to lie beside the table of centroids that it belongs to.
 *
 * Layout: JSON of one list of thresholds, which all curves share, the curves' recalls in whole ten-thousandths, and the levels above the leaves where
 * there are any (levels-codec.ts). Rounded down: what is read
 * never promises more than what was written.
 */
import type { RecallCurve } from "./adaptive-probing.ts";
import type { CodeSpace } from "./code-table.ts";
import type { CompassCalibration, DepthCalibration } from "./compass-calibration.ts";
import { decodeLevels, type EncodedLevels, encodeLevels, type LevelTable } from "./levels-codec.ts";

const UNITS = 10_000;

interface Encoded {
  readonly thresholds: readonly number[];
  readonly depths: readonly (Pick<DepthCalibration, "effort" | "depth" | "model"> & {
    readonly shards: readonly number[];
    readonly leaves: readonly number[];
  })[];
  readonly levels?: EncodedLevels;
}

export function encodeCalibration(calibration: CompassCalibration, levels?: LevelTable): Uint8Array {
  const thresholds = calibration[0]?.shardCurve.thresholds ?? [];
  const units = ({ recalls }: RecallCurve): number[] => recalls.map((recall) => Math.floor(recall * UNITS));
  const depths = calibration.map(({ effort, depth, model, shardCurve, leafCurve }) => ({
    effort,
    depth,
    model,
    shards: units(shardCurve),
    leaves: units(leafCurve),
  }));
  const encoded: Encoded = { thresholds, depths, ...(levels === undefined ? {} : { levels: encodeLevels(levels) }) };
  return new TextEncoder().encode(JSON.stringify(encoded));
}

/** The levels that {@link encodeCalibration} wrote with it, over codes of that space. */
export function decodeLevelTable(space: CodeSpace, bytes: Uint8Array): LevelTable | undefined {
  const { levels } = parse(bytes);
  return levels === undefined ? undefined : decodeLevels(space, levels);
}

/** What {@link encodeCalibration} wrote. */
export function decodeCalibration(bytes: Uint8Array): CompassCalibration {
  const { thresholds, depths } = parse(bytes);
  const curve = (units: readonly number[]): RecallCurve => ({ thresholds, recalls: units.map((unit) => unit / UNITS) });
  return depths.map(({ effort, depth, model, shards, leaves }) => ({
    effort,
    depth,
    model,
    shardCurve: curve(shards),
    leafCurve: curve(leaves),
  }));
}

function parse(bytes: Uint8Array): Encoded {
  return JSON.parse(new TextDecoder().decode(bytes)) as Encoded;
}
