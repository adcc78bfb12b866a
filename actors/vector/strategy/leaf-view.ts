/**
 * What a thread that searches knows of the leaves of a graph: the table that the root names, its router, and where searches for a leaf begin.
 *
 * Invariant: a view is used only when the root named its table just before; the centroids are the shared ones, read in place, and what a stale
 * read misguides costs recall or distances, never truth. One thread only: it shares its verbs and kernels.
 */
import { CELL_HEADER_BYTES, USER3 } from "../../../native-bridge/cell-layout.ts";
import type { ElementCode, MetricCode } from "../../../native-bridge/kernels.ts";
import type { RegionRef } from "../../../native-bridge/region-layout.ts";
import { STATUS } from "../../../native-bridge/status.ts";
import type { Verbs } from "../../../native-bridge/verbs.ts";
import {
  GRAPH_LEAVES,
  GRAPH_LEAVES_BYTES,
  GRAPH_LEAVES_READY,
  GRAPH_LEAVES_RKEY,
  GRAPH_LEAVES_VERSION,
  leafOfFlags,
  versionOfFlags,
} from "../../../src/store/graph-layout.ts";
import {
  calibrationOffset,
  centroidsOffset,
  LEAF_CALIBRATION_BYTES,
  LEAF_CODE_BYTES,
  LEAF_COUNT,
  LEAF_DIMENSIONS,
  LEAF_ELEMENT,
  LEAF_ENTRIES,
  LEAF_LABEL,
  LEAF_LAYOUT,
  LEAF_LAYOUT_WORD,
  LEAF_MAGIC,
  LEAF_MAGIC_WORD,
  LEAF_MEDOID,
  LEAF_METRIC,
  LEAF_VERSION,
  LEAF_VERTICES,
  LEAF_WORDS,
  leafTableBytes,
} from "../../../src/store/leaf-layout.ts";
import type { GraphView } from "../graph/graph-view.ts";
import { decodeCalibration } from "../routing/calibration-codec.ts";
import { type Code, type CodeHost, CodeTable } from "../routing/code-table.ts";
import { Compass } from "../routing/compass.ts";
import { TopList } from "../routing/top-list.ts";
import type { MutableRef } from "../shard-view.ts";

/** Words of the root that tell of the table. */
const FIRST = GRAPH_LEAVES;
const WORDS: number = GRAPH_LEAVES_READY - FIRST + 1;
/** Leaves whose medoids a search of the whole graph begins at, and what finding them may cost, as a multiple of the leaves' square root. */
export const ENTRY_LEAVES = 4;
export const ENTRY_COST = 3;
const READS = 4;
const NO_LANDMARKS: ReadonlyMap<number, readonly number[]> = new Map();

export class LeafView {
  readonly #host: CodeHost;
  readonly #verbs: Verbs;
  readonly #root: Int32Array = new Int32Array(WORDS + 1);
  readonly #rootBytes: Uint8Array = new Uint8Array(this.#root.buffer, 0, WORDS * 4);
  readonly #rootF64: Float64Array = new Float64Array(this.#root.buffer);
  readonly #nearest: TopList = new TopList(ENTRY_LEAVES);
  readonly #view: GraphView;
  readonly #ref: MutableRef = { address: 0, rkey: 0, length: 0 };
  #graph: RegionRef | undefined;
  #landmarks: ReadonlyMap<number, readonly number[]> = NO_LANDMARKS;
  /** What they were grouped of, and by which version of the leaves. */
  #grouped: readonly number[] = [];
  #groupedBy = 0;
  #table: RegionRef | undefined;
  #version = 0;
  #key = 0;
  #compass: Compass | undefined;

  /** @param view Of the same thread. */
  constructor(host: CodeHost, verbs: Verbs, view: GraphView) {
    this.#host = host;
    this.#verbs = verbs;
    this.#view = view;
  }

  /** Makes the view current. @returns the router; undefined while the leaves are not known, or their vertices are on their way to them. */
  router(root: RegionRef | undefined): Compass | undefined {
    this.#graph = root;
    for (let read = 0; root !== undefined && read < READS; read++) {
      const at = root.address + CELL_HEADER_BYTES + FIRST * 4;
      if (this.#verbs.readAt(at, root.rkey, WORDS * 4, this.#rootBytes, 0) !== STATUS.SUCCESS) return undefined;
      const version = this.#rootWord(GRAPH_LEAVES_VERSION);
      if (version === 0 || this.#rootWord(GRAPH_LEAVES_READY) !== version) return undefined;
      const rkey = this.#rootF64[(GRAPH_LEAVES_RKEY - FIRST) >>> 1] as number;
      if (version === this.#version && rkey === this.#key) return this.#compass;
      const address = this.#rootWord(GRAPH_LEAVES) >>> 0;
      if (this.#take({ address, rkey, length: this.#rootWord(GRAPH_LEAVES_BYTES) >>> 0 }, version))
        return this.#compass;
    }
    return undefined;
  }

  /** Vertices near a query where a search of the whole graph may begin; distances are added to `spent`. Empty: where it likes. */
  entries(root: RegionRef | undefined, code: Code, spent: { distances: number }): readonly number[] {
    const compass = this.router(root);
    if (compass === undefined) return [];
    const { ids, count } = this.nearest(compass, code, spent);
    return this.entriesOf(ids, count);
  }

  /** Leaves at whose medoids a search of the whole graph begins; distances are added to `spent`. Valid until the next call. */
  nearest(compass: Compass, code: Code, spent: { distances: number }): TopList {
    spent.distances += compass.nearestLeaves(code, this.#nearest, ENTRY_COST * Math.sqrt(compass.leaves));
    return this.#nearest;
  }

  /** The word that tells the medoid of a leaf, plus one, in the table of the router that was given last. */
  medoidRef(leaf: number): RegionRef | undefined {
    const table = this.#table;
    if (table === undefined) return undefined;
    const word = LEAF_ENTRIES + leaf * LEAF_WORDS + LEAF_MEDOID;
    return { address: table.address + CELL_HEADER_BYTES + word * 4, rkey: table.rkey, length: 4 };
  }

  /** Where searches for the first `count` leaves begin: at the medoids that they have now, and at their landmarks. */
  entriesOf(leaves: Int32Array, count: number): number[] {
    const landmarks = this.landmarks();
    const vertices: number[] = [];
    for (let at = 0; at < count; at++) {
      const leaf = leaves[at] as number;
      const ref = this.medoidRef(leaf);
      const medoid = ref === undefined ? 0 : this.#verbs.readWord(ref.address, ref.rkey) | 0;
      if (medoid > 0) vertices.push(medoid - 1);
      for (const vertex of landmarks.get(leaf) ?? []) vertices.push(vertex);
    }
    return vertices;
  }

  /** The graph's landmarks by leaf, in the table of the router that was given last. */
  landmarks(): ReadonlyMap<number, readonly number[]> {
    const view = this.#view;
    if (view.refresh(this.#graph) !== STATUS.SUCCESS) return NO_LANDMARKS;
    view.readLandmarks();
    if (view.landmarks === this.#grouped && this.#version === this.#groupedBy) return this.#landmarks;
    this.#grouped = view.landmarks;
    this.#groupedBy = this.#version;
    const byLeaf = new Map<number, number[]>();
    for (const vertex of view.landmarks) {
      if (!view.vertexRef(vertex, this.#ref)) continue;
      const flags = this.#host.arena.i32[(this.#ref.address >>> 2) + USER3] as number;
      if (versionOfFlags(flags) !== this.#version) continue;
      const leaf = leafOfFlags(flags);
      byLeaf.set(leaf, [...(byLeaf.get(leaf) ?? []), vertex]);
    }
    this.#landmarks = byLeaf;
    return byLeaf;
  }

  /** Gives private memory back. */
  close(): void {
    this.#compass?.close();
    this.#compass = undefined;
    this.#version = 0;
  }

  #rootWord(index: number): number {
    return this.#root[index - FIRST] as number;
  }

  /** Copies a table's small parts; its centroids stay where they are. False when it is not what the root says. */
  #take(table: RegionRef, version: number): boolean {
    const bytes = new Uint8Array(new ArrayBuffer(table.length));
    if (table.length < CELL_HEADER_BYTES + LEAF_ENTRIES * 4) return false;
    if (this.#verbs.read(table, bytes) !== STATUS.SUCCESS) return false;
    const words = new Int32Array(bytes.buffer, CELL_HEADER_BYTES);
    const word = (index: number): number => words[index] ?? 0;
    const leaves = word(LEAF_COUNT);
    const [codeBytes, calibrationBytes] = [word(LEAF_CODE_BYTES), word(LEAF_CALIBRATION_BYTES)];
    const known = word(LEAF_MAGIC_WORD) === LEAF_MAGIC && word(LEAF_LAYOUT_WORD) === LEAF_LAYOUT;
    if (!known || word(LEAF_VERSION) !== version || leaves < 1) return false;
    if (leafTableBytes(leaves, codeBytes, calibrationBytes) !== table.length) return false;
    const column = (of: number): Int32Array =>
      Int32Array.from({ length: leaves }, (_, leaf) => word(LEAF_ENTRIES + leaf * LEAF_WORDS + of));
    const labels = column(LEAF_LABEL);
    const space = {
      dimensions: word(LEAF_DIMENSIONS),
      metric: word(LEAF_METRIC) as MetricCode,
      element: word(LEAF_ELEMENT) as ElementCode,
    };
    const from = calibrationOffset(leaves, codeBytes);
    const calibration = decodeCalibration(bytes.subarray(from, from + calibrationBytes));
    this.close();
    const none = new Float32Array(leaves);
    this.#compass = new Compass(
      this.#host,
      {
        codes: new Uint8Array(0),
        counts: column(LEAF_VERTICES),
        radii: none,
        radii90: none,
        medoids: column(LEAF_MEDOID),
        partitions: labels,
        space,
        shardOf: labels,
        stamps: [...new Set(labels)].sort((a, b) => a - b).map((shard) => ({ shard, epoch: 0, version })),
      },
      { calibration, centroids: new CodeTable(this.#host, space, leaves, table.address + centroidsOffset(leaves)) },
    );
    this.#table = table;
    this.#version = version;
    this.#key = table.rkey;
    return true;
  }
}
