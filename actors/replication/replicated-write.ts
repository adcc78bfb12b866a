/**
 * One write to vshards that have copies: its effects, the LSN of each, and the answer that waits for copies to have them.
 *
 * Invariant: LSNs are given out once, when everything was checked and nothing was changed yet; until then the write can be dropped
 * without a trace.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { LsnList, RefusedVshard } from "../../src/wire/routed-codec.ts";
import type { HeldReply, WriteEffects } from "../engine.ts";

/** Where the effects of a shard's writes go. */
export interface ReplicatedWrites {
  /** @param deadlineAtMs When the caller gives up; 0: never. */
  begin(acks: number, deadlineAtMs: number): PendingWrite;
  /**
   * The write was applied here: sends it to the copies.
   *
   * @param held The answer, to be sent with `body` when enough copies have applied the write; undefined: it has been given.
   */
  commit(write: PendingWrite, held: HeldReply | undefined, body: Uint8Array | undefined): void;
}

/** An effect that waits for its LSN. */
export interface PendingEffect {
  readonly vshard: number;
  readonly type: number;
  readonly collection: number;
  readonly body: Uint8Array;
}

/** What gives LSNs to effects. */
export interface EffectLog {
  readonly maxBodyBytes: number;
  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the vshard's primary is another shard, or it has fewer copies than `acks`. */
  assertWritable(vshard: number, acks: number): void;
  /** Publishes the next head of the vshard and appends. @returns the LSN */
  append(effect: PendingEffect): number;
}

const NOTHING: readonly RefusedVshard[] = [];

/** A write on its way through its handler. */
export class PendingWrite implements WriteEffects {
  readonly acks: number;
  readonly deadlineAtMs: number;
  readonly refused: readonly RefusedVshard[] = NOTHING;
  /** The last LSN of each written vshard; undefined before `publish`, and when there is no effect. */
  written: LsnList | undefined;
  readonly #log: EffectLog;
  readonly #effects: PendingEffect[] = [];

  constructor(log: EffectLog, acks: number, deadlineAtMs: number) {
    this.#log = log;
    this.acks = acks;
    this.deadlineAtMs = deadlineAtMs;
  }

  get maxBodyBytes(): number {
    return this.#log.maxBodyBytes;
  }

  add(vshard: number, type: number, collection: number, body: Uint8Array): void {
    this.#log.assertWritable(vshard, this.acks);
    const { maxBodyBytes } = this;
    if (body.length > maxBodyBytes) {
      throw new ShardloomError(
        "ERR_RECORD_TOO_LARGE",
        `Cannot replicate write as what one vshard gets must be sent at once, in ${maxBodyBytes} bytes: current value is ${body.length}`,
        { details: { vshard, byteLength: body.length, maxBodyBytes } },
      );
    }
    this.#effects.push({ vshard, type, collection, body });
  }

  publish(): void {
    if (this.#effects.length === 0) return;
    const lsns = new Map<number, number>();
    for (const effect of this.#effects) lsns.set(effect.vshard, this.#log.append(effect));
    this.written = { vshards: Uint16Array.from(lsns.keys()), lsns: Float64Array.from(lsns.values()) };
  }
}
