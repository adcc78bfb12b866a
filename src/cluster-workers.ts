/**
 * The worker threads of a cluster, as its options want them: their control plane, not started yet.
 *
 * Invariant: whatever a worker is started with, the first one and every successor, follows from the cluster's options and from
 * memory that outlives the worker.
 */
import { callDefaults, type ResolvedClusterOptions } from "./cluster-options.ts";
import { ControlPlane } from "./plane/control-plane.ts";
import { systemClock } from "./runtime/clock.ts";
import { systemScheduler } from "./runtime/scheduler.ts";

/** What all workers share, and what a successor takes over. */
export type WorkerMemory = Pick<
  ConstructorParameters<typeof ControlPlane>[0],
  "topology" | "replicas" | "memory" | "kernels" | "recover"
>;

const WORKER_URL: URL = new URL("../actors/shard.worker.js", import.meta.url);

export function createWorkers(options: ResolvedClusterOptions, shared: WorkerMemory): ControlPlane {
  const { creditMessages } = options;
  return new ControlPlane({
    ...shared,
    clock: systemClock,
    scheduler: systemScheduler,
    shards: options.workers,
    workerUrl: WORKER_URL,
    actorUrls: options.actors.map((url) => url.href),
    bridge: {
      requestCapacityBytes: options.requestRingBytes,
      replyCapacityBytes: options.replyRingBytes,
      creditMessages,
    },
    mesh: { requestCapacityBytes: options.meshRingBytes, replyCapacityBytes: options.meshRingBytes, creditMessages },
    maxHandlerMs: options.maxHandlerMs,
    maxNativeMs: options.maxNativeMs,
    startTimeoutMs: options.startTimeoutMs,
    spinLimitUs: options.spinLimitUs,
    defaults: callDefaults(options),
    workerNice: options.workerNice,
    ...(options.maxHeapMb === undefined ? {} : { maxHeapMb: options.maxHeapMb }),
  });
}
