/**
 * Conditions of an append that every shard log has, whatever it is kept on: limits of a frame and of what waits, the head, the lease epoch.
 *
 * Invariant: pure; whoever is refused here has appended nothing.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import { MAX_IDEMPOTENCY_KEY_BYTES, type ShardLogEntry } from "./log.ts";
import { keyBytes, MAX_RECORD_BYTES } from "./segment-format.ts";

/** Throws unless a frame of these entries can be appended to some log. */
export function checkEntries(entries: readonly ShardLogEntry[]): void {
  if (entries.length === 0) throw invalidArgument("append to log", "entries", "at least one", 0);
  for (const { idempotencyKey } of entries) {
    const bytes = keyBytes(idempotencyKey);
    if (bytes <= MAX_IDEMPOTENCY_KEY_BYTES) continue;
    throw invalidArgument("append to log", "idempotencyKey", `at most ${MAX_IDEMPOTENCY_KEY_BYTES} bytes`, bytes);
  }
}

/** Throws unless a frame of so many bytes may join those that wait already. One that is alone may, whatever the limit. */
export function checkRoom(bytes: number, lineBytes: number, maxLineBytes: number): void {
  if (bytes > MAX_RECORD_BYTES) throw tooLarge(bytes);
  if (lineBytes > 0 && lineBytes + bytes > maxLineBytes) throw overloaded(lineBytes, maxLineBytes);
}

function tooLarge(bytes: number): ShardloomError {
  return new ShardloomError(
    "ERR_RECORD_TOO_LARGE",
    `Cannot append to log as a frame must have at most ${MAX_RECORD_BYTES} bytes: current value is ${bytes}`,
    { details: { length: bytes, limit: MAX_RECORD_BYTES } },
  );
}

function overloaded(bytes: number, limit: number): ShardloomError {
  return new ShardloomError(
    "ERR_OVERLOADED",
    `Cannot append to log as at most ${limit} bytes may wait to be durable: current value is ${bytes}`,
    { details: { bytes, limit } },
  );
}

/** The error of a condition that does not hold. */
export function staleWriter(what: "head" | "lease epoch", expected: number, actual: number): ShardloomError {
  const rule = what === "head" ? `its head must be ${expected}` : `the lease epoch ${expected} must be its newest`;
  return new ShardloomError("ERR_STALE_EPOCH", `Cannot append to log as ${rule}: current value is ${actual}`, {
    details: what === "head" ? { expectedHead: expected, head: actual } : { leaseEpoch: expected, newest: actual },
  });
}
