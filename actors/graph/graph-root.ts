/**
 * The root of one shard's part of a graph: the registered block from which its vertices, its edges and what its runs have saved are found.
 *
 * Invariant: every block that a root names is one registered region of exactly the block's length, and is written before it is named. So a
 * successor takes out of its predecessor's regions what the root names, and whatever else is left can be freed. `sequence` is odd while
 * the tables of keys move; who reads them from another thread looks at it before and after. Only the owner writes.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import { ACCESS, type AdoptedRegion, type RegionRef, type RegionTable } from "../../native-bridge/region-table.ts";
import { ShardloomError } from "../../src/errors.ts";

/** A registered range of the arena. */
export interface Block {
  readonly address: number;
  readonly byteLength: number;
  readonly ref: RegionRef;
}

/** The regions of a dead worker by address; what is taken over is taken out. */
type Adopted = Map<number, AdoptedRegion>;

const MAGIC = 0x67726631;
const ROOT_BYTES = 8192;

/** Word indices in the root. A block is named by its address. */
export const ROOT_WORD = {
  magic: 0,
  collection: 1,
  sequence: 2,
  vertices: 3,
  indexMask: 4,
  heapUsed: 5,
  strings: 6,
  staged: 7,
  structure: 8,
  generation: 9,
  index: 10,
  keys: 12,
  heap: 14,
  out: 16,
  gone: 18,
  removed: 20,
  epoch: 21,
  stage: 32,
  runs: 1088,
  properties: 1344,
  text: 1376,
  textUsed: 1378,
} as const;

/** Most blocks of edges that wait to be built in. */
export const MAX_STAGE_BLOCKS = 512;
/** Most properties of vertices, and of edges. */
export const MAX_PROPERTIES = 16;
/** Runs whose state a root can name, and words of each. */
export const MAX_RUNS = 16;
const RUN_WORDS = 16;

/** What a root names of a run: two checkpoints that take turns, and the result; `gone`: where in it, in bytes, rows without vertices are flagged. */
export const RUN_WORD = { id: 0, step: [1, 2], block: [4, 6], result: 8, fields: 10, rows: 11, gone: 12 } as const;

export class GraphRoot {
  readonly arena: Arena;
  readonly ref: RegionRef;
  readonly #regions: RegionTable;
  readonly #base: number;
  readonly #blocks: Map<number, Block> = new Map();

  private constructor(arena: Arena, regions: RegionTable, ref: RegionRef) {
    this.arena = arena;
    this.#regions = regions;
    this.ref = ref;
    this.#base = ref.address >>> 2;
  }

  static create(arena: Arena, regions: RegionTable, collection: number): GraphRoot {
    const address = arena.allocate(ROOT_BYTES);
    const ref = registered(arena, regions, address, ROOT_BYTES);
    const root = new GraphRoot(arena, regions, ref);
    root.set(ROOT_WORD.collection, collection);
    root.set(ROOT_WORD.magic, MAGIC);
    return root;
  }

  /**
   * Takes over a dead worker's root with every block that it names.
   *
   * @throws {ShardloomError} `ERR_CORRUPT` when the address holds no root of this graph.
   */
  static adopt(arena: Arena, regions: RegionTable, collection: number, address: number, adopted: Adopted): GraphRoot {
    const ref = adopted.get(address);
    if (ref === undefined || !isRootOf(arena, collection, address)) {
      throw new ShardloomError(
        "ERR_CORRUPT",
        `Cannot recover graph ${collection} as its root address must hold its root: current value is ${address}`,
        { details: { collection, address } },
      );
    }
    adopted.delete(address);
    const root = new GraphRoot(arena, regions, ref);
    root.#adoptBlocks(adopted);
    if ((root.get(ROOT_WORD.sequence) & 1) !== 0) root.set(ROOT_WORD.sequence, root.get(ROOT_WORD.sequence) + 1);
    return root;
  }

  get(word: number): number {
    return Atomics.load(this.arena.u32, this.#base + word);
  }

  /** Publishes a word. */
  set(word: number, value: number): void {
    Atomics.store(this.arena.u32, this.#base + word, value);
  }

  /** Allocates and registers a block that nothing names yet. @throws {ShardloomError} `ERR_OUT_OF_MEMORY`, `ERR_REGION_TABLE_FULL`. */
  allocate(byteLength: number): Block {
    const address = this.arena.allocate(byteLength);
    const ref = registered(this.arena, this.#regions, address, byteLength);
    const block: Block = { address, byteLength, ref };
    this.#blocks.set(address, block);
    return block;
  }

  /** Revokes and frees a block that nothing names any more. */
  release(block: Block): void {
    if (!this.#blocks.delete(block.address)) return;
    this.#regions.deregister(block.ref);
    this.arena.free(block.address, block.byteLength);
  }

  /** The block that a pair of words names. */
  block(word: number): Block | undefined {
    return this.#blocks.get(this.get(word));
  }

  /** Names a block, or none, by one store. @returns the one that was named before */
  name(word: number, block: Block | undefined): Block | undefined {
    const before = this.block(word);
    this.set(word, block?.address ?? 0);
    return before;
  }

  /** Word index of a run's entry; with `make` one is taken. */
  run(id: number, make: boolean): number | undefined {
    let free: number | undefined;
    for (let at = 0; at < MAX_RUNS; at++) {
      const word = ROOT_WORD.runs + at * RUN_WORDS;
      const found = this.get(word + RUN_WORD.id);
      if (found === id) return word;
      if (found === 0) free ??= word;
    }
    if (!make) return undefined;
    if (free === undefined) {
      throw new ShardloomError("ERR_OVERLOADED", `Cannot begin run as ${MAX_RUNS} runs of this graph hold results`, {
        details: { limit: MAX_RUNS },
      });
    }
    this.set(free + RUN_WORD.id, id);
    return free;
  }

  /** Runs that have something saved, a result, or their place for one. */
  runs(): number[] {
    const ids: number[] = [];
    for (let at = 0; at < MAX_RUNS; at++) {
      const id = this.get(ROOT_WORD.runs + at * RUN_WORDS + RUN_WORD.id);
      if (id !== 0) ids.push(id);
    }
    return ids;
  }

  /** Frees what a run has saved. */
  forgetRun(id: number): void {
    const word = this.run(id, false);
    if (word === undefined) return;
    for (const step of RUN_WORD.step) this.set(word + step, 0);
    for (const at of [...RUN_WORD.block, RUN_WORD.result]) {
      const block = this.name(word + at, undefined);
      if (block !== undefined) this.release(block);
    }
    this.set(word + RUN_WORD.id, 0);
  }

  /** Frees everything. */
  drop(): void {
    this.set(ROOT_WORD.magic, 0);
    for (const block of [...this.#blocks.values()]) this.release(block);
    this.#regions.deregister(this.ref);
    this.arena.free(this.ref.address, ROOT_BYTES);
  }

  #adoptBlocks(adopted: Adopted): void {
    const words: number[] = [
      ROOT_WORD.index,
      ROOT_WORD.keys,
      ROOT_WORD.heap,
      ROOT_WORD.out,
      ROOT_WORD.gone,
      ROOT_WORD.text,
    ];
    for (let at = 0; at < MAX_PROPERTIES; at++) words.push(ROOT_WORD.properties + 2 * at);
    for (let at = 0; at < MAX_STAGE_BLOCKS; at++) words.push(ROOT_WORD.stage + 2 * at);
    for (let at = 0; at < MAX_RUNS; at++)
      for (const word of [...RUN_WORD.block, RUN_WORD.result]) words.push(ROOT_WORD.runs + at * RUN_WORDS + word);
    for (const word of words) {
      const address = this.get(word);
      const region = address === 0 ? undefined : adopted.get(address);
      if (region === undefined) {
        this.set(word, 0);
        continue;
      }
      adopted.delete(address);
      const { rkey, length } = region;
      this.#blocks.set(address, { address, byteLength: length, ref: { address, rkey, length } });
    }
  }
}

/** Whether there is a root of that graph at an address. */
export function isRootOf(arena: Arena, collection: number, address: number): boolean {
  const word = address >>> 2;
  return arena.i32[word] === MAGIC && arena.i32[word + ROOT_WORD.collection] === collection;
}

function registered(arena: Arena, regions: RegionTable, address: number, byteLength: number): RegionRef {
  try {
    return regions.register({ byteOffset: address, byteLength, access: ACCESS.READ });
  } catch (error) {
    arena.free(address, byteLength);
    throw error;
  }
}
