/**
 * Opens what a node's last life has left of a shard's documents, when it can be relied on.
 *
 * Invariant: an environment is opened in this process only when its file is bit for bit what was closed in order, or what a scrub has just
 * written. One that is damaged, belongs to something else, or does not fit the log is removed: all of it comes from snapshots and log. One of
 * a newer format is refused and left alone.
 */
import { ShardloomError } from "../errors.ts";
import type { WriteGate } from "../runtime/write-gate.ts";
import {
  adoptScrub,
  type DocumentsPlace,
  documentsFile,
  hasDocuments,
  isClean,
  markClean,
  removeDocuments,
  removeScrubs,
  scrubFile,
} from "./document-files.ts";
import { type Documents, openDocuments } from "./documents.ts";
import type { Scrubber } from "./scrub-documents.ts";

/** Whose documents are opened, and by whom they are scrubbed. */
export interface DocumentsSource extends DocumentsPlace {
  /** Path of the node's directory, that `disk` has as its root. */
  readonly directory: string;
  readonly clusterId: string;
  /** @default none: what was not closed in order is not opened, and stays as it is */
  readonly scrub?: Scrubber | undefined;
  /** Scrubs also what was closed in order. @default false */
  readonly always?: boolean;
  readonly randomU32: () => number;
  /** What transactions on what is opened pass. @default none */
  readonly gate?: WriteGate | undefined;
}

/** What a shard's log has, when its documents are opened. */
export interface LogExtent {
  /** Position of the oldest frame that can be read. */
  readonly first: number;
  /** Position of the last frame. */
  readonly head: number;
}

/** How long a scrub may take: so long, and so long for each byte. */
const SCRUB_MS = 30_000;
const SCRUB_MS_PER_BYTE: number = 1 / 2_000; // 2 MB/s

/**
 * Whether the environment may be opened in this process; an unfit one is removed.
 *
 * @throws {ShardloomError} `ERR_UNSUPPORTED_FORMAT` when it is of a newer format; and as disks do.
 */
export async function vetDocuments(source: DocumentsSource): Promise<boolean> {
  if (!(await hasDocuments(source))) {
    await removeDocuments(source); // a lock or a mark alone
    return false;
  }
  if (source.always !== true && (await isClean(source))) return true;
  const { scrub, directory, shard, clusterId, randomU32 } = source;
  if (scrub === undefined) return false;
  await removeScrubs(source);
  const copy = scrubFile(shard, randomU32());
  const result = await scrub({
    path: `${directory}/${documentsFile(shard)}`,
    copyTo: `${directory}/${copy}`,
    clusterId,
    shard,
    timeoutMs: SCRUB_MS + (await sizeOf(source)) * SCRUB_MS_PER_BYTE,
  });
  if (result.ok) {
    await adoptScrub(source, copy);
    await removeScrubs(source);
    await markClean(source);
    return true;
  }
  if (result.code === "ERR_UNSUPPORTED_FORMAT") {
    await removeScrubs(source);
    throw new ShardloomError("ERR_UNSUPPORTED_FORMAT", result.reason, { details: { shard } });
  }
  await removeDocuments(source);
  return false;
}

/**
 * The documents of a shard to start from, read-only; whoever reads them closes them before the shard's documents are written to again.
 * Their content is that of the log up to `meta.appliedPosition`, once the log was applied up to `meta.wholeAt`.
 *
 * @returns undefined when there are none that fit the log
 * @throws {ShardloomError} As {@link vetDocuments}.
 */
export async function openDocumentsForRecovery(
  source: DocumentsSource,
  log: LogExtent,
): Promise<Documents | undefined> {
  if (!(await vetDocuments(source))) return undefined;
  const documents = await openVetted(source, true);
  if (documents === undefined || fitsLog(documents, log)) return documents;
  documents.close();
  await removeDocuments(source);
  return undefined;
}

/** Opens what was vetted; removes it when it is not this shard's. */
export async function openVetted(source: DocumentsSource, readOnly: boolean): Promise<Documents | undefined> {
  const { directory, shard, clusterId, gate } = source;
  try {
    return await openDocuments({ path: `${directory}/${documentsFile(shard)}`, clusterId, shard, readOnly, gate });
  } catch (error) {
    const code = ShardloomError.is(error) ? error.code : undefined;
    if (code !== "ERR_DIRECTORY_MISMATCH" && code !== "ERR_CORRUPT") throw error;
    await removeDocuments(source);
    return undefined;
  }
}

/** Whether documents and log go together without a gap. */
export function fitsLog({ meta }: Documents, { first, head }: LogExtent): boolean {
  const { appliedPosition, wholeAt, building } = meta;
  return !building && appliedPosition <= head && wholeAt <= head && appliedPosition + 1 >= first;
}

async function sizeOf({ disk, shard }: DocumentsPlace): Promise<number> {
  const file = await disk.open(documentsFile(shard), "read");
  try {
    return await file.size();
  } finally {
    await file.close();
  }
}
