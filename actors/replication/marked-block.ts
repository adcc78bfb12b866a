/**
 * A block of the arena that a worker's successor finds again by what stands at its beginning.
 *
 * ```
 *  i32 magic | i32 magic | i32 kind | i32 address / 16 | i32 generation | i32 bytes | i32 (owner's) × 2 | 32 bytes unused
 * ```
 *
 * Invariant: the head is whole before the block is registered, and only what is registered is ever adopted. A block is replaced by one of a
 * higher generation before it is freed, so that of two that are found the higher one is whole.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import { ACCESS, type RegionRef, type RegionTable } from "../../native-bridge/region-table.ts";
import type { Adopted } from "../../src/store/collection-root.ts";

const MAGIC_A = 0x5368_6b65;
const MAGIC_B = 0x1d3a_97c5;
/** Words that are for who has the block. */
export const FIRST_OWN_WORD = 6;
export const BLOCK_HEADER_BYTES = 64;

/** What blocks are for. */
export const BLOCK_KIND = { KEYS: 1, INTENT: 2 } as const;
export type BlockKind = (typeof BLOCK_KIND)[keyof typeof BLOCK_KIND];

export interface MarkedBlock {
  readonly address: number;
  /** Header included. */
  readonly byteLength: number;
  readonly generation: number;
  readonly ref: RegionRef;
}

/** Where blocks come from. */
export interface BlockSource {
  readonly arena: Arena;
  readonly regions: RegionTable;
}

/**
 * Takes a block; nobody finds it before `publish`.
 *
 * @throws {ShardloomError} `ERR_OUT_OF_MEMORY`, `ERR_REGION_TABLE_FULL`
 */
export function createBlock(
  { arena, regions }: BlockSource,
  kind: BlockKind,
  byteLength: number,
  generation: number,
  fill: (address: number) => void = () => undefined,
): MarkedBlock {
  const address = arena.allocate(byteLength);
  try {
    arena.i32.set([MAGIC_A, MAGIC_B, kind, address / 16, generation, byteLength], address >>> 2);
    fill(address);
    const ref = regions.register({ byteOffset: address, byteLength, access: ACCESS.READ });
    return { address, byteLength, generation, ref };
  } catch (error) {
    arena.free(address, byteLength);
    throw error;
  }
}

/** Gives a block back. */
export function freeBlock({ arena, regions }: BlockSource, { ref, address, byteLength }: MarkedBlock): void {
  regions.deregister(ref);
  arena.i32.fill(0, address >>> 2, (address >>> 2) + FIRST_OWN_WORD);
  arena.free(address, byteLength);
}

/** The newest block of a kind that a dead worker had, taken out of what was adopted; older ones are freed. */
export function findBlock(source: BlockSource, kind: BlockKind, adopted: Adopted): MarkedBlock | undefined {
  const { i32 } = source.arena;
  const found: MarkedBlock[] = [];
  for (const { address, length, rkey } of adopted.values()) {
    const word = address >>> 2;
    const [a, b, of, at, generation = 0, byteLength] = i32.subarray(word, word + FIRST_OWN_WORD);
    if (length < BLOCK_HEADER_BYTES || a !== MAGIC_A || b !== MAGIC_B || of !== kind) continue;
    if (at !== address / 16 || byteLength !== length) continue;
    found.push({ address, byteLength: length, generation, ref: { address, rkey, length } });
  }
  for (const { address } of found) adopted.delete(address);
  found.sort((x, y) => y.generation - x.generation);
  for (const older of found.slice(1)) freeBlock(source, older);
  return found[0];
}
