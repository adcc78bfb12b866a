/**
 * What one client thread sees of the shards' load: requests in flight, latency, and its distribution.
 *
 * Invariant: memory is constant and a sample allocates nothing. An estimate forgets by the number of samples, never by time, so
 * that the same calls give the same numbers: the average by an exponential weight, the histogram by samples that weigh more the
 * younger they are.
 *
 * A shard that loses every comparison would never be measured again. So the estimate of a shard with nothing in flight falls
 * with the samples that it missed, until a request finds out how it is now; while that one is in flight the shard counts with
 * what it last showed, so that there is one probe and no herd.
 *
 * Source: Peak EWMA of Finagle (`com.twitter.finagle.loadbalancer.p2c`) for cost = in-flight × latency and for the decay of the
 * unmeasured; HdrHistogram for buckets in octaves. **Divergence:** samples instead of time, and no jump to the peak.
 */
import { MAX_SHARDS } from "../topology/snapshot.ts";

/** Weight of a new sample in the average. */
const SAMPLE_WEIGHT = 1 / 16;
/** Missed samples after which an estimate has fallen to a quarter: 3 times slower is looked at again after 94, 50 times after 778. */
const MISSED_SAMPLES = 128;
/**
 * A failed request counts as so many mean latencies of answers, as failing is often fast and must not attract load. Of answers, not
 * of the averages: those have failures in them, and shards that all fail would raise each other without end.
 */
const FAILURE_LATENCIES = 8;

/** Buckets of a quarter octave, from 1 µs to 2^32 µs. */
const BUCKETS_PER_OCTAVE = 4;
const BUCKETS: number = 32 * BUCKETS_PER_OCTAVE;
/** Samples after which one weighs half of a new one. */
const HALF_LIFE_SAMPLES = 512;
const GROWTH: number = 2 ** (1 / HALF_LIFE_SAMPLES);
/** When the weight of a new sample gets here, all weights are divided by it. */
const MAX_WEIGHT: number = 2 ** 20;
/** Fewer samples of its own than this, and a shard's quantiles are those of all shards. */
const MIN_SAMPLES = 20;

/** Places of {@link ReplicaLoads.#totals}; doubles live in arrays, as a field would be boxed anew. */
const SAMPLES = 0;
const SUM_US = 1;
const ANSWER_US = 2;
/** Place in {@link ReplicaLoads.#result} of the sample that is being taken in; 0 and 1 are for results. */
const SAMPLE = 2;

const float = new Float32Array(1);
const floatBits = new Int32Array(float.buffer);

/** Loads of the shards 0 to `shards` - 1, as one client thread sees them. */
export class ReplicaLoads {
  readonly #shards: number;
  readonly #inFlight: Int32Array;
  #totalInFlight = 0;
  /** Shape: `[samples of all shards, sum of the shards' averages, moving average of the answers of all shards]`. */
  readonly #totals: Float64Array = new Float64Array(3);
  readonly #result: Float64Array = new Float64Array(3);
  /** Shards with a sample. */
  #known = 0;
  readonly #averageUs: Float64Array;
  /** Shape: `[shards + 1]`, the last row is for all shards together; so below. */
  readonly #count: Float64Array;
  /** `totals[SAMPLES]` at the shard's last sample. */
  readonly #sampledAt: Float64Array;
  /** Shape: `[(shards + 1) × BUCKETS]`. */
  readonly #buckets: Float32Array;
  readonly #bucketSum: Float64Array;
  readonly #weight: Float64Array;

  /** @param shards Shards of the cluster; about 0.5 KiB each. */
  constructor(shards: number = MAX_SHARDS) {
    this.#shards = shards;
    this.#inFlight = new Int32Array(shards);
    this.#averageUs = new Float64Array(shards);
    this.#sampledAt = new Float64Array(shards);
    this.#count = new Float64Array(shards + 1);
    this.#buckets = new Float32Array((shards + 1) * BUCKETS);
    this.#bucketSum = new Float64Array(shards + 1);
    this.#weight = new Float64Array(shards + 1).fill(1);
  }

  /** Shards that there is room for. */
  get shards(): number {
    return this.#shards;
  }

  /** One more request in flight to a shard. */
  begin(shard: number): void {
    this.#inFlight[shard] = (this.#inFlight[shard] as number) + 1;
    this.#totalInFlight++;
  }

  /**
   * A request came to its end.
   *
   * @param latencyUs From begin to end, in microseconds. A value that is no time is not counted as a sample.
   * @param ok Whether it was answered. One that failed raises the average and stays out of the quantiles, as it says
   *   nothing about how long an answer takes.
   */
  end(shard: number, latencyUs: number, ok: boolean): void {
    this.#release(shard);
    if (!(latencyUs >= 0)) return;
    if (!ok) {
      this.#result[SAMPLE] = Math.max(1, latencyUs, FAILURE_LATENCIES * (this.#totals[ANSWER_US] as number));
      this.#average(shard);
      return;
    }
    const sampleUs = Math.max(1, latencyUs);
    const answerUs = this.#totals[ANSWER_US] as number;
    this.#totals[ANSWER_US] = answerUs === 0 ? sampleUs : answerUs + SAMPLE_WEIGHT * (sampleUs - answerUs);
    this.#result[SAMPLE] = sampleUs;
    this.#average(shard);
    this.#observe(shard);
    this.#observe(this.#shards);
  }

  /**
   * A request was given up, because somebody else answered or the caller went. How long it would have taken is unknown: what it
   * took so far counts where that is already more than the average.
   */
  cancel(shard: number, elapsedUs: number): void {
    this.#release(shard);
    this.#expect(shard, 1, 0);
    if (!(elapsedUs > (this.#result[0] as number))) return;
    this.#result[SAMPLE] = Math.max(1, elapsedUs);
    this.#average(shard);
  }

  /** Requests in flight to a shard. */
  inFlight(shard: number): number {
    return this.#inFlight[shard] as number;
  }

  /** Requests in flight to all shards. */
  get totalInFlight(): number {
    return this.#totalInFlight;
  }

  /**
   * The latency to expect of a shard, in microseconds: its moving average; for a newcomer the mean of the others; for a shard
   * without requests less and less, see above. 0 while nobody has answered.
   */
  latencyUs(shard: number): number {
    this.#expect(shard, this.#inFlight[shard] as number, 0);
    return this.#result[0] as number;
  }

  /**
   * A quantile of the latencies of lately answered requests, in microseconds, to about a tenth. A shard with fewer than 20
   * answers has the quantiles of all shards.
   *
   * Cost: a walk over 128 buckets.
   *
   * @param q In `[0, 1]`.
   * @returns Infinity while there are fewer than 20 answers of all shards: nothing is known to be late.
   */
  quantileUs(shard: number, q: number): number {
    const row = (this.#count[shard] as number) >= MIN_SAMPLES ? shard : this.#shards;
    if ((this.#count[row] as number) < MIN_SAMPLES) return Number.POSITIVE_INFINITY;
    let left = q * (this.#bucketSum[row] as number);
    let lastUs = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const weight = this.#buckets[row * BUCKETS + bucket] as number;
      if (weight === 0) continue;
      const fromUs = bucketStartUs(bucket);
      lastUs = bucketStartUs(bucket + 1);
      if (left <= weight) return fromUs + (Math.max(0, left) / weight) * (lastUs - fromUs);
      left -= weight;
    }
    return lastUs; // the sum was rounded up
  }

  /** As {@link quantileUs}, over the answers of all shards. */
  allQuantileUs(q: number): number {
    return this.quantileUs(this.#shards, q);
  }

  /**
   * The shard of two with the lower cost (in flight + assigned + 1) × expected latency; `a` when they are equal.
   *
   * @param assigned Per shard, requests of the running plan that are not in flight yet.
   */
  cheaper(a: number, b: number, assigned: Int32Array): number {
    const busyA = (this.#inFlight[a] as number) + (assigned[a] as number);
    const busyB = (this.#inFlight[b] as number) + (assigned[b] as number);
    if (this.#known === 0) return busyB < busyA ? b : a;
    this.#expect(a, busyA, 0);
    this.#expect(b, busyB, 1);
    return (busyB + 1) * (this.#result[1] as number) < (busyA + 1) * (this.#result[0] as number) ? b : a;
  }

  #release(shard: number): void {
    const inFlight = this.#inFlight[shard] as number;
    if (inFlight === 0) return;
    this.#inFlight[shard] = inFlight - 1;
    this.#totalInFlight--;
  }

  /** Puts the latency to expect of a shard with so many requests into `#result[at]`: a number returned might be boxed. */
  #expect(shard: number, busy: number, at: number): void {
    if (this.#sampledAt[shard] === 0) this.#averageOthers(shard, at);
    else if (busy > 0) this.#result[at] = this.#averageUs[shard] as number;
    else {
      this.#remember(shard, at);
      this.#result[at] = (this.#result[at] as number) * (this.#averageUs[shard] as number);
    }
  }

  /**
   * Puts into `#result[at]` what the samples that a shard missed leave of its estimate, in (0, 1]. Its fair share is one of as
   * many samples as shards are known.
   */
  #remember(shard: number, at: number): void {
    const elsewhere = (this.#totals[SAMPLES] as number) - (this.#sampledAt[shard] as number);
    const part = 1 + elsewhere / (this.#known * MISSED_SAMPLES);
    this.#result[at] = 1 / (part * part);
  }

  /** Puts the mean of the averages of all shards but this one into `#result[at]`; 0 when there are none. */
  #averageOthers(shard: number, at: number): void {
    const others = this.#known - ((this.#sampledAt[shard] as number) > 0 ? 1 : 0);
    this.#result[at] =
      others === 0 ? 0 : Math.max(1, ((this.#totals[SUM_US] as number) - (this.#averageUs[shard] as number)) / others);
  }

  /** Takes the sample in `#result[SAMPLE]` into a shard's average. */
  #average(shard: number): void {
    const sampleUs = this.#result[SAMPLE] as number;
    const before = this.#averageUs[shard] as number; // 0 for a newcomer
    let averageUs = sampleUs;
    if ((this.#sampledAt[shard] as number) > 0) {
      this.#remember(shard, 0);
      averageUs += (1 - SAMPLE_WEIGHT) * (this.#result[0] as number) * (before - sampleUs);
    } else {
      this.#averageOthers(shard, 0);
      const startUs = this.#result[0] as number;
      if (startUs > 0) averageUs = startUs + SAMPLE_WEIGHT * (sampleUs - startUs);
      this.#known++;
    }
    this.#totals[SAMPLES] = (this.#totals[SAMPLES] as number) + 1;
    this.#sampledAt[shard] = this.#totals[SAMPLES];
    this.#totals[SUM_US] = (this.#totals[SUM_US] as number) + averageUs - before;
    this.#averageUs[shard] = averageUs;
  }

  /** Takes the sample in `#result[SAMPLE]` into a row of the histogram. */
  #observe(row: number): void {
    float[0] = this.#result[SAMPLE] as number;
    // Exponent and upper mantissa bits of a float32 are the bucket: no logarithm.
    const bucket = ((floatBits[0] as number) >>> 21) - 127 * BUCKETS_PER_OCTAVE;
    const at = row * BUCKETS + Math.min(BUCKETS - 1, bucket);
    const weight = this.#weight[row] as number;
    this.#buckets[at] = (this.#buckets[at] as number) + weight;
    this.#bucketSum[row] = (this.#bucketSum[row] as number) + weight;
    this.#count[row] = (this.#count[row] as number) + 1;
    this.#weight[row] = weight * GROWTH;
    if (weight > MAX_WEIGHT) this.#rescale(row);
  }

  /** Divides a row's weights, every 10 240 samples, and sums anew what rounding has moved. */
  #rescale(row: number): void {
    const weight = this.#weight[row] as number;
    let sum = 0;
    for (let at = row * BUCKETS; at < (row + 1) * BUCKETS; at++) {
      const scaled = (this.#buckets[at] as number) / weight;
      this.#buckets[at] = scaled;
      sum += scaled;
    }
    this.#bucketSum[row] = sum;
    this.#weight[row] = 1;
    if (row < this.#shards) return;
    let sumUs = 0;
    for (let shard = 0; shard < this.#shards; shard++) sumUs += this.#averageUs[shard] as number;
    this.#totals[SUM_US] = sumUs;
  }
}

function bucketStartUs(bucket: number): number {
  const octave = Math.floor(bucket / BUCKETS_PER_OCTAVE);
  return 2 ** octave * (1 + (bucket % BUCKETS_PER_OCTAVE) / BUCKETS_PER_OCTAVE);
}
