/** Starts the documents' thread over a log, and ends the process while it works. */
import { startDocuments } from "../../src/cluster-documents.ts";
import { createSystemDisk } from "../../src/runtime/disk.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { SegmentLog } from "../../src/store/segment-log.ts";
import { entry, RandomLog, vectorSubject } from "../actors/documents/support.ts";
import { randomFrom } from "../actors/vector/support.ts";
import { CLUSTER } from "./documents-support.ts";

const [directory, delay, after] = process.argv.slice(2) as [string, string, "start" | "progress"];
const disk = await createSystemDisk(directory);
for (const path of ["shards", "shards/0"]) await disk.makeDirectory(path);
const log = await SegmentLog.open(disk, "shards/0/log", { scheduler: systemScheduler });
const random = new RandomLog(randomFrom(log.head + 1), vectorSubject);
const entries = random.grow().entries;
for (let frame = 0; frame < 300; frame++) log.append(entries.length > 0 ? entries : [entry(1, 0, 1)]);
await log.flush();
const durable = new SharedArrayBuffer(8);
new Float64Array(durable)[0] = log.durable;
const documents = startDocuments({ directory, clusterId: CLUSTER, shards: [0], collections: [1], durable });
process.send?.(log.durable);
// Ends some time after the start, or after the thread has come further: how long starting takes is the machine's business.
const before = documents.applied(0);
const beganMs = performance.now();
const look = setInterval(() => {
  if (after === "progress" && documents.applied(0) <= before && performance.now() - beganMs < 20_000) return;
  clearInterval(look);
  setTimeout(() => process.exit(0), Number(delay));
}, 1);
