/**
 * Whether a thread has left its shard to a successor, which it learns when a long native call returns.
 *
 * Invariant: once it is noted nothing of the shard is served or touched any more.
 */
import { ShardloomError } from "../../src/errors.ts";

/** Remembers that a native call returned on a quarantined thread: from there nothing of the shard may be touched. */
export class Leave {
  #reason: ShardloomError | undefined;

  get taken(): boolean {
    return this.#reason !== undefined;
  }

  note<T>(call: () => T): T {
    try {
      return call();
    } catch (error) {
      if (ShardloomError.is(error) && error.code === "ERR_NATIVE_QUARANTINED") this.#reason = error;
      throw error;
    }
  }

  assertServing(): void {
    if (this.#reason !== undefined) throw this.#reason;
  }
}
