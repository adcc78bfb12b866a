/**
 * Options of a graph: what is fixed when it is created.
 *
 * Invariant: two handles on one graph agree on all of them.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import type { EdgeShape } from "./csr.ts";
import { MAX_PROPERTIES } from "./graph-root.ts";

/** Of what kind a property of vertices is. */
export type PropertyKind = "number" | "text";

/** Options of `cluster.graph`. */
export interface GraphOptions {
  /** Whether an edge leads from its source to its target only. @default true */
  readonly directed?: boolean;
  /** Whether edges have weights, at 8 bytes each. @default false: every edge weighs 1 */
  readonly weighted?: boolean;
  /** Names of numbers that edges carry besides, at 8 bytes each; up to 16. @default none */
  readonly edgeProperties?: readonly string[];
  /** What vertices carry, by name: numbers or text, at 8 bytes each and those of the text; up to 16. @default nothing */
  readonly vertexProperties?: Readonly<Record<string, PropertyKind>>;
  /** Whether shards keep ghosts of the vertices of other shards that their edges lead to, and owners know who has them. @default false */
  readonly ghosts?: boolean | GhostOptions;
}

/** Ghosts of one shard. */
export interface GhostOptions {
  /** Most ghosts, `1..2^24`; memory for all is taken at once, about 60 bytes each. @default 65536 */
  readonly capacity?: number | undefined;
  /** Milliseconds after which a ghost is stale; its owner is asked three times until then. @default 60000 */
  readonly ttlMs?: number | undefined;
  /** Ghosts that owners are asked about in a second. @default 1000 */
  readonly checksPerSecond?: number | undefined;
}

export type ResolvedGraphOptions = Required<Omit<GraphOptions, "ghosts">> & { readonly ghosts: false | GhostOptions };

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT`. */
export function resolveGraphOptions(options: GraphOptions): ResolvedGraphOptions {
  const { directed = true, weighted = false, edgeProperties = [], vertexProperties = {}, ghosts = false } = options;
  const fail = (name: string, rule: string, value: unknown): never => {
    throw invalidArgument("create graph", name, rule, value);
  };
  if (typeof directed !== "boolean") fail("directed", "a boolean", directed);
  if (typeof weighted !== "boolean") fail("weighted", "a boolean", weighted);
  if (!Array.isArray(edgeProperties)) fail("edgeProperties", "a list of names", edgeProperties);
  for (const [name, names] of [
    ["edgeProperties", edgeProperties],
    ["vertexProperties", Object.keys(vertexProperties)],
  ] as const) {
    const isNamed = names.every((one) => typeof one === "string" && one !== "");
    if (!isNamed || new Set(names).size !== names.length || names.length > MAX_PROPERTIES)
      fail(name, `up to ${MAX_PROPERTIES} different names`, names);
  }
  for (const [name, kind] of Object.entries(vertexProperties))
    if (kind !== "number" && kind !== "text") fail(`vertexProperties.${name}`, '"number" or "text"', kind);
  const resolved = {
    directed,
    weighted,
    edgeProperties: [...edgeProperties],
    vertexProperties: { ...vertexProperties },
  };
  return { ...resolved, ghosts: resolveGhosts(ghosts) };
}

function resolveGhosts(ghosts: boolean | GhostOptions): false | GhostOptions {
  if (ghosts === false) return false;
  const given = ghosts === true ? {} : ghosts;
  const fail = (name: string, rule: string, value: unknown): never => {
    throw invalidArgument("create graph", name, rule, value);
  };
  if (typeof given !== "object" || given === null) fail("ghosts", "a boolean or options", given);
  const { capacity = 65_536, ttlMs = 60_000, checksPerSecond = 1_000 } = given;
  if (!Number.isInteger(capacity) || capacity < 1 || capacity > 2 ** 24)
    fail("ghosts.capacity", "an integer between 1 and 2^24", capacity);
  for (const [name, value] of Object.entries({ ttlMs, checksPerSecond }))
    if (!(value > 0 && value < Number.POSITIVE_INFINITY)) fail(`ghosts.${name}`, "a finite number above 0", value);
  return { capacity, ttlMs, checksPerSecond };
}

/** What edges carry under these options. */
export function shapeOf({ weighted, edgeProperties }: ResolvedGraphOptions): EdgeShape {
  return { weighted, columns: (weighted ? 1 : 0) + edgeProperties.length };
}

/** @throws {ShardloomError} `ERR_COLLECTION_MISMATCH` naming the option. */
export function assertSameGraphOptions(existing: ResolvedGraphOptions, wanted: ResolvedGraphOptions): void {
  for (const name of ["directed", "weighted", "edgeProperties", "vertexProperties", "ghosts"] as const) {
    const [is, asked] = [existing[name], wanted[name]].map((value) => JSON.stringify(value));
    if (is === asked) continue;
    throw new ShardloomError(
      "ERR_COLLECTION_MISMATCH",
      `Cannot open graph as ${name} must be ${is}, as it was created: current value is ${asked}`,
      { details: { name, existing: existing[name], wanted: wanted[name] } },
    );
  }
}
