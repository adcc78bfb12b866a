/**
 * The vshards of a primary that show what too few copies are known to have, or what the shard's log has not got durably: strong reads wait for them.
 *
 * Invariant: what was in memory before the log had it (a worker that died left it, or it came from copies) does not count as kept before the log
 * has it durably. While the log does not take it at all there is no position to wait for.
 */
import type { ShardLog } from "../../src/store/log.ts";
import type { OwnedVshard, WaitingWrite } from "./owned-vshard.ts";

/** What it looks at. */
export interface UnsettledOptions {
  readonly log?: ShardLog | undefined;
  /** As in `PrimaryOptions`. */
  readonly loggedAt?: (vshard: number) => number;
}

export class Unsettled {
  readonly #options: UnsettledOptions;
  readonly #vshards: Set<OwnedVshard> = new Set();

  constructor(options: UnsettledOptions) {
    this.#options = options;
  }

  get isEmpty(): boolean {
    return this.#vshards.size === 0;
  }

  /** Something was written, which the log has at a position. */
  written(owned: OwnedVshard, position: number): void {
    owned.undurable = Math.max(owned.undurable, position);
    this.#vshards.add(owned);
  }

  /** What was here of a vshard counts when the log has it. */
  found(owned: OwnedVshard): void {
    const position = this.#loggedAt(owned);
    if (position > this.#durable) this.written(owned, position);
  }

  /** Takes a vshard in or off, as it is now. */
  look(owned: OwnedVshard): void {
    if (owned.isSettled) this.#vshards.delete(owned);
    else this.#vshards.add(owned);
  }

  delete(owned: OwnedVshard): void {
    this.#vshards.delete(owned);
  }

  /** The log has come further, or has failed. */
  logChanged(): void {
    for (const owned of this.#vshards) {
      if (owned.undurable === Number.POSITIVE_INFINITY) owned.undurable = this.#loggedAt(owned);
      if (owned.undurable <= this.#durable) owned.undurable = 0;
      if (owned.isSettled) this.#vshards.delete(owned);
    }
  }

  /** @param vshards 1 for each that counts. @default all */
  isSettled(vshards: Uint8Array | undefined): boolean {
    for (const { vshard } of this.#vshards) if (vshards === undefined || vshards[vshard] === 1) return false;
    return true;
  }

  /** Lets a read wait for the copies. @returns the position that it has to wait for in the log; infinity: there is none yet */
  wait(vshards: Uint8Array | undefined, waiting: WaitingWrite): number {
    let position = 0;
    for (const owned of this.#vshards) {
      if (vshards !== undefined && vshards[owned.vshard] !== 1) continue;
      owned.waitSettled(waiting);
      position = Math.max(position, owned.undurable);
    }
    return position;
  }

  get #durable(): number {
    return this.#options.log?.durable ?? 0;
  }

  #loggedAt({ vshard }: OwnedVshard): number {
    return this.#options.loggedAt?.(vshard) ?? 0;
  }
}
