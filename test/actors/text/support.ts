/** A text engine on this thread, called through the wire codec as a client would, and the naive model it must equal. */

import type { EngineReply, EngineRequest, HeldReply, WireMemory } from "../../../actors/engine.ts";
import { Analyser } from "../../../actors/text/analyser.ts";
import { encodeBody } from "../../../actors/text/document-body.ts";
import { searchRequestBytes, type TextSearch, writeSearchRequest } from "../../../actors/text/search-request.ts";
import { createTextEngine, type TextEngine } from "../../../actors/text/text-engine.ts";
import {
  type ResolvedTextOptions,
  resolveTextOptions,
  type TextCollectionOptions,
} from "../../../actors/text/text-options.ts";
import { parseQuery, type TextQuery } from "../../../actors/text/text-query.ts";
import {
  readCountReply,
  readGetReply,
  readOpenReply,
  readSearchReply,
  readStatsReply,
  readStatusReply,
  readUpsertReply,
  type ShardHits,
  type StoredBody,
  type TextShardStatus,
} from "../../../actors/text/text-replies.ts";
import {
  COLLECTION_REQUEST_BYTES,
  encodeOptions,
  idsRequestBytes,
  openRequestBytes,
  UPSERT_HEADER,
  upsertItemBytes,
  writeCollectionRequest,
  writeIdsRequest,
  writeOpenRequest,
  writeUpsertRequest,
} from "../../../actors/text/text-requests.ts";
import { SCORING, type TextStatistics } from "../../../actors/text/text-scorer.ts";
import { createArena } from "../../../native-bridge/arena.ts";
import { compareIds } from "../../../src/routing/merge.ts";
import { CollectionRoot } from "../../../src/store/collection-root.ts";
import type { DocumentId } from "../../../src/store/id-codec.ts";
import { encodePayload, type Metadata } from "../../../src/store/metadata-codec.ts";
import { hashId } from "../../../src/topology/stable-hash.ts";
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
} from "../../../src/wire/message-types.ts";
import { makeContext, wireMemory } from "../vector/support.ts";

/** vshards of the tests: as many as tags that documents get. */
export const VSHARDS = 16;

export function vshardOfId(id: DocumentId): number {
  return hashId(id) & (VSHARDS - 1);
}

export interface Document {
  readonly id: DocumentId;
  readonly fields: Readonly<Record<string, string>>;
  readonly payload?: Metadata;
}

export interface QueryOptions {
  readonly k?: number;
  readonly scoring?: number;
  readonly boosts?: readonly number[];
  readonly all?: boolean;
  readonly prefix?: boolean;
  readonly flags?: number;
  readonly mask?: Uint8Array | undefined;
  readonly statistics?: TextStatistics | undefined;
  readonly skip?: number;
}

/** What became of a held reply. */
export interface Held {
  result: { bytes: Uint8Array } | { error: unknown } | undefined;
  cancelled: boolean;
}

/** The body of a request. */
interface WrittenRequest {
  readonly bytes: number;
  readonly write: (m: WireMemory, offset: number) => void;
}

/** A shard with its engine on this thread. */
export class TextBed {
  readonly memory: WebAssembly.Memory;
  readonly engine: TextEngine;
  readonly options: ResolvedTextOptions;
  readonly analyser: Analyser;
  /** Bytes of the arena in use. */
  readonly memoryUsed: () => number;
  root = 0;
  replyLimitBytes: number = 2 ** 20;

  /** @param restores The collection is opened as by a shard that will load its documents. */
  constructor(
    options: TextCollectionOptions,
    capacityBytes: number = 64 * 1024 * 1024,
    previous?: TextBed,
    restores = false,
  ) {
    this.options = resolveTextOptions(options);
    this.analyser = new Analyser(this.options);
    this.memory = previous?.memory ?? createArena({ capacityBytes });
    const context = makeContext(this.memory, 0, previous === undefined ? 1 : 99);
    this.memoryUsed = () => context.arena.stats().usedBytes;
    if (previous === undefined) {
      this.engine = createTextEngine(context);
      if (restores) this.engine.open?.(1, this.options);
      else this.root = this.open();
      return;
    }
    const adopted = new Map(context.regions.adopt(0, 0).map((region) => [region.address, region]));
    const collections = [{ collectionId: 1, options, rootAddress: previous.root }];
    this.engine = createTextEngine(context, { collections, adopted });
    CollectionRoot.dropUnclaimed(context.arena, context.regions, adopted);
    this.root = this.engine.roots().get(1)?.address ?? 0;
  }

  open(options: ResolvedTextOptions = this.options): number {
    const encoded = encodeOptions(options);
    const write = (m: WireMemory, offset: number): void => writeOpenRequest(m, offset, 1, encoded);
    return this.call(TEXT_OPEN, openRequestBytes(encoded), write, (m, o) => readOpenReply(m, o).address);
  }

  upsertRequest(documents: readonly Document[]): WrittenRequest {
    const items = documents.map(({ id, fields, payload }) => ({
      id,
      hash: hashId(id),
      vshard: vshardOfId(id),
      body: encodeBody(
        this.options.fields.map((name) => fields[name]),
        payload === undefined ? undefined : encodePayload(payload, id),
      ),
    }));
    const bytes = items.reduce((sum, item) => sum + upsertItemBytes(item), UPSERT_HEADER);
    return { bytes, write: (m, o) => writeUpsertRequest(m, o, 1, items) };
  }

  idsRequest(ids: readonly DocumentId[]): WrittenRequest {
    return { bytes: idsRequestBytes(ids), write: (m, o) => writeIdsRequest(m, o, 1, ids, ids.map(hashId), 0) };
  }

  upsert(documents: readonly Document[]): { count: number; inserted: number } {
    const { bytes, write } = this.upsertRequest(documents);
    return this.call(TEXT_UPSERT, bytes, write, readUpsertReply);
  }

  /** @param mask The vshards that are answered for; the request has been refused the others. */
  get(ids: readonly DocumentId[], mask?: Uint8Array): (StoredBody | undefined)[] {
    const { bytes, write } = this.idsRequest(ids);
    return this.call(TEXT_GET, bytes, write, readGetReply, mask);
  }

  delete(ids: readonly DocumentId[]): number {
    const { bytes, write } = this.idsRequest(ids);
    return this.call(TEXT_DELETE, bytes, write, readCountReply);
  }

  count(mask?: Uint8Array): number {
    return this.collection(TEXT_COUNT, readCountReply, mask);
  }

  status(): TextShardStatus {
    return this.collection(TEXT_STATUS, readStatusReply);
  }

  drop(): number {
    return this.collection(TEXT_DROP, readCountReply);
  }

  query(query: string, options: QueryOptions = {}): TextSearch {
    const { scoring = SCORING.BM25, boosts = this.options.boosts, all = false, k = 10, flags = 0, skip = 0 } = options;
    const parsed = parseQuery(query, this.analyser, this.options.positions, options.prefix ?? false);
    const settings = { scoring, boosts, all };
    return { collectionId: 1, k, flags, skip, settings, query: parsed, statistics: options.statistics };
  }

  statistics(query: string, options: QueryOptions = {}): TextStatistics {
    const search = this.query(query, options);
    const write = (m: WireMemory, o: number): void => writeSearchRequest(m, o, search);
    return this.call(TEXT_STATS, searchRequestBytes(search), write, readStatsReply, options.mask);
  }

  search(query: string, options: QueryOptions = {}): ShardHits {
    const search = this.query(query, options);
    const write = (m: WireMemory, o: number): void => writeSearchRequest(m, o, search);
    return this.call(TEXT_SEARCH, searchRequestBytes(search), write, readSearchReply, options.mask);
  }

  /** A search whose reply the engine holds. */
  hold(query: string, options: QueryOptions = {}): Held {
    const held: Held = { result: undefined, cancelled: false };
    const search = this.query(query, options);
    const memory = wireMemory(searchRequestBytes(search));
    writeSearchRequest(memory, 0, search);
    const reply = new TestReply(held);
    this.engine.handlers.get(TEXT_SEARCH)?.(
      { ...memory, offset: 0, length: memory.bytes.length, vshards: options.mask },
      reply,
    );
    memory.bytes.fill(0xff); // the ring is used again
    return held;
  }

  /** Runs background work to its end. */
  settle(): void {
    for (let slice = 0; this.engine.background?.(50) === true; slice++)
      if (slice > 100_000) throw new Error("background work does not end");
  }

  collection<T>(type: number, read: (m: WireMemory, offset: number, length: number) => T, mask?: Uint8Array): T {
    return this.call(type, COLLECTION_REQUEST_BYTES, (m, o) => writeCollectionRequest(m, o, 1), read, mask);
  }

  /** One message, through memory on both sides, at offsets that are not 0. */
  call<T>(
    type: number,
    bytes: number,
    write: (m: WireMemory, offset: number) => void,
    read: (m: WireMemory, offset: number, length: number) => T,
    mask?: Uint8Array,
  ): T {
    const memory = wireMemory(bytes + 64);
    write(memory, 16);
    return this.send(type, { ...memory, offset: 16, length: bytes, vshards: mask, partial: mask !== undefined }, read);
  }

  send<T>(type: number, request: EngineRequest, read: (m: WireMemory, offset: number, length: number) => T): T {
    const reply = new TestReply(undefined);
    reply.limitBytes = this.replyLimitBytes;
    this.engine.handlers.get(type)?.(request, reply);
    if (reply.length < 0) throw new Error(`no reply to ${type}`);
    return read(reply, reply.offset, reply.length);
  }
}

class TestReply implements EngineReply {
  limitBytes: number = 2 ** 20;
  bytes: Uint8Array = new Uint8Array(0);
  i32: Int32Array = new Int32Array(0);
  f32: Float32Array = new Float32Array(0);
  f64: Float64Array = new Float64Array(0);
  offset = 24;
  length = -1;
  readonly #held: Held | undefined;

  constructor(held: Held | undefined) {
    this.#held = held;
  }

  hold(): HeldReply {
    const held = this.#held;
    if (held === undefined) throw new Error("this reply was not to be held");
    return {
      get cancelled() {
        return held.cancelled;
      },
      send: (lengthBytes, write) => {
        const memory = wireMemory(lengthBytes);
        write(memory, 0);
        held.result = { bytes: memory.bytes };
      },
      fail: (error) => {
        held.result = { error };
      },
    };
  }

  claim(lengthBytes: number): void {
    if (this.length >= 0) throw new Error("claimed twice");
    this.length = lengthBytes;
    const memory = wireMemory(lengthBytes + 24);
    memory.bytes.fill(0xa5);
    this.bytes = memory.bytes;
    this.i32 = memory.i32;
    this.f32 = memory.f32;
    this.f64 = memory.f64;
  }
}

export interface ModelHit {
  readonly id: DocumentId;
  readonly score: number;
  readonly terms: readonly number[];
}

/** Analysed text of one field. */
interface Words {
  readonly terms: readonly string[];
  readonly positions: readonly number[];
}

/** Documents in a map, and the formulas of text-scorer.ts written down as they read. */
export class Model {
  readonly documents: Map<DocumentId, Document> = new Map();
  readonly #options: ResolvedTextOptions;
  readonly #analyser: Analyser;

  constructor(options: TextCollectionOptions) {
    this.#options = resolveTextOptions(options);
    this.#analyser = new Analyser(this.#options);
  }

  put(document: Document): void {
    this.documents.set(document.id, document);
  }

  #words(text: string | undefined): Words {
    if (text === undefined) return { terms: [], positions: [] };
    this.#analyser.analyse(text);
    return { terms: [...this.#analyser.terms], positions: [...this.#analyser.positions] };
  }

  search(text: string, options: QueryOptions = {}): ModelHit[] {
    const { fields, k1, b, positions } = this.#options;
    const { scoring = SCORING.BM25, boosts = this.#options.boosts, all = false } = options;
    const query = parseQuery(text, this.#analyser, positions, options.prefix ?? false);
    const words = [...this.documents.values()].map((document) => ({
      id: document.id,
      fields: fields.map((name) => this.#words(document.fields[name])),
    }));
    const n = words.length;
    const average = fields.map((_, field) => {
      const lengths = words.map((entry) => (entry.fields[field] as Words).terms.length).filter((length) => length > 0);
      return lengths.length === 0 ? 1 : lengths.reduce((sum, length) => sum + length, 0) / lengths.length;
    });
    const searched = fields.map((_, field) => field).filter((field) => (boosts[field] as number) > 0);
    const df = query.terms.map((term) =>
      Math.max(
        1,
        words.filter((entry) => searched.some((field) => occurrences(entry.fields[field] as Words, [term], [0]) > 0))
          .length,
      ),
    );
    const idf = (term: number): number => {
      const frequency = df[term] as number;
      return scoring === SCORING.BM25
        ? Math.log(1 + (n - frequency + 0.5) / (frequency + 0.5))
        : Math.log(1 + n / frequency);
    };
    const hits: ModelHit[] = [];
    for (const entry of words) {
      let score = 0;
      const matched: number[] = [];
      for (const [at, clause] of query.clauses.entries()) {
        const weight = clause.weight * clause.terms.reduce((sum, term) => sum + idf(term), 0);
        let x = 0;
        for (const field of searched) {
          const texts = entry.fields[field] as Words;
          const tf = occurrences(
            texts,
            clause.terms.map((term) => query.terms[term] as TextQuery["terms"][number]),
            clause.offsets,
          );
          if (tf === 0) continue;
          const norm = 1 - b + (b * texts.terms.length) / (average[field] as number);
          x += (boosts[field] as number) * (scoring === SCORING.BM25 ? tf / norm : 1 + Math.log(tf));
        }
        if (x === 0) continue;
        matched.push(at);
        score += scoring === SCORING.BM25 ? (weight * (k1 + 1) * x) / (k1 + x) : weight * x;
      }
      if (matched.length > 0 && (!all || matched.length === query.clauses.length))
        hits.push({ id: entry.id, score, terms: matched });
    }
    return hits.sort((p, q) => q.score - p.score || compareIds(p.id, q.id));
  }
}

/** How often terms stand at these offsets in a text. */
function occurrences(
  { terms, positions }: Words,
  wanted: readonly TextQuery["terms"][number][],
  offsets: readonly number[],
): number {
  const is = (at: number, { term, prefix }: TextQuery["terms"][number]): boolean =>
    terms[at] === term || (prefix !== "" && (terms[at] as string).startsWith(prefix));
  let count = 0;
  for (let at = 0; at < terms.length; at++) {
    if (!is(at, wanted[0] as TextQuery["terms"][number])) continue;
    const whole = wanted.every((term, index) => {
      const place = positions.indexOf((positions[at] as number) + (offsets[index] as number));
      return place >= 0 && is(place, term);
    });
    if (whole) count++;
  }
  return count;
}

/** Equal ids in the same order, but for scores closer than rounding; scores equal to 1e-9. */
export function sameHits(
  actual: readonly { readonly id: DocumentId; readonly score: number }[],
  expected: readonly ModelHit[],
  k: number,
): string | undefined {
  if (actual.length !== Math.min(k, expected.length)) return `${actual.length} hits, not ${expected.length} up to ${k}`;
  const scores = new Map(expected.map(({ id, score }) => [id, score]));
  for (const [at, { id, score }] of actual.entries()) {
    const wanted = scores.get(id);
    if (wanted === undefined) return `${String(id)} is no hit`;
    if (!(Math.abs(wanted - score) <= 1e-9 * Math.max(1, wanted))) return `${String(id)} has ${score}, not ${wanted}`;
    const place = (expected[at] as ModelHit).score;
    if (Math.abs(place - score) > 1e-9 * Math.max(1, place)) return `place ${at} has ${score}, not ${place}`;
    const before = actual[at - 1];
    if (before !== undefined && !(before.score > score || (before.score === score && compareIds(before.id, id) < 0)))
      return `place ${at} is out of order`;
  }
  return undefined;
}

const VOCABULARY: readonly string[] = [
  ..."the of a run running runner jump apple apples tree house straße STRASSE naïve Ελλάδα ελλάς мир 東京 京都 東京都 ราคา 1234 v2".split(
    " ",
  ),
  ..."zebra zed x yy".split(" "),
];

/** Random words, some far commoner than others. */
export function randomText(random: () => number, most: number): string {
  const words = Array.from({ length: Math.floor(random() * (most + 1)) }, () => randomWord(random));
  return words.join(random() < 0.1 ? ", " : " ");
}

export function randomWord(random: () => number): string {
  return VOCABULARY[Math.floor(random() ** 2 * VOCABULARY.length)] as string;
}

export function randomDocument(random: () => number, id: DocumentId, fields: readonly string[]): Document {
  const texts: Record<string, string> = {};
  for (const field of fields) if (random() < 0.8) texts[field] = randomText(random, 25);
  return random() < 0.5 ? { id, fields: texts } : { id, fields: texts, payload: { id, note: randomWord(random) } };
}

export function randomQuery(random: () => number, phrases: boolean): string {
  const parts = Array.from({ length: 1 + Math.floor(random() * 4) }, () => {
    const word = randomWord(random);
    return phrases && random() < 0.3 ? `"${word} ${randomWord(random)}"` : word;
  });
  return parts.join(" ");
}

export { SCORING };
