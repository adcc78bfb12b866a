/**
 * Cell: a seqlocked unit inside a region, written by one thread at a time and read by any without a lock.
 *
 * Invariant: a reader that sees the same even (high, low) version before and after has an untorn snapshot. Readers load
 * high, low, data, low, high; the writer that wraps the low word stores high first, so a wrap cannot hide between them.
 * Source: Lameter's and Hemminger's seqlock (Linux 2.5.59); Boehm, "Can seqlocks get along with programming language
 * memory models?", MSPC'12, §4 (the read-modify-write second check). Divergence: the writer takes the cell by
 * compare-and-swap, so that two writers exclude each other; the version is 2×32 bits, as JavaScript has no cheap 64-bit atomics.
 */
import { CELL_HEADER_BYTES, INCARNATION, INCARNATION_MASK, VERSION_HIGH, VERSION_LOW } from "./cell-layout.ts";

/**
 * Whether the second version check must be a read-modify-write. A later acquire load does not order earlier plain loads;
 * x86 keeps loads in order by itself, other processors need the release half of a read-modify-write.
 */
export const NEEDS_RMW_CHECK: boolean = process.arch !== "x64" && process.arch !== "ia32";

/** Attempts of a read or write on a busy cell before it ends in RETRY_EXCEEDED. */
export const CELL_ATTEMPTS = 128;
/** Loads between two attempts on a cell that is being written. */
const BUSY_SPINS = 24;

/**
 * Takes the cell for writing: its version becomes odd. At most one thread holds a cell.
 *
 * @param byteOffset Byte offset of the cell in the memory of `i32`, a multiple of 16.
 * @returns False when another writer holds it (or died holding it: see {@link repairOdd}).
 */
export function tryBeginWrite(i32: Int32Array, byteOffset: number): boolean {
  const word = (byteOffset >>> 2) + VERSION_LOW;
  const low = Atomics.load(i32, word);
  return (low & 1) === 0 && Atomics.compareExchange(i32, word, low, (low + 1) | 0) === low; // acquires the cell
}

/** As {@link tryBeginWrite}, with a bounded number of attempts. */
export function beginWrite(i32: Int32Array, byteOffset: number, attempts: number = CELL_ATTEMPTS): boolean {
  for (let attempt = 0; attempt < attempts; attempt++) {
    if (tryBeginWrite(i32, byteOffset)) return true;
    spinWhileOdd(i32, byteOffset >>> 2);
  }
  return false;
}

/** Publishes what was written: the version becomes even. Only by the thread whose {@link beginWrite} succeeded. */
export function endWrite(i32: Int32Array, byteOffset: number): void {
  const word = byteOffset >>> 2;
  const next = ((i32[word + VERSION_LOW] as number) + 1) | 0;
  if (next === 0) Atomics.add(i32, word + VERSION_HIGH, 1); // before the low word, see the invariant
  Atomics.store(i32, word + VERSION_LOW, next); // publishes
}

/** Ends a write that changed nothing: the version is what it was before {@link beginWrite}, so readers need not retry. */
export function cancelWrite(i32: Int32Array, byteOffset: number): void {
  Atomics.sub(i32, (byteOffset >>> 2) + VERSION_LOW, 1);
}

/**
 * Gives the cell to another logical owner: references to the old one end in STALE_CELL. Between beginWrite and endWrite only.
 *
 * @returns The new incarnation, to be used as `generation` of references.
 */
export function bumpIncarnation(i32: Int32Array, byteOffset: number): number {
  const word = (byteOffset >>> 2) + INCARNATION;
  const next = ((i32[word] as number) + 1) & INCARNATION_MASK;
  i32[word] = next;
  return next;
}

/** Incarnation of a cell. Stable only while the caller owns the cell. */
export function incarnationOf(i32: Int32Array, byteOffset: number): number {
  return Atomics.load(i32, (byteOffset >>> 2) + INCARNATION);
}

/** Whether a writer holds the cell, or died holding it. */
export function isOdd(i32: Int32Array, byteOffset: number): boolean {
  return (Atomics.load(i32, (byteOffset >>> 2) + VERSION_LOW) & 1) !== 0;
}

/**
 * Ends the write that a dead thread left open. Its payload is unspecified, so the incarnation is bumped and references to
 * the cell go stale. Only when no live thread can hold the cell.
 *
 * @returns Whether the cell was odd.
 */
export function repairOdd(i32: Int32Array, byteOffset: number): boolean {
  if (!isOdd(i32, byteOffset)) return false;
  bumpIncarnation(i32, byteOffset);
  endWrite(i32, byteOffset);
  return true;
}

/**
 * Reads one cell at a time: `begin`, load whatever is wanted, `validate`. No allocation; one per thread.
 *
 * @example Read two words consistently
 * if (reader.begin(cell)) { a = i32[cell / 4 + 8]; b = i32[cell / 4 + 9]; if (reader.validate()) use(a, b); }
 */
export class CellReader {
  readonly #i32: Int32Array;
  readonly #rmw: boolean;
  #word = 0;
  #low = 0;
  #high = 0;

  constructor(i32: Int32Array, rmwCheck: boolean = NEEDS_RMW_CHECK) {
    this.#i32 = i32;
    this.#rmw = rmwCheck;
  }

  /** Notes the version. False while a writer holds the cell. */
  begin(byteOffset: number): boolean {
    const word = byteOffset >>> 2;
    this.#word = word;
    this.#high = loadFirst(this.#i32, word + VERSION_HIGH, this.#rmw); // acquires
    this.#low = loadFirst(this.#i32, word + VERSION_LOW, this.#rmw); // acquires
    return (this.#low & 1) === 0;
  }

  /** Whether everything loaded since `begin` belongs to one version. */
  validate(): boolean {
    return sameVersion(this.#i32, this.#word, this.#low, this.#high, this.#rmw);
  }
}

/**
 * Runs `visit` until it saw one version of the cell, at most `attempts` times, so `visit` must be repeatable.
 * What it throws over a torn cell is dropped and retried; what it throws over a whole one propagates.
 *
 * @returns What the validated call returned, or undefined when the attempts ran out.
 */
export function tryRead<T>(
  i32: Int32Array,
  byteOffset: number,
  visit: (payloadByteOffset: number) => T,
  attempts: number = CELL_ATTEMPTS,
): T | undefined {
  const reader = new CellReader(i32);
  for (let attempt = 0; attempt < attempts; attempt++) {
    if (!reader.begin(byteOffset)) {
      spinWhileOdd(i32, byteOffset >>> 2);
      continue;
    }
    try {
      const value = visit(byteOffset + CELL_HEADER_BYTES);
      if (reader.validate()) return value;
    } catch (error) {
      if (reader.validate()) throw error;
    }
  }
  return undefined;
}

/**
 * Second check of a read: the version at `word` is still (high, low).
 *
 * The one atomic call is also what keeps the engine from merging or moving the plain loads around it (it calls out, for about
 * 8 ns on Node 20); the high word, loaded after it, may then be plain on x86.
 */
export function sameVersion(i32: Int32Array, word: number, low: number, high: number, rmw: boolean): boolean {
  const now = rmw ? Atomics.add(i32, word + VERSION_LOW, 0) : Atomics.load(i32, word + VERSION_LOW);
  return now === low && loadFirst(i32, word + VERSION_HIGH, rmw) === high;
}

/**
 * First load of a check: later loads must not be done before it. An atomic load where the processor may reorder loads; on
 * x86 it does not, and V8 keeps loads in program order (they are one effect chain), so a plain one does for a sixteenth of the cost.
 */
export function loadFirst(i32: Int32Array, word: number, rmw: boolean): number {
  return rmw ? Atomics.load(i32, word) : (i32[word] as number);
}

/** Waits a few loads for the writer of a cell. */
export function spinWhileOdd(i32: Int32Array, word: number): void {
  for (let spin = 0; spin < BUSY_SPINS; spin++) {
    if ((Atomics.load(i32, word + VERSION_LOW) & 1) === 0) return;
  }
}
