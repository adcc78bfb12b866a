/**
 * Fixed binary layouts of a near-data search, both directions: who asks sends a code and where to begin, the shard answers with candidates.
 *
 * ```
 *  request  i32 collection | wanted | ef | leaf table's version (0 = search the graph, else read the leaves) | entries | leaves | code bytes |
 *           recall in millionths (of a search that goes on to other shards, whose `ef` is the number of neighbours; else 0) |
 *           level (0 = leaves; else `leaves` are clusters of that level above them, and candidates the clusters or leaves below) | 0,
 *           i32[entries] vertices, i32[leaves], padding to 8, code, padding to 8
 *  reply    i32 candidates | distances computed | dependent rounds | messages to other shards | f64 their bytes, then per candidate: f64 distance | u32 address | i32 incarnation | i32 shard | i32 vertex
 * ```
 * Invariant: as in vector-requests.ts: readers check every length against the record before they use it (`ERR_CORRUPT`). A reply has all candidates
 * that were found of those wanted: where it has no room for them there is none (`ERR_RECORD_TOO_LARGE`).
 */
import type { Payload } from "../../../src/routing/requester.ts";
import type { EngineReply, EngineRequest, WireMemory } from "../../engine.ts";
import type { Candidate } from "../graph/label-search.ts";
import { assertReplyFits } from "../vector-replies.ts";
import { corrupt, need } from "../vector-requests.ts";
import type { DirectMessage } from "./vector-strategy.ts";

const REQUEST_HEADER = 40;
const REPLY_HEADER = 24;
const CANDIDATE_BYTES = 24;

export interface NearRequest {
  readonly collectionId: number;
  /** Candidates wanted. */
  readonly wanted: number;
  readonly ef: number;
  /** Of the leaf table that `leaves` are numbers of; 0: the graph is searched, from `entries`. */
  readonly version: number;
  readonly entries: ArrayLike<number>;
  readonly leaves: ArrayLike<number>;
  readonly code: Uint8Array;
  /** Of a search that the shard does with others; then `ef` is how many neighbours count. */
  readonly recallPpm: number;
  /** Level of `leaves`; 0: they are leaves. */
  readonly level: number;
}

export interface NearReply {
  readonly candidates: readonly Candidate[];
  readonly distances: number;
  /** Exchanges with other shards that had to follow one another; messages of all, and bytes of these and their answers. */
  readonly rounds: number;
  readonly messages: number;
  readonly bytes: number;
}

function padded(bytes: number): number {
  return (bytes + 7) & ~7;
}

export function nearRequestBytes({ entries, leaves, code }: NearRequest): number {
  return REQUEST_HEADER + padded(4 * (entries.length + leaves.length)) + padded(code.length);
}

export function writeNearRequest(m: WireMemory, offset: number, request: NearRequest): void {
  const { collectionId, wanted, ef, version, entries, leaves, code, recallPpm, level } = request;
  const w = offset >>> 2;
  m.i32.set([collectionId, wanted, ef, version, entries.length, leaves.length, code.length, recallPpm, level, 0], w);
  m.i32.set(entries, w + REQUEST_HEADER / 4);
  m.i32.set(leaves, w + REQUEST_HEADER / 4 + entries.length);
  m.bytes.set(code, offset + REQUEST_HEADER + padded(4 * (entries.length + leaves.length)));
}

/** A request of a near-data search as a message of its type. */
export function nearMessage(type: number, request: NearRequest): DirectMessage {
  const write: Payload["write"] = (target, offset) => writeNearRequest(target, offset, request);
  return { type, payload: { byteLength: nearRequestBytes(request), write } };
}

/** Everything in it is a copy. */
export function readNearRequest(m: EngineRequest): NearRequest {
  need(m, REQUEST_HEADER, "near");
  const word = (index: number): number => m.i32[(m.offset >>> 2) + index] as number;
  const [entries, leaves, codeBytes] = [word(4), word(5), word(6)];
  const most = m.length >>> 2;
  if (entries < 0 || leaves < 0 || entries > most || leaves > most) throw corrupt("near", "entries", entries);
  const codeAt = REQUEST_HEADER + padded(4 * (entries + leaves));
  if (codeBytes < 0 || codeAt + codeBytes > m.length) throw corrupt("near", "code bytes", codeBytes);
  const first = (m.offset + REQUEST_HEADER) >>> 2;
  return {
    collectionId: word(0),
    wanted: word(1),
    ef: word(2),
    version: word(3),
    entries: m.i32.slice(first, first + entries),
    leaves: m.i32.slice(first + entries, first + entries + leaves),
    code: m.bytes.slice(m.offset + codeAt, m.offset + codeAt + codeBytes),
    recallPpm: word(7),
    level: word(8),
  };
}

export function nearReplyBytes(count: number): number {
  return REPLY_HEADER + count * CANDIDATE_BYTES;
}

/**
 * Writes the whole answer, or none: fewer candidates would look like all that there are.
 *
 * @throws {ShardloomError} `ERR_RECORD_TOO_LARGE` when the reply has no room for all of them.
 */
export function writeNearReply(reply: EngineReply, near: NearReply): void {
  const byteLength = nearReplyBytes(near.candidates.length);
  assertReplyFits(byteLength, reply);
  reply.claim(byteLength);
  writeCandidates(reply, reply.offset, near);
}

export function writeCandidates(
  { i32, f64 }: WireMemory,
  offset: number,
  { candidates, distances, rounds, messages, bytes }: NearReply,
): void {
  i32.set([candidates.length, distances, rounds, messages], offset >>> 2);
  f64[(offset >>> 3) + 2] = bytes;
  for (const [index, { distance, address, incarnation, shard, vertex }] of candidates.entries()) {
    const at = offset + REPLY_HEADER + index * CANDIDATE_BYTES;
    f64[at >>> 3] = distance;
    i32[(at >>> 2) + 2] = address;
    i32[(at >>> 2) + 3] = incarnation;
    i32[(at >>> 2) + 4] = shard;
    i32[(at >>> 2) + 5] = vertex;
  }
}

export function readNearReply(m: WireMemory & { readonly length: number }, offset: number): NearReply {
  const count = m.i32[offset >>> 2] as number;
  if (count < 0 || REPLY_HEADER + count * CANDIDATE_BYTES > m.length) throw corrupt("near reply", "candidates", count);
  const candidates = Array.from({ length: count }, (_, index): Candidate => {
    const at = offset + REPLY_HEADER + index * CANDIDATE_BYTES;
    return {
      distance: m.f64[at >>> 3] as number,
      address: (m.i32[(at >>> 2) + 2] as number) >>> 0,
      incarnation: m.i32[(at >>> 2) + 3] as number,
      shard: m.i32[(at >>> 2) + 4] as number,
      vertex: m.i32[(at >>> 2) + 5] as number,
    };
  });
  const word = (index: number): number => m.i32[(offset >>> 2) + index] as number;
  const bytes = m.f64[(offset >>> 3) + 2] as number;
  return { candidates, distances: word(1), rounds: word(2), messages: word(3), bytes };
}
