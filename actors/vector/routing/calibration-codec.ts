/**
 * A calibration of Compass as bytes, to lie beside the table of centroids that it belongs to.
 *
 * Layout: JSON of one list of thresholds, which all curves share, and the curves' recalls in whole ten-thousandths. Rounded down: what is read
 * never promises more than what was written.
 */
import type { RecallCurve } from "./adaptive-probing.ts";
import type { CompassCalibration, DepthCalibration } from "./compass-calibration.ts";

const UNITS = 10_000;

interface Encoded {
  readonly thresholds: readonly number[];
  readonly depths: readonly (Pick<DepthCalibration, "effort" | "depth" | "model"> & {
    readonly shards: readonly number[];
    readonly leaves: readonly number[];
  })[];
}

export function encodeCalibration(calibration: CompassCalibration): Uint8Array {
  const thresholds = calibration[0]?.shardCurve.thresholds ?? [];
  const units = ({ recalls }: RecallCurve): number[] => recalls.map((recall) => Math.floor(recall * UNITS));
  const depths = calibration.map(({ effort, depth, model, shardCurve, leafCurve }) => ({
    effort,
    depth,
    model,
    shards: units(shardCurve),
    leaves: units(leafCurve),
  }));
  const encoded: Encoded = { thresholds, depths };
  return new TextEncoder().encode(JSON.stringify(encoded));
}

/** What {@link encodeCalibration} wrote. */
export function decodeCalibration(bytes: Uint8Array): CompassCalibration {
  const { thresholds, depths } = JSON.parse(new TextDecoder().decode(bytes)) as Encoded;
  const curve = (units: readonly number[]): RecallCurve => ({ thresholds, recalls: units.map((unit) => unit / UNITS) });
  return depths.map(({ effort, depth, model, shards, leaves }) => ({
    effort,
    depth,
    model,
    shardCurve: curve(shards),
    leafCurve: curve(leaves),
  }));
}
