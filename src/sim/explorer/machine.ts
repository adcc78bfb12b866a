/**
 * The memory of an exploration: shared buffers, a store buffer for each thread, and who waits where.
 *
 * Invariant: everything that an operation changes is in the undo log, so that `rollback` restores any earlier mark, and the
 * three lanes of `hash` follow the contents of memory. Under "sc" every store is visible at once. Under "tso" a plain store
 * enters its thread's buffer (first in, first out, unbounded) and becomes visible by `flush`; loads, those of `Atomics` too,
 * look into their own thread's buffer first, byte by byte. All else needs that buffer empty.
 * Source: Sewell et al., "x86-TSO", CACM 53(7), 2010. Divergence: a load that overlaps a buffered store in part is answered
 * from both, where hardware waits for the store; that adds behaviours and hides none.
 */
import { invalidArgument } from "../../errors.ts";
import type { Answer, Operation, View, ViewName, Word } from "./operation.ts";
import { drainsStores, ELEMENT_BYTES } from "./operation.ts";

export type MemoryModel = "sc" | "tso";

/** Answer of a wait that began: the thread goes on by {@link Machine.resume}. */
export const BLOCKED: unique symbol = Symbol("blocked");

interface Waiter {
  readonly thread: number;
  /** Number of an asynchronous wait of that thread; −1 for one that blocks it. */
  readonly ticket: number;
  readonly buffer: number;
  readonly offset: number;
  readonly mayTimeOut: boolean;
  readonly state: "waiting" | "ok" | "timed-out";
}

interface Backing {
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  readonly views: Partial<Record<ViewName, View>>;
  readonly memory: SharedArrayBuffer;
  readonly firstWord: number;
}

type Undo =
  | { readonly kind: "word"; readonly backing: Backing; readonly at: number; readonly before: number }
  | { readonly kind: "entered" | "flushed"; readonly thread: number }
  | { readonly kind: "waiters"; readonly before: readonly Waiter[] };

const BLOCKING = -1;
const scratch = new DataView(new ArrayBuffer(8));
const scratchBytes: Uint8Array = new Uint8Array(scratch.buffer);

export class Machine {
  readonly model: MemoryModel;
  readonly hash: Int32Array = new Int32Array(3);
  readonly #backings: Backing[] = [];
  readonly #buffered: Operation[][];
  readonly #flushed: number[];
  #waiters: readonly Waiter[] = [];
  #undo: Undo[] = [];
  #words = 0;

  constructor(model: MemoryModel, threads: number) {
    this.model = model;
    this.#buffered = Array.from({ length: threads }, () => []);
    this.#flushed = Array.from({ length: threads }, () => 0);
  }

  /** Adds a buffer, whose contents are the initial ones. @returns its number */
  addBuffer(memory: SharedArrayBuffer): number {
    if (memory.byteLength % 4 !== 0)
      throw invalidArgument("explore schedules", "shared buffers", "multiples of 4 bytes long", memory.byteLength);
    const words = viewOf("Int32Array", memory) as unknown as Int32Array;
    const bytes = viewOf("Uint8Array", memory) as unknown as Uint8Array;
    this.#backings.push({ words, bytes, views: {}, memory, firstWord: this.#words });
    this.#words += words.length;
    return this.#backings.length - 1;
  }

  /** Number of the first 4-byte word that an operation touches, over all buffers; −1 if none. */
  wordOf(operation: Operation): number {
    if (operation.kind === "fence" || operation.kind === "await") return -1;
    return (this.#backings[operation.buffer] as Backing).firstWord + (operation.offset >>> 2);
  }

  mark(): number {
    return this.#undo.length;
  }

  rollback(mark: number): void {
    while (this.#undo.length > mark) this.#revert(this.#undo.pop() as Undo);
  }

  /** Stores of a thread that are not visible yet. */
  bufferedOf(thread: number): number {
    return (this.#buffered[thread] as Operation[]).length - (this.#flushed[thread] as number);
  }

  flushedOf(thread: number): number {
    return this.#flushed[thread] as number;
  }

  /** The store that the next flush of a thread makes visible. */
  oldestOf(thread: number): Operation {
    return this.#buffered[thread]?.[this.#flushed[thread] as number] as Operation;
  }

  /** Whether an operation can be performed now: it neither waits for its own stores nor for another thread. */
  canPerform(thread: number, operation: Operation): boolean {
    if (operation.kind === "await") return this.#waiterOf(thread, Number(operation.value))?.state !== "waiting";
    const blocked = this.#waiterOf(thread, BLOCKING);
    if (blocked !== undefined) return blocked.state !== "waiting";
    return !drainsStores(operation) || this.bufferedOf(thread) === 0;
  }

  /** Whether a thread waits with a timeout that may pass. */
  canTimeOut(thread: number): boolean {
    return this.#waiters.some((waiter) => waiter.thread === thread && waiter.mayTimeOut && waiter.state === "waiting");
  }

  /** Lets the time of the first such wait pass. */
  timeOut(thread: number): void {
    const first = this.#waiters.findIndex(
      (waiter) => waiter.thread === thread && waiter.mayTimeOut && waiter.state === "waiting",
    );
    this.#setWaiters(
      this.#waiters.map((waiter, index) => (index === first ? { ...waiter, state: "timed-out" as const } : waiter)),
    );
  }

  /** Performs an operation that {@link canPerform}, or goes on with a wait that was {@link BLOCKED}. */
  perform(thread: number, operation: Operation): Answer | typeof BLOCKED {
    switch (operation.kind) {
      case "load":
      case "Atomics.load":
        return this.#load(thread, operation);
      case "store":
        if (this.model === "tso") {
          (this.#buffered[thread] as Operation[]).push(operation);
          this.#undo.push({ kind: "entered", thread });
        } else this.#write(operation, operation.value);
        return undefined;
      case "fence":
        return 0;
      case "Atomics.wait":
        return this.#wait(thread, operation);
      case "Atomics.waitAsync":
        if (this.#read(operation) !== operation.expected) return "not-equal";
        this.#enqueue(thread, Number(operation.value), operation);
        return Number(operation.value);
      case "await":
        return this.#leave(thread, Number(operation.value));
      case "Atomics.notify":
        return this.#notify(operation);
      default:
        return this.#modify(operation);
    }
  }

  /** Makes the oldest buffered store of a thread visible. */
  flush(thread: number): void {
    const store = this.oldestOf(thread);
    this.#flushed[thread] = (this.#flushed[thread] as number) + 1;
    this.#undo.push({ kind: "flushed", thread });
    this.#write(store, store.value);
  }

  /** Three words that differ for different waiters. */
  waitersHash(lane: number): number {
    let hash = 0;
    for (const { thread, ticket, buffer, offset, state } of this.#waiters) {
      hash = mix(hash, thread * 31 + ticket, lane);
      hash = mix(hash, buffer * 4099 + offset, lane);
      hash = mix(hash, state.length, lane);
    }
    return hash;
  }

  /** Who waits where, for people. */
  describeWaiters(): string {
    const waiting = this.#waiters.filter(({ state }) => state === "waiting");
    return waiting.map(({ thread, offset }) => `thread ${nameOf(thread)} sleeps at @${offset}`).join(", ");
  }

  #wait(thread: number, operation: Operation): Answer | typeof BLOCKED {
    if (this.#waiterOf(thread, BLOCKING) !== undefined) return this.#leave(thread, BLOCKING);
    if (this.#read(operation) !== operation.expected) return "not-equal";
    this.#enqueue(thread, BLOCKING, operation);
    return BLOCKED;
  }

  #enqueue(thread: number, ticket: number, { buffer, offset, timeoutMs }: Operation): void {
    const mayTimeOut = timeoutMs !== Number.POSITIVE_INFINITY;
    this.#setWaiters([...this.#waiters, { thread, ticket, buffer, offset, mayTimeOut, state: "waiting" }]);
  }

  #leave(thread: number, ticket: number): string {
    const waiter = this.#waiterOf(thread, ticket);
    if (waiter === undefined) return "ok"; // an asynchronous wait that was awaited before
    this.#setWaiters(this.#waiters.filter((other) => other !== waiter));
    return waiter.state;
  }

  #notify({ buffer, offset, value }: Operation): number {
    let left = Number(value);
    let woken = 0;
    const next = this.#waiters.map((waiter) => {
      const hit = waiter.buffer === buffer && waiter.offset === offset && waiter.state === "waiting" && left > 0;
      if (!hit) return waiter;
      left--;
      woken++;
      return { ...waiter, state: "ok" as const };
    });
    if (woken > 0) this.#setWaiters(next);
    return woken;
  }

  #waiterOf(thread: number, ticket: number): Waiter | undefined {
    return this.#waiters.find((waiter) => waiter.thread === thread && waiter.ticket === ticket);
  }

  #setWaiters(next: readonly Waiter[]): void {
    this.#undo.push({ kind: "waiters", before: this.#waiters });
    this.#waiters = next;
  }

  #modify(operation: Operation): Answer {
    const { kind, value, expected } = operation;
    const old = this.#read(operation);
    if (kind === "Atomics.compareExchange") {
      if (old === coerce(operation.view, expected)) this.#write(operation, value);
      return old;
    }
    if (kind === "Atomics.store") {
      this.#write(operation, value);
      return value;
    }
    this.#write(operation, combine(kind, old, value));
    return old;
  }

  #load(thread: number, operation: Operation): Word {
    const stores = this.#buffered[thread] as Operation[];
    const first = this.#flushed[thread] as number;
    if (first === stores.length) return this.#read(operation);
    const end = operation.offset + ELEMENT_BYTES[operation.view];
    let covered = false;
    for (let index = first; index < stores.length; index++) {
      const store = stores[index] as Operation;
      if (store.buffer !== operation.buffer || store.offset >= end) continue;
      if (store.offset + ELEMENT_BYTES[store.view] <= operation.offset) continue;
      if (!covered) scratchBytes.set(this.#bytesOf(operation));
      covered = true;
      overlay(store, operation.offset, end);
    }
    return covered ? (viewOf(operation.view, scratch.buffer)[0] as Word) : this.#read(operation);
  }

  #bytesOf({ buffer, offset, view }: Operation): Uint8Array {
    return (this.#backings[buffer] as Backing).bytes.slice(offset, offset + ELEMENT_BYTES[view]);
  }

  #viewOf({ buffer, view }: Operation): View {
    const backing = this.#backings[buffer] as Backing;
    backing.views[view] ??= viewOf(view, backing.memory);
    return backing.views[view];
  }

  #read(operation: Operation): Word {
    return this.#viewOf(operation)[operation.offset / ELEMENT_BYTES[operation.view]] as Word;
  }

  #write(operation: Operation, value: Word): void {
    const backing = this.#backings[operation.buffer] as Backing;
    const bytes = ELEMENT_BYTES[operation.view];
    const at = operation.offset >>> 2;
    const before = backing.words[at] as number;
    const second = bytes === 8 ? (backing.words[at + 1] as number) : 0;
    this.#viewOf(operation)[operation.offset / bytes] = value;
    this.#changed(backing, at, before);
    if (bytes === 8) this.#changed(backing, at + 1, second);
  }

  #changed(backing: Backing, at: number, before: number): void {
    const after = backing.words[at] as number;
    if (after === before) return;
    this.#rehash(backing.firstWord + at, before, after);
    this.#undo.push({ kind: "word", backing, at, before });
  }

  #rehash(word: number, before: number, after: number): void {
    for (let lane = 0; lane < 3; lane++) this.hash[lane]! ^= mix(word, before, lane) ^ mix(word, after, lane);
  }

  #revert(undo: Undo): void {
    switch (undo.kind) {
      case "word":
        this.#rehash(undo.backing.firstWord + undo.at, undo.backing.words[undo.at] as number, undo.before);
        undo.backing.words[undo.at] = undo.before;
        return;
      case "entered":
        (this.#buffered[undo.thread] as Operation[]).pop();
        return;
      case "flushed":
        this.#flushed[undo.thread] = (this.#flushed[undo.thread] as number) - 1;
        return;
      case "waiters":
        this.#waiters = undo.before;
        return;
    }
  }
}

/** Threads are called a, b, c … */
export function nameOf(thread: number): string {
  return String.fromCharCode(97 + thread);
}

const SALTS = [0x3c6ef372, 0x1b873593 | 0, 0x52dce729] as const;

/** Mixes two words into one; lanes are independent of each other. */
export function mix(a: number, b: number, lane: number): number {
  return finish(finish(a ^ (SALTS[lane] as number)) ^ b);
}

function finish(word: number): number {
  let mixed = Math.imul(word ^ (word >>> 16), 0x21f0aaad);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
  return mixed ^ (mixed >>> 15);
}

const CLASSES: Readonly<Record<ViewName, new (buffer: ArrayBufferLike) => unknown>> = {
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
};

function viewOf(view: ViewName, memory: ArrayBufferLike): View {
  const bytes = ELEMENT_BYTES[view];
  const whole = memory.byteLength % bytes === 0 ? memory : undefined;
  // A buffer may end inside an element of 8 bytes: the view ends before it.
  const Class = CLASSES[view] as new (buffer: ArrayBufferLike, offset?: number, length?: number) => View;
  return whole === undefined ? new Class(memory, 0, Math.floor(memory.byteLength / bytes)) : new Class(whole);
}

/** Lays the bytes of a buffered store over the scratch bytes of a load of `[start, end)`. */
function overlay(store: Operation, start: number, end: number): void {
  const bytes = ELEMENT_BYTES[store.view];
  const cell = new ArrayBuffer(8);
  viewOf(store.view, cell)[0] = store.value;
  const stored = viewOf("Uint8Array", cell) as unknown as Uint8Array;
  for (let byte = 0; byte < bytes; byte++) {
    const at = store.offset + byte;
    if (at >= start && at < end) scratchBytes[at - start] = stored[byte] as number;
  }
}

/** What a view would hold after storing a value: how compareExchange converts its operand. */
function coerce(view: ViewName, value: Word): Word {
  const cell = viewOf(view, new ArrayBuffer(8));
  cell[0] = value;
  return cell[0];
}

function combine(kind: Operation["kind"], old: Word, value: Word): Word {
  if (typeof old === "bigint" || typeof value === "bigint") {
    const [left, right] = [BigInt(old), BigInt(value)];
    if (kind === "Atomics.add") return left + right;
    if (kind === "Atomics.sub") return left - right;
    if (kind === "Atomics.and") return left & right;
    if (kind === "Atomics.or") return left | right;
    return kind === "Atomics.xor" ? left ^ right : right;
  }
  if (kind === "Atomics.add") return old + value;
  if (kind === "Atomics.sub") return old - value;
  if (kind === "Atomics.and") return old & value;
  if (kind === "Atomics.or") return old | value;
  return kind === "Atomics.xor" ? old ^ value : value;
}
