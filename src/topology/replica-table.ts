/**
 * How far every copy of every vshard has come, in memory that all threads of the host share.
 *
 * ```
 *  per vshard           head: what its primary has written last
 *  per vshard and copy  applied: what the copy has applied last · missing: since when the primary knows the copy to lack something
 *  record, 32 bytes     i32 version (odd: being written) | i32 tag | f64 lsn | f64 time in ms | f64 sampled at, in ms
 * ```
 *
 * Invariant: every record has one writer at a time: the vshard's primary for head and missing, the shard that holds the copy for
 * applied. Readers take a record between two equal even versions, so LSNs are exact up to 2^53 and never torn. A primary publishes a
 * head before the first byte of that write changes, and every copy publishes an LSN after the last byte has: what a dead worker
 * leaves never claims more than its rows have. Times are of the host's monotonic clock.
 * Source: as native-bridge/cell.ts (Boehm, "Can seqlocks get along with programming language memory models?", MSPC'12).
 */
import { NEEDS_RMW_CHECK } from "../../native-bridge/cell.ts";
import { invalidArgument } from "../errors.ts";
import type { TopologySource } from "./topology-source.ts";

/** A copy's lag, and when it was that. */
export interface LagSample {
  /** 0: the copy had everything. Otherwise how long ago the first entry that it lacked was appended, at most. */
  readonly lagMs: number;
  readonly sampledAtMs: number;
}

/** What plans ask about copies. */
export interface LagSource {
  /** Undefined when the copy has never been level with its primary, or is being filled. */
  lag(vshard: number, shard: number): LagSample | undefined;
  /** LSN that a copy has applied; -1 when that is unknown. */
  appliedLsn(vshard: number, shard: number): number;
}

const HEADER_BYTES = 32;
const RECORD_BYTES = 32;
const MAGIC = 0x5250_4c54;
/** Reads of a record that is being written before the reader gives up: its writer died in it. */
const ATTEMPTS = 10_000;

/** What an applied record says of the rows: they are what the LSN says, or they are being filled and mean nothing yet. */
const TAG = { UNKNOWN: 0, VALID: 1, SYNCING: 2 } as const;

/** Creates the block for a topology of this shape. */
export function createReplicaBlock(shape: { vshards: number; replicationFactor: number }): SharedArrayBuffer {
  const { vshards, replicationFactor } = shape;
  const records = vshards * (1 + 2 * replicationFactor);
  const block = new SharedArrayBuffer(HEADER_BYTES + records * RECORD_BYTES);
  new Int32Array(block).set([MAGIC, vshards, replicationFactor]);
  return block;
}

/** What a record holds. The reader refills one object. */
interface RecordView {
  tag: number;
  lsn: number;
  timeMs: number;
  sampledAtMs: number;
}

/** One thread's view of the table. */
export class ReplicaTable implements LagSource {
  readonly #i32: Int32Array;
  readonly #f64: Float64Array;
  readonly #topology: TopologySource;
  readonly #nowMs: () => number;
  readonly #vshards: number;
  readonly #factor: number;
  readonly #view: RecordView = { tag: 0, lsn: 0, timeMs: 0, sampledAtMs: 0 };

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the block was not made by {@link createReplicaBlock}. */
  constructor(block: SharedArrayBuffer, topology: TopologySource, nowMs: () => number) {
    this.#i32 = new Int32Array(block);
    this.#f64 = new Float64Array(block);
    this.#topology = topology;
    this.#nowMs = nowMs;
    const [magic, vshards, factor] = this.#i32;
    if (magic !== MAGIC) throw invalidArgument("open replica table", "block", "made by createReplicaBlock", block);
    this.#vshards = vshards as number;
    this.#factor = factor as number;
  }

  /** LSN of the last write that the vshard's primary has begun; 0 before the first. */
  head(vshard: number): number {
    return this.#read(this.#headAt(vshard)) ? this.#view.lsn : 0;
  }

  /**
   * The head for a successor of the primary, whose predecessor may have died in `publishHead`: then the write had not begun, so that
   * the LSN before it and its own are equally good.
   */
  recoverHead(vshard: number): number {
    return this.#f64[(this.#headAt(vshard) >>> 3) + 1] as number;
  }

  appliedLsn(vshard: number, shard: number): number {
    const at = this.#copyAt(vshard, shard);
    return at >= 0 && this.#read(at) && this.#view.tag === tagOf(shard, TAG.VALID) ? this.#view.lsn : -1;
  }

  /** Whether a copy is being filled. */
  isSyncing(vshard: number, shard: number): boolean {
    const at = this.#copyAt(vshard, shard);
    return at >= 0 && this.#read(at) && this.#view.tag === tagOf(shard, TAG.SYNCING);
  }

  lag(vshard: number, shard: number): LagSample | undefined {
    const at = this.#copyAt(vshard, shard);
    // The copy first: a head that is read later can only show more lag than there was.
    if (at < 0 || !this.#read(at) || this.#view.tag !== tagOf(shard, TAG.VALID)) return undefined;
    const { lsn, timeMs, sampledAtMs } = this.#view;
    const nowMs = this.#nowMs();
    if (!this.#read(this.#headAt(vshard))) return undefined;
    const { lsn: head, timeMs: headMs } = this.#view;
    if (lsn >= head) return { lagMs: 0, sampledAtMs: nowMs };
    // What is missing was appended after what was applied last, and after the copy was last seen to lack nothing.
    let sinceMs = lsn + 1 === head ? headMs : Math.max(timeMs, sampledAtMs);
    if (
      this.#read(at + this.#missingOffset()) &&
      this.#view.tag === tagOf(shard, TAG.VALID) &&
      this.#view.lsn <= lsn + 1
    )
      sinceMs = Math.max(sinceMs, this.#view.timeMs);
    return { lagMs: Math.max(0, nowMs - sinceMs), sampledAtMs: nowMs };
  }

  /** Tells the LSN of a write that is about to begin. The vshard's primary only. */
  publishHead(vshard: number, lsn: number, atMs: number): void {
    this.#write(this.#headAt(vshard), TAG.VALID, lsn, atMs, atMs);
  }

  /**
   * Tells what a copy has applied. The shard that holds the copy only.
   *
   * @param appendedAtMs When the entry with this LSN was appended.
   */
  publishApplied(vshard: number, shard: number, lsn: number, appendedAtMs: number): void {
    const at = this.#copyAt(vshard, shard);
    if (at < 0) return; // the copy was taken away meanwhile
    const nowMs = this.#nowMs(); // before the look at the head: what is appended after that look counts
    const level = this.#read(this.#headAt(vshard)) && lsn >= this.#view.lsn;
    this.#write(at, tagOf(shard, TAG.VALID), lsn, appendedAtMs, level ? nowMs : appendedAtMs);
  }

  /** Tells that a copy is being filled: until it publishes an LSN it may not be read. The shard that holds the copy only. */
  publishSyncing(vshard: number, shard: number): void {
    const at = this.#copyAt(vshard, shard);
    if (at >= 0) this.#write(at, tagOf(shard, TAG.SYNCING), 0, 0, 0);
  }

  /**
   * Tells since when a copy lacks something, exactly. The vshard's primary only.
   *
   * @param lsn The first LSN that the copy is not known to have.
   * @param appendedAtMs When the entry with this LSN was appended.
   */
  publishMissing(vshard: number, shard: number, lsn: number, appendedAtMs: number): void {
    const at = this.#copyAt(vshard, shard);
    if (at >= 0) this.#write(at + this.#missingOffset(), tagOf(shard, TAG.VALID), lsn, appendedAtMs, 0);
  }

  #headAt(vshard: number): number {
    return HEADER_BYTES + vshard * RECORD_BYTES;
  }

  /** @returns the byte offset of a copy's applied record, -1 when the shard holds none */
  #copyAt(vshard: number, shard: number): number {
    const { copies, replicationFactor } = this.#topology.current();
    if (vshard >= this.#vshards) return -1;
    for (let copy = 0; copy < replicationFactor && copy < this.#factor; copy++) {
      if (copies[vshard * replicationFactor + copy] !== shard) continue;
      return HEADER_BYTES + (this.#vshards + vshard * this.#factor + copy) * RECORD_BYTES;
    }
    return -1;
  }

  #missingOffset(): number {
    return this.#vshards * this.#factor * RECORD_BYTES;
  }

  #write(at: number, tag: number, lsn: number, timeMs: number, sampledAtMs: number): void {
    const word = at >>> 2;
    // A predecessor that died in a write left the version odd: it stays odd while this one writes.
    const version = (Atomics.load(this.#i32, word) | 1) + (Atomics.load(this.#i32, word) & 1 ? 2 : 0);
    Atomics.store(this.#i32, word, version | 0); // odd: readers wait
    this.#i32[word + 1] = tag;
    const double = at >>> 3;
    this.#f64[double + 1] = lsn;
    this.#f64[double + 2] = timeMs;
    this.#f64[double + 3] = sampledAtMs;
    Atomics.store(this.#i32, word, (version + 1) | 0); // publishes
  }

  /** Fills the view. False when the record stays half written, as its writer died: then it says nothing. */
  #read(at: number): boolean {
    const word = at >>> 2;
    const double = at >>> 3;
    const view = this.#view;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const version = Atomics.load(this.#i32, word); // acquires
      if ((version & 1) !== 0) continue;
      view.tag = this.#i32[word + 1] as number;
      view.lsn = this.#f64[double + 1] as number;
      view.timeMs = this.#f64[double + 2] as number;
      view.sampledAtMs = this.#f64[double + 3] as number;
      const after = NEEDS_RMW_CHECK ? Atomics.add(this.#i32, word, 0) : Atomics.load(this.#i32, word);
      if (after === version) return true;
    }
    return false;
  }
}

/** A tag names its shard, so that what another holder of the copy's place wrote says nothing of this one. */
function tagOf(shard: number, state: number): number {
  return (shard << 2) | state;
}
