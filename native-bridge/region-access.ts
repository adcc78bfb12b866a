/**
 * RegionAccess: what a reference means now: whether its key opens a region, which entry, which cell.
 *
 * Invariant: `entry`, `stamp` and `cell` are those of the last `resolve` that passed the key; a range that it admits lies in
 * one region, and in one cell of a cell region. Writes and atomics count themselves in before they look at the stamp again,
 * which deregistration does the other way round; reads only look again.
 * Source: the checks of an RDMA target (InfiniBand specification vol. 1, §10.6). One per thread, inside its Verbs.
 */
import type { Arena } from "./arena.ts";
import { beginWrite, cancelWrite, endWrite, loadFirst } from "./cell.ts";
import { CELL_WRITABLE_OFFSET, INCARNATION } from "./cell-layout.ts";
import {
  ACCESS,
  ACTIVE,
  BASE,
  IN_FLIGHT,
  INDEX_MASK,
  KEY,
  KEYS_KEPT,
  LENGTH,
  MIN_RKEY,
  REGION_ENTRY_WORD_SHIFT,
  REGION_TABLE_WORD,
  type RegionRef,
  RIGHTS,
  STAMP,
  STATE_MASK,
  STRIDE,
} from "./region-layout.ts";
import { STATUS } from "./status.ts";

// Local constants are folded, imported bindings are loaded at each use: see verbs.ts.
const TABLE_WORD = REGION_TABLE_WORD;
const KEY_INDEX = INDEX_MASK;
const ENTRY_SHIFT = REGION_ENTRY_WORD_SHIFT;
const STATE = STATE_MASK;
const ACTIVE_STATE = ACTIVE;
const AT_STAMP = STAMP;
const AT_BASE = BASE;
const AT_STRIDE = STRIDE;
const AT_RIGHTS = RIGHTS;
const AT_LENGTH = LENGTH;
const AT_KEY = KEY;
const AT_INCARNATION = INCARNATION;
const SUCCESS = STATUS.SUCCESS;
const MAY_READ = ACCESS.READ;

export class RegionAccess {
  /** Word index of the table entry, its stamp, and the cell's word index (0 = not in a cell region). */
  entry = 0;
  stamp = 0;
  cell = 0;
  readonly #i32: Int32Array;
  readonly #f64: Float64Array;
  readonly #rmw: boolean;

  constructor(arena: Arena, rmw: boolean) {
    this.#i32 = arena.i32;
    this.#f64 = arena.f64;
    this.#rmw = rmw;
  }

  /** Whether a key opens a region for reading now; an atomic load, so it may end a series of one's own loads. */
  checkKey(rkey: number): number {
    const entry = TABLE_WORD + ((rkey & KEY_INDEX) << ENTRY_SHIFT);
    const stamp = this.#rmw ? Atomics.add(this.#i32, entry + AT_STAMP, 0) : Atomics.load(this.#i32, entry + AT_STAMP);
    if ((stamp & STATE) !== ACTIVE_STATE || this.#f64[(entry >>> 1) + AT_KEY] !== rkey)
      return this.#unknownKey(entry, rkey);
    return ((this.#i32[entry + AT_RIGHTS] as number) & MAY_READ) === 0 ? STATUS.REMOTE_ACCESS_ERROR : SUCCESS;
  }

  /** Checks key, right, range and cell; notes entry, stamp and cell. */
  resolve(ref: RegionRef, right: number): number {
    if (ref === null || ref === undefined) return STATUS.INVALID_RKEY;
    const { address, rkey, length } = ref;
    if (typeof rkey !== "number") return STATUS.INVALID_RKEY;
    const i32 = this.#i32;
    const entry = TABLE_WORD + ((rkey & KEY_INDEX) << ENTRY_SHIFT);
    const stamp = loadFirst(i32, entry + AT_STAMP, this.#rmw); // acquires the entry's fields
    if ((stamp & STATE) !== ACTIVE_STATE || this.#f64[(entry >>> 1) + AT_KEY] !== rkey)
      return this.#unknownKey(entry, rkey);
    this.entry = entry;
    this.stamp = stamp;
    if (((i32[entry + AT_RIGHTS] as number) & right) === 0) return STATUS.REMOTE_ACCESS_ERROR;
    if (typeof address !== "number" || typeof length !== "number") return STATUS.OUT_OF_BOUNDS;
    if (address >>> 0 !== address || length >>> 0 !== length) return STATUS.OUT_OF_BOUNDS;
    const within = address - ((i32[entry + AT_BASE] as number) >>> 0);
    if (within < 0 || within + length > (i32[entry + AT_LENGTH] as number) >>> 0) return STATUS.OUT_OF_BOUNDS;
    const stride = i32[entry + AT_STRIDE] as number;
    if (stride === 0) {
      this.cell = 0;
      return SUCCESS;
    }
    const inCell = (within >>> 0) % (stride >>> 0);
    this.cell = (address - inCell) >>> 2;
    if (inCell + length > stride >>> 0) return STATUS.SPANS_CELLS;
    return right !== MAY_READ && inCell < CELL_WRITABLE_OFFSET ? STATUS.REMOTE_ACCESS_ERROR : SUCCESS;
  }

  #unknownKey(entry: number, rkey: number): number {
    if (!(rkey >= MIN_RKEY)) return STATUS.INVALID_RKEY;
    for (let age = 0; age < KEYS_KEPT; age++)
      if (this.#f64[(entry >>> 1) + AT_KEY + age] === rkey) return STATUS.REGION_REVOKED;
    return STATUS.INVALID_RKEY;
  }

  /** Whether the region that `resolve` found is still active, as the second check of a read outside cells. */
  active(): boolean {
    const word = this.entry + AT_STAMP;
    return (this.#rmw ? Atomics.add(this.#i32, word, 0) : Atomics.load(this.#i32, word)) === this.stamp;
  }

  /** The same after {@link sameVersion}, whose atomic has put all loads in order already. */
  activeAfterCell(): boolean {
    return loadFirst(this.#i32, this.entry + AT_STAMP, this.#rmw) === this.stamp;
  }

  /** Registers an operation in flight, checks that the region is still active, and takes the cell if there is one. */
  enter(generation: number | undefined, attempts: number): number {
    const i32 = this.#i32;
    const cell = this.cell;
    if (cell === 0 && generation !== undefined) return STATUS.STALE_CELL;
    Atomics.add(i32, this.entry + IN_FLIGHT, 1); // before the stamp is looked at again: deregister does it the other way round
    let status: number = SUCCESS;
    if (Atomics.load(i32, this.entry + AT_STAMP) !== this.stamp) status = STATUS.REGION_REVOKED;
    else if (cell !== 0) status = this.#takeCell(cell, generation, attempts);
    if (status !== SUCCESS) Atomics.sub(i32, this.entry + IN_FLIGHT, 1);
    return status;
  }

  #takeCell(cell: number, generation: number | undefined, attempts: number): number {
    if (!beginWrite(this.#i32, cell * 4, attempts)) return STATUS.RETRY_EXCEEDED;
    if (generation === undefined || this.#i32[cell + AT_INCARNATION] === generation) return SUCCESS;
    cancelWrite(this.#i32, cell * 4);
    return STATUS.STALE_CELL;
  }

  leave(): void {
    if (this.cell !== 0) endWrite(this.#i32, this.cell * 4);
    Atomics.sub(this.#i32, this.entry + IN_FLIGHT, 1);
  }
}
