/** Log entries by one number, for threads that cannot have a test runner. */
import { LOG_ENTRY, type ShardLogEntry } from "../../src/store/log.ts";

/** One entry that a value and a size tell all of. */
export function entryOf(value: number, size: number): ShardLogEntry {
  return {
    kind: LOG_ENTRY.EFFECT,
    vshard: value % 7,
    lsn: 1_000 + value,
    leaseEpoch: value % 3,
    type: 5,
    collection: value % 11,
    body: new Uint8Array(size).fill(value),
    idempotencyKey: value % 2 === 0 ? "" : `key ${value} ø`,
    result: new Uint8Array(value % 2 === 0 ? 0 : value % 13).fill(value + 1),
  };
}
