/**
 * worker_threads entry point: piscina calls the default export with the worker's one perpetual task.
 *
 * Invariant: everything that a worker reads from its process comes in through here.
 */
import type { MessagePort } from "node:worker_threads";
import { serveControl } from "../src/plane/control-rpc.ts";
import type { ShardTask } from "../src/plane/shard-task.ts";
import { createSystemDisk } from "../src/runtime/disk.ts";
import { systemRuntime } from "../src/runtime/runtime.ts";
import { hostShard } from "./shard-host.ts";

export default (task: ShardTask): Promise<string> =>
  hostShard(task, {
    runtime: systemRuntime,
    serveControl: (port, api) => {
      serveControl(port as MessagePort, api);
      return () => (port as MessagePort).close();
    },
    importModule: (url) => import(url),
    activeResources: () => process.getActiveResourcesInfo(),
    heapUsedBytes: () => process.memoryUsage().heapUsed,
    hasFiles: true,
    openDisk: createSystemDisk,
    openNats: async (place, shard) => {
      const { openNatsShard } = await import("../src/store/nats-shard.ts"); // only who uses it loads it
      return openNatsShard(place, shard, systemRuntime);
    },
    exitThread: () => process.exit(0),
  });
