/**
 * The worlds in which planted defects are looked for: a workload, its load, and what goes wrong.
 *
 * Invariant: production breaks no rule in any of them. Mutants share them, so that production's own check of a scene counts for all.
 */
import type { Fault, FaultKind } from "../../../src/sim/fault-types.ts";
import type { WorldOptions } from "../../../src/sim/world-types.ts";
import {
  adopted,
  answeredLate,
  asleep,
  cutOffAndCrashed,
  heardByTheWrongOne,
  hoursApart,
  keptInMemory,
  outages,
  overtaken,
  shortLives,
  stoodStill,
  takenAndGivenBack,
  tornTails,
} from "./scene-scripts.ts";

/** What a world is made with, besides its seed, and what runs in it. */
export interface Scene {
  /** Compiled module of the workload, below the program, and its exported maker of references. */
  readonly module: string;
  readonly export: string;
  readonly options: object;
  readonly world: Omit<WorldOptions, "faults"> & {
    /** Rates by kind, as `faults` takes them. */
    readonly faults: Readonly<Partial<Record<FaultKind, number>>> | "none";
  };
  /** Exactly these faults, instead of any that are drawn. */
  readonly script?: readonly Fault[];
}

const register = { module: "src/sim/workloads/register-workload", export: "registerWorkload" };
const actors = { module: "src/sim/workloads/actor-workload", export: "actorWorkload" };
const search = { module: "src/sim/workloads/search-workload", export: "searchWorkload" };
const log = { module: "src/sim/workloads/log-workload", export: "logWorkload" };
const graph = { module: "src/sim/workloads/graph-workload", export: "graphWorkload" };
const barrier = { module: "src/sim/workloads/barrier-workload", export: "barrierWorkload" };

/** Three nodes, each with a copy of everything. */
const THREE = { nodes: 3, vshards: 16 } as const;
/** A graph lies in one node's memory. */
const SHARDS = { nodes: 1, shardsPerNode: 3, replicationFactor: 1, vshards: 8 } as const;

/** By name. */
export const SCENES = {
  calm: {
    ...register,
    options: { clients: 6, keys: 3, perSecond: 5 },
    world: { ...THREE, durationMs: 10_000, faults: "none" },
  },
  lags: {
    ...register,
    options: { clients: 6, keys: 3, perSecond: 6 },
    world: { ...THREE, durationMs: 20_000, faults: { delay: 0.1, drop: 0.1, clog: 20 } },
  },
  cuts: {
    ...register,
    options: { clients: 6, keys: 3, perSecond: 4, writes: 0.6, timeoutMs: 1500 },
    world: { ...THREE, durationMs: 30_000, faults: { partition: 10, crash: 20, clog: 20 } },
  },
  isolated: {
    ...register,
    options: { clients: 30, keys: 10, perSecond: 10, writes: 0.5, timeoutMs: 150 },
    world: { ...THREE, durationMs: 6_000, faults: "none" },
    script: cutOffAndCrashed(),
  },
  misled: {
    ...register,
    options: { clients: 12, keys: 12, perSecond: 8, writes: 0.5, timeoutMs: 1_500 },
    world: { ...THREE, durationMs: 30_000, faults: "none" },
    script: heardByTheWrongOne(),
  },
  clogged: {
    ...register,
    options: { clients: 12, keys: 4, perSecond: 4 },
    world: { ...THREE, durationMs: 40_000, faults: { clog: 140, crash: 90 } },
  },
  overtaken: {
    ...register,
    options: { clients: 12, keys: 24, perSecond: 8, writes: 0.3, timeoutMs: 1_500 },
    world: { ...THREE, leases: true, durationMs: 12_000, faults: "none" },
    script: overtaken(),
  },
  sleeper: {
    ...register,
    options: { clients: 30, keys: 12, perSecond: 5, writes: 0.3, timeoutMs: 250 },
    world: { ...THREE, leases: true, durationMs: 5_000, faults: "none" },
    script: asleep(),
  },
  awakened: {
    ...register,
    options: { clients: 36, keys: 24, perSecond: 12, writes: 0.5, timeoutMs: 5_000 },
    world: { ...THREE, leases: true, durationMs: 10_000, faults: "none" },
    script: stoodStill(),
  },
  "late-answers": {
    ...register,
    options: { clients: 36, keys: 24, perSecond: 12, writes: 0.5, timeoutMs: 5_000 },
    world: { ...THREE, leases: true, durationMs: 10_000, faults: "none" },
    script: answeredLate(),
  },
  breaks: {
    ...register,
    options: { clients: 6, keys: 6, perSecond: 8 },
    world: { ...THREE, durationMs: 20_000, faults: { corrupt: 0.01, "worker-crash": 20, delay: 0.3 } },
  },
  sessions: {
    ...register,
    options: { clients: 6, keys: 12, perSecond: 5, consistency: "session" },
    world: { ...THREE, durationMs: 20_000, faults: { partition: 8, clog: 60, delay: 0.1, drop: 0.1 } },
  },
  revived: {
    ...register,
    options: { clients: 6, keys: 12, perSecond: 6, consistency: "session" },
    world: { ...THREE, durationMs: 20_000, faults: { clog: 80, "worker-crash": 30 } },
  },
  stale: {
    ...register,
    options: {
      clients: 36,
      keys: 48,
      perSecond: 20,
      writes: 0.17,
      acks: "one",
      consistency: "bounded-staleness",
      maxStalenessMs: 60,
    },
    // A vshard is to be written now and then only: a copy must be level when its primary is looked at, and not long after.
    world: { ...THREE, vshards: 64, durationMs: 20_000, faults: { delay: 1 } },
  },
  bounded: {
    ...register,
    options: { clients: 6, keys: 12, perSecond: 5, consistency: "bounded-staleness", maxStalenessMs: 500 },
    world: { ...THREE, durationMs: 20_000, faults: { partition: 8, clog: 20, delay: 0.1, drop: 0.1, pause: 10 } },
  },
  refilled: {
    ...register,
    options: { clients: 12, keys: 24, perSecond: 10, consistency: "bounded-staleness", maxStalenessMs: 300 },
    world: { ...THREE, durationMs: 30_000, faults: { crash: 60, clog: 60, delay: 0.2 } },
  },
  minority: {
    ...register,
    options: { clients: 6, keys: 6, perSecond: 5 },
    world: { ...THREE, leases: true, heal: "majority", durationMs: 4_000, faults: "none" },
  },
  clocks: {
    ...register,
    options: { clients: 6, keys: 6, perSecond: 5 },
    world: { ...THREE, durationMs: 10_000, faults: "none" },
    script: hoursApart(),
  },
  impatient: {
    ...register,
    options: { clients: 6, keys: 6, perSecond: 8, timeoutMs: 60 },
    world: { ...THREE, durationMs: 15_000, faults: { delay: 0.1, drop: 0.05, clog: 20 } },
  },
  patient: {
    ...register,
    options: { clients: 6, keys: 6, perSecond: 5, timeoutMs: 600_000 },
    world: { ...THREE, durationMs: 15_000, faults: { "worker-crash": 20, corrupt: 0.01, delay: 0.5 } },
  },
  torn: {
    ...register,
    options: { clients: 6, keys: 6, perSecond: 5 },
    world: { ...THREE, durationMs: 15_000, faults: { "region-torn": 30 } },
  },
  finds: {
    ...search,
    options: { clients: 6, documents: 18, perSecond: 3 },
    world: { ...THREE, durationMs: 10_000, faults: "none" },
  },
  late: {
    ...search,
    options: { clients: 6, documents: 18, perSecond: 4 },
    world: { ...THREE, durationMs: 15_000, faults: { delay: 0.1, drop: 0.1, clog: 20 } },
  },
  relapses: {
    ...search,
    options: { clients: 6, documents: 18, perSecond: 4 },
    world: { ...THREE, durationMs: 30_000, faults: { clog: 140, crash: 90 } },
  },
  losses: {
    ...search,
    options: { clients: 6, documents: 18, perSecond: 3 },
    world: { ...THREE, durationMs: 30_000, faults: { crash: 12, partition: 8, clog: 8 } },
  },
  notes: {
    ...actors,
    options: { clients: 6, perSecond: 5 },
    world: { ...THREE, durationMs: 30_000, faults: { partition: 12, clog: 12, pause: 12 } },
  },
  tenures: {
    ...actors,
    options: { clients: 6, actors: 6, perSecond: 5 },
    world: { ...THREE, leases: true, durationMs: 25_000, faults: "none" },
    script: takenAndGivenBack(),
  },
  seen: {
    ...register,
    options: { clients: 18, keys: 36, perSecond: 10, writes: 0.4, timeoutMs: 100, consistency: "session" },
    world: { ...THREE, durationMs: 12_000, faults: { clog: 120, delay: 0.2, drop: 0.1 } },
  },
  "seen-alone": {
    ...register,
    options: { clients: 18, keys: 36, perSecond: 10, writes: 0.5, timeoutMs: 150, consistency: "session" },
    world: { ...THREE, durationMs: 6_000, faults: "none" },
    script: cutOffAndCrashed(),
  },
  ticks: {
    ...barrier,
    options: { clients: 6, perSecond: 2 },
    world: { ...THREE, durationMs: 15_000, faults: "none" },
  },
  latecomers: {
    ...barrier,
    options: { clients: 6, perSecond: 4, timeoutMs: 400 },
    world: { ...THREE, durationMs: 90_000, faults: { clog: 60, delay: 0.3 } },
  },
  outages: {
    ...register,
    options: { clients: 12, keys: 24, perSecond: 8, writes: 0.6, timeoutMs: 1_500 },
    world: { nodes: 3, vshards: 4, durability: "fsync", durationMs: 5_000, faults: "none" },
    script: outages(),
  },
  unkept: {
    ...register,
    options: { clients: 6, keys: 3, perSecond: 6, timeoutMs: 1_500 },
    world: { nodes: 3, vshards: 4, durability: "fsync", durationMs: 5_000, faults: "none" },
    script: keptInMemory(),
  },
  alone: {
    ...register,
    options: { clients: 16, keys: 24, perSecond: 12, writes: 0.5, timeoutMs: 1_500 },
    world: {
      nodes: 1,
      vshards: 4,
      durability: "fsync",
      durationMs: 8_000,
      faults: {
        crash: 60,
        "worker-crash": 20,
        "worker-io-crash": 0.004,
        "disk-slow": 60,
        "disk-lost-write": 0.15,
        "disk-torn": 1,
      },
    },
  },
  "torn-tails": {
    ...register,
    options: { clients: 24, keys: 24, perSecond: 16, writes: 0.7, timeoutMs: 1_500 },
    world: { nodes: 1, vshards: 4, durability: "fsync", durationMs: 8_000, faults: "none" },
    script: tornTails(),
  },
  adopted: {
    ...register,
    options: { clients: 24, keys: 48, perSecond: 10, writes: 0.3, timeoutMs: 1_500 },
    world: { nodes: 1, vshards: 4, durability: "fsync", durationMs: 10_000, faults: "none" },
    script: adopted(),
  },
  "short-lives": {
    ...register,
    options: { clients: 6, keys: 24, perSecond: 6, writes: 0.4, timeoutMs: 1_500 },
    world: { nodes: 1, vshards: 4, durability: "fsync", durationMs: 6_000, faults: "none" },
    script: shortLives(),
  },
  logs: {
    ...log,
    options: { processesPerNode: 6, ratePerSecond: 10 },
    world: {
      nodes: 5,
      vshards: 8,
      replicationFactor: 5,
      durationMs: 22_000,
      faults: { crash: 200, "disk-slow": 300, "disk-lost-write": 0.1, "disk-torn": 1, "disk-sync-failed": 0.003 },
    },
  },
  failing: {
    ...log,
    options: { processesPerNode: 6, ratePerSecond: 10 },
    world: {
      nodes: 5,
      vshards: 8,
      replicationFactor: 5,
      durationMs: 12_000,
      faults: { crash: 200, "disk-slow": 100, "disk-lost-write": 0.5, "disk-sync-failed": 0.1 },
    },
  },
  graphs: {
    ...graph,
    options: { clients: 6, perSecond: 4, changes: 0.35 },
    world: { ...SHARDS, durationMs: 2_000, faults: "none" },
  },
  "graph-losses": {
    ...graph,
    options: { clients: 6, perSecond: 10, changes: 0.2 },
    // Who sleeps through a wake is in the middle of a superstep for long, and workers die there too.
    world: { ...SHARDS, durationMs: 4_000, faults: { "worker-crash": 300, "wake-dropped": 0.002 } },
  },
} as const satisfies Readonly<Record<string, Scene>>;

export type SceneName = keyof typeof SCENES;
