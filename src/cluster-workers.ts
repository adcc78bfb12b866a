/**
 * The worker threads of a cluster, as its options want them: their control plane, not started yet.
 *
 * Invariant: whatever a worker is started with, the first one and every successor, follows from the cluster's options and from
 * memory that outlives the worker.
 */
import type { NodePlace } from "./cluster-nodes.ts";
import { callDefaults, type ResolvedClusterOptions } from "./cluster-options.ts";
import { ControlPlane } from "./plane/control-plane.ts";
import type { Platform } from "./plane/platform.ts";
import { createSystemPlatform } from "./plane/system-platform.ts";

/** What all workers share, and what a successor takes over. */
export type WorkerMemory = Pick<
  ConstructorParameters<typeof ControlPlane>[0],
  "topology" | "replicas" | "memory" | "kernels" | "recover" | "links" | "storage"
>;

const WORKER_URL: URL = new URL("../actors/shard.worker.cjs", import.meta.url);

/** Real threads, that run our worker. */
export function realPlatform(): Platform {
  return createSystemPlatform(WORKER_URL);
}

export function createWorkers(
  platform: Platform,
  options: ResolvedClusterOptions,
  place: NodePlace,
  shared: WorkerMemory,
): ControlPlane {
  const { creditMessages } = options;
  return new ControlPlane({
    ...shared,
    platform,
    shards: place.own,
    firstIncarnation: place.firstIncarnation,
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
