/** What the main thread and the workers of the memory stress share: the control words, the roles, the counters. */

/** Words of the control buffer. KEY_DOUBLE is an index in float64. */
export const CONTROL = { STOP: 0, READY: 1, ROUND: 2, KEY_DOUBLE: 4 } as const;
export const POISON = 0x00de_ad00;

export interface StressData {
  readonly role:
    | "write"
    | "write-without-odd"
    | "write-slowly"
    | "hold"
    | "verbs-write"
    | "read"
    | "read-in-place"
    | "read-cell"
    | "read-shared"
    | "write-shared";
  readonly memory: WebAssembly.Memory;
  readonly control: SharedArrayBuffer;
  readonly byteOffset: number;
  readonly cells: number;
  readonly stride: number;
  readonly rkey: number;
  readonly count: number;
  readonly rmwCheck: boolean;
  /** Byte offset of the target inside its buffer: odd ones take the path of single bytes. */
  readonly misalignment: number;
}

export interface StressResult {
  done: number;
  torn: number;
  busy: number;
  retries: number;
  refused: number;
}
