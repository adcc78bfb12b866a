/**
 * Until when this node's lease is good, in memory that all its threads share: what a worker looks at before it answers a strong read or
 * takes a write, without a message.
 *
 * ```
 *  bytes of the replica block's header (replica-table.ts)
 *   16  i32 mode: 0 nobody grants leases, 1 see until, 2 lapsed | i32 until, in ms of the host's clock, modulo 2^32
 *   64  a bit for each shard of this node that is barred: its vshards are being given to others
 * ```
 *
 * Invariant: one writer, the thread that renews the lease. `until` is never beyond what it was told it is, so a reader at worst thinks that the
 * lease ends up to a millisecond early. While nobody grants leases it never ends.
 */

const MODE_WORD = 4;
const UNTIL_WORD = 5;
const BARRED_WORD = 16;
const END_WORD = 24;
const MODE = { NONE: 0, HELD: 1, LAPSED: 2 } as const;

/** The lease of one node, as one of its threads sees it. */
export class LeaseWords {
  readonly #words: Int32Array;
  readonly #nowMs: () => number;
  readonly #shard: number;

  /**
   * @param block Of the replica table.
   * @param nowMs The host's monotonic clock, the same for all threads.
   * @param shard Whose worker asks. @default none in particular
   */
  constructor(block: SharedArrayBuffer, nowMs: () => number, shard: number = -1) {
    this.#words = new Int32Array(block, 0, END_WORD);
    this.#nowMs = nowMs;
    this.#shard = shard;
  }

  /** Whether leases are granted at all. */
  get isGranted(): boolean {
    return Atomics.load(this.#words, MODE_WORD) !== MODE.NONE;
  }

  /** Whether the node, and the shard, may serve strong reads and writes now. */
  get isValid(): boolean {
    return this.lapsedMs === 0;
  }

  /** How long ago the lease ended, in ms; 0 while it is good, infinity when that is not known. */
  get lapsedMs(): number {
    const mode = Atomics.load(this.#words, MODE_WORD);
    if (this.#isBarred()) return Number.POSITIVE_INFINITY;
    if (mode === MODE.NONE) return 0;
    if (mode === MODE.LAPSED) return Number.POSITIVE_INFINITY;
    const leftMs = (Atomics.load(this.#words, UNTIL_WORD) - (Math.floor(this.#nowMs()) | 0)) | 0;
    return leftMs > 0 ? 0 : 1 - leftMs;
  }

  /** The lease is good until then. */
  hold(untilMs: number): void {
    Atomics.store(this.#words, UNTIL_WORD, Math.floor(untilMs) | 0);
    Atomics.store(this.#words, MODE_WORD, MODE.HELD); // publishes
  }

  /** It is over, or not held yet. */
  lapse(): void {
    Atomics.store(this.#words, MODE_WORD, MODE.LAPSED);
  }

  /** A shard's vshards are being given to others: until it is known which, its worker serves none of them, if it has one by then. */
  bar(shard: number): void {
    Atomics.or(this.#words, BARRED_WORD + (shard >>> 5), 1 << (shard & 31));
  }

  unbar(shard: number): void {
    Atomics.and(this.#words, BARRED_WORD + (shard >>> 5), ~(1 << (shard & 31)));
  }

  #isBarred(): boolean {
    const shard = this.#shard;
    return shard >= 0 && (Atomics.load(this.#words, BARRED_WORD + (shard >>> 5)) & (1 << (shard & 31))) !== 0;
  }
}
