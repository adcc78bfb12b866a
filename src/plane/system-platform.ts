/**
 * The platform of a real node: piscina's threads, message ports, the machine's time.
 *
 * Invariant: one per control plane; nothing is started before it is asked for.
 */
import { MessageChannel } from "node:worker_threads";
import { lockDirectory } from "../runtime/directory-lock.ts";
import { createSystemDisk, openSystemDisk } from "../runtime/disk.ts";
import { systemRuntime } from "../runtime/runtime.ts";
import { connectControl } from "./control-rpc.ts";
import type { Platform } from "./platform.ts";
import { ThreadPool } from "./thread-pool.ts";

/** @param workerUrl The compiled `*.worker.js` that exports the task. */
export function createSystemPlatform(workerUrl: URL): Platform {
  return {
    runtime: systemRuntime,
    createWorkerHost: (options) => new ThreadPool(workerUrl, options),
    createControlChannel: () => {
      const { port1, port2 } = new MessageChannel();
      return { port: port2, connect: (afterPost) => connectControl(port1, afterPost) };
    },
    openDirectory: async (path, { check, existing = false, shared = false } = {}) => {
      const disk = await (existing || shared ? openSystemDisk(path) : createSystemDisk(path));
      await check?.(disk);
      if (shared) return { disk, close: () => Promise.resolve() };
      const lock = await lockDirectory(path);
      return { disk, close: () => lock.close() };
    },
  };
}
