/**
 * The vector engine of one shard: message handlers over its collections.
 *
 * Invariant: a request is checked whole (shape, finiteness, duplicates, memory) before the first byte of a collection
 * changes, and nothing can fail after that, so no bad request leaves anything partly written. An upsert is acknowledged when
 * its rows are in registered regions; the index follows in `background`.
 */
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import type { AdoptedRegion } from "../../native-bridge/region-table.ts";
import { ShardloomError } from "../../src/errors.ts";
import { type Adopted, CollectionRoot } from "../../src/store/collection-root.ts";
import { removeStrayFiles } from "../../src/store/index-file.ts";
import {
  VECTOR_COUNT,
  VECTOR_DELETE,
  VECTOR_DROP,
  VECTOR_EXCHANGE,
  VECTOR_GET,
  VECTOR_NEAR,
  VECTOR_OPEN,
  VECTOR_SEARCH,
  VECTOR_SPIRE,
  VECTOR_STATUS,
  VECTOR_UPSERT,
} from "../../src/wire/message-types.ts";
import { DroppedCollections } from "../dropped-collections.ts";
import type {
  Engine,
  EngineContext,
  EngineHandler,
  EngineReply,
  EngineRequest,
  LoadedIndex,
  ReplicatedEngine,
} from "../engine.ts";
import { readDropRequest, readOpenRequest } from "./collection-requests.ts";
import { GraphIndex } from "./graph/graph-index.ts";
import { loadIndex, saveIndex } from "./index-files.ts";
import { Leave } from "./leave.ts";
import { SearchResult } from "./search-result.ts";
import { ShardCollection } from "./shard-collection.ts";
import { readExchange, writeExchangeReply } from "./strategy/exchange-messages.ts";
import { readNearRequest } from "./strategy/near-messages.ts";
import { answerNear, checkedGraph } from "./strategy/near-search.ts";
import { answerSpire } from "./strategy/spire-search.ts";
import { UpsertBatch } from "./upsert-batch.ts";
import { checkReceivedSearch } from "./vector-checks.ts";
import { tellDeletes, VectorCopies } from "./vector-copies.ts";
import {
  assertSameOptions,
  type ResolvedVectorOptions,
  resolveVectorOptions,
  usesGraph,
  type VectorCollectionOptions,
} from "./vector-options.ts";
import {
  assertReplyFits,
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
  readSearchRequest,
  SEARCH_EXACT,
  SEARCH_GRAPH,
} from "./vector-requests.ts";
import { VectorStore } from "./vector-store.ts";

/** What a dead worker's collections were; with it a successor takes them over. */
export interface VectorRecovery {
  readonly collections: readonly {
    readonly collectionId: number;
    readonly options: VectorCollectionOptions;
    readonly rootAddress: number;
    /** Root of the node's graph over it, where its strategy needs one. */
    readonly graph?: RegionRef;
  }[];
  /** What `RegionTable.adopt` returned for the dead owner. @default the engine adopts the regions of its own `workerIndex` */
  readonly adopted?: readonly AdoptedRegion[];
}

/** The vector engine and the recovered roots, to be published to one-sided readers. */
export interface VectorEngine extends Engine {
  readonly replicated: ReplicatedEngine;
  /** Root reference of every open collection, by collection id. */
  roots(): ReadonlyMap<number, { readonly address: number; readonly rkey: number; readonly length: number }>;
  /** This shard's part in the graph over a collection; undefined while it has none. */
  graphOf(collectionId: number): GraphIndex | undefined;
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
  const dropped = new DroppedCollections();
  const state: ShardState = { context: guarded, collections, dropped, ids: new IdsCursor(), batch: new UpsertBatch() };
  const handlers = Object.entries(HANDLERS).map(([type, handle]): [number, EngineHandler] => [
    Number(type),
    (request, reply) => {
      leave.assertServing();
      handle(state, request, reply);
    },
  ]);
  return {
    handlers: new Map(handlers),
    open: (collectionId, options) =>
      void open(state, collectionId, resolveVectorOptions(options as VectorCollectionOptions)),
    background(budgetMs) {
      leave.assertServing();
      let more = false;
      const share = budgetMs / Math.max(1, collections.size);
      for (const collection of collections.values()) more = runBackground(collection, share) || more;
      return more;
    },
    async saveIndexes(storage) {
      if (guarded.indexDirectory === undefined) return;
      await removeStrayFiles(storage.disk, storage.directory, "vector", (id) => collections.has(id));
      for (const collection of [...collections.values()]) await saveIndex(collection, guarded, storage);
    },
    async loadIndexes(storage) {
      const loaded: LoadedIndex[] = [];
      if (guarded.indexDirectory === undefined) return loaded;
      for (const collection of [...collections.values()])
        loaded.push(await loadIndex(collection, guarded, storage, () => collections.get(collection.id) === collection));
      return loaded;
    },
    replicated: new VectorCopies(collections, dropped, context.kernels),
    graphOf: (collectionId) => collections.get(collectionId)?.graph,
    roots: () => new Map([...collections].map(([id, collection]) => [id, collection.store.root.ref])),
    close() {
      if (leave.taken) return; // everything is the successor's
      for (const collection of collections.values()) collection.free();
      collections.clear();
    },
  };
}

/** What the handlers of one shard share; the cursors are reused. */
interface ShardState {
  readonly context: EngineContext;
  readonly collections: Map<number, ShardCollection>;
  readonly dropped: DroppedCollections;
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
  [VECTOR_NEAR]: near,
  [VECTOR_EXCHANGE]: exchange,
  [VECTOR_SPIRE]: spire,
};

function find(state: ShardState, collectionId: number): ShardCollection {
  const found = state.collections.get(collectionId);
  if (found !== undefined) return found;
  throw state.dropped.unknown(collectionId);
}

function openCollection(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const { collectionId, options, checkOnly, graph } = readOpenRequest(request);
  if (checkOnly) find(state, collectionId); // throws: it is not to be created
  const collection = open(state, collectionId, options);
  const { store } = collection;
  if (graph !== undefined && collection.graph === undefined)
    collection.takeGraph(GraphIndex.create(state.context, options, store, graph), []);
  reply.claim(OPEN_REPLY_BYTES);
  writeOpenReply(reply, reply.offset, { root: store.root.ref, rows: store.count });
}

function open(state: ShardState, collectionId: number, options: ResolvedVectorOptions): ShardCollection {
  state.dropped.assertMayOpen(collectionId);
  const collection = state.collections.get(collectionId) ?? create(state.context, collectionId, options);
  assertSameOptions(collection.options, options);
  state.collections.set(collectionId, collection);
  return collection;
}

function dropCollection(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const { collectionId, undo } = readDropRequest(request);
  const collection = state.collections.get(collectionId);
  state.collections.delete(collectionId);
  if (!undo) state.dropped.add(collectionId);
  try {
    collection?.dropGraph();
  } finally {
    collection?.free();
    collection?.store.drop();
  }
  reply.claim(COUNT_REPLY_BYTES);
  reply.f64[reply.offset >>> 3] = collection === undefined ? 0 : 1;
}

function upsert(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const { batch } = state;
  batch.read(request, (collectionId) => find(state, collectionId));
  const { reserveOnly } = batch;
  if (!reserveOnly) batch.pay();
  if (request.effects !== undefined && !reserveOnly) {
    batch.tell(request.effects);
    request.effects.publish();
  }
  const before = reserveOnly ? 0 : (request.effects?.keyed?.changedBefore ?? 0);
  const inserted = before + (reserveOnly ? batch.newRows : batch.write());
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
  checkReceivedSearch(wanted, collection.options.dimensions, collection.store.count);
  runSearch(collection, wanted, request.vshards, reply);
}

function near(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const wanted = readNearRequest(request);
  answerNear(find(state, wanted.collectionId).graph, state.context.workerIndex, wanted, reply);
}

function spire(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const wanted = readNearRequest(request);
  const { context } = state;
  const graph = checkedGraph(find(state, wanted.collectionId).graph, context.workerIndex, wanted);
  answerSpire(context, graph, wanted, reply);
}

function exchange(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const { collection, message } = readExchange(request);
  writeExchangeReply(reply, find(state, collection).graph?.exchange?.receive(message) ?? []);
}

function status(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const collection = find(state, readFilterRequest(request).collectionId);
  const { store } = collection;
  reply.claim(STATUS_REPLY_BYTES);
  writeStatusReply(reply, reply.offset, {
    rows: store.count,
    indexed: collection.indexed,
    unindexed: collection.unindexed,
    unplaced: collection.unplaced,
    knownShards: collection.graph?.exchange?.known(collection.graph.placedVersion) ?? 0,
    learnt: collection.graph?.learnt ?? 1,
    lastVersion: store.lastVersion,
    vectorBytes: store.vectorBytes,
    heapBytes: store.heap.totalBytes,
    heapLiveBytes: store.heap.liveBytes,
    directorySlots: store.directory.slots,
    root: store.root.ref,
    graph: collection.graph?.root,
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
  for (const { collectionId, options, rootAddress, graph } of recover.collections) {
    const resolved = resolveVectorOptions(options);
    const store = VectorStore.recover(context, collectionId, resolved, rootAddress, adopted);
    if (store === undefined) continue;
    const collection = new ShardCollection(context, collectionId, resolved, store);
    collections.set(collectionId, collection);
    if (graph === undefined) continue;
    const { index, rows } = GraphIndex.adopt(context, resolved, store, graph, adopted);
    collection.takeGraph(index, rows);
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
  assertReplyFits(deleteReplyBytes(ids.count), reply); // before anything is written: the caller asks for less
  if (request.effects === undefined)
    while (ids.next()); // checks every id before the first is removed
  else tellDeletes(collection, ids, request, request.effects);
  const found = new Uint8Array(ids.open(request).count);
  const keyed = request.effects?.keyed;
  let deleted = keyed?.changedBefore ?? 0;
  for (let i = 0; ids.next(); i++) {
    if (keyed?.hasSeen(keyed.vshardOf(ids.hash)) === true) continue;
    const row = collection.store.find(ids.hash, request.bytes, ids.idOffset, ids.idWord);
    if (row < 0) continue;
    collection.remove(row);
    found[i] = 1;
    deleted++;
  }
  reply.claim(deleteReplyBytes(found.length));
  writeDeleteReply(reply, reply.offset, found.length, deleted, found);
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
  const reaches = new Float64Array(queryCount);
  const exact = (flags & SEARCH_EXACT) !== 0 || (usesGraph(collection.options) && (flags & SEARCH_GRAPH) === 0);
  for (let query = 0; query < queryCount; query++) {
    const vector = search.queries.subarray(query * dimensions, (query + 1) * dimensions);
    counts[query] = collection.search(vector, k, ef, exact, filter, result, vshards);
    plans[query] = collection.lastPlan;
    scored[query] = collection.lastScored;
    reaches[query] = collection.lastReach;
  }
  writeSearchReply(collection.store, result, { counts, plans, scored, reaches, flags, skip }, reply);
}
