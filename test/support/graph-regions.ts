/**
 * The regions of a collection's graph, revoked and registered anew from outside: as when a worker is gone and its successor takes them over.
 *
 * Invariant: only keys change, under the name of the shard that owns them; what the chunks hold stays, and the root names the new keys.
 */
import { GraphRoot } from "../../actors/vector/graph/graph-root.ts";
import { ONE_SIDED } from "../../actors/vector/strategy/vector-strategy.ts";
import type { Arena } from "../../native-bridge/arena.ts";
import { type RegionRef, RegionTable } from "../../native-bridge/region-table.ts";
import type { VectorCollection } from "../../src/index.ts";

/** The root of a collection's graph. */
export function graphRootOf(docs: VectorCollection): RegionRef {
  const { graph } = docs.reader().halves(new Float32Array(docs.options.dimensions), 1, {}, ONE_SIDED);
  if (graph === undefined) throw new Error(`collection ${docs.name} has no graph`);
  return graph;
}

/** The chunks that one shard has in a graph. */
export class GraphRegions {
  readonly #root: GraphRoot;
  readonly #shard: number;

  /** @param randomU32 Source of the keys. */
  constructor(arena: Arena, root: RegionRef, shard: number, randomU32: () => number) {
    this.#root = GraphRoot.open(arena, new RegionTable(arena, shard, randomU32), root);
    this.#shard = shard;
  }

  /** Takes all their keys back. @returns how many */
  revoke(): number {
    let revoked = 0;
    for (let number = 0; number < this.#root.chunkCount; number++) {
      const chunk = this.#root.chunk(number);
      if (chunk?.partition !== this.#shard) continue;
      this.#root.regions.deregister(chunk);
      revoked++;
    }
    return revoked;
  }

  /** Registers them under new keys, and tells everybody. */
  restore(): void {
    this.#root.adoptChunks(this.#shard, new Map());
  }
}
