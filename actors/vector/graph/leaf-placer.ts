/**
 * Tells where a vector is to be placed, by the leaf table that the root names, and keeps the table's hints: vertices and medoid of each leaf.
 *
 * Invariant: a place always names the version of the table that it is from; hints may be wrong for a moment, and lead to a vertex of the leaf's
 * neighbourhood, never to where there is none. One thread only, that of the shard whose vertices are placed.
 */
import { USER3 } from "../../../native-bridge/cell-layout.ts";
import {
  GRAPH_LEAVES_VERSION,
  leafOfFlags,
  VERTEX_DEGREE,
  VERTEX_NEIGHBOURS,
  versionOfFlags,
} from "../../../src/store/graph-layout.ts";
import { type CentroidGroups, CentroidRouter, groupCentroids } from "../routing/centroid-router.ts";
import type { Code, CodeHost } from "../routing/code-table.ts";
import type { Steps } from "../routing/steps.ts";
import { TopList } from "../routing/top-list.ts";
import { ENTRY_COST, ENTRY_LEAVES } from "../strategy/leaf-view.ts";
import type { VertexPlace } from "./graph-partition.ts";
import type { GraphRoot } from "./graph-root.ts";
import { LeafTable } from "./leaf-table.ts";
import { isLiveRecord } from "./vertex-record.ts";

type Grouping = Steps<CentroidGroups | undefined>;

export class LeafPlacer {
  readonly #root: GraphRoot;
  readonly #host: CodeHost;
  readonly #nearest: TopList = new TopList(1);
  readonly #entries: TopList = new TopList(ENTRY_LEAVES);
  #table: LeafTable | undefined;
  #router: CentroidRouter | undefined;
  /** While the table's centroids are grouped, so that they can be looked up. */
  #grouping: Grouping | undefined;

  constructor(root: GraphRoot, host: CodeHost) {
    this.#root = root;
    this.#host = host;
  }

  /** The table that is there now. */
  get table(): LeafTable | undefined {
    const version = this.#root.get(GRAPH_LEAVES_VERSION);
    if (version !== 0 && version !== this.#table?.version) {
      this.close();
      this.#table = LeafTable.open(this.#root, this.#host);
      if (this.#table !== undefined) this.#grouping = groupCentroids(this.#host, this.#table.centroids);
    }
    return version === 0 ? undefined : this.#table;
  }

  /**
   * One slice of what has to be done before places of the table that there is now are known.
   *
   * @returns Whether more is left.
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY`: it is begun anew by the next call.
   */
  prepare(untilMs: number, nowMs: () => number): boolean {
    const { table } = this;
    while (table !== undefined && this.#grouping !== undefined) {
      const { done, value } = this.#step(this.#grouping, table);
      if (done === true) {
        this.#router = new CentroidRouter(this.#host, table.centroids, value);
        this.#grouping = undefined;
      } else if (nowMs() >= untilMs) return true;
    }
    return false;
  }

  /** Where a vector is to be; undefined: the leaves are not known, or not ready to be looked up. */
  placeOf(code: Code): VertexPlace | undefined {
    const { table } = this;
    if (table === undefined || this.#router === undefined) return undefined;
    this.#router.nearest(code, this.#nearest);
    const leaf = this.#nearest.ids[0] as number;
    return { label: table.label(leaf), leaf, version: table.version };
  }

  /**
   * The leaves near a query with their medoids (-1: none now), where a search of the whole graph may begin, in which version of the leaves, and what
   * finding them cost; undefined while leaves cannot be looked up.
   */
  medoidsNear(code: Code):
    | {
        readonly leaves: readonly number[];
        readonly vertices: readonly number[];
        readonly version: number;
        readonly computed: number;
      }
    | undefined {
    const { table } = this;
    if (table === undefined || this.#router === undefined) return undefined;
    const computed = this.#router.nearest(code, this.#entries, ENTRY_COST * Math.sqrt(table.count));
    const leaves = Array.from(this.#entries.ids.subarray(0, this.#entries.count));
    return { leaves, vertices: leaves.map((leaf) => table.medoid(leaf)), version: table.version, computed };
  }

  /** After a vertex was linked at the place that was asked for last. */
  arrived(vertex: number, { leaf, version }: VertexPlace): void {
    if (this.#table?.version !== version) return;
    this.#table.tally(leaf, 1);
    this.#table.offerMedoid(leaf, vertex, this.#nearest.distances[0] as number);
  }

  /** Before a vertex is deleted. */
  leaves(vertex: number, { leaf, version }: VertexPlace): void {
    const { table } = this;
    if (version === 0 || table?.version !== version) return;
    table.tally(leaf, -1);
    if (table.medoid(leaf) === vertex) table.replaceMedoid(leaf, vertex, this.#neighbourIn(vertex, leaf, version));
  }

  /** Gives private memory back. */
  close(): void {
    this.#grouping?.return(undefined);
    this.#grouping = undefined;
    this.#router?.close();
    this.#router = undefined;
    this.#table = undefined;
  }

  /** Steps that failed have ended: they are begun anew the next time, when there may be room. */
  #step(grouping: Grouping, { centroids }: LeafTable): ReturnType<Grouping["next"]> {
    try {
      return grouping.next();
    } catch (error) {
      this.#grouping = groupCentroids(this.#host, centroids);
      throw error;
    }
  }

  /** A live neighbour of a vertex in the same leaf, or −1. */
  #neighbourIn(vertex: number, leaf: number, version: number): number {
    const { i32 } = this.#root.arena;
    const record = this.#recordOf(vertex);
    const degree = Math.min(this.#root.geometry.degree, i32[(record + VERTEX_DEGREE) >>> 2] as number);
    for (let at = 0; at < degree; at++) {
      const neighbour = i32[((record + VERTEX_NEIGHBOURS) >>> 2) + at] as number;
      const other = this.#recordOf(neighbour);
      if (other === 0 || !isLiveRecord(this.#root.arena, other)) continue;
      const flags = i32[(other >>> 2) + USER3] as number;
      if (leafOfFlags(flags) === leaf && versionOfFlags(flags) === version) return neighbour;
    }
    return -1;
  }

  #recordOf(vertex: number): number {
    const { geometry } = this.#root;
    const { chunkShift, stride } = geometry;
    if (vertex < 0 || vertex >>> chunkShift >= this.#root.chunkCount) return 0;
    const chunk = this.#root.chunk(vertex >>> chunkShift);
    return chunk === undefined ? 0 : chunk.address + (vertex & ((1 << chunkShift) - 1)) * stride;
  }
}
