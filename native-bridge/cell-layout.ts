/**
 * Layout of a cell: a versioned unit inside a region, 16-byte aligned, 32 bytes of header, then the payload.
 *
 * ```
 *   0               4              8             12      16      20      24      28
 *  +---------------+--------------+-------------+-------+-------+-------+-------+-------+
 *  |  version low  | version high | incarnation | user0 | user1 | user2 | user3 | user4 |   int32 each, little-endian
 *  +---------------+--------------+-------------+-------+-------+-------+-------+-------+
 *  |  payload, stride - 32 bytes ...
 * ```
 *
 * Invariant: version low is odd exactly while one writer holds the cell; the pair (high, low) never repeats within 2^63 writes.
 * The user words belong to the writer and are covered by the version, as the payload is.
 */

export const CELL_HEADER_BYTES = 32;
export const CELL_ALIGNMENT_BYTES = 16;
/** First byte that the verbs `write`, `compareAndSwap` and `fetchAdd` may change: version and incarnation are protected. */
export const CELL_WRITABLE_OFFSET = 12;

/** Word (int32) indices inside a cell. */
export const VERSION_LOW = 0;
export const VERSION_HIGH = 1;
export const INCARNATION = 2;
export const USER0 = 3;
export const USER1 = 4;
export const USER2 = 5;
export const USER3 = 6;
export const USER4 = 7;

/** Incarnations stay non-negative int32, so that −1 can mean "any". */
export const INCARNATION_MASK = 0x7fff_ffff;
