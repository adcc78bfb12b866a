/**
 * Layout of a graph over the vectors of a collection: one root a node, and chunks of vertices that belong to partitions. A partition is what one
 * shard has written, the vertices of its documents. Each chunk has a label, the shard that computes for its vertices, whoever wrote them.
 * ```
 *  root         one cell, registered: header | words below | partitions | writers | landmarks | chunk table
 *  partition    i32 passes begun | i32 passes ended, of repair over its vertices | i32 vertices that are taken and not deleted |
 *               i32 deleted and not free yet | i32 entry vertex + 1 (0 = none), 12 times |
 *               i32 version of the leaf table by which all are placed (0 = none) | (3 unused)
 *  writer       i32 owner + 1 (0 = free) | i32 token (0 = none): the name under which that thread takes locks | i32 1 while it
 *               is inside an insertion | (1 unused) | scratch: u32 address, u32 bytes, three times
 *  landmark     i32 vertex + 1 (0 = none) | f32 distance of what was nearest to it when it was linked
 *  chunk entry  u32 address (0 = none) | u32 label, partition << 16 | f64 rkey | i32 grows with every vertex linked or freed | (1 unused)
 *  chunk        2^chunkShift vertices, one registered region with cells of `stride`
 *
 *  vertex       0               4              8             12         16            20      24      28
 *              +---------------+--------------+-------------+----------+-------------+-------+-------+--------------+
 *              |  version low  | version high | incarnation | document | document    | shard | flags | inverse norm |
 *              |               |              |             | address  | incarnation |       |       | or version   |
 *              +---------------+--------------+-------------+----------+-------------+-------+-------+--------------+
 *           32 |  degree  |  neighbours, int32[R]  |  lock  |  zeros to a multiple of 8
 *                |  tree word: parent + 1, rank (int32)  |  zeros to a multiple of 16
 *   codeOffset |  code, `codeBytes` bytes  |  zeros to a multiple of 16
 * ```
 * A vertex id is `chunk << chunkShift | slot`, a non-negative int32. Chunks are numbered over all partitions. Inverse norm: for cosine; else the low word
 * of the document's version whose vector the code is (0 = not told). Header and code change under the cell's version, by the partition's owner alone;
 * document address 0 means free. Flags: byte 0 bits of VERTEX_FLAG, bytes 1 and 2 the vertex's leaf, byte 3 the version of the leaf table that has
 * it (0 = none). Degree and neighbours are int32 words, changed by whoever holds the lock (the token of its writer; 0 = nobody), read by all
 * at any time: a reader cuts the degree at R and skips ids that lead nowhere. The root's words change one by one, atomically: an entry's
 * key and partition before its address, `structure` after. A number without a chunk is what a death in between leaves.
 */
import { CELL_HEADER_BYTES } from "../../native-bridge/cell-layout.ts";
import type { GraphGeometry } from "../../native-bridge/graph-control.ts";
import { ELEMENT } from "../../native-bridge/kernels.ts";
import { invalidArgument } from "../errors.ts";

export type { GraphGeometry } from "../../native-bridge/graph-control.ts";

export const GRAPH_MAGIC = 0x50_52_47_53; // "SGRP"
export const GRAPH_VERSION = 4;

// Words of the root's payload. Those marked * change after the root was published.
export const GRAPH_MAGIC_WORD = 0; // * 0 once the graph was dropped
export const GRAPH_VERSION_WORD = 1;
export const GRAPH_STRUCTURE = 2; // * grows with every change of the chunk table
export const GRAPH_COLLECTION = 3;
export const GRAPH_DIMENSIONS = 4;
export const GRAPH_ELEMENT = 5;
export const GRAPH_METRIC = 6;
export const GRAPH_DEGREE = 7;
export const GRAPH_CHUNK_SHIFT = 8;
export const GRAPH_STRIDE = 9;
export const GRAPH_CODE_OFFSET = 10;
export const GRAPH_CODE_BYTES = 11;
export const GRAPH_MAX_CHUNKS = 12;
export const GRAPH_CHUNKS = 13; // * numbers given out so far
export const GRAPH_TOKENS = 14; // * tokens given out so far
export const GRAPH_LEAVES = 16; // * address of the leaf table (leaf-layout.ts)
export const GRAPH_LEAVES_BYTES = 17; // *
export const GRAPH_LEAVES_RKEY = 18; // * an f64 in two words
export const GRAPH_LEAVES_HOLDER = 20; // * shard that registered it
export const GRAPH_LEAVES_VERSION = 21; // * in [1, 255], of the table that is there; 0 = none
export const GRAPH_LEAVES_TAKEN = 22; // * versions given out so far
export const GRAPH_LEAVES_OLD = 23; // * address of the newest table that was replaced, 0 = none; its memory is freed with the graph
export const GRAPH_LEAVES_READY = 24; // * the version by which the vertices of all partitions are placed, and led to where they are
export const GRAPH_TREE_ROOT = 25; // * the root of the tree: vertex + 1, 0 = none
export const GRAPH_LANDMARK_CHANGES = 26; // * grows with every change of a landmark
export const GRAPH_USUAL = 27; // * f32: how far from its nearest a vertex was linked lately, in the middle
export const GRAPH_PARTITIONS = 32;
/** Partitions of a graph: the shards of its node. */
export const MAX_PARTITIONS = 256;
export const PARTITION_WORDS = 20;
export const PASSES_BEGUN = 0;
export const PASSES_ENDED = 1;
export const PARTITION_LIVE = 2;
export const PARTITION_DELETED = 3;
export const PARTITION_ENTRIES = 4;
export const PARTITION_PLACED = 16; // the version by which its vertices are placed; minus that: some could not be
export const PARTITION_MENDED = 17; // the version by which all were placed when its lists were mended
/** Vertices of a partition where searches may begin that have no better place. */
export const ENTRIES_PER_PARTITION = 12;
export const GRAPH_WRITERS: number = GRAPH_PARTITIONS + MAX_PARTITIONS * PARTITION_WORDS;
/** Threads that may link at once. */
export const MAX_WRITERS = 64;
export const WRITER_WORDS = 10;
export const WRITER_OWNER = 0;
export const WRITER_TOKEN = 1;
export const WRITER_ACTIVE = 2;
/** Address and bytes of the ranges that a writer's thread links in, searches in and scans in. */
export const WRITER_SCRATCH = { LINK: 4, SEARCH: 6, SCAN: 8 } as const;
export const GRAPH_LANDMARKS: number = GRAPH_WRITERS + MAX_WRITERS * WRITER_WORDS;
/** Vertices that were far from all that was found when they were linked: where searches begin, so that clusters far from others are found. */
export const MAX_LANDMARKS = 512;
export const LANDMARK_WORDS = 2;
export const LANDMARK_DISTANCE = 1;
export const GRAPH_CHUNK_TABLE: number = GRAPH_LANDMARKS + MAX_LANDMARKS * LANDMARK_WORDS;
export const GRAPH_CHUNK_WORDS = 6;
export const CHUNK_LABEL = 1;
export const CHUNK_RKEY = 2;
export const CHUNK_CHANGES = 4;

/** The word of a chunk's entry that names its label and its partition. */
export function chunkLabelWord(label: number, partition: number): number {
  return label | (partition << 16);
}

export function labelOfChunk(word: number): number {
  return word & 0xffff;
}

export function partitionOfChunk(word: number): number {
  return word >>> 16;
}

// Byte offsets of a vertex record, behind the cell's header.
export const VERTEX_DEGREE: number = CELL_HEADER_BYTES;
export const VERTEX_NEIGHBOURS: number = CELL_HEADER_BYTES + 4;

/** Bits of the flags of a vertex. */
export const VERTEX_FLAG = { TOMBSTONE: 1, LINKED: 2 } as const;
export const VERTEX_FLAG_BITS = 0xff;

/** Flags of a vertex that has a leaf of a table's version, besides its bits. */
export function placeFlags(leaf: number, version: number): number {
  return (leaf << 8) | (version << 24);
}

export function leafOfFlags(flags: number): number {
  return (flags >>> 8) & 0xffff;
}

/** 0 = the vertex has no leaf. */
export function versionOfFlags(flags: number): number {
  return flags >>> 24;
}

export const DEFAULT_DEGREE = 32;
const MAX_DEGREE = 1024;
/** A chunk is about this long, or less where there are many shards: small graphs stay small, and large ones need few of the region table's slots. */
const CHUNK_BYTES: number = 1024 * 1024;
/** What a chunk of every shard's vertices for every label should take together, if chunks do not get too many by that. */
const LABELLED_BYTES: number = 16 * 1024 * 1024;
const MAX_CHUNK_SHIFT = 20;
const DEFAULT_MAX_CHUNKS = 2048;
/** Vertex ids are non-negative int32. */
const VERTEX_ID_BITS = 31;

/** What a graph is made for. */
export interface GraphShape {
  readonly dimensions: number;
  /** Element code of the vertices' vectors, see native-bridge/kernels.ts. */
  readonly element: number;
  readonly metric: number;
  /** Neighbours of a vertex at most, in [2, 1024]. @default 32 */
  readonly degree?: number;
  /** Bytes of one code. @default that of `dimensions` components of f32 or u8 */
  readonly codeBytes?: number;
  /** log2 of the vertices in a chunk. @default as many as make about `chunkBytes` */
  readonly chunkShift?: number;
  /** @default 1 MiB */
  readonly chunkBytes?: number;
  /** Chunks at most; `allocateChunk` fails beyond. @default 2048 */
  readonly maxChunks?: number;
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`. */
export function graphGeometry(shape: GraphShape): GraphGeometry {
  const { dimensions, element, metric } = shape;
  const degree = shape.degree ?? DEFAULT_DEGREE;
  const codeBytes = shape.codeBytes ?? dimensions * (element === ELEMENT.F32 ? 4 : 1);
  check("dimensions", dimensions, 1, 65_536);
  check("degree", degree, 2, MAX_DEGREE);
  check("codeBytes", codeBytes, 1, 65_536 * 4);
  const codeOffset = padded(treeWordOf(degree) + 8);
  const stride = codeOffset + padded(codeBytes);
  const chunkShift =
    shape.chunkShift ?? Math.max(1, 31 - Math.clz32(Math.floor((shape.chunkBytes ?? CHUNK_BYTES) / stride) | 2));
  check("chunkShift", chunkShift, 1, MAX_CHUNK_SHIFT);
  const maxChunks = shape.maxChunks ?? Math.min(DEFAULT_MAX_CHUNKS, 2 ** (VERTEX_ID_BITS - chunkShift));
  check("maxChunks", maxChunks, 1, 2 ** (VERTEX_ID_BITS - chunkShift));
  return { dimensions, element, metric, degree, chunkShift, stride, codeOffset, codeBytes, maxChunks };
}

/**
 * Bytes of a chunk for a graph over so many shards: vertices stand with those of their shard and label, so there are as many chunks that are not full as
 * pairs of shards.
 *
 * @param capacityBytes Of the memory, which a graph may take whole.
 */
export function chunkBytesFor(shards: number, capacityBytes: number): number {
  const wanted = Math.max(LABELLED_BYTES / Math.max(1, shards) ** 2, capacityBytes / DEFAULT_MAX_CHUNKS);
  return Math.min(CHUNK_BYTES, wanted);
}

/** The geometry in the words of a root; undefined unless they are those of a root of this version. */
export function readGraphGeometry(word: (index: number) => number): GraphGeometry | undefined {
  if (word(GRAPH_MAGIC_WORD) !== GRAPH_MAGIC || word(GRAPH_VERSION_WORD) !== GRAPH_VERSION) return undefined;
  let geometry: GraphGeometry;
  try {
    geometry = graphGeometry({
      dimensions: word(GRAPH_DIMENSIONS),
      element: word(GRAPH_ELEMENT),
      metric: word(GRAPH_METRIC),
      degree: word(GRAPH_DEGREE),
      codeBytes: word(GRAPH_CODE_BYTES),
      chunkShift: word(GRAPH_CHUNK_SHIFT),
      maxChunks: word(GRAPH_MAX_CHUNKS),
    });
  } catch {
    return undefined; // a shape that no graph can have
  }
  return word(GRAPH_STRIDE) === geometry.stride && word(GRAPH_CODE_OFFSET) === geometry.codeOffset
    ? geometry
    : undefined;
}

/** Bytes of a root, header included. */
export function graphRootBytes(geometry: GraphGeometry): number {
  return padded(CELL_HEADER_BYTES + (GRAPH_CHUNK_TABLE + geometry.maxChunks * GRAPH_CHUNK_WORDS) * 4);
}

/** Bytes of a chunk. */
export function graphChunkBytes(geometry: GraphGeometry): number {
  return geometry.stride << geometry.chunkShift;
}

/** Byte offset of the lock in a vertex. */
export function vertexLock(geometry: GraphGeometry): number {
  return VERTEX_NEIGHBOURS + geometry.degree * 4;
}

/**
 * Byte offset of the tree word in a vertex, one 64-bit word that changes as a whole. Each linked vertex has a parent, whose list leads to it, up
 * to one root, which is its own parent and which the graph's root names. Parent 0: not in the tree; −(copy + 1): moved to a copy, which has
 * its place. A parent's rank is below its child's. No list is thinned of the vertices whose parent its owner is, nor of the owner's own.
 */
export function vertexTreeWord(geometry: GraphGeometry): number {
  return treeWordOf(geometry.degree);
}

function treeWordOf(degree: number): number {
  return (VERTEX_NEIGHBOURS + degree * 4 + 4 + 7) & ~7;
}

function padded(bytes: number): number {
  return (bytes + 15) & ~15;
}

function check(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most)
    throw invalidArgument("create graph", name, `an integer in [${least}, ${most}]`, value);
}
