/**
 * Fixed binary layouts of a near-data search, both directions: who asks sends a code and where to begin, the shard answers with candidates.
 *
 * ```
 *  request  i32 collection | wanted | ef | leaf table's version (0 = search the graph, else read the leaves) | entries | leaves | code bytes |
 *           recall in millionths (of a search that goes on to other shards, whose `ef` is the number of neighbours; else 0) |
 *           level (0 = leaves; else `leaves` are clusters of that level above them, and candidates the clusters or leaves below) |
 *           others | known | 0,
 *           f64[known] distances, i32[known] vertices, i32[entries] vertices, i32[leaves], i32[others] shards, padding to 8, code, padding to 8
 *  reply    i32 candidates | distances computed | dependent rounds | messages to other shards | f64 their bytes | i32 crossings | 0,
 *           then per candidate: f64 distance | u32 address | i32 incarnation | i32 shard | i32 vertex, then per crossing: i32 shard | i32 vertex
 * ```
 * Invariant: as in vector-requests.ts: readers check every length against the record before they use it (`ERR_CORRUPT`). A reply has all candidates
 * that were found of those wanted: where it has no room for them there is none (`ERR_RECORD_TOO_LARGE`). Crossings are hints: it has those it has room for.
 */
import type { KnownVertex } from "../../../native-bridge/graph-kernels.ts";
import type { Payload } from "../../../src/routing/requester.ts";
import type { EngineReply, EngineRequest, WireMemory } from "../../engine.ts";
import type { Candidate, Crossing, Neighbourhood } from "../graph/label-search.ts";
import { assertReplyFits } from "../vector-replies.ts";
import { corrupt, need } from "../vector-requests.ts";
import type { DirectMessage } from "./vector-strategy.ts";

const REQUEST_HEADER = 48;
const REPLY_HEADER = 32;
const CANDIDATE_BYTES = 24;
const CROSSING_BYTES = 8;
const KNOWN_BYTES = 12;

/** In a search of the graph also what another shard has found, and whom candidates may lead to. */
export interface NearRequest extends Neighbourhood {
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
  /** Where candidates lead to in shards that the request names. @default none */
  readonly crossings?: readonly Crossing[];
}

function padded(bytes: number): number {
  return (bytes + 7) & ~7;
}

export function nearRequestBytes(request: NearRequest): number {
  return codeOffset(request) + padded(request.code.length);
}

function codeOffset({ entries, leaves, known = [], others = [] }: NearRequest): number {
  return REQUEST_HEADER + padded(KNOWN_BYTES * known.length + 4 * (entries.length + leaves.length + others.length));
}

export function writeNearRequest(m: WireMemory, offset: number, request: NearRequest): void {
  const {
    collectionId,
    wanted,
    ef,
    version,
    entries,
    leaves,
    code,
    recallPpm,
    level,
    known = [],
    others = [],
  } = request;
  const counts = [entries.length, leaves.length, code.length];
  const head = [collectionId, wanted, ef, version, ...counts, recallPpm, level, others.length, known.length, 0];
  m.i32.set(head, offset >>> 2);
  const first = offset + REQUEST_HEADER;
  for (const [index, { distance }] of known.entries()) m.f64[(first >>> 3) + index] = distance;
  let word = (first + 8 * known.length) >>> 2;
  for (const { vertex } of known) m.i32[word++] = vertex;
  for (const list of [entries, leaves, others]) {
    m.i32.set(list, word);
    word += list.length;
  }
  m.bytes.set(code, offset + codeOffset(request));
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
  const [entries, leaves, codeBytes, others, known] = [word(4), word(5), word(6), word(9), word(10)];
  const most = m.length >>> 2;
  for (const [name, count] of Object.entries({ entries, leaves, others, known }))
    if (count < 0 || count > most) throw corrupt("near", name, count);
  const codeAt = REQUEST_HEADER + padded(KNOWN_BYTES * known + 4 * (entries + leaves + others));
  if (codeBytes < 0 || codeAt + codeBytes > m.length) throw corrupt("near", "code bytes", codeBytes);
  const begin = m.offset + REQUEST_HEADER;
  const vertices = (begin + 8 * known) >>> 2;
  const first = vertices + known;
  return {
    collectionId: word(0),
    wanted: word(1),
    ef: word(2),
    version: word(3),
    known: Array.from({ length: known }, (_, index): KnownVertex => {
      const distance = m.f64[(begin >>> 3) + index] as number;
      return { vertex: m.i32[vertices + index] as number, distance };
    }),
    entries: m.i32.slice(first, first + entries),
    leaves: m.i32.slice(first + entries, first + entries + leaves),
    others: m.i32.slice(first + entries + leaves, first + entries + leaves + others),
    code: m.bytes.slice(m.offset + codeAt, m.offset + codeAt + codeBytes),
    recallPpm: word(7),
    level: word(8),
  };
}

export function nearReplyBytes(candidates: number, crossings: number = 0): number {
  return REPLY_HEADER + candidates * CANDIDATE_BYTES + crossings * CROSSING_BYTES;
}

/**
 * Writes the whole answer, or none: fewer candidates would look like all that there are.
 *
 * @throws {ShardloomError} `ERR_RECORD_TOO_LARGE` when the reply has no room for all of them.
 */
export function writeNearReply(reply: EngineReply, near: NearReply): void {
  const least = nearReplyBytes(near.candidates.length);
  assertReplyFits(least, reply);
  const crossings = (near.crossings ?? []).slice(0, Math.floor((reply.limitBytes - least) / CROSSING_BYTES));
  reply.claim(nearReplyBytes(near.candidates.length, crossings.length));
  writeCandidates(reply, reply.offset, { ...near, crossings });
}

export function writeCandidates(
  { i32, f64 }: WireMemory,
  offset: number,
  { candidates, distances, rounds, messages, bytes, crossings = [] }: NearReply,
): void {
  i32.set([candidates.length, distances, rounds, messages], offset >>> 2);
  f64[(offset >>> 3) + 2] = bytes;
  i32.set([crossings.length, 0], (offset >>> 2) + 6);
  for (const [index, { distance, address, incarnation, shard, vertex }] of candidates.entries()) {
    const at = offset + REPLY_HEADER + index * CANDIDATE_BYTES;
    f64[at >>> 3] = distance;
    i32[(at >>> 2) + 2] = address;
    i32[(at >>> 2) + 3] = incarnation;
    i32[(at >>> 2) + 4] = shard;
    i32[(at >>> 2) + 5] = vertex;
  }
  let word = (offset + nearReplyBytes(candidates.length)) >>> 2;
  for (const { shard, vertex } of crossings) {
    i32[word++] = shard;
    i32[word++] = vertex;
  }
}

export function readNearReply(m: WireMemory & { readonly length: number }, offset: number): NearReply {
  if (m.length < REPLY_HEADER) throw corrupt("near reply", "length", m.length);
  const word = (index: number): number => m.i32[(offset >>> 2) + index] as number;
  const [count, crossed] = [word(0), word(6)];
  if (count < 0 || nearReplyBytes(count) > m.length) throw corrupt("near reply", "candidates", count);
  if (crossed < 0 || nearReplyBytes(count, crossed) > m.length) throw corrupt("near reply", "crossings", crossed);
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
  const first = nearReplyBytes(count) >>> 2;
  const crossings = Array.from({ length: crossed }, (_, index): Crossing => {
    return { shard: word(first + 2 * index), vertex: word(first + 2 * index + 1) };
  });
  const bytes = m.f64[(offset >>> 3) + 2] as number;
  return { candidates, distances: word(1), rounds: word(2), messages: word(3), bytes, crossings };
}
