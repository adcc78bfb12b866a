/**
 * The edges that lead from other shards to vertices of this one, by the shard that they come from.
 *
 * Invariant: an edge is here as often as it was added and not removed. Removing a shard removes the edges that came *from* it, whatever
 * they lead to, and no others; removing a vertex those that lead to it. What is empty is not kept.
 * Cost: O(1) to add and remove an edge, O(edges removed) to remove a shard or, with a factor of its shards, a vertex. About 100 bytes an
 * edge: for edges that are inserted one by one. Those of a bulk load lie by peer in the adjacency, which can be dropped whole.
 */
import type { VertexKey } from "../vertex-key.ts";

/** Parallel edges from one vertex to another. */
export interface IncomingEdge {
  readonly sourceShard: number;
  readonly source: VertexKey;
  readonly target: VertexKey;
  /** How many, ≥ 1. */
  readonly count: number;
}

/** Target → source → number of edges. */
type Targets = Map<VertexKey, Map<VertexKey, number>>;

export class IncomingEdges {
  readonly #shards = new Map<number, Targets>();
  readonly #shardsOf = new Map<VertexKey, Set<number>>();
  #size = 0;

  /** Edges, parallel ones one by one. */
  get size(): number {
    return this.#size;
  }

  add(sourceShard: number, source: VertexKey, target: VertexKey): void {
    const targets = getOrMake<number, Targets>(this.#shards, sourceShard, () => new Map());
    const sources = getOrMake<VertexKey, Map<VertexKey, number>>(targets, target, () => new Map());
    sources.set(source, (sources.get(source) ?? 0) + 1);
    getOrMake<VertexKey, Set<number>>(this.#shardsOf, target, () => new Set()).add(sourceShard);
    this.#size++;
  }

  /** Removes one edge. @returns Whether there was one. */
  remove(sourceShard: number, source: VertexKey, target: VertexKey): boolean {
    const targets = this.#shards.get(sourceShard);
    const sources = targets?.get(target);
    const count = sources?.get(source);
    if (targets === undefined || sources === undefined || count === undefined) return false;
    this.#size--;
    if (count > 1) {
      sources.set(source, count - 1);
      return true;
    }
    sources.delete(source);
    if (sources.size === 0) this.#removePair(sourceShard, targets, target);
    return true;
  }

  /** Edges that lead to a vertex, parallel ones one by one. Cost: O(sources). */
  count(target: VertexKey): number {
    let count = 0;
    for (const shard of this.#shardsOf.get(target) ?? []) {
      for (const edges of this.#shards.get(shard)?.get(target)?.values() ?? []) count += edges;
    }
    return count;
  }

  /** Removes the edges that came from a shard. @returns these */
  removeShard(sourceShard: number): IncomingEdge[] {
    const targets = this.#shards.get(sourceShard);
    if (targets === undefined) return [];
    const removed: IncomingEdge[] = [];
    for (const [target, sources] of targets) {
      this.#collect(removed, sourceShard, target, sources);
      this.#removePair(sourceShard, targets, target);
    }
    return removed;
  }

  /** Removes the edges that lead to a vertex. @returns these: the shards that they come from are to be told */
  removeTarget(target: VertexKey): IncomingEdge[] {
    const removed: IncomingEdge[] = [];
    for (const shard of this.#shardsOf.get(target) ?? []) {
      const targets = this.#shards.get(shard) as Targets;
      this.#collect(removed, shard, target, targets.get(target) as Map<VertexKey, number>);
      this.#removePair(shard, targets, target);
    }
    return removed;
  }

  #collect(into: IncomingEdge[], sourceShard: number, target: VertexKey, sources: Map<VertexKey, number>): void {
    for (const [source, count] of sources) {
      into.push({ sourceShard, source, target, count });
      this.#size -= count;
    }
  }

  #removePair(shard: number, targets: Targets, target: VertexKey): void {
    targets.delete(target);
    if (targets.size === 0) this.#shards.delete(shard);
    const shards = this.#shardsOf.get(target);
    shards?.delete(shard);
    if (shards?.size === 0) this.#shardsOf.delete(target);
  }
}

function getOrMake<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
