/**
 * The documents of a node with a directory: which thread keeps them, and by what they are scrubbed.
 *
 * Invariant: nothing waits for them: a node without its documents' thread starts from snapshots and logs, later.
 */
import { type DocumentsOptions, type DocumentsThread, startDocumentsThread } from "./plane/documents-thread.ts";
import { createScrubber } from "./plane/scrub-process.ts";
import type { Scheduler } from "./runtime/scheduler.ts";
import type { Scrubber } from "./store/scrub-documents.ts";

const DOCUMENTS_URL: URL = new URL("../actors/documents.worker.cjs", import.meta.url);
const SCRUB_URL: URL = new URL("../actors/scrub-documents.worker.js", import.meta.url);

/** Starts the documents' thread of a node, once every shard's log is open and its durable position published. */
export function startDocuments(options: DocumentsOptions): DocumentsThread {
  return startDocumentsThread(DOCUMENTS_URL, options);
}

/** Scrubs documents in a process of its own. */
export function documentsScrubber(scheduler: Scheduler): Scrubber {
  return createScrubber(SCRUB_URL, scheduler);
}

/** How a node keeps its documents. */
export interface DocumentKeeping {
  readonly start: typeof startDocuments;
  readonly scrubber: typeof documentsScrubber;
}

/** In LMDB, by a thread of this process. */
export const lmdbDocuments: DocumentKeeping = { start: startDocuments, scrubber: documentsScrubber };
