/**
 * The log of a shard as it was found when it was opened: in segment files, in a stream, or not to be read any more.
 *
 * Invariant: a log whose beginning could not be read takes nothing and gives nothing, so that what is left of it stays as it is.
 */
import type { ShardloomError } from "../errors.ts";
import type { LogFrame, ShardLog } from "./log.ts";
import type { LogRecovery } from "./segment-log.ts";

/** A log, and what opening it has found. */
export interface KeptLog extends ShardLog {
  readonly recovery: Pick<LogRecovery, "cutBytes" | "corrupt">;
  /** Position up to which frames can be read by others. */
  readonly readable: number;
}

/** A log that is damaged where it is opened. */
export class LostLog implements KeptLog {
  readonly head = 0;
  readonly durable = 0;
  readonly first = 1;
  readonly leaseEpoch = 0;
  readonly readable = 0;
  readonly recovery: KeptLog["recovery"];
  readonly failure: ShardloomError;
  onChange: (() => void) | undefined;

  /** @param failure What opening it has failed with. */
  constructor(failure: ShardloomError) {
    this.failure = failure;
    const isGone = failure.details["gone"] === true;
    this.recovery = { cutBytes: 0, corrupt: { position: 1, ...(isGone ? { gone: true } : {}) } };
  }

  assertRoom(): void {
    throw this.failure;
  }

  append(): number {
    throw this.failure;
  }

  fence(): Promise<void> {
    return Promise.reject(this.failure);
  }

  flush(): Promise<void> {
    return Promise.reject(this.failure);
  }

  read(): Promise<readonly LogFrame[]> {
    return Promise.reject(this.failure);
  }

  truncateBelow(): Promise<void> {
    return Promise.reject(this.failure);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
