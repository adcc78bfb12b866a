/**
 * One write to vshards that have copies: its effects, the LSN of each, and the answer that waits for copies to have them.
 *
 * Invariant: LSNs are given out once, when everything was checked and nothing was changed yet; until then the write can be dropped
 * without a trace.
 */
import { ShardloomError } from "../../src/errors.ts";
import { LOG_ENTRY, type ShardLogEntry } from "../../src/store/log.ts";
import type { LsnList, RefusedVshard } from "../../src/wire/routed-codec.ts";
import type { HeldReply, WriteEffects } from "../engine.ts";
import type { KeyedEffects } from "./keyed-effects.ts";

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
  /** Whether the answer to a write has to wait for anything. */
  mustWait(write: PendingWrite): boolean;
  /** Whether any vshard here shows writes that too few copies are known to have. Cheap. */
  readonly hasUnsettled: boolean;
  /** Whether none of these vshards does. @param vshards 1 for each; undefined: all of this shard */
  isSettled(vshards: Uint8Array | undefined): boolean;
  /**
   * Sends an answer when what these vshards show now has as many copies as its writes asked for.
   *
   * @param deadlineAtMs When the caller gives up; 0: never.
   */
  settle(vshards: Uint8Array | undefined, held: HeldReply, body: Uint8Array, deadlineAtMs: number): void;
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
  /** Whether all vshards of the shard are here. */
  readonly isWhole: boolean;
  /** @throws {ShardloomError} `ERR_UNAVAILABLE` when the vshard of a document's hash is not here yet. */
  assertHere(hash: number): void;
  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the vshard's primary is another shard, or it has fewer copies than `acks`; as `assertHere`. */
  assertWritable(vshard: number, acks: number): void;
  /**
   * Publishes the next heads of the vshards and appends, all or nothing.
   *
   * @param onPublished Called between the two: from the heads a successor knows that the vshards are not what the log and the copies say.
   * @returns the LSN of each effect, and the position of the log that has them; 0 when there is none
   * @throws {ShardloomError} Why the shard's log takes nothing at present: then nothing has changed.
   */
  append(
    effects: readonly PendingEffect[],
    onPublished?: () => void,
  ): { readonly lsns: readonly number[]; readonly position: number };
  /** LSN of the last entry of a vshard that is writable here, and the position of the log that has it; 0 when that is durable. */
  stateOf(vshard: number): { readonly lsn: number; readonly position: number };
}

/** Where nothing is replicated: effects are told for the sake of their keys only. */
export const NO_LOG: EffectLog = {
  maxBodyBytes: Number.POSITIVE_INFINITY,
  isWhole: true,
  assertHere: () => undefined,
  assertWritable: () => undefined,
  append(effects, onPublished) {
    onPublished?.();
    return { lsns: effects.map(() => 0), position: 0 };
  },
  stateOf: () => ({ lsn: 0, position: 0 }),
};

/** An effect as the shard's log has it. */
export function effectEntry(
  { vshard, type, collection, body }: PendingEffect,
  lsn: number,
  leaseEpoch: number,
): ShardLogEntry {
  return {
    leaseEpoch,
    idempotencyKey: "",
    result: NO_RESULT,
    kind: LOG_ENTRY.EFFECT,
    vshard,
    lsn,
    type,
    collection,
    body,
  };
}

const NO_RESULT: Uint8Array = new Uint8Array(0);
const NOTHING: readonly RefusedVshard[] = [];

/** A write on its way through its handler. */
export class PendingWrite implements WriteEffects {
  readonly acks: number;
  readonly deadlineAtMs: number;
  readonly refused: readonly RefusedVshard[] = NOTHING;
  /** The last LSN of each written vshard; undefined before `publish`, and when there is no effect. */
  written: LsnList | undefined;
  /** Set before the handler runs. */
  keyed: KeyedEffects | undefined;
  /** Position of the shard's log that has it; 0 when it has none. */
  position = 0;
  readonly #log: EffectLog;
  readonly #effects: PendingEffect[] = [];

  constructor(log: EffectLog, acks: number, deadlineAtMs: number) {
    this.#log = log;
    this.acks = acks;
    this.deadlineAtMs = deadlineAtMs;
  }

  get maxBodyBytes(): number {
    return this.#log.maxBodyBytes - (this.keyed?.overheadBytes ?? 0);
  }

  assertWritable(vshard: number): void {
    this.#log.assertWritable(vshard, this.acks);
  }

  touch(hash: number): void {
    if (!this.#log.isWhole) this.#log.assertHere(hash);
  }

  add(vshard: number, type: number, collection: number, body: Uint8Array): void {
    this.assertWritable(vshard);
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
    const { keyed } = this;
    const effects = keyed === undefined ? this.#effects : keyed.prepare(this.#effects);
    const lsns = new Map<number, number>();
    if (effects.length > 0) {
      const appended = this.#append(effects);
      for (const [at, effect] of effects.entries()) lsns.set(effect.vshard, appended.lsns[at] as number);
      this.position = appended.position;
    }
    // What a repetition finds done may not have its copies yet, or not be durable: it waits for all that its vshards have.
    for (const vshard of keyed?.seen ?? []) {
      const { lsn, position } = this.#log.stateOf(vshard);
      lsns.set(vshard, lsn);
      this.position = Math.max(this.position, position);
    }
    if (lsns.size > 0 && this.#log !== NO_LOG)
      this.written = { vshards: Uint16Array.from(lsns.keys()), lsns: Float64Array.from(lsns.values()) };
  }

  #append(effects: readonly PendingEffect[]): ReturnType<EffectLog["append"]> {
    const { keyed } = this;
    if (keyed === undefined) return this.#log.append(effects);
    try {
      return this.#log.append(effects, () => keyed.begin());
    } catch (error) {
      keyed.cancel();
      throw error;
    }
  }
}
