/**
 * What is wrong with a shard's storage, for who asks: damage that was found, also where it was made up for, and work in the background that fails.
 *
 * Invariant: nothing here changes what is served; what was found damaged stays known as long as the worker lives.
 */
import type { ShardloomError } from "../../src/errors.ts";
import type { ShardStorageStats, StorageTrouble } from "../../src/plane/shard-task.ts";

/** What is asked when somebody wants to know. */
export interface TroubledStorage {
  /** Why what was written cannot all be read. */
  readonly damage: ShardloomError | undefined;
  /** Why the log takes nothing. */
  readonly log: ShardloomError | undefined;
  /** Why the last snapshot failed, and since when they do. */
  readonly checkpoint: { readonly failure: ShardloomError | undefined; readonly failingSinceMs: number };
  readonly nowMs: number;
}

export class StorageTroubles {
  readonly #damaged: Set<ShardloomError> = new Set();

  /** Something was found damaged. */
  note(...damages: readonly (ShardloomError | undefined)[]): void {
    for (const damage of damages) if (damage !== undefined) this.#damaged.add(damage);
  }

  /** Goes on with what was found before everything was put aside. */
  take(before: StorageTroubles): void {
    this.note(...before.#damaged);
  }

  stats({ damage, log, checkpoint, nowMs }: TroubledStorage): ShardStorageStats {
    this.note(damage);
    const { failure, failingSinceMs } = checkpoint;
    return {
      damage: [...this.#damaged].map(troubleOf),
      ...(failure === undefined ? {} : { checkpoint: { ...troubleOf(failure), failingForMs: nowMs - failingSinceMs } }),
      ...(log === undefined ? {} : { log: troubleOf(log) }),
    };
  }
}

function troubleOf({ code, message, details }: ShardloomError): StorageTrouble {
  return { code, message, details: { ...details } };
}
