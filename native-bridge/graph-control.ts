/**
 * What the graph kernels are told: the sizes of a graph, and the words of the control block at the start of a thread's scratch.
 *
 * Invariant: offsets equal those in kernels/graph-memory.as.ts; words that are named there and not here are the kernels' own.
 */

/** Sizes that follow from a shape. */
export interface GraphGeometry {
  readonly dimensions: number;
  readonly element: number;
  readonly metric: number;
  readonly degree: number;
  readonly chunkShift: number;
  /** Bytes from one vertex to the next. */
  readonly stride: number;
  /** Of the code inside a vertex. */
  readonly codeOffset: number;
  readonly codeBytes: number;
  readonly maxChunks: number;
}

/** How vertices are linked. */
export interface GraphInsertOptions {
  /** `ef` of the search for neighbours, in [1, 65536]. */
  readonly efConstruction: number;
  /** How much closer to a kept neighbour a candidate must be than to the vertex to be left out, at least 1. */
  readonly alpha: number;
  /** Name of this thread in locks; never 0. */
  readonly token: number;
  /** Byte offset of the word that names the tree's root. @default 0: no tree is kept */
  readonly treeRoot?: number;
}

/** What the module does with a control block. */
export interface GraphExports {
  inverseNorm(element: number, a: number, dimensions: number): number;
  distance(metric: number, element: number, a: number, b: number, dimensions: number): number;
  graphSearch(control: number): number;
  graphInsert(control: number, vertex: number): number;
  graphMove(control: number, vertex: number, copy: number): number;
  graphNearest(control: number, vertex: number): number;
  graphRepair(control: number, vertex: number): number;
  graphCheckChunks(control: number): number;
}

/** Words of the control block. */
export const WORD = {
  METRIC: 0,
  ELEMENT: 1,
  DIMENSIONS: 2,
  STRIDE: 3,
  CODE: 4,
  DEGREE: 5,
  CHUNK_SHIFT: 6,
  CHUNKS: 7,
  CHUNK_TABLE: 8,
  VISITED: 9,
  EPOCH: 10,
  QUERY: 11,
  QUERY_NORM: 12,
  WIDE: 13,
  ENTRIES: 14,
  ENTRY_COUNT: 15,
  EF: 16,
  LIMIT_DISTANCES: 17,
  FILTER: 18,
  FILTER_BITS: 19,
  RESULTS: 20,
  RESULT_COUNT: 21,
  ASIDE: 22,
  ASIDE_CAPACITY: 23,
  BATCH: 25,
  READS: 26,
  PARTITIONS: 27,
  DISTANCES: 28,
  EXPANSIONS: 29,
  DAMAGED: 30,
  DANGLING: 31,
  STOPPED: 32,
  ALPHA: 33,
  TOKEN: 34,
  LOCK_ATTEMPTS: 35,
  KEPT: 36,
  CANDIDATES: 37,
  CANDIDATE_CAPACITY: 38,
  SKIPPED_EDGES: 39,
  LISTS_PRUNED: 40,
  GROUP: 43,
  QUERY_ELEMENT: 44,
  TREE_ROOT: 45,
} as const;
