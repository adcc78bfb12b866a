/**
 * Decodes a graph's root and its vertices out of bytes that were copied from somewhere, as graph-layout.ts documents them.
 *
 * Invariant: bytes are believed as little as a remote reader may: a degree is cut at the stride's room, neighbours that lead nowhere are left out, and
 * what is no root of this version is none. Little-endian, wherever this runs.
 */
import { CELL_HEADER_BYTES, USER0, USER1, USER2, USER3, USER4 } from "../../native-bridge/cell-layout.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import {
  CHUNK_LABEL,
  CHUNK_RKEY,
  ENTRIES_PER_PARTITION,
  GRAPH_CHUNK_TABLE,
  GRAPH_CHUNK_WORDS,
  GRAPH_CHUNKS,
  GRAPH_PARTITIONS,
  GRAPH_TREE_ROOT,
  type GraphGeometry,
  graphChunkBytes,
  labelOfChunk,
  PARTITION_ENTRIES,
  PARTITION_WORDS,
  partitionOfChunk,
  readGraphGeometry,
  VERTEX_DEGREE,
  VERTEX_FLAG,
  VERTEX_NEIGHBOURS,
} from "./graph-layout.ts";

/** One vertex, as it was in one version of its cell; neighbours are those of a moment near it. */
export interface GraphVertex {
  readonly vertex: number;
  /** Of the cell: other bytes have another version. */
  readonly version: number;
  /** Whose document it stands for: its row, and which of the documents that the row has held. */
  readonly shard: number;
  readonly document: { readonly address: number; readonly incarnation: number };
  /** Whether its document was deleted: it is on the way to others still. */
  readonly isDeleted: boolean;
  readonly isLinked: boolean;
  readonly neighbours: readonly number[];
  /** The vector in the collection's quantization, and 1 / its length where that is another than of the vector itself. */
  readonly code: Uint8Array;
  readonly inverseNorm: number;
}

/** A range of vertices: `vertex >>> chunkShift` is its number. */
export interface VertexChunk {
  readonly number: number;
  /** The shard that computes for its vertices, and the one that has written them. */
  readonly label: number;
  readonly partition: number;
  readonly ref: RegionRef;
}

/** A root, as it was when it was read. */
export interface GraphTables {
  readonly geometry: GraphGeometry;
  /** By number; undefined where there is none any more. */
  readonly chunks: readonly (VertexChunk | undefined)[];
  /** Where searches begin: the root of the tree, if there is one, and the entries of the partitions that have chunks. */
  readonly entries: readonly number[];
}

const TWO_32 = 2 ** 32;

/** @param bytes A whole root, header included. @returns undefined for what is none, of this version */
export function decodeGraphTables(bytes: Uint8Array): GraphTables | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const at = (word: number): number => CELL_HEADER_BYTES + word * 4;
  const word = (index: number): number => (at(index) + 4 <= bytes.length ? view.getInt32(at(index), true) : 0);
  const geometry = readGraphGeometry(word);
  if (geometry === undefined) return undefined;
  const count = Math.min(word(GRAPH_CHUNKS), geometry.maxChunks);
  const chunks = Array.from({ length: Math.max(0, count) }, (_, number): VertexChunk | undefined => {
    const entry = GRAPH_CHUNK_TABLE + number * GRAPH_CHUNK_WORDS;
    const address = word(entry) >>> 0;
    if (address === 0 || at(entry + GRAPH_CHUNK_WORDS) > bytes.length) return undefined;
    const labels = word(entry + CHUNK_LABEL);
    const ref = { address, rkey: view.getFloat64(at(entry + CHUNK_RKEY), true), length: graphChunkBytes(geometry) };
    return { number, label: labelOfChunk(labels), partition: partitionOfChunk(labels), ref };
  });
  const partitions = new Set(chunks.flatMap((chunk) => (chunk === undefined ? [] : [chunk.partition])));
  const entries = new Set([word(GRAPH_TREE_ROOT)]);
  for (const partition of partitions)
    for (let entry = 0; entry < ENTRIES_PER_PARTITION; entry++)
      entries.add(word(GRAPH_PARTITIONS + partition * PARTITION_WORDS + PARTITION_ENTRIES + entry));
  return { geometry, chunks, entries: [...entries].filter((vertex) => vertex > 0).map((vertex) => vertex - 1) };
}

/** The cell of a vertex; undefined when there is no chunk for it. */
export function vertexRefOf({ geometry, chunks }: GraphTables, vertex: number): RegionRef | undefined {
  const chunk = Number.isInteger(vertex) && vertex >= 0 ? chunks[vertex >>> geometry.chunkShift] : undefined;
  if (chunk === undefined) return undefined;
  const slot = vertex & ((1 << geometry.chunkShift) - 1);
  return { ...chunk.ref, address: chunk.ref.address + slot * geometry.stride, length: geometry.stride };
}

/** @param bytes The whole cell, which is `stride` long. @returns undefined for a free one */
export function decodeVertex(geometry: GraphGeometry, vertex: number, bytes: Uint8Array): GraphVertex | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, geometry.stride);
  const word = (index: number): number => view.getInt32(index * 4, true);
  const address = word(USER0) >>> 0;
  if (address === 0) return undefined;
  const degree = Math.max(0, Math.min(view.getInt32(VERTEX_DEGREE, true), geometry.degree));
  const neighbours = Array.from({ length: degree }, (_, at) => view.getInt32(VERTEX_NEIGHBOURS + at * 4, true));
  const flags = word(USER3);
  return {
    vertex,
    version: (word(1) >>> 0) * TWO_32 + (word(0) >>> 0),
    shard: word(USER2),
    document: { address, incarnation: word(USER1) },
    isDeleted: (flags & VERTEX_FLAG.TOMBSTONE) !== 0,
    isLinked: (flags & VERTEX_FLAG.LINKED) !== 0,
    neighbours: neighbours.filter((id) => id >= 0 && id >>> geometry.chunkShift < geometry.maxChunks),
    code: bytes.slice(geometry.codeOffset, geometry.codeOffset + geometry.codeBytes),
    inverseNorm: view.getFloat32(USER4 * 4, true),
  };
}
