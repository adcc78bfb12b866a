/**
 * The drops of one engine's collections that some shards of this node have not acknowledged.
 *
 * Invariant: a drop stays on the list until each shard has acknowledged it, has a new worker, which frees what is not listed, or gets none. There is one attempt at
 * a time for each; one that failed is made again by the next call.
 */
import { ShardloomError } from "../src/errors.ts";
import { isRemoved } from "../src/topology/snapshot.ts";
import { PRIORITY, VSHARD_LISTED } from "../src/wire/envelope-layout.ts";
import type { CatalogEngine, CatalogParts } from "./catalog-types.ts";

/** A drop that some shards have not acknowledged. */
export interface Dropping {
  readonly name: string;
  readonly collectionId: number;
  /** Takes a creation back. */
  readonly undo: boolean;
  readonly shards: Set<number>;
  /** The attempt under way. */
  attempt: Promise<void> | undefined;
}

/** How often a collection is dropped again where a worker was lost. */
const ATTEMPTS = 4;
const LOST: ReadonlySet<string> = new Set(["ERR_WORKER_LOST", "ERR_HANDLER_HUNG", "ERR_NATIVE_QUARANTINED"]);

/** Drops under way. */
export class CollectionDrops {
  readonly #parts: CatalogParts;
  readonly #engine: Pick<CatalogEngine<never>, "dropType" | "dropPayload">;
  readonly #dropping: Map<number, Dropping> = new Map();

  constructor(parts: CatalogParts, engine: Pick<CatalogEngine<never>, "dropType" | "dropPayload">) {
    this.#parts = parts;
    this.#engine = engine;
  }

  /** The attempt under way for an id, if there is one. */
  attemptOf(collectionId: number): Promise<void> | undefined {
    return this.#dropping.get(collectionId)?.attempt;
  }

  /** Those of a name. */
  of(name: string): Dropping[] {
    return [...this.#dropping.values()].filter((dropping) => dropping.name === name);
  }

  begin(name: string, collectionId: number, undo: boolean): Dropping {
    const { ownShards, coordinator } = this.#parts;
    const shards = new Set(ownShards ?? coordinator.shards);
    const dropping: Dropping = { name, collectionId, undo, shards, attempt: undefined };
    this.#dropping.set(collectionId, dropping);
    this.retry();
    return dropping;
  }

  /** Goes on with every drop that nobody is at. Who waits for one awaits its `attempt`; the others leave it on the list. */
  retry(): void {
    for (const dropping of this.#dropping.values()) {
      if (dropping.attempt !== undefined) continue;
      dropping.attempt = this.#dropOn(dropping).finally(() => {
        dropping.attempt = undefined;
      });
      dropping.attempt.catch(() => undefined); // it stays on the list
    }
  }

  /** A shard has a new worker. */
  replaced(shard: number): void {
    for (const dropping of this.#dropping.values()) this.#acknowledged(dropping, shard);
  }

  async #dropOn(dropping: Dropping): Promise<void> {
    const { coordinator, isGivenUp = () => false } = this.#parts;
    const isGone = (shard: number): boolean => isRemoved(coordinator.snapshot, shard) || isGivenUp(shard);
    const { dropType, dropPayload } = this.#engine;
    const payload = dropPayload(dropping.collectionId, dropping.undo);
    const dropOne = (shard: number): Promise<undefined> =>
      coordinator.ask(shard, dropType, VSHARD_LISTED, payload, () => undefined, undefined, PRIORITY.CONTROL);
    for (let attempt = 1; dropping.shards.size > 0; attempt++) {
      const shards = [...dropping.shards].filter((shard) => !isGone(shard));
      for (const shard of dropping.shards) if (!shards.includes(shard)) this.#acknowledged(dropping, shard);
      const settled = await Promise.allSettled(shards.map(dropOne));
      let fatal: unknown;
      for (const [at, call] of settled.entries()) {
        if (call.status === "fulfilled") this.#acknowledged(dropping, shards[at] as number);
        else if (attempt === ATTEMPTS || !isLost(call.reason)) fatal ??= call.reason;
      }
      if (fatal !== undefined && dropping.shards.size > 0) throw ShardloomError.from(fatal);
    }
  }

  #acknowledged(dropping: Dropping, shard: number): void {
    dropping.shards.delete(shard);
    if (dropping.shards.size === 0) this.#dropping.delete(dropping.collectionId);
  }
}

/** Whether a request has failed as its worker is gone, whose successor may do it. */
export function isLost(error: unknown): boolean {
  return LOST.has(ShardloomError.from(error).code);
}
