/**
 * Links vertices into a graph and mends their lists: one thread's hand, of any number at once.
 *
 * Invariant: between the two stores of its `active` word the chunks that the kernels know are those of the root, so that memory which
 * left the root is not written to once its owner saw this writer outside. Locks are taken under a token of this writer alone.
 * Source: the flag is a hazard of one bit, as in quiescent-state reclamation (McKenney & Slingwine, PDCS 1998).
 */
import { type GraphInsertOptions, GraphKernels } from "../../../native-bridge/graph-kernels.ts";
import type { KernelArena } from "../../../native-bridge/kernels.ts";
import { STATUS, statusName } from "../../../native-bridge/status.ts";
import type { Verbs } from "../../../native-bridge/verbs.ts";
import { invalidArgument, ShardloomError } from "../../../src/errors.ts";
import { GRAPH_STRUCTURE, GRAPH_TREE_ROOT, WRITER_ACTIVE, WRITER_TOKEN } from "../../../src/store/graph-layout.ts";
import type { GraphRoot } from "./graph-root.ts";
import { writerArena } from "./graph-scratch.ts";
import { GraphView } from "./graph-view.ts";
import { Landmarks, replaceLandmark } from "./landmarks.ts";

/** How to link. */
export interface GraphWriterOptions {
  /** Vertices kept while the neighbours of a new one are searched, in [1, 65536]: more give a better graph, slower. @default 128 */
  readonly efConstruction?: number;
  /** A candidate is left out when a kept neighbour is `alpha` times closer to it than the vertex, at least 1. @default 1.2 */
  readonly alpha?: number;
  /** Where the search for neighbours begins. @default the partitions' entry vertices */
  readonly entries?: () => readonly number[];
}

export const DEFAULT_EF_CONSTRUCTION = 128;
export const DEFAULT_ALPHA = 1.2;
/** Refreshes of the table of chunks before an insertion gives up. */
const ATTEMPTS = 16;

export class GraphWriter {
  readonly root: GraphRoot;
  readonly #kernels: GraphKernels;
  readonly #view: GraphView;
  readonly #owner: number;
  readonly #entry: number;
  readonly #options: Required<GraphInsertOptions>;
  readonly #entries: (() => readonly number[]) | undefined;
  readonly #landmarks: Landmarks;
  #generation = -1;
  #structure = -1;

  /**
   * @param owner Number of this thread, unique among live ones.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`, `ERR_OVERLOADED`, `ERR_OUT_OF_MEMORY`.
   */
  constructor(
    root: GraphRoot,
    module: WebAssembly.Module,
    verbs: Verbs,
    owner: number,
    options: GraphWriterOptions = {},
  ) {
    const { efConstruction = DEFAULT_EF_CONSTRUCTION, alpha = DEFAULT_ALPHA } = options;
    if (!(alpha >= 1) || alpha > 10) throw invalidArgument("open graph writer", "alpha", "a number in [1, 10]", alpha);
    this.root = root;
    this.#owner = owner;
    this.#entries = options.entries;
    this.#landmarks = new Landmarks(root);
    this.#view = new GraphView(root.arena, verbs);
    this.#entry = root.openWriter(owner);
    this.#kernels = new GraphKernels(module, writerArena(root, this.#entry, "LINK"), root.geometry, owner);
    const treeRoot = root.wordOf(GRAPH_TREE_ROOT) * 4;
    this.#options = { efConstruction, alpha, token: root.get(this.#entry + WRITER_TOKEN), treeRoot };
  }

  /** Distances computed by the last insertion's search. */
  get distances(): number {
    return this.#kernels.distances;
  }

  /** Edges back that were left out since their vertex was locked, of all insertions so far. */
  get skippedEdges(): number {
    return this.#kernels.skippedEdges;
  }

  /**
   * Links a vertex that its partition has taken, from its code to where its neighbours are. Linking again replaces its list, with the edges that others added to it.
   *
   * @returns Whether it was linked; false when its lock could not be had, or none of a parent's, or its chunk is gone: insert it later.
   * @throws {ShardloomError} `ERR_REGION_ACCESS` when a chunk waits for its next owner: insert it later.
   */
  insert(vertex: number): boolean {
    if (this.#inside(() => this.#kernels.insert(vertex, this.#options)) < 0) return false;
    this.#landmarks.linked(vertex, this.#kernels.nearestDistance);
    return true;
  }

  /**
   * Gives the list of a vertex to a copy of it, taken and whole, that nobody knows of yet; who comes to the vertex is led on to the copy.
   *
   * @returns Whether it was done; false when a lock could not be had.
   * @throws {ShardloomError} As {@link insert}.
   */
  move(vertex: number, copy: number): boolean {
    return this.#inside(() => this.#kernels.move(vertex, copy, this.#options));
  }

  /** Before a vertex is deleted: if it is a landmark, what is nearest to it is one instead, or the copy that it was moved to. */
  retire(vertex: number): void {
    replaceLandmark(this.root, vertex, () => this.#inside(() => this.#kernels.nearestNeighbour(vertex)));
  }

  /** Mends the list of a vertex. 1: changed, 0: nothing to do, −1: its lock could not be had. */
  repair(vertex: number): number {
    return this.#inside(() => this.#kernels.repair(vertex, this.#options));
  }

  /** Kernels for searches of this thread, whose scratch goes to its successor with the writer's name. */
  searchKernels(module: WebAssembly.Module): GraphKernels {
    const { root } = this;
    return new GraphKernels(module, writerArena(root, this.#entry, "SEARCH"), root.geometry, this.#owner);
  }

  /** Scratch for scans of this thread, likewise. */
  scanArena(): KernelArena {
    return writerArena(this.root, this.#entry, "SCAN");
  }

  /** Gives the name and the scratch range back. */
  close(): void {
    this.#kernels.close();
    this.root.closeWriter(this.#owner);
  }

  #inside<T>(act: () => T): T {
    const { root } = this;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      if (!root.live) throw new ShardloomError("ERR_CLOSED", "Cannot link vertex as its graph was dropped");
      root.set(this.#entry + WRITER_ACTIVE, 1); // before the structure is looked at; who frees does it the other way round
      try {
        if (root.get(GRAPH_STRUCTURE) === this.#structure) {
          this.#setEntries();
          return act();
        }
      } finally {
        root.set(this.#entry + WRITER_ACTIVE, 0);
      }
      this.#refresh();
    }
    throw new ShardloomError("ERR_UNAVAILABLE", "Cannot link vertex as the chunks of its graph keep changing");
  }

  #refresh(): void {
    const structure = this.root.get(GRAPH_STRUCTURE);
    this.#view.forget();
    const status = this.#view.refresh(this.root.ref);
    if (status !== STATUS.SUCCESS) {
      throw new ShardloomError(
        "ERR_REGION_ACCESS",
        `Cannot link vertex as its graph must be readable: status is ${statusName(status)}`,
        {
          details: { status: statusName(status), partition: this.#view.lostPartition },
          retryable: true,
        },
      );
    }
    if (this.#view.generation !== this.#generation) {
      this.#kernels.setChunks(this.#view.chunks, this.#view.partitions);
      this.#generation = this.#view.generation;
    }
    this.#structure = structure;
  }

  #setEntries(): void {
    this.#kernels.setEntries(this.#entries?.() ?? this.#view.readEntries());
  }
}
