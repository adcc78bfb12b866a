/**
 * Reads leaves whole, near the data: the nearest of the vectors in some leaves of one label, by their codes.
 *
 * Invariant: as of a search of the graph: candidates are not hits, and a vertex that goes meanwhile is none or is found gone by who reads its row.
 * Candidates are given only when all chunks of the label could be read from before the first of them was until after the last.
 * One thread only. Its scratch belongs to the writer's entry of the root (graph-scratch.ts).
 */
import { USER0, USER1, USER2, USER3 } from "../../../native-bridge/cell-layout.ts";
import { type KernelArena, type Kernels, METRIC } from "../../../native-bridge/kernels.ts";
import { VERTEX_FLAG } from "../../../src/store/graph-layout.ts";
import type { GraphRoot } from "./graph-root.ts";
import type { Candidate } from "./label-search.ts";
import type { LeafMembers } from "./leaf-members.ts";

const OWNER = 0;
/** Scans while chunks change hands. */
const ATTEMPTS = 4;

export class LeafScan {
  /** Distances that the last scan computed. */
  distances = 0;
  readonly #root: GraphRoot;
  readonly #kernels: Kernels;
  readonly #members: LeafMembers;
  readonly #scratch: KernelArena;
  #at = 0;
  #room = 0;

  constructor(root: GraphRoot, kernels: Kernels, members: LeafMembers, scratch: KernelArena) {
    this.#root = root;
    this.#kernels = kernels;
    this.#members = members;
    this.#scratch = scratch;
  }

  /**
   * @returns at most `wanted` candidates, nearest first; undefined when a chunk of the label cannot be read now
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY`.
   */
  run(code: Uint8Array, leaves: ArrayLike<number>, version: number, wanted: number): Candidate[] | undefined {
    this.distances = 0;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (!this.#members.open()) continue;
      const candidates = this.#scan(code, leaves, version, wanted);
      if (this.#members.intact) return candidates;
    }
    return undefined;
  }

  /** Gives the scratch range back. */
  close(): void {
    if (this.#room > 0) this.#scratch.freeScratch?.(OWNER);
    this.#room = 0;
  }

  #scan(code: Uint8Array, leaves: ArrayLike<number>, version: number, wanted: number): Candidate[] {
    const vertices = Array.from(leaves)
      .flatMap((leaf) => this.#members.of(leaf, version))
      .filter((vertex) => this.#recordOf(vertex) !== 0);
    const records = vertices.map((vertex) => this.#recordOf(vertex));
    this.distances = records.length;
    const { arena, geometry } = this.#root;
    const { metric, element, dimensions, codeOffset, codeBytes } = geometry;
    const query = this.#reserve(codeBytes, records.length);
    arena.bytes.set(code, query);
    const list = query + padded(codeBytes);
    const out = list + padded(4 * records.length);
    arena.u32.set(records, list >>> 2);
    const norm = metric === METRIC.COSINE ? this.#kernels.inverseNorm(element, query, dimensions) : 0;
    this.#kernels.distancesAt(metric, element, dimensions, query, norm, codeOffset, list, records.length, out);
    const distances = arena.f64.slice(out >>> 3, (out >>> 3) + records.length);
    const order = Int32Array.from(records.keys()).sort(
      (a, b) =>
        (distances[a] as number) - (distances[b] as number) || (vertices[a] as number) - (vertices[b] as number),
    );
    const candidates: Candidate[] = [];
    for (const at of order) {
      if (candidates.length === wanted) break;
      const word = (records[at] as number) >>> 2;
      const address = arena.u32[word + USER0] as number;
      const flags = arena.i32[word + USER3] as number;
      if (address === 0 || (flags & VERTEX_FLAG.TOMBSTONE) !== 0) continue;
      const [incarnation, shard] = [arena.i32[word + USER1] as number, arena.i32[word + USER2] as number];
      candidates.push({
        vertex: vertices[at] as number,
        address,
        incarnation,
        shard,
        distance: distances[at] as number,
      });
    }
    return candidates;
  }

  #reserve(codeBytes: number, count: number): number {
    const bytes = padded(codeBytes) + padded(4 * count) + 8 * count;
    if (bytes > this.#room) {
      const room = Math.max(bytes, 2 * this.#room);
      this.#at = this.#scratch.allocateScratch?.(OWNER, room) as number; // when this throws, the old range stays
      this.#room = room;
    }
    return this.#at;
  }

  #recordOf(vertex: number): number {
    const { chunkShift, stride } = this.#root.geometry;
    const address = this.#root.chunk(vertex >>> chunkShift)?.address;
    return address === undefined ? 0 : address + (vertex & ((1 << chunkShift) - 1)) * stride;
  }
}

function padded(bytes: number): number {
  return (bytes + 15) & ~15;
}
