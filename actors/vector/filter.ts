/**
 * Metadata filters: a plain object compiled once to a predicate over decoded payloads.
 *
 * Grammar: `{ field: value }` equals; `{ field: { gte: 1, lt: 9 } }` all operators hold; several fields: all hold.
 * Operators: eq, ne, gt, gte, lt, lte, in, nin, exists; `and`, `or` (arrays of filters) and `not` (a filter) combine. A
 * field is a path with dots; a field that is an array matches when an element does. Comparison is between values of one
 * type (number with number or bigint, string with string); values of other types never match, `ne` and `nin` then do.
 * Invariant: a filter either compiles whole or throws a typed error that names what is wrong: nothing is ignored.
 */
import { describeValue, ShardloomError } from "../../src/errors.ts";
import { decodeMetadata, encodeMetadata, type Metadata } from "../../src/store/metadata-codec.ts";

export type FilterScalar = string | number | boolean | null | bigint;

/** Conditions on one field; all must hold. */
export interface FieldCondition {
  readonly eq?: FilterScalar;
  readonly ne?: FilterScalar;
  readonly gt?: string | number | bigint;
  readonly gte?: string | number | bigint;
  readonly lt?: string | number | bigint;
  readonly lte?: string | number | bigint;
  readonly in?: readonly FilterScalar[];
  readonly nin?: readonly FilterScalar[];
  readonly exists?: boolean;
}

export type VectorFilter = {
  readonly [field: string]: FilterScalar | FieldCondition | VectorFilter | readonly VectorFilter[];
};

/** Whether a decoded payload (undefined when the document has none) matches. */
export type Predicate = (payload: unknown) => boolean;

type Test = (value: unknown) => boolean;

/** Filters nest at most this deep. */
export const MAX_FILTER_DEPTH = 32;

/** Decodes msgpack bytes; they may lie in shared memory, of which a copy is made. */
export function decodePayload(bytes: Uint8Array, byteOffset: number, byteLength: number): unknown {
  if (byteLength === 0) return undefined;
  return decodeMetadata(Buffer.from(bytes.subarray(byteOffset, byteOffset + byteLength)));
}

/** Checks a filter and encodes it for a request. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming what is wrong. */
export function encodeFilter(filter: Metadata): Uint8Array {
  compileFilter(filter);
  return encodeMetadata(filter, "filter");
}

/**
 * Decodes and compiles the filter of a request.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming the unknown operator or bad operand; `ERR_CORRUPT` if it is no msgpack.
 */
export function filterFromBytes(bytes: Uint8Array): Predicate {
  let filter: unknown;
  try {
    filter = decodeMetadata(Buffer.from(bytes));
  } catch (cause) {
    throw new ShardloomError(
      "ERR_CORRUPT",
      `Cannot decode filter as it must be msgpack: current value is ${bytes.length} bytes`,
      { cause },
    );
  }
  return compileFilter(filter);
}

/** Compiles a filter. @throws {ShardloomError} `ERR_INVALID_ARGUMENT`. */
export function compileFilter(filter: unknown, depth = 0): Predicate {
  if (!isPlain(filter)) throw bad("filter", "a plain object", filter);
  if (depth > MAX_FILTER_DEPTH) throw bad("filter", `nested at most ${MAX_FILTER_DEPTH} deep`, depth);
  const parts = Object.entries(filter).map(([key, value]): Predicate => {
    if (key === "and" || key === "or") {
      if (!Array.isArray(value)) throw bad(key, "an array of filters", value);
      const members = value.map((member) => compileFilter(member, depth + 1));
      return key === "and" ? (p) => members.every((member) => member(p)) : (p) => members.some((member) => member(p));
    }
    if (key === "not") {
      const inner = compileFilter(value, depth + 1);
      return (p) => !inner(p);
    }
    const test = compileCondition(key, value);
    const path = key.split(".");
    return (p) => test(fieldOf(p, path));
  });
  return parts.length === 1 ? (parts[0] as Predicate) : (p) => parts.every((part) => part(p));
}

function compileCondition(field: string, condition: unknown): Test {
  if (isScalar(condition)) return anyElement((value) => same(value, condition));
  if (!isPlain(condition)) throw bad(field, "a scalar or an object of operators", condition);
  const tests = Object.entries(condition).map(([operator, operand]) => compileOperator(field, operator, operand));
  if (tests.length === 0) throw bad(field, "at least one operator", condition);
  return (value) => tests.every((test) => test(value));
}

function compileOperator(field: string, operator: string, operand: unknown): Test {
  switch (operator) {
    case "eq":
    case "ne": {
      if (!isScalar(operand)) throw bad(`${field}.${operator}`, "a scalar", operand);
      const equal = anyElement((value) => same(value, operand));
      return operator === "eq" ? equal : (value) => !equal(value);
    }
    case "gt":
      return compareTest(field, operator, operand, (order) => order > 0);
    case "gte":
      return compareTest(field, operator, operand, (order) => order >= 0);
    case "lt":
      return compareTest(field, operator, operand, (order) => order < 0);
    case "lte":
      return compareTest(field, operator, operand, (order) => order <= 0);
    case "in":
    case "nin": {
      if (!Array.isArray(operand) || !operand.every(isScalar))
        throw bad(`${field}.${operator}`, "an array of scalars", operand);
      const members = anyElement((value) => operand.some((member) => same(value, member)));
      return operator === "in" ? members : (value) => !members(value);
    }
    case "exists": {
      if (typeof operand !== "boolean") throw bad(`${field}.exists`, "a boolean", operand);
      return (value) => (value !== undefined) === operand;
    }
    default:
      throw new ShardloomError(
        "ERR_INVALID_ARGUMENT",
        `Cannot compile filter as ${field} has an unknown operator: current value is ${describeValue(operator)}`,
        {
          details: { field, operator },
        },
      );
  }
}

function compareTest(field: string, operator: string, operand: unknown, holds: (order: number) => boolean): Test {
  const numeric = (typeof operand === "number" && !Number.isNaN(operand)) || typeof operand === "bigint";
  if (!numeric && typeof operand !== "string") throw bad(`${field}.${operator}`, "a number or a string", operand);
  return anyElement((value) => {
    const comparable = numeric ? typeof value === "number" || typeof value === "bigint" : typeof value === "string";
    if (!comparable || Number.isNaN(value)) return false;
    const v = value as number;
    const o = operand as number; // strings and bigints compare with the same operators
    return holds(v < o ? -1 : v > o ? 1 : 0);
  });
}

/** A test of a field's value, or of any element when the value is an array. */
function anyElement(test: Test): Test {
  return (value) => (Array.isArray(value) ? value.some(test) : test(value));
}

function same(value: unknown, scalar: FilterScalar): boolean {
  if (typeof value !== "bigint" && typeof scalar !== "bigint") return value === scalar;
  // 1n and 1 are one number: neither below nor above the other.
  return isNumeric(value) && isNumeric(scalar) && !(value < scalar) && !(value > scalar) && !Number.isNaN(value);
}

function isNumeric(value: unknown): value is number | bigint {
  return typeof value === "number" || typeof value === "bigint";
}

function fieldOf(payload: unknown, path: readonly string[]): unknown {
  let value = payload;
  for (const name of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return value;
}

/** A Map, a date or a class instance has no own fields to look at and would match everything. */
function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function isScalar(value: unknown): value is FilterScalar {
  return (
    value === null ||
    typeof value === "string" ||
    typeof value === "boolean" ||
    typeof value === "bigint" ||
    (typeof value === "number" && !Number.isNaN(value))
  );
}

function bad(name: string, rule: string, value: unknown): ShardloomError {
  return new ShardloomError(
    "ERR_INVALID_ARGUMENT",
    `Cannot compile filter as ${name} must be ${rule}: current value is ${describeValue(value)}`,
    {
      details: { name, value: describeValue(value) },
    },
  );
}
