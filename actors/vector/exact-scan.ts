/**
 * Exact nearest neighbours over all shards, computed one-sidedly on the reader's thread.
 *
 * Invariant: every hit is what one version of its row said when it was read back after the scan, and no row that stayed as it
 * was from the scan's beginning to its end is closer than the last hit and missing. The scan keeps more candidates than
 * asked for; those that are still closer than everything it turned away are final, and when too few are left it runs again.
 * One thread only: it shares its reader's verbs and kernels.
 */
import { ELEMENT, type Kernels } from "../../native-bridge/kernels.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { STATUS } from "../../native-bridge/status.ts";
import { describeValue, invalidArgument, ShardloomError } from "../../src/errors.ts";
import { compareIds } from "../../src/routing/merge.ts";
import { firstRowOf, RECORD_HEADER_BYTES, RECORD_ID_WORD, rowsInChunk } from "../../src/store/collection-layout.ts";
import { idLengthOf, isIdWord, readId, type VectorId } from "../../src/store/id-codec.ts";
import { hashId } from "../../src/topology/stable-hash.ts";
import { ATTEMPTS, NOT_FOUND, type RowReader } from "./row-reader.ts";
import type { ShardView } from "./shard-view.ts";
import type { SearchHit } from "./vector-replies.ts";

export interface ScanOptions {
  readonly includePayload?: boolean;
  readonly includeVector?: boolean;
}

export interface ScanResult {
  /** Ascending by (score, id). */
  readonly hits: readonly SearchHit[];
  /** Status per shard: SUCCESS, or why its hits are missing. RETRY_EXCEEDED: too many of its rows kept changing. */
  readonly statuses: readonly number[];
  /** Rows that were being written at every attempt, and are not among the candidates. */
  readonly unread: number;
}

/** Scans of one shard before its rows count as changing too fast. */
const SCAN_ATTEMPTS = 5;
/** Candidates beyond k: a few, and an eighth of k. */
const SPARE = 8;
/** Unread rows that are tried again one by one. */
const MAX_RETRIED_ROWS = 1024;

/** What one shard gave. */
interface ShardScan {
  readonly status: number;
  /** Rows that it was asked for. */
  readonly places: number;
  /** Those of them that count. */
  readonly hits: readonly SearchHit[];
  readonly unread: number;
  readonly bound: number;
}

export class ExactScan {
  readonly #rows: RowReader;
  readonly #kernels: Kernels;
  /** Of the shard being scanned: its hits, and the rows that could not be read. */
  #hits: Map<VectorId, SearchHit> = new Map();
  #unread = 0;
  /** No row that is not among the hits was below it. */
  #bound = 0;

  constructor(rows: RowReader, kernels: Kernels) {
    this.#rows = rows;
    this.#kernels = kernels;
  }

  /**
   * @param shardOf The shard whose row of an id counts, by the id's hash: where documents have copies, others have rows of it too.
   *   Such rows take places. While copies are level that hides nothing, as they are among the nearest of their own shards as well; a
   *   shard whose places went to rows that are gone elsewhere is scanned again with more of them.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_DIMENSION_MISMATCH`, `ERR_NOT_FINITE`.
   */
  run(
    query: Float32Array,
    k: number,
    options: ScanOptions,
    views: readonly ShardView[],
    rootOf: (shard: number) => RegionRef | undefined,
    shardOf: (hash: number) => number,
  ): ScanResult {
    checkScan(query, k);
    const scan = (shard: number, places: number): ShardScan => {
      const view = views[shard] as ShardView;
      let status: number = STATUS.RETRY_EXCEEDED;
      for (let attempt = 0; attempt < SCAN_ATTEMPTS && status !== STATUS.SUCCESS; attempt++)
        status = this.#scanShard(view, rootOf(shard), query, places, options);
      if (status !== STATUS.SUCCESS) return { status, places, hits: [], unread: 0, bound: Number.POSITIVE_INFINITY };
      const hits = [...this.#hits.values()].filter(({ id }) => shardOf(hashId(id)) === shard);
      return { status, places, hits, unread: this.#unread, bound: this.#bound };
    };
    const scans = views.map((_, shard) => scan(shard, k));
    for (;;) {
      const hits = scans.flatMap((one) => one.hits);
      hits.sort((a, b) => a.score - b.score || compareIds(a.id, b.id));
      const last = hits[k - 1]?.score ?? Number.POSITIVE_INFINITY;
      const short = scans.findIndex(({ bound }) => bound !== Number.POSITIVE_INFINITY && bound <= last);
      if (short < 0) {
        const unread = scans.reduce((sum, one) => sum + one.unread, 0);
        return { hits: hits.slice(0, k), statuses: scans.map(({ status }) => status), unread };
      }
      scans[short] = scan(short, 2 * (scans[short] as ShardScan).places);
    }
  }

  #scanShard(
    view: ShardView,
    root: RegionRef | undefined,
    query: Float32Array,
    k: number,
    options: ScanOptions,
  ): number {
    this.#hits = new Map();
    this.#unread = 0;
    this.#bound = Number.POSITIVE_INFINITY;
    const refreshed = view.refresh(root);
    if (refreshed !== STATUS.SUCCESS) return refreshed;
    if (query.length !== view.dimensions) {
      throw new ShardloomError(
        "ERR_DIMENSION_MISMATCH",
        `Cannot scan as the query must have ${view.dimensions} components: current value is ${query.length}`,
        {
          details: { expected: view.dimensions, value: query.length },
        },
      );
    }
    const rowsUsed = view.rowsUsedNow();
    if (rowsUsed < 0) return STATUS.REGION_REVOKED;
    if (rowsUsed === 0) return STATUS.SUCCESS;
    const wanted = Math.min(k, rowsUsed);
    const { count, bound } = this.#rankRows(view, query, wanted, rowsUsed);
    this.#bound = bound;
    for (let hit = 0; hit < count; hit++) {
      const status = this.#readHit(view, this.#kernels.hitRow(hit), bound, options);
      if (status !== STATUS.SUCCESS) return status;
    }
    if (!view.chunksAlive()) return STATUS.REGION_REVOKED;
    return bound === Number.POSITIVE_INFINITY || this.#hits.size >= wanted ? STATUS.SUCCESS : STATUS.RETRY_EXCEEDED;
  }

  /**
   * Scans until the heap holds every row of the score at place `wanted`: those are then told apart by id.
   *
   * @returns Hits in the heap, and the score that no row outside of it was below; infinity when all rows are in it.
   */
  #rankRows(view: ShardView, query: Float32Array, wanted: number, rowsUsed: number): { count: number; bound: number } {
    const kernels = this.#kernels;
    for (let kept = Math.min(wanted + SPARE + (wanted >> 3), rowsUsed + 1); ; kept = Math.min(2 * kept, rowsUsed + 1)) {
      kernels.beginScan(view.metric, ELEMENT.F32, query, kept);
      for (let chunk = 0; chunk < view.chunkAddresses.length; chunk++) {
        const first = firstRowOf(view.geometry, chunk);
        const rows = Math.min(rowsInChunk(view.geometry, chunk), rowsUsed - first);
        if (rows > 0) kernels.scanCells(view.chunkAddresses[chunk] as number, view.geometry.stride, 0, rows, first);
      }
      this.#offerUnread(view);
      const count = kernels.endScan();
      if (count < kept) return { count, bound: Number.POSITIVE_INFINITY };
      const bound = kernels.hitDistance(count - 1);
      if (kernels.hitDistance(wanted - 1) < bound) return { count, bound };
    }
  }

  /** Tries the rows again that were being written. */
  #offerUnread(view: ShardView): void {
    const kernels = this.#kernels;
    const { ref } = this.#rows;
    const count = kernels.unreadCount;
    const rows = Array.from({ length: Math.min(count, MAX_RETRIED_ROWS) }, (_, index) => kernels.unreadRow(index));
    this.#unread = count - rows.length;
    for (const row of rows) {
      let state = -1;
      for (let attempt = 0; attempt < ATTEMPTS && state < 0; attempt++)
        if (view.cellRef(row, ref)) state = kernels.offerCell(ref.address, row);
      if (state < 0) this.#unread++;
    }
  }

  /** Reads a candidate back and keeps it if it is below the bound now. @returns SUCCESS also when it is gone or has moved away */
  #readHit(view: ShardView, row: number, bound: number, options: ScanOptions): number {
    const { arena } = this.#rows;
    let hit: SearchHit | undefined;
    const status = this.#rows.read(view, row, (cell, record) => {
      hit = undefined;
      const idWord = arena.i32[(record >>> 2) + RECORD_ID_WORD] as number;
      if (!isIdWord(idWord) || !this.#rows.inside(record, RECORD_HEADER_BYTES + idLengthOf(idWord))) return;
      const score = this.#kernels.scoreCell(cell);
      if (score >= bound) return;
      const id = readId(arena.bytes, record + RECORD_HEADER_BYTES, idWord);
      const { includeVector = false, includePayload = false } = options;
      hit = { score, id, ...this.#rows.copyStored(cell, record, view.dimensions, includeVector, includePayload) };
    });
    if (status === STATUS.RETRY_EXCEEDED) this.#unread++;
    else if (status !== STATUS.SUCCESS && status !== NOT_FOUND) return status;
    if (status !== STATUS.SUCCESS || hit === undefined) return STATUS.SUCCESS;
    if (this.#hits.has(hit.id)) return STATUS.RETRY_EXCEEDED; // it moved to another row meanwhile: scan again
    this.#hits.set(hit.id, hit);
    return STATUS.SUCCESS;
  }
}

function checkScan(query: Float32Array, k: number): void {
  if (!(query instanceof Float32Array)) throw invalidArgument("scan", "query", "a Float32Array", query);
  if (!Number.isInteger(k) || k < 1) throw invalidArgument("scan", "k", "a positive integer", k);
  const bad = query.findIndex((value) => !Number.isFinite(value));
  if (bad < 0) return;
  throw new ShardloomError(
    "ERR_NOT_FINITE",
    `Cannot scan as component ${bad} of the query must be finite: current value is ${describeValue(query[bad])}`,
    { details: { component: bad, value: String(query[bad]) } },
  );
}
