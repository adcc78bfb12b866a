/**
 * The memory of one cluster: the arena that all its threads share, and what the main thread uses it with.
 *
 * Invariant: one arena for the cluster's life, whatever becomes of its workers; regions that the main thread registers have an owner of their own.
 */
import { Arena, createArena } from "../native-bridge/arena.ts";
import { compileKernels, type KernelBuild, Kernels } from "../native-bridge/kernels.ts";
import { RegionTable } from "../native-bridge/region-table.ts";
import type { Runtime } from "./runtime/runtime.ts";

/** Owner number of regions that the main thread registers. */
const MAIN_OWNER = 0xffff;

export interface ClusterMemory {
  /** As other threads get it. */
  readonly shared: WebAssembly.Memory;
  /** Kernels, as other threads get them. */
  readonly compiled: WebAssembly.Module;
  readonly arena: Arena;
  readonly kernels: Kernels;
  readonly regions: RegionTable;
}

export function createClusterMemory(
  capacityBytes: number,
  { clock, random }: Runtime,
  build?: KernelBuild,
): ClusterMemory {
  const shared = createArena({ capacityBytes });
  const compiled = compileKernels(build);
  const arena = new Arena(shared);
  const regions = new RegionTable(
    arena,
    MAIN_OWNER,
    () => random.u32(),
    () => clock.nowMs(),
  );
  return { shared, compiled, arena, kernels: new Kernels(compiled, arena, undefined, MAIN_OWNER), regions };
}
