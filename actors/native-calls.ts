/**
 * Native calls of a worker, marked on its heartbeat so that a thread inside one is not taken for a hung one.
 *
 * Invariant: calls may nest, and the outermost one is marked; none returns into a worker whose shard belongs to another thread by then.
 */
import { HEARTBEAT } from "../native-bridge/heartbeat.ts";
import { ShardloomError } from "../src/errors.ts";
import type { WorkerBlock } from "../src/plane/worker-block.ts";
import type { Clock } from "../src/runtime/clock.ts";

export class NativeCalls {
  readonly #block: WorkerBlock;
  readonly #clock: Clock;
  readonly #shard: number;
  #depth = 0;

  constructor(block: WorkerBlock, clock: Clock, shard: number) {
    this.#block = block;
    this.#clock = clock;
    this.#shard = shard;
  }

  /** @throws What the call throws; {@link ShardloomError} `ERR_NATIVE_QUARANTINED` when the worker was replaced meanwhile. */
  readonly run = <T>(call: () => T): T => {
    const { heartbeat } = this.#block;
    if (this.#depth++ === 0) heartbeat.enter(HEARTBEAT.NATIVE, this.#clock.nowMs());
    try {
      return call();
    } finally {
      if (--this.#depth === 0) heartbeat.enter(HEARTBEAT.JS, this.#clock.nowMs());
      this.#assertServing();
    }
  };

  #assertServing(): void {
    if (!this.#block.retired) return;
    throw new ShardloomError(
      "ERR_NATIVE_QUARANTINED",
      `Cannot go on as shard ${this.#shard} has been given to another worker`,
    );
  }
}
