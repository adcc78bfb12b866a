/**
 * Which vertices of one label are in which leaf, kept by the shard that computes for them, whoever wrote them.
 *
 * Invariant: a list that is used was read since the last change of its chunk that was told before: a vertex is told of when it is linked, and its row
 * waits until then, so no document is missed on its way. Lists may name vertices that are gone: who reads them looks at each. Chunks are other
 * shards' memory: lists and what they name count only while {@link LeafMembers.intact}. One thread only.
 * Cost: a chunk that has changed is walked again, its headers alone.
 */
import { NEEDS_RMW_CHECK } from "../../../native-bridge/cell.ts";
import { USER0, USER3 } from "../../../native-bridge/cell-layout.ts";
import { RegionAccess } from "../../../native-bridge/region-access.ts";
import { STATUS } from "../../../native-bridge/status.ts";
import { leafOfFlags, VERTEX_FLAG, VERTEX_FLAG_BITS, versionOfFlags } from "../../../src/store/graph-layout.ts";
import { openChunk } from "./chunk-keys.ts";
import type { GraphChunk, GraphRoot } from "./graph-root.ts";

interface ChunkMembers {
  readonly changes: number;
  readonly version: number;
  readonly rkey: number;
  /** Vertices by leaf. */
  readonly byLeaf: ReadonlyMap<number, readonly number[]>;
}

export class LeafMembers {
  readonly #root: GraphRoot;
  readonly #label: number;
  readonly #access: RegionAccess;
  readonly #chunks: Map<number, ChunkMembers> = new Map();
  #open: readonly GraphChunk[] = [];

  constructor(root: GraphRoot, label: number) {
    this.#root = root;
    this.#label = label;
    this.#access = new RegionAccess(root.arena, NEEDS_RMW_CHECK);
  }

  /** Takes the label's chunks as they are now, for what is asked next. False when one of them cannot be read now. */
  open(): boolean {
    const chunks: GraphChunk[] = [];
    this.#open = [];
    for (let number = 0; number < this.#root.chunkCount; number++) {
      const chunk = this.#root.chunk(number);
      if (chunk === undefined || chunk.label !== this.#label) this.#chunks.delete(number);
      else if (openChunk(this.#access, chunk) !== STATUS.SUCCESS) return false;
      else chunks.push(chunk);
    }
    this.#open = chunks;
    return true;
  }

  /** Whether all of them could be read ever since. */
  get intact(): boolean {
    return this.#open.every(({ rkey }) => this.#access.checkKey(rkey) === STATUS.SUCCESS);
  }

  /** Vertices of a leaf of that version of the table, in the chunks that were opened. */
  of(leaf: number, version: number): number[] {
    const vertices: number[] = [];
    for (const { byLeaf } of this.#current(version)) for (const vertex of byLeaf.get(leaf) ?? []) vertices.push(vertex);
    return vertices;
  }

  /** Vertices of all the label's leaves. */
  all(version: number): Map<number, number[]> {
    const leaves = new Map<number, number[]>();
    for (const { byLeaf } of this.#current(version)) {
      for (const [leaf, vertices] of byLeaf) {
        const list = leaves.get(leaf);
        if (list === undefined) leaves.set(leaf, [...vertices]);
        else for (const vertex of vertices) list.push(vertex);
      }
    }
    return leaves;
  }

  #current(version: number): ChunkMembers[] {
    const current: ChunkMembers[] = [];
    for (const { number, address, rkey } of this.#open) {
      const changes = this.#root.changesOf(number); // before the walk: what changes during it is walked again
      let known = this.#chunks.get(number);
      if (known?.changes !== changes || known.version !== version || known.rkey !== rkey) {
        known = { changes, version, rkey, byLeaf: this.#walk(number, address, version) };
        this.#chunks.set(number, known);
      }
      current.push(known);
    }
    return current;
  }

  #walk(number: number, address: number, version: number): Map<number, number[]> {
    const { chunkShift, stride } = this.#root.geometry;
    const { i32 } = this.#root.arena;
    const byLeaf = new Map<number, number[]>();
    for (let slot = 0; slot < 1 << chunkShift; slot++) {
      const word = (address + slot * stride) >>> 2;
      const flags = i32[word + USER3] as number;
      if (i32[word + USER0] === 0 || (flags & VERTEX_FLAG_BITS) !== VERTEX_FLAG.LINKED) continue;
      if (versionOfFlags(flags) !== version) continue;
      const leaf = leafOfFlags(flags);
      const list = byLeaf.get(leaf);
      if (list === undefined) byLeaf.set(leaf, [(number << chunkShift) | slot]);
      else list.push((number << chunkShift) | slot);
    }
    return byLeaf;
  }
}
