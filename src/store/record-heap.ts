/**
 * The shard's records (id and metadata bytes): append-only chunks, freed by compaction.
 *
 * Invariant: a record's bytes are complete before a row points at it, and its chunk is freed only after no row does. Space
 * is reserved before the first write of a batch, so appending cannot fail.
 * Divergence from a log: nothing is read back in order; after a crash the rows say which records live.
 */
import { ShardloomError } from "../errors.ts";
import {
  MAX_HEAP_CHUNKS,
  RECORD_HASH,
  RECORD_HEADER_BYTES,
  RECORD_ID_WORD,
  RECORD_PAYLOAD_BYTES,
  RECORD_TOTAL,
  ROOT_HEAP_TABLE,
  recordBytes,
} from "./collection-layout.ts";
import type { Adopted, Chunk, CollectionRoot } from "./collection-root.ts";
import { idLengthOf } from "./id-codec.ts";

const FIRST_CHUNK_BYTES = 32 * 1024;
const LARGEST_CHUNK_BYTES = 4 * 1024 * 1024;

interface HeapChunk extends Chunk {
  readonly slot: number;
  /** Bytes of records that rows point at. */
  live: number;
}

export class RecordHeap {
  readonly #root: CollectionRoot;
  #chunks: HeapChunk[] = [];
  #current: HeapChunk | undefined;
  #cursor = 0;
  #victims: HeapChunk[] = [];

  constructor(root: CollectionRoot) {
    this.#root = root;
  }

  /** Bytes of all chunks. */
  get totalBytes(): number {
    return (
      this.#chunks.reduce((sum, chunk) => sum + chunk.length, 0) +
      this.#victims.reduce((sum, chunk) => sum + chunk.length, 0)
    );
  }

  /** Bytes of the records that rows point at. */
  get liveBytes(): number {
    return (
      this.#chunks.reduce((sum, chunk) => sum + chunk.live, 0) +
      this.#victims.reduce((sum, chunk) => sum + chunk.live, 0)
    );
  }

  /** Makes room for records of `byteLength` in total. Throws before anything is written. */
  reserve(byteLength: number): void {
    const current = this.#current;
    if (current !== undefined && this.#cursor + byteLength <= current.address + current.length) return;
    const grown = Math.min(LARGEST_CHUNK_BYTES, Math.max(FIRST_CHUNK_BYTES, this.liveBytes));
    this.#open(Math.max(grown, byteLength));
  }

  /** Writes a record into reserved space. The views are those of the request. */
  append(
    bytes: Uint8Array,
    idOffset: number,
    idWord: number,
    payloadOffset: number,
    payloadBytes: number,
    hash: number,
  ): number {
    const { arena } = this.#root;
    const idLength = idLengthOf(idWord);
    const at = this.#take(recordBytes(idLength, payloadBytes));
    const word = at >>> 2;
    arena.u32[word + RECORD_ID_WORD] = idWord;
    arena.u32[word + RECORD_PAYLOAD_BYTES] = payloadBytes;
    arena.u32[word + RECORD_HASH] = hash;
    copyBytes(bytes, idOffset, arena.bytes, at + RECORD_HEADER_BYTES, idLength);
    copyBytes(bytes, payloadOffset, arena.bytes, at + RECORD_HEADER_BYTES + idLength, payloadBytes);
    return at;
  }

  /** A row stopped pointing at this record. A victim that none points into any more is freed. */
  release(address: number): void {
    const victim = this.#find(this.#victims, address);
    const chunk = victim ?? this.#find(this.#chunks, address);
    if (chunk === undefined) return;
    chunk.live -= this.#root.arena.u32[(address >>> 2) + RECORD_TOTAL] as number;
    if (victim?.live !== 0) return;
    this.#victims = this.#victims.filter((other) => other !== victim);
    this.#free(victim);
  }

  /** Whether rewriting the live records would give back more than half of a heap worth the work. */
  needsCompaction(): boolean {
    if (this.#victims.length > 0) return true;
    const total =
      this.totalBytes - (this.#current === undefined ? 0 : this.#current.address + this.#current.length - this.#cursor);
    return total > 4 * FIRST_CHUNK_BYTES && total > 2 * this.liveBytes;
  }

  /** Declares all chunks victims, and frees those that no row points into; records go to new ones from here. */
  startCompaction(): void {
    for (const chunk of this.#chunks) if (chunk.live === 0) this.#free(chunk);
    this.#victims = this.#chunks.filter(({ live }) => live > 0);
    this.#chunks = [];
    this.#current = undefined;
  }

  isVictim(address: number): boolean {
    return this.#find(this.#victims, address) !== undefined;
  }

  get compacting(): boolean {
    return this.#victims.length > 0;
  }

  /** Copies a record out of a victim. The caller points its row at the copy, then releases the original. */
  copy(address: number): number {
    const total = this.#root.arena.u32[(address >>> 2) + RECORD_TOTAL] as number;
    this.#makeRoom(total);
    const at = this.#take(total);
    this.#root.arena.bytes.copyWithin(at, address, address + total);
    return at;
  }

  /** Frees the victims; no row points into them any more. */
  endCompaction(): void {
    for (const chunk of this.#victims) this.#free(chunk);
    this.#victims = [];
  }

  /** After a crash: finds the chunks, without their contents. */
  adopt(adopted: Adopted): void {
    for (let slot = 0; slot < MAX_HEAP_CHUNKS; slot++) {
      const chunk = this.#root.adoptEntry(ROOT_HEAP_TABLE, slot, 0, adopted);
      if (chunk !== undefined) this.#chunks.push({ ...chunk, slot, live: 0 });
    }
  }

  /** After a crash: a row points at this record. False when no chunk holds it whole. */
  adoptRecord(address: number): boolean {
    const chunk = this.#find(this.#chunks, address);
    if (chunk === undefined) return false;
    const { u32 } = this.#root.arena;
    const total = u32[(address >>> 2) + RECORD_TOTAL] as number;
    const idLength = idLengthOf(u32[(address >>> 2) + RECORD_ID_WORD] as number);
    if (
      address + total > chunk.address + chunk.length ||
      recordBytes(idLength, u32[(address >>> 2) + RECORD_PAYLOAD_BYTES] as number) !== total
    )
      return false;
    chunk.live += total;
    return true;
  }

  /** After a crash, when all rows were seen: frees what nothing points at. Appending starts in a new chunk. */
  endAdopt(): void {
    for (const chunk of this.#chunks) if (chunk.live === 0) this.#free(chunk);
    this.#chunks = this.#chunks.filter((chunk) => chunk.live > 0);
  }

  /** As {@link reserve}; where there is no room for what would be worth it, with less: what is moved makes room. */
  #makeRoom(byteLength: number): void {
    try {
      this.reserve(byteLength);
    } catch (error) {
      if (!ShardloomError.is(error) || error.code !== "ERR_OUT_OF_MEMORY") throw error;
      this.#open(Math.max(FIRST_CHUNK_BYTES, byteLength));
    }
  }

  #open(byteLength: number): void {
    const slot = this.#freeSlot();
    const chunk: HeapChunk = { ...this.#root.allocateChunk(byteLength, 0), slot, live: 0 };
    this.#root.writeEntry(ROOT_HEAP_TABLE, slot, chunk);
    this.#chunks.push(chunk);
    this.#current = chunk;
    this.#cursor = chunk.address;
  }

  #take(total: number): number {
    const current = this.#current as HeapChunk;
    const at = this.#cursor;
    this.#cursor += total;
    current.live += total;
    this.#root.arena.u32[(at >>> 2) + RECORD_TOTAL] = total;
    return at;
  }

  #free(chunk: HeapChunk): void {
    this.#root.writeEntry(ROOT_HEAP_TABLE, chunk.slot, undefined);
    this.#root.freeChunk(chunk);
  }

  #freeSlot(): number {
    for (let slot = 0; slot < MAX_HEAP_CHUNKS; slot++) {
      if (this.#root.readEntry(ROOT_HEAP_TABLE, slot) === undefined) return slot;
    }
    throw new ShardloomError(
      "ERR_OUT_OF_MEMORY",
      `Cannot store records as a collection's shard holds at most ${MAX_HEAP_CHUNKS} heap chunks`,
      {
        details: { limit: MAX_HEAP_CHUNKS },
      },
    );
  }

  #find(chunks: readonly HeapChunk[], address: number): HeapChunk | undefined {
    for (const chunk of chunks) if (address >= chunk.address && address < chunk.address + chunk.length) return chunk;
    return undefined;
  }
}

const SHORT_COPY = 48;

function copyBytes(source: Uint8Array, from: number, target: Uint8Array, to: number, length: number): void {
  if (length > SHORT_COPY) target.set(source.subarray(from, from + length), to);
  else for (let i = 0; i < length; i++) target[to + i] = source[from + i] as number;
}
