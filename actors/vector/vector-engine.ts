/**
 * The vector engine of one shard: message handlers over its collections.
 *
 * Invariant: a request is checked whole (shape, finiteness, duplicates, memory) before the first byte of a collection
 * changes, and nothing can fail after that, so no bad request leaves anything partly written. An upsert is acknowledged when
 * its rows are in registered regions; the index follows in `background`.
 */
import type { AdoptedRegion } from "../../native-bridge/region-table.ts";
import { describeValue, invalidArgument, ShardloomError } from "../../src/errors.ts";
import { type Adopted, CollectionRoot } from "../../src/store/collection-root.ts";
import {
  VECTOR_COUNT,
  VECTOR_DELETE,
  VECTOR_DROP,
  VECTOR_GET,
  VECTOR_OPEN,
  VECTOR_SEARCH,
  VECTOR_STATUS,
  VECTOR_UPSERT,
} from "../../src/wire/message-types.ts";
import type { Engine, EngineContext, EngineHandler, EngineReply, EngineRequest, ReplicatedEngine } from "../engine.ts";
import { SearchResult, ShardCollection } from "./shard-collection.ts";
import { UpsertBatch } from "./upsert-batch.ts";
import { tellDeletes, VectorCopies } from "./vector-copies.ts";
import {
  assertSameOptions,
  type ResolvedVectorOptions,
  resolveVectorOptions,
  type VectorCollectionOptions,
} from "./vector-options.ts";
import {
  COUNT_REPLY_BYTES,
  deleteReplyBytes,
  OPEN_REPLY_BYTES,
  STATUS_REPLY_BYTES,
  UPSERT_REPLY_BYTES,
  writeDeleteReply,
  writeOpenReply,
  writeStatusReply,
  writeUpsertReply,
} from "./vector-replies.ts";
import { writeGetReply, writeSearchReply } from "./vector-reply-writer.ts";
import {
  IdsCursor,
  type ReceivedSearch,
  readFilterRequest,
  readOpenRequest,
  readSearchRequest,
  SEARCH_EXACT,
} from "./vector-requests.ts";
import { VectorStore } from "./vector-store.ts";

/** Most hits of one query. */
export const MAX_K = 65_536;
/** Most hits of all queries of one request: what a shard holds of them at a time is bounded by it. */
export const MAX_HITS = 1_048_576;

/** What a dead worker's collections were; with it a successor takes them over. */
export interface VectorRecovery {
  readonly collections: readonly {
    readonly collectionId: number;
    readonly options: VectorCollectionOptions;
    readonly rootAddress: number;
  }[];
  /** What `RegionTable.adopt` returned for the dead owner. @default the engine adopts the regions of its own `workerIndex` */
  readonly adopted?: readonly AdoptedRegion[];
}

/** The vector engine and the recovered roots, to be published to one-sided readers. */
export interface VectorEngine extends Engine {
  readonly replicated: ReplicatedEngine;
  /** Root reference of every open collection, by collection id. */
  roots(): ReadonlyMap<number, { readonly address: number; readonly rkey: number; readonly length: number }>;
}

/**
 * Creates the engine of one shard, on that shard's thread.
 *
 * @param recover Collections of the dead worker that this one replaces; none is lost, each under a new key. Everything else
 *   that the dead worker had is freed: whatever was being created or dropped when it died is gone.
 * @throws {ShardloomError} `ERR_CORRUPT` when a root address holds no root of that collection.
 */
export function createVectorEngine(context: EngineContext, recover?: VectorRecovery): VectorEngine {
  const collections = new Map<number, ShardCollection>();
  const leave = new Leave();
  const guarded: EngineContext = { ...context, native: (call) => leave.note(() => context.native(call)) };
  if (recover !== undefined) recoverCollections(guarded, recover, collections);
  const state: ShardState = { context: guarded, collections, ids: new IdsCursor(), batch: new UpsertBatch() };
  const handlers = Object.entries(HANDLERS).map(([type, handle]): [number, EngineHandler] => [
    Number(type),
    (request, reply) => {
      leave.assertServing();
      handle(state, request, reply);
    },
  ]);
  return {
    handlers: new Map(handlers),
    background(budgetMs) {
      leave.assertServing();
      let more = false;
      const share = budgetMs / Math.max(1, collections.size);
      for (const collection of collections.values()) more = runBackground(collection, share) || more;
      return more;
    },
    replicated: new VectorCopies(collections),
    roots: () => new Map([...collections].map(([id, collection]) => [id, collection.store.root.ref])),
    close() {
      if (leave.taken) return; // everything is the successor's
      for (const collection of collections.values()) collection.free();
      collections.clear();
    },
  };
}

/** Remembers that a native call returned on a quarantined thread: from there nothing of the shard may be touched. */
class Leave {
  #reason: ShardloomError | undefined;

  get taken(): boolean {
    return this.#reason !== undefined;
  }

  note<T>(call: () => T): T {
    try {
      return call();
    } catch (error) {
      if (ShardloomError.is(error) && error.code === "ERR_NATIVE_QUARANTINED") this.#reason = error;
      throw error;
    }
  }

  assertServing(): void {
    if (this.#reason !== undefined) throw this.#reason;
  }
}

/** What the handlers of one shard share; the cursors are reused. */
interface ShardState {
  readonly context: EngineContext;
  readonly collections: Map<number, ShardCollection>;
  readonly ids: IdsCursor;
  readonly batch: UpsertBatch;
}

type StateHandler = (state: ShardState, request: EngineRequest, reply: EngineReply) => void;

const HANDLERS: Readonly<Record<number, StateHandler>> = {
  [VECTOR_OPEN]: openCollection,
  [VECTOR_DROP]: dropCollection,
  [VECTOR_UPSERT]: upsert,
  [VECTOR_GET]: getIds,
  [VECTOR_DELETE]: deleteIds,
  [VECTOR_COUNT]: countRows,
  [VECTOR_SEARCH]: search,
  [VECTOR_STATUS]: status,
};

function find(state: ShardState, collectionId: number): ShardCollection {
  const found = state.collections.get(collectionId);
  if (found !== undefined) return found;
  throw new ShardloomError(
    "ERR_UNKNOWN_COLLECTION",
    `Cannot find collection as it must be open on this shard: current value is ${collectionId}`,
    { details: { collectionId } },
  );
}

function openCollection(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const { collectionId, options } = readOpenRequest(request);
  const collection = state.collections.get(collectionId) ?? create(state.context, collectionId, options);
  assertSameOptions(collection.options, options);
  state.collections.set(collectionId, collection);
  reply.claim(OPEN_REPLY_BYTES);
  writeOpenReply(reply, reply.offset, { root: collection.store.root.ref, rows: collection.store.count });
}

function dropCollection(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const { collectionId } = readFilterRequest(request);
  const collection = state.collections.get(collectionId);
  state.collections.delete(collectionId);
  collection?.free();
  collection?.store.drop();
  reply.claim(COUNT_REPLY_BYTES);
  reply.f64[reply.offset >>> 3] = collection === undefined ? 0 : 1;
}

function upsert(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const { batch } = state;
  batch.read(request, (collectionId) => find(state, collectionId));
  const { reserveOnly } = batch;
  if (request.effects !== undefined && !reserveOnly) {
    batch.tell(request.effects);
    request.effects.publish();
  }
  const inserted = reserveOnly ? batch.newRows : batch.write();
  reply.claim(UPSERT_REPLY_BYTES);
  writeUpsertReply(reply, reply.offset, batch.count, inserted, reserveOnly ? batch.heapBytes : batch.firstVersion);
}

function getIds(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const ids = state.ids.open(request);
  const { store } = find(state, ids.collectionId);
  const rows = new Int32Array(ids.count);
  for (let i = 0; ids.next(); i++) rows[i] = store.find(ids.hash, request.bytes, ids.idOffset, ids.idWord);
  if (request.partial === true) leaveOut(store, rows, request.vshards);
  writeGetReply(store, rows, ids.flags, reply);
}

/** Rows of vshards that the request gets no answer for count as unknown. */
function leaveOut(store: VectorStore, rows: Int32Array, vshards: Uint8Array | undefined): void {
  for (const [at, row] of rows.entries())
    if (row >= 0 && vshards !== undefined && vshards[store.vshardOf(row)] !== 1) rows[at] = -1;
}

function countRows(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const { collectionId, filter } = readFilterRequest(request);
  const count = find(state, collectionId).count(filter, request.vshards);
  reply.claim(COUNT_REPLY_BYTES);
  reply.f64[reply.offset >>> 3] = count;
}

function search(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const wanted = readSearchRequest(request);
  const collection = find(state, wanted.collectionId);
  checkSearch(wanted, collection.options.dimensions, collection.store.count);
  runSearch(collection, wanted, request.vshards, reply);
}

function status(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const collection = find(state, readFilterRequest(request).collectionId);
  const { store } = collection;
  reply.claim(STATUS_REPLY_BYTES);
  writeStatusReply(reply, reply.offset, {
    rows: store.count,
    indexed: collection.indexed,
    unindexed: collection.unindexed,
    lastVersion: store.lastVersion,
    vectorBytes: store.vectorBytes,
    heapBytes: store.heap.totalBytes,
    heapLiveBytes: store.heap.liveBytes,
    directorySlots: store.directory.slots,
  });
}

function create(context: EngineContext, collectionId: number, options: ResolvedVectorOptions): ShardCollection {
  const store = VectorStore.create(context, collectionId, options);
  try {
    return new ShardCollection(context, collectionId, options, store);
  } catch (error) {
    store.drop();
    throw error;
  }
}

function recoverCollections(
  context: EngineContext,
  recover: VectorRecovery,
  collections: Map<number, ShardCollection>,
): void {
  const { workerIndex, arena, regions } = context;
  const adopted: Adopted = new Map(
    (recover.adopted ?? regions.adopt(workerIndex, workerIndex)).map((region) => [region.address, region]),
  );
  for (const { collectionId, options, rootAddress } of recover.collections) {
    const resolved = resolveVectorOptions(options);
    const store = VectorStore.recover(context, collectionId, resolved, rootAddress, adopted);
    if (store !== undefined) collections.set(collectionId, new ShardCollection(context, collectionId, resolved, store));
  }
  CollectionRoot.dropUnclaimed(arena, regions, adopted);
}

/** A full arena stops indexing and compaction, not the shard: both are tried again in the next slice. */
function runBackground(collection: ShardCollection, budgetMs: number): boolean {
  try {
    return collection.background(budgetMs);
  } catch (error) {
    if (ShardloomError.is(error) && (error.code === "ERR_OUT_OF_MEMORY" || error.code === "ERR_REGION_TABLE_FULL"))
      return false;
    throw error;
  }
}

function deleteIds(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const ids = state.ids.open(request);
  const collection = find(state, ids.collectionId);
  assertReplyFits(deleteReplyBytes(ids.count), reply);
  if (request.effects === undefined)
    while (ids.next()); // checks every id before the first is removed
  else tellDeletes(collection, ids, request, request.effects);
  const found = new Uint8Array(ids.open(request).count);
  let deleted = 0;
  for (let i = 0; ids.next(); i++) {
    const row = collection.store.find(ids.hash, request.bytes, ids.idOffset, ids.idWord);
    if (row < 0) continue;
    collection.remove(row);
    found[i] = 1;
    deleted++;
  }
  reply.claim(deleteReplyBytes(found.length));
  writeDeleteReply(reply, reply.offset, found.length, deleted, found);
}

/** Before anything is written: the caller asks for less. */
function assertReplyFits(byteLength: number, { limitBytes }: EngineReply): void {
  if (byteLength <= limitBytes) return;
  throw new ShardloomError(
    "ERR_RECORD_TOO_LARGE",
    `Cannot reply as a reply must take at most ${limitBytes} bytes: current value is ${byteLength}`,
    { details: { byteLength, limitBytes } },
  );
}

function checkSearch(search: ReceivedSearch, dimensions: number, rows: number): void {
  const { k, ef, queryCount, skip } = search;
  if (k < 1 || k > MAX_K) throw invalidArgument("search", "k", `an integer in [1, ${MAX_K}]`, k);
  if (ef < 0 || ef > MAX_K) throw invalidArgument("search", "ef", `an integer in [0, ${MAX_K}]`, ef);
  if (queryCount < 1) throw invalidArgument("search", "queries", "at least one", queryCount);
  const most = Math.floor(MAX_HITS / Math.max(1, Math.min(k, rows)));
  if (queryCount > most) throw invalidArgument("search", "queries", `at most ${most} for ${k} hits each`, queryCount);
  if (skip < 0 || skip > k || (skip > 0 && queryCount > 1))
    throw invalidArgument("search", "skip", `in [0, ${k}], and 0 for several queries`, skip);
  if (search.dimensions !== dimensions) {
    throw new ShardloomError(
      "ERR_DIMENSION_MISMATCH",
      `Cannot search as the query must have ${dimensions} components: current value is ${search.dimensions}`,
      {
        details: { expected: dimensions, value: search.dimensions },
      },
    );
  }
  for (let i = 0; i < search.queries.length; i++) {
    const value = search.queries[i] as number;
    if (Number.isFinite(value)) continue;
    throw new ShardloomError(
      "ERR_NOT_FINITE",
      `Cannot search as component ${i % dimensions} of the query must be finite: current value is ${describeValue(value)}`,
      {
        details: { query: Math.floor(i / dimensions), component: i % dimensions, value: String(value) },
      },
    );
  }
}

function runSearch(
  collection: ShardCollection,
  search: ReceivedSearch,
  vshards: Uint8Array | undefined,
  reply: EngineReply,
): void {
  const { dimensions, k, ef, flags, filter, skip, queryCount } = search;
  const result = new SearchResult();
  const counts = new Int32Array(queryCount);
  const plans = new Int32Array(queryCount);
  const scored = new Int32Array(queryCount);
  for (let query = 0; query < queryCount; query++) {
    const vector = search.queries.subarray(query * dimensions, (query + 1) * dimensions);
    counts[query] = collection.search(vector, k, ef, (flags & SEARCH_EXACT) !== 0, filter, result, vshards);
    plans[query] = collection.lastPlan;
    scored[query] = collection.lastScored;
  }
  writeSearchReply(collection.store, result, { counts, plans, scored, flags, skip }, reply);
}
