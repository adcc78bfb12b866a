/**
 * Entry point of the process that scrubs documents: its one argument is the job, its one message the result.
 *
 * Invariant: it ends when its parent does, at the next transaction: a scrub that nobody waits for writes nothing more.
 */
import { systemScheduler } from "../src/runtime/scheduler.ts";
import { type ScrubJob, scrubDocuments } from "../src/store/scrub-documents.ts";

process.on("disconnect", () => process.exit(1));
const job = JSON.parse(process.argv[2] as string) as ScrubJob;
const result = await scrubDocuments(job, () => new Promise((resolve) => systemScheduler.turn(resolve)));
process.send?.(result, () => process.exit(0));
