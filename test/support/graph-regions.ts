/**
 * The regions of a collection's graph, revoked and registered anew from outside: as when a worker is gone and its successor takes them over.
 *
 * Invariant: under the name of the shard that owns them only keys change, and the root names the new ones; what the chunks hold is the same under every
 * key, and may be anything while there is none.
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
  /** Codes that were overwritten, by their places. */
  readonly #codes: Map<number, Uint8Array> = new Map();

  /** @param randomU32 Source of the keys. */
  constructor(arena: Arena, root: RegionRef, shard: number, randomU32: () => number) {
    this.#root = GraphRoot.open(arena, new RegionTable(arena, shard, randomU32), root);
    this.#shard = shard;
  }

  /** Takes all their keys back. @param spoil Whether codes are overwritten then, as if the memory were somebody else's. @returns how many */
  revoke(spoil = false): number {
    let revoked = 0;
    for (let number = 0; number < this.#root.chunkCount; number++) {
      const chunk = this.#root.chunk(number);
      if (chunk?.partition !== this.#shard) continue;
      this.#root.regions.deregister(chunk);
      if (spoil) this.#spoil(chunk.address, chunk.length);
      revoked++;
    }
    return revoked;
  }

  /** Registers them under new keys, and tells everybody. */
  restore(): void {
    for (const [at, code] of this.#codes) this.#root.arena.bytes.set(code, at);
    this.#codes.clear();
    this.#root.adoptChunks(this.#shard, new Map());
  }

  #spoil(address: number, length: number): void {
    const { arena, geometry } = this.#root;
    const { stride, codeOffset, codeBytes } = geometry;
    for (let at = address + codeOffset; at < address + length; at += stride) {
      this.#codes.set(at, arena.bytes.slice(at, at + codeBytes));
      arena.bytes.fill(0, at, at + codeBytes);
    }
  }
}
