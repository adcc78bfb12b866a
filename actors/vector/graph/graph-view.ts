/**
 * What a one-sided reader knows of a graph: its root, decoded and cached, with the chunks as the kernels want them.
 *
 * Invariant: a view that is current names only chunks whose keys opened regions that hold them whole; the stamp of each is noted, so
 * that one atomic load a chunk tells afterwards whether it still is that region. One thread only: it shares its verbs.
 */
import type { Arena } from "../../../native-bridge/arena.ts";
import { NEEDS_RMW_CHECK } from "../../../native-bridge/cell.ts";
import { CELL_HEADER_BYTES } from "../../../native-bridge/cell-layout.ts";
import type { KernelChunk } from "../../../native-bridge/graph-kernels.ts";
import { RegionAccess } from "../../../native-bridge/region-access.ts";
import { type RegionRef, STAMP } from "../../../native-bridge/region-layout.ts";
import { STATUS } from "../../../native-bridge/status.ts";
import type { Verbs } from "../../../native-bridge/verbs.ts";
import {
  CHUNK_CHANGES,
  CHUNK_LABEL,
  CHUNK_RKEY,
  ENTRIES_PER_PARTITION,
  GRAPH_CHUNK_TABLE,
  GRAPH_CHUNK_WORDS,
  GRAPH_CHUNKS,
  GRAPH_LANDMARK_CHANGES,
  GRAPH_LANDMARKS,
  GRAPH_MAGIC,
  GRAPH_MAGIC_WORD,
  GRAPH_PARTITIONS,
  GRAPH_STRUCTURE,
  GRAPH_TREE_ROOT,
  GRAPH_USUAL,
  type GraphGeometry,
  graphChunkBytes,
  LANDMARK_WORDS,
  labelOfChunk,
  MAX_LANDMARKS,
  PARTITION_ENTRIES,
  PARTITION_WORDS,
  partitionOfChunk,
  readGraphGeometry,
} from "../../../src/store/graph-layout.ts";
import type { MutableRef } from "../shard-view.ts";
import { openChunk } from "./chunk-keys.ts";
import { landmarksIn } from "./landmarks.ts";

const NO_CHUNK: KernelChunk = { address: 0, partition: 0, stampAddress: 0, stamp: 0 };
/** Reads of a root that changes meanwhile. */
const ATTEMPTS = 16;
/** Entry vertices that are tried at most, unless a list is given: each costs a distance, and more than a few save none. */
const MAX_DEFAULT_ENTRIES = 16;
/** Landmarks that searches begin at which know no better: the table's others are for those that know which are near. */
export const MAX_LANDMARK_ENTRIES = 128;
/** Words from the one that names the root of the tree to those of the partitions. */
const ENTRY_WORDS: number = GRAPH_PARTITIONS - GRAPH_TREE_ROOT;

export class GraphView {
  root: RegionRef | undefined;
  geometry: GraphGeometry | undefined;
  /** Chunk by number, `partition` being its label; those without one have address 0. */
  chunks: readonly KernelChunk[] = [];
  /** Partitions that have chunks, and labels of chunks, are below this. */
  partitions = 1;
  /** Grows whenever `chunks` changed. */
  generation = 0;
  /** Entry vertices of the partitions, as they were when the view was made current. */
  entries: readonly number[] = [];
  /** Landmarks that count, farthest first; as they were read last. Another array whenever they are others. */
  landmarks: readonly number[] = [];
  /** Partition whose chunk could not be read when `refresh` failed, or −1. */
  lostPartition = -1;
  readonly #verbs: Verbs;
  readonly #i32: Int32Array;
  readonly #access: RegionAccess;
  #table: Int32Array = new Int32Array(0);
  #tableBytes: Uint8Array = new Uint8Array(0);
  #words: Int32Array = new Int32Array(0);
  #wordsBytes: Uint8Array = new Uint8Array(0);
  #bytes: Uint8Array = new Uint8Array(0);
  #rkeys: readonly number[] = [];
  /** Of `entries`, those that are no landmarks. */
  #first: readonly number[] = [];
  /** The landmarks that are among `entries`. */
  #added: readonly number[] = [];
  readonly #telling: Int32Array = new Int32Array(GRAPH_USUAL + 1 - GRAPH_TREE_ROOT);
  readonly #tellingBytes: Uint8Array = new Uint8Array(this.#telling.buffer);
  readonly #bits: Int32Array = new Int32Array(1);
  readonly #asFloat: Float32Array = new Float32Array(this.#bits.buffer);
  #landmarkChanges: number | undefined;
  #usual = 0;
  #structure = -1;

  constructor(arena: Arena, verbs: Verbs) {
    this.#verbs = verbs;
    this.#i32 = arena.i32;
    this.#access = new RegionAccess(arena, NEEDS_RMW_CHECK);
  }

  /**
   * Makes the view current.
   *
   * @returns A status: REGION_REVOKED when the graph was dropped or a worker's chunks are waiting for their next owner,
   * INVALID_RKEY when the reference names no root.
   *
   * @param lenient Chunks that cannot be read now are kept, with a stamp address of 0, rather than refused. @default false
   */
  refresh(root: RegionRef | undefined, lenient = false): number {
    if (root === undefined) return STATUS.INVALID_RKEY;
    if (this.root?.rkey === root.rkey && this.#wordNow(root, GRAPH_STRUCTURE) === this.#structure)
      return STATUS.SUCCESS;
    let status: number = STATUS.RETRY_EXCEEDED;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      status = this.#read(root, lenient);
      if (status === STATUS.SUCCESS) return status;
      if (this.#wordNow(root, GRAPH_STRUCTURE) === this.#structure) break; // it did not change under the read
    }
    this.forget();
    return status;
  }

  /** Makes the view current. @returns tells whether all its chunks could be read ever since; undefined when one cannot be read now */
  watch(root: RegionRef | undefined): (() => boolean) | undefined {
    if (this.refresh(root) !== STATUS.SUCCESS) return undefined;
    const { chunks } = this;
    const intact = (): boolean =>
      chunks.every(
        ({ address, stampAddress, stamp }) => address === 0 || Atomics.load(this.#i32, stampAddress >>> 2) === stamp,
      );
    if (intact()) return intact;
    this.forget();
    return undefined;
  }

  /** Makes the next `refresh` read everything again. */
  forget(): void {
    this.#structure = -1;
  }

  /** Puts the cell of a vertex in `ref`. False when the view has no such vertex. */
  vertexRef(vertex: number, ref: MutableRef): boolean {
    const { geometry } = this;
    if (geometry === undefined || vertex < 0) return false;
    const number = vertex >>> geometry.chunkShift;
    const address = this.chunks[number]?.address ?? 0;
    if (address === 0) return false;
    ref.address = address + (vertex & ((1 << geometry.chunkShift) - 1)) * geometry.stride;
    ref.rkey = this.#rkeys[number] as number;
    ref.length = geometry.stride;
    return true;
  }

  /** The shard that computes for a vertex: the label of its chunk; −1 when it has none. */
  partitionOf(vertex: number): number {
    const chunk = this.chunks[vertex >>> (this.geometry?.chunkShift ?? 0)];
    return chunk === undefined || chunk.address === 0 ? -1 : chunk.partition;
  }

  /** How often each chunk has changed, by its number, as of now; undefined when the root cannot be read. Valid until the next call. */
  readChanges(): ((chunk: number) => number) | undefined {
    const { root } = this;
    const length = this.chunks.length * GRAPH_CHUNK_WORDS;
    if (this.#table.length < length) {
      this.#table = new Int32Array(2 * length);
      this.#tableBytes = new Uint8Array(this.#table.buffer);
    }
    if (root === undefined) return undefined;
    const at = root.address + CELL_HEADER_BYTES + GRAPH_CHUNK_TABLE * 4;
    if (this.#verbs.readAt(at, root.rkey, length * 4, this.#tableBytes, 0) !== STATUS.SUCCESS) return undefined;
    return (chunk) => this.#table[chunk * GRAPH_CHUNK_WORDS + CHUNK_CHANGES] as number;
  }

  /** The structure word, as an int32, or undefined when the root cannot be read. */
  #wordNow(root: RegionRef, index: number): number | undefined {
    const word = this.#verbs.readWord(root.address + CELL_HEADER_BYTES + index * 4, root.rkey);
    return word < 0 ? undefined : word | 0;
  }

  #read(root: RegionRef, lenient: boolean): number {
    if (this.#bytes.byteLength !== root.length) this.#bytes = new Uint8Array(new ArrayBuffer(root.length));
    const structure = this.#wordNow(root, GRAPH_STRUCTURE);
    const status = this.#verbs.read(root, this.#bytes);
    if (status !== STATUS.SUCCESS) return status;
    const words = new Int32Array(this.#bytes.buffer, CELL_HEADER_BYTES);
    const doubles = new Float64Array(this.#bytes.buffer);
    if (words[GRAPH_MAGIC_WORD] !== GRAPH_MAGIC && this.root !== undefined) return STATUS.REGION_REVOKED;
    const geometry = readGraphGeometry((index) => words[index] ?? 0);
    if (geometry === undefined) return STATUS.INVALID_RKEY;
    const chunks: KernelChunk[] = [];
    const rkeys: number[] = [];
    this.lostPartition = -1;
    let most = 1;
    const length = graphChunkBytes(geometry);
    const count = Math.min(words[GRAPH_CHUNKS] as number, geometry.maxChunks);
    for (let number = 0; number < count; number++) {
      const word = GRAPH_CHUNK_TABLE + number * GRAPH_CHUNK_WORDS;
      const address = (words[word] as number) >>> 0;
      const labels = words[word + CHUNK_LABEL] as number;
      const partition = labelOfChunk(labels);
      most = Math.max(most, partitionOfChunk(labels) + 1);
      const rkey = doubles[(CELL_HEADER_BYTES / 4 + word + CHUNK_RKEY) >>> 1] as number;
      const opened = address === 0 ? STATUS.SUCCESS : openChunk(this.#access, { address, rkey, length });
      if (opened !== STATUS.SUCCESS && !lenient) {
        this.#structure = structure ?? -1;
        this.lostPartition = partitionOfChunk(labels);
        return opened;
      }
      const { entry, stamp } = this.#access;
      const stampAddress = opened === STATUS.SUCCESS ? (entry + STAMP) * 4 : 0;
      chunks.push(address === 0 ? NO_CHUNK : { address, partition, stampAddress, stamp });
      rkeys.push(rkey);
    }
    this.root = root;
    this.geometry = geometry;
    this.chunks = chunks;
    this.#rkeys = rkeys;
    this.partitions = chunks.reduce((least, chunk) => Math.max(least, chunk.partition + 1), most);
    this.#landmarkChanges = undefined;
    this.readEntries();
    this.#structure = structure ?? -1;
    this.generation++;
    return STATUS.SUCCESS;
  }

  /** Reads the entry vertices again, which change without the structure. The same array while they are the same. */
  readEntries(): readonly number[] {
    const { root } = this;
    if (root === undefined) return this.entries;
    const length = ENTRY_WORDS + this.partitions * PARTITION_WORDS;
    if (this.#words.length !== length) {
      this.#words = new Int32Array(length);
      this.#wordsBytes = new Uint8Array(this.#words.buffer);
    }
    const at = root.address + CELL_HEADER_BYTES + GRAPH_TREE_ROOT * 4;
    const status = this.#verbs.readAt(at, root.rkey, length * 4, this.#wordsBytes, 0);
    if (status !== STATUS.SUCCESS) return this.entries;
    this.#takeLandmarks(root, this.#words);
    if (this.#added === this.landmarks && sameEntries(this.#words, this.partitions, this.#first)) return this.entries;
    this.#first = entriesIn(this.#words, this.partitions);
    this.#added = this.landmarks;
    this.entries = [...new Set([...this.#first, ...this.landmarks.slice(0, MAX_LANDMARK_ENTRIES)])];
    return this.entries;
  }

  /** Makes `landmarks` current, and reads no more of the root than tells whether they are. */
  readLandmarks(): readonly number[] {
    const { root } = this;
    if (root === undefined) return this.landmarks;
    const at = root.address + CELL_HEADER_BYTES + GRAPH_TREE_ROOT * 4;
    const status = this.#verbs.readAt(at, root.rkey, this.#tellingBytes.length, this.#tellingBytes, 0);
    if (status === STATUS.SUCCESS) this.#takeLandmarks(root, this.#telling);
    return this.landmarks;
  }

  /** Reads the landmarks again if they have changed, or what counts as one. @param words Of the root, from the one that names the tree's */
  #takeLandmarks(root: RegionRef, words: Int32Array): void {
    const changes = words[GRAPH_LANDMARK_CHANGES - GRAPH_TREE_ROOT] as number;
    this.#bits[0] = words[GRAPH_USUAL - GRAPH_TREE_ROOT] as number;
    const usual = this.#asFloat[0] as number;
    const isKnown = changes === this.#landmarkChanges && usual >= this.#usual / 2 && usual <= this.#usual * 2;
    if (isKnown) return;
    const table = new Int32Array(MAX_LANDMARKS * LANDMARK_WORDS);
    const at = root.address + CELL_HEADER_BYTES + GRAPH_LANDMARKS * 4;
    const bytes = new Uint8Array(table.buffer);
    if (this.#verbs.readAt(at, root.rkey, bytes.length, bytes, 0) !== STATUS.SUCCESS) return;
    this.#landmarkChanges = changes;
    this.#usual = usual;
    this.landmarks = landmarksIn(table, usual);
  }
}

/** Entry vertices: the root of the tree, from which all are reached; then the first of each partition, then the second of each. */
function* entriesOf(words: Int32Array, partitions: number): Generator<number> {
  const root = (words[0] as number) - 1;
  if (root >= 0) yield root;
  for (let index = 0; index < ENTRIES_PER_PARTITION; index++) {
    for (let partition = 0; partition < partitions; partition++) {
      const vertex = (words[ENTRY_WORDS + partition * PARTITION_WORDS + PARTITION_ENTRIES + index] as number) - 1;
      if (vertex >= 0 && vertex !== root) yield vertex;
    }
  }
}

function entriesIn(words: Int32Array, partitions: number): number[] {
  const entries: number[] = [];
  for (const vertex of entriesOf(words, partitions)) {
    if (entries.length === MAX_DEFAULT_ENTRIES) break;
    entries.push(vertex);
  }
  return entries;
}

function sameEntries(words: Int32Array, partitions: number, entries: readonly number[]): boolean {
  let count = 0;
  for (const vertex of entriesOf(words, partitions)) {
    if (count === MAX_DEFAULT_ENTRIES) break;
    if (vertex !== entries[count++]) return false;
  }
  return count === entries.length;
}
