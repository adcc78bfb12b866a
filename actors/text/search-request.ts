/**
 * Fixed binary layout of `text.search` and `text.stats`, both directions. Rules as in text-requests.ts.
 *
 * ```
 *  i32 collection | k | flags | skip | scoring | all | terms | clauses | fields | parts, f64 documents,
 *  f64[fields] boosts, f64[2 × fields] lengths,
 *  terms: i32 term bytes | prefix bytes, f64 frequency, term, prefix, padding to 8,
 *  clauses: i32 weight | count, then count × (i32 term | i32 offset),
 *  [f64 score | i32 idWord | 0, id, padding to 8]   the position after which hits are wanted
 * ```
 * `parts`: 1 = the statistics stand for the population, 2 = a position is there.
 */
import type { RankPosition } from "../../src/routing/ranked.ts";
import { bufferOver, idLengthOf, idWordOf, isIdWord, readId, writeId } from "../../src/store/id-codec.ts";
import type { EngineRequest, WireMemory } from "../engine.ts";
import type { QueryClause, QueryTerm, TextQuery } from "./text-query.ts";
import { align, corrupt, need } from "./text-requests.ts";
import type { SearchSettings, TextStatistics } from "./text-scorer.ts";

/** What comes back with a document; to be combined with `|`. TERMS: which clauses a hit matched. */
export const INCLUDE = { PAYLOAD: 1, FIELDS: 2, TERMS: 4 } as const;

const QUERY_HEADER = 48;
const TERM_HEADER = 16;
const CLAUSE_HEADER = 8;
const CLAUSE_TERM = 8;
const AFTER_HEADER = 16;
const PARTS = { STATISTICS: 1, AFTER: 2 } as const;

/** A search; for `text.stats` only the terms, boosts and collection matter. */
export interface TextSearch {
  readonly collectionId: number;
  /** Best documents wanted, those that are skipped included. */
  readonly k: number;
  /** {@link INCLUDE}. */
  readonly flags: number;
  /** Hits that are left out of the reply: an earlier one had room for them. */
  readonly skip: number;
  readonly settings: SearchSettings;
  readonly query: TextQuery;
  /** Of the whole population; undefined = the shard's own. */
  readonly statistics?: TextStatistics | undefined;
  /** Hits that do not rank behind this are left out, as if they did not match. */
  readonly after?: RankPosition | undefined;
}

export function searchRequestBytes({ settings, query, after }: TextSearch): number {
  let bytes = QUERY_HEADER + settings.boosts.length * 24;
  for (const { term, prefix } of query.terms)
    bytes += align(TERM_HEADER + Buffer.byteLength(term) + Buffer.byteLength(prefix));
  for (const { terms } of query.clauses) bytes += CLAUSE_HEADER + CLAUSE_TERM * terms.length;
  return after === undefined ? bytes : bytes + AFTER_HEADER + align(idLengthOf(idWordOf(after.id)));
}

export function writeSearchRequest(m: WireMemory, offset: number, search: TextSearch): void {
  const { i32, f64 } = m;
  const { settings, query, statistics, after } = search;
  const fields = settings.boosts.length;
  const w = offset >>> 2;
  i32[w] = search.collectionId;
  i32[w + 1] = search.k;
  i32[w + 2] = search.flags;
  i32[w + 3] = search.skip;
  i32[w + 4] = settings.scoring;
  i32[w + 5] = settings.all ? 1 : 0;
  i32[w + 6] = query.terms.length;
  i32[w + 7] = query.clauses.length;
  i32[w + 8] = fields;
  i32[w + 9] = (statistics === undefined ? 0 : PARTS.STATISTICS) | (after === undefined ? 0 : PARTS.AFTER);
  f64[(offset >>> 3) + 5] = statistics?.documents ?? 0;
  const values = (offset + QUERY_HEADER) >>> 3;
  for (let field = 0; field < fields; field++) f64[values + field] = settings.boosts[field] as number;
  for (let at = 0; at < 2 * fields; at++) f64[values + fields + at] = statistics?.lengths[at] ?? 0;
  let at = offset + QUERY_HEADER + fields * 24;
  for (const [index, term] of query.terms.entries()) at = writeTerm(m, at, term, statistics?.frequencies[index] ?? 0);
  for (const clause of query.clauses) at = writeClause(i32, at, clause);
  if (after !== undefined) writeAfter(m, at, after);
}

function writeAfter(m: WireMemory, at: number, { score, id }: RankPosition): void {
  const idWord = idWordOf(id);
  m.f64[at >>> 3] = score;
  m.i32[(at >>> 2) + 2] = idWord;
  m.i32[(at >>> 2) + 3] = 0;
  writeId(m.bytes, at + AFTER_HEADER, id, idWord);
}

function writeTerm(m: WireMemory, at: number, { term, prefix }: QueryTerm, frequency: number): number {
  const buffer = bufferOver(m.bytes);
  const termBytes = buffer.write(term, at + TERM_HEADER, "utf8");
  const prefixBytes = prefix === "" ? 0 : buffer.write(prefix, at + TERM_HEADER + termBytes, "utf8");
  m.i32[at >>> 2] = termBytes;
  m.i32[(at >>> 2) + 1] = prefixBytes;
  m.f64[(at >>> 3) + 1] = frequency;
  return align(at + TERM_HEADER + termBytes + prefixBytes);
}

function writeClause(i32: Int32Array, at: number, { weight, terms, offsets }: QueryClause): number {
  let w = at >>> 2;
  i32[w++] = weight;
  i32[w++] = terms.length;
  for (let index = 0; index < terms.length; index++) {
    i32[w++] = terms[index] as number;
    i32[w++] = offsets[index] as number;
  }
  return w << 2;
}

/** Everything is copied out. */
export function readSearchRequest(m: EngineRequest): TextSearch {
  need(m, QUERY_HEADER, "search");
  const word = (index: number): number => m.i32[(m.offset >>> 2) + index] as number;
  const [termCount, clauseCount, fields] = [word(6), word(7), word(8)];
  const most = m.length / CLAUSE_HEADER;
  if (termCount < 0 || clauseCount < 0 || fields < 0 || termCount > most || clauseCount > most || fields > most)
    throw corrupt("search", "number of terms, clauses or fields", termCount);
  const reader = new QueryReader(m, m.offset + QUERY_HEADER);
  const boosts = reader.doubles(fields);
  const lengths = reader.doubles(2 * fields);
  const frequencies = new Float64Array(termCount);
  const terms: QueryTerm[] = [];
  for (let index = 0; index < termCount; index++) {
    terms.push(reader.term());
    frequencies[index] = reader.frequency;
  }
  const clauses: QueryClause[] = [];
  for (let index = 0; index < clauseCount; index++) clauses.push(reader.clause(termCount));
  const documents = m.f64[(m.offset >>> 3) + 5] as number;
  return {
    collectionId: word(0),
    k: word(1),
    flags: word(2),
    skip: word(3),
    settings: { scoring: word(4), all: word(5) === 1, boosts },
    query: { terms, clauses },
    statistics: word(9) & PARTS.STATISTICS ? { documents, lengths, frequencies } : undefined,
    after: word(9) & PARTS.AFTER ? reader.position() : undefined,
  };
}

/** Reads the parts of a query one after the other. */
class QueryReader {
  /** Of the last term. */
  frequency = 0;
  readonly #request: EngineRequest;
  readonly #end: number;
  #at: number;

  constructor(request: EngineRequest, at: number) {
    this.#request = request;
    this.#at = at;
    this.#end = request.offset + request.length;
  }

  doubles(count: number): Float64Array {
    const start = this.#take(count * 8) >>> 3;
    return this.#request.f64.slice(start, start + count);
  }

  term(): QueryTerm {
    const { i32, f64, bytes } = this.#request;
    const header = this.#take(TERM_HEADER);
    const termBytes = i32[header >>> 2] as number;
    const prefixBytes = i32[(header >>> 2) + 1] as number;
    if (termBytes < 0 || prefixBytes < 0) throw corrupt("search", "term length", termBytes);
    this.frequency = f64[(header >>> 3) + 1] as number;
    const start = this.#take(termBytes + prefixBytes);
    this.#at = align(this.#at);
    const buffer = bufferOver(bytes);
    const end = start + termBytes + prefixBytes;
    return {
      term: buffer.toString("utf8", start, start + termBytes),
      prefix: prefixBytes === 0 ? "" : buffer.toString("utf8", start + termBytes, end),
    };
  }

  clause(termCount: number): QueryClause {
    const { i32 } = this.#request;
    const header = this.#take(CLAUSE_HEADER) >>> 2;
    const count = i32[header + 1] as number;
    if (count < 1 || count > this.#request.length) throw corrupt("search", "terms of a clause", count);
    const start = this.#take(count * CLAUSE_TERM) >>> 2;
    const terms: number[] = [];
    const offsets: number[] = [];
    for (let index = 0; index < count; index++) {
      const term = i32[start + index * 2] as number;
      if (term < 0 || term >= termCount) throw corrupt("search", "term of a clause", term);
      terms.push(term);
      offsets.push(i32[start + index * 2 + 1] as number);
    }
    return { weight: i32[header] as number, terms, offsets };
  }

  position(): RankPosition {
    const { i32, f64, bytes } = this.#request;
    const header = this.#take(AFTER_HEADER);
    const idWord = i32[(header >>> 2) + 2] as number;
    const score = f64[header >>> 3] as number;
    if (!isIdWord(idWord) || Number.isNaN(score)) throw corrupt("search", "position", idWord);
    return { score, id: readId(bytes, this.#take(idLengthOf(idWord)), idWord) };
  }

  #take(byteLength: number): number {
    const at = this.#at;
    if (at + byteLength > this.#end) throw corrupt("search", "part", byteLength);
    this.#at = at + byteLength;
    return at;
  }
}
