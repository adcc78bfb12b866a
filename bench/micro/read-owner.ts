/** What the read bench and the thread that owns its region share: commands and marks in one small buffer. */

/** Int32 words of the control buffer, a cache line apart where both threads spin. */
export const WORD = { COMMAND: 0, STATE: 16, PING: 32, PONG: 48 } as const;
export const CONTROL_BYTES = 256;

export const COMMAND = { IDLE: 0, BLOCK: 1, SPIN: 2, PARK: 3, EXIT: 4 } as const;
/** STATE is BLOCKED exactly while the owner sits in Atomics.wait. */
export const BLOCKED = 1;
export const BLOCK_MS = 100;

export const CELLS = 64;
export const STRIDE_BYTES = 96;
export const LARGE_BYTES = 4096;
export const LARGE_STRIDE_BYTES: number = LARGE_BYTES + 32;

/** References that the owner gives out. */
export interface OwnerRefs {
  readonly cells: { readonly address: number; readonly rkey: number };
  readonly large: { readonly address: number; readonly rkey: number };
}
