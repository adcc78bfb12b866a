/**
 * An allocator that a test makes fail, over one block of an arena.
 *
 * Invariant: around what is taken there is nothing but {@link GUARD}, also where something was before; so whatever is written beside a range that is
 * taken is seen by {@link FailingArena.strayByte}.
 */
import type { Arena } from "../../../../native-bridge/arena.ts";
import type { KernelArena } from "../../../../native-bridge/kernels.ts";
import { ShardloomError } from "../../../../src/errors.ts";

const GUARD = 0xa5;
const GUARD_BYTES = 4096;

export class FailingArena implements KernelArena {
  readonly memory: WebAssembly.Memory;
  /** Allocations that were asked for. */
  asked = 0;
  /** Which of them fail, counted from 1. */
  fails: (allocation: number) => boolean = () => false;
  readonly #bytes: Uint8Array;
  readonly #pool: number;
  readonly #poolBytes: number;
  readonly #taken: Map<number, number> = new Map();
  readonly #scratch: Map<number, readonly [address: number, byteLength: number]> = new Map();

  constructor(arena: Arena, poolBytes: number) {
    this.memory = arena.memory;
    this.#bytes = arena.bytes;
    this.#pool = arena.allocate(poolBytes);
    this.#poolBytes = poolBytes;
    this.#bytes.fill(GUARD, this.#pool, this.#pool + poolBytes);
  }

  /** Ranges that are taken. */
  get taken(): number {
    return this.#taken.size;
  }

  allocate(byteLength: number): number {
    if (this.fails(++this.asked))
      throw new ShardloomError("ERR_OUT_OF_MEMORY", `Cannot allocate ${byteLength} bytes as a test lets it fail`);
    const padded = (byteLength + 63) & ~63;
    let address = this.#pool + GUARD_BYTES;
    for (const [other, length] of this.#inOrder()) {
      if (other - address >= padded + GUARD_BYTES) break;
      address = (other + length + GUARD_BYTES + 63) & ~63;
    }
    if (address + padded + GUARD_BYTES > this.#pool + this.#poolBytes) throw new Error("the test's pool is too small");
    this.#bytes.fill(0, address, address + byteLength);
    this.#taken.set(address, byteLength);
    return address;
  }

  free(address: number, byteLength: number): void {
    if (this.#taken.get(address) !== byteLength) throw new Error(`no range of ${byteLength} bytes at ${address}`);
    this.#taken.delete(address);
    this.#bytes.fill(GUARD, address, address + byteLength);
  }

  allocateScratch(owner: number, byteLength: number): number {
    const [old, oldBytes] = this.#scratch.get(owner) ?? [0, 0];
    if (oldBytes >= byteLength) {
      this.#bytes.fill(0, old, old + byteLength);
      return old;
    }
    const address = this.allocate(byteLength);
    this.#scratch.set(owner, [address, byteLength]);
    if (oldBytes > 0) this.free(old, oldBytes);
    return address;
  }

  freeScratch(owner: number): boolean {
    const range = this.#scratch.get(owner);
    if (range !== undefined) this.free(...range);
    return this.#scratch.delete(owner);
  }

  /** Where something was written that nobody has taken; undefined: nowhere. */
  strayByte(): number | undefined {
    let from = this.#pool;
    for (const [address, byteLength] of [...this.#inOrder(), [this.#pool + this.#poolBytes, 0] as const]) {
      const stray = this.#bytes.subarray(from, address).findIndex((byte) => byte !== GUARD);
      if (stray >= 0) return from + stray;
      from = address + byteLength;
    }
    return undefined;
  }

  #inOrder(): [address: number, byteLength: number][] {
    return [...this.#taken].sort(([a], [b]) => a - b);
  }
}
