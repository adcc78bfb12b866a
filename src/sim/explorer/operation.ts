/**
 * One access to shared memory by a logical thread of an exploration, as data, and what it answers.
 *
 * Invariant: an operation says everything that a memory needs to perform it, and two runs of a thread that got the same
 * answers make equal operations. Offsets are bytes within a numbered buffer.
 */

/** What an operation does. Everything from `add` on is a locked instruction or a system call: it drains the store buffer. */
export type OperationKind =
  | "load"
  | "store"
  | "Atomics.load"
  | "Atomics.store"
  | "Atomics.add"
  | "Atomics.sub"
  | "Atomics.and"
  | "Atomics.or"
  | "Atomics.xor"
  | "Atomics.exchange"
  | "Atomics.compareExchange"
  | "fence"
  | "Atomics.wait"
  | "Atomics.waitAsync"
  | "Atomics.notify"
  | "await";

/** A value in memory. */
export type Word = number | bigint;
/** What an operation answers: a value, nothing, or how a wait ended. */
export type Answer = Word | string | undefined;

export interface Operation {
  readonly kind: OperationKind;
  /** Name of the view's class, such as `Int32Array`. */
  readonly view: ViewName;
  /** Number of the buffer in order of appearance. */
  readonly buffer: number;
  /** Byte offset in it. */
  readonly offset: number;
  /** What is stored, added, awaited (the number of an asynchronous wait of this thread), or how many are notified. */
  readonly value: Word;
  /** What compareExchange compares with. */
  readonly expected: Word;
  /** Of waits: milliseconds, infinity without one. */
  readonly timeoutMs: number;
}

/** Bytes of an element, by the name of the view's class. */
export const ELEMENT_BYTES = {
  Int8Array: 1,
  Uint8Array: 1,
  Uint8ClampedArray: 1,
  Int16Array: 2,
  Uint16Array: 2,
  Int32Array: 4,
  Uint32Array: 4,
  Float32Array: 4,
  Float64Array: 8,
  BigInt64Array: 8,
  BigUint64Array: 8,
} as const;

export type ViewName = keyof typeof ELEMENT_BYTES;

/** A view of any of these classes. */
export type View = {
  readonly length: number;
  readonly buffer: ArrayBufferLike;
  readonly byteOffset: number;
  readonly byteLength: number;
  [index: number]: Word;
};

export function sameOperation(a: Operation, b: Operation): boolean {
  return (
    a.kind === b.kind &&
    a.view === b.view &&
    a.buffer === b.buffer &&
    a.offset === b.offset &&
    Object.is(a.value, b.value) &&
    Object.is(a.expected, b.expected)
  );
}

/** Whether it needs an empty store buffer: x86's locked instructions, and waits, which are system calls. */
export function drainsStores({ kind }: Operation): boolean {
  return kind !== "load" && kind !== "store" && kind !== "Atomics.load" && kind !== "await";
}

export function isLoad({ kind }: Operation): boolean {
  return kind === "load" || kind === "Atomics.load";
}

/** Whether it may change memory. */
export function isWrite({ kind }: Operation): boolean {
  return kind !== "load" && kind !== "Atomics.load" && kind !== "await" && !kind.startsWith("Atomics.wait");
}

/** Whether it concerns sleeping and waking, which no other operation may be moved across unseen. */
export function concernsWaiting({ kind }: Operation): boolean {
  return kind === "await" || kind === "Atomics.wait" || kind === "Atomics.waitAsync" || kind === "Atomics.notify";
}

/** One line for people: `Atomics.add i32 @128 1`. */
export function describeOperation(operation: Operation): string {
  const { kind, view, buffer, offset, value, expected } = operation;
  if (kind === "fence") return "fence";
  if (kind === "await") return `await #${value}`;
  const place = `${view.replace("Array", "").toLowerCase()} ${buffer === 0 ? "" : `${buffer}:`}@${offset}`;
  if (kind === "Atomics.compareExchange") return `${kind} ${place} ${expected} -> ${value}`;
  return isLoad(operation) || kind === "Atomics.notify" ? `${kind} ${place}` : `${kind} ${place} ${value}`;
}
