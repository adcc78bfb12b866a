/**
 * A history: what clients asked and were told, in order.
 *
 * Invariant: `index` counts from 0 without gaps in the order of `time`; a process has one open operation at a time, and each `invoke` is followed
 * by at most one `ok`, `fail` or `info` of the same process and `f`. Written as JSON lines in exactly this shape.
 * Source: Jepsen and Elle (`{type, f, process, time, index, value}`).
 */

/** `ok`: it happened and this is the answer. `fail`: it did not happen. `info`: it may or may not have happened, or may still. */
export type HistoryType = "invoke" | "ok" | "fail" | "info";

export interface HistoryEntry {
  readonly type: HistoryType;
  /** The operation: "read", "write", "append", "search", ... */
  readonly f: string;
  readonly process: number;
  /** World time in nanoseconds. */
  readonly time: number;
  readonly index: number;
  /** Argument of an invoke, answer of an ok; plain JSON. */
  readonly value: unknown;
  /** Code of the error of a fail or info. */
  readonly error?: string;
}

/** One operation: its invocation and how it ended. */
export interface Call {
  readonly invoke: HistoryEntry;
  /** Absent for an operation that was still open when the history ended. */
  readonly completion?: HistoryEntry;
  /** `info` for one that was still open. */
  readonly outcome: "ok" | "fail" | "info";
}

/** What a checker found. */
export interface Violation {
  /** Name of the checker or invariant: "linearizable", "no acknowledged write lost". */
  readonly rule: string;
  /** For people: the offending key, values, operations. */
  readonly message: string;
  /** Entries that show it, smallest set the checker can give. */
  readonly entries: readonly HistoryEntry[];
}
