/**
 * What the graph kernels are told: the sizes of a graph, how to search and to link, and the words of the control block at the start of a thread's scratch.
 *
 * Invariant: offsets equal those in kernels/graph-memory.as.ts; words that are named there and not here are the kernels' own.
 */
import type { ELEMENT, METRIC } from "./kernels.ts";

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

/** A vertex whose distance from a query is known. */
export interface KnownVertex {
  readonly vertex: number;
  readonly distance: number;
}

/** What a search may be told besides its query. */
export interface GraphSearchOptions {
  /** Results to keep while searching, in [1, 65536]: more find more. */
  readonly ef: number;
  /**
   * Byte offset of a bitmap of u32 words over vertex ids; others are passed through but are no results. 0 admits all. Few
   * that are admitted make a search go far: give it a budget. @default 0
   */
  readonly filter?: number;
  /** Bits of the bitmap; ids at or above are not admitted. @default 0 */
  readonly filterBits?: number;
  /** No vertex is expanded once so many distances were computed; 0 = no limit. @default 0 */
  readonly limitDistances?: number;
  /** What the kernels take a vertex' code and the query's for, when the query is of another type. @default the graph's element */
  readonly searchElement?: number;
  /** Whether vertex reads are counted by partition. @default false */
  readonly countReads?: boolean;
  /** Results that another search has found and looked on from, nearest first; of more than `ef` the nearest. They need not lead anywhere here. @default none */
  readonly known?: readonly KnownVertex[];
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
  TOUCHED: 46,
  KNOWN: 47,
} as const;

/** Codes are loaded in groups of about so many bytes before they are scored: what the first cache holds beside the rest. */
const GROUP_BYTES = 8192;
/** Of a longer code whose sum stops early half is loaded so, at least this much: the rest comes as it is read, or is not read at all. */
const LEAST_LOADED_BYTES = 1024;

/** Writes how much of codes is loaded before they are scored, into the control block that begins at a word. */
export function writeLoads({ metric, element, codeBytes }: GraphGeometry, i32: Int32Array, word: number): void {
  const l2: (typeof METRIC)["L2"] = 0;
  const signedBytes: (typeof ELEMENT)["I8"] = 3;
  const stopsEarly = metric === l2 && element < signedBytes;
  const loaded = stopsEarly ? Math.min(codeBytes, Math.max(LEAST_LOADED_BYTES, codeBytes >> 1)) : codeBytes;
  i32[word + WORD.TOUCHED] = loaded;
  i32[word + WORD.GROUP] = Math.max(1, Math.floor(GROUP_BYTES / loaded));
}
