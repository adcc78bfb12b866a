/**
 * Options of a cluster: meaning, unit, range and default of each, filled and checked in one place.
 */
import { availableParallelism } from "node:os";
import { acksOf } from "../actors/call-options.ts";
import type { AdmissionLimits } from "./client-thread.ts";
import { type NatsStorage, resolveNatsStorage } from "./cluster-nats-options.ts";
import type { NodeOptions } from "./cluster-wire.ts";
import { invalidArgument } from "./errors.ts";
import type { Acks, CallDefaults } from "./routing/call-defaults.ts";
import { CONSISTENCIES, type Consistency, STRATEGIES, type Strategy } from "./routing/plan.ts";
import { DURABILITIES, type Durability } from "./store/log.ts";
import type { NatsPlace } from "./store/nats-shard.ts";
import { checkWeight } from "./topology/weight.ts";

/** What `Cluster.start` takes; every member is optional. */
export interface ClusterOptions {
  /** Data-plane threads, each hosting one shard actor, `1..256`. @default cores - 1, at least 2 */
  readonly workers?: number;
  /** Virtual shards: the unit of placement. A power of two, at least `workers`, at most 32768. @default 64 */
  readonly vshards?: number;
  /**
   * Modules whose exports made with `defineActor` every worker hosts. Each must resolve to compiled JavaScript.
   * @default none
   */
  readonly actors?: readonly URL[];
  /**
   * Shared memory reserved for regions, in bytes: a multiple of 64 KiB, 1 MiB to 4 GiB. Pages are committed when they are
   * first touched, so a large value costs address space only. At the limit, writes fail with `ERR_OUT_OF_MEMORY`.
   * @default 1 GiB
   */
  readonly memoryBytes?: number;
  /** Deadline of calls that give none, in ms. @default 5000 */
  readonly requestTimeoutMs?: number;
  /** How long JavaScript may hold a worker's thread before the worker is replaced, in ms, `10..600000`. @default 1000 */
  readonly maxHandlerMs?: number;
  /** How long one native call may take before its thread is quarantined, in ms, `10..86400000`. @default 30000 */
  readonly maxNativeMs?: number;
  /** How long a worker may take to load its modules and recover, and how long the start before that waits for servers of NATS, in ms. @default 30000 */
  readonly startTimeoutMs?: number;
  /** Bytes of each request ring from a client to a worker; a power of two, 16 KiB to 1 GiB. @default 4 MiB */
  readonly requestRingBytes?: number;
  /** Bytes of each reply ring from a worker to a client; a power of two, 16 KiB to 1 GiB. @default 4 MiB */
  readonly replyRingBytes?: number;
  /**
   * Bytes of each ring between two workers; a power of two, 16 KiB to 1 GiB. With replicas a document must fit a message between
   * workers too. @default 256 KiB, with replicas `requestRingBytes`
   */
  readonly meshRingBytes?: number;
  /** Requests that may be unanswered between two threads, `1..4096`. More wait for credit. @default 1024 */
  readonly creditMessages?: number;
  /** Longest spin for a reply or a request before a thread parks, in microseconds; 0 never spins. @default 50 */
  readonly spinLimitUs?: number;
  /**
   * How far workers step back behind the event loop (and every other thread of the machine) when cores are short: added to
   * the nice value of their threads, `0..19`. On Linux; elsewhere it does nothing. A server that embeds a cluster and
   * must answer promptly takes 5. @default 0
   */
  readonly workerNice?: number;
  /** V8 old-space limit of each worker, in MiB. @default V8's own */
  readonly maxHeapMb?: number;
  /**
   * Copies of every vshard, all counted, each on another worker: `1..16`, at most `workers`. Reads may be spread over them, see
   * `consistency`; a worker that dies leaves the others to answer. Memory grows with it. @default 1
   */
  readonly replicationFactor?: number;
  /** Which copies answer reads that do not say. @default "strong", the primary only */
  readonly consistency?: Consistency;
  /** Which of the copies that may answer is asked by reads that do not say. @default "power-of-two" */
  readonly strategy?: Strategy;
  /** How many copies must have applied a write that does not say, before it is acknowledged. @default "quorum" */
  readonly acks?: Acks;
  /** A worker silent in JavaScript for so long is suspect: other copies are preferred to it. In ms, `100..60000`. @default 600 */
  readonly suspectMs?: number;
  /** And after so long it is down until it moves again; above `suspectMs`. @default 1200 */
  readonly downMs?: number;
  /**
   * How much one client thread may have in flight and waiting, and how tenants share it: beyond that calls fail at once with
   * `ERR_OVERLOADED`. @default see `AdmissionLimits`
   */
  readonly admission?: AdmissionLimits;
  /**
   * Directory in which vectors and texts are kept, made when it is missing; a cluster that is started on it later has them all again. Graphs,
   * states of actors and barriers are not kept. One process at a time. @default none: everything ends with the process
   */
  readonly directory?: string;
  /**
   * NATS with JetStream, which keeps everything that is written instead of a directory: a cluster that is started elsewhere with the same option has it
   * all again. One process at a time; after a crash the next one waits until the lease of the last is over, see `leaseMs`. @default none
   */
  readonly nats?: NatsStorage;
  /**
   * What an acknowledged write survives: the loss of power (`fsync`), the death of the process (`os`), the death of its worker (`memory`:
   * it is on disk a little later). Needs `directory`. @default "fsync" with a directory or `nats`, which has nothing else
   */
  readonly durability?: Durability;
  /**
   * Whether a thread of its own keeps every document in LMDB besides, from which a shard starts whose snapshots are damaged. Not with
   * `durability: "memory"`. @default true with a directory
   */
  readonly documents?: boolean;
  /** Bytes of log of one shard after which it takes a new snapshot, and forgets the log before it; `4 KiB..64 GiB`. @default 64 MiB */
  readonly snapshotBytes?: number;
  /** Bytes a second that the snapshots of one shard may write; `64 KiB..4 GiB`. @default 32 MiB */
  readonly snapshotBytesPerSecond?: number;
  /** How long a primary may go on serving strong reads and writes without hearing from who grants leases, in ms, `100..60000`. @default 1000 */
  readonly leaseMs?: number;
  /** This process as one node of several over the network. @default it is the only one */
  readonly node?: NodeOptions;
  /** Zone of each worker, by name: copies of a vshard go to different zones while there are enough. @default one zone */
  readonly zones?: readonly string[];
  /** Share of the vshards that each worker gets, relative to the others: above 0, at most 100. Not where something is kept. @default equal shares */
  readonly weights?: readonly number[];
}

/** {@link ClusterOptions} with every default filled in. */
export type ResolvedClusterOptions = Required<Omit<ClusterOptions, "maxHeapMb" | "directory" | "nats" | "node">> &
  Pick<ClusterOptions, "maxHeapMb" | "directory"> & { readonly nats?: NatsPlace };

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;
export const START_TIMEOUT_MS = 30_000;

/**
 * Fills defaults and checks ranges and relations.
 *
 * @param shards In a cluster of several nodes: how many shards this node has, and all of them.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming option, rule and value.
 */
export function resolveClusterOptions(
  options: ClusterOptions = {},
  shards?: { readonly own: number; readonly all: number },
): ResolvedClusterOptions {
  const workers = options.workers ?? shards?.own ?? Math.max(2, availableParallelism() - 1);
  const all = shards?.all ?? workers;
  const resolved: ResolvedClusterOptions = {
    workers,
    vshards: options.vshards ?? Math.max(64, ceilPowerOfTwo(all)),
    actors: options.actors ?? [],
    memoryBytes: options.memoryBytes ?? GIB,
    requestTimeoutMs: options.requestTimeoutMs ?? 5_000,
    maxHandlerMs: options.maxHandlerMs ?? 1_000,
    maxNativeMs: options.maxNativeMs ?? 30_000,
    startTimeoutMs: options.startTimeoutMs ?? START_TIMEOUT_MS,
    requestRingBytes: options.requestRingBytes ?? 4 * MIB,
    replyRingBytes: options.replyRingBytes ?? 4 * MIB,
    meshRingBytes: options.meshRingBytes ?? defaultMeshRingBytes(options),
    creditMessages: options.creditMessages ?? 1024,
    spinLimitUs: options.spinLimitUs ?? 50,
    workerNice: options.workerNice ?? 0,
    replicationFactor: options.replicationFactor ?? 1,
    consistency: options.consistency ?? "strong",
    strategy: options.strategy ?? "power-of-two",
    acks: options.acks ?? "quorum",
    admission: options.admission ?? {},
    suspectMs: options.suspectMs ?? 600,
    durability: options.durability ?? (isKept(options) ? "fsync" : "memory"),
    documents: options.documents ?? options.directory !== undefined,
    snapshotBytes: options.snapshotBytes ?? 64 * MIB,
    snapshotBytesPerSecond: options.snapshotBytesPerSecond ?? 32 * MIB,
    leaseMs: options.leaseMs ?? 1_000,
    downMs: options.downMs ?? Math.max(1_200, 2 * (options.suspectMs ?? 600)),
    zones: options.zones ?? new Array<string>(workers).fill("zone-0"),
    weights: options.weights ?? new Array<number>(workers).fill(1),
    ...(options.maxHeapMb === undefined ? {} : { maxHeapMb: options.maxHeapMb }),
    ...(options.directory === undefined ? {} : { directory: options.directory }),
    ...(options.nats === undefined ? {} : { nats: resolveNatsStorage(options.nats, options.node?.cluster) }),
  };
  refuseUnknown(options, resolved);
  integer(resolved, "workers", shards?.own ?? 1, shards?.own ?? 256);
  powerOfTwo(resolved, "vshards", all, 32_768);
  integer(resolved, "memoryBytes", MIB, 4 * GIB);
  if (resolved.memoryBytes % (64 * KIB) !== 0) throw refuse("memoryBytes", "a multiple of 65536", resolved.memoryBytes);
  integer(resolved, "requestTimeoutMs", 1, 2 ** 31 - 1);
  integer(resolved, "maxHandlerMs", 10, 600_000);
  integer(resolved, "maxNativeMs", 10, 86_400_000);
  integer(resolved, "startTimeoutMs", 100, 86_400_000);
  checkRings(resolved);
  integer(resolved, "spinLimitUs", 0, 10_000);
  integer(resolved, "workerNice", 0, 19);
  integer(resolved, "replicationFactor", 1, Math.min(all, 16));
  oneOf(resolved, "consistency", CONSISTENCIES);
  if (resolved.consistency === "session")
    throw refuse("consistency", "one that needs no session of its own: give a session to each call instead", "session");
  oneOf(resolved, "strategy", STRATEGIES);
  acksOf(resolved.acks, resolved.replicationFactor);
  if (typeof resolved.admission !== "object") throw refuse("admission", "an object of limits", resolved.admission);
  integer(resolved, "suspectMs", 100, 60_000);
  integer(resolved, "downMs", resolved.suspectMs + 1, 600_000);
  checkStorage(options, resolved);
  integer(resolved, "leaseMs", 100, 60_000);
  checkPlacing(options, resolved, shards !== undefined);
  if (resolved.maxHeapMb !== undefined) integer({ maxHeapMb: resolved.maxHeapMb }, "maxHeapMb", 16, 1_048_576);
  if (!Array.isArray(resolved.actors) || !resolved.actors.every((url) => url instanceof URL)) {
    throw refuse("actors", "an array of URL objects", resolved.actors);
  }
  return resolved;
}

function checkRings(resolved: ResolvedClusterOptions): void {
  powerOfTwo(resolved, "requestRingBytes", 16 * KIB, GIB);
  powerOfTwo(resolved, "replyRingBytes", 16 * KIB, GIB);
  // A request may list every vshard with an LSN, and must have room for its body beside that: a message is a quarter of its ring.
  const leastRingBytes = 4 * (12 * resolved.vshards + 2 * KIB);
  if (resolved.requestRingBytes < leastRingBytes)
    throw refuse(
      "requestRingBytes",
      `at least ${leastRingBytes} for ${resolved.vshards} vshards`,
      resolved.requestRingBytes,
    );
  powerOfTwo(resolved, "meshRingBytes", 16 * KIB, GIB);
  integer(resolved, "creditMessages", 1, 4096);
}

/** What decides where vshards go. */
function checkPlacing(options: ClusterOptions, resolved: ResolvedClusterOptions, hasNodes: boolean): void {
  const { workers, zones, weights } = resolved;
  if (hasNodes && options.zones !== undefined)
    throw refuse("zones", "absent, as the zones of several nodes are the nodes'", options.zones);
  if (!Array.isArray(zones) || zones.length !== workers || !zones.every(isName))
    throw refuse("zones", `an array of ${workers} names, one for each worker`, zones);
  if (options.weights === undefined) return;
  if (hasNodes) throw refuse("weights", "absent, as all shards of several nodes weigh the same", weights);
  if (isKept(options))
    throw refuse("weights", "absent where shards are kept: with others each would be in another place", weights);
  if (!Array.isArray(weights) || weights.length !== workers)
    throw refuse("weights", `an array of ${workers} numbers, one for each worker`, weights);
  for (const [shard, weight] of weights.entries()) checkWeight("start cluster", `weights[${shard}]`, weight);
}

function checkStorage(options: ClusterOptions, resolved: ResolvedClusterOptions): void {
  if (resolved.directory !== undefined && !isName(resolved.directory))
    throw refuse("directory", "the path of a directory", resolved.directory);
  if (resolved.directory !== undefined && resolved.nats !== undefined)
    throw refuse("directory", "absent where nats keeps everything", resolved.directory);
  oneOf(resolved, "durability", DURABILITIES);
  if (resolved.nats !== undefined && resolved.durability !== "fsync")
    throw refuse("durability", '"fsync" with nats: what is acknowledged is in its stream', resolved.durability);
  if (!isKept(options) && options.durability !== undefined && options.durability !== "memory")
    throw refuse("durability", '"memory" without a directory', options.durability);
  if (typeof resolved.documents !== "boolean") throw refuse("documents", "true or false", resolved.documents);
  if (resolved.documents && resolved.directory === undefined)
    throw refuse("documents", "false without a directory", true);
  integer(resolved, "snapshotBytes", 4 * KIB, 64 * GIB);
  integer(resolved, "snapshotBytesPerSecond", 64 * KIB, 4 * GIB);
}

/** Options that have no default. */
const ABSENT: readonly string[] = ["maxHeapMb", "directory", "nats", "node"];

function isKept({ directory, nats }: Pick<ClusterOptions, "directory" | "nats">): boolean {
  return directory !== undefined || nats !== undefined;
}

/** What every thread of the cluster does in calls that do not say so. */
export function callDefaults(options: ResolvedClusterOptions): CallDefaults {
  const { requestTimeoutMs, consistency, strategy, acks } = options;
  return { requestTimeoutMs, consistency, strategy, acks };
}

function defaultMeshRingBytes({ replicationFactor = 1, requestRingBytes = 4 * MIB }: ClusterOptions): number {
  return replicationFactor > 1 ? requestRingBytes : 256 * KIB;
}

function refuse(name: string, rule: string, value: unknown): Error {
  return invalidArgument("start cluster", name, rule, value);
}

function refuseUnknown(options: object, known: object): void {
  for (const name of Object.keys(options)) {
    if (!(name in known) && !ABSENT.includes(name)) {
      throw refuse(name, `one of the options ${[...Object.keys(known), ...ABSENT].join(", ")}`, name);
    }
  }
}

function integer<K extends string>(values: Readonly<Record<K, unknown>>, name: K, least: number, most: number): void {
  const value: unknown = values[name];
  if (!Number.isInteger(value) || (value as number) < least || (value as number) > most) {
    throw refuse(name, `an integer between ${least} and ${most}`, value);
  }
}

function oneOf<K extends string>(values: Readonly<Record<K, string>>, name: K, words: readonly string[]): void {
  if (!words.includes(values[name])) throw refuse(name, `one of ${words.join(", ")}`, values[name]);
}

function isName(value: unknown): boolean {
  return typeof value === "string" && value.length > 0;
}

function powerOfTwo<K extends string>(
  values: Readonly<Record<K, unknown>>,
  name: K,
  least: number,
  most: number,
): void {
  integer(values, name, least, most);
  const value = values[name] as number;
  if (2 ** Math.round(Math.log2(value)) !== value) throw refuse(name, "a power of two", value);
}

function ceilPowerOfTwo(value: number): number {
  return Number.isFinite(value) && value > 1 ? 2 ** Math.ceil(Math.log2(value)) : 1;
}
