/**
 * A collection of vectors as its users see it: upsert, get, delete, count, search, one-sided access.
 * Runs on the client's thread: ids are grouped by shard, one envelope per shard, answers merged under the total order (score, id).
 * Invariant: a batch is checked whole before its first byte is sent; an acknowledged write is in its shard's regions, for every later read.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { STATUS } from "../../native-bridge/status.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { Completeness, GatherPolicy } from "../../src/routing/gather.ts";
import type { Strategy } from "../../src/routing/plan.ts";
import type { Payload, ReplyFrame } from "../../src/routing/requester.ts";
import { assertBatch, type LoadProgress } from "../../src/store/bulk-load.ts";
import type { VectorId } from "../../src/store/id-codec.ts";
import { decodeMetadata, type Metadata } from "../../src/store/metadata-codec.ts";
import { VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { VECTOR_COUNT, VECTOR_STATUS } from "../../src/wire/message-types.ts";
import {
  type CallOptions,
  checkPlainRead,
  type PlainReadOptions,
  type ReadOptions,
  refuseKey,
  type WriteOptions,
} from "../call-options.ts";
import type { Coordinator } from "../coordinator.ts";
import { type ExplainedValue, type Explaining, explainedRead } from "../explained-value.ts";
import type { Explanation, Reading } from "../planned-read.ts";
import type { SearchFallback } from "../search-fallback.ts";
import type { ShardReader } from "../shard-reader.ts";
import { type DocumentSource, loadDocuments } from "./bulk-load.ts";
import { type BatchSearchOptions, type BatchSearchResult, searchBatch } from "./client-batch.ts";
import { deleteIds, getIds } from "./client-ids.ts";
import { prepareItem, refuseDuplicates, upsertItems } from "./client-upsert.ts";
import { encodeFilter } from "./filter.ts";
import { searchBy } from "./strategy/client-strategy.ts";
import { assertTarget } from "./vector-checks.ts";
import { VectorMemory } from "./vector-memory.ts";
import type { ResolvedVectorOptions, StrategyName } from "./vector-options.ts";
import { NOT_FOUND, type VectorReader } from "./vector-reader.ts";
import { readCountReply, readStatusReply, type StoredVector, type VectorShardStatus } from "./vector-replies.ts";
import { filterRequestBytes, INCLUDE, writeFilterRequest } from "./vector-requests.ts";

export type { LoadProgress } from "../../src/store/bulk-load.ts";

/** A document to store. */
export interface VectorDocument {
  /** A string of at most 512 UTF-8 bytes, or a finite number. `1` and `"1"` are different ids. */
  readonly id: VectorId;
  /** Finite components, as many as the collection has dimensions. */
  readonly vector: ArrayLike<number>;
  /** Plain data to filter by and to get back, at most 64 KiB as msgpack. */
  readonly payload?: Metadata;
}

/** A document as it is stored. */
export interface StoredDocument {
  readonly id: VectorId;
  readonly version: number;
  readonly vector?: Float32Array;
  readonly payload?: Metadata;
  /**
   * Of a get: how far this may be behind its primary, in ms, at the most, as the copy that answered knew it; infinity: it cannot tell. Absent
   * when nothing is missing, as in every strong read.
   */
  readonly stalenessMs?: number;
}

/** How {@link VectorCollection.read} got a vector. */
export interface VectorRead {
  readonly by: "one-sided" | "message";
  readonly version: number;
}

/** One answer of a search. */
export interface VectorHit extends StoredDocument {
  /** Distance under the collection's metric; smaller is closer. */
  readonly score: number;
}

/** Options of {@link VectorCollection.upsert}. */
export interface UpsertOptions extends WriteOptions {
  /** Documents per batch of an iterable; arrays are one batch. `1..65536`. @default 512 */
  readonly batchSize?: number;
  /** Called after each acknowledged batch of an iterable. */
  readonly onProgress?: (progress: LoadProgress) => void;
}

/** Options of {@link VectorCollection.indexed}. */
export interface IndexedOptions extends CallOptions {
  /** `learnt`: the done share of a learning of leaves, and levels, that is under way; 1: none is. */
  readonly onProgress?: (progress: {
    readonly rows: number;
    readonly indexed: number;
    readonly learnt: number;
  }) => void;
}

/** Options of {@link VectorCollection.get}. */
export interface GetOptions extends PlainReadOptions {
  /** @default true */
  readonly includeVector?: boolean;
  /** @default true */
  readonly includePayload?: boolean;
}

/** Options of {@link VectorCollection.count}. */
export interface CountOptions extends PlainReadOptions {
  /** Conditions on the payload; see `filter.ts`. @default all documents are counted */
  readonly filter?: Metadata;
}

/** Options of {@link VectorCollection.search}. */
export interface SearchOptions extends Omit<ReadOptions, "strategy"> {
  /** Answers wanted, `1..65536`. @default 10 */
  readonly k?: number;
  /**
   * The `cursor` of the page before, of the same query and filter: gives the hits behind it, among the 65,536 nearest. By `scatter` only; costs as much
   * as a search for all pages until then. A document whose score changed in between may stand on both pages, or on none. @default from the nearest
   */
  readonly after?: string;
  /** Conditions on the payload; see `filter.ts`. Exact: k answers come back when k documents match. */
  readonly filter?: Metadata;
  /** Scan every vector instead of using the index. @default false */
  readonly exact?: boolean;
  /**
   * Candidates that are kept on the way: more find more, slower. With a graph it takes the place of the collection's `expansionSearch`, so it may lower
   * it too (k at least are kept); where each shard has an index of its own it can only raise it. Refused by `spire`, which goes by `recall`; an exact
   * search has no use for it. @default 0, the collection's
   */
  readonly ef?: number;
  /**
   * How documents are found. All but `scatter` need a collection with a graph, which is one that was opened with any other strategy; where what is
   * asked for is not possible (see {@link SearchResult.fallback}) a plainer one answers. @default the collection's
   */
  readonly by?: StrategyName;
  /** The same as {@link by}; or, as in every read, which of the copies that may answer is asked. @default the collection's; the cluster's */
  readonly strategy?: Strategy | StrategyName;
  /**
   * Mean share of the true nearest to be found, in (0, 1], by `compass` and `spire`, which choose how far to look; `auto` then takes `compass`. 1 by
   * `scatter` is an exact search. Refused by what goes by `ef`: `one-sided`, `cotra`, and less than 1 by `scatter` where each shard has an index of its own
   * (with a graph scatter is exact anyway). It is a target of these strategies alone: where another one answers instead (see
   * {@link SearchResult.fallback}) `one-sided` finds what `ef` finds, and `scatter` all, unless it is for several nodes. @default the collection's
   */
  readonly recall?: number;
  /**
   * As in every read; of the shards that `compass` and `spire` choose, which are all of them where they are fewer than the quorum. What this thread or the
   * shards together find has no parts, and is whole. @default "all"
   */
  readonly gather?: GatherPolicy;
  /** @default true */
  readonly includePayload?: boolean;
  /** @default false */
  readonly includeVector?: boolean;
}

/** What a search found, and how complete that is. */
export interface SearchResult {
  readonly hits: readonly VectorHit[];
  readonly completeness: Completeness;
  /**
   * How far the answer may be behind the primaries, in ms, at the most: as the copies that answered knew it when they began. 0: nothing is missing;
   * infinity: a copy cannot tell.
   */
  readonly stalenessMs: number;
  /** How the documents were found. */
  readonly by: StrategyName;
  /** Why it was not the strategy that was asked for. The answer is that of `by`: it reaches no `recall` that was asked for, unless `by` is exact. */
  readonly fallback?: SearchFallback;
  /** For `after`, when there may be more; of searches by `scatter`. */
  readonly cursor?: string;
  /** What was read for it, where `compass` or `spire` answered. */
  readonly reading?: Reading;
  /** The plan and what became of it, when `explain` was asked for. */
  readonly explain?: Explanation;
}

/** What a collection is made of. */
export interface VectorCollectionParts {
  readonly name: string;
  readonly collectionId: number;
  readonly options: ResolvedVectorOptions;
  readonly coordinator: Coordinator;
  readonly arena: Arena;
  /** Writes near the end of the arena take turns here, over all collections. */
  readonly reservations: { tail: Promise<unknown> };
  readonly reader: () => VectorReader;
  /** Throws when the collection was dropped or the cluster closed. */
  readonly assertOpen: () => void;
}

const INDEX_POLL_MS = 25;

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
   * Stores documents; an id that exists is replaced. An array of at most 65,536 is one batch, checked whole before anything is written; any
   * other iterable is written batch by batch. After an error `details.written` tells how many documents were acknowledged: 0
   * for bad input and a full arena, perhaps more when a shard of several failed or when an iterable had come that far.
   * @throws {ShardloomError} `ERR_DIMENSION_MISMATCH`, `ERR_NOT_FINITE`, `ERR_DUPLICATE_ID`, `ERR_INVALID_ARGUMENT`, `ERR_RECORD_TOO_LARGE`,
   *   `ERR_OUT_OF_MEMORY`, and those of every call.
   */
  async upsert(
    documents: VectorDocument | readonly VectorDocument[] | DocumentSource,
    options: UpsertOptions = {},
  ): Promise<LoadProgress> {
    this.#parts.assertOpen();
    if (!Array.isArray(documents) && isIterable(documents)) {
      refuseKey(options);
      return loadDocuments(this.#parts, documents, options);
    }
    const list: readonly VectorDocument[] = Array.isArray(documents) ? documents : [documents];
    assertBatch("upsert", "documents", list);
    const items = Array.from(list, (document) => prepareItem(this.#parts, document));
    refuseDuplicates(items);
    return upsertItems(this.#parts, items, options, undefined);
  }

  /** One document, or undefined when the id is unknown. */
  get(id: VectorId, options: Explaining<GetOptions>): Promise<ExplainedValue<StoredDocument | undefined>>;
  get(id: VectorId, options?: GetOptions): Promise<StoredDocument | undefined>;
  async get(id: VectorId, options: GetOptions | Explaining<GetOptions> = {}): Promise<unknown> {
    return explainedRead(this.#parts.coordinator, options, async (read) => (await this.#getMany([id], read))[0]);
  }

  /** Documents in the order of their ids; undefined where an id is unknown. */
  getMany(
    ids: readonly VectorId[],
    options: Explaining<GetOptions>,
  ): Promise<ExplainedValue<(StoredDocument | undefined)[]>>;
  getMany(ids: readonly VectorId[], options?: GetOptions): Promise<(StoredDocument | undefined)[]>;
  async getMany(ids: readonly VectorId[], options: GetOptions | Explaining<GetOptions> = {}): Promise<unknown> {
    return explainedRead(this.#parts.coordinator, options, (read) => this.#getMany(ids, read));
  }

  /** Removes documents. @returns how many were there */
  async delete(ids: VectorId | readonly VectorId[], options: WriteOptions = {}): Promise<number> {
    this.#parts.assertOpen();
    return deleteIds(this.#parts, typeof ids === "string" || typeof ids === "number" ? [ids] : ids, options);
  }

  /** Number of documents, or of those that match a filter. */
  count(options: Explaining<CountOptions>): Promise<ExplainedValue<number>>;
  count(options?: CountOptions): Promise<number>;
  async count(options: CountOptions | Explaining<CountOptions> = {}): Promise<unknown> {
    this.#parts.assertOpen();
    checkPlainRead(options);
    const { coordinator } = this.#parts;
    const body = this.#filterBody(options.filter);
    const query = { type: VECTOR_COUNT, body: () => body, decode: readCountReply, count: () => 1 };
    return explainedRead(coordinator, options, async (read) => {
      const { answers } = await coordinator.read<number>({ kind: "scatter" }, query, read);
      return answers.reduce((sum, rows) => sum + rows, 0);
    });
  }

  /** Rows, index progress and memory of every shard, in shard order. */
  async status(options: CallOptions = {}): Promise<VectorShardStatus[]> {
    this.#parts.assertOpen();
    const { coordinator } = this.#parts;
    const body = this.#filterBody(undefined);
    const decode = (frame: ReplyFrame): VectorShardStatus => readStatusReply(frame, frame.offset);
    return Promise.all(
      coordinator.shards.map((shard) => coordinator.ask(shard, VECTOR_STATUS, VSHARD_LISTED, body, decode, options)),
    );
  }

  /**
   * Resolves when every stored document is in its shard's index, or its shard is small enough to be scanned, and with a graph near those that are
   * near it. Searches are exact for documents that wait for the index, only slower.
   */
  async indexed(options: IndexedOptions = {}): Promise<void> {
    const { coordinator } = this.#parts;
    const deadlineAtMs = coordinator.deadlineAtMs(options);
    for (;;) {
      const timeoutMs = Math.max(1, deadlineAtMs - coordinator.nowMs());
      const shards = await this.status({
        timeoutMs,
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      });
      const rows = shards.reduce((sum, shard) => sum + shard.rows, 0);
      const unindexed = shards.reduce((sum, shard) => sum + shard.unindexed, 0);
      const learnt = shards.reduce((least, shard) => Math.min(least, shard.learnt), 1);
      options.onProgress?.({ rows, indexed: rows - unindexed, learnt });
      const unplaced = shards.reduce((sum, shard) => sum + shard.unplaced, 0);
      if (unindexed === 0 && unplaced === 0) return;
      if (coordinator.nowMs() + INDEX_POLL_MS > deadlineAtMs) {
        throw new ShardloomError(
          "ERR_TIMEOUT",
          `Cannot wait for the index of ${this.name} any longer as ${unindexed} of ${rows} documents are not in it, and ${unplaced} not in their place`,
          { details: { rows, unindexed, unplaced } },
        );
      }
      await coordinator.pause(INDEX_POLL_MS);
    }
  }

  /** The nearest documents to a vector, in the total order (score, id). */
  async search(vector: ArrayLike<number>, options: SearchOptions = {}): Promise<SearchResult> {
    this.#parts.assertOpen();
    return searchBy(this.#parts, vector, options);
  }

  /** The nearest documents to each of many vectors, one-sidedly: what several of them need is read once, by lists of reads. See client-batch.ts. */
  async searchMany(vectors: readonly ArrayLike<number>[], options?: BatchSearchOptions): Promise<BatchSearchResult> {
    this.#parts.assertOpen();
    return searchBatch(this.#parts, vectors, options);
  }

  /**
   * Copies a vector into `target`: one-sidedly, without any other copy, and by a message to its shard only when that gives no valid copy (the
   * row is being written at every attempt, or its shard is being recovered).
   * @param target At least `dimensions` long. @returns How it was read and the document's version; undefined when the id is unknown.
   */
  async read(id: VectorId, target: Float32Array, options: CallOptions = {}): Promise<VectorRead | undefined> {
    this.#parts.assertOpen();
    assertTarget(this.options.dimensions, target);
    const reader = this.#parts.reader();
    const status = reader.get(id, target);
    if (status === STATUS.SUCCESS) return { by: "one-sided", version: reader.version };
    if (status === NOT_FOUND) return undefined;
    const stored = await this.get(id, { ...options, includePayload: false });
    if (stored?.vector === undefined) return undefined;
    target.set(stored.vector);
    return { by: "message", version: stored.version };
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

  /** Vertices and documents in a shard's memory, wherever it is. @param reader Of the shard: `cluster.readerOf(shard)` */
  memory(reader: ShardReader): VectorMemory {
    return new VectorMemory({ ...this.#parts, reader });
  }

  async #getMany(
    ids: readonly VectorId[],
    options: ReadOptions & Pick<GetOptions, "includeVector" | "includePayload">,
  ): Promise<(StoredDocument | undefined)[]> {
    this.#parts.assertOpen();
    checkPlainRead(options);
    const flags =
      (options.includeVector === false ? 0 : INCLUDE.VECTOR) | (options.includePayload === false ? 0 : INCLUDE.PAYLOAD);
    const found: (StoredDocument | undefined)[] = [];
    await getIds(this.#parts, ids, flags, options, (place, stored, stalenessMs) => {
      const document = toDocument(ids[place] as VectorId, stored);
      found[place] = stalenessMs === 0 ? document : { ...document, stalenessMs };
    });
    return Array.from({ length: ids.length }, (_, place) => found[place]);
  }

  #filterBody(filter: Metadata | undefined): Payload {
    const { collectionId } = this.#parts;
    const bytes = filter === undefined ? undefined : encodeFilter(filter);
    return {
      byteLength: filterRequestBytes(bytes),
      write: (target, offset) => writeFilterRequest(target, offset, collectionId, bytes),
    };
  }
}

function toDocument(id: VectorId, { version, vector, payload }: StoredVector): StoredDocument {
  const decoded = payload === undefined ? {} : { payload: decodeMetadata(payload) };
  return { id, version, ...(vector === undefined ? {} : { vector }), ...decoded };
}

function isIterable(value: unknown): value is DocumentSource {
  return typeof value === "object" && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value);
}
