/**
 * What frames of a shard's log do to its documents.
 *
 * Invariant: pure, and in the order of the log. Restores need no memory of what they have not written yet: every document says which
 * entry wrote it last, so that the end of a restore removes those that none since its beginning has written, whatever crashed in between.
 */

import type { DocumentStep } from "../src/store/document-batch.ts";
import type { LogPlace, VshardRecord } from "../src/store/document-layout.ts";
import { LOG_ENTRY, type LogFrame, type ShardLogEntry } from "../src/store/log.ts";
import { documentCodecOf } from "./document-codecs.ts";

/**
 * @param vshards How far each vshard is before the first frame.
 * @returns steps for {@link Documents.apply}, the records of vshards last
 * @throws {ShardloomError} `ERR_CORRUPT` or `ERR_UNKNOWN_MESSAGE` for an entry that no engine can have written.
 */
export function stepsOf(
  frames: readonly LogFrame[],
  vshards: ReadonlyMap<number, VshardRecord>,
): readonly DocumentStep[] {
  const steps: DocumentStep[] = [];
  const records = new Map<number, VshardRecord>();
  for (const { position, entries } of frames)
    for (const [index, entry] of entries.entries()) {
      const place = { position, index };
      const { vshard } = entry;
      const before = records.get(vshard) ?? vshards.get(vshard);
      if (entry.kind === LOG_ENTRY.EFFECT || entry.kind === LOG_ENTRY.RESTORE_PART) addChanges(steps, place, entry);
      if (entry.kind === LOG_ENTRY.RESTORE_END && before?.restoreFrom !== undefined)
        steps.push({ step: "sweep", vshard, before: before.restoreFrom });
      if (entry.idempotencyKey !== "") addKey(steps, place, entry);
      records.set(vshard, recordAfter(before, place, entry));
    }
  for (const [vshard, record] of records) steps.push({ step: "vshard", vshard, record });
  return steps;
}

/** How far a vshard is after an entry. */
function recordAfter(before: VshardRecord | undefined, place: LogPlace, entry: ShardLogEntry): VshardRecord {
  const leaseEpoch = Math.max(before?.leaseEpoch ?? 0, entry.leaseEpoch);
  const lsn = before?.lsn ?? 0;
  switch (entry.kind) {
    case LOG_ENTRY.EFFECT:
      return { ...(before ?? { state: "whole" }), lsn: entry.lsn, leaseEpoch };
    case LOG_ENTRY.RESTORE_BEGIN:
      return { lsn, state: "restoring", leaseEpoch, restoreFrom: place };
    case LOG_ENTRY.RESTORE_PART:
      return { ...(before ?? { state: "unknown" }), lsn, leaseEpoch };
    case LOG_ENTRY.RESTORE_END:
      // Who did not see where it began cannot tell what it has not written.
      return { lsn: entry.lsn, state: before?.restoreFrom === undefined ? "unknown" : "whole", leaseEpoch };
  }
}

function addChanges(steps: DocumentStep[], place: LogPlace, { vshard, type, body }: ShardLogEntry): void {
  for (const change of documentCodecOf(type).changes(vshard, type, body))
    steps.push({ step: "document", place, change });
}

function addKey(steps: DocumentStep[], place: LogPlace, { vshard, lsn, idempotencyKey, result }: ShardLogEntry): void {
  steps.push({ step: "key", record: { ...place, vshard, lsn, key: idempotencyKey, result } });
}
