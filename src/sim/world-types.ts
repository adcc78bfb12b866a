/**
 * What users ask of a simulated world, and what a run of it tells.
 *
 * Invariant: everything here is plain data, as it crosses from the caller's thread to the world's and back. A run follows from its seed, its
 * options, its operations and its faults; those of a result, given to another run as `replay`, give the same trace hash.
 */
import type { Consistency } from "../routing/plan.ts";
import { DURABILITIES, type Durability } from "../store/log.ts";
import type { Fault, FaultKind, FaultsOption } from "./fault-types.ts";
import type { HistoryEntry, Violation } from "./history-types.ts";
import type { Operation } from "./workload-types.ts";

/** What nodes keep on their simulated disks: nothing, or all data, so that an acknowledged write survives what {@link Durability} says. */
export type WorldDurability = "none" | Durability;
export const WORLD_DURABILITIES: readonly WorldDurability[] = ["none", ...DURABILITIES];

/** What heals at first when the faults of a run are over. */
export type WorldHeal = "all" | "majority";
export const WORLD_HEALS: readonly WorldHeal[] = ["all", "majority"];

/** What a world is made of. */
export interface WorldOptions {
  /** Decides everything that is left to chance: any integer in `[0, 2^32)`. @default 1 */
  readonly seed?: number;
  /** Nodes, each with a control plane, shards, memory and a clock of its own: `1..32`. @default 5 */
  readonly nodes?: number;
  /** Worker threads of each node: `1..16`. @default 1 */
  readonly shardsPerNode?: number;
  /** Copies of every vshard, on different nodes while there are enough: `1..nodes * shardsPerNode`, at most 16. @default 3, or fewer where there are fewer shards */
  readonly replicationFactor?: number;
  /** Which copies answer reads that do not say. @default "strong" */
  readonly consistency?: Consistency;
  /** Virtual shards of the cluster: a power of two, at least one for each shard. @default 16, or more where there are more shards */
  readonly vshards?: number;
  /** Shared memory of each node in bytes: a multiple of 65536, `1 MiB..1 GiB`. @default 32 MiB */
  readonly memoryBytes?: number;
  /** Deadline of requests that name none, in simulated ms: `1..600000`. @default 5000 */
  readonly requestTimeoutMs?: number;
  /** Whether nodes keep their data on their simulated disks, and what an acknowledged write survives then. @default "none" */
  readonly durability?: WorldDurability;
  /** Whether the stand-in for NATS grants leases, so that others take over what a lost node is primary of. @default false */
  readonly leases?: boolean;
  /**
   * What heals when the faults are over: everything at once, or at first all but a few nodes (fewer than acknowledge a write), which stay cut off until the
   * others have converged, and with leases have taken over what those are primary of. @default "all"
   */
  readonly heal?: WorldHeal;
  /** What goes wrong. @default "none" */
  readonly faults?: FaultsOption;
  /** Simulated time that the workload fills, in ms: `1..86400000`. @default 60000 */
  readonly durationMs?: number;
  /** The same in minutes; give one of the two. */
  readonly minutes?: number;
  /** Real time after which a run is given up with `ERR_TIMEOUT`, in ms: `1..86400000`. @default 600000 */
  readonly wallLimitMs?: number;
  /** Whether results carry the recorded trace: `true` for the last 100,000 events, or how many: `1..1000000`. @default false */
  readonly keepTrace?: boolean | number;
}

/** {@link WorldOptions} with every default filled in. */
export interface ResolvedWorldOptions {
  readonly seed: number;
  readonly nodes: number;
  readonly shardsPerNode: number;
  readonly replicationFactor: number;
  readonly consistency: Consistency;
  readonly vshards: number;
  readonly memoryBytes: number;
  readonly requestTimeoutMs: number;
  readonly durability: WorldDurability;
  readonly leases: boolean;
  readonly heal: WorldHeal;
  readonly faults: FaultsOption;
  readonly durationMs: number;
  readonly wallLimitMs: number;
  /** Events kept; 0 for none. */
  readonly keepTrace: number;
}

/** Exactly what happens, instead of what the seed would draw: how shrinking and repeats ask. */
export interface ReplayPlan {
  /** @default what the workload generates */
  readonly operations?: readonly Operation[];
  /** @default what the injector draws */
  readonly faults?: readonly Fault[];
}

/** How far a run is. */
export interface RunProgress {
  readonly phase: "start" | "workload" | "quiet" | "check";
  /** Simulated and to be simulated, in ms. */
  readonly simulatedMs: number;
  readonly totalMs: number;
  readonly events: number;
  readonly faults: number;
  readonly operations: number;
  readonly wallMs: number;
}

/** One run of a workload. */
export interface RunOptions {
  /** Ends the run with `ERR_ABORTED`. */
  readonly signal?: AbortSignal;
  /** Called some times a second. */
  readonly onProgress?: (progress: RunProgress) => void;
  /** For this run only. @default the world's */
  readonly seed?: number;
  readonly replay?: ReplayPlan;
}

/** One event of the recorded trace. */
export interface TraceEvent {
  /** World time in µs. */
  readonly timeUs: number;
  /** What: "frame", "wake", "timer", "fault", "operation", ... */
  readonly kind: string;
  /** Where: "n0", "n0/w1", "n0>n2". */
  readonly where: string;
  readonly detail?: string | number;
}

/** An attempt to leave the world: a call to real time, chance or I/O, which was refused. */
export interface Escape {
  /** What was called: "Date.now", "fs.readFileSync". */
  readonly call: string;
  /** First frame outside of the simulator: "file:///.../x.js:12:3", or "" when there is none. */
  readonly site: string;
  readonly timeUs: number;
}

/** What one node did in a run. */
export interface NodeStats {
  readonly name: string;
  readonly events: number;
  readonly starts: number;
  readonly crashes: number;
  readonly workerDeaths: number;
  readonly operations: number;
  /** Whether it was lost for good. */
  readonly lost: boolean;
}

/** What a run found. Plain data. */
export interface RunResult {
  readonly seed: number;
  /** 16 hexadecimal digits over every event of the run. */
  readonly traceHash: string;
  readonly events: number;
  readonly simulatedMs: number;
  readonly wallMs: number;
  readonly history: readonly HistoryEntry[];
  /** What the processes were to run: what was given, or generated. What a process had no time or no node for was not begun. */
  readonly operations: readonly Operation[];
  /** Every fault that hit, in order. */
  readonly faults: readonly Fault[];
  readonly faultsByKind: Readonly<Partial<Record<FaultKind, number>>>;
  readonly verdict: "passed" | "failed";
  /** Of the workload's check, the built-in invariants, the quiet phase, and one for each escape. */
  readonly violations: readonly Violation[];
  readonly escapes: readonly Escape[];
  readonly nodes: readonly NodeStats[];
  /** The last events, when `keepTrace` asked for them; else empty. */
  readonly trace: readonly TraceEvent[];
}
