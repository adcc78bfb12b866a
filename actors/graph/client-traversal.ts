/**
 * Traversals over a graph that is spread over shards: they read neighbours by question and answer, and go on at the client.
 *
 * Invariant: each question is put to the shards that own its vertices, all at once, and is answered by the graph as it is then; a shard whose
 * worker was replaced is asked again. `timeoutMs` is that of the whole traversal, and what is under way when the signal fires or the time
 * is over ends with it. A result that a bound cut short says which.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import { GRAPH_SCAN } from "../../src/wire/message-types.ts";
import { type CallOptions, checkedTimeout, checkSignal } from "../call-options.ts";
import { askAgain, askShard, asOfNow, type GraphHandle } from "./client-calls.ts";
import {
  accountOf,
  counting,
  type Explained,
  type ExplainOption,
  explained,
  explainedValue,
  type MaybeExplained,
  type NeighbourOptions,
} from "./client-explain.ts";
import { type NeighbourClient, type VertexNeighbours, withEnds } from "./client-neighbours.ts";
import { getVertexProperties } from "./client-properties.ts";
import type { GraphAccount, GraphExplanation } from "./graph-account.ts";
import type { NeighbourDirection } from "./graph-neighbours.ts";
import type { ScanReply, ScanRequest } from "./graph-scan.ts";
import type { Adjacency, TraversalOptions } from "./traversal/adjacency.ts";
import { type KHopOptions, type KHopResult, kHop } from "./traversal/k-hop.ts";
import type { Motif } from "./traversal/motif-pattern.ts";
import { findMotif, type MotifOptions, type MotifResult } from "./traversal/motif-search.ts";
import { type ShortestPath, type ShortestPathOptions, shortestPath } from "./traversal/shortest-path.ts";
import { countTriangles, type TriangleCount } from "./traversal/triangle-count.ts";
import { checkConditions } from "./traversal/vertex-conditions.ts";
import { checkKey, type VertexKey } from "./vertex-key.ts";

/** Vertices of one page. */
const PAGE = 4096;
/** Most vertices that a traversal may begin at. */
const MAX_STARTS = 65_536;

/** How long a traversal may take. */
export interface TraversalLimits extends ExplainOption {
  /** Time until the whole of it fails with `ERR_TIMEOUT`, in ms. @default none; each of its questions has the cluster's `requestTimeoutMs` */
  readonly timeoutMs?: number | undefined;
}

/** Keys of vertices, read as they are asked for. */
export interface VertexStream extends AsyncIterable<VertexKey> {
  /** What was asked of whom until now; undefined unless it was to be explained. */
  readonly explain?: GraphExplanation;
}

type Limits = TraversalLimits & Pick<TraversalOptions, "signal">;

/** Options of `Graph.countTriangles`. */
export interface CountTrianglesOptions extends TraversalOptions, TraversalLimits {
  /** Counts only triangles whose least vertex is one of these, each once. @default all vertices of the graph */
  readonly vertices?: Iterable<VertexKey> | AsyncIterable<VertexKey>;
}

/** The traversals of one graph. */
export class GraphTraversals {
  readonly #handle: GraphHandle;
  readonly #neighbours: NeighbourClient;

  constructor(handle: GraphHandle, neighbours: NeighbourClient) {
    this.#handle = handle;
    this.#neighbours = neighbours;
  }

  /** The keys of all vertices, shard by shard; each page as the shard is then. */
  vertices({ explain, ...options }: CallOptions & ExplainOption = {}): VertexStream {
    const account = accountOf(this.#handle, { explain });
    if (account === undefined) return this.#pages(options);
    const tell = (): GraphExplanation => account.explain(this.#handle.options.shards);
    const pages = this.#pages(options, account, typeof explain === "function" ? () => explain(tell()) : undefined);
    return {
      get explain() {
        return tell();
      },
      [Symbol.asyncIterator]: () => pages,
    };
  }

  /** @param ended Called when no more is asked, however it ends. */
  async *#pages(options: CallOptions, account?: GraphAccount, ended?: () => void): AsyncGenerator<VertexKey> {
    const handle = counting(asOfNow(this.#handle), account);
    const {
      collection,
      options: { members },
    } = handle;
    try {
      for (const shard of members.keys()) {
        for (let from = 0; from >= 0; ) {
          this.#handle.assertOpen();
          const request: ScanRequest = { collection, from, count: PAGE };
          const { keys, next } = await askAgain(handle, () =>
            askShard<ScanReply>(handle, shard, GRAPH_SCAN, request, options),
          );
          yield* keys;
          from = next;
        }
      }
    } finally {
      ended?.();
    }
  }

  async kHop(starts: readonly VertexKey[], options: KHopOptions & TraversalLimits): Promise<Explained<KHopResult>> {
    if (!Array.isArray(starts) || starts.length < 1 || starts.length > MAX_STARTS)
      throw invalidArgument("search graph", "starts", `1 to ${MAX_STARTS} vertices`, starts);
    for (const [at, key] of starts.entries()) checkKey("search graph", "start", key, at);
    return explained(this.#handle, options, (account) => kHop(this.#adjacency(options, account), starts, options));
  }

  async shortestPath(
    from: VertexKey,
    to: VertexKey,
    options: ShortestPathOptions & TraversalLimits,
  ): Promise<Explained<ShortestPath>> {
    checkKey("search graph", "from", from);
    checkKey("search graph", "to", to);
    if (options.weighted === true && !this.#handle.options.weighted)
      throw invalidArgument("search graph", "weighted", "false for a graph without weights", true);
    return explained(this.#handle, options, (account) =>
      shortestPath(this.#adjacency(options, account), from, to, options),
    );
  }

  async countTriangles(options: CountTrianglesOptions): Promise<Explained<TriangleCount>> {
    const { vertices, ...bounds } = options;
    const limits = this.#limits(options);
    const mustExist = vertices !== undefined;
    return explained(this.#handle, options, (account) => {
      const from = vertices ?? this.#pages(limits(), account);
      return countTriangles(this.#adjacency(options, account), from, { ...bounds, mustExist });
    });
  }

  async findMotif(motif: Motif, options: MotifOptions & TraversalLimits): Promise<Explained<MotifResult>> {
    const limits = this.#limits(options);
    for (const [name, conditions] of Object.entries(motif.where ?? {}))
      checkConditions(name, conditions, this.#handle.options.vertexProperties);
    return explained(this.#handle, options, (account) =>
      findMotif(this.#adjacency(options, account), motif, this.#pages(limits(), account), options),
    );
  }

  async neighbours(
    vertices: readonly VertexKey[],
    direction: NeighbourDirection,
    { explain, vertexProperties, ...options }: Omit<NeighbourOptions, "explain"> & ExplainOption,
  ): Promise<MaybeExplained<(VertexNeighbours | undefined)[]>> {
    return explainedValue(this.#handle, { explain }, async (account) => {
      const lists = await this.#neighbours.read(vertices, direction, options, account);
      if (vertexProperties === undefined) return lists;
      return withEnds(counting(this.#handle, account), vertices, lists, vertexProperties, options);
    });
  }

  #adjacency(options: Limits, account: GraphAccount | undefined): Adjacency {
    const limits = this.#limits(options);
    return {
      neighbours: async (vertices, direction) => {
        this.#handle.assertOpen();
        return this.#neighbours.read(vertices, direction, limits(), account);
      },
      properties: async (vertices, names) => {
        this.#handle.assertOpen();
        return getVertexProperties(counting(this.#handle, account), vertices, names, limits());
      },
    };
  }

  /** What is left of the time at each call. @throws {ShardloomError} `ERR_TIMEOUT` when nothing is; `ERR_INVALID_ARGUMENT`. */
  #limits({ timeoutMs, signal }: Limits): () => CallOptions {
    this.#handle.assertOpen();
    checkSignal(signal);
    const { coordinator } = this.#handle;
    const endMs = timeoutMs === undefined ? undefined : coordinator.nowMs() + checkedTimeout(timeoutMs);
    return () => {
      const leftMs = endMs === undefined ? undefined : endMs - coordinator.nowMs();
      if (leftMs !== undefined && leftMs <= 0) throw tooLate(timeoutMs as number);
      return { ...(leftMs === undefined ? {} : { timeoutMs: leftMs }), ...(signal === undefined ? {} : { signal }) };
    };
  }
}

function tooLate(timeoutMs: number): ShardloomError {
  return new ShardloomError("ERR_TIMEOUT", `Cannot finish traversal within ${timeoutMs} ms`, {
    details: { timeoutMs },
  });
}
