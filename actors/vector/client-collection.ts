/**
 * A collection of vectors as its users see it: upsert, get, delete, count, search, one-sided access.
 *
 * Runs on the client's thread, over a coordinator: ids are grouped by shard, one envelope per shard, answers merged under the
 * total order (score, id).
 *
 * Invariant: a batch is checked whole before its first byte is sent, so bad input writes nothing; an acknowledged
 * write is in its shard's regions and visible to every later read.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { Completeness } from "../../src/routing/gather.ts";
import { mergeRanked } from "../../src/routing/merge.ts";
import type { Payload } from "../../src/routing/requester.ts";
import { hashId } from "../../src/topology/stable-hash.ts";
import { ownerOf, vshardOfId } from "../../src/topology/snapshot.ts";
import { PRIORITY, VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { VECTOR_COUNT, VECTOR_DELETE, VECTOR_GET, VECTOR_SEARCH, VECTOR_STATUS, VECTOR_UPSERT } from "../../src/wire/message-types.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import type { CallOptions, Coordinator, ScatterOptions } from "../coordinator.ts";
import { idWordOf, type VectorId } from "./id-codec.ts";
import { assertMetadata, decodeMetadata, encodeMetadata, type Metadata } from "./metadata-codec.ts";
import type { ResolvedVectorOptions } from "./vector-options.ts";
import type { VectorReader } from "./vector-reader.ts";
import { readCountReply, readDeleteReply, readGetReply, readSearchReply, readStatusReply, readUpsertReply, type SearchHit, type VectorShardStatus } from "./vector-replies.ts";
import {
  filterRequestBytes,
  idsRequestBytes,
  INCLUDE,
  SEARCH_EXACT,
  searchRequestBytes,
  type UpsertItem,
  upsertItemBytes,
  upsertRequestBytes,
  writeFilterRequest,
  writeIdsRequest,
  writeSearchRequest,
  writeUpsertRequest,
} from "./vector-requests.ts";
import { assertK, assertVector, refuseDuplicate } from "./vector-checks.ts";

/** A document to store. */
export interface VectorDocument {
  /** A string of at most 4096 UTF-8 bytes, or a finite number. `1` and `"1"` are different ids. */
  readonly id: VectorId;
  /** Finite components, as many as the collection has dimensions. */
  readonly vector: ArrayLike<number>;
  /** Plain data to filter by and to get back. */
  readonly payload?: Metadata;
}

/** A document as it is stored. */
export interface StoredDocument {
  readonly id: VectorId;
  readonly version: number;
  readonly vector?: Float32Array;
  readonly payload?: Metadata;
}

/** One answer of a search. */
export interface VectorHit extends StoredDocument {
  /** Distance under the collection's metric; smaller is closer. */
  readonly score: number;
}

/** How far a bulk load is. */
export interface LoadProgress {
  /** Documents acknowledged so far. */
  readonly written: number;
  /** Of these, ids that were new. */
  readonly inserted: number;
}

/** Options of {@link VectorCollection.upsert}. */
export interface UpsertOptions extends CallOptions {
  /** Documents per batch of an iterable; arrays are one batch. `1..65536`. @default 512 */
  readonly batchSize?: number;
  /** Called after each acknowledged batch of an iterable. */
  readonly onProgress?: (progress: LoadProgress) => void;
}

/** Options of {@link VectorCollection.indexed}. */
export interface IndexedOptions extends CallOptions {
  readonly onProgress?: (progress: { readonly rows: number; readonly indexed: number }) => void;
}

/** Options of {@link VectorCollection.get}. */
export interface GetOptions extends CallOptions {
  /** @default true */
  readonly includeVector?: boolean;
  /** @default true */
  readonly includePayload?: boolean;
}

/** Options of {@link VectorCollection.search}. */
export interface SearchOptions extends ScatterOptions {
  /** Answers wanted, `1..65536`. @default 10 */
  readonly k?: number;
  /** Conditions on the payload; see `filter.ts`. Exact: k answers come back when k documents match. */
  readonly filter?: Metadata;
  /** Scan every vector instead of using the index. @default false */
  readonly exact?: boolean;
  /** Candidates of the index search; raises the collection's `expansionSearch`. @default 0, the collection's */
  readonly ef?: number;
  /** @default true */
  readonly includePayload?: boolean;
  /** @default false */
  readonly includeVector?: boolean;
}

/** What a search found, and how complete that is. */
export interface SearchResult {
  readonly hits: readonly VectorHit[];
  readonly completeness: Completeness;
}

/** What a collection is made of. */
export interface VectorCollectionParts {
  readonly name: string;
  readonly collectionId: number;
  readonly options: ResolvedVectorOptions;
  readonly coordinator: Coordinator;
  readonly reader: () => VectorReader;
  /** Throws when the collection was dropped or the cluster closed. */
  readonly assertOpen: () => void;
}

const DEFAULT_BATCH = 512;
/** Pause between two looks at the index. */
const INDEX_POLL_MS = 25;
/** Batches of an iterable that may be unacknowledged at once. */
const BATCHES_IN_FLIGHT = 4;

/** Handle on a collection, for one client thread. */
export class VectorCollection {
  readonly name: string;
  readonly options: ResolvedVectorOptions;
  readonly #parts: VectorCollectionParts;

  constructor(parts: VectorCollectionParts) {
    this.name = parts.name;
    this.options = parts.options;
    this.#parts = parts;
  }

  /**
   * Stores documents; an id that exists is replaced. An array is one batch, checked whole before anything is written; an
   * iterable is written batch by batch, and on an error `details.written` tells how many documents are stored.
   *
   * @throws {ShardloomError} `ERR_DIMENSION_MISMATCH`, `ERR_NOT_FINITE`, `ERR_DUPLICATE_ID`, `ERR_INVALID_ARGUMENT`,
   *   `ERR_RECORD_TOO_LARGE`, `ERR_OUT_OF_MEMORY`, and those of every call.
   */
  async upsert(
    documents: VectorDocument | readonly VectorDocument[] | Iterable<VectorDocument> | AsyncIterable<VectorDocument>,
    options: UpsertOptions = {},
  ): Promise<LoadProgress> {
    this.#parts.assertOpen();
    if (Array.isArray(documents)) return this.#upsertBatch(documents, options, PRIORITY.NORMAL);
    if (isIterable(documents)) return this.#load(documents, options);
    return this.#upsertBatch([documents as VectorDocument], options, PRIORITY.NORMAL);
  }

  /** One document, or undefined when the id is unknown. */
  async get(id: VectorId, options: GetOptions = {}): Promise<StoredDocument | undefined> {
    return (await this.getMany([id], options))[0];
  }

  /** Documents in the order of their ids; undefined where an id is unknown. */
  async getMany(ids: readonly VectorId[], options: GetOptions = {}): Promise<(StoredDocument | undefined)[]> {
    this.#parts.assertOpen();
    const flags = (options.includeVector === false ? 0 : INCLUDE.VECTOR) | (options.includePayload === false ? 0 : INCLUDE.PAYLOAD);
    const found: (StoredDocument | undefined)[] = new Array(ids.length).fill(undefined);
    await this.#perShard(ids, options, VECTOR_GET, flags, (frame, places) => {
      for (const [at, stored] of readGetReply(frame, frame.offset, frame.length).entries()) {
        const place = places[at] as number;
        if (stored !== undefined) found[place] = toDocument(ids[place] as VectorId, stored);
      }
    });
    return found;
  }

  /** Removes documents. @returns how many were there */
  async delete(ids: VectorId | readonly VectorId[], options: CallOptions = {}): Promise<number> {
    this.#parts.assertOpen();
    let deleted = 0;
    const list = typeof ids === "string" || typeof ids === "number" ? [ids] : ids;
    await this.#perShard(list, options, VECTOR_DELETE, 0, (frame) => {
      deleted += readDeleteReply(frame, frame.offset).deleted;
    });
    return deleted;
  }

  /** Number of documents, or of those that match a filter. */
  async count(options: CallOptions & { readonly filter?: Metadata } = {}): Promise<number> {
    const answers = await this.#everyShard(VECTOR_COUNT, options, (frame) => readCountReply(frame, frame.offset), options.filter);
    return answers.reduce((sum, rows) => sum + rows, 0);
  }

  /** Rows, index progress and memory of every shard, in shard order. */
  async status(options: CallOptions = {}): Promise<VectorShardStatus[]> {
    return this.#everyShard(VECTOR_STATUS, options, (frame) => readStatusReply(frame, frame.offset));
  }

  /**
   * Resolves when every stored document is in its shard's index, or its shard is small enough to be scanned. Searches are
   * exact for documents that wait for the index, only slower.
   */
  async indexed(options: IndexedOptions = {}): Promise<void> {
    const { coordinator } = this.#parts;
    const deadlineAtMs = coordinator.deadlineAtMs(options);
    for (;;) {
      const timeoutMs = Math.max(1, deadlineAtMs - coordinator.nowMs());
      const shards = await this.status({ timeoutMs, ...(options.signal === undefined ? {} : { signal: options.signal }) });
      const rows = shards.reduce((sum, shard) => sum + shard.rows, 0);
      const unindexed = shards.reduce((sum, shard) => sum + shard.unindexed, 0);
      options.onProgress?.({ rows, indexed: rows - unindexed });
      if (unindexed === 0) return;
      if (coordinator.nowMs() + INDEX_POLL_MS > deadlineAtMs) {
        throw new ShardloomError("ERR_TIMEOUT", `Cannot wait for the index of ${this.name} any longer as ${unindexed} of ${rows} documents are not in it`, {
          details: { rows, unindexed },
        });
      }
      await coordinator.pause(INDEX_POLL_MS);
    }
  }

  /** The nearest documents to a vector, in the total order (score, id). */
  async search(vector: ArrayLike<number>, options: SearchOptions = {}): Promise<SearchResult> {
    this.#parts.assertOpen();
    const { coordinator, collectionId } = this.#parts;
    const k = options.k ?? 10;
    assertK(k);
    assertVector("search", this.options.dimensions, vector);
    const request = {
      collectionId,
      k,
      ef: options.ef ?? 0,
      flags:
        (options.includePayload === false ? 0 : INCLUDE.PAYLOAD) |
        (options.includeVector === true ? INCLUDE.VECTOR : 0) |
        (options.exact === true ? SEARCH_EXACT : 0),
      queries: vector instanceof Float32Array ? vector : Float32Array.from(vector),
      dimensions: this.options.dimensions,
      filter: options.filter === undefined ? undefined : encodeMetadata(options.filter, "filter"),
    };
    const payload: Payload = {
      byteLength: searchRequestBytes(request),
      write: (target, offset) => writeSearchRequest(target, offset, request),
    };
    const { answers, completeness } = await coordinator.scatter<readonly SearchHit[]>(
      coordinator.shards,
      VECTOR_SEARCH,
      VSHARD_LISTED,
      () => payload,
      (frame) => readSearchReply(frame, frame.offset, frame.length)[0]?.hits ?? [],
      (hits) => hits.length,
      options,
    );
    return { hits: mergeRanked(answers, k).map((hit) => ({ ...toDocument(hit.id, hit), score: hit.score })), completeness };
  }

  /** Address, key and length of a stored vector, for one-sided reads; undefined when the id is unknown. Sends no message. */
  region(id: VectorId): RegionRef | undefined {
    this.#parts.assertOpen();
    return this.#parts.reader().region(id);
  }

  /** One-sided access to every shard of the collection from this thread. Sends no message. */
  reader(): VectorReader {
    this.#parts.assertOpen();
    return this.#parts.reader();
  }

  async #load(documents: Iterable<VectorDocument> | AsyncIterable<VectorDocument>, options: UpsertOptions): Promise<LoadProgress> {
    const batchSize = options.batchSize ?? DEFAULT_BATCH;
    let written = 0;
    let inserted = 0;
    const flying = new Set<Promise<void>>();
    let failure: unknown;
    const send = (batch: VectorDocument[]): void => {
      const flight = this.#upsertBatch(batch, options, PRIORITY.BULK).then(
        (progress) => {
          written += progress.written;
          inserted += progress.inserted;
          options.onProgress?.({ written, inserted });
        },
        (error: unknown) => {
          failure ??= error;
        },
      );
      flying.add(flight);
      void flight.finally(() => flying.delete(flight));
    };
    let batch: VectorDocument[] = [];
    let seen = new Set<VectorId>();
    try {
      for await (const document of documents) {
        // A repeated id starts a new batch: within a stream the later document simply replaces the earlier one.
        if (batch.length >= batchSize || seen.has(document.id)) {
          send(batch);
          batch = [];
          if (seen.has(document.id)) await Promise.all(flying);
          seen = new Set();
        }
        while (flying.size >= BATCHES_IN_FLIGHT) await Promise.race(flying);
        if (failure !== undefined) break;
        batch.push(document);
        seen.add(document.id);
      }
      if (batch.length > 0 && failure === undefined) send(batch);
    } catch (error) {
      failure ??= error;
    }
    await Promise.all(flying);
    if (failure !== undefined) throw withWritten(failure, written);
    return { written, inserted };
  }

  async #upsertBatch(documents: readonly VectorDocument[], options: CallOptions, priority: number): Promise<LoadProgress> {
    const { coordinator, collectionId } = this.#parts;
    const { dimensions } = this.options;
    const byShard = this.#plan(documents);
    const calls: Promise<number>[] = [];
    for (const [shard, items] of byShard) {
      const limit = coordinator.requester(shard).maxPayloadBytes;
      for (const [from, to] of split(items, dimensions, limit)) {
        const payload: Payload = {
          byteLength: upsertRequestBytes(dimensions, items, from, to),
          write: (target, offset) => writeUpsertRequest(target, offset, collectionId, dimensions, items, from, to),
        };
        const decode = (frame: Parameters<Parameters<Coordinator["ask"]>[4]>[0]): number => readUpsertReply(frame, frame.offset).inserted;
        calls.push(coordinator.ask(shard, VECTOR_UPSERT, VSHARD_LISTED, payload, decode, options, priority));
      }
    }
    const settled = await Promise.allSettled(calls);
    const failed = settled.find((entry) => entry.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    const inserted = settled.reduce((sum, entry) => sum + (entry.status === "fulfilled" ? entry.value : 0), 0);
    return { written: documents.length, inserted };
  }

  /** Checks a whole batch and groups it by shard. */
  #plan(documents: readonly VectorDocument[]): Map<number, UpsertItem[]> {
    const { snapshot } = this.#parts.coordinator;
    const seen = new Set<VectorId>();
    const byShard = new Map<number, UpsertItem[]>();
    for (const [at, document] of documents.entries()) {
      idWordOf(document.id);
      refuseDuplicate(seen, document.id, at);
      assertVector("upsert", this.options.dimensions, document.vector, document.id);
      if (document.payload !== undefined) assertMetadata(document.payload, document.id);
      const vshard = vshardOfId(snapshot, document.id);
      const payload = document.payload === undefined ? undefined : encodeMetadata(document.payload, "payload");
      const item: UpsertItem = { id: document.id, hash: hashId(document.id), vshard, vector: document.vector, payload };
      const shard = ownerOf(snapshot, vshard);
      const items = byShard.get(shard);
      if (items === undefined) byShard.set(shard, [item]);
      else items.push(item);
    }
    return byShard;
  }

  /** Sends ids to their shards, grouped; `take` gets each reply with the places of its ids in the caller's list. */
  async #perShard(
    ids: readonly VectorId[],
    options: CallOptions,
    type: number,
    flags: number,
    take: (frame: Parameters<Parameters<Coordinator["ask"]>[4]>[0], places: readonly number[]) => void,
  ): Promise<void> {
    const { coordinator, collectionId } = this.#parts;
    const groups = new Map<number, { ids: VectorId[]; hashes: number[]; places: number[] }>();
    for (const [place, id] of ids.entries()) {
      idWordOf(id);
      const shard = ownerOf(coordinator.snapshot, vshardOfId(coordinator.snapshot, id));
      const group = groups.get(shard) ?? { ids: [], hashes: [], places: [] };
      groups.set(shard, group);
      group.ids.push(id);
      group.hashes.push(hashId(id));
      group.places.push(place);
    }
    await Promise.all(
      [...groups].map(([shard, group]) => {
        const payload: Payload = {
          byteLength: idsRequestBytes(group.ids),
          write: (target, offset) => writeIdsRequest(target, offset, collectionId, group.ids, group.hashes, flags),
        };
        return coordinator.ask(shard, type, VSHARD_LISTED, payload, (frame) => take(frame, group.places), options);
      }),
    );
  }

  async #everyShard<T>(
    type: number,
    options: CallOptions,
    decode: (frame: Parameters<Parameters<Coordinator["ask"]>[4]>[0]) => T,
    filter?: Metadata,
  ): Promise<T[]> {
    this.#parts.assertOpen();
    const { coordinator, collectionId } = this.#parts;
    const bytes = filter === undefined ? undefined : encodeMetadata(filter, "filter");
    const payload: Payload = {
      byteLength: filterRequestBytes(bytes),
      write: (target, offset) => writeFilterRequest(target, offset, collectionId, bytes),
    };
    return Promise.all(coordinator.shards.map((shard) => coordinator.ask(shard, type, VSHARD_LISTED, payload, decode, options)));
  }
}

function toDocument(id: VectorId, stored: { version: number; vector?: Float32Array; payload?: Uint8Array }): StoredDocument {
  return {
    id,
    version: stored.version,
    ...(stored.vector === undefined ? {} : { vector: stored.vector }),
    ...(stored.payload === undefined ? {} : { payload: decodeMetadata(stored.payload) }),
  };
}

/** Ranges of items whose requests fit `limit` bytes each. */
function split(items: readonly UpsertItem[], dimensions: number, limit: number): [from: number, to: number][] {
  const ranges: [number, number][] = [];
  let from = 0;
  let bytes = upsertRequestBytes(dimensions, items, 0, 0);
  const header = bytes;
  for (const [at, item] of items.entries()) {
    const itemBytes = upsertItemBytes(dimensions, item);
    if (header + itemBytes > limit) {
      throw new ShardloomError("ERR_RECORD_TOO_LARGE", `Cannot upsert ${JSON.stringify(item.id)} as a document must take at most ${limit - header} bytes: current value is ${itemBytes}`, {
        details: { id: item.id, byteLength: itemBytes, limit: limit - header },
      });
    }
    if (bytes + itemBytes > limit) {
      ranges.push([from, at]);
      from = at;
      bytes = header;
    }
    bytes += itemBytes;
  }
  ranges.push([from, items.length]);
  return ranges;
}

function isIterable(value: unknown): value is Iterable<VectorDocument> | AsyncIterable<VectorDocument> {
  return typeof value === "object" && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value);
}

function withWritten(error: unknown, written: number): ShardloomError {
  const base = ShardloomError.from(error);
  return new ShardloomError(base.code, base.message, { details: { ...base.details, written }, cause: base.cause ?? base, retryable: base.retryable });
}
