/**
 * What a shard's log says of each of its vshards: up to which LSN it is whole, or that it is not.
 *
 * Invariant: what is noted in the order of the log gives what a replay of the log gives; noting a stretch of it again changes nothing at its
 * end. A restore that has not ended has not happened, except one that began from nothing: from then on the vshard is lost.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { VshardRecord } from "../../src/store/document-layout.ts";
import { decodeEndLsn, LOG_ENTRY, type ShardLogEntry } from "../../src/store/log.ts";
import { decodeSnapshotTable, encodeSnapshotTable } from "../../src/store/snapshot-table.ts";

/** A vshard as the log has it: never written, whole as of its LSN, lacking entries below `endLsn`, or lost. */
export const VSHARD_STATE = { EMPTY: 0, WHOLE: 1, REPLAYING: 2, LOST: 3 } as const;
export type VshardState = (typeof VSHARD_STATE)[keyof typeof VSHARD_STATE];

/** A state as snapshots have it: besides what everybody understands, what only this file does. */
interface StoredState extends VshardRecord {
  readonly endLsn: number;
  readonly own: VshardState;
}

export class VshardStates {
  readonly vshards: number;
  readonly #lsns: Float64Array;
  readonly #endLsns: Float64Array;
  readonly #states: Uint8Array;
  readonly #leaseEpochs: Int32Array;
  /** Position at which the restore of a vshard began that has not ended. */
  readonly #begun: Map<number, number> = new Map();

  constructor(vshards: number) {
    this.vshards = vshards;
    this.#lsns = new Float64Array(vshards);
    this.#endLsns = new Float64Array(vshards);
    this.#states = new Uint8Array(vshards);
    this.#leaseEpochs = new Int32Array(vshards);
  }

  /** The last LSN that the vshard has; 0 when it was never written. */
  lsnOf(vshard: number): number {
    return this.#lsns[vshard] as number;
  }

  stateOf(vshard: number): VshardState {
    return this.#states[vshard] as VshardState;
  }

  /** The highest lease epoch that the vshard was written under. */
  leaseEpochOf(vshard: number): number {
    return this.#leaseEpochs[vshard] as number;
  }

  /** Position at which the restore of a vshard began that has not ended; undefined: none has. */
  begunAt(vshard: number): number | undefined {
    return this.#begun.get(vshard);
  }

  /** From which position on the log has to be replayed by whoever starts from what there is in memory at a head. */
  replayFrom(head: number): number {
    return Math.min(head + 1, ...this.#begun.values());
  }

  get restoring(): boolean {
    return this.#begun.size > 0;
  }

  note(entry: ShardLogEntry, position: number): void {
    const { kind, vshard, lsn, leaseEpoch } = entry;
    if (vshard >= this.vshards) return; // damaged, or of another map: its checksum says that we wrote it
    if (leaseEpoch > (this.#leaseEpochs[vshard] as number)) this.#leaseEpochs[vshard] = leaseEpoch;
    switch (kind) {
      case LOG_ENTRY.EFFECT:
        this.#lsns[vshard] = lsn;
        if (this.#states[vshard] === VSHARD_STATE.EMPTY) this.#states[vshard] = VSHARD_STATE.WHOLE;
        if (this.#states[vshard] === VSHARD_STATE.REPLAYING && lsn >= (this.#endLsns[vshard] as number))
          this.#states[vshard] = VSHARD_STATE.WHOLE;
        break;
      case LOG_ENTRY.RESTORE_BEGIN:
        this.#begun.set(vshard, position);
        if (lsn >= 0) break;
        this.#states[vshard] = VSHARD_STATE.LOST;
        break;
      case LOG_ENTRY.RESTORE_PART:
        break;
      case LOG_ENTRY.RESTORE_END:
        this.#begun.delete(vshard);
        this.#lsns[vshard] = lsn;
        this.#endLsns[vshard] = decodeEndLsn(entry.body);
        this.#states[vshard] = lsn >= decodeEndLsn(entry.body) ? VSHARD_STATE.WHOLE : VSHARD_STATE.REPLAYING;
        break;
    }
  }

  /** All states as bytes, for a snapshot. */
  encode(): Uint8Array {
    const vshards = new Map<number, StoredState>();
    for (let vshard = 0; vshard < this.vshards; vshard++) {
      const state = this.stateOf(vshard);
      if (state === VSHARD_STATE.EMPTY) continue;
      const isWhole = state === VSHARD_STATE.WHOLE && !this.#begun.has(vshard);
      vshards.set(vshard, {
        lsn: this.lsnOf(vshard),
        endLsn: this.#endLsns[vshard] as number,
        own: state,
        state: isWhole ? "whole" : "unknown",
        leaseEpoch: this.leaseEpochOf(vshard),
      });
    }
    return encodeSnapshotTable({ vshards, keys: [] });
  }

  /** Takes what {@link encode} gave. @throws {ShardloomError} `ERR_CORRUPT`. */
  decode(bytes: Uint8Array): void {
    this.take(decodeSnapshotTable(bytes).vshards);
  }

  /** Takes what is known of vshards, and nothing of the others. @throws {ShardloomError} `ERR_CORRUPT` for a vshard that is none. */
  take(records: ReadonlyMap<number, VshardRecord>): void {
    this.#begun.clear();
    this.#states.fill(VSHARD_STATE.EMPTY);
    this.#lsns.fill(0);
    for (const [vshard, record] of records) {
      if (!(vshard >= 0 && vshard < this.vshards)) {
        const rule = `its vshards must be below ${this.vshards}`;
        throw new ShardloomError("ERR_CORRUPT", `Cannot load shard as ${rule}: current value is ${vshard}`);
      }
      const { lsn, leaseEpoch, own = VSHARD_STATE.WHOLE, endLsn = 0 } = record as Partial<StoredState> & VshardRecord;
      this.#lsns[vshard] = lsn;
      this.#endLsns[vshard] = endLsn;
      this.#states[vshard] = own;
      this.#leaseEpochs[vshard] = leaseEpoch;
    }
  }
}
