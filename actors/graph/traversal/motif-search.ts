/**
 * Finds where a small pattern occurs in a graph.
 *
 * Invariant: a match binds the pattern's vertices to different vertices of the graph, so that every edge of the pattern is one of the graph;
 * there may be more edges between them. Parallel edges make no further match, and of matches that differ by a symmetry of the
 * pattern one is given. Same graph, same order. Without `truncated` these are all; with it, there may be more.
 * Memory: for each vertex of the pattern one batch of bindings and what follows from it, as the deepest are always continued first.
 */
import type { VertexKey } from "../vertex-key.ts";
import {
  type Adjacency,
  batches,
  checkBound,
  type Direction,
  NeighbourReader,
  type TraversalOptions,
  type Truncation,
} from "./adjacency.ts";
import { isBefore } from "./key-order.ts";
import { type Motif, type MotifPlan, planMotif } from "./motif-pattern.ts";
import { meets } from "./vertex-conditions.ts";

export interface MotifOptions extends TraversalOptions {
  /** Most matches. @default 10_000 */
  readonly maxMatches?: number | undefined;
  /** Most bindings, complete or not, that are made. @default 10_000_000 */
  readonly maxSteps?: number | undefined;
  /** Whether a vertex of the graph may stand for that of the pattern. @default all may */
  readonly accepts?: ((name: string, key: VertexKey) => boolean) | undefined;
}

/** Vertex of the pattern → vertex of the graph. */
export type MotifMatch = Readonly<Record<string, VertexKey>>;

export interface MotifResult {
  readonly matches: readonly MotifMatch[];
  /** Bindings made. */
  readonly steps: number;
  /** Neighbours read. */
  readonly edges: number;
  /** Set when a bound ended the search: there may be more matches. */
  readonly truncated: Truncation | undefined;
}

const DEFAULT_MAX_MATCHES = 10_000;
const DEFAULT_MAX_STEPS = 10_000_000;

/**
 * Searches a graph for a pattern.
 *
 * @param starts Where the search begins: all vertices of the graph, each once, read a batch at a time. Not looked at when the pattern has
 *   an anchor.
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a bad pattern or option; `ERR_UNKNOWN_VERTEX` for an anchor; `ERR_ABORTED`
 *
 * @example Two people who know each other and a third
 * const { matches, truncated } = await findMotif(adjacency, { edges: [{ from: "a", to: "b" }, { from: "b", to: "c" }, { from: "c", to: "a" }] }, keys);
 */
export async function findMotif(
  adjacency: Adjacency,
  motif: Motif,
  starts: Iterable<VertexKey> | AsyncIterable<VertexKey>,
  options: MotifOptions = {},
): Promise<MotifResult> {
  const plan = planMotif(motif);
  const reader = new NeighbourReader(adjacency, options);
  const search = new MotifSearch(plan, reader, options);
  const anchors = plan.anchors.filter((key) => key !== undefined);
  await reader.assertThere("anchor", anchors, "both");
  const [anchor] = plan.anchors;
  let waiting: VertexKey[] = [];
  for await (const key of anchor === undefined ? starts : [anchor]) {
    if (waiting.push(key) < reader.batchSize) continue;
    if (!(await search.from(waiting))) return search.result();
    waiting = [];
  }
  await search.from(waiting);
  return search.result();
}

/** Vertices of the graph for the first vertices of the pattern, in its order. */
type Binding = readonly VertexKey[];

class MotifSearch {
  readonly #plan: MotifPlan;
  readonly #reader: NeighbourReader;
  readonly #accepts: NonNullable<MotifOptions["accepts"]>;
  readonly #maxMatches: number;
  readonly #maxSteps: number;
  readonly #matches: MotifMatch[] = [];
  /** Bindings that are to be continued, by their length; the longest are taken first. */
  readonly #open: Binding[][];
  #steps = 0;
  #truncated: Truncation | undefined;

  constructor(plan: MotifPlan, reader: NeighbourReader, options: MotifOptions) {
    this.#plan = plan;
    this.#reader = reader;
    this.#accepts = options.accepts ?? (() => true);
    this.#maxMatches = checkBound("maxMatches", options.maxMatches ?? DEFAULT_MAX_MATCHES);
    this.#maxSteps = checkBound("maxSteps", options.maxSteps ?? DEFAULT_MAX_STEPS);
    this.#open = plan.names.map(() => []);
  }

  result(): MotifResult {
    const truncated = this.#truncated ?? this.#reader.truncated;
    return { matches: this.#matches, steps: this.#steps, edges: this.#reader.edges, truncated };
  }

  /** Searches from these vertices. @returns Whether no bound has ended the search. */
  async from(keys: readonly VertexKey[]): Promise<boolean> {
    const suits = await this.#fitting(keys, 0);
    for (const key of keys) if (suits(key) && !this.#bind([], key)) return false;
    for (;;) {
      const length = this.#open.findLastIndex((bindings) => bindings.length > 0);
      if (length < 0) return true;
      const bindings = (this.#open[length] as Binding[]).splice(0, this.#reader.batchSize);
      if (!(await this.#extend(bindings, length))) return false;
    }
  }

  /** Binds the next vertex of the pattern in each of these. */
  async #extend(bindings: readonly Binding[], length: number): Promise<boolean> {
    const links = this.#plan.links[length] ?? [];
    const lists: ReadonlyMap<VertexKey, readonly VertexKey[]>[] = [];
    for (const { bound, direction } of links) {
      const read = await this.#lists(
        bindings.map((binding) => binding[bound] as VertexKey),
        direction,
      );
      if (read === undefined) return false;
      lists.push(read);
    }
    const candidates = bindings.map((binding) => {
      const around = links.map(({ bound }, link) => lists[link]?.get(binding[bound] as VertexKey) ?? []);
      around.sort((a, b) => a.length - b.length);
      const others = around.slice(1).map((keys) => new Set(keys));
      return [...new Set(around[0])].filter((key) => others.every((keys) => keys.has(key)));
    });
    const suits = await this.#fitting(candidates, length);
    for (const [at, binding] of bindings.entries())
      for (const key of candidates[at] ?? []) if (suits(key) && !this.#bind(binding, key)) return false;
    return true;
  }

  /** Which of these carry what the vertex of the pattern asks for. */
  async #fitting(
    keys: readonly (VertexKey | readonly VertexKey[])[],
    next: number,
  ): Promise<(key: VertexKey) => boolean> {
    const conditions = this.#plan.conditions[next];
    if (conditions === undefined) return () => true;
    const fit = new Set<VertexKey>();
    const names = Object.keys(conditions);
    for (const batch of batches([...new Set<VertexKey>(keys.flat())], this.#reader.batchSize)) {
      const values = await this.#reader.properties(batch, names);
      for (const [at, key] of batch.entries()) if (meets(conditions, values[at])) fit.add(key);
    }
    return (key) => fit.has(key);
  }

  async #lists(
    keys: readonly VertexKey[],
    direction: Direction,
  ): Promise<ReadonlyMap<VertexKey, readonly VertexKey[]> | undefined> {
    const lists = new Map<VertexKey, readonly VertexKey[]>();
    for (const batch of batches([...new Set(keys)], this.#reader.batchSize)) {
      const read = await this.#reader.read(batch, direction);
      if (read === undefined) return undefined;
      for (const [index, list] of read.entries()) lists.set(batch[index] as VertexKey, list.keys);
    }
    return lists;
  }

  /** Takes a vertex for the next of the pattern, if it can be. @returns false when a bound is reached */
  #bind(binding: Binding, key: VertexKey): boolean {
    const { names, anchors } = this.#plan;
    const next = binding.length;
    const anchor = anchors[next];
    if (binding.includes(key) || (anchor !== undefined && anchor !== key)) return true;
    if (!this.#accepts(names[next] as string, key)) return true;
    if (this.#steps === this.#maxSteps) {
      this.#truncated = { by: "steps", limit: this.#maxSteps };
      return false;
    }
    this.#steps++;
    const bound = [...binding, key];
    if (bound.length < names.length) {
      this.#open[bound.length]?.push(bound);
      return true;
    }
    if (!this.#isFirstOfItsKind(bound)) return true;
    if (this.#matches.length === this.#maxMatches) {
      this.#truncated = { by: "matches", limit: this.#maxMatches };
      return false;
    }
    this.#matches.push(Object.fromEntries(names.map((name, index) => [name, bound[index] as VertexKey])));
    return true;
  }

  /** Whether no symmetry of the pattern, that is acceptable too, gives the same vertices in an earlier order. */
  #isFirstOfItsKind(bound: Binding): boolean {
    const { names, symmetries } = this.#plan;
    return symmetries.every((symmetry) => {
      for (const index of names.keys()) {
        const own = bound[index] as VertexKey;
        const other = bound[symmetry[index] as number] as VertexKey;
        if (own === other) continue;
        if (isBefore(own, other)) return true;
        return !names.every((name, at) => this.#accepts(name, bound[symmetry[at] as number] as VertexKey));
      }
      return true;
    });
  }
}
