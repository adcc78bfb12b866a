/**
 * Options of a segment log, with their defaults and rules.
 *
 * Invariant: resolved once, when the log is opened; what is resolved obeys every rule.
 */
import { invalidArgument } from "../errors.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import { DURABILITIES, type Durability } from "./log.ts";

export interface SegmentLogOptions {
  /** Of the thread that the log belongs to. */
  readonly scheduler: Scheduler;
  /** What `durable` means. @default "fsync" */
  readonly durability?: Durability;
  /** Size of the largest segments in bytes, at least 4096; a larger group makes a larger one. @default 16 MiB */
  readonly segmentBytes?: number;
  /** Size of the first segment that is made, at most `segmentBytes`; each is four times as large as the one before. @default 256 KiB */
  readonly firstSegmentBytes?: number;
  /** Bytes of frames that may wait for the disk; then appends are refused with `ERR_OVERLOADED`. @default 64 MiB */
  readonly maxLineBytes?: number;
  /** How long after the last group a mark says that it was synced, in ms. @default 20 */
  readonly markDelayMs?: number;
  /** How long a written group may stay unsynced with `"os"` and `"memory"`, in ms. @default 100 */
  readonly syncDelayMs?: number;
  /** Number of this opening, above those of all before: it is part of the names of files, so that nobody else makes or replaces these. @default 0 */
  readonly owner?: number;
  /** Whether the last segment is gone on with: not where who had the log before may still be writing to it. @default true */
  readonly resumes?: boolean;
  /** Whether it is known to have had segments: then none is damage. @default false */
  readonly begun?: boolean;
  /** Segments wholly below this position are not looked into when the log is opened, only when they are read. @default 0 */
  readonly verifyFrom?: number;
}

export interface ResolvedSegmentLogOptions extends Required<SegmentLogOptions> {
  /** Bytes of unsynced groups after which a sync does not wait any longer. */
  readonly unsyncedBytes: number;
}

const MIN_SEGMENT_BYTES = 4_096;
const DEFAULTS = {
  durability: "fsync",
  segmentBytes: 16 * 1024 * 1024,
  maxLineBytes: 64 * 1024 * 1024,
  markDelayMs: 20,
  syncDelayMs: 100,
  verifyFrom: 0,
  owner: 0,
  resumes: true,
  begun: false,
} as const;
const FIRST_SEGMENT_BYTES: number = 256 * 1024;
const UNSYNCED_BYTES: number = 4 * 1024 * 1024;

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the option. */
export function resolveSegmentLogOptions(options: SegmentLogOptions): ResolvedSegmentLogOptions {
  const given = { ...DEFAULTS, ...options };
  const firstSegmentBytes = options.firstSegmentBytes ?? Math.min(FIRST_SEGMENT_BYTES, given.segmentBytes);
  if (!DURABILITIES.includes(given.durability)) throw refuse("durability", DURABILITIES.join(" | "), given.durability);
  checkBytes("segmentBytes", given.segmentBytes, MIN_SEGMENT_BYTES, Number.MAX_SAFE_INTEGER);
  checkBytes("firstSegmentBytes", firstSegmentBytes, MIN_SEGMENT_BYTES, given.segmentBytes);
  checkBytes("maxLineBytes", given.maxLineBytes, 1, Number.MAX_SAFE_INTEGER);
  for (const name of ["markDelayMs", "syncDelayMs", "verifyFrom", "owner"] as const) {
    if (!(given[name] >= 0)) throw refuse(name, "a number ≥ 0", given[name]);
  }
  return { ...given, firstSegmentBytes, unsyncedBytes: Math.min(UNSYNCED_BYTES, given.maxLineBytes) };
}

function checkBytes(name: string, value: number, min: number, max: number): void {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return;
  throw refuse(name, `an integer between ${min} and ${max}`, value);
}

function refuse(name: string, rule: string, value: unknown): Error {
  return invalidArgument("open log", name, rule, value);
}
