/**
 * Options of calls: what every call takes, what reads and writes add, and their check.
 *
 * Invariant: a call that passed its check cannot fail later for what its options say.
 */
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import type { Acks } from "../src/routing/call-defaults.ts";
import type { CallLimits } from "../src/routing/execution-call.ts";
import { checkLimits } from "../src/routing/executor.ts";
import type { GatherPolicy } from "../src/routing/gather.ts";
import type { Consistency, Strategy, UnavailablePolicy } from "../src/routing/plan.ts";
import { onceAborted } from "../src/runtime/abort.ts";
import type { Session } from "../src/topology/session.ts";
import { PRIORITY, type Priority } from "../src/wire/envelope-layout.ts";
import { MAX_KEY_BYTES } from "../src/wire/routed-codec.ts";
import type { Explanation } from "./planned-read.ts";

/** Options of every call that waits. */
export interface CallOptions {
  /** Time until the call fails with `ERR_TIMEOUT`, in ms, in `(0, 2^31)`. @default the cluster's `requestTimeoutMs` */
  readonly timeoutMs?: number;
  /** Ends the call with `ERR_ABORTED`; what has not started on a shard never starts. */
  readonly signal?: AbortSignal;
  /** @default "normal" */
  readonly priority?: Priority;
  /**
   * On whose behalf: tenants share what a shard can serve fairly when there is not enough for all. On workers it is refused: what an actor
   * calls is part of a request that was admitted for its tenant. @default nobody's
   */
  readonly tenant?: string;
}

/** Options of a read that a plan sends to one or several shards. */
export interface ReadOptions extends CallOptions {
  /**
   * Which copies may answer. `strong`: the primary, or nobody. `session`: copies that have applied what was written under `session`.
   * `bounded-staleness`: copies that lag at most `maxStalenessMs`. `eventual`: any. @default the cluster's
   */
  readonly consistency?: Consistency;
  /** What this client has written; see `cluster.session()`. Implies `consistency: "session"` unless one is given. */
  readonly session?: Session;
  /** For `bounded-staleness`, in ms, at least 0. @default 5000 */
  readonly maxStalenessMs?: number;
  /** Which of the copies that may answer is asked. @default the cluster's */
  readonly strategy?: Strategy;
  /** What becomes of vshards that nobody may answer now: fail the call, leave them out and say so, or wait. @default "wait" */
  readonly unavailable?: UnavailablePolicy;
  /** How many shards must answer: all, a majority, a number, or whatever has come by the deadline. @default "all" */
  readonly gather?: GatherPolicy;
  /** Asks another copy, where one may answer, when the first takes longer than the observed p95. @default true */
  readonly hedge?: boolean;
  /** Requests for one part of the plan, the first included, when copies fail or refuse: `1` never tries again. @default 3 */
  readonly maxAttempts?: number;
  /** Shards that are asked at once; the others wait their turn. @default 64 */
  readonly maxConcurrentShards?: number;
  /** Adds the plan and what became of it to the result, or gives it to a function. @default false */
  readonly explain?: boolean | ((explanation: Explanation) => void);
}

/** Options of a read whose result has no place for how complete it is: it is whole or fails. */
export type PlainReadOptions = Omit<ReadOptions, "explain" | "gather" | "unavailable"> & {
  /** Whom the account is given; with `true` the result comes as `{ value, explain }`. @default false */
  readonly explain?: false | ((explanation: Explanation) => void);
  /** What becomes of vshards that nobody may answer now: fail the call, or wait. @default "wait" */
  readonly unavailable?: "fail" | "wait";
};

/** What a read may do, as the executor takes it. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
export function limitsOf(options: ReadOptions): Partial<CallLimits> | undefined {
  const { hedge, maxAttempts, maxConcurrentShards } = options;
  if (hedge !== undefined && typeof hedge !== "boolean") throw invalidArgument("read", "hedge", "true or false", hedge);
  if (hedge !== false && maxAttempts === undefined && maxConcurrentShards === undefined) return undefined;
  const limits: Partial<CallLimits> = {
    ...(hedge === false ? { hedgeAfter: "off" } : {}),
    ...(maxAttempts === undefined ? {} : { maxAttempts }),
    ...(maxConcurrentShards === undefined ? {} : { maxConcurrentShards }),
  };
  checkLimits(limits);
  return limits;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for options under which a plain result could silently lack something. */
export function checkPlainRead(options: ReadOptions): void {
  const { gather, unavailable } = options;
  if (gather !== undefined && gather !== "all")
    throw invalidArgument("read", "gather", '"all", as the result cannot say what is missing', gather);
  if (unavailable === "partial")
    throw invalidArgument(
      "read",
      "unavailable",
      '"fail" or "wait", as the result cannot say what is missing',
      unavailable,
    );
}

/** Options of a write. */
export interface WriteOptions extends CallOptions {
  /** @default the cluster's */
  readonly acks?: Acks;
  /** Takes in what was written, so that reads under it see the write. */
  readonly session?: Session;
  /**
   * Makes a repetition of the write known, text of 1 to 256 bytes as UTF-8: the same call made again with the same key is applied at most
   * once, also when its first answer was lost with a worker, and gets the first one's answer. With a key a write that ended in doubt is
   * repeated within its deadline. A key names one write of one kind in one collection: with it other documents are refused where that is
   * noticed (by their number). It is remembered for 10 minutes, while it is among the newest 4096 of each vshard that it wrote to and the
   * newest 4 MiB of each shard. One key is for one batch: not with an iterable. @default none: a write in doubt is the caller's
   */
  readonly idempotencyKey?: string;
}

const TIMEOUT_LIMIT_MS = 2 ** 31 - 1;

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a timeout that is no deadline in the future. */
export function checkedTimeout(timeoutMs: number): number {
  if (typeof timeoutMs === "number" && timeoutMs > 0 && timeoutMs <= TIMEOUT_LIMIT_MS) return timeoutMs;
  throw invalidArgument(
    "make call",
    "timeoutMs",
    `a number of milliseconds between 0 and ${TIMEOUT_LIMIT_MS}`,
    timeoutMs,
  );
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for what cannot abort anything. */
export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal === undefined || typeof (signal as Partial<AbortSignal> | null)?.addEventListener === "function") return;
  throw invalidArgument("make call", "signal", "an AbortSignal", signal);
}

/** The envelope's number of a priority. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
export function priorityOf(priority: Priority | undefined): number {
  switch (priority) {
    case undefined:
    case "normal":
      return PRIORITY.NORMAL;
    case "bulk":
      return PRIORITY.BULK;
    case "control":
      return PRIORITY.CONTROL;
    default:
      throw invalidArgument("make call", "priority", 'one of "bulk", "normal", "control"', priority);
  }
}

/**
 * The number of copies that `acks` stands for.
 *
 * @param copies Copies of every vshard, all counted.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when it is more than there are copies.
 */
export function acksOf(acks: Acks, copies: number): number {
  if (acks === "one") return 1;
  if (acks === "quorum") return Math.floor(copies / 2) + 1;
  if (acks === "all") return copies;
  if (Number.isInteger(acks) && acks >= 1 && acks <= copies) return acks;
  throw invalidArgument("write", "acks", `"one", "quorum", "all" or an integer between 1 and ${copies} (copies)`, acks);
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for what cannot take in what was written. */
export function checkedSession(session: Session | undefined): Session | undefined {
  if (session === undefined || typeof (session as Partial<Session> | null)?.merge === "function") return session;
  throw invalidArgument("write", "session", "a Session", session);
}

const LONE_SURROGATE = /\p{Surrogate}/u;

/** A key as bytes. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
export function encodeKey(key: string): Uint8Array {
  if (typeof key !== "string") throw invalidArgument("write", "idempotencyKey", "text", key);
  const bytes = new TextEncoder().encode(key);
  if (bytes.length < 1 || bytes.length > MAX_KEY_BYTES)
    throw invalidArgument(
      "write",
      "the UTF-8 length of idempotencyKey",
      `in [1, ${MAX_KEY_BYTES}] bytes`,
      bytes.length,
    );
  // Lone surrogates all have the same bytes, so that two such keys would be one.
  if (LONE_SURROGATE.test(key)) throw invalidArgument("write", "idempotencyKey", "well-formed Unicode", key);
  return bytes;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a key of a write that is no single batch. */
export function refuseKey({ idempotencyKey }: WriteOptions): void {
  if (idempotencyKey !== undefined)
    throw invalidArgument(
      "write",
      "idempotencyKey",
      "absent where the documents come from an iterable",
      idempotencyKey,
    );
}

/** The error of a call whose signal has fired. */
export function abortError(signal: AbortSignal): ShardloomError {
  return new ShardloomError("ERR_ABORTED", "Cannot finish call as its signal was aborted", { cause: signal.reason });
}

/** Calls `act` when the signal fires. @returns takes that back */
export function onAbort(signal: AbortSignal, act: (error: ShardloomError) => void): () => void {
  return onceAborted(signal, () => act(abortError(signal)));
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a tenant that is no name. */
export function checkedTenant(tenant: string): string {
  if (typeof tenant === "string" && tenant.length >= 1 && tenant.length <= 256) return tenant;
  throw invalidArgument("make call", "tenant", "text of 1 to 256 characters", tenant);
}
