/**
 * A collection of texts as its users see it: upsert, get, delete, count, search.
 *
 * Runs on the client's thread, over a coordinator. Invariant: a batch is checked whole before its first byte is sent, so
 * bad input writes nothing; an acknowledged write is in its shard's regions and found by every later search.
 */
import type { Completeness } from "../../src/routing/gather.ts";
import type { Payload, ReplyFrame } from "../../src/routing/requester.ts";
import { assertBatch, type LoadOptions, type LoadProgress, loadItems } from "../../src/store/bulk-load.ts";
import type { DocumentId } from "../../src/store/id-codec.ts";
import { decodeMetadata, type Metadata } from "../../src/store/metadata-codec.ts";
import { PRIORITY, VSHARD_LISTED } from "../../src/wire/envelope-layout.ts";
import { TEXT_COUNT, TEXT_STATUS } from "../../src/wire/message-types.ts";
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
import type { Explanation } from "../planned-read.ts";
import type { Analyser } from "./analyser.ts";
import { deleteIds, getIds } from "./client-ids.ts";
import { searchTexts } from "./client-search.ts";
import { prepareItem, refuseDuplicates, upsertItems } from "./client-upsert.ts";
import { payloadStart, textsOf } from "./document-body.ts";
import type { ResolvedTextOptions } from "./text-options.ts";
import { readCountReply, readStatusReply, type StoredBody, type TextShardStatus } from "./text-replies.ts";
import { COLLECTION_REQUEST_BYTES, upsertItemBytes, writeCollectionRequest } from "./text-requests.ts";

/** A document to store: an id with texts by field, or one text for the field "text". */
export interface TextDocument {
  /** A string of at most 512 UTF-8 bytes, or a finite number. `1` and `"1"` are different ids. */
  readonly id: DocumentId;
  /** Texts by field of the collection; fields may be missing. */
  readonly fields?: Readonly<Record<string, string>>;
  /** Short for `fields: { text }`. */
  readonly text?: string;
  /** Plain data to get back, at most 64 KiB as msgpack. */
  readonly payload?: Metadata;
}

/** A document as it is stored. */
export interface StoredText {
  readonly id: DocumentId;
  readonly version: number;
  readonly fields?: Readonly<Record<string, string>>;
  readonly payload?: Metadata;
  /**
   * Of a get: how far this may be behind its primary, in ms, at the most, as the copy that answered knew it; infinity: it cannot tell. Absent
   * when nothing is missing, as in every strong read.
   */
  readonly stalenessMs?: number;
}

/** One answer of a search. */
export interface TextHit extends StoredText {
  /** Larger is better. */
  readonly score: number;
  /** What of the query it matched, as terms of the index: stems, `prefix*`, `"a phrase"`. */
  readonly terms?: readonly string[];
}

/** Options of {@link TextCollection.upsert}. */
export type TextUpsertOptions = WriteOptions & Omit<LoadOptions, "signal">;

/** Options of {@link TextCollection.get}. */
export interface TextGetOptions extends PlainReadOptions {
  /** @default true */
  readonly includeFields?: boolean;
  /** @default true */
  readonly includePayload?: boolean;
}

/** Options of {@link TextCollection.search}. */
export interface TextSearchOptions extends Omit<ReadOptions, "explain"> {
  /** Adds the plans of both phases and what became of them to the result, or gives it to a function. @default false */
  readonly explain?: boolean | ((explanation: TextExplanation) => void);
  /** Answers wanted; with `offset` `1..65536`. @default 10 */
  readonly k?: number;
  /** Answers to leave out before the first. @default 0 */
  readonly offset?: number;
  /**
   * The `cursor` of the page before, of the same query: gives the answers behind it. Costs no more than the first page. A
   * document whose score changed in between may stand on both pages, or on none. Not with `offset`. @default from the best
   */
  readonly after?: string;
  /** @default "bm25" */
  readonly scoring?: "bm25" | "tf-idf";
  /** Fields to search, by name or with boosts of their own. @default all, with the collection's boosts */
  readonly fields?: readonly string[] | Readonly<Record<string, number>>;
  /** Words outside of phrases stand for all that begin with them. @default false */
  readonly prefix?: boolean;
  /** Whether a document must match one part of the query or all of them. @default "or" */
  readonly operator?: "or" | "and";
  /** @default true */
  readonly includePayload?: boolean;
  /** @default false */
  readonly includeFields?: boolean;
  /** @default false */
  readonly includeTerms?: boolean;
}

/** What a search found, and how complete that is. */
export interface TextSearchResult {
  /** In the total order (score descending, id ascending). */
  readonly hits: readonly TextHit[];
  /** Over both phases: a vshard is answered when it gave statistics and hits. */
  readonly completeness: Completeness;
  /**
   * How far the answer may be behind the primaries, in ms, at the most, over both phases: as the copies that answered knew it when they began. 0: nothing is missing;
   * infinity: a copy cannot tell.
   */
  readonly stalenessMs: number;
  /** For `after`, when there may be more. */
  readonly cursor?: string;
  /** The plan and what became of it, when `explain` was asked for. */
  readonly explain?: TextExplanation;
}

/** The account of a search: that of the second phase, and of the first where there was one. */
export interface TextExplanation extends Explanation {
  readonly statistics?: Explanation;
}

/** What a collection is made of. */
export interface TextCollectionParts {
  readonly name: string;
  readonly collectionId: number;
  readonly options: ResolvedTextOptions;
  readonly coordinator: Coordinator;
  readonly analyser: Analyser;
  /** Throws when the collection was dropped or the cluster closed. */
  readonly assertOpen: () => void;
}

/** Handle on a collection, for one client thread. */
export class TextCollection {
  readonly name: string;
  readonly options: ResolvedTextOptions;
  readonly #parts: TextCollectionParts;

  constructor(parts: TextCollectionParts) {
    this.name = parts.name;
    this.options = parts.options;
    this.#parts = parts;
  }

  /**
   * Stores documents; an id that exists is replaced. An array of at most 65,536 is one batch, checked whole before anything is written; any
   * other iterable is written batch by batch. After an error `details.written` tells how many documents were acknowledged: 0
   * for bad input, perhaps more when a shard of several failed or when an iterable had come that far.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_DUPLICATE_ID`, `ERR_RECORD_TOO_LARGE`, `ERR_OUT_OF_MEMORY`, and
   *   those of every call.
   */
  async upsert(
    documents: TextDocument | readonly TextDocument[] | Iterable<TextDocument> | AsyncIterable<TextDocument>,
    options: TextUpsertOptions = {},
  ): Promise<LoadProgress> {
    const parts = this.#parts;
    parts.assertOpen();
    if (!Array.isArray(documents) && isIterable(documents)) {
      refuseKey(options);
      // Not the signal: a batch that was sent is waited for. A load keeps itself in bounds, at its own priority.
      const { signal: _, priority: __, batchSize: ___, onProgress: ____, ...call } = options;
      const loader = {
        prepare: (document: TextDocument) => prepareItem(parts, document),
        bytes: upsertItemBytes,
        write: (items: Parameters<typeof upsertItems>[1]) => upsertItems(parts, items, call, PRIORITY.BULK),
      };
      return loadItems(loader, documents, options);
    }
    const list: readonly TextDocument[] = Array.isArray(documents) ? documents : [documents];
    assertBatch("upsert", "documents", list);
    const items = Array.from(list, (document) => prepareItem(parts, document));
    refuseDuplicates(items);
    return upsertItems(parts, items, options, undefined);
  }

  /** One document, or undefined when the id is unknown. */
  get(id: DocumentId, options: Explaining<TextGetOptions>): Promise<ExplainedValue<StoredText | undefined>>;
  get(id: DocumentId, options?: TextGetOptions): Promise<StoredText | undefined>;
  async get(id: DocumentId, options: TextGetOptions | Explaining<TextGetOptions> = {}): Promise<unknown> {
    return explainedRead(this.#parts.coordinator, options, async (read) => (await this.#getMany([id], read))[0]);
  }

  /** Documents in the order of their ids; undefined where an id is unknown. */
  getMany(
    ids: readonly DocumentId[],
    options: Explaining<TextGetOptions>,
  ): Promise<ExplainedValue<(StoredText | undefined)[]>>;
  getMany(ids: readonly DocumentId[], options?: TextGetOptions): Promise<(StoredText | undefined)[]>;
  async getMany(
    ids: readonly DocumentId[],
    options: TextGetOptions | Explaining<TextGetOptions> = {},
  ): Promise<unknown> {
    return explainedRead(this.#parts.coordinator, options, (read) => this.#getMany(ids, read));
  }

  /** Removes documents. @returns how many were there */
  async delete(ids: DocumentId | readonly DocumentId[], options: WriteOptions = {}): Promise<number> {
    this.#parts.assertOpen();
    return deleteIds(this.#parts, typeof ids === "string" || typeof ids === "number" ? [ids] : ids, options);
  }

  /** Number of documents. */
  count(options: Explaining<PlainReadOptions>): Promise<ExplainedValue<number>>;
  count(options?: PlainReadOptions): Promise<number>;
  async count(options: PlainReadOptions | Explaining<PlainReadOptions> = {}): Promise<unknown> {
    this.#parts.assertOpen();
    checkPlainRead(options);
    const { coordinator } = this.#parts;
    const body = this.#collectionBody();
    const query = { type: TEXT_COUNT, body: () => body, decode: readCountReply, count: () => 1 };
    return explainedRead(coordinator, options, async (read) => {
      const { answers } = await coordinator.read<number>({ kind: "scatter" }, query, read);
      return answers.reduce((sum, documents) => sum + documents, 0);
    });
  }

  /** Documents of all copies, terms and memory of every shard, in shard order. */
  async status(options: CallOptions = {}): Promise<TextShardStatus[]> {
    this.#parts.assertOpen();
    const { coordinator } = this.#parts;
    const body = this.#collectionBody();
    const decode = (frame: ReplyFrame): TextShardStatus => readStatusReply(frame, frame.offset);
    return Promise.all(
      coordinator.shards.map((shard) => coordinator.ask(shard, TEXT_STATUS, VSHARD_LISTED, body, decode, options)),
    );
  }

  /**
   * The best documents for a query, in the total order (score descending, id ascending). Scores are those of one shard that
   * holds everything, however many there are: statistics are added up over the shards first.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` also for a query without a word that is not left out.
   */
  async search(query: string, options: TextSearchOptions = {}): Promise<TextSearchResult> {
    this.#parts.assertOpen();
    return searchTexts(this.#parts, query, options);
  }

  async #getMany(
    ids: readonly DocumentId[],
    options: ReadOptions & Pick<TextGetOptions, "includeFields" | "includePayload">,
  ): Promise<(StoredText | undefined)[]> {
    this.#parts.assertOpen();
    checkPlainRead(options);
    const found: (StoredText | undefined)[] = [];
    const { includeFields = true, includePayload = true } = options;
    await getIds(this.#parts, ids, options, (place, stored, stalenessMs) => {
      const document = toStored(this.options, ids[place] as DocumentId, stored, includeFields, includePayload);
      found[place] = stalenessMs === 0 ? document : { ...document, stalenessMs };
    });
    return Array.from({ length: ids.length }, (_, place) => found[place]);
  }

  #collectionBody(): Payload {
    const { collectionId } = this.#parts;
    return {
      byteLength: COLLECTION_REQUEST_BYTES,
      write: (target, offset) => writeCollectionRequest(target, offset, collectionId),
    };
  }
}

/** Decodes a whole body. */
function toStored(
  { fields }: ResolvedTextOptions,
  id: DocumentId,
  { version, body }: StoredBody,
  includeFields: boolean,
  includePayload: boolean,
): StoredText {
  const payload = includePayload ? body.subarray(payloadStart(body, 0, fields.length)) : body.subarray(0, 0);
  return {
    id,
    version,
    ...(includeFields ? { fields: textsOf(fields, body) } : {}),
    ...(payload.length === 0 ? {} : { payload: decodeMetadata(payload) }),
  };
}

function isIterable(value: unknown): value is Iterable<TextDocument> | AsyncIterable<TextDocument> {
  return typeof value === "object" && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value);
}
