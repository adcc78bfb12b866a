/**
 * Options of a world: their defaults, ranges and relations.
 *
 * Invariant: what comes out can be run; whatever is wrong is named here, by field, before a thread is started for it.
 */
import { invalidArgument } from "../errors.ts";
import { CONSISTENCIES } from "../routing/plan.ts";
import { type ResolvedWorldOptions, WORLD_DURABILITIES, WORLD_HEALS, type WorldOptions } from "./world-types.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
/** Bytes of a WebAssembly page, in which memory comes. */
const PAGE = 65_536;
/** Events kept where the option says no more than that. */
const KEPT_EVENTS = 100_000;
const U32 = 2 ** 32;
/** Fewer than a real cluster has: every sign of life tells of each of them. */
const LEAST_VSHARDS = 16;

const NAMES: readonly (keyof WorldOptions)[] = [
  "seed",
  "nodes",
  "shardsPerNode",
  "replicationFactor",
  "consistency",
  "vshards",
  "memoryBytes",
  "requestTimeoutMs",
  "durability",
  "leases",
  "heal",
  "faults",
  "durationMs",
  "minutes",
  "wallLimitMs",
  "keepTrace",
];

/**
 * Fills defaults and checks. What `faults` may hold is checked where a world is made of it, as that needs the table of faults.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming option, rule and value.
 */
export function resolveWorldOptions(options: WorldOptions = {}): ResolvedWorldOptions {
  if (typeof options !== "object" || options === null) throw refuse("options", "an object", options);
  for (const name of Object.keys(options))
    if (!NAMES.includes(name as keyof WorldOptions)) throw refuse(name, `one of the options ${NAMES.join(", ")}`, name);
  const nodes = options.nodes ?? 5;
  integer("nodes", nodes, 1, 32);
  const shardsPerNode = options.shardsPerNode ?? 1;
  integer("shardsPerNode", shardsPerNode, 1, 16);
  const shards = nodes * shardsPerNode;
  const resolved: ResolvedWorldOptions = {
    seed: options.seed ?? 1,
    nodes,
    shardsPerNode,
    replicationFactor: options.replicationFactor ?? Math.min(3, shards),
    consistency: options.consistency ?? "strong",
    vshards: options.vshards ?? Math.max(LEAST_VSHARDS, 2 ** Math.ceil(Math.log2(shards))),
    memoryBytes: options.memoryBytes ?? 32 * MIB,
    requestTimeoutMs: options.requestTimeoutMs ?? 5_000,
    durability: options.durability ?? "none",
    leases: options.leases ?? false,
    heal: options.heal ?? "all",
    faults: options.faults ?? "none",
    durationMs: durationOf(options),
    wallLimitMs: options.wallLimitMs ?? 600_000,
    keepTrace: keptOf(options.keepTrace),
  };
  integer("seed", resolved.seed, 0, U32 - 1);
  integer("replicationFactor", resolved.replicationFactor, 1, Math.min(shards, 16));
  if (!CONSISTENCIES.includes(resolved.consistency))
    throw refuse("consistency", `one of ${CONSISTENCIES.join(", ")}`, resolved.consistency);
  if (!WORLD_DURABILITIES.includes(resolved.durability))
    throw refuse("durability", `one of ${WORLD_DURABILITIES.join(", ")}`, resolved.durability);
  if (typeof resolved.leases !== "boolean") throw refuse("leases", "a boolean", resolved.leases);
  if (!WORLD_HEALS.includes(resolved.heal)) throw refuse("heal", `one of ${WORLD_HEALS.join(", ")}`, resolved.heal);
  integer("vshards", resolved.vshards, shards, 4096);
  if (2 ** Math.round(Math.log2(resolved.vshards)) !== resolved.vshards)
    throw refuse("vshards", "a power of two", resolved.vshards);
  integer("memoryBytes", resolved.memoryBytes, MIB, 1024 * MIB);
  if (resolved.memoryBytes % PAGE !== 0) throw refuse("memoryBytes", `a multiple of ${PAGE}`, resolved.memoryBytes);
  integer("requestTimeoutMs", resolved.requestTimeoutMs, 1, 600_000);
  integer("wallLimitMs", resolved.wallLimitMs, 1, DAY_MS);
  return resolved;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
export function checkSeed(seed: number): number {
  integer("seed", seed, 0, U32 - 1);
  return seed;
}

function durationOf({ durationMs, minutes }: WorldOptions): number {
  if (minutes !== undefined) {
    if (durationMs !== undefined) throw refuse("minutes", "absent where durationMs is given", minutes);
    if (typeof minutes !== "number" || !(minutes > 0 && minutes * MINUTE_MS <= DAY_MS))
      throw refuse("minutes", `a number above 0, at most ${DAY_MS / MINUTE_MS}`, minutes);
    return Math.max(1, Math.round(minutes * MINUTE_MS));
  }
  const given = durationMs ?? MINUTE_MS;
  if (typeof given !== "number" || !(given >= 1 && given <= DAY_MS))
    throw refuse("durationMs", `a number between 1 and ${DAY_MS}`, given);
  return given;
}

function keptOf(keepTrace: boolean | number | undefined): number {
  if (keepTrace === undefined || keepTrace === false) return 0;
  if (keepTrace === true) return KEPT_EVENTS;
  integer("keepTrace", keepTrace, 1, 1_000_000);
  return keepTrace;
}

function integer(name: string, value: unknown, least: number, most: number): void {
  if (!Number.isInteger(value) || (value as number) < least || (value as number) > most)
    throw refuse(name, `an integer between ${least} and ${most}`, value);
}

function refuse(name: string, rule: string, value: unknown): Error {
  return invalidArgument("create world", name, rule, value);
}
