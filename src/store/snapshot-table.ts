/**
 * What a shard's snapshot says of all its vshards, besides what they hold: the table that its writer gives to `finish`.
 *
 * Invariant: as of the snapshot's position or later; the log from there on says the rest, once or again. Members that a reader does not
 * know are left alone, so that a table may say more.
 */
import { ShardloomError } from "../errors.ts";
import type { IdempotencyRecord, VshardRecord } from "./document-layout.ts";

export interface SnapshotTable {
  readonly vshards: ReadonlyMap<number, VshardRecord>;
  /** What makes repetitions of earlier writes known, in the order of the log. */
  readonly keys: readonly IdempotencyRecord[];
}

export function encodeSnapshotTable({ vshards, keys }: SnapshotTable): Uint8Array {
  const stored = keys.map((record) => ({ ...record, result: Buffer.from(record.result).toString("base64") }));
  return new TextEncoder().encode(JSON.stringify({ vshards: [...vshards], keys: stored }));
}

/** An empty one reads as one that knows nothing. @throws {ShardloomError} `ERR_CORRUPT` */
export function decodeSnapshotTable(table: Uint8Array): SnapshotTable {
  if (table.length === 0) return { vshards: new Map(), keys: [] };
  try {
    const { vshards, keys = [] } = JSON.parse(new TextDecoder().decode(table)) as {
      vshards: [number, VshardRecord][];
      keys?: (IdempotencyRecord & { result: string })[];
    };
    return {
      vshards: new Map(vshards),
      keys: keys.map((record) => ({ ...record, result: new Uint8Array(Buffer.from(record.result, "base64")) })),
    };
  } catch (cause) {
    throw new ShardloomError("ERR_CORRUPT", "Cannot read table of snapshot as it must be what its writer wrote", {
      cause,
    });
  }
}
