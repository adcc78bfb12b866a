/**
 * The levels of a graph's leaf table on one shard: to read clusters of any of them, and to search by them.
 *
 * Invariant: everything is of the version that it was asked for. The highest level is searched by what the shards have sent each other, not by the
 * table in shared memory: a search begins only when all of its clusters are known, of that version. One thread only.
 */
import type { MergedCentroids } from "../routing/centroid-table.ts";
import { type Code, type CodeHost, CodeTable } from "../routing/code-table.ts";
import type { LevelTable } from "../routing/levels-codec.ts";
import type { ClusterLevel, MultiLevelIndex } from "../routing/multi-level-index.ts";
import type { MultiLevelCalibration } from "../routing/multi-level-search.ts";
import type { LeafTable } from "./leaf-table.ts";

/** A vertex is below this. */
const MOST_VERTICES = 0x7fff_ffff;
const NONE: Int32Array = new Int32Array(0);
const VERSION_SHIFT = 16;

/** The leaf or cluster, and the version of its table, that a row of an exchanged table names. */
export function leafOfRow(word: number): { readonly leaf: number; readonly version: number } {
  return { leaf: word & ((1 << VERSION_SHIFT) - 1), version: word >>> VERSION_SHIFT };
}

/** What {@link leafOfRow} reads. */
export function rowOfLeaf(leaf: number, version: number): number {
  return leaf | (version << VERSION_SHIFT);
}

/** Levels to search by. */
export interface SearchedLevels {
  readonly index: MultiLevelIndex;
  readonly calibration: MultiLevelCalibration;
}

interface Held {
  readonly version: number;
  /** Undefined: the table has none. */
  readonly levels: SearchedLevels | undefined;
}

export class LevelView {
  readonly #host: CodeHost;
  readonly #table: () => LeafTable | undefined;
  #held: Held | undefined;
  #top: { readonly tables: MergedCentroids; readonly version: number; readonly levels: SearchedLevels } | undefined;

  /** @param table The leaf table that there is now. */
  constructor(host: CodeHost, table: () => LeafTable | undefined) {
    this.#host = host;
    this.#table = table;
  }

  /** The levels of one version, as this node has them; undefined: there are none, or of another version. */
  index(version: number): MultiLevelIndex | undefined {
    return this.#current(version)?.index;
  }

  /** Clusters of the highest level that a shard is to describe to others, and their codes; undefined: there are no levels. */
  described(version: number, shard: number): { readonly cluster: number; readonly code: Code }[] | undefined {
    const top = this.#current(version)?.index.levels.at(-1);
    if (top === undefined) return undefined;
    const all = Array.from(top.nodeOf, (node, cluster) => ({ node, cluster }));
    return all
      .filter(({ node }) => node === shard)
      .map(({ cluster }) => ({ cluster, code: top.centroids.vector(cluster) }));
  }

  /**
   * The levels of one version with the highest as it was exchanged.
   *
   * @returns undefined while not all of its clusters are known, of that version
   */
  searched(version: number, tables: MergedCentroids | undefined): SearchedLevels | undefined {
    const held = this.#current(version);
    if (held === undefined || tables === undefined) return undefined;
    if (this.#top?.tables === tables && this.#top.version === version) return this.#top.levels;
    const own = held.index.levels.at(-1) as ClusterLevel;
    const rows = rowsOf(tables, version, own.centroids.count);
    if (rows === undefined) return undefined;
    this.#closeTop();
    const centroids = new CodeTable(this.#host, own.centroids, rows.length);
    const { dimensions } = own.centroids;
    for (const [cluster, row] of rows.entries())
      centroids.set(cluster, tables.codes.subarray(row * dimensions, (row + 1) * dimensions));
    const levels = [...held.index.levels.slice(0, -1), { ...own, centroids }];
    this.#top = { tables, version, levels: { ...held, index: { ...held.index, levels } } };
    return this.#top.levels;
  }

  /** Gives private memory back. */
  close(): void {
    this.#closeTop();
    for (const { centroids } of this.#held?.levels?.index.levels.slice(1) ?? []) centroids.close();
    this.#held = undefined;
  }

  #closeTop(): void {
    this.#top?.levels.index.levels.at(-1)?.centroids.close();
    this.#top = undefined;
  }

  #current(version: number): SearchedLevels | undefined {
    const table = this.#table();
    if (table === undefined || table.version !== version) return undefined;
    if (this.#held?.version !== version) {
      this.close();
      const levels = table.levels();
      this.#held = { version, levels: levels === undefined ? undefined : this.#open(table, levels) };
    }
    return this.#held.levels;
  }

  #open(table: LeafTable, { upper, calibration }: LevelTable): SearchedLevels {
    const { centroids: leaves } = table;
    const levels: ClusterLevel[] = [
      {
        centroids: leaves,
        starts: new Int32Array(leaves.count + 1), // members are the shards' to know
        members: NONE,
        clusterOf: NONE,
        nodeOf: Int32Array.from({ length: leaves.count }, (_, leaf) => table.label(leaf)),
        secondOf: new Int32Array(leaves.count).fill(-1),
      },
    ];
    try {
      for (const { codes, starts, members, shardOf, secondOf } of upper) {
        const centroids = new CodeTable(this.#host, leaves, starts.length - 1);
        const { dimensions } = leaves;
        for (let at = 0; at < centroids.count; at++)
          centroids.set(at, codes.subarray(at * dimensions, (at + 1) * dimensions));
        levels.push({ centroids, starts, members, clusterOf: NONE, nodeOf: shardOf, secondOf });
      }
    } catch (error) {
      for (const { centroids } of levels.slice(1)) centroids.close(); // no room for the next
      throw error;
    }
    const index = { nodes: table.labels.length, count: MOST_VERTICES, metric: leaves.metric, levels, unseen: NONE };
    return { index, calibration };
  }
}

/** Row of each cluster; undefined when one is not there in that version. */
function rowsOf({ partitions }: MergedCentroids, version: number, clusters: number): Int32Array | undefined {
  const rows = new Int32Array(clusters).fill(-1);
  for (const [row, word] of partitions.entries()) {
    const { leaf, version: of } = leafOfRow(word);
    if (of === version && leaf < clusters) rows[leaf] = row;
  }
  return rows.includes(-1) ? undefined : rows;
}
