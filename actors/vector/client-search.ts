/**
 * A search from a client: one request to every shard, answers merged in the total order (score, id).
 *
 * Invariant: k, ef, vector and filter are checked before anything is sent. A shard whose answer does not fit one reply is asked
 * for the rest, page by page; pages of one answer come from one state of the shard, or the answer is begun again.
 */
import { ShardloomError } from "../../src/errors.ts";
import { mergeRanked } from "../../src/routing/merge.ts";
import type { PlanTarget } from "../../src/routing/plan.ts";
import type { Payload, ReplyFrame } from "../../src/routing/requester.ts";
import { decodeMetadata } from "../../src/store/metadata-codec.ts";
import { VECTOR_SEARCH } from "../../src/wire/message-types.ts";
import type { SearchOptions, SearchResult, VectorCollectionParts, VectorHit } from "./client-collection.ts";
import { encodeFilter } from "./filter.ts";
import { assertEf, assertK, checkedQuery } from "./vector-checks.ts";
import { type QueryHits, readSearchReply, type SearchHit } from "./vector-replies.ts";
import {
  INCLUDE,
  SEARCH_EXACT,
  type SearchRequest,
  searchRequestBytes,
  writeSearchRequest,
} from "./vector-requests.ts";

/** How often an answer in pages is begun again because its shard was written to meanwhile. */
const PAGING_ATTEMPTS = 8;
const DEFAULT_K = 10;

/** One shard's first reply, and what it was asked for. */
interface ShardAnswer {
  readonly target: PlanTarget;
  readonly page: QueryHits;
}

export async function searchVectors(
  parts: VectorCollectionParts,
  vector: ArrayLike<number>,
  options: SearchOptions,
): Promise<SearchResult> {
  const { coordinator } = parts;
  const request = toRequest(parts, vector, options);
  const deadlineAtMs = coordinator.deadlineAtMs(options);
  const body = toPayload(request, 0);
  const result = await coordinator.read<ShardAnswer>(
    { kind: "scatter" },
    {
      type: VECTOR_SEARCH,
      body: () => body,
      decode: (frame, offset, length, target) => ({ target, page: readPage(frame, offset, length) }),
      count: ({ page }) => page.hits.length + page.left,
    },
    options,
  );
  const lists: (readonly SearchHit[])[] = [];
  for (const { target, page } of result.answers) {
    lists.push(page.left === 0 ? page.hits : await readPages(parts, target, request, page, deadlineAtMs, options));
  }
  const { completeness, explain } = result;
  const hits = mergeRanked(lists, request.k, { disjoint: true }).map(toHit);
  return { hits, completeness, ...(explain === undefined ? {} : { explain }) };
}

function toRequest(parts: VectorCollectionParts, vector: ArrayLike<number>, options: SearchOptions): SearchRequest {
  const { collectionId } = parts;
  const { dimensions } = parts.options;
  const k = options.k ?? DEFAULT_K;
  const ef = options.ef ?? 0;
  assertK(k);
  assertEf(ef);
  const flags =
    (options.includePayload === false ? 0 : INCLUDE.PAYLOAD) |
    (options.includeVector === true ? INCLUDE.VECTOR : 0) |
    (options.exact === true ? SEARCH_EXACT : 0);
  const filter = options.filter === undefined ? undefined : encodeFilter(options.filter);
  return { collectionId, k, ef, flags, queries: checkedQuery(dimensions, vector), dimensions, filter };
}

function toPayload(request: SearchRequest, skip: number): Payload {
  const page = skip === 0 ? request : { ...request, skip };
  return {
    byteLength: searchRequestBytes(request),
    write: (target, offset) => writeSearchRequest(target, offset, page),
  };
}

function readPage(frame: ReplyFrame, offset: number, length: number): QueryHits {
  const [page] = readSearchReply(frame, offset, length);
  if (page === undefined)
    throw new ShardloomError(
      "ERR_CORRUPT",
      "Cannot decode search reply as it must answer one query: current value is 0",
    );
  return page;
}

/** The whole answer of one shard, whose first reply had no room for all of it. */
async function readPages(
  parts: VectorCollectionParts,
  target: PlanTarget,
  request: SearchRequest,
  first: QueryHits,
  deadlineAtMs: number,
  options: SearchOptions,
): Promise<readonly SearchHit[]> {
  const { coordinator } = parts;
  let hits: SearchHit[] = [...first.hits];
  let { left, lastVersion } = first;
  for (let attempt = 0; attempt < PAGING_ATTEMPTS; ) {
    if (left === 0) return hits;
    const timeoutMs = Math.max(0.001, deadlineAtMs - coordinator.nowMs());
    const body = toPayload(request, hits.length);
    const page = await coordinator.readOn(target, VECTOR_SEARCH, body, readPage, { ...options, timeoutMs });
    if (page.lastVersion === lastVersion) {
      for (const hit of page.hits) hits.push(hit);
      left = page.left;
    } else {
      attempt++;
      hits = [];
      left = 1;
      lastVersion = page.lastVersion;
    }
  }
  throw new ShardloomError(
    "ERR_UNAVAILABLE",
    `Cannot search as shard ${target.shard} was written to during each of ${PAGING_ATTEMPTS} attempts to read an answer of several replies`,
    {
      details: { shard: target.shard, k: request.k },
    },
  );
}

function toHit(hit: SearchHit): VectorHit {
  const { id, score, version, vector, payload } = hit;
  if (vector === undefined && payload === undefined) return { id, score, version };
  return {
    id,
    score,
    version,
    ...(vector === undefined ? {} : { vector }),
    ...(payload === undefined ? {} : { payload: decodeMetadata(payload) }),
  };
}
