/**
 * Memory order that JavaScript has no words for: release store, acquire load and full fence over shared memory.
 *
 * Invariant: stores before storeRelease() are visible to whoever saw its value through loadAcquire(). Neither orders a
 * store against a *later load* of another word: where two threads each store and then look at the other's word (Dekker),
 * a fullFence(), or an Atomics store or read-modify-write, stands in between.
 * Source: Sewell et al., "x86-TSO", CACM 53(7), 2010; V8 compiles typed-array accesses to single moves, in program order.
 * Divergence: the language calls plain shared accesses unordered. On x86 the processor orders them as release and acquire,
 * at a tenth of the price of `Atomics`, which are calls; every other processor takes the `Atomics` form.
 */

/** Whether plain stores become visible in program order and plain loads are not reordered with each other. */
export const TOTAL_STORE_ORDER: boolean = process.arch === "x64" || process.arch === "ia32";

const fenceWord = new Int32Array(new SharedArrayBuffer(4));

/** Stores so that everything stored before is visible with it. */
export function storeRelease(words: Int32Array, index: number, value: number): void {
  if (TOTAL_STORE_ORDER) words[index] = value;
  else Atomics.store(words, index, value);
}

/**
 * Loads so that everything stored before the value is visible too. The value may be stale for a moment; who ends a wait on
 * it confirms with `Atomics.load`, which no compiler keeps out of a loop.
 */
export function loadAcquire(words: Int32Array, index: number): number {
  return TOTAL_STORE_ORDER ? (words[index] as number) : Atomics.load(words, index);
}

/** Orders every store before against every load after; of storeRelease() too. Free where that is an `Atomics.store`. */
export function fullFence(): void {
  if (TOTAL_STORE_ORDER) Atomics.add(fenceWord, 0, 0); // any locked instruction drains the store buffer
}
