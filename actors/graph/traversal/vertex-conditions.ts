/**
 * What vertices of a pattern must carry: conditions on the properties of the vertices of the graph that may stand for them.
 *
 * Invariant: a vertex that does not have a property meets no condition on it. Conditions that say the same have the same text.
 */
import { invalidArgument } from "../../../src/errors.ts";
import type { PropertyValue } from "../vertex-properties.ts";

/** Numbers from one to another, both included; a bound that is left out is none. */
export interface NumberRange {
  readonly atLeast?: number | undefined;
  readonly atMost?: number | undefined;
}

/** By the name of a property: its value, some of which it must be one, or a range that it must be in. All of them must hold. */
export type VertexConditions = Readonly<Record<string, PropertyValue | readonly PropertyValue[] | NumberRange>>;

type Kinds = Readonly<Record<string, "number" | "text">>;

/** Whether properties of a vertex, by name, meet all conditions; undefined: the vertex is not in the graph. */
export function meets(
  conditions: VertexConditions,
  values: Readonly<Record<string, PropertyValue>> | undefined,
): boolean {
  return Object.entries(conditions).every(([name, condition]) => {
    const value = values?.[name];
    if (value === undefined) return false;
    if (typeof condition !== "object") return value === condition;
    if (isList(condition)) return condition.includes(value);
    const { atLeast = Number.NEGATIVE_INFINITY, atMost = Number.POSITIVE_INFINITY } = condition;
    return typeof value === "number" && value >= atLeast && value <= atMost;
  });
}

/** The same for conditions that say the same; of no conditions empty. */
export function textOfConditions(conditions: VertexConditions | undefined): string {
  const entries = Object.entries(conditions ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  if (entries.length === 0) return "";
  return JSON.stringify(
    entries.map(([name, condition]) => [
      name,
      typeof condition !== "object" || isList(condition) ? condition : [[condition.atLeast, condition.atMost]],
    ]),
  );
}

/**
 * @param name Of the pattern's vertex.
 * @param kinds Properties of the graph's vertices.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a property that there is not, or a condition that no value of its kind can be held against.
 */
export function checkConditions(name: string, conditions: VertexConditions, kinds: Kinds): void {
  for (const [property, condition] of Object.entries(conditions)) {
    const kind = Object.hasOwn(kinds, property) ? kinds[property] : undefined;
    if (kind === undefined) throw bad(`a property of ${name}`, `one of ${Object.keys(kinds).join(", ")}`, property);
    const isValue = (value: unknown): boolean => (kind === "number" ? isNumber(value) : typeof value === "string");
    const rule = `${kind === "number" ? "a number" : "text"}, some of them${kind === "number" ? ", or { atLeast, atMost }" : ""}`;
    if (!isGood(condition, isValue, kind === "number")) throw bad(`${property} of ${name}`, rule, condition);
  }
}

function isGood(condition: unknown, isValue: (value: unknown) => boolean, mayBeRange: boolean): boolean {
  if (typeof condition !== "object" || condition === null) return isValue(condition);
  if (Array.isArray(condition)) return condition.length > 0 && condition.every(isValue);
  const bounds = Object.entries(condition);
  const isBound = ([name, value]: [string, unknown]): boolean =>
    (name === "atLeast" || name === "atMost") && (value === undefined || isNumber(value));
  return mayBeRange && bounds.length > 0 && bounds.every(isBound);
}

function isList(condition: readonly PropertyValue[] | NumberRange): condition is readonly PropertyValue[] {
  return Array.isArray(condition);
}

function isNumber(value: unknown): boolean {
  return typeof value === "number" && !Number.isNaN(value);
}

function bad(name: string, rule: string, value: unknown): Error {
  return invalidArgument("plan motif", name, rule, value);
}
