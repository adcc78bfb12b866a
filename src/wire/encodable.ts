/**
 * Says whether a value can cross a thread or a wire, and if not, which part of it cannot.
 *
 * Invariant: it never throws and ends on every input (a cycle meets the depth limit); a value it accepts is one that
 * `value-codec.ts` decodes equal, but for the divergences stated there.
 * Cost: one visit of each part; a path is built only when something is refused.
 */

/** The part of a value that cannot be encoded. */
export interface Unencodable {
  /** How to get there, as in `value.items[3].callback`. */
  readonly path: string;
  /** What stands there. */
  readonly what: string;
}

/** Deepest nesting that is encoded. */
export const MAX_DEPTH = 128;

const TYPED_ARRAYS: ReadonlySet<unknown> = new Set([
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
  DataView,
  Buffer,
]);

/** What is wrong, and the steps to it from the inside out. */
interface Refusal {
  readonly what: string;
  readonly steps: string[];
}

/** Finds the first part that cannot be encoded. */
export function findUnencodable(value: unknown): Unencodable | undefined {
  const refusal = visit(value, 0);
  return refusal && { path: `value${refusal.steps.reverse().join("")}`, what: refusal.what };
}

function visit(value: unknown, depth: number): Refusal | undefined {
  if (typeof value === "object") return value === null ? undefined : visitObject(value, depth);
  if (typeof value === "function") return refuse(`a function ${value.name}`.trimEnd());
  if (typeof value === "symbol") return refuse("a symbol");
  return undefined;
}

function visitObject(value: object, depth: number): Refusal | undefined {
  if (depth === MAX_DEPTH) return refuse(`nested deeper than ${MAX_DEPTH} levels or part of a cycle`);
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Object.prototype || prototype === null) return visitFields(value, depth);
  if (prototype === Array.prototype) return visitArray(value as unknown[], depth);
  if (prototype === Map.prototype) return visitMap(value as Map<unknown, unknown>, depth);
  if (prototype === Set.prototype) return visitSet(value as Set<unknown>, depth);
  if (value instanceof Date || value instanceof RegExp || prototype === ArrayBuffer.prototype) return undefined;
  if (ArrayBuffer.isView(value))
    return TYPED_ARRAYS.has(value.constructor) ? undefined : refuse(`a ${value.constructor.name}`);
  if (value instanceof Error) return step(visit(value.cause, depth + 1), ".cause");
  // Anything with a tag of its own (Promise, WeakMap, SharedArrayBuffer, URL, subclasses of Map) has state that fields do not show.
  const tag = Object.prototype.toString.call(value);
  return tag === "[object Object]" ? visitFields(value, depth) : refuse(`an object of ${tag.slice(8, -1)}`);
}

function visitFields(value: object, depth: number): Refusal | undefined {
  for (const key in value) {
    if (!Object.hasOwn(value, key)) continue;
    // The codec reads `constructor` and the platform reads `__proto__`: as data both would come back as something else.
    if (key === "__proto__" || key === "constructor") return step(refuse("a reserved key"), `.${key}`);
    const refusal = visit((value as Record<string, unknown>)[key], depth + 1);
    if (refusal !== undefined) return step(refusal, /^[\w$]+$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`);
  }
  return undefined;
}

function visitArray(value: readonly unknown[], depth: number): Refusal | undefined {
  for (let index = 0; index < value.length; index++) {
    const refusal = visit(value[index], depth + 1);
    if (refusal !== undefined) return step(refusal, `[${index}]`);
  }
  return undefined;
}

function visitMap(value: ReadonlyMap<unknown, unknown>, depth: number): Refusal | undefined {
  let index = 0;
  for (const [key, entry] of value) {
    const refusal =
      step(visit(key, depth + 1), `.keys()[${index}]`) ?? step(visit(entry, depth + 1), `.values()[${index}]`);
    if (refusal !== undefined) return refusal;
    index++;
  }
  return undefined;
}

function visitSet(value: ReadonlySet<unknown>, depth: number): Refusal | undefined {
  let index = 0;
  for (const entry of value) {
    const refusal = visit(entry, depth + 1);
    if (refusal !== undefined) return step(refusal, `.values()[${index}]`);
    index++;
  }
  return undefined;
}

function refuse(what: string): Refusal {
  return { what, steps: [] };
}

function step(refusal: Refusal | undefined, name: string): Refusal | undefined {
  refusal?.steps.push(name);
  return refusal;
}
