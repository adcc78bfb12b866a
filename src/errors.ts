/**
 * The one error class of Shardloom and the closed list of its codes.
 *
 * Invariant: every failure that leaves a public entry point is a {@link ShardloomError} whose `code` is in
 * {@link ERROR_CODES}. Structured clone drops class and code, so threads and wires carry errors through
 * `src/wire/error-codec.ts`, never as cloned objects.
 *
 * Message grammar: *Cannot create ring as capacityBytes must be a power of two: current value is 1000*.
 */

/** Every code, with whether the same call may succeed when it is simply made again. */
export const ERROR_CODES = {
  /** An argument or option has a wrong type or is outside its range. */
  ERR_INVALID_ARGUMENT: { retryable: false },
  /** A vector has another number of components than its collection. */
  ERR_DIMENSION_MISMATCH: { retryable: false },
  /** A vector holds NaN or an infinity. */
  ERR_NOT_FINITE: { retryable: false },
  /** One batch names the same id twice. */
  ERR_DUPLICATE_ID: { retryable: false },
  /** No collection of that name, or it was dropped. */
  ERR_UNKNOWN_COLLECTION: { retryable: false },
  /** No vertex of that key in the graph; `details` has the key. */
  ERR_UNKNOWN_VERTEX: { retryable: false },
  /** The collection exists with other dimensions, metric or element type. */
  ERR_COLLECTION_MISMATCH: { retryable: false },
  /** No actor of that name, or no handler of that name on it. */
  ERR_UNKNOWN_ACTOR: { retryable: false },
  /** A message type has no handler on the receiver. */
  ERR_UNKNOWN_MESSAGE: { retryable: false },
  /** A record, envelope or file cannot be decoded. */
  ERR_CORRUPT: { retryable: false },
  /** A file ends before its header says. */
  ERR_TRUNCATED: { retryable: false },
  /** A file is of no format that the reader knows, or of the wrong one. */
  ERR_UNSUPPORTED_FORMAT: { retryable: false },
  /** No file or directory of that name. */
  ERR_NO_FILE: { retryable: false },
  /** A file or directory of that name is there already. */
  ERR_FILE_EXISTS: { retryable: false },
  /** The disk has no room; of a write, a part from its beginning may be in the file. */
  ERR_DISK_FULL: { retryable: false },
  /** The file, directory or disk cannot be written. */
  ERR_READ_ONLY: { retryable: false },
  /** The disk failed; after a failed sync nothing is known of what was written since the last good one. */
  ERR_IO: { retryable: false },
  /** A directory is open in another process, or by another cluster of this one; `details` says by whom. */
  ERR_DIRECTORY_IN_USE: { retryable: true },
  /** A directory belongs to another cluster or node, or was made for another number of shards. */
  ERR_DIRECTORY_MISMATCH: { retryable: false },
  /** The peer speaks another envelope version or structure table. */
  ERR_VERSION_MISMATCH: { retryable: false },
  /** A certificate, a node's name or a join token is not one that this side trusts: another authority's, expired, another's, used. */
  ERR_UNTRUSTED: { retryable: false },
  /** A record is larger than the ring admits, or a payload larger than the envelope admits. */
  ERR_RECORD_TOO_LARGE: { retryable: false },
  /** The arena has no free range of that size. */
  ERR_OUT_OF_MEMORY: { retryable: true },
  /** The region table is full. */
  ERR_REGION_TABLE_FULL: { retryable: true },
  /** A region key is unknown, stale, out of bounds or lacks the right; `details.status` has the completion status. */
  ERR_REGION_ACCESS: { retryable: false },
  /** A mailbox, ring or queue is full, or admission was refused. */
  ERR_OVERLOADED: { retryable: true },
  /** The deadline passed before the answer came. */
  ERR_TIMEOUT: { retryable: true },
  /** The caller's AbortSignal fired. */
  ERR_ABORTED: { retryable: false },
  /** The worker that held the request died, or its actor was being restarted. */
  ERR_WORKER_LOST: { retryable: true },
  /** A handler held its thread longer than `maxHandlerMs` and its worker was replaced. */
  ERR_HANDLER_HUNG: { retryable: true },
  /** A native call exceeded its budget; the request failed and the thread is quarantined until the call returns. */
  ERR_NATIVE_QUARANTINED: { retryable: true },
  /** No shard can serve the request now. */
  ERR_UNAVAILABLE: { retryable: true },
  /** The request was planned with a topology that is no longer the shard's; the newer map came with the answer. */
  ERR_STALE_EPOCH: { retryable: true },
  /** No copy that may answer is as fresh as the request demands. */
  ERR_STALE_REPLICA: { retryable: true },
  /** A write was applied by its primary, but too few copies acknowledged it in time: it is in doubt. */
  ERR_QUORUM: { retryable: true },
  /** A hash ring or placement without a single member that may hold keys. */
  ERR_EMPTY_RING: { retryable: true },
  /** A barrier round was aborted or poisoned; `cause` and `details` say by whom. */
  ERR_BARRIER: { retryable: false },
  /** A user handler threw; `cause` has its error. */
  ERR_ACTOR_FAILED: { retryable: false },
  /** The actor failed more often than its restart budget allows. */
  ERR_RESTART_BUDGET: { retryable: false },
  /** A module given by URL cannot be found or loaded, or exports no actor. */
  ERR_MODULE_NOT_LOADED: { retryable: false },
  /** Code in a simulated world reached for real time, chance or I/O; `details` has the call and its site. */
  ERR_SIMULATION_ESCAPE: { retryable: false },
  /** A workload threw, or gave what a workload must not give; `cause` has its error, `details` the workload and the operation. */
  ERR_WORKLOAD_FAILED: { retryable: false },
  /** The object was closed. */
  ERR_CLOSED: { retryable: false },
  /** A recorded run breaks a rule that it was checked against; `details` names the rules. */
  ERR_VIOLATION: { retryable: false },
  /** A broken invariant of Shardloom itself. */
  ERR_INTERNAL: { retryable: false },
} as const;

/** One of the closed list of codes. */
export type ErrorCode = keyof typeof ERROR_CODES;

/** What an error carries besides its code and message. */
export interface ShardloomErrorOptions {
  /** Plain values that a program can act on: the offending value, the limit, the name. Must be serialisable. */
  readonly details?: Readonly<Record<string, unknown>>;
  /** The error that led to this one. */
  readonly cause?: unknown;
  /** @default the table's value for the code */
  readonly retryable?: boolean;
}

const BRAND = Symbol.for("shardloom.error");

/** The error that every public entry point of Shardloom throws or rejects with. */
export class ShardloomError extends Error {
  override readonly name: string = "ShardloomError";
  /** What went wrong, as a stable word. */
  readonly code: ErrorCode;
  /** Whether the same call may succeed when it is simply made again. */
  readonly retryable: boolean;
  /** Plain values that belong to the failure. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message: string, options: ShardloomErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryable = options.retryable ?? ERROR_CODES[code].retryable;
    this.details = options.details ?? {};
  }

  /** Whether a value is a ShardloomError, also one made by another copy of the package. */
  static is(value: unknown): value is ShardloomError {
    return typeof value === "object" && value !== null && (value as Record<symbol, unknown>)[BRAND] === true;
  }

  /** Turns anything caught into a ShardloomError; one that already is passes unchanged. */
  static from(value: unknown, code: ErrorCode = "ERR_INTERNAL"): ShardloomError {
    if (ShardloomError.is(value)) return value;
    const message = value instanceof Error ? value.message : String(value);
    return new ShardloomError(code, message, { cause: value });
  }
}

// On the prototype: isolatedDeclarations admits no computed member in the class itself.
Object.defineProperty(ShardloomError.prototype, BRAND, { value: true });

/**
 * Makes the error for a bad argument in the house grammar:
 * *Cannot {action} as {name} must be {rule}: current value is {value}*.
 */
export function invalidArgument(action: string, name: string, rule: string, value: unknown): ShardloomError {
  return new ShardloomError(
    "ERR_INVALID_ARGUMENT",
    `Cannot ${action} as ${name} must be ${rule}: current value is ${describeValue(value)}`,
    { details: { name, value: plainValue(value) } },
  );
}

/** A short printable form of any value, for error messages. */
export function describeValue(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.length > 80 ? `${value.slice(0, 77)}...` : value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "object" && value !== null) {
    const name: unknown = value.constructor?.name;
    return Array.isArray(value)
      ? `an array of ${value.length}`
      : `an object of ${typeof name === "string" ? name : "no class"}`;
  }
  return String(value);
}

function plainValue(value: unknown): unknown {
  return typeof value === "number" || typeof value === "string" || typeof value === "boolean" || value === null
    ? value
    : describeValue(value);
}
