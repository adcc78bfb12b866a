/**
 * What a write with a key is about to do, in the arena, from its first byte to its last: a worker that dies in between leaves it, and its
 * successor does it again, key included. So such a write is done whole or not at all.
 *
 * ```
 *  block   header (marked-block.ts; own words: state, effects), then per effect: i32 vshard | i32 type | i32 collection | i32 bytes, body
 * ```
 *
 * Invariant: the state is COMMITTED only while everything of the write stands here and some of it may not be in the rows. Applying effects
 * that were applied before changes nothing, so that it does not matter how far the dead worker had come.
 * Owner thread only.
 */
import type { Adopted } from "../../src/store/collection-root.ts";
import type { ReceivedEffect } from "../engine.ts";
import {
  BLOCK_HEADER_BYTES,
  BLOCK_KIND,
  type BlockSource,
  createBlock,
  FIRST_OWN_WORD,
  findBlock,
  freeBlock,
  type MarkedBlock,
} from "./marked-block.ts";
import type { PendingEffect } from "./replicated-write.ts";

const STATE = { EMPTY: 0, COMMITTED: 1 } as const;
const EFFECT_HEADER = 16;
const MIN_BYTES: number = 16 * 1024;

export class WriteIntent {
  readonly #source: BlockSource;
  #block: MarkedBlock | undefined;

  /** @param adopted What a dead worker had: its intent is taken over. */
  constructor(source: BlockSource, adopted?: Adopted) {
    this.#source = source;
    this.#block = adopted && findBlock(source, BLOCK_KIND.INTENT, adopted);
  }

  /**
   * Takes in the effects of the next write; they do not count before `commit`.
   *
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY`, `ERR_REGION_TABLE_FULL`
   */
  prepare(effects: readonly PendingEffect[]): void {
    const bytes = effects.reduce((sum, { body }) => sum + EFFECT_HEADER + pad(body.length), BLOCK_HEADER_BYTES);
    const block = this.#room(bytes);
    const { arena } = this.#source;
    let at = block.address + BLOCK_HEADER_BYTES;
    for (const { vshard, type, collection, body } of effects) {
      arena.i32.set([vshard, type, collection, body.length], at >>> 2);
      arena.bytes.set(body, at + EFFECT_HEADER);
      at += EFFECT_HEADER + pad(body.length);
    }
    arena.i32[(block.address >>> 2) + FIRST_OWN_WORD + 1] = effects.length;
  }

  /** From here on the write happens, whoever does it. */
  commit(): void {
    this.#setState(STATE.COMMITTED);
  }

  /** It has happened. */
  clear(): void {
    this.#setState(STATE.EMPTY);
  }

  /** The effects of a write that a dead worker may not have done whole; none when there is no such write. */
  *left(): Generator<ReceivedEffect> {
    const block = this.#block;
    if (block === undefined) return;
    const { bytes, i32, f32, f64 } = this.#source.arena;
    const own = (block.address >>> 2) + FIRST_OWN_WORD;
    if (Atomics.load(i32, own) !== STATE.COMMITTED) return; // acquires
    let at = block.address + BLOCK_HEADER_BYTES;
    for (let left = i32[own + 1] as number; left > 0; left--) {
      const [vshard = 0, type = 0, collection = 0, length = 0] = i32.subarray(at >>> 2, (at >>> 2) + 4);
      yield { bytes, i32, f32, f64, vshard, type, collection, offset: at + EFFECT_HEADER, length };
      at += EFFECT_HEADER + pad(length);
    }
  }

  #setState(state: number): void {
    if (this.#block !== undefined)
      Atomics.store(this.#source.arena.i32, (this.#block.address >>> 2) + FIRST_OWN_WORD, state); // publishes
  }

  #room(bytes: number): MarkedBlock {
    const old = this.#block;
    if (old !== undefined && old.byteLength >= bytes) return old;
    let byteLength = old?.byteLength ?? MIN_BYTES;
    while (byteLength < bytes) byteLength *= 2;
    const block = createBlock(this.#source, BLOCK_KIND.INTENT, byteLength, (old?.generation ?? 0) + 1);
    this.#block = block;
    if (old !== undefined) freeBlock(this.#source, old);
    return block;
  }
}

function pad(bytes: number): number {
  return (bytes + 7) & ~7;
}
