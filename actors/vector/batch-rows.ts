/**
 * The rows that a batch of searches wants: each is read once, by a request in a posted list, and scored for all queries that want it.
 *
 * Invariant: a hit is from its row in one version under a good key. Where many queries want one row they are scored in parts, each under the row's
 * version then. One thread only.
 */
import { INCARNATION, USER0 } from "../../native-bridge/cell-layout.ts";
import { ELEMENT, type Kernels } from "../../native-bridge/kernels.ts";
import { OPCODE } from "../../native-bridge/verbs.ts";
import { RECORD_HEADER_BYTES, RECORD_ID_WORD } from "../../src/store/collection-layout.ts";
import { idLengthOf, isIdWord, readId } from "../../src/store/id-codec.ts";
import { hashId } from "../../src/topology/stable-hash.ts";
import type { ScanOptions } from "./exact-scan.ts";
import type { OneSidedSource } from "./one-sided-result.ts";
import type { PostedLists } from "./posted-lists.ts";
import type { RowReader } from "./row-reader.ts";
import type { MutableRef } from "./shard-view.ts";
import type { Slices } from "./slices.ts";
import type { SearchHit } from "./vector-replies.ts";

/** A query that wants rows. */
interface RowQuery {
  readonly vector: Float32Array;
  readonly hits: SearchHit[];
  /** Whether what it wants cannot be found here. */
  isAlone: boolean;
}

/** A row to be read, and who wants it. */
export interface WantedRow {
  readonly shard: number;
  /** Undefined: whichever document is there, for all queries. */
  readonly incarnation: number | undefined;
  readonly queries: readonly RowQuery[];
}

/** By the address of the row: a hit for each of its queries, undefined where the document that was meant was not there. */
export type FoundRows = Map<number, (SearchHit | undefined)[]>;

/** Queries that are scored by one request, and rows that are added in one piece of work. */
const PART_QUERIES = 256;
const PART_ROWS = 256;

export class BatchRows {
  readonly #rows: RowReader;
  readonly #kernels: Kernels;
  readonly #lists: PostedLists;
  readonly #options: ScanOptions;
  readonly #ref: MutableRef = { address: 0, rkey: 0, length: 0 };

  constructor(rows: RowReader, kernels: Kernels, lists: PostedLists, options: ScanOptions) {
    this.#rows = rows;
    this.#kernels = kernels;
    this.#lists = lists;
    this.#options = options;
  }

  /** Adds rows to the lists. @returns what is found there once they were posted; a row that was not read is to be taken away */
  *add(wanted: ReadonlyMap<number, WantedRow>, source: OneSidedSource): Slices<FoundRows> {
    const found: FoundRows = new Map();
    let added = 0;
    for (const [address, row] of wanted) {
      const view = source.views[row.shard];
      if (view?.cellRef(view.rowAt(address), this.#ref) !== true) continue;
      const hits: (SearchHit | undefined)[] = [];
      found.set(address, hits);
      for (let first = 0; first < row.queries.length; first += PART_QUERIES) {
        const queries = row.queries.slice(first, first + PART_QUERIES);
        const visit = (): void => {
          const part = this.#hitsAt(address, row, queries, source);
          for (let at = 0; at < queries.length; at++) hits[first + at] = part?.[at];
        };
        this.#lists.add(row.shard, address, { opcode: OPCODE.VISIT, ref: { ...this.#ref }, visit });
      }
      if (++added % PART_ROWS === 0) yield;
    }
    return found;
  }

  /** Hands the hits to those who want them. */
  *take(wanted: ReadonlyMap<number, WantedRow>, found: FoundRows): Slices<void> {
    let taken = 0;
    for (const [address, { incarnation, queries }] of wanted) {
      const hits = found.get(address);
      for (const [at, query] of queries.entries()) {
        const hit = hits?.[at];
        if (hit !== undefined) query.hits.push(hit);
        else if (incarnation !== undefined) query.isAlone = true; // it has gone, or cannot be read now
      }
      taken += queries.length;
      if (taken < PART_QUERIES) continue;
      taken = 0;
      yield;
    }
  }

  /** What a row holds, as a hit of each query; under the checks of its visit. Undefined: not the document that was meant. */
  #hitsAt(
    cell: number,
    { shard, incarnation }: WantedRow,
    queries: readonly RowQuery[],
    { views, shardOf }: OneSidedSource,
  ): SearchHit[] | undefined {
    const { includeVector = false, includePayload = false } = this.#options;
    const { i32, u32, bytes } = this.#rows.arena;
    const view = views[shard];
    const record = u32[(cell >>> 2) + USER0] as number;
    if (view === undefined || record === 0 || !this.#rows.inside(record, RECORD_HEADER_BYTES)) return undefined;
    if (incarnation !== undefined && i32[(cell >>> 2) + INCARNATION] !== incarnation) return undefined;
    const idWord = i32[(record >>> 2) + RECORD_ID_WORD] as number;
    if (!isIdWord(idWord) || !this.#rows.inside(record, RECORD_HEADER_BYTES + idLengthOf(idWord))) return undefined;
    const id = readId(bytes, record + RECORD_HEADER_BYTES, idWord);
    if (shardOf(hashId(id)) !== shard) return undefined;
    return queries.map(({ vector }) => {
      this.#kernels.beginScan(view.metric, ELEMENT.F32, vector, 1);
      const score = this.#kernels.scoreCell(cell);
      return { score, id, ...this.#rows.copyStored(cell, record, view.dimensions, includeVector, includePayload) };
    });
  }
}
