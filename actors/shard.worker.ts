/**
 * worker_threads entry point: piscina calls the default export with the worker's one perpetual task.
 *
 * Invariant: everything that a worker reads from its process comes in through here.
 */
import type { ShardTask } from "../src/plane/shard-task.ts";
import { hostShard } from "./shard-host.ts";

export default (task: ShardTask): Promise<string> =>
  hostShard(task, {
    activeResources: () => process.getActiveResourcesInfo(),
    heapUsedBytes: () => process.memoryUsage().heapUsed,
    exitThread: () => process.exit(0),
  });
