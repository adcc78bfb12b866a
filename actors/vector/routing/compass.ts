/**
 * Compass: which shards a query visits, and which of their leaves it begins at, from the shared table of leaf centroids alone.
 *
 * Invariant: a shard of the collection whose table is not known is always visited; without a calibration, or for a search deeper
 * than what was calibrated, every shard is. So a missing table costs work, never an answer.
 * One thread: it keeps the ranking of the query at hand. The plan is plain data.
 * Source: adaptive fan-out over leaf owners (notes of the vector search); see adaptive-probing.ts for the rule.
 */
import { invalidArgument } from "../../../src/errors.ts";
import { checkRecallTarget, expectedShares, type ShareModel, thresholdFor } from "./adaptive-probing.ts";
import { type CentroidGroups, CentroidRouter, groupCentroids } from "./centroid-router.ts";
import type { MergedCentroids } from "./centroid-table.ts";
import { type Code, type CodeHost, CodeTable } from "./code-table.ts";
import {
  type CalibratedRouter,
  type CompassCalibration,
  type DepthCalibration,
  EFFORTS,
} from "./compass-calibration.ts";
import type { Steps } from "./steps.ts";
import { TopList } from "./top-list.ts";

export interface CompassOptions {
  /** Every shard of the collection, with a table or without. @default those of the table */
  readonly shards?: readonly number[];
  /** A table of the centroids that somebody else owns. @default one of its own */
  readonly centroids?: CodeTable;
  /** Leaves ranked for a search of ten neighbours; deeper ones rank more. @default 64 */
  readonly candidates?: number;
  /** @default none, which visits every shard */
  readonly calibration?: CompassCalibration;
  /** Groups of `centroids`. @default made here */
  readonly groups?: CentroidGroups;
}

export interface SelectOptions {
  readonly k: number;
  /** Share of the true neighbours that the visited shards hold in the mean, in (0, 1]; 1 visits every shard. */
  readonly recallTarget: number;
  /** Share of the vectors that pass the filter, in (0, 1]. @default 1 */
  readonly selectivity?: number;
  /** Vectors of each leaf that pass, where they are known; a leaf without any is not visited. */
  readonly passing?: ArrayLike<number>;
}

export interface ShardChoice {
  readonly shard: number;
  /** Share of the neighbours to be expected there; 0 where nothing is known. */
  readonly share: number;
  /** Leaves to look into, best first; empty where nothing is known. */
  readonly leaves: Int32Array;
}

export interface CompassPlan {
  /** In descending order of share, then of shard. */
  readonly shards: readonly ShardChoice[];
  /** Why these: by calibration; all, as the search is deeper than it or wants everything; all, as there is none. */
  readonly rule: "adaptive" | "everything" | "uncalibrated";
  /** Shards visited because their table is not known. */
  readonly unknown: readonly number[];
  /** Distances computed. */
  readonly computed: number;
}

/** Leaves to read, best first. */
export interface LeafPlan {
  readonly leaves: Int32Array;
  /** As in {@link CompassPlan}, or all that were ranked, as in training they did not reach the target. */
  readonly rule: CompassPlan["rule"] | "ranked";
  /** Shards whose leaves are not known: they must be asked themselves. */
  readonly unknown: readonly number[];
  readonly computed: number;
}

interface Rule {
  readonly entry: DepthCalibration;
  readonly recallTarget: number;
  readonly model: ShareModel;
  readonly shardThreshold: number;
  readonly leafThreshold: number;
}

const CANDIDATES = 64;
const BASE_DEPTH = 10;
/** Passing vectors that the ranked leaves must hold for each one wanted. */
const ENOUGH = 4;
const MOST_K = 1 << 24;

export class Compass implements CalibratedRouter {
  readonly metric: MergedCentroids["space"]["metric"];
  readonly #table: MergedCentroids;
  readonly #centroids: CodeTable;
  readonly #router: CentroidRouter;
  readonly #shards: readonly number[];
  readonly #unknown: readonly number[];
  readonly #candidates: number;
  #calibration: CompassCalibration | undefined;
  /** Place of each leaf's shard in `#shards`. */
  readonly #placeOf: Int32Array;
  readonly #sums: Float64Array;
  /** The rule that was used last. */
  #rule: Rule | undefined;
  #ranked: TopList;
  /** Room for the leaves of one choice. */
  #leaves: Int32Array;
  #computed = 0;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for an empty table; `ERR_OUT_OF_MEMORY`. */
  constructor(host: CodeHost, table: MergedCentroids, options: CompassOptions = {}) {
    const leaves = table.counts.length;
    if (leaves === 0) throw invalidArgument("create compass", "table", "a table with leaves", 0);
    const { candidates = CANDIDATES } = options;
    if (!Number.isInteger(candidates) || candidates < 1)
      throw invalidArgument("create compass", "candidates", "a positive integer", candidates);
    this.metric = table.space.metric;
    this.#table = table;
    this.#candidates = candidates;
    this.#calibration = options.calibration;
    const known = new Set(table.stamps.map(({ shard }) => shard));
    this.#shards = [...new Set([...known, ...(options.shards ?? [])])].sort((a, b) => a - b);
    this.#unknown = this.#shards.filter((shard) => !known.has(shard));
    this.#placeOf = table.shardOf.map((shard) => this.#shards.indexOf(shard));
    this.#sums = new Float64Array(this.#shards.length);
    this.#ranked = new TopList(Math.min(leaves, candidates));
    this.#leaves = new Int32Array(this.#ranked.limit);
    this.#centroids = options.centroids ?? ownCentroids(host, table);
    try {
      this.#router = new CentroidRouter(host, this.#centroids, options.groups);
    } catch (error) {
      if (options.centroids === undefined) this.#centroids.close();
      throw error;
    }
  }

  /** In slices. @throws {ShardloomError} As the constructor does. */
  static *create(host: CodeHost, table: MergedCentroids, options: CompassOptions = {}): Steps<Compass> {
    const centroids = options.centroids ?? ownCentroids(host, table);
    let whole = false;
    try {
      const groups = yield* groupCentroids(host, centroids);
      const compass = new Compass(host, table, { ...options, centroids, ...(groups === undefined ? {} : { groups }) });
      whole = true;
      return compass;
    } finally {
      if (!whole) centroids.close();
    }
  }

  get leaves(): number {
    return this.#centroids.count;
  }

  /** Takes what was learnt for this table. */
  calibrate(calibration: CompassCalibration): void {
    this.#calibration = calibration;
  }

  shardOf(leaf: number): number {
    return this.#table.shardOf[leaf] as number;
  }

  leafCount(leaf: number): number {
    return this.#table.counts[leaf] as number;
  }

  /** The leaves nearest to a vector, as the router finds them. @param budget Distances, about. @default as in {@link CentroidRouter.nearest} */
  nearestLeaves(code: Code, nearest: TopList, budget?: number): number {
    return this.#router.nearest(code, nearest, budget);
  }

  /** Leaves nearest to a query, as many as a search of that depth needs. Valid until the next call. */
  rank(query: Code, depth: number, effort: number): TopList {
    const widening = Math.sqrt(Math.max(1, depth / BASE_DEPTH));
    const limit = Math.min(this.leaves, Math.ceil(this.#candidates * widening));
    const budget = Math.ceil((EFFORTS[effort]?.budget ?? Number.POSITIVE_INFINITY) * Math.sqrt(this.leaves) * widening);
    if (this.#ranked.limit !== limit) {
      this.#ranked = new TopList(limit);
      this.#leaves = new Int32Array(limit);
    }
    this.#computed = this.#router.nearest(query, this.#ranked, budget);
    return this.#ranked;
  }

  /**
   * Chooses the shards of a query.
   *
   * Cost: about 5.5 √leaves distances, 10 √leaves for targets above .99; a list of `candidates` leaves.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`.
   */
  selectShards(query: Code, options: SelectOptions): CompassPlan {
    const { k, recallTarget, selectivity = 1, passing } = options;
    this.#check(query, options);
    const depth = k / selectivity;
    const effort = EFFORTS.findIndex(({ shardsUpTo }) => recallTarget <= shardsUpTo);
    const ranked = this.rank(query, depth, effort);
    const rule = this.#holdsEnough(ranked, k, passing) ? this.#ruleFor(depth, recallTarget, effort) : "everything";
    const plan = { unknown: this.#unknown, computed: this.#computed };
    if (typeof rule === "string") return { ...plan, rule, shards: this.#everyShard(ranked, passing) };
    // A threshold of 0: all that could be ranked did not reach the target in training.
    if (rule.shardThreshold === 0) return { ...plan, rule: "everything", shards: this.#everyShard(ranked, passing) };
    const shares = this.#sharesOf(ranked, rule, selectivity, passing);
    return { ...plan, rule: "adaptive", shards: this.#chosenShards(ranked, shares, rule) };
  }

  /**
   * Chooses leaves to be read whole, wherever they are: what a search without a graph reads.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`.
   */
  selectLeaves(query: Code, options: SelectOptions): LeafPlan {
    const { k, recallTarget, selectivity = 1, passing } = options;
    this.#check(query, options);
    const depth = k / selectivity;
    const effort = EFFORTS.findIndex(({ leavesUpTo }) => recallTarget <= leavesUpTo);
    const ranked = this.rank(query, depth, effort);
    const rule = this.#holdsEnough(ranked, k, passing) ? this.#ruleFor(depth, recallTarget, effort) : "everything";
    const plan = { unknown: this.#unknown, computed: this.#computed };
    if (typeof rule === "string")
      return { ...plan, rule, leaves: Int32Array.from({ length: this.leaves }, (_, i) => i) };
    const shares = this.#sharesOf(ranked, rule, selectivity, passing);
    const best = shares.reduce((most, share) => Math.max(most, share), 0);
    const leaves = ranked.ids.slice(0, ranked.count).filter((_, i) => {
      const share = shares[i] as number;
      return share > 0 && (share >= rule.leafThreshold || share === best);
    });
    return { ...plan, rule: rule.leafThreshold === 0 ? "ranked" : "adaptive", leaves };
  }

  close(): void {
    this.#router.close();
    this.#centroids.close();
  }

  #check(query: Code, options: SelectOptions): void {
    const { k, recallTarget, selectivity = 1, passing } = options;
    checkQuery(query, this.#table.space.dimensions);
    checkRecallTarget(recallTarget);
    if (!Number.isInteger(k) || k < 1 || k > MOST_K)
      throw invalidArgument("choose shards", "k", `an integer in [1, ${MOST_K}]`, k);
    if (!(selectivity > 0 && selectivity <= 1))
      throw invalidArgument("choose shards", "selectivity", "a number in (0, 1]", selectivity);
    if (passing !== undefined && passing.length !== this.leaves)
      throw invalidArgument("choose shards", "passing", `one count for each of ${this.leaves} leaves`, passing);
  }

  #ruleFor(depth: number, recallTarget: number, effort: number): Rule | "everything" | "uncalibrated" {
    const calibration = this.#calibration;
    if (calibration === undefined || calibration.length === 0) return "uncalibrated";
    // The next deeper one: neighbours further out are spread over more shards, so it never promises too much.
    const entry = calibration.find((candidate) => candidate.effort === effort && candidate.depth >= depth);
    if (recallTarget === 1 || entry === undefined) return "everything";
    if (this.#rule?.entry === entry && this.#rule.recallTarget === recallTarget) return this.#rule;
    const shardThreshold = thresholdFor(entry.shardCurve, recallTarget);
    const leafThreshold = thresholdFor(entry.leafCurve, recallTarget);
    this.#rule = { entry, recallTarget, model: entry.model, shardThreshold, leafThreshold };
    return this.#rule;
  }

  #chosenShards(ranked: TopList, shares: Float64Array, rule: Rule): ShardChoice[] {
    const sums = this.#sums.fill(0);
    let best = -1;
    for (let i = 0; i < ranked.count; i++) {
      const place = this.#placeOf[ranked.ids[i] as number] as number;
      sums[place] = (sums[place] as number) + (shares[i] as number);
    }
    for (let i = 0; i < ranked.count; i++) {
      const place = this.#placeOf[ranked.ids[i] as number] as number;
      if (best < 0 || (sums[place] as number) > (sums[best] as number)) best = place;
    }
    const chosen: ShardChoice[] = [];
    for (let place = 0; place < sums.length; place++) {
      const share = sums[place] as number;
      if (place !== best && (share === 0 || share < rule.shardThreshold)) continue;
      chosen.push({
        shard: this.#shards[place] as number,
        share,
        leaves: this.#leavesOf(ranked, place, shares, rule.leafThreshold),
      });
    }
    return inOrder([...chosen, ...this.#unknown.map(nothingKnown)]);
  }

  /** Expected shares of the ranked leaves, by how much more or less of a leaf passes than of all. */
  #sharesOf(ranked: TopList, rule: Rule, selectivity: number, passing: ArrayLike<number> | undefined): Float64Array {
    const shares = new Float64Array(ranked.count);
    expectedShares(rule.model, this.metric, ranked, shares);
    for (let i = 0; i < ranked.count && passing !== undefined; i++) {
      const leaf = ranked.ids[i] as number;
      const count = this.leafCount(leaf);
      const factor = count > 0 ? (passing[leaf] as number) / count / selectivity : 0;
      shares[i] = (shares[i] as number) * factor;
    }
    return shares;
  }

  /** Those of a shard's ranked leaves that reach the threshold; at least its best. */
  #leavesOf(ranked: TopList, place: number, shares: Float64Array, threshold: number): Int32Array {
    const leaves = this.#leaves;
    let count = 0;
    for (let i = 0; i < ranked.count; i++) {
      const leaf = ranked.ids[i] as number;
      if (this.#placeOf[leaf] !== place || (count > 0 && (shares[i] as number) < threshold)) continue;
      leaves[count++] = leaf;
    }
    return leaves.slice(0, count);
  }

  /** Whether what passes in the ranked leaves is more than the search wants; else the answer lies outside them. */
  #holdsEnough(ranked: TopList, k: number, passing: ArrayLike<number> | undefined): boolean {
    if (passing === undefined) return true;
    let sum = 0;
    for (let i = 0; i < ranked.count; i++) sum += passing[ranked.ids[i] as number] as number;
    return sum >= k * ENOUGH;
  }

  /** Every shard, but for those in which nothing passes. */
  #everyShard(ranked: TopList, passing: ArrayLike<number> | undefined): ShardChoice[] {
    const leaves = new Map<number, number[]>(this.#shards.map((shard) => [shard, []]));
    if (passing !== undefined) {
      const passed = new Set<number>(this.#unknown);
      for (let leaf = 0; leaf < this.leaves; leaf++) if ((passing[leaf] as number) > 0) passed.add(this.shardOf(leaf));
      for (const shard of this.#shards) if (!passed.has(shard)) leaves.delete(shard);
    }
    for (let i = 0; i < ranked.count; i++) {
      const leaf = ranked.ids[i] as number;
      leaves.get(this.shardOf(leaf))?.push(leaf);
    }
    // Shares are not estimated here; shards come in the order of their best leaf.
    const order = [...leaves].sort((a, b) => rankOf(ranked, a[1]) - rankOf(ranked, b[1]) || a[0] - b[0]);
    return order.map(([shard, own]) => ({ shard, share: 0, leaves: Int32Array.from(own) }));
  }
}

function ownCentroids(host: CodeHost, { space, codes, counts }: MergedCentroids): CodeTable {
  const centroids = new CodeTable(host, space, counts.length);
  const { dimensions } = space;
  for (let leaf = 0; leaf < counts.length; leaf++)
    centroids.set(leaf, codes.subarray(leaf * dimensions, (leaf + 1) * dimensions));
  return centroids;
}

function rankOf(ranked: TopList, leaves: readonly number[]): number {
  return leaves.length === 0 ? ranked.count : ranked.ids.indexOf(leaves[0] as number);
}

function nothingKnown(shard: number): ShardChoice {
  return { shard, share: 0, leaves: new Int32Array(0) };
}

function inOrder(choices: ShardChoice[]): ShardChoice[] {
  return choices.sort((a, b) => b.share - a.share || a.shard - b.shard);
}

/** A query with a NaN would be at NaN from every centroid, and every comparison false. */
function checkQuery(query: Code, dimensions: number): void {
  if (query.length !== dimensions)
    throw invalidArgument("choose shards", "query.length", `${dimensions}, as the table says`, query.length);
  if (query instanceof Float32Array && !query.every(Number.isFinite))
    throw invalidArgument("choose shards", "query", "of finite numbers", query);
}
