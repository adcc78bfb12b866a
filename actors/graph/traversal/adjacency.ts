/**
 * Where traversals get neighbours from, and how much they may ask.
 *
 * Invariant: a traversal knows a graph only through {@link Adjacency}, so that it is the same over one partition, over all shards, and over
 * a list in a test. It asks in batches of at most `batchSize` vertices, and for none once `maxEdges` neighbours were read: what was asked
 * before may go beyond by one batch. A result that a bound cut short says so, and which bound it was.
 */
import { invalidArgument, ShardloomError } from "../../../src/errors.ts";
import type { VertexKey } from "../vertex-key.ts";
import type { PropertyValue } from "../vertex-properties.ts";

/** Which edges are followed. Of an undirected graph all three are the same. */
export type Direction = "out" | "in" | "both";

/** The other ends of a vertex's edges, one for each edge, in an order that is the same every time. */
export interface Neighbours {
  readonly keys: readonly VertexKey[];
  /** `weights[i]` of the edge to `keys[i]`; undefined: all are 1. */
  readonly weights?: Float64Array | undefined;
}

/** A graph, as far as traversals see it. */
export interface Adjacency {
  /** Neighbours of each vertex, in the order of the question; undefined for one that is not in the graph. The lists are not changed. */
  neighbours(
    vertices: readonly VertexKey[],
    direction: Direction,
  ): readonly (Neighbours | undefined)[] | Promise<readonly (Neighbours | undefined)[]>;
  /** Properties of each vertex by name; undefined for one that is not in the graph. Of a graph without any: not there. */
  properties?(
    vertices: readonly VertexKey[],
    names: readonly string[],
  ): readonly (PropertyValues | undefined)[] | Promise<readonly (PropertyValues | undefined)[]>;
}

type PropertyValues = Readonly<Record<string, PropertyValue>>;

/** Bounds that all traversals share. */
export interface TraversalOptions {
  /** Neighbours read after which no more are asked for, ≥ 1. @default 10_000_000 */
  readonly maxEdges?: number | undefined;
  /** Vertices of one question, ≥ 1. @default 1024 */
  readonly batchSize?: number | undefined;
  /** Ends the traversal between two questions, with `ERR_ABORTED`. */
  readonly signal?: AbortSignal | undefined;
}

/** The bound that cut a result short. */
export interface Truncation {
  readonly by: "edges" | "vertices" | "matches" | "steps";
  readonly limit: number;
}

const DEFAULT_MAX_EDGES = 10_000_000;
const DEFAULT_BATCH = 1024;

/** Reads neighbours within the bounds. */
export class NeighbourReader {
  readonly #adjacency: Adjacency;
  readonly #maxEdges: number;
  readonly #signal: AbortSignal | undefined;
  readonly batchSize: number;
  #edges = 0;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for a bound */
  constructor(adjacency: Adjacency, options: TraversalOptions) {
    this.#adjacency = adjacency;
    this.#maxEdges = checkBound("maxEdges", options.maxEdges ?? DEFAULT_MAX_EDGES);
    this.batchSize = checkBound("batchSize", options.batchSize ?? DEFAULT_BATCH);
    this.#signal = options.signal;
  }

  /** Neighbours read so far. */
  get edges(): number {
    return this.#edges;
  }

  /** Set when a question was not asked because of `maxEdges`. */
  truncated: Truncation | undefined;

  /**
   * Neighbours of at most `batchSize` vertices, which a vertex that is not in the graph has none of.
   *
   * @returns undefined if nothing was asked, as enough was read: see `truncated`.
   * @throws {ShardloomError} `ERR_ABORTED`, and what the adjacency throws
   */
  async read(vertices: readonly VertexKey[], direction: Direction): Promise<readonly Neighbours[] | undefined> {
    const lists = await this.ask(vertices, direction);
    return lists?.map((list) => list ?? NOTHING);
  }

  /** As `read`, but tells which vertices are not in the graph. */
  async ask(
    vertices: readonly VertexKey[],
    direction: Direction,
  ): Promise<readonly (Neighbours | undefined)[] | undefined> {
    this.#assertWanted();
    if (this.#edges >= this.#maxEdges) {
      this.truncated = { by: "edges", limit: this.#maxEdges };
      return undefined;
    }
    const lists = await this.#adjacency.neighbours(vertices, direction);
    if (lists.length !== vertices.length) {
      const message = `Cannot read neighbours as there must be ${vertices.length} lists: current value is ${lists.length}`;
      throw new ShardloomError("ERR_INTERNAL", message);
    }
    for (const list of lists) this.#edges += list?.keys.length ?? 0;
    return lists;
  }

  /** Properties of at most `batchSize` vertices. @throws {ShardloomError} `ERR_ABORTED`, and what the adjacency throws */
  async properties(
    vertices: readonly VertexKey[],
    names: readonly string[],
  ): Promise<readonly (PropertyValues | undefined)[]> {
    this.#assertWanted();
    return (await this.#adjacency.properties?.(vertices, names)) ?? [];
  }

  #assertWanted(): void {
    if (this.#signal?.aborted !== true) return;
    throw new ShardloomError("ERR_ABORTED", "Cannot finish traversal as its signal was aborted", {
      cause: this.#signal.reason,
    });
  }

  /** @throws {ShardloomError} `ERR_UNKNOWN_VERTEX` with the first of the vertices that is not in the graph */
  async assertThere(name: string, vertices: readonly VertexKey[], direction: Direction): Promise<void> {
    for (const batch of batches(vertices, this.batchSize)) {
      const lists = await this.#adjacency.neighbours(batch, direction);
      const at = lists.indexOf(undefined);
      if (at < 0) continue;
      const vertex = batch[at];
      const { message } = invalidArgument("search graph", name, "a vertex of the graph", vertex);
      throw new ShardloomError("ERR_UNKNOWN_VERTEX", message, { details: { name, vertex } });
    }
  }
}

/** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` if a bound is no integer ≥ `least` */
export function checkBound(name: string, value: number, least = 1): number {
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw invalidArgument("search graph", name, `an integer of at least ${least}`, value);
}

/** Slices of at most `size`. */
export function* batches<T>(items: readonly T[], size: number): Generator<readonly T[], void, undefined> {
  for (let at = 0; at < items.length; at += size) yield items.length <= size ? items : items.slice(at, at + size);
}

const NOTHING: Neighbours = { keys: [] };
