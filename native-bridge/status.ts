/**
 * Completion statuses of one-sided operations.
 *
 * Invariant: every verb ends in exactly one of these; data is valid after SUCCESS and after nothing else.
 * Source: the work-completion statuses of RDMA verbs (InfiniBand specification vol. 1, chapter 11; rdma-core `ibv_wc_status`).
 * Divergence: INVALID_RKEY, OUT_OF_BOUNDS and REGION_REVOKED are told apart, where verbs report one remote access error.
 */

/** Every status, as the number that hot paths return. */
export const STATUS = {
  /** The operation took effect, or the bytes in the target are a consistent snapshot. */
  SUCCESS: 0,
  /** No region has, or recently had, this key. */
  INVALID_RKEY: 1,
  /** The range is not inside the region, or address or length is no unsigned 32-bit integer. */
  OUT_OF_BOUNDS: 2,
  /** The region does not grant the right, or the range covers the protected words of a cell header. */
  REMOTE_ACCESS_ERROR: 3,
  /** The region was deregistered, re-registered or adopted under another key. */
  REGION_REVOKED: 4,
  /** The cell belongs to another incarnation than the reference names. */
  STALE_CELL: 5,
  /** The cell was being written at every one of the bounded attempts. Fall back to a message. */
  RETRY_EXCEEDED: 6,
  /** The local buffer, from the offset given, does not have room for the length. */
  LOCAL_LENGTH_ERROR: 7,
  /** An atomic's address is no multiple of 4, or its length is not 4. */
  MISALIGNED: 8,
  /** The range covers more than one cell of a cell region. */
  SPANS_CELLS: 9,
  /** A work request has an unknown opcode or lacks a field. */
  INVALID_REQUEST: 10,
} as const;

/** The number of one status. */
export type Status = (typeof STATUS)[keyof typeof STATUS];

const NAMES: readonly string[] = Object.keys(STATUS);

/** The name of a status number, or `UNKNOWN_STATUS`. */
export function statusName(status: number): string {
  return NAMES[status] ?? "UNKNOWN_STATUS";
}
