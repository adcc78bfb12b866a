/**
 * A query as shards see it: distinct terms, and the clauses that they stand in.
 *
 * Syntax: words are searched for; words in double quotes are a phrase, which must stand so in one field (an opening quote
 * without a closing one reaches to the end). A phrase of one word is that word. Nothing else has a meaning.
 *
 * Invariant: a pure function of query and collection options; the order of terms and clauses, in which shards add scores
 * up, is that of first appearance.
 */
import { invalidArgument } from "../../src/errors.ts";
import type { Analyser, QueryToken } from "./analyser.ts";

/** Longest query in UTF-16 code units. */
export const MAX_QUERY_LENGTH = 16_384;

/** One term, or all that begin with `prefix`, and `term` itself. */
export interface QueryTerm {
  readonly term: string;
  /** Not stemmed; empty = only `term`. */
  readonly prefix: string;
}

/** What a document matches or does not: a term, or a phrase of several at fixed distances. */
export interface QueryClause {
  /** How often it stands in the query. */
  weight: number;
  /** Indices into the terms. */
  readonly terms: readonly number[];
  /** Of each term from the first one's position. */
  readonly offsets: readonly number[];
}

export interface TextQuery {
  readonly terms: readonly QueryTerm[];
  readonly clauses: readonly QueryClause[];
}

/**
 * @param phrases Whether the collection keeps positions.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when it is no string, too long, has nothing to search for, or has a phrase
 *   and the collection keeps no positions.
 */
export function parseQuery(query: string, analyser: Analyser, phrases: boolean, prefix: boolean): TextQuery {
  if (typeof query !== "string") throw invalidArgument("search", "query", "a string", query);
  if (query.length > MAX_QUERY_LENGTH)
    throw invalidArgument("search", "query length", `at most ${MAX_QUERY_LENGTH}`, query.length);
  const builder = new QueryBuilder();
  for (const [at, part] of query.split('"').entries()) {
    const quoted = at % 2 === 1;
    const tokens = analyser.analyseQuery(part, prefix && !quoted);
    if (!quoted || tokens.length < 2) for (const token of tokens) builder.add([token]);
    else if (phrases) builder.add(tokens);
    else throw invalidArgument("search", "query", "without phrases, as the collection keeps no positions", query);
  }
  if (builder.clauses.length === 0)
    throw invalidArgument("search", "query", "at least one word that is not left out", query);
  return builder;
}

class QueryBuilder implements TextQuery {
  readonly terms: QueryTerm[] = [];
  readonly clauses: QueryClause[] = [];
  readonly #termOf: Map<string, number> = new Map();
  readonly #clauseOf: Map<string, QueryClause> = new Map();

  add(tokens: readonly QueryToken[]): void {
    const first = tokens[0]?.position ?? 0;
    const terms = tokens.map((token) => this.#term(token));
    const offsets = tokens.map(({ position }) => position - first);
    const key = `${terms.join()};${offsets.join()}`;
    const known = this.#clauseOf.get(key);
    if (known !== undefined) {
      known.weight++;
      return;
    }
    const clause: QueryClause = { weight: 1, terms, offsets };
    this.#clauseOf.set(key, clause);
    this.clauses.push(clause);
  }

  #term({ term, word, prefix }: QueryToken): number {
    const key = JSON.stringify([term, prefix ? word : ""]);
    const known = this.#termOf.get(key);
    if (known !== undefined) return known;
    const index = this.terms.push({ term, prefix: prefix ? word : "" }) - 1;
    this.#termOf.set(key, index);
    return index;
  }
}
