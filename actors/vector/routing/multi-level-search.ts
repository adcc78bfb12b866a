/**
 * The asking side of a multi-level search, a state machine without I/O: one round a level, one request a node and round.
 *
 * Invariant: a search ends after as many dependent rounds as the index has levels; a node that is lost costs one more message to
 * the second copies, never a wait for it. What could not be read is in the result: `missing` is empty or the answer is partial.
 * Late, doubled and foreign answers change nothing; ids and distances that no node can have sent are dropped and counted.
 * Source: SPIRE, search by levels. Divergence: how many clusters a level reads is decided for each query (adaptive-probing.ts).
 */
import { invalidArgument } from "../../../src/errors.ts";
import {
  checkRecallTarget,
  expectedShares,
  type RecallCurve,
  type ShareModel,
  thresholdFor,
} from "./adaptive-probing.ts";
import type { Code } from "./code-table.ts";
import type { ClusterLevel, MultiLevelIndex } from "./multi-level-index.ts";
import type { RoundAnswer, RoundRequest } from "./multi-level-node.ts";
import { TopList } from "./top-list.ts";

/** What was learnt for one level: where among its ranked clusters the neighbours are. */
export interface LevelCalibration {
  readonly model: ShareModel;
  readonly curve: RecallCurve;
}

/** For a search of so many neighbours: one entry per level, leaves first. */
export interface SearchCalibration {
  readonly depth: number;
  readonly levels: readonly LevelCalibration[];
}

/** In ascending order of depth. Plain data; belongs to one index. */
export type MultiLevelCalibration = readonly SearchCalibration[];

export interface MultiLevelSearchOptions {
  readonly k: number;
  /** Mean share of the true neighbours to be found, in (0, 1]. */
  readonly recallTarget: number;
  /** Without one, and for more neighbours than it was made for, every ranked cluster is read. @default none */
  readonly calibration?: MultiLevelCalibration;
  /** Vectors listed. @default k */
  readonly wanted?: number;
  /** Leaves read at least, where so many are ranked. @default 1 */
  readonly leastLeaves?: number;
  /** Clusters ranked at each level. @default 192, more for more than ten neighbours */
  readonly width?: number;
  /** Nodes known to be down. @default none */
  readonly down?: readonly number[];
}

export interface MultiLevelResult {
  /** Vectors by distance, then number. */
  readonly ids: Int32Array;
  readonly distances: Float64Array;
  /** Whether clusters were chosen by calibration, or all that were ranked were read. */
  readonly rule: "adaptive" | "ranked";
  /** Codes read: the top's, and those that nodes read. */
  readonly read: number;
  /** Dependent rounds and messages to nodes. */
  readonly rounds: number;
  readonly requests: number;
  /** What was not answered for; `nodes` is empty when the answer is whole. */
  readonly missing: { readonly nodes: readonly number[]; readonly clusters: number; readonly vectors: number };
  /** Entries of answers that were dropped because no node can have sent them. */
  readonly damaged: number;
}

const DEFAULT_WIDTH = 192;
/** Part of the allowed loss that each level above the leaves may take. */
const UPPER_LOSS = 0.15;
const NOBODY = -1;
/** Neighbours for which the default width is made. */
const BASE_DEPTH = 10;

interface Pending {
  readonly node: number;
  readonly clusters: readonly number[];
}

export class MultiLevelSearch {
  readonly #index: MultiLevelIndex;
  readonly #query: Code;
  readonly #calibration: SearchCalibration | undefined;
  readonly #thresholds: readonly number[];
  readonly #width: number;
  readonly #wanted: number;
  readonly #leastLeaves: number;
  readonly #down: Set<number>;
  /** Requests without an answer, by their numbers. */
  readonly #pending = new Map<number, Pending>();
  readonly #missingNodes = new Set<number>();
  #level: number;
  #round = 0;
  #merged: TopList;
  #seen = new Set<number>();
  #read = 0;
  #requests = 0;
  #missingClusters = 0;
  #missingVectors = 0;
  #damaged = 0;
  #started = false;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`. */
  constructor(index: MultiLevelIndex, query: Code, options: MultiLevelSearchOptions) {
    const { k, wanted = k, recallTarget, calibration } = options;
    const width = options.width ?? Math.ceil(DEFAULT_WIDTH * Math.sqrt(Math.max(1, k / BASE_DEPTH)));
    const top = index.levels.at(-1);
    if (top === undefined) throw invalidArgument("search multi-level index", "levels", "at least one", 0);
    if (query.length !== top.centroids.dimensions || (query instanceof Float32Array && !query.every(Number.isFinite)))
      throw invalidArgument("search multi-level index", "query", `${top.centroids.dimensions} finite numbers`, query);
    if (!Number.isInteger(k) || k < 1) throw invalidArgument("search multi-level index", "k", "a positive integer", k);
    if (!Number.isInteger(wanted) || wanted < 1)
      throw invalidArgument("search multi-level index", "wanted", "a positive integer", wanted);
    if (!Number.isInteger(width) || width < 1)
      throw invalidArgument("search multi-level index", "width", "a positive integer", width);
    if (calibration?.some(({ levels }) => levels.length !== index.levels.length) === true)
      throw invalidArgument("search multi-level index", "calibration", "of this index", calibration);
    checkRecallTarget(recallTarget);
    this.#index = index;
    this.#query = query;
    this.#calibration = recallTarget === 1 ? undefined : calibration?.find(({ depth }) => depth >= k);
    this.#thresholds = thresholdsOf(this.#calibration, recallTarget);
    this.#width = width;
    this.#wanted = wanted;
    this.#leastLeaves = options.leastLeaves ?? 1;
    this.#down = new Set(options.down);
    this.#level = index.levels.length - 1;
    this.#merged = new TopList(width);
  }

  /** Whether every round was answered or given up. */
  get done(): boolean {
    return this.#started && this.#level < 0;
  }

  /** Ranks the top and gives the requests of the first round. */
  start(): RoundRequest[] {
    if (this.#started) return [];
    this.#started = true;
    const { centroids } = this.#index.levels[this.#level] as ClusterLevel;
    centroids.begin(this.#query, this.#index.metric);
    for (let i = 0; i < centroids.count; i++) this.#merged.offer(i, centroids.score(i));
    this.#read += centroids.count;
    return this.#beginRound();
  }

  /** Takes an answer; gives what is to be asked next: of other nodes, or for the next round when it was the last of its own. */
  answer(answer: RoundAnswer): RoundRequest[] {
    const pending = this.#pending.get(answer.sequence);
    if (pending === undefined || pending.node !== answer.node) return [];
    this.#pending.delete(answer.sequence);
    this.#read += Number.isFinite(answer.read) ? answer.read : 0;
    const below = this.#index.levels[this.#level - 1]?.centroids.count ?? this.#index.count;
    for (let i = 0; i < answer.ids.length; i++) {
      const id = answer.ids[i] as number;
      const distance = answer.distances[i] as number;
      if (!(id >= 0 && id < below) || !Number.isFinite(distance)) this.#damaged++;
      else if (!this.#seen.has(id)) {
        this.#seen.add(id);
        this.#merged.offer(id, distance);
      }
    }
    const absent = new Set(answer.absent);
    const again = this.#send(
      pending.clusters.filter((cluster) => absent.has(cluster)),
      answer.node,
    );
    return [...again, ...this.#advance()];
  }

  /** Gives a node up: what it was asked is asked of the second copies, where there are any. */
  lost(node: number): RoundRequest[] {
    this.#down.add(node);
    const again: RoundRequest[] = [];
    for (const [sequence, pending] of [...this.#pending]) {
      if (pending.node !== node) continue;
      this.#pending.delete(sequence);
      again.push(...this.#send(pending.clusters, node));
    }
    return this.#started ? [...again, ...this.#advance()] : again;
  }

  /** What is known so far; whole once {@link done}. */
  result(): MultiLevelResult {
    const found = this.done ? Math.min(this.#wanted, this.#merged.count) : 0;
    const nodes = [...this.#missingNodes].sort((a, b) => a - b);
    return {
      ids: this.#merged.ids.slice(0, found),
      distances: this.#merged.distances.slice(0, found),
      rule: this.#thresholds.some((threshold) => threshold > 0) ? "adaptive" : "ranked",
      read: this.#read,
      rounds: this.#round,
      requests: this.#requests,
      missing: { nodes, clusters: this.#missingClusters, vectors: this.#missingVectors },
      damaged: this.#damaged,
    };
  }

  #beginRound(): RoundRequest[] {
    const chosen = this.#choose();
    this.#merged = new TopList(this.#level === 0 ? this.#wanted : this.#width);
    this.#seen = new Set();
    this.#round++;
    return [...this.#send(chosen, NOBODY), ...this.#advance()];
  }

  /** Goes on to the next level once nothing is outstanding. */
  #advance(): RoundRequest[] {
    if (this.#pending.size > 0 || this.#level < 0) return [];
    this.#level--;
    return this.#level < 0 ? [] : this.#beginRound();
  }

  /** The clusters to read, of those ranked. */
  #choose(): number[] {
    const ranked = this.#merged;
    const { metric } = this.#index;
    const model = this.#calibration?.levels[this.#level]?.model;
    const threshold = this.#thresholds[this.#level];
    if (model === undefined || threshold === undefined || threshold === 0)
      return [...ranked.ids.subarray(0, ranked.count)];
    const shares = new Float64Array(ranked.count);
    expectedShares(model, metric, ranked, shares);
    const least = this.#level === 0 ? this.#leastLeaves : 1;
    return [...ranked.ids.subarray(0, ranked.count)].filter((_, i) => i < least || (shares[i] as number) >= threshold);
  }

  /** Groups clusters by the node that is to read them; what no living node holds is missing. */
  #send(clusters: readonly number[], refusing: number): RoundRequest[] {
    const level = this.#index.levels[this.#level] as ClusterLevel;
    const groups = new Map<number, number[]>();
    for (const cluster of clusters) {
      const order = [level.nodeOf[cluster] as number, level.secondOf[cluster] as number];
      // Each copy is asked once: after a refusal by the first, the second; after one by the second, nobody.
      const left = refusing === NOBODY ? order : order.slice(order.indexOf(refusing) + 1);
      const usable = left.find((node) => node >= 0 && !this.#down.has(node));
      if (usable === undefined) {
        this.#missingNodes.add(order[0] as number);
        this.#missingClusters++;
        if (this.#level === 0)
          this.#missingVectors += (level.starts[cluster + 1] as number) - (level.starts[cluster] as number);
        continue;
      }
      const group = groups.get(usable);
      if (group === undefined) groups.set(usable, [cluster]);
      else group.push(cluster);
    }
    const limit = this.#merged.limit;
    const ordered = [...groups].sort((a, b) => a[0] - b[0]);
    return ordered.map(([node, own]) => {
      const sequence = this.#requests++;
      this.#pending.set(sequence, { node, clusters: own });
      return { sequence, node, level: this.#level, clusters: Int32Array.from(own), query: this.#query, limit };
    });
  }
}

/** The threshold of each level, leaves first; 0 reads every ranked cluster. */
function thresholdsOf(calibration: SearchCalibration | undefined, recallTarget: number): number[] {
  // Neighbours that an upper level misses are mostly such as the leaves would have missed too: losses hardly add up.
  const upper = 1 - (1 - recallTarget) * UPPER_LOSS;
  const levels = calibration?.levels ?? [];
  return levels.map(({ curve }, level) => thresholdFor(curve, level === 0 ? recallTarget : upper));
}
