/**
 * A graph as its users see it: vertices, edges, algorithms, vertex programs, traversals.
 *
 * Runs on the client's thread, over a coordinator. Invariant: bad input ends in a typed error that names it, and the graph stays usable;
 * a result is checked by the algorithm's own invariant before anybody gets it.
 */
import type { TickBarrier } from "../../src/actor/tick-barrier.ts";
import { invalidArgument } from "../../src/errors.ts";
import { GRAPH_STATUS } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import type { ExplainedValue, Explaining } from "../explained-value.ts";
import { askAll, asOfNow, type GraphHandle } from "./client-calls.ts";
import {
  type DecayOptions,
  type DecayResult,
  decayEdges,
  decayOnTicks,
  type TickDecay,
  type TickDecayOptions,
} from "./client-decay.ts";
import {
  counting,
  type Explained,
  type ExplainOption,
  explainedValue,
  type NeighbourOptions,
  type PlainGraphOptions,
} from "./client-explain.ts";
import { readGhosts, readHolders, type VertexHolder } from "./client-ghosts.ts";
import {
  addVertices,
  type GraphBatch,
  type GraphEdge,
  type GraphEdges,
  type GraphLoadOptions,
  type GraphLoadProgress,
  loadBatches,
  removeVertices,
  sendEdges,
} from "./client-load.ts";
import { NeighbourClient, type VertexNeighbours } from "./client-neighbours.ts";
import { getVertexProperties, setVertexProperties, type VertexPropertyValues } from "./client-properties.ts";
import { type EdgeReservation, type ReserveEdgesOptions, reserveEdges } from "./client-reservation.ts";
import { type GraphResult, runToResult } from "./client-run.ts";
import {
  type CountTrianglesOptions,
  GraphTraversals,
  type TraversalLimits,
  type VertexStream,
} from "./client-traversal.ts";
import type { GhostStatus } from "./ghosts/shard-ghosts.ts";
import type { GraphExplanation } from "./graph-account.ts";
import type { NeighbourDirection } from "./graph-neighbours.ts";
import type { RunPlan } from "./run-driver.ts";
import type { RunOptions } from "./run-options.ts";
import {
  type CommunityOptions,
  checkRunOptions,
  clusteringPlan,
  communitiesPlan,
  componentsPlan,
  type PageRankOptions,
  pageRankPlan,
  programPlan,
  type SourceOptions,
  searchPlan,
} from "./run-plans.ts";
import type { KHopOptions, KHopResult } from "./traversal/k-hop.ts";
import type { Motif } from "./traversal/motif-pattern.ts";
import type { MotifOptions, MotifResult } from "./traversal/motif-search.ts";
import type { ShortestPath, ShortestPathOptions } from "./traversal/shortest-path.ts";
import type { TriangleCount } from "./traversal/triangle-count.ts";
import type { VertexKey } from "./vertex-key.ts";
import type { ProgramState, ProgramValue, VertexProgram } from "./vertex-program.ts";
import type { PropertyColumns } from "./vertex-properties.ts";

/** What one shard has of a graph. */
export interface GraphShardStatus {
  readonly vertices: number;
  /** Those of removed vertices among them, until the next run or question about neighbours. */
  readonly edges: number;
  readonly edgeBytes: number;
  /** Number of the last decay of weights; 0: none. */
  readonly decays: number;
  /** Runs under way. */
  readonly runs: number;
}

/** Handle on a graph. */
export class Graph {
  readonly name: string;
  readonly directed: boolean;
  readonly weighted: boolean;
  readonly #live: GraphHandle;
  readonly #traversals: GraphTraversals;

  constructor(handle: GraphHandle) {
    this.name = handle.name;
    this.directed = handle.options.directed;
    this.weighted = handle.options.weighted;
    this.#live = handle;
    this.#traversals = new GraphTraversals(handle, new NeighbourClient(handle));
  }

  /** Where the graph lies now: what a call has begun it ends there, also when the graph is moved meanwhile. */
  get #handle(): GraphHandle {
    return asOfNow(this.#live);
  }

  /**
   * Loads batches of vertices and edges. Vertices of a batch come before its edges.
   *
   * @throws {ShardloomError} `ERR_UNKNOWN_VERTEX`, `ERR_DUPLICATE_ID`, `ERR_INVALID_ARGUMENT`, `ERR_ABORTED`, with `details.loaded`.
   */
  async load(
    source: Iterable<GraphBatch> | AsyncIterable<GraphBatch>,
    options: GraphLoadOptions = {},
  ): Promise<GraphLoadProgress> {
    this.#handle.assertOpen();
    return loadBatches(this.#handle, source, options);
  }

  /** Adds vertices. @returns how many were new @throws {ShardloomError} `ERR_DUPLICATE_ID` unless `createMissing`. */
  async addVertices(keys: ArrayLike<VertexKey>, options: GraphLoadOptions = {}): Promise<number> {
    this.#handle.assertOpen();
    return addVertices(this.#handle, keys, options);
  }

  /**
   * Removes vertices with all edges from and to them; those that are not in the graph are left out. A key may be added again: as a new
   * vertex. What a removed vertex has taken (its key, and 9 bytes) stays until the graph is dropped. Results keep what they have of it.
   *
   * @returns how many there were
   */
  async removeVertices(keys: ArrayLike<VertexKey>, options: CallOptions = {}): Promise<number> {
    this.#handle.assertOpen();
    return removeVertices(this.#handle, keys, options);
  }

  /**
   * Sets properties of vertices, by name one value for each: null takes a value away, undefined leaves it as it is.
   *
   * @returns of how many vertices
   * @throws {ShardloomError} `ERR_UNKNOWN_VERTEX`; `ERR_INVALID_ARGUMENT` for a name that the graph was not created with, or a wrong value.
   */
  async setProperties(
    keys: ArrayLike<VertexKey>,
    properties: PropertyColumns,
    options: CallOptions = {},
  ): Promise<number> {
    this.#handle.assertOpen();
    return setVertexProperties(this.#handle, keys, properties, options);
  }

  /** Properties of vertices, all or those named, in the order of the keys; undefined for what is not in the graph. */
  properties(
    keys: readonly VertexKey[],
    names: readonly string[] | undefined,
    options: Explaining<PlainGraphOptions>,
  ): Promise<ExplainedValue<(VertexPropertyValues | undefined)[], GraphExplanation>>;
  properties(
    keys: readonly VertexKey[],
    names?: readonly string[],
    options?: PlainGraphOptions,
  ): Promise<(VertexPropertyValues | undefined)[]>;
  async properties(
    keys: readonly VertexKey[],
    names: readonly string[] = Object.keys(this.#handle.options.vertexProperties),
    { explain, ...options }: CallOptions & ExplainOption = {},
  ): Promise<unknown> {
    this.#handle.assertOpen();
    return explainedValue(this.#handle, { explain }, (account) =>
      getVertexProperties(counting(this.#handle, account), keys, names, options),
    );
  }

  /**
   * Adds edges; a pair of vertices may have several. Both ends of each are looked up and the edge is written in one step, so that no removal
   * comes between: an edge is there with both ends, goes with the first of them that is removed, or is refused.
   *
   * @throws {ShardloomError} `ERR_UNKNOWN_VERTEX` unless `createMissing`; `details.edges` says how many are there all the same.
   */
  async addEdges(edges: GraphEdges, options: GraphLoadOptions = {}): Promise<number> {
    this.#handle.assertOpen();
    return sendEdges(this.#handle, edges, options, "add");
  }

  /**
   * Checks edges now to add them later: both ends of each exist, and stay until the reservation is committed, released, or its time is over.
   * Whoever removes one of them meanwhile waits, for up to 10 s or his `timeoutMs`. {@link addEdges} needs none.
   *
   * @throws {ShardloomError} `ERR_UNKNOWN_VERTEX` with the end and its place; `ERR_OVERLOADED` when too many are reserved.
   */
  async reserveEdges(edges: GraphEdges, options: ReserveEdgesOptions = {}): Promise<EdgeReservation> {
    this.#handle.assertOpen();
    return reserveEdges(this.#handle, edges, options);
  }

  /** Removes all edges between the ends of each. Builds the adjacency anew. @returns how many there were */
  async removeEdges(
    edges: readonly Pick<GraphEdge, "source" | "target">[],
    options: CallOptions = {},
  ): Promise<number> {
    this.#handle.assertOpen();
    return sendEdges(this.#handle, edges, options, "remove");
  }

  /**
   * Gives all edges between the ends of each another weight, or other properties; what is not given stays. Builds the adjacency anew.
   *
   * @returns how many there were
   */
  async setEdges(edges: GraphEdges, options: CallOptions = {}): Promise<number> {
    this.#handle.assertOpen();
    return sendEdges(this.#handle, edges, options, "set");
  }

  /**
   * Makes all weights smaller by a part of them, and removes edges whose weight has become too small.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT`; `ERR_OVERLOADED` when runs compute for longer than `timeoutMs`.
   */
  async decay(options: DecayOptions): Promise<DecayResult> {
    this.#handle.assertOpen();
    return decayEdges(this.#handle, options);
  }

  /** Makes the graph a member of a barrier, and decays its weights in one phase of every tick. Stop it before the barrier is closed. */
  async decayOnTicks(barrier: TickBarrier, options: TickDecayOptions): Promise<TickDecay> {
    this.#handle.assertOpen();
    return decayOnTicks(this.#live, barrier, options);
  }

  /** Vertices, edges and memory of every shard, in shard order. */
  async status(options: CallOptions = {}): Promise<GraphShardStatus[]> {
    this.#handle.assertOpen();
    const { collection } = this.#handle;
    return askAll<GraphShardStatus>(this.#handle, GRAPH_STATUS, () => ({ collection }), options);
  }

  /** What ghosts every shard has of vertices of others, in shard order. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` without ghosts. */
  async ghosts(options: CallOptions = {}): Promise<GhostStatus[]> {
    this.#handle.assertOpen();
    return readGhosts(this.#handle, options);
  }

  /**
   * Shards other than its own whose edges lead to each vertex, as they have told its owner since they built them last; undefined for a
   * vertex that is not in the graph. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` without ghosts.
   */
  async holders(
    keys: readonly VertexKey[],
    options: CallOptions = {},
  ): Promise<(readonly VertexHolder[] | undefined)[]> {
    this.#handle.assertOpen();
    return readHolders(this.#handle, keys, options);
  }

  /** The keys of all vertices, shard by shard, read as they are asked for; explained, also how that goes. */
  vertices(options: CallOptions & ExplainOption = {}): VertexStream {
    this.#handle.assertOpen();
    return this.#traversals.vertices(options);
  }

  /** The other ends of the edges of vertices, in their order; undefined for what is not in the graph. */
  neighbours(
    vertices: readonly VertexKey[],
    direction: NeighbourDirection | undefined,
    options: Explaining<NeighbourOptions>,
  ): Promise<ExplainedValue<(VertexNeighbours | undefined)[], GraphExplanation>>;
  neighbours(
    vertices: readonly VertexKey[],
    direction?: NeighbourDirection,
    options?: NeighbourOptions,
  ): Promise<(VertexNeighbours | undefined)[]>;
  async neighbours(
    vertices: readonly VertexKey[],
    direction: NeighbourDirection = "out",
    options: Omit<NeighbourOptions, "explain"> & ExplainOption = {},
  ): Promise<unknown> {
    this.#handle.assertOpen();
    if (!["out", "in", "both"].includes(direction))
      throw invalidArgument("read neighbours", "direction", '"out", "in" or "both"', direction);
    return this.#traversals.neighbours(vertices, direction, options);
  }

  /**
   * The vertices within some edges of others, with their depths, the nearest first.
   *
   * @throws {ShardloomError} `ERR_UNKNOWN_VERTEX`, `ERR_INVALID_ARGUMENT`, `ERR_ABORTED`, `ERR_TIMEOUT`; a bound reached is `truncated`.
   */
  async kHop(starts: readonly VertexKey[], options: KHopOptions & TraversalLimits): Promise<Explained<KHopResult>> {
    return this.#traversals.kHop(starts, options);
  }

  /** A path of fewest edges, or of least weight. @throws {ShardloomError} as {@link kHop}; also for a weight below 0. */
  async shortestPath(
    from: VertexKey,
    to: VertexKey,
    options: ShortestPathOptions & TraversalLimits = {},
  ): Promise<Explained<ShortestPath>> {
    return this.#traversals.shortestPath(from, to, options);
  }

  /** How many sets of three vertices have an edge between each two, whatever the directions. @throws {ShardloomError} as {@link kHop}. */
  async countTriangles(options: CountTrianglesOptions = {}): Promise<Explained<TriangleCount>> {
    return this.#traversals.countTriangles(options);
  }

  /** Where a small pattern of vertices and edges occurs. @throws {ShardloomError} as {@link kHop}; also for a bad pattern. */
  async findMotif(motif: Motif, options: MotifOptions & TraversalLimits = {}): Promise<Explained<MotifResult>> {
    return this.#traversals.findMotif(motif, options);
  }

  /** PageRank: the share of all visits of a random walk; mass of vertices without edges goes to all. The ranks add up to 1. */
  async pageRank(options: PageRankOptions = {}): Promise<GraphResult> {
    return this.#drive(pageRankPlan(options), options);
  }

  /** Weakly connected components: each vertex gets the least key of its component, or the least number of a key in it where some are text. */
  async wcc(options: RunOptions = {}): Promise<GraphResult> {
    return this.#drive(componentsPlan(), options);
  }

  /** Edges on the shortest way from a vertex; infinity for those that cannot be reached. */
  async bfs(options: SourceOptions): Promise<GraphResult> {
    return this.#drive(searchPlan("bfs", options, this.#handle.options.shards), options);
  }

  /** Least sum of weights on any way from a vertex; infinity for those that cannot be reached. */
  async sssp(options: SourceOptions): Promise<GraphResult> {
    if (!this.weighted) throw invalidArgument("run shortest paths", "weighted", "true for this graph", false);
    return this.#drive(searchPlan("sssp", options, this.#handle.options.shards), options);
  }

  /** Communities by label propagation: in every iteration a vertex takes its neighbours' most frequent label, the least of several. */
  async cdlp(options: CommunityOptions = {}): Promise<GraphResult> {
    return this.#drive(communitiesPlan(options), options);
  }

  /** Local clustering coefficients: edges among a vertex's neighbours, of those that there could be. */
  async lcc(options: RunOptions = {}): Promise<GraphResult> {
    return this.#drive(clusteringPlan(), options);
  }

  /**
   * Runs a vertex program that a module of `Cluster.start({ actors })` exports: given itself, so that values have the type of its state, or its
   * name.
   *
   * @throws {ShardloomError} `ERR_UNKNOWN_ACTOR`; `ERR_ACTOR_FAILED` with the vertex when the program throws.
   */
  run<State extends ProgramState>(
    program: VertexProgram<State>,
    params?: Readonly<Record<string, unknown>>,
    options?: RunOptions,
  ): Promise<GraphResult<ProgramValue<State>>>;
  run<Value = unknown>(
    program: VertexProgram | string,
    params?: Readonly<Record<string, unknown>>,
    options?: RunOptions,
  ): Promise<GraphResult<Value>>;
  async run<Value = unknown>(
    program: VertexProgram | string,
    params: Readonly<Record<string, unknown>> = {},
    options: RunOptions = {},
  ): Promise<GraphResult<Value>> {
    return this.#drive<Value>(programPlan(program, params), options);
  }

  async #drive<Value = number>(plan: RunPlan, options: RunOptions): Promise<GraphResult<Value>> {
    this.#handle.assertOpen();
    checkRunOptions(options);
    return runToResult<Value>(this.#handle, plan, options);
  }
}
