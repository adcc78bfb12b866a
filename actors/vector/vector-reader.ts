/**
 * One-sided access to a collection from any thread: no message, no wake-up, the owners may be blocked or dead.
 *
 * Invariant: everything returned was validated: the row's cell version and its region's key are checked after the bytes were
 * taken, id and vector under one version. A read that cannot be validated ends in a status, never in data.
 * Records lie in memory that compaction may free; a row that pointed there has another version by then, so reading them
 * inside the row's validation is safe as long as lengths are bounded first.
 * One thread only: it shares its verbs and kernels.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import { CELL_HEADER_BYTES, INCARNATION, USER0, USER1, USER2 } from "../../native-bridge/cell-layout.ts";
import { ELEMENT, type Kernels } from "../../native-bridge/kernels.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { STATUS, statusName } from "../../native-bridge/status.ts";
import type { Verbs } from "../../native-bridge/verbs.ts";
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import { compareIds } from "../../src/routing/merge.ts";
import { hashBytes } from "../../src/topology/stable-hash.ts";
import {
  ID_NUMBER,
  idKindOf,
  idLengthOf,
  idWordOf,
  isIdWord,
  MAX_ID_BYTES,
  readId,
  sameIdBytes,
  type VectorId,
  writeId,
} from "./id-codec.ts";
import { type MutableRef, ShardView } from "./shard-view.ts";
import {
  directoryWord,
  firstRowOf,
  RECORD_HEADER_BYTES,
  RECORD_ID_WORD,
  RECORD_PAYLOAD_BYTES,
  RECORD_TOTAL,
  recordBytes,
  rowsInChunk,
  seekDirectory,
} from "./vector-layout.ts";
import type { SearchHit, StoredVector } from "./vector-replies.ts";

/** Where the reader finds the shards. */
export interface VectorReaderSource {
  /** Current root of each shard, undefined while it has none. Asked again when a key was revoked. */
  readonly roots: () => readonly (RegionRef | undefined)[];
  /** Shard of an id, by its hashId. */
  readonly shardOf: (hash: number) => number;
}

export interface ScanOptions {
  readonly includePayload?: boolean;
  readonly includeVector?: boolean;
}

export interface ScanResult {
  /** Ascending by (score, id). */
  readonly hits: readonly SearchHit[];
  /** Status per shard: SUCCESS, or why its hits are missing. */
  readonly statuses: readonly number[];
  /** Rows that were being written at every attempt, and are not among the candidates. */
  readonly unread: number;
}

/** Status of a read of an id that no shard has. */
export const NOT_FOUND = -1;

const ATTEMPTS = 64;
const SCAN_ATTEMPTS = 3;
const TWO_32 = 2 ** 32;

type Visit = (cell: number, record: number) => void;

export class VectorReader {
  /** Version of the document that the last successful `get` copied. */
  version = 0;
  readonly #arena: Arena;
  readonly #verbs: Verbs;
  readonly #kernels: Kernels | undefined;
  readonly #source: VectorReaderSource;
  readonly #views: ShardView[] = [];
  readonly #id: Uint8Array = new Uint8Array(MAX_ID_BYTES);
  readonly #ref: MutableRef = { address: 0, rkey: 0, length: 0 };

  /** @param kernels This thread's kernels, for `scanExact`; a thread that only gets can do without. */
  constructor(arena: Arena, verbs: Verbs, kernels: Kernels | undefined, source: VectorReaderSource) {
    this.#arena = arena;
    this.#verbs = verbs;
    this.#kernels = kernels;
    this.#source = source;
  }

  /**
   * Reference to the vector of an id, for verbs. It stays valid through updates; once the id is deleted, reads end in
   * STALE_CELL; when its shard moves to another worker, in REGION_REVOKED.
   *
   * @returns Undefined when the id is unknown or its shard cannot be read now.
   */
  region(id: VectorId): RegionRef | undefined {
    let found: RegionRef | undefined;
    const status = this.#locate(id, (cell, _record, view) => {
      const generation = this.#arena.i32[(cell >>> 2) + INCARNATION] as number;
      found = { address: cell + CELL_HEADER_BYTES, rkey: this.#ref.rkey, length: view.dimensions * 4, generation };
    });
    return status === STATUS.SUCCESS ? found : undefined;
  }

  /**
   * Copies the vector of an id to `target`.
   *
   * @returns A status of the verbs, or {@link NOT_FOUND}. LOCAL_LENGTH_ERROR when the target is too short.
   */
  get(id: VectorId, target: Float32Array, targetOffset: number = 0): number {
    let short = false;
    const status = this.#locate(id, (cell, _record, view) => {
      const first = (cell + CELL_HEADER_BYTES) >>> 2;
      short = targetOffset + view.dimensions > target.length;
      if (!short) target.set(this.#arena.f32.subarray(first, first + view.dimensions), targetOffset);
      this.version = this.#versionOf(cell);
    });
    return status === STATUS.SUCCESS && short ? STATUS.LOCAL_LENGTH_ERROR : status;
  }

  /**
   * The whole document of an id: vector and metadata of one version.
   *
   * @throws {ShardloomError} `ERR_REGION_ACCESS` with the status when it cannot be read; ask the shard instead.
   */
  document(id: VectorId): StoredVector | undefined {
    let found: StoredVector | undefined;
    const status = this.#locate(id, (cell, record, view) => {
      found = this.#copyStored(cell, record, view.dimensions, true, true);
    });
    if (status === NOT_FOUND) return undefined;
    if (status !== STATUS.SUCCESS) throw accessError("read document", status);
    return found;
  }

  /**
   * Exact nearest neighbours over all shards, computed on this thread in place.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_DIMENSION_MISMATCH`, `ERR_NOT_FINITE`.
   */
  scanExact(query: Float32Array, k: number, options: ScanOptions = {}): ScanResult {
    if (this.#kernels === undefined) throw invalidArgument("scan", "kernels", "given to the reader", undefined);
    if (!Number.isInteger(k) || k < 1) throw invalidArgument("scan", "k", "a positive integer", k);
    const bad = query.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0)
      throw new ShardloomError(
        "ERR_NOT_FINITE",
        `Cannot scan as component ${bad} of the query must be finite: current value is ${query[bad]}`,
      );
    const hits: SearchHit[] = [];
    const statuses: number[] = [];
    let unread = 0;
    for (let shard = 0; shard < this.#source.roots().length; shard++) {
      let status: number = STATUS.RETRY_EXCEEDED;
      for (let attempt = 0; attempt < SCAN_ATTEMPTS && status !== STATUS.SUCCESS; attempt++) {
        const found: SearchHit[] = [];
        status = this.#scanShard(this.#kernels, shard, query, k, options, found);
        if (status !== STATUS.SUCCESS) continue;
        hits.push(...found);
        unread += this.#unread;
      }
      statuses.push(status);
    }
    hits.sort((a, b) => a.score - b.score || compareIds(a.id, b.id));
    return { hits: hits.slice(0, k), statuses, unread };
  }

  #unread = 0;

  #scanShard(
    kernels: Kernels,
    shard: number,
    query: Float32Array,
    k: number,
    options: ScanOptions,
    out: SearchHit[],
  ): number {
    const view = this.#view(shard);
    const refreshed = view.refresh(this.#source.roots()[shard]);
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
    this.#unread = 0;
    if (rowsUsed === 0) return STATUS.SUCCESS;
    const count = this.#rankRows(kernels, view, query, k, rowsUsed);
    const rows = Array.from({ length: count }, (_, hit) => kernels.hitRow(hit));
    let lost = false;
    for (const row of rows) {
      const hit = this.#readHit(kernels, view, row, options);
      if (hit === undefined) lost = true;
      else out.push(hit);
    }
    for (let chunk = 0; chunk < view.chunkAddresses.length; chunk++)
      if (!view.chunkAlive(chunk)) return STATUS.REGION_REVOKED;
    return lost ? STATUS.RETRY_EXCEEDED : STATUS.SUCCESS; // a hit that was deleted meanwhile: scan again
  }

  /** Scans until the heap holds every row of the score at place k: those are then told apart by id. @returns hits in the heap */
  #rankRows(kernels: Kernels, view: ShardView, query: Float32Array, k: number, rowsUsed: number): number {
    for (let kept = Math.min(k, rowsUsed) + 1; ; kept = Math.min(2 * kept, rowsUsed + 1)) {
      kernels.beginScan(view.metric, ELEMENT.F32, query, kept);
      for (let chunk = 0; chunk < view.chunkAddresses.length; chunk++) {
        const first = firstRowOf(view.geometry, chunk);
        const rows = Math.min(rowsInChunk(view.geometry, chunk), rowsUsed - first);
        if (rows > 0) kernels.scanCells(view.chunkAddresses[chunk] as number, view.geometry.stride, 0, rows, first);
      }
      this.#readUnread(kernels, view);
      const count = kernels.endScan();
      if (count < kept || kernels.hitDistance(k - 1) !== kernels.hitDistance(count - 1)) return count;
    }
  }

  /** Tries the rows again that were being written. */
  #readUnread(kernels: Kernels, view: ShardView): void {
    const count = kernels.unreadCount;
    if (count === 0) return;
    const rows = Array.from({ length: Math.min(count, 1024) }, (_, index) => kernels.unreadRow(index));
    this.#unread = count - rows.length;
    for (const row of rows) {
      let state = -1;
      for (let attempt = 0; attempt < ATTEMPTS && state < 0; attempt++)
        if (view.cellRef(row, this.#ref)) state = kernels.offerCell(this.#ref.address, row);
      if (state < 0) this.#unread++;
    }
  }

  /** Id, version and score of one row under one version: the row may have changed since the scan. */
  #readHit(kernels: Kernels, view: ShardView, row: number, options: ScanOptions): SearchHit | undefined {
    let hit: SearchHit | undefined;
    const status = this.#readRow(view, row, (cell, record) => {
      hit = undefined;
      const idWord = this.#arena.i32[(record >>> 2) + RECORD_ID_WORD] as number;
      if (!isIdWord(idWord) || !this.#inside(record, RECORD_HEADER_BYTES + idLengthOf(idWord))) return;
      const score = kernels.scoreCell(cell);
      const id = readId(this.#arena.bytes, record + RECORD_HEADER_BYTES, idWord);
      hit = {
        score,
        id,
        ...this.#copyStored(
          cell,
          record,
          view.dimensions,
          options.includeVector === true,
          options.includePayload === true,
        ),
      };
    });
    return status === STATUS.SUCCESS ? hit : undefined;
  }

  /** Finds an id in its shard's directory and visits its row, validated. `visit` may run several times. */
  #locate(id: VectorId, visit: (cell: number, record: number, view: ShardView) => void): number {
    const idWord = idWordOf(id);
    writeId(this.#id, 0, id, idWord);
    const hash = hashBytes(this.#id, 0, idLengthOf(idWord), idKindOf(idWord) === ID_NUMBER ? 1 : 0); // = hashId(id)
    const shard = this.#source.shardOf(hash);
    const view = this.#view(shard);
    let status: number = STATUS.RETRY_EXCEEDED;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const root = this.#source.roots()[shard];
      // A cached view is tried first: what it finds is validated by the row's own key and version, and a miss is checked.
      if (attempt > 0 || root === undefined || view.root?.rkey !== root.rkey) {
        const refreshed = view.refresh(root);
        if (refreshed !== STATUS.SUCCESS) return refreshed;
      }
      status = this.#probe(view, hash, idWord, visit);
      if (status === NOT_FOUND && view.isCurrent()) return NOT_FOUND;
      if (status === STATUS.SUCCESS || status === STATUS.RETRY_EXCEEDED) return status;
    }
    return status === NOT_FOUND ? STATUS.RETRY_EXCEEDED : status;
  }

  #probe(
    view: ShardView,
    hash: number,
    idWord: number,
    visit: (cell: number, record: number, view: ShardView) => void,
  ): number {
    const { i32, bytes } = this.#arena;
    const { directory, directorySlots: slots } = view;
    let unread = false;
    for (
      let probe = seekDirectory(i32, directory, slots, hash, 0);
      probe >= 0;
      probe = seekDirectory(i32, directory, slots, hash, probe + 1)
    ) {
      const row = (i32[directoryWord(directory, slots, hash, probe) + 1] as number) - 1;
      let matches = false;
      const status = this.#readRow(view, row, (cell, record) => {
        matches =
          i32[(record >>> 2) + RECORD_ID_WORD] === idWord &&
          this.#inside(record, RECORD_HEADER_BYTES + idLengthOf(idWord)) &&
          sameIdBytes(bytes, record + RECORD_HEADER_BYTES, this.#id, 0, idLengthOf(idWord));
        if (matches) visit(cell, record, view);
      });
      if (status === STATUS.RETRY_EXCEEDED) unread = true;
      else if (status !== STATUS.SUCCESS && status !== NOT_FOUND) return status;
      else if (matches && status === STATUS.SUCCESS) return STATUS.SUCCESS;
    }
    return unread ? STATUS.RETRY_EXCEEDED : NOT_FOUND;
  }

  /** Visits a used row between the two checks of its version. NOT_FOUND when it is free. */
  #readRow(view: ShardView, row: number, visit: Visit): number {
    const ref = this.#ref;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (!view.cellRef(row, ref)) return NOT_FOUND;
      const begun = this.#verbs.beginInPlace(ref);
      if (begun === STATUS.RETRY_EXCEEDED) continue;
      if (begun !== STATUS.SUCCESS) return begun;
      const record = this.#arena.u32[(ref.address >>> 2) + USER0] as number;
      const free = record === 0;
      if (!free && this.#inside(record, RECORD_HEADER_BYTES)) visit(ref.address, record);
      const ended = this.#verbs.endInPlace();
      if (ended === STATUS.SUCCESS) return free ? NOT_FOUND : STATUS.SUCCESS;
      if (ended !== STATUS.RETRY_EXCEEDED) return ended;
    }
    return STATUS.RETRY_EXCEEDED;
  }

  #copyStored(
    cell: number,
    record: number,
    dimensions: number,
    withVector: boolean,
    withPayload: boolean,
  ): StoredVector {
    const { u32, f32, bytes } = this.#arena;
    const first = (cell + CELL_HEADER_BYTES) >>> 2;
    const idLength = idLengthOf(u32[(record >>> 2) + RECORD_ID_WORD] as number);
    const payloadAt = record + RECORD_HEADER_BYTES + idLength;
    const payloadBytes = u32[(record >>> 2) + RECORD_PAYLOAD_BYTES] as number;
    const whole = u32[(record >>> 2) + RECORD_TOTAL] === recordBytes(idLength, payloadBytes); // bounds what a torn length can cost
    const payload = withPayload && payloadBytes > 0 && whole && this.#inside(payloadAt, payloadBytes);
    return {
      version: this.#versionOf(cell),
      ...(withVector ? { vector: f32.slice(first, first + dimensions) } : {}),
      ...(payload ? { payload: bytes.slice(payloadAt, payloadAt + payloadBytes) } : {}),
    };
  }

  #versionOf(cell: number): number {
    const { u32 } = this.#arena;
    return (u32[(cell >>> 2) + USER2] as number) * TWO_32 + (u32[(cell >>> 2) + USER1] as number);
  }

  #inside(byteOffset: number, byteLength: number): boolean {
    return byteOffset + byteLength <= this.#arena.capacityBytes;
  }

  #view(shard: number): ShardView {
    let view = this.#views[shard];
    if (view === undefined) {
      view = new ShardView(this.#verbs);
      this.#views[shard] = view;
    }
    return view;
  }
}

function accessError(action: string, status: number): ShardloomError {
  return new ShardloomError(
    "ERR_REGION_ACCESS",
    `Cannot ${action} as its row must be readable: status is ${statusName(status)}`,
    {
      details: { status: statusName(status) },
      retryable: status === STATUS.RETRY_EXCEEDED || status === STATUS.REGION_REVOKED,
    },
  );
}
