/**
 * The text engine of one shard: message handlers over its collections.
 *
 * Invariant: a request is checked whole before the first byte of a collection changes, and nothing can fail after that. An
 * upsert is acknowledged when its documents are in registered regions and in the index. After a worker was replaced,
 * searches wait until the index is whole again; everything else is answered meanwhile.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { Adopted } from "../../src/store/collection-root.ts";
import { DocumentStore } from "../../src/store/document-store.ts";
import { removeStrayFiles } from "../../src/store/index-file.ts";
import {
  TEXT_COUNT,
  TEXT_DELETE,
  TEXT_DROP,
  TEXT_GET,
  TEXT_OPEN,
  TEXT_SEARCH,
  TEXT_STATS,
  TEXT_STATUS,
  TEXT_UPSERT,
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
  WriteEffects,
} from "../engine.ts";
import { EffectBodies } from "./effect-bodies.ts";
import { loadIndex, saveIndex } from "./index-files.ts";
import { writeGetReply, writeSearchReply } from "./reply-writer.ts";
import { readSearchRequest, type TextSearch } from "./search-request.ts";
import { isStemmerLoaded, loadStemmer } from "./stemmers.ts";
import { TextCopies } from "./text-copies.ts";
import {
  assertSameTextOptions,
  type ResolvedTextOptions,
  resolveStoredOptions,
  resolveTextOptions,
  type TextCollectionOptions,
} from "./text-options.ts";
import {
  COUNT_REPLY_BYTES,
  OPEN_REPLY_BYTES,
  STATUS_REPLY_BYTES,
  statsReplyBytes,
  UPSERT_REPLY_BYTES,
  writeOpenReply,
  writeStatsReply,
  writeStatusReply,
  writeUpsertReply,
} from "./text-replies.ts";
import { IDS_HEADER, IdsCursor, readCollection, readDropRequest, readOpenRequest } from "./text-requests.ts";
import { SCORING } from "./text-scorer.ts";
import { TextShard } from "./text-shard.ts";
import { UpsertBatch } from "./upsert-batch.ts";
import { WaitingSearches } from "./waiting-searches.ts";

/** Most documents of one search, those that are skipped included. */
export const MAX_K = 65_536;

/** What a dead worker's collections were; with it a successor takes them over. */
export interface TextRecovery {
  readonly collections: readonly {
    readonly collectionId: number;
    readonly options: TextCollectionOptions;
    readonly rootAddress: number;
  }[];
  /** The dead worker's regions by address: this engine takes out what its collections had, and leaves the rest. */
  readonly adopted: Adopted;
}

/** The text engine and the roots of its collections. */
export interface TextEngine extends Engine {
  readonly replicated: ReplicatedEngine;
  /** Root reference of every open collection, by collection id. */
  roots(): ReadonlyMap<number, { readonly address: number; readonly rkey: number; readonly length: number }>;
}

/** A collection and who waits for it. */
interface Entry {
  readonly shard: TextShard;
  readonly waiting: WaitingSearches;
}

/** What the handlers of one shard share; the cursors are reused. */
interface ShardState {
  readonly context: EngineContext;
  readonly collections: Map<number, Entry>;
  readonly dropped: DroppedCollections;
  readonly ids: IdsCursor;
  readonly batch: UpsertBatch;
}

type StateHandler = (state: ShardState, request: EngineRequest, reply: EngineReply) => void;

/** Loads the languages of collections that an engine is to take over or to open. */
export async function loadLanguages(collections: readonly { readonly options: unknown }[]): Promise<void> {
  for (const { options } of collections) await loadStemmer(resolveStoredOptions(options).language);
}

/**
 * Creates the engine of one shard, on that shard's thread.
 *
 * @param recover Collections of the dead worker that this one replaces, their languages loaded.
 * @throws {ShardloomError} `ERR_CORRUPT` when a root address holds no root of that collection.
 */
export function createTextEngine(context: EngineContext, recover?: TextRecovery): TextEngine {
  const collections = new Map<number, Entry>();
  if (recover !== undefined) recoverCollections(context, recover, collections);
  const dropped = new DroppedCollections();
  const state: ShardState = { context, collections, dropped, ids: new IdsCursor(), batch: new UpsertBatch() };
  const handlers = Object.entries(HANDLERS).map(([type, handle]): [number, EngineHandler] => [
    Number(type),
    (request, reply) => handle(state, request, reply),
  ]);
  return {
    handlers: new Map(handlers),
    open: (collectionId, options) => void open(state, collectionId, resolveStoredOptions(options), true),
    async saveIndexes(storage) {
      await removeStrayFiles(storage.disk, storage.directory, "text", (id) => collections.has(id));
      for (const { shard } of [...collections.values()]) await saveIndex(shard, context, storage);
    },
    async loadIndexes(storage) {
      const loaded: LoadedIndex[] = [];
      for (const { shard } of [...collections.values()]) {
        loaded.push(await loadIndex(shard, context, storage, () => collections.get(shard.id)?.shard === shard));
        shard.endLoading();
      }
      return loaded;
    },
    background(budgetMs) {
      let more = false;
      const share = budgetMs / Math.max(1, collections.size);
      for (const entry of collections.values()) more = runBackground(entry, share) || more;
      return more;
    },
    replicated: new TextCopies(
      (id) => collections.get(id)?.shard,
      () => Array.from(collections.values(), ({ shard }) => shard),
      dropped,
      context.kernels,
    ),
    roots: () => new Map([...collections].map(([id, { shard }]) => [id, shard.store.root.ref])),
    close() {
      for (const { waiting } of collections.values())
        waiting.fail(new ShardloomError("ERR_CLOSED", "Cannot search as the shard is closed"));
      collections.clear();
    },
  };
}

const HANDLERS: Readonly<Record<number, StateHandler>> = {
  [TEXT_OPEN]: openCollection,
  [TEXT_DROP]: dropCollection,
  [TEXT_UPSERT]: upsert,
  [TEXT_GET]: getIds,
  [TEXT_DELETE]: deleteIds,
  [TEXT_COUNT]: countDocuments,
  [TEXT_SEARCH]: (state, request, reply) => whenReady(state, request, reply, search),
  [TEXT_STATS]: (state, request, reply) => whenReady(state, request, reply, statistics),
  [TEXT_STATUS]: status,
};

function find(state: ShardState, collectionId: number): Entry {
  const found = state.collections.get(collectionId);
  if (found !== undefined) return found;
  throw state.dropped.unknown(collectionId);
}

/** A language that is not loaded yet is loaded first, and the reply held until then. */
function openCollection(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const { collectionId, options, checkOnly } = readOpenRequest(request);
  if (checkOnly) find(state, collectionId); // throws: it is not to be created
  if (isStemmerLoaded(options.language)) {
    const { store } = open(state, collectionId, options);
    reply.claim(OPEN_REPLY_BYTES);
    writeOpenReply(reply, reply.offset, store.root.ref, store.count);
    return;
  }
  const held = reply.hold();
  loadStemmer(options.language).then(
    () => {
      try {
        const { store } = open(state, collectionId, options);
        held?.send(OPEN_REPLY_BYTES, (memory, offset) => writeOpenReply(memory, offset, store.root.ref, store.count));
      } catch (error) {
        held?.fail(error);
      }
    },
    (error: unknown) => held?.fail(error),
  );
}

/** @param loading Its documents are about to be loaded, and may come with an index. */
function open(state: ShardState, collectionId: number, options: ResolvedTextOptions, loading = false): TextShard {
  const { context, collections } = state;
  state.dropped.assertMayOpen(collectionId);
  const known = collections.get(collectionId);
  if (known !== undefined) {
    assertSameTextOptions(known.shard.options, options);
    return known.shard;
  }
  const store = DocumentStore.create(context, collectionId, options.fields.length);
  const shard = new TextShard(context, collectionId, options, store, loading);
  collections.set(collectionId, { shard, waiting: new WaitingSearches() });
  return shard;
}

function dropCollection(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const { collectionId, undo } = readDropRequest(request);
  const entry = state.collections.get(collectionId);
  state.collections.delete(collectionId);
  if (!undo) state.dropped.add(collectionId);
  entry?.waiting.fail(
    new ShardloomError("ERR_UNKNOWN_COLLECTION", "Cannot search as the collection was dropped", {
      details: { collectionId },
    }),
  );
  entry?.shard.store.drop();
  reply.claim(COUNT_REPLY_BYTES);
  reply.f64[reply.offset >>> 3] = entry === undefined ? 0 : 1;
}

function upsert(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const { batch } = state;
  batch.read(request, (collectionId) => find(state, collectionId).shard);
  if (request.effects !== undefined) batch.tell(request.effects);
  batch.write();
  reply.claim(UPSERT_REPLY_BYTES);
  const before = request.effects?.keyed?.changedBefore ?? 0;
  writeUpsertReply(reply, reply.offset, batch.count, before + batch.newRows);
}

function getIds(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const ids = state.ids.open(request);
  const { store } = find(state, ids.collectionId).shard;
  const rows: number[] = [];
  while (ids.next()) rows.push(store.find(ids.hash, request.bytes, ids.idOffset, ids.idWord));
  if (request.partial === true) leaveOut(store, rows, request.vshards);
  writeGetReply(store, rows, reply);
}

/** Documents of vshards that the request gets no answer for count as unknown. */
function leaveOut(store: DocumentStore, rows: number[], vshards: Uint8Array | undefined): void {
  for (const [at, row] of rows.entries())
    if (row >= 0 && vshards !== undefined && vshards[store.vshardOf(row)] !== 1) rows[at] = -1;
}

function deleteIds(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const ids = state.ids.open(request);
  const { shard } = find(state, ids.collectionId);
  if (request.effects === undefined)
    while (ids.next()); // checks every id before the first is removed
  else tellDeletes(shard, ids, request.effects, request);
  ids.open(request);
  const keyed = request.effects?.keyed;
  let deleted = keyed?.changedBefore ?? 0;
  while (ids.next()) {
    if (keyed?.hasSeen(keyed.vshardOf(ids.hash)) === true) continue;
    const row = shard.store.find(ids.hash, request.bytes, ids.idOffset, ids.idWord);
    if (row < 0) continue;
    shard.remove(row);
    deleted++;
  }
  reply.claim(COUNT_REPLY_BYTES);
  reply.f64[reply.offset >>> 3] = deleted;
}

/** Tells which documents will be removed, with the version that the shard will have then. */
function tellDeletes({ id, store }: TextShard, ids: IdsCursor, effects: WriteEffects, request: EngineRequest): void {
  const bodies = new EffectBodies(id, IDS_HEADER, effects.maxBodyBytes);
  let version = store.lastVersion;
  const { keyed } = effects;
  while (ids.next()) {
    effects.touch(ids.hash);
    const vshard = keyed?.vshardOf(ids.hash) ?? 0;
    if (keyed?.repeats(vshard) === true) continue;
    const row = store.find(ids.hash, request.bytes, ids.idOffset, ids.idWord);
    keyed?.note(vshard, row >= 0);
    if (row >= 0) bodies.add(store.vshardOf(row), ids.entryOffset, ids.entryEnd, ++version);
  }
  bodies.tell(TEXT_DELETE, request, effects);
  effects.publish();
}

function countDocuments(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const count = find(state, readCollection(request)).shard.count(request.vshards);
  reply.claim(COUNT_REPLY_BYTES);
  reply.f64[reply.offset >>> 3] = count;
}

function status(state: ShardState, request: EngineRequest, reply: EngineReply): void {
  const { shard, waiting } = find(state, readCollection(request));
  reply.claim(STATUS_REPLY_BYTES);
  writeStatusReply(reply, reply.offset, shard.status(waiting.count));
}

/** Answers at once, or when the collection's index is whole. */
function whenReady(
  state: ShardState,
  request: EngineRequest,
  reply: EngineReply,
  handle: (shard: TextShard, request: EngineRequest, reply: EngineReply) => void,
): void {
  const { shard, waiting } = find(state, readCollection(request));
  if (shard.ready) handle(shard, request, reply);
  else waiting.add(request, reply, (copy, late) => handle(shard, copy, late));
}

function search(shard: TextShard, request: EngineRequest, reply: EngineReply): void {
  const wanted = checkSearch(readSearchRequest(request), shard.options.fields.length);
  const found = shard.search(wanted, request.vshards);
  writeSearchReply(shard.store, shard.options.fields.length, found, wanted.skip, wanted.flags, reply);
}

function statistics(shard: TextShard, request: EngineRequest, reply: EngineReply): void {
  const wanted = checkSearch(readSearchRequest(request), shard.options.fields.length);
  const sums = shard.statistics(wanted, request.vshards);
  reply.claim(statsReplyBytes(sums));
  writeStatsReply(reply, reply.offset, sums);
}

function checkSearch(search: TextSearch, fields: number): TextSearch {
  const { k, skip, settings, statistics: sums } = search;
  if (k < 1 || k > MAX_K) throw invalidArgument("search", "k", `an integer in [1, ${MAX_K}]`, k);
  if (skip < 0 || skip > k) throw invalidArgument("search", "skip", `an integer in [0, ${k}]`, skip);
  if (settings.boosts.length !== fields)
    throw invalidArgument("search", "number of boosts", `${fields}`, settings.boosts.length);
  if (settings.scoring !== SCORING.BM25 && settings.scoring !== SCORING.TF_IDF)
    throw invalidArgument("search", "scoring", "0 or 1", settings.scoring);
  for (const boost of Array.from(settings.boosts))
    if (!(boost >= 0 && boost <= 1e6)) throw invalidArgument("search", "boost", "a number in [0, 1e6]", boost);
  const values = sums === undefined ? [] : [sums.documents, ...sums.lengths, ...sums.frequencies];
  for (const value of values)
    if (!(value >= 0 && value <= Number.MAX_SAFE_INTEGER))
      throw invalidArgument("search", "statistics", "sums of documents and terms", value);
  return search;
}

function recoverCollections(context: EngineContext, recover: TextRecovery, collections: Map<number, Entry>): void {
  for (const { collectionId, options, rootAddress } of recover.collections) {
    const resolved = resolveTextOptions(options);
    const store = DocumentStore.recover(context, collectionId, resolved.fields.length, rootAddress, recover.adopted);
    if (store === undefined) continue;
    const shard = new TextShard(context, collectionId, resolved, store);
    collections.set(collectionId, { shard, waiting: new WaitingSearches() });
  }
}

/** A full arena stops compaction, not the shard: it is tried again in the next slice. */
function runBackground({ shard, waiting }: Entry, budgetMs: number): boolean {
  try {
    const more = shard.background(budgetMs);
    if (shard.ready && waiting.count > 0) waiting.run();
    return more;
  } catch (error) {
    if (ShardloomError.is(error) && (error.code === "ERR_OUT_OF_MEMORY" || error.code === "ERR_REGION_TABLE_FULL"))
      return false;
    throw error;
  }
}
