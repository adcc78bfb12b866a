/**
 * A small pattern of named vertices and edges, checked, and the order in which a search binds its vertices.
 *
 * Invariant: every vertex but the first of the order has an edge to an earlier one, so that its candidates are neighbours of what is
 * bound. The symmetries are all ways to rename the vertices that leave the edges, the anchors and the conditions as they are, the identity
 * among them.
 */
import { invalidArgument } from "../../../src/errors.ts";
import type { VertexKey } from "../vertex-key.ts";
import type { Direction } from "./adjacency.ts";
import { textOfConditions, type VertexConditions } from "./vertex-conditions.ts";

/** Most vertices of a pattern: there are 40320 ways to rename eight. */
export const MAX_MOTIF_VERTICES = 8;

/** An edge of a pattern between two of its vertices. */
export interface MotifEdge {
  readonly from: string;
  readonly to: string;
  /** Whether an edge of either direction will do. @default false */
  readonly either?: boolean | undefined;
}

/** A connected pattern. Its vertices are the ends of its edges. */
export interface Motif {
  readonly edges: readonly MotifEdge[];
  /** Vertices of the pattern that can only be these vertices of the graph. */
  readonly anchors?: Readonly<Record<string, VertexKey>> | undefined;
  /** What the vertices of the graph must carry that stand for vertices of the pattern. */
  readonly where?: Readonly<Record<string, VertexConditions>> | undefined;
}

/** An edge to a vertex that is bound before: candidates are its neighbours in that direction. */
export interface MotifLink {
  readonly bound: number;
  readonly direction: Direction;
}

/** A motif as the search wants it. Vertices are numbered in the order in which they are bound. */
export interface MotifPlan {
  readonly names: readonly string[];
  /** `links[i]`: edges of vertex `i` to earlier ones; of the first, none. */
  readonly links: readonly (readonly MotifLink[])[];
  readonly anchors: readonly (VertexKey | undefined)[];
  readonly conditions: readonly (VertexConditions | undefined)[];
  /** `symmetry[i]` is the vertex that stands for vertex `i`. */
  readonly symmetries: readonly (readonly number[])[];
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a pattern without edges, with a loop, in two parts, too large, or with an anchor or conditions of no vertex of it */
export function planMotif({ edges, anchors = {}, where = {} }: Motif): MotifPlan {
  const names = [...new Set(edges.flatMap(({ from, to }) => [from, to]))];
  if (names.length === 0 || names.length > MAX_MOTIF_VERTICES) {
    throw bad("number of vertices", `in 2..${MAX_MOTIF_VERTICES}`, names.length);
  }
  for (const { from, to } of edges) if (from === to) throw bad("an edge", "between two vertices", from);
  for (const name of Object.keys(anchors))
    if (!names.includes(name)) throw bad("an anchor", "a vertex of the pattern", name);
  for (const name of Object.keys(where))
    if (!names.includes(name)) throw bad("a vertex with conditions", "one of the pattern", name);
  const ordered = orderOf(names, edges, anchors);
  const index = (name: string): number => ordered.indexOf(name);
  const links = ordered.map((name, own): MotifLink[] =>
    edges.flatMap(({ from, to, either = false }) => {
      const other = from === name ? to : to === name ? from : undefined;
      if (other === undefined || index(other) >= own) return [];
      return [{ bound: index(other), direction: either ? "both" : from === name ? "in" : "out" }];
    }),
  );
  const keys = ordered.map((name) => anchors[name]);
  const conditions = ordered.map((name) => where[name]);
  const marks = ordered.map((name, own) => `${typeof keys[own]} ${keys[own]} ${textOfConditions(where[name])}`);
  return { names: ordered, links, anchors: keys, conditions, symmetries: symmetriesOf(ordered, edges, marks) };
}

/** Anchored vertices first, then those with most edges to what is there: their candidates are fewest. */
function orderOf(names: readonly string[], edges: readonly MotifEdge[], anchors: Motif["anchors"]): string[] {
  const ordered: string[] = [];
  const edgesTo = (name: string): number =>
    edges.filter(({ from, to }) => (from === name && ordered.includes(to)) || (to === name && ordered.includes(from)))
      .length;
  const degree = (name: string): number => edges.filter(({ from, to }) => from === name || to === name).length;
  const isAnchored = (name: string): number => (anchors?.[name] === undefined ? 0 : 1);
  while (ordered.length < names.length) {
    const [best] = names
      .filter((name) => !ordered.includes(name) && (ordered.length === 0 || edgesTo(name) > 0))
      .sort((a, b) => isAnchored(b) - isAnchored(a) || edgesTo(b) - edgesTo(a) || degree(b) - degree(a));
    if (best === undefined) throw bad("the pattern", "connected", `${ordered.join(", ")} apart from the rest`);
    ordered.push(best);
  }
  return ordered;
}

/** @param marks What makes vertices different that have the same edges. */
function symmetriesOf(names: readonly string[], edges: readonly MotifEdge[], marks: readonly string[]): number[][] {
  const found: number[][] = [];
  const signature = (rename: readonly number[]): string => {
    const name = (old: string): number => rename[names.indexOf(old)] as number;
    const renamed = edges.map(({ from, to, either = false }) => {
      const [a, b] = [name(from), name(to)];
      return either ? `${Math.min(a, b)}-${Math.max(a, b)}` : `${a}>${b}`;
    });
    return [...new Set(renamed)].sort().join(" ");
  };
  const own = signature([...names.keys()]);
  const extend = (rename: readonly number[]): void => {
    if (rename.length === names.length) {
      if (signature(rename) === own) found.push([...rename]);
      return;
    }
    for (const next of names.keys()) {
      if (!rename.includes(next) && marks[next] === marks[rename.length]) extend([...rename, next]);
    }
  };
  extend([]);
  return found;
}

function bad(name: string, rule: string, value: unknown): Error {
  return invalidArgument("plan motif", name, rule, value);
}
