/**
 * Arena: the one shared memory of a node, from which regions, cells and kernel scratch are allocated.
 *
 * Invariant: blocks handed out never overlap, are 64-byte aligned and zero. No lock is ever held: the bump cursor and the
 * tagged free-list heads change by compare-and-swap, so a thread that dies inside leaks at most one block.
 * Source: Treiber's stack (IBM RJ 5118, 1986) with a 32-bit tag against ABA; segregated fits (Wilson et al., IWMM'95, §3.6).
 * Divergence: the memory is created at its maximum and never grows (the system commits pages at first touch: 4 GiB cost
 * 0.1 ms and no resident memory), so views never go stale, where DESIGN.md takes them anew after growth. Freed blocks are
 * split when needed, and merged when nothing else is left (free-map.ts). List heads are 64-bit, hence BigInt: allocation is
 * not a hot path.
 */
import { invalidArgument, ShardloomError } from "../src/errors.ts";
import {
  ALLOCATIONS_WORD,
  ARENA_DEFAULT_BYTES,
  ARENA_MAGIC,
  ARENA_MAX_BYTES,
  ARENA_MIN_BYTES,
  ARENA_VERSION,
  BLOCK_MARK_A,
  BLOCK_MARK_B,
  BLOCK_NEXT,
  BUMP_WORD,
  CAPACITY_UNITS_WORD,
  CLASS_COUNT,
  classOf,
  classUnits,
  FREE_LIST_LONG,
  FREE_MARK_A,
  FREE_MARK_B,
  FREES_WORD,
  HEAP_START_WORD,
  MAGIC_WORD,
  PAGE_BYTES,
  REGION_TABLE_BYTE_OFFSET,
  SCRATCH_ENTRIES,
  SCRATCH_ENTRY_WORDS,
  SCRATCH_RANGE,
  SCRATCH_WORD,
  UNIT_BYTES,
  UNIT_SHIFT,
  USED_UNITS_WORD,
  VERSION_WORD,
} from "./arena-layout.ts";
import { FreeMap } from "./free-map.ts";
import { REGION_TABLE_BYTES } from "./region-layout.ts";

/** How to create an arena. */
export interface ArenaOptions {
  /**
   * Size in bytes, a multiple of 64 KiB from 1 MiB to 4 GiB; about 0.5 MiB of it is the region table.
   * When it is used up, `allocate` throws `ERR_OUT_OF_MEMORY`.
   * @default 1 GiB
   */
  readonly capacityBytes?: number;
}

/** What an arena holds. A snapshot: other threads allocate meanwhile. */
export interface ArenaStats {
  readonly capacityBytes: number;
  /** In blocks handed out, rounding included. */
  readonly usedBytes: number;
  /** Never handed out yet, plus in free lists. */
  readonly freeBytes: number;
  /** Handed out at least once since creation. */
  readonly touchedBytes: number;
  readonly allocations: number;
  readonly frees: number;
}

const FREE_MAP_BYTE_OFFSET = REGION_TABLE_BYTE_OFFSET + REGION_TABLE_BYTES;

/** The heap begins behind the free map, whose size follows from the capacity. */
function heapStartUnits(capacityUnits: number): number {
  return (FREE_MAP_BYTE_OFFSET >>> UNIT_SHIFT) + Math.ceil(capacityUnits / 8 / UNIT_BYTES);
}

const LOW_32 = 0xffff_ffffn;

/**
 * Creates and initializes the memory of an arena. Post it to workers, which wrap it in their own {@link Arena}.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_OUT_OF_MEMORY` when the system refuses the address range.
 */
export function createArena(options: ArenaOptions = {}): WebAssembly.Memory {
  const capacityBytes = options.capacityBytes ?? ARENA_DEFAULT_BYTES;
  if (
    !Number.isInteger(capacityBytes) ||
    capacityBytes % PAGE_BYTES !== 0 ||
    capacityBytes < ARENA_MIN_BYTES ||
    capacityBytes > ARENA_MAX_BYTES
  ) {
    throw invalidArgument("create arena", "capacityBytes", "a multiple of 64 KiB from 1 MiB to 4 GiB", capacityBytes);
  }
  const pages = capacityBytes / PAGE_BYTES;
  let memory: WebAssembly.Memory;
  try {
    memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  } catch (cause) {
    throw new ShardloomError(
      "ERR_OUT_OF_MEMORY",
      `Cannot create arena as the system refuses ${capacityBytes} bytes of address space`,
      { cause, details: { capacityBytes } },
    );
  }
  const i32 = new Int32Array(memory.buffer);
  i32[VERSION_WORD] = ARENA_VERSION;
  const capacityUnits = capacityBytes / UNIT_BYTES;
  i32[CAPACITY_UNITS_WORD] = capacityUnits;
  i32[HEAP_START_WORD] = heapStartUnits(capacityUnits);
  i32[BUMP_WORD] = heapStartUnits(capacityUnits);
  Atomics.store(i32, MAGIC_WORD, ARENA_MAGIC); // publishes the head
  return memory;
}

/** One thread's handle of an arena. All mutable state is in the shared memory; make one per thread. */
export class Arena {
  readonly memory: WebAssembly.Memory;
  readonly buffer: SharedArrayBuffer;
  /** Views of the whole memory. An address may exceed 2^31: index words with `address >>> 2`, never `>> 2`. */
  readonly bytes: Uint8Array;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  readonly f32: Float32Array;
  readonly f64: Float64Array;
  /** First byte that `allocate` can return; everything below is the arena's own. */
  readonly heapByteOffset: number;
  readonly capacityBytes: number;
  readonly #heads: BigUint64Array;
  /** The memory as 8-byte words. */
  readonly #longs: BigUint64Array;
  readonly #capacityUnits: number;
  readonly #heapStartUnits: number;
  readonly #freeMap: FreeMap;

  constructor(memory: WebAssembly.Memory) {
    const buffer = memory?.buffer as unknown;
    if (!(buffer instanceof SharedArrayBuffer))
      throw invalidArgument("open arena", "memory", "a shared WebAssembly.Memory", memory);
    this.memory = memory;
    this.buffer = buffer;
    this.bytes = new Uint8Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.f32 = new Float32Array(buffer);
    this.f64 = new Float64Array(buffer);
    this.#longs = new BigUint64Array(buffer);
    this.#heads = this.#longs.subarray(FREE_LIST_LONG, FREE_LIST_LONG + CLASS_COUNT);
    this.#capacityUnits = buffer.byteLength / UNIT_BYTES;
    this.capacityBytes = buffer.byteLength;
    this.#heapStartUnits = heapStartUnits(this.#capacityUnits);
    this.heapByteOffset = this.#heapStartUnits * UNIT_BYTES;
    this.#freeMap = new FreeMap(new Int32Array(buffer, FREE_MAP_BYTE_OFFSET, Math.ceil(this.#capacityUnits / 32)));
    if (
      Atomics.load(this.i32, MAGIC_WORD) !== ARENA_MAGIC ||
      this.i32[VERSION_WORD] !== ARENA_VERSION ||
      this.i32[CAPACITY_UNITS_WORD] !== this.#capacityUnits ||
      this.i32[HEAP_START_WORD] !== this.#heapStartUnits
    ) {
      throw new ShardloomError(
        "ERR_CORRUPT",
        "Cannot open arena as the memory was not made by createArena of this version",
      );
    }
  }

  /**
   * Takes a zero-filled block, aligned to 64 bytes. Any thread.
   *
   * Cost: O(1) and lock-free, about 0.3 µs; a recycled block is cleared, a fresh one is zero already. Once all memory was
   * handed out and lies in pieces that are too small, they are merged and searched: 0.5 ms per GiB at most.
   *
   * @param byteLength Bytes wanted, at least 1; rounded up by at most 12.5 % (64 bytes for small blocks).
   * @returns Byte offset of the block in the arena.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_OUT_OF_MEMORY` when no block is left.
   */
  allocate(byteLength: number): number {
    return this.take(byteLength);
  }

  /**
   * As {@link allocate}.
   *
   * @param entry Byte offset of 8 bytes that name the range before it is used, as those of a scratch entry do. No function is called between the
   *   two: a thread that is terminated ends where it calls one, or goes round in a loop, and so leaks nothing here.
   */
  protected take(byteLength: number, entry?: number): number {
    const units = this.#unitsOf(byteLength, "allocate");
    const sizeClass = classOf(units);
    const taken = classUnits(sizeClass);
    let block = this.#pop(sizeClass);
    const recycled = block !== 0;
    if (!recycled) block = this.#bump(taken);
    const fresh = !recycled && block !== 0;
    if (block === 0) block = this.#split(sizeClass);
    if (block === 0) block = this.#merge(taken);
    if (block === 0) {
      throw new ShardloomError(
        "ERR_OUT_OF_MEMORY",
        `Cannot allocate ${byteLength} bytes as the arena of ${this.capacityBytes} bytes has no free range of that size`,
        { details: { byteLength, ...this.stats() } },
      );
    }
    Atomics.add(this.i32, USED_UNITS_WORD, taken);
    Atomics.add(this.i32, ALLOCATIONS_WORD, 1);
    if (entry !== undefined) {
      this.i32[(block << 4) + BLOCK_MARK_A] = 0; // whoever frees what is left finds a block in use
      Atomics.store(this.#longs, entry / 8, (BigInt(byteLength) << 32n) | BigInt(block));
    }
    const byteOffset = block * UNIT_BYTES;
    if (!fresh) this.bytes.fill(0, byteOffset, byteOffset + units * UNIT_BYTES);
    return byteOffset;
  }

  /**
   * Gives a block back. Any thread, once, with the length it was allocated with; regions over it must be deregistered.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when the range cannot be a block, or is free already.
   */
  free(byteOffset: number, byteLength: number): void {
    this.give(byteOffset, byteLength);
  }

  /** As {@link free}. @param entry Of {@link take}: names nothing before the block is free. */
  protected give(byteOffset: number, byteLength: number, entry?: number): void {
    const units = this.#unitsOf(byteLength, "free");
    const block = byteOffset / UNIT_BYTES;
    const sizeClass = classOf(units);
    const given = classUnits(sizeClass);
    if (!Number.isInteger(block) || block < this.#heapStartUnits || block + given > Atomics.load(this.i32, BUMP_WORD))
      throw invalidArgument("free block", "byteOffset", "the start of an allocated block", byteOffset);
    const word = block << 4;
    if (this.i32[word + BLOCK_MARK_A] === FREE_MARK_A && this.i32[word + BLOCK_MARK_B] === (FREE_MARK_B ^ block))
      throw invalidArgument("free block", "byteOffset", "a block that is not free already", byteOffset);
    this.#push(sizeClass, block, entry);
    Atomics.sub(this.i32, USED_UNITS_WORD, given);
    Atomics.add(this.i32, FREES_WORD, 1);
  }

  /**
   * Takes the scratch range of one thread, and remembers it under `owner`, so that whoever replaces a dead thread under the same number gets its
   * range back. One that is large enough is reused, zeroed; a smaller one is freed once its successor is there: on failure the caller has what it had.
   *
   * @param owner Number of the thread, a non-negative int32. Only one live thread may use it.
   * @returns Byte offset of at least `byteLength` bytes.
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY` also when 64 threads have scratch already.
   */
  allocateScratch(owner: number, byteLength: number): number {
    this.#unitsOf(byteLength, "allocate scratch");
    if (!Number.isInteger(owner) || owner < 0 || owner >= 0x7fff_ffff)
      throw invalidArgument("allocate scratch", "owner", "a non-negative int32", owner);
    const word = this.#scratchEntry(owner) ?? this.#claimScratchEntry(owner);
    const old = this.#scratchRange(word);
    if (old.byteLength >= byteLength) {
      this.bytes.fill(0, old.byteOffset, old.byteOffset + byteLength);
      return old.byteOffset;
    }
    let byteOffset: number;
    try {
      byteOffset = this.take(byteLength);
    } catch (error) {
      if (old.byteLength === 0) Atomics.store(this.i32, word, 0); // publishes an entry without a range as free
      throw error;
    }
    Atomics.store(
      this.#longs,
      (word >>> 1) + SCRATCH_RANGE,
      (BigInt(byteLength) << 32n) | BigInt(byteOffset / UNIT_BYTES),
    );
    if (old.byteLength > 0) this.free(old.byteOffset, old.byteLength);
    return byteOffset;
  }

  /** Frees the scratch range of a thread that has stopped, or of the caller. Returns whether there was one. */
  freeScratch(owner: number): boolean {
    const word = this.#scratchEntry(owner);
    if (word === undefined) return false;
    const { byteOffset, byteLength } = this.#scratchRange(word);
    Atomics.store(this.#longs, (word >>> 1) + SCRATCH_RANGE, 0n);
    if (byteLength > 0) this.free(byteOffset, byteLength);
    Atomics.store(this.i32, word, 0); // publishes the entry as free
    return byteLength > 0;
  }

  /** A snapshot of what is used. */
  stats(): ArenaStats {
    const usedBytes = Atomics.load(this.i32, USED_UNITS_WORD) * UNIT_BYTES;
    return {
      capacityBytes: this.capacityBytes,
      usedBytes,
      freeBytes: this.capacityBytes - this.heapByteOffset - usedBytes,
      touchedBytes: (Atomics.load(this.i32, BUMP_WORD) - this.#heapStartUnits) * UNIT_BYTES,
      allocations: Atomics.load(this.i32, ALLOCATIONS_WORD) >>> 0,
      frees: Atomics.load(this.i32, FREES_WORD) >>> 0,
    };
  }

  #unitsOf(byteLength: number, action: string): number {
    if (!Number.isInteger(byteLength) || byteLength < 1 || byteLength > ARENA_MAX_BYTES) {
      throw invalidArgument(action, "byteLength", "an integer from 1 to 4 GiB", byteLength);
    }
    return Math.ceil(byteLength / UNIT_BYTES);
  }

  #scratchEntry(owner: number): number | undefined {
    for (let index = 0; index < SCRATCH_ENTRIES; index++) {
      const word = SCRATCH_WORD + index * SCRATCH_ENTRY_WORDS;
      if (Atomics.load(this.i32, word) === owner + 1) return word;
    }
    return undefined;
  }

  #claimScratchEntry(owner: number): number {
    for (let index = 0; index < SCRATCH_ENTRIES; index++) {
      const word = SCRATCH_WORD + index * SCRATCH_ENTRY_WORDS;
      if (Atomics.compareExchange(this.i32, word, 0, owner + 1) === 0) return word;
    }
    throw new ShardloomError(
      "ERR_OUT_OF_MEMORY",
      `Cannot allocate scratch as ${SCRATCH_ENTRIES} threads hold a range already`,
      { details: { owner } },
    );
  }

  #scratchRange(word: number): { byteOffset: number; byteLength: number } {
    const range = Atomics.load(this.#longs, (word >>> 1) + SCRATCH_RANGE);
    return { byteOffset: Number(range & LOW_32) * UNIT_BYTES, byteLength: Number(range >> 32n) };
  }

  #bump(units: number): number {
    for (;;) {
      const block = Atomics.load(this.i32, BUMP_WORD);
      if (block + units > this.#capacityUnits) return 0;
      if (Atomics.compareExchange(this.i32, BUMP_WORD, block, block + units) === block) return block;
    }
  }

  #pop(sizeClass: number): number {
    for (;;) {
      const head = Atomics.load(this.#heads, sizeClass);
      const block = Number(head & LOW_32);
      if (block === 0) return 0;
      // Another thread may pop this block and write into it meanwhile: `next` is then garbage, and the tag refuses it.
      const next = Atomics.load(this.i32, (block << 4) + BLOCK_NEXT) >>> 0;
      if (Atomics.compareExchange(this.#heads, sizeClass, head, retag(head, next)) === head) return block;
    }
  }

  #push(sizeClass: number, block: number, entry?: number): void {
    const word = block << 4;
    for (;;) {
      const head = Atomics.load(this.#heads, sizeClass);
      const tagged = retag(head, block);
      Atomics.store(this.i32, word + BLOCK_NEXT, Number(head & LOW_32));
      if (entry !== undefined) Atomics.store(this.#longs, entry / 8, 0n); // until now whoever frees what is left can free it
      this.i32[word + BLOCK_MARK_A] = FREE_MARK_A;
      this.i32[word + BLOCK_MARK_B] = FREE_MARK_B ^ block;
      if (Atomics.compareExchange(this.#heads, sizeClass, head, tagged) === head) return; // publishes the block
    }
  }

  /** Serves a class from a larger free block, and returns the rest to the lists. Only when nothing fresh is left. */
  #split(sizeClass: number): number {
    for (let larger = sizeClass + 1; larger < CLASS_COUNT; larger++) {
      const block = this.#pop(larger);
      if (block === 0) continue;
      let at = block + classUnits(sizeClass);
      const end = block + classUnits(larger);
      while (at < end) {
        let piece = classOf(end - at);
        if (classUnits(piece) > end - at) piece--;
        this.#push(piece, at);
        at += classUnits(piece);
      }
      return block;
    }
    return 0;
  }

  /** Moves everything free, a block at a time, to where neighbours merge, and takes a range from there. */
  #merge(units: number): number {
    const kept = this.#freeMap.take(units); // of an earlier merge
    if (kept !== 0) return kept;
    for (;;) {
      const rest = Atomics.load(this.i32, BUMP_WORD);
      if (rest === this.#capacityUnits) break;
      if (Atomics.compareExchange(this.i32, BUMP_WORD, rest, this.#capacityUnits) === rest)
        this.#freeMap.add(rest, this.#capacityUnits - rest);
    }
    for (let sizeClass = 0; sizeClass < CLASS_COUNT; sizeClass++) {
      for (let block = this.#pop(sizeClass); block !== 0; block = this.#pop(sizeClass))
        this.#freeMap.add(block, classUnits(sizeClass));
    }
    return this.#freeMap.take(units);
  }
}

function retag(head: bigint, block: number): bigint {
  return (BigInt.asUintN(32, (head >> 32n) + 1n) << 32n) | BigInt(block);
}
