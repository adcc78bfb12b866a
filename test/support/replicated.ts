/**
 * A cluster of real threads whose vshards have copies, with everything in reach that users do not reach: the coordinator, for requests
 * to one copy, and the replica table.
 */

import { ActorRouter } from "../../actors/actor-router.ts";
import { collectionIdOf } from "../../actors/collection-id.ts";
import { Coordinator } from "../../actors/coordinator.ts";
import { RoutedPayload } from "../../actors/routed-payload.ts";
import type { VectorCollection } from "../../actors/vector/client-collection.ts";
import { VectorCatalog } from "../../actors/vector/vector-catalog.ts";
import type { VectorCollectionOptions } from "../../actors/vector/vector-options.ts";
import {
  readCountReply,
  readDeleteReply,
  readGetReply,
  readSearchReply,
  readUpsertReply,
  type StoredVector,
  type UpsertReply,
} from "../../actors/vector/vector-replies.ts";
import {
  filterRequestBytes,
  INCLUDE,
  idsRequestBytes,
  SEARCH_EXACT,
  searchRequestBytes,
  type UpsertItem,
  upsertRequestBytes,
  writeFilterRequest,
  writeIdsRequest,
  writeSearchRequest,
  writeUpsertRequest,
} from "../../actors/vector/vector-requests.ts";
import { Arena, createArena } from "../../native-bridge/arena.ts";
import { compileKernels, Kernels } from "../../native-bridge/kernels.ts";
import { RegionTable } from "../../native-bridge/region-table.ts";
import { createActorRef } from "../../src/actor/actor-ref.ts";
import { callDefaults, resolveClusterOptions } from "../../src/cluster-options.ts";
import { ClientPlane } from "../../src/plane/client-plane.ts";
import { ControlPlane } from "../../src/plane/control-plane.ts";
import { createSystemPlatform } from "../../src/plane/system-platform.ts";
import type { Payload, ReplyFrame } from "../../src/routing/requester.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { systemRandom } from "../../src/runtime/random.ts";
import { systemScheduler } from "../../src/runtime/scheduler.ts";
import { createReplicaBlock, ReplicaTable } from "../../src/topology/replica-table.ts";
import { createSnapshot, type TopologySnapshot, vshardOfActor, vshardOfHash } from "../../src/topology/snapshot.ts";
import { hashId } from "../../src/topology/stable-hash.ts";
import { createTopologyBlock, SharedTopology } from "../../src/topology/topology-source.ts";
import { VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { VECTOR_COUNT, VECTOR_DELETE, VECTOR_GET, VECTOR_SEARCH, VECTOR_UPSERT } from "../../src/wire/message-types.ts";
import {
  CONSISTENCY,
  type RoutedReply,
  type RoutedRequest,
  readRoutedReply,
  SCOPE,
} from "../../src/wire/routed-codec.ts";
import { createValueCodec } from "../../src/wire/value-codec.ts";
import { saboteur } from "./actors.ts";
import { ACTORS_URL, eventually } from "./cluster.ts";

/** A document on its way. */
export interface Doc {
  readonly id: string | number;
  readonly vector: Float32Array;
  readonly payload?: Uint8Array;
}

/** What a shard answered, and for which vshards it did not. */
export interface Answer<T> {
  readonly value: T;
  readonly routed: RoutedReply;
}

export interface ReplicatedOptions {
  readonly workers: number;
  readonly replicationFactor: number;
  readonly vshards?: number;
  readonly meshRingBytes?: number;
  readonly requestTimeoutMs?: number;
  readonly memoryBytes?: number;
}

export const DIMENSIONS = 8;
/** Id of the collection that a stage opens by default. */
const DOCS: number = collectionIdOf("vector", "docs", 0);
const WORKER_URL: URL = new URL("../../actors/shard.worker.cjs", import.meta.url);

/** Read of every vshard that a shard holds a copy of, however old. */
export const ANY_COPY: RoutedRequest = { consistency: CONSISTENCY.EVENTUAL, scope: SCOPE.HELD };

export class ReplicatedStage {
  readonly snapshot: TopologySnapshot;
  readonly table: ReplicaTable;
  readonly coordinator: Coordinator;
  readonly control: ControlPlane;
  readonly catalog: VectorCatalog;
  readonly #client: ClientPlane;
  readonly #router: ActorRouter;

  private constructor(
    snapshot: TopologySnapshot,
    table: ReplicaTable,
    coordinator: Coordinator,
    control: ControlPlane,
    catalog: VectorCatalog,
    client: ClientPlane,
    router: ActorRouter,
  ) {
    this.snapshot = snapshot;
    this.table = table;
    this.coordinator = coordinator;
    this.control = control;
    this.catalog = catalog;
    this.#client = client;
    this.#router = router;
  }

  static async start(given: ReplicatedOptions): Promise<ReplicatedStage> {
    const options = resolveClusterOptions({
      memoryBytes: 256 * 1024 * 1024,
      vshards: 16,
      maxHandlerMs: 20_000,
      ...given,
    });
    const { workers: shards, vshards, replicationFactor, creditMessages } = options;
    const snapshot = createSnapshot({ shards, vshards, replicationFactor });
    const block = createTopologyBlock(snapshot);
    const replicas = createReplicaBlock(snapshot);
    const topology = new SharedTopology(block);
    const memory = createArena({ capacityBytes: options.memoryBytes });
    const module = compileKernels();
    const arena = new Arena(memory);
    const clock = systemClock;
    const scheduler = systemScheduler;
    const client = new ClientPlane({ name: "main", clock, scheduler, topology, spinLimitUs: options.spinLimitUs });
    const table = new ReplicaTable(replicas, topology, () => clock.nowMs());
    const coordinator = new Coordinator({
      clock,
      scheduler,
      random: systemRandom,
      topology,
      requester: (shard) => client.requester(shard),
      defaults: callDefaults(options),
      lag: table,
    });
    const catalog = new VectorCatalog({
      coordinator,
      memory: {
        arena,
        kernels: new Kernels(module, arena, undefined, 0xffff),
        regions: new RegionTable(arena, 0xffff, () => systemRandom.u32()),
      },
      assertOpen: () => undefined,
    });
    const control = new ControlPlane({
      platform: createSystemPlatform(WORKER_URL),
      shards: Array.from({ length: shards }, (_, shard) => shard),
      firstIncarnation: 1,
      topology: block,
      replicas,
      memory,
      kernels: module,
      actorUrls: [ACTORS_URL.href],
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
      recover: (shard) => catalog.recoverTasks(shard),
    });
    control.on("worker-restarted", ({ shard, ready }) => catalog.recovered(shard, ready.recovered));
    const [ready] = await control.start(client);
    const router = new ActorRouter({ coordinator, codec: createValueCodec(), table: ready?.actors ?? [] });
    return new ReplicatedStage(snapshot, table, coordinator, control, catalog, client, router);
  }

  open(name = "docs", options: Partial<VectorCollectionOptions> = {}): Promise<VectorCollection> {
    return this.catalog.open(name, { dimensions: DIMENSIONS, metric: "l2", ...options });
  }

  async close(): Promise<void> {
    this.#client.close();
    await this.control.close({ timeoutMs: 10_000, force: true });
  }

  vshardOf(id: string | number): number {
    return vshardOfHash(this.snapshot, hashId(id));
  }

  /** Shards that hold copies of a vshard, the primary first. */
  copiesOf(vshard: number): number[] {
    const { copies, replicationFactor } = this.snapshot;
    return [...copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor)];
  }

  /** Integer ids whose vshards have their primary on a shard, from `from` on. */
  idsOn(shard: number, count: number, from = 0): number[] {
    const ids: number[] = [];
    for (let id = from; ids.length < count; id++) if (this.snapshot.owners[this.vshardOf(id)] === shard) ids.push(id);
    return ids;
  }

  /** The test actor that does what breaks things, on a shard's thread. */
  saboteurOn(shard: number): ReturnType<typeof createActorRef<typeof saboteur>> {
    for (let at = 0; ; at++) {
      const key = `key-${at}`;
      if (this.snapshot.owners[vshardOfActor(this.snapshot, saboteur.name, key)] === shard)
        return createActorRef(saboteur, key, this.#router);
    }
  }

  /** Kills a shard's worker and waits for the next. */
  async kill(shard: number): Promise<void> {
    const next = new Promise((resolve) => this.control.once("worker-restarted", resolve));
    await this.saboteurOn(shard)
      .exit(1)
      .catch(() => undefined);
    await next;
  }

  /** Writes documents, all of which have their primary on one shard, with one request. */
  upsert(shard: number, docs: readonly Doc[], acks: number, timeoutMs = 5_000): Promise<Answer<UpsertReply>> {
    const items: UpsertItem[] = docs.map(({ id, vector, payload }) => {
      const hash = hashId(id);
      return { id, hash, vshard: vshardOfHash(this.snapshot, hash), vector, payload };
    });
    return this.ask(
      shard,
      VECTOR_UPSERT,
      { consistency: CONSISTENCY.WRITE, scope: SCOPE.PRIMARY, acks },
      {
        byteLength: upsertRequestBytes(DIMENSIONS, items),
        write: (m, offset) => writeUpsertRequest(m, offset, DOCS, DIMENSIONS, items),
      },
      (frame, offset) => readUpsertReply(frame, offset),
      timeoutMs,
    );
  }

  /** Removes documents, all of which have their primary on one shard. */
  remove(shard: number, ids: readonly number[], acks: number): Promise<Answer<number>> {
    return this.ask(
      shard,
      VECTOR_DELETE,
      { consistency: CONSISTENCY.WRITE, scope: SCOPE.PRIMARY, acks },
      {
        byteLength: idsRequestBytes(ids),
        write: (m, offset) => writeIdsRequest(m, offset, DOCS, ids, ids.map(hashId)),
      },
      (frame, offset) => readDeleteReply(frame, offset).deleted,
    );
  }

  get(
    shard: number,
    ids: readonly (string | number)[],
    prefix: RoutedRequest,
  ): Promise<Answer<(StoredVector | undefined)[]>> {
    return this.ask(
      shard,
      VECTOR_GET,
      prefix,
      {
        byteLength: idsRequestBytes(ids),
        write: (m, offset) => writeIdsRequest(m, offset, DOCS, ids, ids.map(hashId), INCLUDE.PAYLOAD | INCLUDE.VECTOR),
      },
      (frame, offset, length) => readGetReply(frame, offset, length),
    );
  }

  count(shard: number, prefix: RoutedRequest): Promise<Answer<number>> {
    return this.ask(
      shard,
      VECTOR_COUNT,
      prefix,
      { byteLength: filterRequestBytes(), write: (m, offset) => writeFilterRequest(m, offset, DOCS) },
      (frame, offset) => readCountReply(frame, offset),
    );
  }

  /** Ids of the k nearest, exactly or through the index. */
  search(
    shard: number,
    query: Float32Array,
    k: number,
    prefix: RoutedRequest,
    exact = true,
  ): Promise<Answer<(string | number)[]>> {
    const request = {
      collectionId: DOCS,
      k,
      ef: 0,
      flags: exact ? SEARCH_EXACT : 0,
      queries: query,
      dimensions: query.length,
    };
    return this.ask(
      shard,
      VECTOR_SEARCH,
      prefix,
      { byteLength: searchRequestBytes(request), write: (m, offset) => writeSearchRequest(m, offset, request) },
      (frame, offset, length) => (readSearchReply(frame, offset, length)[0]?.hits ?? []).map(({ id }) => id),
    );
  }

  ask<T>(
    shard: number,
    type: number,
    prefix: RoutedRequest,
    body: Payload,
    decode: (frame: ReplyFrame, offset: number, length: number) => T,
    timeoutMs = 5_000,
  ): Promise<Answer<T>> {
    const read = (frame: ReplyFrame): Answer<T> => {
      const routed = readRoutedReply(frame, frame.offset, frame.length);
      const { byteLength } = routed;
      return { routed, value: decode(frame, frame.offset + byteLength, frame.length - byteLength) };
    };
    return this.coordinator.ask(shard, type, VSHARD_LISTED, new RoutedPayload(prefix, body), read, { timeoutMs });
  }

  /** Resolves when every copy of every vshard has what its primary has. */
  level(): Promise<void> {
    return eventually("the copies being level", () => {
      for (let vshard = 0; vshard < this.snapshot.vshards; vshard++)
        for (const shard of this.copiesOf(vshard))
          if (this.table.appliedLsn(vshard, shard) !== this.table.head(vshard)) return false;
      return true;
    });
  }

  /** All rows of a list of ids on a copy, as text: id, version, vector and payload of each. Ids it has none of are left out. */
  async contents(vshard: number, shard: number, ids: readonly number[]): Promise<string[]> {
    const own = ids.filter((id) => this.vshardOf(id) === vshard);
    const prefix = {
      consistency: CONSISTENCY.EVENTUAL,
      scope: SCOPE.LISTED,
      vshards: Uint16Array.of(vshard),
    } as const;
    const found = await Promise.all(
      own.map(async (id) => {
        const { value, routed } = await this.get(shard, [id], prefix);
        if (routed.refused.length > 0) throw new Error(`vshard ${vshard} is refused by shard ${shard}`);
        const [stored] = value;
        return stored && `${id} v${stored.version} ${stored.vector?.join()} ${stored.payload?.join() ?? ""}`;
      }),
    );
    return found.filter((text) => text !== undefined);
  }

  /** Throws unless all copies of every vshard have the same rows, no others, and no more than they count. @returns rows */
  async assertEqualCopies(ids: readonly number[]): Promise<number> {
    let rows = 0;
    for (let vshard = 0; vshard < this.snapshot.vshards; vshard++) {
      const [primary = 0, ...replicas] = this.copiesOf(vshard);
      const expected = await this.contents(vshard, primary, ids);
      rows += expected.length;
      for (const shard of [primary, ...replicas]) {
        const found = await this.contents(vshard, shard, ids);
        if (found.join("\n") !== expected.join("\n"))
          throw new Error(`vshard ${vshard}: shard ${shard} has\n${found.join("\n")}\nnot\n${expected.join("\n")}`);
        const { value } = await this.count(shard, {
          consistency: CONSISTENCY.EVENTUAL,
          scope: SCOPE.LISTED,
          vshards: Uint16Array.of(vshard),
        });
        if (value !== expected.length)
          throw new Error(`vshard ${vshard}: shard ${shard} counts ${value} rows of ${expected.length}`);
      }
    }
    return rows;
  }
}

/** A document whose content tells its id and generation. */
export function doc(id: number, generation = 0): Doc {
  return {
    id,
    vector: new Float32Array(DIMENSIONS).fill(id).fill(generation, DIMENSIONS - 1),
    payload: Uint8Array.from([0x81, 0xa1, 0x67, generation & 0x7f]),
  };
}
