/** The thread of segment-reader.test.ts that reads: up to what the writer has published, until that is negative. */
import { parentPort, workerData } from "node:worker_threads";
import { createSystemDisk } from "../../src/runtime/disk.ts";
import { SegmentReader } from "../../src/store/segment-reader.ts";
import { entryOf } from "../support/reader-entry.ts";

/** What the reader saw. */
export interface ReaderReport {
  readonly read: number;
  readonly gaps: number;
  readonly wrong: number;
  readonly turns: number;
}

const { root, published } = workerData as { readonly root: string; readonly published: BigInt64Array };
const reader = new SegmentReader(await createSystemDisk(root), "log");
let next = 1;
let gaps = 0;
let wrong = 0;
let turns = 0;
for (;;) {
  const told = Number(Atomics.load(published, 0)); // acquires the frames in the files
  const upTo = Math.abs(told);
  if (next > upTo) {
    if (told < 0) break;
    await new Promise((resolve) => setImmediate(resolve));
    continue;
  }
  turns++;
  for (const { position, entries } of await reader.read(next, 20_000, upTo)) {
    if (position !== next) gaps++;
    const [entry] = entries;
    const wanted = entryOf(position % 200, (position * 37) % 900);
    if (entry?.lsn !== wanted.lsn || Buffer.compare(entry.body, wanted.body) !== 0) wrong++;
    next = position + 1;
  }
  Atomics.store(published, 1, BigInt(next - 1));
}
await reader.close();
parentPort?.postMessage({ read: next - 1, gaps, wrong, turns } satisfies ReaderReport);
