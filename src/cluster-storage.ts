/**
 * A node's directory, or its part of a place in NATS, as its cluster uses it: opened and locked before anything is started, given free after
 * everything has ended.
 *
 * Invariant: no worker is started, and nothing is sent to other nodes, before the directory is this node's and its start is counted: each life of
 * the node has a number of its own, as far as the directory reaches back. Without the options `directory` and `nats` there is none of this.
 */
import { resolve } from "node:path";
import type { DocumentKeeping } from "./cluster-documents.ts";
import { type NodePlace, placeOf } from "./cluster-nodes.ts";
import type { ResolvedClusterOptions } from "./cluster-options.ts";
import type { ClusterEnvironment } from "./cluster-types.ts";
import { invalidArgument, type ShardloomError } from "./errors.ts";
import type { DocumentsThread } from "./plane/documents-thread.ts";
import type { NodesOptions } from "./plane/node-links.ts";
import type { OpenDirectory } from "./plane/platform.ts";
import type { ShardStorage } from "./plane/shard-task.ts";
import type { Disk } from "./runtime/disk.ts";
import { startPatiently } from "./runtime/patience.ts";
import { CollectionStore } from "./store/collection-store.ts";
import {
  checkDataDirectory,
  type DirectoryRecord,
  type DirectoryShape,
  readDataDirectory,
  startDataDirectory,
} from "./store/data-directory.ts";
import { checkShardFormats } from "./store/directory-formats.ts";
import { vetDocuments } from "./store/document-recovery.ts";
import { openKeptLeaseStore } from "./topology/kept-lease-store.ts";
import type { LeaseStore } from "./topology/lease-store.ts";
import type { LeaseWords } from "./topology/lease-words.ts";
import { firstShardIncarnation, MAX_NODE_INCARNATION } from "./topology/member.ts";

/** Name of the one node of a cluster that is one process. */
const NODE = "local";
/** Shards that the table of durable positions has room for. */
const MAX_SHARDS = 256;

/** What is open of a node: a directory, or a part of a place in NATS. */
interface OpenPlace extends OpenDirectory {
  /** Of a directory. */
  readonly path?: string;
  /** Keeps a former owner from serving; absent where a lock does. */
  guard?(words: LeaseWords): void;
}

/** The open directory of a cluster. */
export class ClusterStorage {
  readonly record: DirectoryRecord;
  readonly collections: CollectionStore;
  /** Leases, and the map of all lives. */
  readonly leases: LeaseStore;
  /** How far each shard's log is durable, see {@link ShardStorage.durable}. */
  readonly durable: SharedArrayBuffer = new SharedArrayBuffer(MAX_SHARDS * Float64Array.BYTES_PER_ELEMENT);
  /** Which shards have loaded what they have on disk, see {@link ShardStorage.loaded}. */
  readonly loaded: SharedArrayBuffer = new SharedArrayBuffer(MAX_SHARDS * Int32Array.BYTES_PER_ELEMENT);
  readonly #place: OpenPlace;
  readonly #options: ResolvedClusterOptions;
  readonly #environment: ClusterEnvironment;
  #documents: DocumentsThread | undefined;

  private constructor(
    place: OpenPlace,
    record: DirectoryRecord,
    collections: CollectionStore,
    leases: LeaseStore,
    options: ResolvedClusterOptions,
    environment: ClusterEnvironment,
  ) {
    this.#environment = environment;
    this.#place = place;
    this.record = record;
    this.collections = collections;
    this.leases = leases;
    this.#options = options;
  }

  /**
   * Opens the directory or the place in NATS that the options name; undefined when they name none.
   *
   * @throws {ShardloomError} `ERR_DIRECTORY_IN_USE`, `ERR_DIRECTORY_MISMATCH`, `ERR_UNSUPPORTED_FORMAT`, `ERR_CORRUPT`: then nothing was
   *   changed; `ERR_UNAVAILABLE` when it was started too often, or no server of NATS answers within `startTimeoutMs`; and as disks do.
   */
  static async open(
    environment: ClusterEnvironment,
    options: ResolvedClusterOptions,
  ): Promise<ClusterStorage | undefined> {
    const { nats, startTimeoutMs: limitMs } = options;
    const open = (): Promise<ClusterStorage | undefined> => ClusterStorage.#open(environment, options);
    if (nats === undefined) return open();
    const { onWaiting } = environment;
    return startPatiently(environment.platform.runtime, nats.servers, { limitMs, onWaiting }, open);
  }

  static async #open(
    environment: ClusterEnvironment,
    options: ResolvedClusterOptions,
  ): Promise<ClusterStorage | undefined> {
    const { platform, nodes } = environment;
    const shape = shapeOf(nodes, options);
    const place = await openPlace(environment, options, async (disk) => {
      await checkDataDirectory(disk, shape);
      await checkShardFormats(disk, shape.ownShards);
    });
    if (place === undefined) return undefined;
    try {
      const { disk } = place;
      const isNew = (await readDataDirectory(disk)) === undefined;
      // Before the file that makes the directory one: if that is there, so is this.
      const collections = await CollectionStore.open(disk, isNew);
      const leases = await openKeptLeaseStore(disk);
      const record = await startDataDirectory(disk, {
        shape,
        leastStarts: nodes?.incarnation ?? 1,
        maxStarts: MAX_NODE_INCARNATION,
        randomU32: () => platform.runtime.random.u32(),
      });
      return new ClusterStorage(place, record, collections, leases, options, environment);
    } catch (error) {
      await place.close().catch(() => undefined); // the first error says more
      throw error;
    }
  }

  /** Undefined where everything is in NATS. */
  get directory(): OpenDirectory | undefined {
    return this.#place.path === undefined ? undefined : this.#place;
  }

  /** From now on workers serve only while nobody else has opened what is open here. */
  guard(words: LeaseWords): void {
    this.#place.guard?.(words);
  }

  /** How often the directory was started, this time included. */
  get starts(): number {
    return this.record.starts;
  }

  /** What the next worker is told. */
  task(): ShardStorage {
    const { nats, durability, snapshotBytes, snapshotBytesPerSecond } = this.#options;
    const { path } = this.#place;
    return {
      ...(path === undefined ? {} : { directory: path }),
      ...(nats === undefined ? {} : { nats }),
      durability,
      ...(this.#keeping === undefined ? {} : { documents: { clusterId: this.record.cluster } }),
      snapshotBytes,
      snapshotBytesPerSecond,
      collections: this.collections.kept.collections.map(({ engine, name, collection, options }) => ({
        engine,
        name,
        collection,
        options,
      })),
      durable: this.durable,
      loaded: this.loaded,
    };
  }

  /** Scrubs what the last life has left of the documents, unless it was closed in order. Before any worker starts. */
  async vetDocuments(shards: readonly number[]): Promise<void> {
    const keeping = this.#keeping;
    const { disk, path } = this.#place;
    if (keeping === undefined || path === undefined) return;
    const { scheduler, random } = this.#environment.platform.runtime;
    const source = { disk, directory: path, clusterId: this.record.cluster, scrub: keeping.scrubber(scheduler) };
    for (const shard of shards) await vetDocuments({ ...source, shard, randomU32: () => random.u32() });
  }

  /** Keeps documents from now on: every shard's log is open. */
  keepDocuments(shards: readonly number[]): void {
    const { path } = this.#place;
    if (path === undefined) return;
    this.#documents = this.#keeping?.start({
      directory: path,
      clusterId: this.record.cluster,
      shards,
      collections: this.collections.kept.collections.map(({ collection }) => collection),
      durable: this.durable,
    });
  }

  /** Why the documents of a shard do not follow its log at present; undefined: they do, or none are kept. */
  documentsFailure(shard: number): ShardloomError | undefined {
    return this.#documents?.failure(shard);
  }

  get #keeping(): DocumentKeeping | undefined {
    const { documents, durability } = this.#options;
    return documents && durability !== "memory" ? this.#environment.documents : undefined;
  }

  /** Gives the directory free. Everything that uses it must have ended. */
  async close(): Promise<void> {
    await this.#documents?.close();
    await this.#place.close();
  }
}

/** Opens what the options name, for this node alone. @param check Throws unless it is this node's. */
async function openPlace(
  { platform, nodes, openNats }: ClusterEnvironment,
  { directory, nats, leaseMs }: ResolvedClusterOptions,
  check: (disk: Disk) => Promise<void>,
): Promise<OpenPlace | undefined> {
  if (directory !== undefined) {
    const path = resolve(directory);
    return { ...(await platform.openDirectory(path, { check })), path };
  }
  if (nats === undefined) return undefined;
  if (openNats === undefined)
    throw invalidArgument("start cluster", "nats", "absent where there is no network", nats.servers);
  const place = await openNats(nats, nodes?.self ?? NODE, leaseMs, platform.runtime);
  try {
    await check(place.disk);
    return place;
  } catch (error) {
    await place.close().catch(() => undefined); // the first error says more
    throw error;
  }
}

/** What a cluster stands on whose directory counts its lives. */
export function environmentOf(
  environment: ClusterEnvironment,
  storage: ClusterStorage | undefined,
): ClusterEnvironment {
  const { platform, nodes } = environment;
  if (nodes === undefined || storage === undefined) return environment;
  return { platform, nodes: { ...nodes, incarnation: storage.record.starts } };
}

/** Where a node stands whose lives its directory counts: as {@link placeOf}, with the numbers of this life. */
export function storedPlace(
  nodes: NodesOptions | undefined,
  options: ResolvedClusterOptions,
  storage: ClusterStorage | undefined,
): NodePlace {
  const place = placeOf(nodes, options);
  if (nodes !== undefined || storage === undefined) return place;
  const { starts } = storage.record;
  return { ...place, firstIncarnation: firstShardIncarnation(starts), threads: `${NODE}#${starts}/` };
}

function shapeOf(nodes: NodesOptions | undefined, options: ResolvedClusterOptions): DirectoryShape {
  const { shards, own } = placeOf(nodes, options);
  const { vshards, replicationFactor } = options;
  const name = nodes?.cluster === undefined ? {} : { clusterName: nodes.cluster };
  return { ...name, node: nodes?.self ?? NODE, ownShards: own, shards, vshards, replicationFactor };
}

/** What `make` gives; when it throws the directory is given free. */
export async function releasing<T>(storage: ClusterStorage | undefined, make: () => T): Promise<T> {
  try {
    return make();
  } catch (error) {
    await storage?.close().catch(() => undefined); // the first error says more
    throw error;
  }
}
