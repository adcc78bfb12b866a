/**
 * Plain JSON values: copied with a check, and written in one canonical form so that equal values have equal texts.
 *
 * Invariant: what {@link copyPlain} returns shares nothing with its argument and survives `JSON.parse(JSON.stringify(value))`
 * unchanged.
 */
import { describeValue } from "../errors.ts";

/** Deepest nesting of a value. */
export const MAX_DEPTH = 64;

/** Thrown by {@link copyPlain}; callers turn it into an error that names their argument. */
export class NotPlainError extends Error {
  /** Where in the value: `.a[3]`, empty for the value itself. */
  readonly path: string;

  constructor(path: string, found: string) {
    super(`${found} at ${path === "" ? "the top" : path}`);
    this.path = path;
  }
}

/**
 * A copy of a value that is plain JSON. `undefined` becomes null, members that are undefined are left out, -0 becomes 0.
 *
 * @throws {NotPlainError} for functions, symbols, bigints, NaN and infinities, class instances, sparse arrays and what is nested
 *   deeper than {@link MAX_DEPTH} (so also what holds itself).
 */
export function copyPlain(value: unknown): unknown {
  return value === undefined ? null : copy(value, "", 0);
}

function copy(value: unknown, path: string, depth: number): unknown {
  if (value === null || typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number" && Number.isFinite(value)) return value === 0 ? 0 : value;
  if (typeof value !== "object") throw new NotPlainError(path, describeValue(value));
  if (depth === MAX_DEPTH) throw new NotPlainError(path, `more than ${MAX_DEPTH} levels`);
  if (Array.isArray(value)) return Array.from(value, (item, i) => copy(item, `${path}[${i}]`, depth + 1));
  const prototype: unknown = Object.getPrototypeOf(value);
  // Objects of another realm have another Object.prototype, but one without a prototype too.
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null)
    throw new NotPlainError(path, describeValue(value));
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return Object.fromEntries(members.map(([name, member]) => [name, copy(member, `${path}.${name}`, depth + 1)]));
}

/** The text of a plain value with the members of objects in order of their names: equal values, equal texts. */
export function canonicalJson(value: unknown): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const names = Object.keys(value).sort();
  const members = value as Readonly<Record<string, unknown>>;
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonicalJson(members[name])}`).join(",")}}`;
}
