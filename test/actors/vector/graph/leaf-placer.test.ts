/** Who tells where vectors are to be placed, while there is no memory to learn it. */
import { expect, test } from "vitest";
import { LeafPlacer } from "../../../../actors/vector/graph/leaf-placer.ts";
import { publishLeaves } from "../../../../actors/vector/graph/leaf-table.ts";
import { encodeCalibration } from "../../../../actors/vector/routing/calibration-codec.ts";
import { CodeTable } from "../../../../actors/vector/routing/code-table.ts";
import { Arena, createArena } from "../../../../native-bridge/arena.ts";
import { ELEMENT, Kernels, METRIC } from "../../../../native-bridge/kernels.ts";
import { FailingHost } from "../routing/support.ts";
import { clusters, MODULE, Site } from "./graph-support.ts";

const LEAVES = 64;
const DIMENSIONS = 12;

test("leaves that could not be made ready for want of memory are made ready once there is some, however often it was wanting", () => {
  const arena = new Arena(createArena({ capacityBytes: 16 * 1024 * 1024 }));
  const site = Site.create(arena, { dimensions: DIMENSIONS, element: ELEMENT.F32, metric: METRIC.L2 }, 16);
  const host = new FailingHost({ arena, kernels: new Kernels(MODULE, arena) });
  const centroids = new CodeTable(host, { dimensions: DIMENSIONS, element: ELEMENT.F32, metric: METRIC.L2 }, LEAVES);
  const next = clusters(3, DIMENSIONS, LEAVES);
  const codes = Array.from({ length: LEAVES }, next);
  for (const [leaf, code] of codes.entries()) centroids.set(leaf, code);
  const labels = Int32Array.from({ length: LEAVES }, (_, leaf) => leaf % 3);
  publishLeaves(site.root, { centroids, labels, calibration: encodeCalibration([], undefined), trained: 1_000 });
  centroids.close();
  const placer = new LeafPlacer(site.root, host);
  const prepare = (): boolean => placer.prepare(Number.POSITIVE_INFINITY, () => 0);
  for (const failing of [1, 2, 1]) {
    let asked = 0;
    host.fails = () => ++asked === failing;
    expect(prepare).toThrow(expect.objectContaining({ code: "ERR_OUT_OF_MEMORY" }));
    expect(placer.placeOf(codes[5] as Float32Array)).toBeUndefined();
    expect(host.held).toBe(0);
  }
  host.fails = () => false;
  expect(prepare()).toBe(false);
  for (const [leaf, code] of codes.entries()) expect(placer.placeOf(code)).toMatchObject({ leaf, label: leaf % 3 });
  placer.close();
  expect(host.held).toBe(0);
});
