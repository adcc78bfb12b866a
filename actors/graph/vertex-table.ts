/**
 * The vertices of one shard: their keys by local number, and local numbers by key.
 *
 * Both tables lie in registered blocks, so that other shards find a vertex without asking: {@link findVertex} reads them in place.
 * Numbers are kept as float64; a string as -(1 + its offset in the heap). Index: open addressing, `local + 1`, at most half full.
 *
 * Invariant: local numbers are given in order of arrival and never change, nor are those of removed vertices given again: they are flagged.
 * So an edge leads to the vertex that it was made for, or to none. A key is written before its number is published, the number before the
 * index names it; the tables move only while the root's sequence is odd.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import { ShardloomError } from "../../src/errors.ts";
import { type Block, type GraphRoot, ROOT_WORD } from "./graph-root.ts";
import { isBefore } from "./traversal/key-order.ts";
import { hashOfKey, type VertexKey } from "./vertex-key.ts";

const FIRST_VERTICES = 256;
const FIRST_HEAP_BYTES = 4096;
/** Looks at tables that move before a reader gives up. */
const MAX_LOOKS = 10_000;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class VertexTable {
  readonly #root: GraphRoot;
  #keys!: Float64Array;
  #index!: Uint32Array;
  #heap: Uint8Array = new Uint8Array();
  #gone: Uint8Array | undefined;

  constructor(root: GraphRoot) {
    this.#root = root;
    if (root.block(ROOT_WORD.keys) === undefined) {
      const [keys, index] = this.#allocateAll([FIRST_VERTICES * 8, FIRST_VERTICES * 2 * 4]) as [Block, Block];
      this.#replace(ROOT_WORD.index, index);
      root.name(ROOT_WORD.keys, keys);
    }
    this.#view();
    this.#rebuild(); // of a predecessor's index nothing is known
    if (this.#gone !== undefined)
      this.#setRemoved(this.#gone.subarray(0, this.count).reduce((sum, flag) => sum + flag, 0));
  }

  /** Local numbers that were given. */
  get count(): number {
    return this.#root.get(ROOT_WORD.vertices);
  }

  /** How many of them are of vertices that were removed. */
  get removed(): number {
    return this.#root.get(ROOT_WORD.removed);
  }

  /** 1 for each local number whose vertex was removed; undefined: none was. May move when vertices are added. */
  get gone(): Uint8Array | undefined {
    return this.#gone;
  }

  /** Whether all keys are numbers. */
  get numeric(): boolean {
    return this.#root.get(ROOT_WORD.strings) === 0;
  }

  /** Numeric keys by local number; only what is below `count` means something. */
  get keys(): Float64Array {
    return this.#keys;
  }

  find(key: VertexKey, hash: number): number {
    const local = this.#probe(key, hash);
    return local >= 0 && this.#gone?.[local] === 1 ? -1 : local;
  }

  keyOf(local: number): VertexKey {
    const key = this.#keys[local] as number;
    return key >= 0 ? key : readString(this.#heap, -key - 1);
  }

  /** How many vertices whose keys have the same hash have lesser keys, numbers before text: it depends on the keys of the graph alone. */
  placeOf(local: number, key: VertexKey, hash: number): number {
    const mask = this.#index.length - 1;
    let place = 0;
    for (let slot = slotOf(hash, mask); this.#index[slot] !== 0; slot = (slot + 1) & mask) {
      const other = (this.#index[slot] as number) - 1;
      if (other === local || this.#gone?.[other] === 1) continue;
      const otherKey = this.keyOf(other);
      if (isBefore(otherKey, key) && hashOfKey(otherKey) === hash) place++;
    }
    return place;
  }

  /**
   * Adds vertices, all or none.
   *
   * @param ifMissing Leaves out those that are there; otherwise they are an error.
   * @returns how many were added
   * @throws {ShardloomError} `ERR_DUPLICATE_ID` with the key, `ERR_OUT_OF_MEMORY`.
   */
  add(keys: ArrayLike<VertexKey>, ifMissing: boolean): number {
    const root = this.#root;
    const before = this.count;
    const heapBefore = root.get(ROOT_WORD.heapUsed);
    this.#reserve(keys);
    const replaced = new Map<number, number>();
    for (let at = 0; at < keys.length; at++) {
      const key = keys[at] as VertexKey;
      const hash = hashOfKey(key);
      const known = this.#probe(key, hash);
      const isGone = known >= 0 && this.#gone?.[known] === 1;
      if (known >= 0 && !isGone) {
        if (ifMissing) continue;
        this.#takeBack(before, heapBefore, replaced);
        throw new ShardloomError(
          "ERR_DUPLICATE_ID",
          `Cannot add vertex as its key must be new: current value is ${String(key)}`,
          {
            details: { key, at },
          },
        );
      }
      const local = this.count;
      this.#keys[local] = typeof key === "number" ? key : this.#writeString(key);
      root.set(ROOT_WORD.vertices, local + 1);
      if (isGone) replaced.set(local, known);
      Atomics.store(this.#index, isGone ? this.#slotOf(known, hash) : freeSlot(this.#index, hash), local + 1);
    }
    if (this.count !== before) root.set(ROOT_WORD.structure, root.get(ROOT_WORD.structure) + 1);
    return this.count - before;
  }

  /** Removes those vertices that are there. What leads to them is left out of adjacency that is built from then on. @returns how many */
  remove(keys: ArrayLike<VertexKey>): number {
    let removed = 0;
    for (let at = 0; at < keys.length; at++) {
      const key = keys[at] as VertexKey;
      const local = this.find(key, hashOfKey(key));
      if (local < 0) continue;
      this.#gone ??= this.#makeGone();
      Atomics.store(this.#gone, local, 1);
      removed++;
    }
    if (removed > 0) this.#setRemoved(this.removed + removed);
    return removed;
  }

  #makeGone(): Uint8Array {
    const root = this.#root;
    const block = root.allocate(this.#keys.length);
    const flags = root.arena.bytes.subarray(block.address, block.address + block.byteLength);
    root.name(ROOT_WORD.gone, block);
    return flags;
  }

  #setRemoved(count: number): void {
    const root = this.#root;
    root.set(ROOT_WORD.removed, count);
    root.set(ROOT_WORD.structure, root.get(ROOT_WORD.structure) + 1);
  }

  #probe(key: VertexKey, hash: number): number {
    return probe(this.#keys, this.#index, 0, this.#index.length - 1, this.#heap, 0, key, hash);
  }

  #slotOf(local: number, hash: number): number {
    const mask = this.#index.length - 1;
    let slot = slotOf(hash, mask);
    while (this.#index[slot] !== local + 1) slot = (slot + 1) & mask;
    return slot;
  }

  /** Last in, first out: nothing was put behind what is taken out. @param replaced Removed vertices whose keys were given anew. */
  #takeBack(count: number, heapUsed: number, replaced: ReadonlyMap<number, number>): void {
    for (let local = this.count - 1; local >= count; local--) {
      const slot = this.#slotOf(local, hashOfKey(this.keyOf(local)));
      const before = replaced.get(local);
      Atomics.store(this.#index, slot, before === undefined ? 0 : before + 1);
    }
    this.#root.set(ROOT_WORD.vertices, count);
    this.#root.set(ROOT_WORD.heapUsed, heapUsed);
  }

  /** Makes room for all of them, so that nothing fails half way. */
  #reserve(keys: ArrayLike<VertexKey>): void {
    const root = this.#root;
    const wanted = this.count + keys.length;
    let heapBytes = root.get(ROOT_WORD.heapUsed);
    let strings = false;
    for (let at = 0; at < keys.length; at++) {
      const key = keys[at];
      if (typeof key !== "string") continue;
      strings = true;
      heapBytes += 4 + ((key.length * 3 + 3) & ~3);
    }
    const sizes: [word: number, byteLength: number][] = [];
    if (wanted > this.#keys.length) {
      const numbers = grownTo(this.#keys.length, wanted);
      sizes.push([ROOT_WORD.keys, numbers * 8]);
      if (this.#gone !== undefined) sizes.push([ROOT_WORD.gone, numbers]);
    }
    if (strings && heapBytes > this.#heap.length)
      sizes.push([ROOT_WORD.heap, grownTo(Math.max(this.#heap.length, FIRST_HEAP_BYTES), heapBytes)]);
    const indexGrows = wanted * 2 > this.#index.length;
    if (indexGrows) sizes.push([ROOT_WORD.index, grownTo(this.#index.length, wanted * 2) * 4]);
    const blocks = this.#allocateAll(sizes.map(([, byteLength]) => byteLength));
    if (strings) root.set(ROOT_WORD.strings, 1); // before the first of them is there
    if (sizes.length === 0) return;
    this.#move(() => {
      for (const [at, [word]] of sizes.entries()) this.#replace(word, blocks[at] as Block);
      this.#view();
      if (indexGrows) this.#rebuild();
    });
  }

  /** All or none. */
  #allocateAll(sizes: readonly number[]): Block[] {
    const blocks: Block[] = [];
    try {
      for (const byteLength of sizes) blocks.push(this.#root.allocate(byteLength));
    } catch (error) {
      for (const block of blocks) this.#root.release(block);
      throw error;
    }
    return blocks;
  }

  #replace(word: number, block: Block): void {
    const root = this.#root;
    const old = root.block(word);
    const copied = word === ROOT_WORD.index ? 0 : (old?.byteLength ?? 0);
    if (old !== undefined) root.arena.bytes.copyWithin(block.address, old.address, old.address + copied);
    if (word === ROOT_WORD.index) root.set(ROOT_WORD.indexMask, block.byteLength / 4 - 1);
    root.name(word, block);
    if (old !== undefined) root.release(old);
  }

  #move(change: () => void): void {
    const root = this.#root;
    root.set(ROOT_WORD.sequence, root.get(ROOT_WORD.sequence) + 1);
    try {
      change();
    } finally {
      root.set(ROOT_WORD.sequence, root.get(ROOT_WORD.sequence) + 1);
    }
  }

  #view(): void {
    const { arena } = this.#root;
    const keys = this.#root.block(ROOT_WORD.keys) as Block;
    const index = this.#root.block(ROOT_WORD.index);
    const heap = this.#root.block(ROOT_WORD.heap);
    const gone = this.#root.block(ROOT_WORD.gone);
    this.#keys = new Float64Array(arena.buffer, keys.address, keys.byteLength / 8);
    if (index !== undefined) this.#index = new Uint32Array(arena.buffer, index.address, index.byteLength / 4);
    if (heap !== undefined) this.#heap = new Uint8Array(arena.buffer, heap.address, heap.byteLength);
    if (gone !== undefined) this.#gone = new Uint8Array(arena.buffer, gone.address, gone.byteLength);
  }

  #rebuild(): void {
    this.#index.fill(0);
    for (let local = 0; local < this.count; local++)
      if (this.#gone?.[local] !== 1) this.#index[freeSlot(this.#index, hashOfKey(this.keyOf(local)))] = local + 1;
  }

  #writeString(key: string): number {
    const offset = this.#root.get(ROOT_WORD.heapUsed);
    const bytes = encoder.encode(key);
    new DataView(this.#heap.buffer, this.#heap.byteOffset).setUint32(offset, bytes.length, true);
    this.#heap.set(bytes, offset + 4);
    this.#root.set(ROOT_WORD.heapUsed, offset + 4 + ((bytes.length + 3) & ~3));
    return -1 - offset;
  }
}

/**
 * Finds a vertex of another shard in its tables, in place.
 *
 * @param root Address of that shard's root; the caller has checked its key, and checks it again before it relies on what it found.
 * @returns the local number, or -1
 * @throws {ShardloomError} `ERR_UNAVAILABLE` while the tables move for too long: their owner has died at it.
 */
export function findVertex(arena: Arena, root: number, key: VertexKey, hash: number): number {
  const { u32, f64, bytes } = arena;
  const base = root >>> 2;
  for (let look = 0; look < MAX_LOOKS; look++) {
    const before = Atomics.load(u32, base + ROOT_WORD.sequence);
    if ((before & 1) !== 0) continue;
    const mask = u32[base + ROOT_WORD.indexMask] as number;
    const index = (u32[base + ROOT_WORD.index] as number) >>> 2;
    const keys = (u32[base + ROOT_WORD.keys] as number) >>> 3;
    const heap = u32[base + ROOT_WORD.heap] as number;
    const found = probe(f64, u32, index, mask, bytes, heap, key, hash, keys);
    const gone = u32[base + ROOT_WORD.gone] as number;
    if (found >= 0 && gone !== 0 && Atomics.load(bytes, gone + found) === 1) return -1;
    if (Atomics.load(u32, base + ROOT_WORD.sequence) === before) return found;
  }
  throw new ShardloomError("ERR_UNAVAILABLE", "Cannot look up vertex as its shard is moving its tables");
}

/** A copy of the flags of another shard's removed vertices; undefined: there are none. As {@link findVertex}. */
export function goneAt(arena: Arena, root: number): Uint8Array | undefined {
  const { u32, bytes } = arena;
  const base = root >>> 2;
  if (Atomics.load(u32, base + ROOT_WORD.removed) === 0) return undefined;
  for (let look = 0; look < MAX_LOOKS; look++) {
    const before = Atomics.load(u32, base + ROOT_WORD.sequence);
    if ((before & 1) !== 0) continue;
    const address = u32[base + ROOT_WORD.gone] as number;
    const flags = bytes.slice(address, address + (u32[base + ROOT_WORD.vertices] as number));
    if (Atomics.load(u32, base + ROOT_WORD.sequence) === before) return flags;
  }
  throw new ShardloomError("ERR_UNAVAILABLE", "Cannot see removed vertices as their shard is moving its tables");
}

/** The key of a vertex of another shard, in place. As {@link findVertex}. */
export function keyAt(arena: Arena, root: number, local: number): VertexKey {
  const { u32, f64, bytes } = arena;
  const base = root >>> 2;
  for (let look = 0; look < MAX_LOOKS; look++) {
    const before = Atomics.load(u32, base + ROOT_WORD.sequence);
    if ((before & 1) !== 0) continue;
    const key = f64[((u32[base + ROOT_WORD.keys] as number) >>> 3) + local] as number;
    const found = key >= 0 ? key : readString(bytes, (u32[base + ROOT_WORD.heap] as number) - key - 1);
    if (Atomics.load(u32, base + ROOT_WORD.sequence) === before) return found;
  }
  throw new ShardloomError("ERR_UNAVAILABLE", "Cannot read key of vertex as its shard is moving its tables");
}

function probe(
  keys: Float64Array,
  index: Uint32Array,
  indexAt: number,
  mask: number,
  heap: Uint8Array,
  heapAt: number,
  key: VertexKey,
  hash: number,
  keysAt = 0,
): number {
  let slot = slotOf(hash, mask);
  for (let step = 0; step <= mask; step++) {
    const entry = index[indexAt + slot] as number;
    if (entry === 0 || entry === undefined) return -1;
    const found = keys[keysAt + entry - 1] as number;
    if (typeof key === "number" ? found === key : found < 0 && readString(heap, heapAt - found - 1) === key)
      return entry - 1;
    slot = (slot + 1) & mask;
  }
  return -1;
}

function slotOf(hash: number, mask: number): number {
  const mixed = Math.imul(hash, 0x9e37_79b1);
  return (mixed ^ (mixed >>> 15)) & mask;
}

function freeSlot(index: Uint32Array, hash: number): number {
  const mask = index.length - 1;
  let slot = slotOf(hash, mask);
  while (index[slot] !== 0) slot = (slot + 1) & mask;
  return slot;
}

/** Text is copied out before it is decoded: shared memory cannot be. */
function readString(heap: Uint8Array, offset: number): string {
  const length =
    ((heap[offset] as number) | ((heap[offset + 1] as number) << 8) | ((heap[offset + 2] as number) << 16)) >>> 0;
  return decoder.decode(heap.slice(offset + 4, offset + 4 + Math.min(length, 512)));
}

function grownTo(from: number, wanted: number): number {
  let size = from;
  while (size < wanted) size *= 2;
  return size;
}
