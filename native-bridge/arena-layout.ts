/**
 * Layout of the head of an arena: identity, bump cursor, free lists, scratch directory. The region table follows.
 *
 * ```
 *  byte 0      magic | version | capacity (units) | heap start (units) | region cursor
 *  byte 64     bump cursor (units)                    own cache line: every allocation may write it
 *  byte 128    used (units) | allocations | frees     statistics, relaxed
 *  byte 256    192 free-list heads, 8 bytes each: tag (high 32 bits) | first free block in units (low 32 bits, 0 = none)
 *  byte 2048   64 scratch entries, 16 bytes each: owner + 1 (0 = free) | unused | range, 8 bytes:
 *              byte length (high 32 bits) | block in units (low 32 bits); one store changes it, 0 = none
 *  byte 4096   region table (see region-layout.ts), then the free map: one bit for every unit (see free-map.ts), then the heap
 * ```
 *
 * Invariant: a unit is 64 bytes, so the whole 4 GiB is 2^26 units and every cursor is a non-negative int32.
 * Free block: int32 next (units) | int32 mark | int32 mark xor own unit; the marks let a double free be seen.
 */

/** Granule and alignment of every allocation, in bytes. */
export const UNIT_BYTES = 64;
export const UNIT_SHIFT = 6;
/** WebAssembly's page. */
export const PAGE_BYTES = 65_536;
export const ARENA_MIN_BYTES: number = 1_048_576;
export const ARENA_MAX_BYTES: number = 4_294_967_296;
export const ARENA_DEFAULT_BYTES: number = 1_073_741_824;

export const ARENA_MAGIC = 0x53_48_4c_44;
export const ARENA_VERSION = 1;

/** Word (int32) indices of the head. */
export const MAGIC_WORD = 0;
export const VERSION_WORD = 1;
export const CAPACITY_UNITS_WORD = 2;
export const HEAP_START_WORD = 3;
export const REGION_CURSOR_WORD = 4;
export const BUMP_WORD = 16;
export const USED_UNITS_WORD = 32;
export const ALLOCATIONS_WORD = 33;
export const FREES_WORD = 34;

/** Eight size classes per doubling bound the rounding of a block by 12.5 %. */
export const CLASS_COUNT = 192;
/** Index of the first free-list head, in 8-byte words. */
export const FREE_LIST_LONG = 32;

export const SCRATCH_WORD = 512;
export const SCRATCH_ENTRY_WORDS = 4;
export const SCRATCH_ENTRIES = 64;
/** Index of the range inside a scratch entry, in 8-byte words. */
export const SCRATCH_RANGE = 1;

export const REGION_TABLE_BYTE_OFFSET = 4096;

/** Word indices inside a free block, and the marks. */
export const BLOCK_NEXT = 0;
export const BLOCK_MARK_A = 1;
export const BLOCK_MARK_B = 2;
export const FREE_MARK_A = 0x66_72_65_65;
export const FREE_MARK_B = 0x2b_6c_61_73;

/** Smallest class whose blocks hold `units` (1 … 2^26). */
export function classOf(units: number): number {
  const last = units - 1;
  if (last < 8) return last;
  const shift = 28 - Math.clz32(last);
  return shift * 8 + (last >>> shift);
}

/** Units in a block of a class. */
export function classUnits(sizeClass: number): number {
  if (sizeClass < 16) return sizeClass + 1;
  const shift = (sizeClass >>> 3) - 1;
  return ((sizeClass & 7) + 9) << shift;
}
