/**
 * How far every copy of every vshard has come, in memory that all threads of the host share.
 *
 * ```
 *  per vshard           head: what its primary has written last
 *  per vshard and copy  applied: what the copy has applied last · missing: since when the primary knows the copy to lack something
 *  per vshard           previous: the sampled head before the last one
 *  per vshard           sampled: the head of a primary on another node
 *  record, 32 bytes     i32 version (odd: being written) | i32 tag | f64 lsn | f64 time in ms | f64 sampled at, in ms; of a head its term
 * ```
 * A copy's records have the place of its shard among the vshard's shards (`TopologySnapshot.places`), which does not change with the primary. Who
 * follows a shard that was removed has its place, and that one's worker has ended before.
 *
 * Invariant: every record has one writer at a time: the vshard's primary for head and missing, the shard that holds the copy for
 * applied. Readers take a record between two equal even versions, so LSNs are exact up to 2^53 and never torn. A primary publishes a
 * head before the first byte of that write changes, and every copy publishes an LSN after the last byte has: what a dead worker
 * leaves never claims more than its rows have. A head counts in the term it was published in, and for the shard that is primary then.
 * Times are of the host's monotonic clock.
 *
 * Heads of primaries on other nodes are *sampled*: what is known of them is that every write that had been appended at a time of this
 * host had at most that LSN. That stays true for ever, so that a copy which has applied as much is level as of then, and no fresher.
 * What another host's clock says is not stored. What was never sampled is unknown, and unknown is never fresh.
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

/** Magic, vshards, factor, words of the lease; from 32 on a bit for each shard of another node, from 64 on the lease's bits (lease-words.ts). */
const HEADER_BYTES = 96;
const REMOTE_WORD = 8;
const RECORD_BYTES = 32;
const MAGIC = 0x5250_4c54;
/** Reads of a record that is being written before the reader gives up: its writer died in it. */
const ATTEMPTS = 10_000;

/**
 * What an applied record says of the rows: they are what the LSN says, or they are being filled and mean nothing yet. A head is the
 * primary's own or sampled.
 */
const TAG = { UNKNOWN: 0, VALID: 1, SYNCING: 2, SAMPLED: 3 } as const;

/** Before everything: the time of what is not known. */
const NEVER = Number.NEGATIVE_INFINITY;

/**
 * Creates the block for a topology of this shape.
 *
 * @param isRemote Whether a shard is on another node, so that the heads of its vshards are only known by samples. @default none is
 */
export function createReplicaBlock(
  shape: { readonly shards: number; readonly vshards: number; readonly replicationFactor: number },
  isRemote?: (shard: number) => boolean,
): SharedArrayBuffer {
  const { shards, vshards, replicationFactor } = shape;
  const records = vshards * (3 + 2 * replicationFactor);
  const block = new SharedArrayBuffer(HEADER_BYTES + records * RECORD_BYTES);
  const words = new Int32Array(block);
  const doubles = new Float64Array(block);
  words.set([MAGIC, vshards, replicationFactor]);
  for (let shard = 0; shard < shards; shard++)
    if (isRemote?.(shard) === true) (words[REMOTE_WORD + (shard >>> 5)] as number) |= 1 << (shard & 31);
  for (let vshard = 0; vshard < vshards; vshard++) {
    const sampled = sampledAt(vshard, shape);
    words[(sampled >>> 2) + 1] = TAG.SAMPLED;
    doubles[(sampled >>> 3) + 2] = doubles[(sampled >>> 3) + 3] = NEVER;
  }
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
  readonly #shape: { readonly vshards: number; readonly replicationFactor: number };
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
    this.#shape = { vshards: this.#vshards, replicationFactor: this.#factor };
  }

  /** LSN of the last write that the vshard's primary has begun, or had when it was last sampled; 0 before the first. */
  head(vshard: number): number {
    return this.#read(this.#headAt(vshard)) ? this.#view.lsn : 0;
  }

  /** The head that the vshard's primary on this host has published; -1 when it has not, or is elsewhere. */
  ownHead(vshard: number): number {
    return this.#readOwnHead(vshard) ? this.#view.lsn : -1;
  }

  /**
   * The head that a shard of this host has published in any term, -1 when it has none: its rows may be ahead of what its copy says, by
   * writes that it had begun.
   */
  headBy(vshard: number, shard: number): number {
    const at = this.#ownAt(vshard);
    return this.#i32[(at >>> 2) + 1] === tagOf(shard, TAG.VALID) ? (this.#f64[(at >>> 3) + 1] as number) : -1;
  }

  /**
   * The head for a successor of the primary, whose predecessor may have died in `publishHead`: then the write had not begun, so that
   * the LSN before it and its own are equally good.
   */
  recoverHead(vshard: number): number {
    return this.#f64[(this.#ownAt(vshard) >>> 3) + 1] as number;
  }

  /**
   * Whether the primary has published a head in this term, on this host; its successor goes on from {@link recoverHead} then. Tag and term are
   * stored after the LSN: also one that died in publishing has told either nothing or all.
   */
  hasOwnHead(vshard: number): boolean {
    const { owners, terms } = this.#topology.current();
    const at = this.#ownAt(vshard);
    const owner = owners[vshard] as number;
    return this.#i32[(at >>> 2) + 1] === tagOf(owner, TAG.VALID) && this.#f64[(at >>> 3) + 3] === terms[vshard];
  }

  /**
   * LSN that a copy's rows are not behind, also while it is being filled; -1 when it may have nothing. For the successor of who held
   * it: what that died in publishing was true already.
   */
  floorLsn(vshard: number, shard: number): number {
    const at = this.#copyAt(vshard, shard);
    const tag = at < 0 ? TAG.UNKNOWN : (this.#i32[(at >>> 2) + 1] as number);
    if (tag !== tagOf(shard, TAG.VALID) && tag !== tagOf(shard, TAG.SYNCING)) return -1;
    return this.#f64[(at >>> 3) + 1] as number;
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
    if (this.isSampled(vshard)) {
      const levelMs = Math.max(sampledAtMs, this.#levelAtMs(vshard, lsn));
      return levelMs === NEVER ? undefined : { lagMs: 0, sampledAtMs: Math.min(levelMs, nowMs) };
    }
    if (!this.#readHead(vshard)) return undefined;
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
    return sinceMs === NEVER ? undefined : { lagMs: Math.max(0, nowMs - sinceMs), sampledAtMs: nowMs };
  }

  /** How stale a copy may be at the time of the call, in ms: its lag and the age of what is known of it. Infinity when that is unknown. */
  stalenessMs(vshard: number, shard: number): number {
    const nowMs = this.#nowMs(); // before the look: what is level then is not stale
    const sample = this.lag(vshard, shard);
    if (sample === undefined) return Number.POSITIVE_INFINITY;
    return sample.lagMs + Math.max(0, nowMs - sample.sampledAtMs);
  }

  /**
   * Tells the LSN of a write that is about to begin. The vshard's primary only.
   *
   * @param shard The primary, and the term in which it is, as it knows them. @default as the topology says
   */
  publishHead(vshard: number, lsn: number, atMs: number, shard?: number, term?: number): void {
    const { owners, terms } = this.#topology.current();
    const tag = tagOf(shard ?? (owners[vshard] as number), TAG.VALID);
    this.#write(this.#ownAt(vshard), tag, lsn, atMs, term ?? (terms[vshard] as number));
  }

  /**
   * Tells what the head of a primary on another node was. One thread of this host only.
   *
   * @param asOfMs A time of this host at which no write with a higher LSN had been appended. An older one than is known changes
   *   nothing, and neither does a lower LSN, which would contradict what is known.
   */
  publishSampledHead(vshard: number, lsn: number, asOfMs: number): void {
    const at = this.#headAt(vshard);
    if (vshard >= this.#vshards || !this.isSampled(vshard) || !this.#read(at)) return;
    const { lsn: known, sampledAtMs } = this.#view;
    if (asOfMs <= sampledAtMs || lsn < known) return;
    if (lsn > known && sampledAtMs > NEVER)
      this.#write(this.#previousAt(vshard), TAG.SAMPLED, known, NEVER, sampledAtMs);
    this.#write(at, TAG.SAMPLED, lsn, NEVER, asOfMs);
  }

  /**
   * Tells what a copy has applied. The shard that holds the copy only, or for one on another node the thread that samples heads.
   *
   * @param appendedAtMs When the entry with this LSN was appended; minus infinity when no clock of this host tells. Of a primary on
   *   another node it is another host's time, and is not looked at.
   */
  publishApplied(vshard: number, shard: number, lsn: number, appendedAtMs: number): void {
    const at = this.#copyAt(vshard, shard);
    if (at < 0) return; // the copy was taken away meanwhile
    if (this.isSampled(vshard)) {
      const levelMs = Math.max(this.#knownLevelAtMs(at, shard, lsn), this.#levelAtMs(vshard, lsn));
      this.#write(at, tagOf(shard, TAG.VALID), lsn, NEVER, levelMs);
      return;
    }
    const sinceMs = appendedAtMs === NEVER ? this.#knownLevelAtMs(at, shard, lsn) : appendedAtMs;
    const nowMs = this.#nowMs(); // before the look at the head: what is appended after that look counts
    const level = this.#readHead(vshard) && lsn >= this.#view.lsn;
    this.#write(at, tagOf(shard, TAG.VALID), lsn, appendedAtMs, level ? nowMs : sinceMs);
  }

  /** Tells that nothing is known of a copy on another node. The thread that samples only. */
  publishUnknown(vshard: number, shard: number): void {
    const at = this.#copyAt(vshard, shard);
    if (at >= 0) this.#write(at, tagOf(shard, TAG.UNKNOWN), 0, NEVER, NEVER);
  }

  /**
   * Tells that a copy is being filled: until it publishes an LSN it may not be read. The shard that holds the copy only.
   *
   * @param floorLsn LSN that no row of it is behind. @default -1, it may lack anything
   */
  publishSyncing(vshard: number, shard: number, floorLsn: number = -1): void {
    const at = this.#copyAt(vshard, shard);
    if (at >= 0) this.#write(at, tagOf(shard, TAG.SYNCING), floorLsn, 0, 0);
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

  /** The latest time as of which a sample shows that no write above an LSN had been appended. */
  #levelAtMs(vshard: number, lsn: number): number {
    let levelMs = NEVER;
    if (this.#read(this.#headAt(vshard)) && lsn >= this.#view.lsn) levelMs = this.#view.sampledAtMs;
    else if (this.#read(this.#previousAt(vshard)) && this.#view.tag === TAG.SAMPLED && lsn >= this.#view.lsn)
      levelMs = this.#view.sampledAtMs;
    return levelMs;
  }

  /** When a copy was last known to be level, by its record, unless it has less now than it had then. */
  #knownLevelAtMs(at: number, shard: number, lsn: number): number {
    const known = this.#read(at) && this.#view.tag === tagOf(shard, TAG.VALID) && this.#view.lsn <= lsn;
    return known ? this.#view.sampledAtMs : NEVER;
  }

  /** Whether the vshard's primary is on another node. */
  isSampled(vshard: number): boolean {
    return this.isRemote(this.#topology.current().owners[vshard] as number);
  }

  /** Whether a shard is on another node. */
  isRemote(shard: number): boolean {
    return ((this.#i32[REMOTE_WORD + (shard >>> 5)] as number) & (1 << (shard & 31))) !== 0;
  }

  /** The latest time as of which the head of a primary on another node is known; minus infinity before it was ever told. */
  headKnownAtMs(vshard: number): number {
    return this.#read(sampledAt(vshard, this.#shape)) ? this.#view.sampledAtMs : NEVER;
  }

  /** Reads the head that counts now. A copy of a vshard that never had a write and whose primary has told nothing lacks nothing. */
  #readHead(vshard: number): boolean {
    if (this.#readOwnHead(vshard)) return true;
    const view = this.#view;
    return view.tag === TAG.UNKNOWN && view.lsn === 0;
  }

  #readOwnHead(vshard: number): boolean {
    const { owners, terms } = this.#topology.current();
    const view = this.#view;
    if (!this.#read(this.#ownAt(vshard))) return false;
    return view.tag === tagOf(owners[vshard] as number, TAG.VALID) && view.sampledAtMs === terms[vshard];
  }

  #headAt(vshard: number): number {
    return this.isSampled(vshard) ? sampledAt(vshard, this.#shape) : this.#ownAt(vshard);
  }

  #ownAt(vshard: number): number {
    return HEADER_BYTES + vshard * RECORD_BYTES;
  }

  /** @returns the byte offset of a copy's applied record, -1 when the shard holds none */
  #copyAt(vshard: number, shard: number): number {
    const { places, replicationFactor } = this.#topology.current();
    if (vshard >= this.#vshards) return -1;
    for (let place = 0; place < replicationFactor && place < this.#factor; place++)
      if (places[vshard * replicationFactor + place] === shard)
        return HEADER_BYTES + (this.#vshards + vshard * this.#factor + place) * RECORD_BYTES;
    return -1;
  }

  #previousAt(vshard: number): number {
    return HEADER_BYTES + (this.#vshards * (1 + 2 * this.#factor) + vshard) * RECORD_BYTES;
  }

  #missingOffset(): number {
    return this.#vshards * this.#factor * RECORD_BYTES;
  }

  #write(at: number, tag: number, lsn: number, timeMs: number, sampledAtMs: number): void {
    const word = at >>> 2;
    // A predecessor that died in a write left the version odd: it stays odd while this one writes.
    const version = (Atomics.load(this.#i32, word) | 1) + (Atomics.load(this.#i32, word) & 1 ? 2 : 0);
    Atomics.store(this.#i32, word, version | 0); // odd: readers wait
    const double = at >>> 3;
    this.#f64[double + 1] = lsn;
    this.#f64[double + 2] = timeMs;
    this.#f64[double + 3] = sampledAtMs;
    Atomics.store(this.#i32, word + 1, tag); // after the LSN, see hasOwnHead
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

/** Offset of a vshard's sampled head. */
function sampledAt(vshard: number, shape: { readonly vshards: number; readonly replicationFactor: number }): number {
  return HEADER_BYTES + (shape.vshards * (2 + 2 * shape.replicationFactor) + vshard) * RECORD_BYTES;
}

/** A tag names its shard, so that what another holder of the copy's place wrote says nothing of this one. */
function tagOf(shard: number, state: number): number {
  return (shard << 2) | state;
}
