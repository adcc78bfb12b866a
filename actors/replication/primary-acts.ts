/**
 * What a shard does as the primary of a vshard, told when it is done on the diagnostics channel `shardloom:primary-act`, to whoever listens in the
 * shard's own thread.
 *
 * Invariant: an act is told by whoever does it, in the term in which he takes himself for the primary, and in the order of the acts of his thread.
 * While nobody listens an act costs a look at the channel, and nothing is made for it.
 */
import { channel } from "node:diagnostics_channel";
import type { HeldReply } from "../engine.ts";

/**
 * `append`: a write was given an LSN; `acknowledge`: one that waited for copies or log was answered; `read`: a strong read was read, whose answer
 * may have to wait.
 */
export type PrimaryActKind = "append" | "acknowledge" | "read";

/** One act. */
export interface PrimaryAct {
  readonly kind: PrimaryActKind;
  readonly vshard: number;
  /** The vshard's, see `TopologySnapshot`. */
  readonly term: number;
  readonly shard: number;
}

/** Its messages are of type {@link PrimaryAct}. */
export const PRIMARY_ACTS: ReturnType<typeof channel> = channel("shardloom:primary-act");

/** Says of vshards what their primary does. */
export function tellActs(
  kind: PrimaryActKind,
  shard: number,
  vshards: Iterable<number>,
  terms: ArrayLike<number> | undefined,
): void {
  for (const vshard of vshards)
    PRIMARY_ACTS.publish({ kind, vshard, term: terms?.[vshard] ?? 1, shard } satisfies PrimaryAct);
}

/** An answer that tells when it is sent. */
export function telling(held: HeldReply, tell: () => void): HeldReply {
  return {
    get cancelled() {
      return held.cancelled;
    },
    send: (lengthBytes, write) => {
      tell();
      held.send(lengthBytes, write);
    },
    fail: (error) => held.fail(error),
  };
}
