/**
 * Copies what crosses between two simulated threads, as structured clone does between real ones.
 *
 * Invariant: the two sides share memory that is made to be shared, and what was transferred, and nothing else. Shared memory keeps its
 * identity, which structured clone does not promise within one thread, and by which waiters are found (atomics.ts).
 */
import { describeValue, ShardloomError } from "../errors.ts";

/** Deepest nesting; what is deeper holds itself. */
const MAX_DEPTH = 64;

/**
 * A copy for another thread.
 *
 * @param moved Parts that go over as they are: ends of channels.
 * @throws {ShardloomError} `ERR_INTERNAL` for functions, symbols and what is nested too deeply.
 */
export function cloneForThread<T>(value: T, moved: readonly unknown[] = []): T {
  return copy(value, moved, 0) as T;
}

function copy(value: unknown, moved: readonly unknown[], depth: number): unknown {
  if (typeof value === "function" || typeof value === "symbol") throw refuse(value);
  if (typeof value !== "object" || value === null || isShared(value) || moved.includes(value)) return value;
  if (depth === MAX_DEPTH) throw refuse(value);
  if (Array.isArray(value)) return value.map((item) => copy(item, moved, depth + 1));
  if (ArrayBuffer.isView(value) && value.buffer instanceof SharedArrayBuffer) return value;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return structuredClone(value);
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, copy(member, moved, depth + 1)]));
}

function isShared(value: object): boolean {
  return (
    value instanceof SharedArrayBuffer || value instanceof WebAssembly.Memory || value instanceof WebAssembly.Module
  );
}

function refuse(value: unknown): ShardloomError {
  return new ShardloomError("ERR_INTERNAL", `Cannot pass ${describeValue(value)} to a thread as it cannot be cloned`);
}
