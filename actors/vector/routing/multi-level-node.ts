/**
 * The node's side of a multi-level search: reads the members of the clusters asked for, near the data, and answers with its best.
 *
 * Invariant: an answer names every cluster that was asked for and is not held here; a vector that stands in several of the
 * clusters is read once. Requests and answers are plain data.
 */
import { invalidArgument } from "../../../src/errors.ts";
import type { Code, CodeTable } from "./code-table.ts";
import type { ClusterLevel, MultiLevelIndex } from "./multi-level-index.ts";
import { TopList } from "./top-list.ts";

/** What one node is asked in one round. */
export interface RoundRequest {
  /** Number of the request in its search. */
  readonly sequence: number;
  readonly node: number;
  readonly level: number;
  readonly clusters: Int32Array;
  readonly query: Code;
  /** Members wanted at most, the nearest. */
  readonly limit: number;
}

export interface RoundAnswer {
  readonly sequence: number;
  readonly node: number;
  /** Members by distance, then number. */
  readonly ids: Int32Array;
  readonly distances: Float64Array;
  /** Codes that were read. */
  readonly read: number;
  /** Clusters that this node does not hold. */
  readonly absent: Int32Array;
}

const MOST_LIMIT = 1 << 16;

/** @param vectors The members of level 0, by their numbers. */
export function serveRound(index: MultiLevelIndex, vectors: CodeTable, request: RoundRequest): RoundAnswer {
  const { sequence, node, clusters, limit } = request;
  const level = index.levels[request.level];
  if (level === undefined)
    throw invalidArgument("read clusters", "level", `below ${index.levels.length}`, request.level);
  if (!Number.isInteger(limit) || limit < 1 || limit > MOST_LIMIT)
    throw invalidArgument("read clusters", "limit", `an integer in [1, ${MOST_LIMIT}]`, limit);
  const codes = index.levels[request.level - 1]?.centroids ?? vectors;
  const top = new TopList(limit);
  const seen = new Set<number>();
  const absent: number[] = [];
  codes.begin(request.query, index.metric);
  for (const cluster of clusters) {
    if (!holds(level, cluster, node)) {
      absent.push(cluster);
      continue;
    }
    const end = level.starts[cluster + 1] as number;
    for (let at = level.starts[cluster] as number; at < end; at++) {
      const member = level.members[at] as number;
      if (seen.has(member)) continue;
      seen.add(member);
      top.offer(member, codes.score(member));
    }
  }
  return {
    sequence,
    node,
    ids: top.ids.slice(0, top.count),
    distances: top.distances.slice(0, top.count),
    read: seen.size,
    absent: Int32Array.from(absent),
  };
}

function holds(level: ClusterLevel, cluster: number, node: number): boolean {
  return level.nodeOf[cluster] === node || level.secondOf[cluster] === node;
}
