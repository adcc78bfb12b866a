/**
 * The request by which a client has a shard run a collaborative search, and its reply.
 *
 * ```
 *  request  i32 collection | i32 k | i32 ef | i32 timeout in ms | code of the query, as in message-bytes.ts
 *  reply    i32 reason (0 = complete) | i32 hits | i32 missing | i32 primaries | tally: u32 computations | u32 pulled | u32 stolen |
 *           u32 list reads | u32 pushes | u32 messages | u32 bytes | i32[missing], i32[primaries], i32 vertex[hits], f32 distance[hits]
 * ```
 *
 * Invariant: as in `vector-requests.ts`: readers check the length before they use it (`ERR_CORRUPT`).
 */
import type { ErrorCode } from "../../../src/errors.ts";
import type { Payload, ReplyFrame } from "../../../src/routing/requester.ts";
import type { EngineRequest, WireMemory } from "../../engine.ts";
import { corrupt, need } from "../vector-requests.ts";
import type { CotraOutcome } from "./cotra-origin.ts";
import { codeLength, MessageReader, writeCode } from "./message-bytes.ts";

const REQUEST_BYTES = 16;
const REPLY_WORDS = 11;
/** By number; the first stands for none. */
const REASONS: readonly (ErrorCode | "none")[] = [
  "none",
  "ERR_WORKER_LOST",
  "ERR_TIMEOUT",
  "ERR_OVERLOADED",
  "ERR_ABORTED",
];

/** A search as its origin is asked for it. */
export interface CollaborateRequest {
  readonly collectionId: number;
  /** Vertices wanted. */
  readonly k: number;
  readonly ef: number;
  readonly timeoutMs: number;
  /** As the codes of the graph. */
  readonly query: Uint8Array;
}

export function collaboratePayload({ collectionId, k, ef, timeoutMs, query }: CollaborateRequest): Payload {
  return {
    byteLength: REQUEST_BYTES + codeLength(query),
    write({ i32, bytes }, offset) {
      i32.set([collectionId, k, ef, timeoutMs], offset >>> 2);
      writeCode(bytes, offset + REQUEST_BYTES, query);
    },
  };
}

/** The query is a copy. */
export function readCollaborateRequest(request: EngineRequest): CollaborateRequest {
  need(request, REQUEST_BYTES, "collaborate");
  const { i32, bytes, offset, length } = request;
  const word = (index: number): number => i32[(offset >>> 2) + index] as number;
  const reader = new MessageReader(bytes.subarray(offset + REQUEST_BYTES, offset + length));
  const query = reader.code();
  if (query.length < 1) throw corrupt("collaborate", "query", query.length);
  return { collectionId: word(0), k: word(1), ef: word(2), timeoutMs: word(3), query };
}

export function outcomeBytes({ hits, missing, primaries }: CotraOutcome): number {
  return 4 * (REPLY_WORDS + missing.length + primaries.length + 2 * hits.vertices.length);
}

export function writeOutcome({ i32, f32 }: WireMemory, offset: number, outcome: CotraOutcome): void {
  const { hits, missing, primaries, tally } = outcome;
  let word = offset >>> 2;
  const reason = outcome.complete ? 0 : Math.max(1, REASONS.indexOf(outcome.reason ?? "ERR_WORKER_LOST"));
  i32.set([reason, hits.vertices.length, missing.length, primaries.length], word);
  const { computations, pulled, stolen, listReads, pushes, messages, bytes } = tally;
  i32.set([computations, pulled, stolen, listReads, pushes, messages, bytes], word + 4);
  word += REPLY_WORDS;
  for (const list of [missing, primaries, hits.vertices]) {
    i32.set(list, word);
    word += list.length;
  }
  f32.set(hits.distances, word);
}

/** Everything in it is a copy. */
export function readOutcome({ i32, f32, offset, length }: ReplyFrame): CotraOutcome {
  const first = offset >>> 2;
  if (length < 4 * REPLY_WORDS) throw corrupt("collaborate", "reply", length);
  const word = (index: number): number => i32[first + index] as number;
  const reason = REASONS[word(0)];
  const [hits, missing, primaries] = [word(1), word(2), word(3)];
  const words = REPLY_WORDS + missing + primaries + 2 * hits;
  if (reason === undefined || Math.min(hits, missing, primaries) < 0 || length !== 4 * words)
    throw corrupt("collaborate", "reply", word(0));
  const count = (index: number): number => word(4 + index) >>> 0;
  const lists = first + REPLY_WORDS;
  const vertices = lists + missing + primaries;
  return {
    complete: reason === "none",
    ...(reason === "none" ? {} : { reason }),
    missing: [...i32.subarray(lists, lists + missing)],
    primaries: [...i32.subarray(lists + missing, vertices)],
    hits: {
      vertices: i32.slice(vertices, vertices + hits),
      distances: f32.slice(vertices + hits, vertices + 2 * hits),
    },
    tally: {
      computations: count(0),
      pulled: count(1),
      stolen: count(2),
      listReads: count(3),
      pushes: count(4),
      messages: count(5),
      bytes: count(6),
    },
  };
}
