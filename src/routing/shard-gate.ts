/**
 * What one client thread lets through to one shard: how many at once, and how fast they come back.
 *
 * Invariant: `limit` is a whole number in `[minLimit, maxLimit]`. It falls when requests wait longer at the shard than the
 * target, or fail of overload, and rises only while it is what holds requests back; so it settles where the shard is always
 * busy and its own queue short, and the waiting happens here, where it is fair and can be refused.
 * Source: the gradient limit of Netflix concurrency-limits (limit × target / observed) with TCP's additive increase; CoDel's 5 ms as
 * the target (Nichols and Jacobson, "Controlling queue delay", ACM Queue 2012). **Divergence**: the shard reports how long a request
 * waited, so nothing is inferred from round-trip times.
 */
import { FairQueue, type QueueEntry } from "./fair-queue.ts";

/** Bounds and target of a gate, checked by whoever makes it. */
export interface GateOptions {
  readonly minLimit: number;
  readonly initialLimit: number;
  readonly maxLimit: number;
  /** How long a request may wait at the shard on average before the limit falls, in us. Never less than two service times. */
  readonly targetQueueUs: number;
}

/** Fewest replies of one judgement. */
const MIN_WINDOW = 8;
/** Replies after which the pace at which requests come back is known anew, and the time after which fewer suffice, in us. */
const PACE_REPLIES = 16;
const PACE_WINDOW_US = 10_000;
const PACE_GAIN = 0.25;
/** A pace that was measured longer ago, in us, says nothing: whoever stalled may be well again, and nobody waits to find out. */
const PACE_FRESH_US = 500_000;
/** So long may one turn of this thread last, in us, before the silence of a shard is taken for its own. */
const OWN_SILENCE_US = 20_000;
const SERVICE_GAIN = 1 / 16;
/** Gains of the mean time in flight and of its mean deviation, and how many deviations are allowed for: those of TCP's timer. */
const FLIGHT_GAIN = 1 / 8;
const DEVIATION_GAIN = 1 / 4;
const DEVIATIONS = 2;
/** A flight that took longer than this, in ms, was through a stall: the next one need not. */
const MOST_NEEDED_MS = 50;
/** Looks in a row at a shard that has taken everything and returns nothing before its limit rises, and by which part. */
const STUCK_LOOKS = 2;
const STUCK_FACTOR = 1.5;
/** Part of the limit that one judgement takes at most, and what a failure of overload takes. */
const LEAST_FACTOR = 0.5;
const FAILURE_FACTOR = 0.7;
/** The limit rises by this part of itself, at least 1, while requests wait less than half the target. */
const RISE_PART = 1 / 16;

/** Limit, pace and queue of one shard. */
export class ShardGate<E extends QueueEntry> {
  readonly shard: number;
  readonly queue: FairQueue<E> = new FairQueue<E>();
  inFlight = 0;
  limit: number;
  /** Whether the limit has held a request back since the last judgement. */
  held = false;
  readonly #options: GateOptions;
  /** Mean time that the shard's handler runs, in us; 0 when unknown. */
  serviceUs = 0;
  #exact: number;
  #replies = 0;
  #queueUsSum = 0;
  /** Replies to pass over: they were sent under an earlier limit. */
  #stale = 0;
  #flightMs = 0;
  #deviationMs = 0;
  #paceUs = 0;
  #paceAtUs = 0;
  #paceSinceUs = 0;
  #paceReplies = 0;
  /** Requests that came back since the last look. */
  #returned = 0;
  #stuckLooks = 0;

  constructor(shard: number, options: GateOptions) {
    this.shard = shard;
    this.#options = options;
    this.#exact = options.initialLimit;
    this.limit = options.initialLimit;
  }

  /** Back to the state of a new gate, for a shard that was replaced; what waits and is in flight stays. */
  reset(): void {
    this.#exact = this.#options.initialLimit;
    this.limit = this.#options.initialLimit;
    this.serviceUs = 0;
    this.#flightMs = 0;
    this.#deviationMs = 0;
    this.#paceUs = 0;
    this.#beginWindow(0);
  }

  /**
   * Takes in how one request ended.
   *
   * @param overloaded It failed in a way that says the shard has too much to do: a timeout, or a refusal.
   */
  observe(serviceUs: number, queueUs: number, overloaded: boolean): void {
    this.#returned++;
    if (serviceUs > 0) {
      this.serviceUs += this.serviceUs === 0 ? serviceUs : (serviceUs - this.serviceUs) * SERVICE_GAIN;
    }
    if (this.#stale > 0) {
      this.#stale--;
      return;
    }
    if (overloaded) {
      this.#fall(FAILURE_FACTOR);
      return;
    }
    this.#replies++;
    this.#queueUsSum += queueUs;
    if (this.#replies >= MIN_WINDOW && this.#replies >= this.limit) this.#judge();
  }

  /**
   * One of many looks, some time apart, while requests wait. Replies alone would never raise the limit of a shard whose handlers all
   * wait for requests that are held back here: members of a barrier, say.
   *
   * @param hasTaken Whether nothing that was sent waits to be taken by the shard: then its own queue is empty.
   * @returns whether the limit has risen
   */
  look(hasTaken: boolean): boolean {
    const stuck = hasTaken && this.#returned === 0 && this.queue.size > 0 && this.inFlight >= this.limit;
    this.#returned = 0;
    this.#stuckLooks = stuck ? this.#stuckLooks + 1 : 0;
    if (this.#stuckLooks < STUCK_LOOKS) return false;
    const before = this.limit;
    this.#set(Math.max(this.#exact + 1, this.#exact * STUCK_FACTOR));
    return this.limit > before;
  }

  #judge(): void {
    const meanUs = this.#queueUsSum / this.#replies;
    const targetUs = Math.max(this.#options.targetQueueUs, 2 * this.serviceUs);
    if (meanUs > targetUs) {
      this.#fall(Math.max(LEAST_FACTOR, targetUs / meanUs));
      return;
    }
    if (this.held && meanUs < targetUs / 2) this.#set(this.#exact + Math.max(1, this.#exact * RISE_PART));
    this.#beginWindow(0);
  }

  #fall(factor: number): void {
    this.#set(this.#exact * factor);
    this.#beginWindow(this.inFlight);
  }

  #set(limit: number): void {
    this.#exact = Math.min(this.#options.maxLimit, Math.max(this.#options.minLimit, limit));
    this.limit = Math.floor(this.#exact);
  }

  #beginWindow(stale: number): void {
    this.#replies = 0;
    this.#queueUsSum = 0;
    this.#stale = stale;
    this.held = false;
  }

  /** A request was in flight for so long: by this thread's clock if it had waited here, else by what its reply says. */
  observeFlight(flightMs: number): void {
    if (this.#flightMs === 0) {
      this.#flightMs = flightMs;
      this.#deviationMs = flightMs / 2;
      return;
    }
    const error = flightMs - this.#flightMs;
    this.#flightMs += error * FLIGHT_GAIN;
    this.#deviationMs += (Math.abs(error) - this.#deviationMs) * DEVIATION_GAIN;
  }

  /** How long a request must expect to be in flight while others wait, in ms; 0 when unknown. */
  get flightMs(): number {
    return this.#flightMs + DEVIATIONS * this.#deviationMs;
  }

  /** How long a request that is let in must expect to take, in ms. @param costUs What serving it is expected to take */
  neededMs(costUs: number): number {
    return Math.max(Math.min(this.flightMs, MOST_NEEDED_MS), costUs / 1000);
  }

  /** Begins to watch the pace: the first entry waits. */
  beginPace(nowUs: number): void {
    this.#paceSinceUs = nowUs;
    this.#paceReplies = 0;
  }

  /** A request came back while others wait. */
  countPace(nowUs: number): void {
    this.#paceReplies++;
    const elapsedUs = nowUs - this.#paceSinceUs;
    if (this.#paceReplies < PACE_REPLIES && elapsedUs < PACE_WINDOW_US) return;
    const sampleUs = elapsedUs / this.#paceReplies;
    const known = this.#paceUs !== 0 && this.#isFresh(nowUs);
    this.#paceUs = known ? this.#paceUs + (sampleUs - this.#paceUs) * PACE_GAIN : sampleUs;
    this.#paceAtUs = nowUs;
    this.beginPace(nowUs);
  }

  /** The time from one request's return to the next's, while requests wait, in us; 0 when nothing is known. */
  #pace(nowUs: number): number {
    return this.#paceUs !== 0 && this.#isFresh(nowUs) ? this.#paceUs : this.serviceUs;
  }

  /**
   * How long a request must expect to wait behind so many others, in us. A shard that has not answered for a while may take as long
   * again before it goes on at its pace.
   */
  waitUs(ahead: number, nowUs: number): number {
    if (this.queue.size === 0) return (ahead + 1) * this.#pace(nowUs);
    // Silence counts as from when it cannot be this thread's own: who sends a burst in one turn has not looked for replies yet.
    const silentUs = this.#paceReplies > 0 ? 0 : Math.max(0, nowUs - this.#paceSinceUs - OWN_SILENCE_US);
    return silentUs + (ahead + 1) * this.#pace(nowUs);
  }

  #isFresh(nowUs: number): boolean {
    return nowUs - this.#paceAtUs < PACE_FRESH_US;
  }
}
