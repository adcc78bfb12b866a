/**
 * A cluster composed as `Cluster` composes it, with its coordinator in reach: the direct side of bench `search` sends the same
 * workers envelopes that the public API has no call for.
 */

import { collectionIdOf } from "../../actors/collection-id.ts";
import { Coordinator } from "../../actors/coordinator.ts";
import type { VectorCollection } from "../../actors/vector/client-collection.ts";
import { VectorCatalog } from "../../actors/vector/vector-catalog.ts";
import type { VectorCollectionOptions } from "../../actors/vector/vector-options.ts";
import { Arena, createArena } from "../../native-bridge/arena.ts";
import { compileKernels, Kernels } from "../../native-bridge/kernels.ts";
import { RegionTable } from "../../native-bridge/region-table.ts";
import { callDefaults, resolveClusterOptions } from "../../src/cluster-options.ts";
import { ClientPlane } from "../../src/plane/client-plane.ts";
import { ControlPlane } from "../../src/plane/control-plane.ts";
import { createSystemPlatform } from "../../src/plane/system-platform.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { createReplicaBlock } from "../../src/topology/replica-table.ts";
import { createSnapshot } from "../../src/topology/snapshot.ts";
import { createTopologyBlock, SharedTopology } from "../../src/topology/topology-source.ts";

const MAIN_OWNER = 0xffff;

export interface SearchStage {
  readonly coordinator: Coordinator;
  readonly collection: VectorCollection;
  /** The number that envelopes name the collection by. */
  readonly collectionId: number;
  close(): Promise<void>;
}

export async function openStage(
  workers: number,
  spinLimitUs: number,
  collectionOptions: VectorCollectionOptions,
): Promise<SearchStage> {
  const options = resolveClusterOptions({ workers, spinLimitUs, requestTimeoutMs: 120_000 });
  const { creditMessages } = options;
  const snapshot = createSnapshot({ shards: workers, vshards: options.vshards });
  const topologyBlock = createTopologyBlock(snapshot);
  const topology = new SharedTopology(topologyBlock);
  const memory = createArena({ capacityBytes: options.memoryBytes });
  const module = compileKernels();
  const arena = new Arena(memory);
  const kernels = new Kernels(module, arena, undefined, MAIN_OWNER);
  const client = new ClientPlane({
    name: "main",
    clock: systemClock,
    scheduler: systemScheduler,
    topology,
    spinLimitUs,
  });
  const coordinator = new Coordinator({
    clock: systemClock,
    scheduler: systemScheduler,
    topology,
    requester: (shard) => client.requester(shard),
    defaults: callDefaults(options),
    random: systemRandom,
  });
  const control = new ControlPlane({
    platform: createSystemPlatform(new URL("../../actors/shard.worker.cjs", import.meta.url)),
    shards: Array.from({ length: workers }, (_, shard) => shard),
    firstIncarnation: 1,
    topology: topologyBlock,
    replicas: createReplicaBlock(snapshot),
    memory,
    kernels: module,
    actorUrls: [],
    bridge: {
      requestCapacityBytes: options.requestRingBytes,
      replyCapacityBytes: options.replyRingBytes,
      creditMessages,
    },
    mesh: { requestCapacityBytes: options.meshRingBytes, replyCapacityBytes: options.meshRingBytes, creditMessages },
    maxHandlerMs: options.maxHandlerMs,
    maxNativeMs: options.maxNativeMs,
    startTimeoutMs: options.startTimeoutMs,
    defaults: callDefaults(options),
    spinLimitUs: options.spinLimitUs,
    workerNice: options.workerNice,
    recover: () => [],
  });
  await control.start(client);
  const regions = new RegionTable(arena, MAIN_OWNER, () => systemRandom.u32());
  const catalog = new VectorCatalog({ coordinator, memory: { arena, kernels, regions }, assertOpen: () => undefined });
  const collection = await catalog.open("bench", collectionOptions);
  const close = async (): Promise<void> => {
    client.close();
    await control.close({ timeoutMs: 10_000, force: true });
  };
  return { coordinator, collection, collectionId: collectionIdOf("vector", "bench", 0), close };
}
