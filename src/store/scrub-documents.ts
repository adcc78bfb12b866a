/**
 * The scrub of a documents' environment that was not closed in order: reads all that is in it and writes it anew, in a process of its own.
 *
 * A page that was flipped or lost can make LMDB read or write anywhere: a process that only scrubs may crash of it. Invariant: a result of
 * `ok` means that the copy has every record that the last transaction left, each with the checksum that it was written with, in an
 * environment whose every page was written by this scrub; so that damage to what is never read here (free lists, the room between
 * records) has no way into the process that opens the copy.
 */
import { ShardloomError } from "../errors.ts";
import type { DocumentStep } from "./document-batch.ts";
import { damaged } from "./document-layout.ts";
import { type Documents, openDocuments } from "./documents.ts";

/** Bytes of one transaction of the copy. */
const BATCH_BYTES: number = 8 * 1024 * 1024;

/** What is to be scrubbed. */
export interface ScrubJob {
  /** Path of the environment's file. */
  readonly path: string;
  /** Where the copy goes; nothing is there. */
  readonly copyTo: string;
  readonly clusterId: string;
  readonly shard: number;
  /** Longest time that it may take. */
  readonly timeoutMs: number;
}

/** What came of a scrub. A crash of its process, and one that takes too long, have a result as well. */
export type ScrubResult =
  | { readonly ok: true; readonly records: number; readonly appliedPosition: number }
  | { readonly ok: false; readonly code: string; readonly reason: string };

/** Scrubs in a process of its own, whatever becomes of that. Never rejects for what is in the environment. */
export type Scrubber = (job: ScrubJob) => Promise<ScrubResult>;

/** @param breathe Called between transactions; the scrub ends where it rejects. */
export async function scrubDocuments(job: ScrubJob, breathe: () => Promise<void>): Promise<ScrubResult> {
  let source: Documents | undefined;
  let copy: Documents | undefined;
  try {
    const { clusterId, shard } = job;
    source = await openDocuments({ path: job.path, clusterId, shard, readOnly: true });
    if (source.meta.building) throw damaged("environment", "not built to its end");
    copy = await openDocuments({ path: job.copyTo, clusterId, shard });
    await copyRecords(source, copy, breathe);
    const { appliedPosition, wholeAt, records, sum } = source.meta;
    if (copy.meta.records !== records) throw damaged("number of records", copy.meta.records);
    if (copy.meta.sum !== sum) throw damaged("sum of checksums", copy.meta.sum);
    copy.apply([], { appliedPosition, wholeAt, building: false });
    return { ok: true, records, appliedPosition };
  } catch (error) {
    const { code, message } = ShardloomError.from(error, "ERR_CORRUPT");
    return { ok: false, code, reason: message };
  } finally {
    copy?.close();
    source?.close();
  }
}

async function copyRecords(source: Documents, copy: Documents, breathe: () => Promise<void>): Promise<void> {
  let steps: DocumentStep[] = [];
  let bytes = 0;
  for (const { key, value } of source.records()) {
    steps.push({ step: "record", key, value });
    bytes += key.length + value.length;
    if (bytes < BATCH_BYTES) continue;
    copy.apply(steps, { building: true });
    steps = [];
    bytes = 0;
    await breathe();
  }
  copy.apply(steps, { building: true });
}
