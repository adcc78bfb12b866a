/** Directories of nodes with logs that were written by hand: what tools and backups are tried on, without a cluster. */
import { createSystemDisk, type Disk } from "../../src/runtime/disk.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { shardPaths } from "../../src/store/backup-shard.ts";
import { CollectionStore } from "../../src/store/collection-store.ts";
import { makeDirectories } from "../../src/store/copy-file.ts";
import { startDataDirectory } from "../../src/store/data-directory.ts";
import { SegmentLog } from "../../src/store/segment-log.ts";
import { framesOf, SMALL } from "./segment-logs.ts";

/** A directory of a node with two shards, a collection, and so many frames in each log. */
export async function makeDirectory(path: string, frames: number): Promise<Disk> {
  const disk = await createSystemDisk(path);
  const store = await CollectionStore.open(disk, true);
  const shape = { node: "local", ownShards: [0, 1], shards: 2, vshards: 64, replicationFactor: 1 };
  await startDataDirectory(disk, { shape, maxStarts: 100, randomU32: () => 7 });
  const options = { dimensions: 2, metric: "cosine" };
  await store.add({ engine: "vector", name: "docs", collection: 77, generation: 0, options });
  for (const shard of [0, 1]) {
    const log = await openLog(disk, shard);
    for (let value = 1; value <= frames; value++) {
      log.append(framesOf(value + 100 * shard, 900));
      if (value % 8 === 0) await log.flush();
    }
    await log.close();
  }
  return disk;
}

export async function openLog(disk: Disk, shard: number): Promise<SegmentLog> {
  const { log } = shardPaths(shard);
  await makeDirectories(disk, log.slice(0, log.lastIndexOf("/")));
  return SegmentLog.open(disk, log, { ...SMALL, scheduler: systemScheduler });
}
