/**
 * Which nodes stay cut off when the faults of a run are over, until the others have converged without them.
 *
 * Invariant: they are fewer than acknowledge a write and fewer than half, and every node that has lost its memory and may not have it back yet is
 * among them: so every vshard keeps a majority of its copies, each with what it acknowledged. There are none where that cannot be.
 */
import type { Random } from "../runtime/random.ts";
import { memoryBackAtMs } from "./fault-plan.ts";
import type { Fault, FaultKind, TimedFault } from "./fault-types.ts";
import type { FaultShape } from "./faults.ts";

/** What may end a node's memory. */
const FORGETS: readonly FaultKind[] = ["crash", "node-kill"];
/** What a worker takes to start again and to be brought level, unless it is hindered. */
const WORKER_RECOVERY_MS = 2_000;

/** What is chosen from. */
export interface MinorityOptions {
  /** All nodes, and when a worker of each died last; -Infinity when none did. Times are in ms since the workload began. */
  readonly nodes: readonly { readonly name: string; readonly workerDiedAtMs: number }[];
  /** Every fault that hit. */
  readonly faults: readonly Fault[];
  readonly shape: Pick<FaultShape, "acks" | "recoveryMs" | "survives">;
  readonly nowMs: number;
  readonly random: Pick<Random, "float">;
}

/** @returns names, in the order of the nodes from the first that is drawn */
export function drawMinority({ nodes, faults, shape, nowMs, random }: MinorityOptions): readonly string[] {
  const most = Math.min(Math.floor((nodes.length - 1) / 2), shape.acks - 1);
  const first = Math.floor(random.float() * nodes.length);
  const names = nodes.map((_, at) => (nodes[(first + at) % nodes.length] as { name: string }).name);
  const forgetful = forgetfulNodes({ nodes, faults, shape, nowMs });
  if (most < 1 || forgetful.size > most) return [];
  const others = names.filter((name) => !forgetful.has(name)).slice(0, most - forgetful.size);
  return names.filter((name) => forgetful.has(name) || others.includes(name));
}

/** Those that have lost memory, and may not have it back from the copies yet. */
function forgetfulNodes({ nodes, faults, shape, nowMs }: Omit<MinorityOptions, "random">): ReadonlySet<string> {
  const { recoveryMs, survives } = shape;
  const forgets = FORGETS.filter((kind) => !survives.includes(kind));
  const crashed = faults
    .filter((fault): fault is TimedFault => forgets.includes(fault.kind))
    .filter((fault) => memoryBackAtMs(fault, faults, recoveryMs) > nowMs)
    .map(({ targets }) => targets[0] as string);
  // A worker that dies leaves what a killed process leaves.
  if (survives.includes("node-kill")) return new Set(crashed);
  const bereft = nodes.filter(
    ({ workerDiedAtMs: atMs }) =>
      Number.isFinite(atMs) && memoryBackAtMs({ atMs, durationMs: 0 }, faults, WORKER_RECOVERY_MS) > nowMs,
  );
  return new Set([...crashed, ...bereft.map(({ name }) => name)]);
}
