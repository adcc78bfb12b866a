/**
 * Options of admission: meaning, unit, range and default of each, filled and checked in one place.
 *
 * Invariant: a resolved set has whole positive limits, `minInFlightPerShard ≤ initialInFlightPerShard ≤ maxInFlightPerShard ≤
 * maxInFlight`, and delays that are finite and positive; whoever holds one checks nothing again.
 */
import { invalidArgument } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Scheduler } from "../runtime/scheduler.ts";

/** What an admission controller takes. */
export interface AdmissionOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  /** Shards that requests may go to: numbers `0..shards - 1`, `1..65536`. */
  readonly shards: number;
  /** Requests in flight to all shards together, `1..65536`. More wait. @default 1024 */
  readonly maxInFlight?: number;
  /**
   * Most requests in flight to one shard, `1..maxInFlight`. So many asks may wait for each other there, as members of a barrier do.
   * @default the smaller of 256 and maxInFlight
   */
  readonly maxInFlightPerShard?: number;
  /** The limit of one shard never falls below it, `1..maxInFlightPerShard`. @default 2, or maxInFlightPerShard if that is 1 */
  readonly minInFlightPerShard?: number;
  /** The limit of a shard of which nothing is known, between the two. @default 32, within the two */
  readonly initialInFlightPerShard?: number;
  /** Mean wait at the shard above which its limit falls, in ms, > 0. @default 5 */
  readonly targetQueueMs?: number;
  /** Requests that wait here for all shards, ≥ 1. At 85 % bulk is refused, at 95 % normal too, at the cap everything. @default 16384 */
  readonly maxQueued?: number;
  /** Bytes of the requests that wait, ≥ 1; the same thresholds. @default 64 MiB */
  readonly maxQueuedBytes?: number;
  /**
   * Longest wait here that a new request is let in for, in ms, > 0; a shorter deadline shortens it. One that turns out to have waited
   * twice as long is refused then. @default 30000, so that deadlines decide
   */
  readonly maxQueueDelayMs?: number;
  /** Shares of tenants by name, `0.001..1000`; others have 1. @default none */
  readonly tenantWeights?: Readonly<Record<string, number>>;
  /**
   * Whether a shard has taken everything that was sent to it. Then one that returns nothing waits for what is held back here, and
   * its limit rises. @default nobody knows
   */
  readonly hasTaken?: ((shard: number) => boolean) | undefined;
}

/** {@link AdmissionOptions} with every default filled in. */
export type ResolvedAdmissionOptions = Required<Omit<AdmissionOptions, "hasTaken">> &
  Pick<AdmissionOptions, "hasTaken">;

const ACTION = "create admission";
const MAX_SHARDS = 65_536;
/** A slot's index has 16 bits. */
const MAX_SLOTS = 65_536;
const MIB = 2 ** 20;

/**
 * Fills defaults and checks ranges and relations.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming option, rule and value.
 */
export function resolveAdmissionOptions(options: AdmissionOptions): ResolvedAdmissionOptions {
  const maxInFlight = options.maxInFlight ?? 1024;
  const maxInFlightPerShard = options.maxInFlightPerShard ?? Math.min(256, maxInFlight);
  const minInFlightPerShard = options.minInFlightPerShard ?? Math.min(2, maxInFlightPerShard);
  const initial = Math.max(minInFlightPerShard, Math.min(32, maxInFlightPerShard));
  const resolved: ResolvedAdmissionOptions = {
    clock: options.clock,
    scheduler: options.scheduler,
    shards: options.shards,
    maxInFlight,
    maxInFlightPerShard,
    minInFlightPerShard,
    initialInFlightPerShard: options.initialInFlightPerShard ?? initial,
    targetQueueMs: options.targetQueueMs ?? 5,
    maxQueued: options.maxQueued ?? 16_384,
    maxQueuedBytes: options.maxQueuedBytes ?? 64 * MIB,
    maxQueueDelayMs: options.maxQueueDelayMs ?? 30_000,
    tenantWeights: options.tenantWeights ?? {},
    hasTaken: options.hasTaken,
  };
  for (const name of Object.keys(options)) {
    if (!(name in resolved))
      throw invalidArgument(ACTION, name, `one of the options ${Object.keys(resolved).join(", ")}`, name);
  }
  assertWhole(resolved, "shards", 1, MAX_SHARDS);
  assertWhole(resolved, "maxInFlight", 1, MAX_SLOTS);
  assertWhole(resolved, "maxInFlightPerShard", 1, maxInFlight);
  assertWhole(resolved, "minInFlightPerShard", 1, maxInFlightPerShard);
  assertWhole(resolved, "initialInFlightPerShard", minInFlightPerShard, maxInFlightPerShard);
  assertWhole(resolved, "maxQueued", 1, Number.MAX_SAFE_INTEGER);
  assertWhole(resolved, "maxQueuedBytes", 1, Number.MAX_SAFE_INTEGER);
  if (typeof resolved.tenantWeights !== "object")
    throw invalidArgument(ACTION, "tenantWeights", "an object of weights by name", resolved.tenantWeights);
  assertDelay("targetQueueMs", resolved.targetQueueMs);
  assertDelay("maxQueueDelayMs", resolved.maxQueueDelayMs);
  return resolved;
}

type Whole = {
  [Name in keyof ResolvedAdmissionOptions]-?: ResolvedAdmissionOptions[Name] extends number ? Name : never;
};

function assertWhole(
  resolved: ResolvedAdmissionOptions,
  name: Whole[keyof ResolvedAdmissionOptions],
  min: number,
  max: number,
): void {
  const value = resolved[name];
  if (!Number.isSafeInteger(value) || value < min || value > max)
    throw invalidArgument(ACTION, name, `an integer in [${min}, ${max}]`, value);
}

function assertDelay(name: string, value: number): void {
  if (typeof value !== "number" || !(value > 0 && value < Number.POSITIVE_INFINITY))
    throw invalidArgument(ACTION, name, "a finite number of ms > 0", value);
}
