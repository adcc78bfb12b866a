/**
 * Typed arrays and `Atomics` whose every access to shared memory is one operation handed to a stepper.
 *
 * Invariant: a view over a shared buffer that the stepper knows never touches that buffer itself; methods that move many
 * elements go word by word in ascending order. What is not understood throws; nothing is passed through in silence.
 * Views over unshared memory are real ones, as no other thread can see them.
 * Divergence: the copies of a processor (memmove) may go in any order and size; the code under test must not rely on one.
 */
import { invalidArgument } from "../../errors.ts";
import type { Answer, Operation, OperationKind, View, ViewName, Word } from "./operation.ts";
import { ELEMENT_BYTES } from "./operation.ts";

export interface Stepper {
  /** Number of a shared buffer. */
  bufferOf(memory: SharedArrayBuffer): number;
  /** Performs, records or repeats one operation of the running thread. */
  step(operation: Operation): Answer;
  /** Number of the next asynchronous wait of the running thread. */
  nextTicket(): number;
}

/** What `Atomics.waitAsync` answers in an exploration; a body hands it to `thread.await`. */
export interface ModelledWait {
  /** Number of the wait within its thread. */
  readonly ticket: number;
  /** What is called, in order, with the answer of the one before, when the thread has awaited it. */
  readonly callbacks: readonly ((value: unknown) => unknown)[];
  then(callback: (value: unknown) => unknown): ModelledWait;
}

interface Place {
  readonly view: ViewName;
  readonly memory: SharedArrayBuffer;
  readonly buffer: number;
  readonly byteOffset: number;
  readonly length: number;
}

const places: WeakMap<object, Place> = new WeakMap();
const tickets: WeakMap<object, ModelledWait> = new WeakMap();

/** Creates a view over a known shared buffer. */
export function createSteppingView(
  stepper: Stepper,
  view: ViewName,
  memory: SharedArrayBuffer,
  byteOffset: number,
  length: number,
  prototype: object,
): View {
  const place: Place = { view, memory, buffer: stepper.bufferOf(memory), byteOffset, length };
  const members = membersOf(stepper, place, prototype);
  const proxy = new Proxy(
    {},
    {
      get: (_, key) => {
        if (typeof key === "symbol") return key === Symbol.iterator ? members["values"] : undefined;
        const index = indexOf(key);
        if (index >= 0) return index < length ? access(stepper, place, "load", index, 0) : undefined;
        if (key in members) return members[key];
        throw unknownMember(view, key);
      },
      set: (_, key, value: Word) => {
        const index = typeof key === "symbol" ? -1 : indexOf(key);
        if (index < 0) throw unknownMember(view, String(key));
        if (index < length) access(stepper, place, "store", index, converted(view, value));
        return true;
      },
      has: (_, key) => typeof key === "string" && indexOf(key) >= 0 && indexOf(key) < length,
      getPrototypeOf: () => prototype,
    },
  );
  places.set(proxy, place);
  return proxy as View;
}

/** `Atomics` over stepping views; over anything unshared it is the real one. */
export function createSteppingAtomics(
  stepper: Stepper,
  real: typeof Atomics,
  isPrivate: (memory: object) => boolean,
): object {
  const table = real as unknown as Record<string, (...parameters: unknown[]) => unknown>;
  const stepped: Record<string, unknown> = { isLockFree: real.isLockFree.bind(real) };
  const define = (name: string, perform: (place: Place, parameters: readonly unknown[]) => unknown): void => {
    stepped[name] = (view: object, ...parameters: unknown[]): unknown => {
      const place = places.get(view);
      if (place !== undefined) return perform(place, parameters);
      const memory = (view as View).buffer;
      const isShared = memory instanceof SharedArrayBuffer;
      if (isShared && !isPrivate(memory) && !isFence(name, parameters))
        throw invalidArgument("explore schedules", "a view of shared memory", "made inside a thread's body", view);
      // On memory of this thread's own a locked instruction is still a fence.
      if (isShared && name !== "load") stepper.step(operationOf("fence", NOWHERE, 0, 0, 0));
      return isShared && !isPrivate(memory) ? 0 : (table[name] as (...all: unknown[]) => unknown)(view, ...parameters);
    };
  };
  define("load", (place, [index]) => access(stepper, place, "Atomics.load", checked(place, index), 0));
  for (const name of ["store", "add", "sub", "and", "or", "xor", "exchange"] as const) {
    define(name, (place, [index, value]) =>
      access(stepper, place, `Atomics.${name}`, checked(place, index), integer(place.view, value)),
    );
  }
  define("compareExchange", (place, [index, expected, value]) => {
    const [from, to] = [integer(place.view, expected), integer(place.view, value)];
    return access(stepper, place, "Atomics.compareExchange", checked(place, index), to, from);
  });
  define("notify", (place, [index, count]) => {
    const limit = count === undefined ? Number.POSITIVE_INFINITY : Number(count);
    return access(stepper, place, "Atomics.notify", checked(place, index), limit);
  });
  define("wait", (place, [index, value, timeout]) =>
    access(stepper, place, "Atomics.wait", checked(place, index), 0, integer(place.view, value), timeout),
  );
  define("waitAsync", (place, [index, value, timeout]) => {
    const expected = integer(place.view, value);
    const ticket = stepper.nextTicket();
    const answer = access(stepper, place, "Atomics.waitAsync", checked(place, index), ticket, expected, timeout);
    return answer === "not-equal" ? { async: false, value: answer } : { async: true, value: createWait(ticket, []) };
  });
  return stepped;
}

/** The modelled wait that a value is, or undefined. */
export function modelledWaitOf(value: unknown): ModelledWait | undefined {
  return typeof value === "object" && value !== null ? tickets.get(value) : undefined;
}

const NOWHERE: Place = {
  view: "Int32Array",
  memory: new SharedArrayBuffer(0),
  buffer: 0,
  byteOffset: 0,
  length: 0,
};

function createWait(ticket: number, callbacks: ModelledWait["callbacks"]): ModelledWait {
  const wait: ModelledWait = {
    ticket,
    callbacks,
    // biome-ignore lint/suspicious/noThenProperty: see the interface
    then: (callback) => createWait(ticket, [...callbacks, callback]),
  };
  tickets.set(wait, wait);
  return wait;
}

function access(
  stepper: Stepper,
  place: Place,
  kind: OperationKind,
  index: number,
  value: Word,
  expected: Word = 0,
  timeout: unknown = undefined,
): Answer {
  return stepper.step(operationOf(kind, place, index, value, expected, timeout));
}

function operationOf(
  kind: OperationKind,
  place: Place,
  index: number,
  value: Word,
  expected: Word,
  timeout?: unknown,
): Operation {
  const { view, buffer, byteOffset } = place;
  const timeoutMs = timeout === undefined || Number.isNaN(Number(timeout)) ? Number.POSITIVE_INFINITY : Number(timeout);
  return { kind, view, buffer, offset: byteOffset + index * ELEMENT_BYTES[view], value, expected, timeoutMs };
}

function membersOf(stepper: Stepper, place: Place, prototype: object): Record<string, unknown> {
  const { view, memory, byteOffset, length } = place;
  const bytes = ELEMENT_BYTES[view];
  const load = (index: number): Answer => access(stepper, place, "load", index, 0);
  const store = (index: number, value: Word): Answer => access(stepper, place, "store", index, converted(view, value));
  const sub = (from?: number, to?: number): View => {
    const [start, end] = range(length, from, to);
    return createSteppingView(stepper, view, memory, byteOffset + start * bytes, end - start, prototype);
  };
  return {
    length,
    byteOffset,
    byteLength: length * bytes,
    buffer: memory,
    BYTES_PER_ELEMENT: bytes,
    at: (index: number) => (index < -length || index >= length ? undefined : load(index < 0 ? length + index : index)),
    subarray: sub,
    slice: (from?: number, to?: number) => {
      const [start, end] = range(length, from, to);
      const Class = prototype.constructor as new (length: number) => View;
      const copy = new Class(end - start);
      for (let index = start; index < end; index++) copy[index - start] = load(index) as Word;
      return copy;
    },
    fill: (value: Word, from?: number, to?: number) => {
      const [start, end] = range(length, from, to);
      for (let index = start; index < end; index++) store(index, value);
    },
    set: (source: ArrayLike<Word>, offset: number = 0) => {
      if (source.length + offset > length) throw new RangeError("offset is out of bounds");
      for (let index = 0; index < source.length; index++) store(offset + index, source[index] as Word);
    },
    copyWithin: (target: number, from: number, to?: number) => {
      const [start, end] = range(length, from, to);
      const copied = Array.from({ length: end - start }, (_, index) => load(start + index) as Word);
      for (const [index, value] of copied.entries()) if (target + index < length) store(target + index, value);
    },
    values: function* values(): Generator<Answer> {
      for (let index = 0; index < length; index++) yield load(index);
    },
  };
}

function range(length: number, from: number = 0, to: number = length): [number, number] {
  const clamp = (at: number): number => (at < 0 ? Math.max(0, length + at) : Math.min(at, length));
  const start = clamp(from);
  return [start, Math.max(start, clamp(to))];
}

/** The index that a property name is, or −1. */
function indexOf(key: string): number {
  const first = key.charCodeAt(0);
  if (first < 48 || first > 57) return -1;
  const index = Number(key);
  return Number.isInteger(index) ? index : -1;
}

function checked({ length }: Place, index: unknown): number {
  const at = Math.trunc(Number(index)) || 0;
  if (at < 0 || at >= length) throw new RangeError("Invalid atomic access index");
  return at;
}

function integer(view: ViewName, value: unknown): Word {
  if (view.startsWith("Big")) return BigInt(value as bigint);
  return Math.trunc(Number(value)) || 0;
}

/** What assignment to an element converts to, before the memory narrows it. */
function converted(view: ViewName, value: Word): Word {
  return view.startsWith("Big") ? BigInt(value) : Number(value);
}

/** Adding nothing to a word that nobody else uses is how code asks for a full fence. */
function isFence(name: string, [, value]: readonly unknown[]): boolean {
  return ["add", "sub", "or", "xor"].includes(name) && value === 0;
}

function unknownMember(view: ViewName, key: string): Error {
  return invalidArgument(
    "step through shared memory",
    `${view}.${key}`,
    "an element or a method that moves elements",
    key,
  );
}
