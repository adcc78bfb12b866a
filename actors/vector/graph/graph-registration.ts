/**
 * How the memory of a graph is registered, and recognised: its root is one cell, its chunks are cells of a vertex each.
 *
 * Invariant: an address that holds no root of this version, of a shape that its words agree with, is refused (`ERR_CORRUPT`).
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES } from "../../../native-bridge/cell-layout.ts";
import { ACCESS, type RegionRef, type RegionTable } from "../../../native-bridge/region-table.ts";
import { invalidArgument, ShardloomError } from "../../../src/errors.ts";
import { type GraphGeometry, MAX_PARTITIONS, readGraphGeometry } from "../../../src/store/graph-layout.ts";

/** The geometry in a root's words, checked against what its shape must give. */
export function geometryAt(arena: Arena, address: number): GraphGeometry {
  if (!Number.isInteger(address) || address < arena.heapByteOffset || address % 64 !== 0) throw noRoot(address);
  const first = (address + CELL_HEADER_BYTES) >>> 2;
  const geometry = readGraphGeometry((index) => arena.i32[first + index] as number);
  if (geometry === undefined) throw noRoot(address);
  return geometry;
}

export function noRoot(address: number): ShardloomError {
  return new ShardloomError(
    "ERR_CORRUPT",
    `Cannot open graph as its root must be at its address: current value is ${address}`,
    {
      details: { rootAddress: address },
    },
  );
}

export function registerRoot(regions: RegionTable, byteOffset: number, byteLength: number): RegionRef {
  return regions.register({ byteOffset, byteLength, access: ACCESS.READ, cellStrideBytes: byteLength });
}

export function registerChunk(regions: RegionTable, byteOffset: number, byteLength: number, stride: number): number {
  return regions.register({ byteOffset, byteLength, access: ACCESS.READ, cellStrideBytes: stride }).rkey;
}

export function checkPartition(partition: number): void {
  if (!Number.isInteger(partition) || partition < 0 || partition >= MAX_PARTITIONS)
    throw invalidArgument("use graph", "partition", `an integer in [0, ${MAX_PARTITIONS - 1}]`, partition);
}
