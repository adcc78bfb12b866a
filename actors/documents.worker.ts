/**
 * worker_threads entry point of the documents' thread: piscina calls the default export with its one perpetual task.
 *
 * Invariant: everything that the thread reads from its process comes in through here.
 */
import type { MessagePort } from "node:worker_threads";
import { ShardloomError } from "../src/errors.ts";
import type { DocumentsTask } from "../src/plane/documents-task.ts";
import { createScrubber } from "../src/plane/scrub-process.ts";
import { createSystemDisk, type Disk } from "../src/runtime/disk.ts";
import { systemRuntime } from "../src/runtime/runtime.ts";
import { SegmentReader } from "../src/store/segment-reader.ts";
import { openNewestSnapshot } from "../src/store/snapshot-file.ts";
import { decodeSnapshotTable } from "../src/store/snapshot-table.ts";
import type { FeedSnapshot } from "./document-feed.ts";
import { hostDocuments } from "./documents-host.ts";

const SCRUB_URL = new URL("./scrub-documents.worker.js", import.meta.url);

export default (task: DocumentsTask): Promise<string> =>
  hostDocuments(task, {
    runtime: systemRuntime,
    openDisk: createSystemDisk,
    scrub: createScrubber(SCRUB_URL, systemRuntime.scheduler),
    openReader: (disk, shard) => new SegmentReader(disk, `shards/${shard}/log`),
    newestSnapshot,
    readTable: decodeSnapshotTable,
    onMessage: (port, listener) => (port as MessagePort).on("message", listener),
    post: (port, message) => (port as MessagePort).postMessage(message),
    done: (port) => (port as MessagePort).close(),
  });

async function newestSnapshot(
  disk: Disk,
  shard: number,
  { first, head }: { first: number; head: number },
): Promise<FeedSnapshot | undefined> {
  try {
    return await openNewestSnapshot(disk, `shards/${shard}/snapshots`, {
      usable: ({ position, endPosition }) => position >= first && endPosition <= head,
    });
  } catch (error) {
    const code = ShardloomError.is(error) ? error.code : undefined;
    // Without snapshots a log that is whole from its beginning does as well.
    if (code === "ERR_NO_FILE" || (code === "ERR_CORRUPT" && first === 1)) return undefined;
    throw error;
  }
}
