/**
 * The command line that repeats a run: `npx shardloom sim --seed 7 ...`.
 *
 * Invariant: every option of a world that changes what happens is on the line when it was given; a shell takes the line as it is.
 */
import { BUILT_IN_WORKLOADS } from "./built-in-workloads.ts";
import type { FaultsOption } from "./fault-types.ts";
import type { WorkloadRef } from "./workload-types.ts";
import type { WorldOptions } from "./world-types.ts";

/** The command that repeats a run of a workload in a world. */
export function repeatCommand(world: WorldOptions, workload: WorkloadRef): string {
  const { durationMs, minutes = durationMs === undefined ? undefined : durationMs / 60_000, memoryBytes } = world;
  const values: Readonly<Record<string, string | number | undefined>> = {
    seed: world.seed ?? 1,
    nodes: world.nodes,
    "shards-per-node": world.shardsPerNode,
    "replication-factor": world.replicationFactor,
    consistency: world.consistency,
    vshards: world.vshards,
    "memory-kb": memoryBytes === undefined ? undefined : memoryBytes / 1024,
    "request-timeout-ms": world.requestTimeoutMs,
    durability: world.durability,
    heal: world.heal,
    leases: world.leases === true ? "" : undefined, // a flag
    minutes,
    faults: faultsText(world.faults ?? "none"), // the command's own default is another
    workload: workloadText(workload),
    "workload-options": hasOptions(workload) ? JSON.stringify(workload.options) : undefined,
  };
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  return [
    "npx shardloom sim",
    ...given.map(([name, value]) => (value === "" ? `--${name}` : `--${name} ${quoted(String(value))}`)),
  ].join(" ");
}

function workloadText({ module, export: exported }: WorkloadRef): string {
  const known = Object.entries(BUILT_IN_WORKLOADS).find(
    ([, other]) => other.module === module && other.export === exported,
  );
  return known?.[0] ?? `${module}#${exported}`;
}

function hasOptions({ options }: WorkloadRef): boolean {
  return options !== undefined && JSON.stringify(options) !== "{}";
}

/** As `--faults` takes it: `all`, `drop,crash` or `drop:0.1,crash:2`. */
export function faultsText(faults: FaultsOption): string {
  if (typeof faults === "string") return faults;
  if (Array.isArray(faults)) return faults.join(",") || "none";
  return (
    Object.entries(faults)
      .map(([kind, rate]) => `${kind}:${rate}`)
      .join(",") || "none"
  );
}

/** One word of a POSIX shell. */
export function quoted(word: string): string {
  return /^[\w@%+=:,./-][\w@%+=:,./#-]*$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
