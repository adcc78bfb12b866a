/**
 * Layout of the region table: 4096 entries of 128 bytes in the arena.
 *
 * ```
 *  line 0   stamp | base | length | access | cell stride | owner + 1 | (2 unused)     int32 each
 *           key | previous key | one before | one before that                         float64 each
 *  line 1   writes and atomics in flight                                              int32, own line
 *
 *  stamp    bits 0-1 state (FREE, ACTIVE, DRAINING) | bits 2-31 regionEpoch
 *  owner    0 = nobody's. A slot is taken by compare-and-swap of this word, and given back by storing 0 in it, last
 *  rkey     bits 0-11 table index | bits 12-51 random (never 0): a safe integer, so no BigInt is needed
 * ```
 *
 * Invariant: `ACTIVE` with one regionEpoch occurs once in the life of a slot, and every other field changes only while the
 * slot has an owner and is not ACTIVE. So a reader that finds the same ACTIVE stamp before and after has read consistent fields.
 * Slots whose epoch is used up (2^30 registrations) are retired. Four keys are remembered, so that a stale key is told
 * from one that never was; an older one is INVALID_RKEY, which is no less a refusal.
 */
import { REGION_TABLE_BYTE_OFFSET } from "./arena-layout.ts";

/** Names a range of a registered region. Any sub-range of a region, with its key, is a valid reference. */
export interface RegionRef {
  /** Absolute byte offset in the arena. */
  readonly address: number;
  /** Key of the region: a safe integer. */
  readonly rkey: number;
  /** Length in bytes. */
  readonly length: number;
  /** Incarnation word of the cell when the reference was made; when the cell's differs, verbs end in STALE_CELL. */
  readonly generation?: number;
}

/** Rights of a region, to be combined with `|`. */
export const ACCESS = { READ: 1, WRITE: 2, ATOMIC: 4 } as const;
export const ACCESS_MASK = 7;

export const REGION_COUNT = 4096;
export const INDEX_MASK = 4095;
/** Keys below this have no random part and are never given out. */
export const MIN_RKEY = 4096;
export const REGION_ENTRY_BYTES = 128;
export const REGION_TABLE_BYTES: number = REGION_COUNT * REGION_ENTRY_BYTES;
export const REGION_TABLE_WORD: number = REGION_TABLE_BYTE_OFFSET >>> 2;
export const REGION_ENTRY_WORD_SHIFT = 5;

/** Word (int32) indices inside an entry. */
export const STAMP = 0;
export const BASE = 1;
export const LENGTH = 2;
export const RIGHTS = 3;
export const STRIDE = 4;
export const OWNER = 5;
export const IN_FLIGHT = 16;
/** Index of the current key inside an entry, in 8-byte words; the previous ones follow. */
export const KEY = 4;
export const KEYS_KEPT = 4;

export const STATE_MASK = 3;
export const FREE = 0;
export const ACTIVE = 2;
export const DRAINING = 3;
export const EPOCH_SHIFT = 2;
export const MAX_EPOCH = 0x3fff_ffff;

/** Owner of a region: a non-negative int32 below this. */
export const MAX_OWNER = 0x7fff_fffe;

/** Word index of a table entry. */
export function entryWord(index: number): number {
  return REGION_TABLE_WORD + (index << REGION_ENTRY_WORD_SHIFT);
}

/** Stamp of a state under an epoch, as an int32. */
export function stampOf(epoch: number, state: number): number {
  return (epoch << EPOCH_SHIFT) | state;
}
