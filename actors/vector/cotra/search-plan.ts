/**
 * Who takes part in a collaborative search: the leader, the other primary shards, and who is given which entry vertex.
 *
 * Invariant: the leader is the shard with the most entries (the lowest number of equals), and is primary; a lost shard is neither. Every
 * primary gets all entries, so that all begin with the same bound; each expands those that it is responsible for.
 * Source: CoTra, the origin's part of a query.
 */
import type { Pairs } from "./message-bytes.ts";

/** Who searches. */
export interface SearchPlan {
  readonly leader: number;
  /** Leader first, the others ascending. */
  readonly primaries: readonly number[];
}

/**
 * Chooses leader and primaries.
 *
 * @param partitionOf The partition of a vertex; out of range entries count for nobody.
 * @param shards How many shards there are.
 * @param share A shard is primary with more than `share / shards` of the entries.
 * @returns Undefined when no living shard has an entry.
 */
export function planSearch(
  entries: Pairs,
  partitionOf: (vertex: number) => number,
  shards: number,
  share: number,
  lost: ReadonlySet<number>,
): SearchPlan | undefined {
  const counts = new Map<number, number>();
  let total = 0;
  for (const vertex of entries.vertices) {
    const partition = partitionOf(vertex);
    if (partition < 0 || lost.has(partition)) continue;
    counts.set(partition, (counts.get(partition) ?? 0) + 1);
    total++;
  }
  if (total === 0) return undefined;
  const ranked = [...counts].sort(([a, countA], [b, countB]) => countB - countA || a - b);
  const leader = (ranked[0] as [number, number])[0];
  const others = ranked.filter(([shard, count]) => shard !== leader && count * shards > share * total);
  return { leader, primaries: [leader, ...others.map(([shard]) => shard).sort((a, b) => a - b)] };
}
