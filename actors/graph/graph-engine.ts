/**
 * The graph engine of one shard: message handlers over its graphs, and the work of their runs in slices between messages.
 *
 * Invariant: a request is checked whole before the first byte of a graph changes. What takes long is a job: its reply is held, and it goes
 * on in slices, so that messages of peers are taken meanwhile and the thread is never taken for a hung one. A job that only waits lets
 * the thread sleep; the message that it waits for wakes it.
 */

import type { AdoptedRegion } from "../../native-bridge/region-table.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { Requester } from "../../src/routing/requester.ts";
import {
  GRAPH_BEGIN,
  GRAPH_BUILD,
  GRAPH_COMPLETE,
  GRAPH_CONTRIBUTIONS,
  GRAPH_DECAY,
  GRAPH_DROP,
  GRAPH_EDGES,
  GRAPH_GET,
  GRAPH_HALT,
  GRAPH_LEAVE,
  GRAPH_MEET,
  GRAPH_NEIGHBOURS,
  GRAPH_OPEN,
  GRAPH_RESERVE,
  GRAPH_RESULTS,
  GRAPH_SCAN,
  GRAPH_SET,
  GRAPH_STATUS,
  GRAPH_STEPPED,
  GRAPH_SUPERSTEP,
  GRAPH_VERTICES,
} from "../../src/wire/message-types.ts";
import { DroppedCollections } from "../dropped-collections.ts";
import type { Engine, EngineContext, EngineHandler, EngineReply, EngineRequest } from "../engine.ts";
import { endProperties } from "./end-properties.ts";
import { ghostHandlers } from "./ghosts/ghost-handlers.ts";
import type { ShardGhosts } from "./ghosts/shard-ghosts.ts";
import { GraphJobs, type SlicedWork } from "./graph-jobs.ts";
import { contributionsAt, decodeBody, LIST, readContributions, readList, refOf, replyBody } from "./graph-messages.ts";
import type { NeighboursRequest } from "./graph-neighbours.ts";
import { assertSameGraphOptions, type ResolvedGraphOptions } from "./graph-options.ts";
import { writeResults } from "./graph-results.ts";
import { GraphRoot } from "./graph-root.ts";
import { type ScanRequest, scanVertices } from "./graph-scan.ts";
import { isHalted, programNamed } from "./program-calls.ts";
import { type GetRequest, getProperties, type SetRequest } from "./property-messages.ts";
import type {
  BeginRequest,
  BuildRequest,
  CompleteRequest,
  DecayRequest,
  HaltRequest,
  LeaveReply,
  LeaveRequest,
  MeetRequest,
  ResultsRequest,
  StatusRequest,
  Stepped,
  SuperstepOrder,
} from "./run-messages.ts";
import { type GraphPlace, ShardGraph } from "./shard-graph.ts";
import type { VertexKey } from "./vertex-key.ts";
import type { VertexProgram } from "./vertex-program.ts";
import type { ReserveRequest } from "./vertex-reservations.ts";

/** What the graph engine needs besides what every engine does. */
export interface GraphParts {
  /** The way to a peer's worker, over the mesh. */
  readonly requester: (shard: number) => Requester | undefined;
  /** Vertex programs of the modules that the cluster was started with, by name. */
  readonly programs: ReadonlyMap<string, VertexProgram>;
}

/** What a catalog keeps of a graph: its options, and how many shards it lies on. */
export interface KeptGraph extends ResolvedGraphOptions {
  readonly shards: number;
  /** Which these are: all that the cluster had. Everywhere else in a graph a shard is known by its place among them. */
  readonly members: readonly number[];
}

/** What a dead worker's graphs were. */
export interface GraphRecovery {
  readonly collections: readonly {
    readonly collectionId: number;
    readonly options: KeptGraph;
    readonly rootAddress: number;
  }[];
  readonly adopted: Map<number, AdoptedRegion>;
}

/** The graph engine and the roots of its graphs. */
export interface GraphEngine extends Engine {
  roots(): ReadonlyMap<number, { readonly address: number; readonly rkey: number; readonly length: number }>;
}

/** Creates the engine of one shard, on that shard's thread. */
export function createGraphEngine(context: EngineContext, parts: GraphParts, recover?: GraphRecovery): GraphEngine {
  return new GraphShardEngine(context, parts, recover);
}

class GraphShardEngine implements GraphEngine {
  readonly handlers: ReadonlyMap<number, EngineHandler>;
  readonly #context: EngineContext;
  readonly #parts: GraphParts;
  readonly #graphs: Map<number, ShardGraph> = new Map();
  readonly #dropped: DroppedCollections = new DroppedCollections();
  readonly #jobs: GraphJobs;
  /** Those of all graphs that have any: looked at in every turn. */
  #ghosts: ShardGhosts[] = [];

  constructor(context: EngineContext, parts: GraphParts, recover: GraphRecovery | undefined) {
    this.#context = context;
    this.#parts = parts;
    this.#jobs = new GraphJobs(context.nowMs);
    const { arena, regions } = context;
    for (const { collectionId, options, rootAddress } of recover?.collections ?? []) {
      const root = GraphRoot.adopt(arena, regions, collectionId, rootAddress, (recover as GraphRecovery).adopted);
      this.#add({ collection: collectionId, options, ...options }, root);
    }
    this.handlers = new Map<number, EngineHandler>([
      [GRAPH_OPEN, (request, reply) => this.#open(request, reply)],
      [GRAPH_DROP, (request, reply) => this.#drop(request, reply)],
      [GRAPH_MEET, (request, reply) => this.#meet(request, reply)],
      [GRAPH_VERTICES, (request, reply) => this.#changes(() => this.#vertices(request, reply))],
      [GRAPH_EDGES, (request, reply) => this.#changes(() => this.#edges(request, reply))],
      [GRAPH_BUILD, (request, reply) => this.#build(request, reply)],
      [GRAPH_BEGIN, (request, reply) => this.#begin(request, reply)],
      [GRAPH_SUPERSTEP, (request, reply) => this.#superstep(request, reply)],
      [GRAPH_CONTRIBUTIONS, (request) => this.#contributions(request)],
      [GRAPH_STEPPED, (request) => this.#stepped(request)],
      [GRAPH_HALT, (request, reply) => this.#halt(request, reply)],
      [GRAPH_COMPLETE, (request, reply) => this.#complete(request, reply)],
      [GRAPH_RESULTS, (request, reply) => this.#results(request, reply)],
      [GRAPH_NEIGHBOURS, (request, reply) => this.#neighbours(request, reply)],
      [GRAPH_DECAY, (request, reply) => this.#changes(() => this.#decay(request, reply))],
      [GRAPH_SET, (request, reply) => this.#changes(() => this.#set(request, reply))],
      [GRAPH_GET, (request, reply) => this.#get(request, reply)],
      [GRAPH_SCAN, (request, reply) => this.#scan(request, reply)],
      [GRAPH_LEAVE, (request, reply) => this.#changes(() => this.#leave(request, reply))],
      [GRAPH_RESERVE, (request, reply) => this.#reserve(request, reply)],
      [GRAPH_STATUS, (request, reply) => this.#status(request, reply)],
      ...ghostHandlers((collection) => this.#find(collection)),
    ]);
  }

  roots(): ReturnType<GraphEngine["roots"]> {
    return new Map([...this.#graphs].map(([id, { root }]) => [id, root.ref]));
  }

  background(budgetMs: number): boolean {
    return this.#jobs.work(budgetMs);
  }

  turn(nowMs: number): boolean {
    let worked = false;
    for (let at = 0; at < this.#ghosts.length; at++) worked = (this.#ghosts[at] as ShardGhosts).turn(nowMs) || worked;
    return worked;
  }

  dueAtMs(): number {
    let least = Number.POSITIVE_INFINITY;
    for (let at = 0; at < this.#ghosts.length; at++) least = Math.min(least, (this.#ghosts[at] as ShardGhosts).dueAtMs);
    return least;
  }

  peerLost(shard: number): void {
    for (const ghosts of this.#ghosts) ghosts.peerLost(shard);
  }

  peerBack(shard: number): void {
    for (const ghosts of this.#ghosts) ghosts.peerBack(shard);
  }

  close(): void {
    for (const ghosts of this.#ghosts) ghosts.close();
    this.#jobs.close();
    this.#graphs.clear();
    this.#ghosts = [];
  }

  /** Work that nobody waits for any more keeps no change waiting. */
  #changes(change: () => void): void {
    this.#jobs.endCancelled();
    change();
  }

  #start(collection: number, reply: EngineReply, work: SlicedWork, run = 0): void {
    this.#jobs.start({ collection, run }, reply, work);
  }

  /** @param run The run that is asked about, if it is one. */
  #find(collection: number, run = 0): ShardGraph {
    const graph = this.#graphs.get(collection);
    if (graph === undefined) throw this.#dropped.unknown(collection);
    if (graph.times.has(run)) graph.times.heard(run);
    for (const abandoned of graph.abandoned()) {
      const failure = new ShardloomError("ERR_ABORTED", "Cannot go on as the run was abandoned", {
        details: { run: abandoned },
      });
      this.#jobs.giveUp((job) => job.collection === collection && job.run === abandoned, failure);
      graph.complete(abandoned, false);
    }
    return graph;
  }

  #add(place: GraphPlace, root: GraphRoot): ShardGraph {
    const graph = new ShardGraph(this.#context, place, root, this.#parts.programs);
    this.#graphs.set(place.collection, graph);
    if (graph.ghosts !== undefined) this.#ghosts.push(graph.ghosts);
    return graph;
  }

  #open(request: EngineRequest, reply: EngineReply): void {
    const { collection, options, checkOnly } = decodeBody<{
      readonly collection: number;
      readonly options: KeptGraph;
      readonly checkOnly: boolean;
    }>(request);
    const known = checkOnly ? this.#find(collection) : this.#graphs.get(collection);
    if (known !== undefined) assertSameGraphOptions(known.place.options, options);
    this.#dropped.assertMayOpen(collection);
    const graph = known ?? this.#create({ collection, options, ...options });
    const { address, rkey, length } = graph.root.ref;
    replyBody(reply, [address, rkey, length]);
  }

  #create(place: GraphPlace): ShardGraph {
    const { arena, regions } = this.#context;
    const root = GraphRoot.create(arena, regions, place.collection);
    try {
      return this.#add(place, root);
    } catch (error) {
      root.drop();
      throw error;
    }
  }

  #drop(request: EngineRequest, reply: EngineReply): void {
    const { collection, undo } = decodeBody<{ readonly collection: number; readonly undo: boolean }>(request);
    const graph = this.#graphs.get(collection);
    if (!undo) this.#dropped.add(collection);
    this.#graphs.delete(collection);
    this.#jobs.giveUp((job) => job.collection === collection, this.#dropped.unknown(collection));
    this.#ghosts = this.#ghosts.filter((ghosts) => ghosts !== graph?.ghosts);
    graph?.drop();
    replyBody(reply, graph !== undefined);
  }

  #meet(request: EngineRequest, reply: EngineReply): void {
    const { collection, roots } = decodeBody<MeetRequest>(request);
    this.#find(collection).meet(roots.map(refOf));
    replyBody(reply, true);
  }

  #vertices(request: EngineRequest, reply: EngineReply): void {
    const list = readList(request, 1);
    const graph = this.#find(list.collection);
    const [keys] = list.keys as [ArrayLike<VertexKey>];
    if ((list.flags & LIST.REMOVE) !== 0) replyBody(reply, graph.removeVertices(keys));
    else replyBody(reply, graph.addVertices(keys, (list.flags & LIST.IF_MISSING) !== 0));
  }

  #edges(request: EngineRequest, reply: EngineReply): void {
    const list = readList(request, 2);
    const graph = this.#find(list.collection);
    if ((list.flags & (LIST.REMOVE | LIST.SET)) === 0) {
      replyBody(reply, graph.addEdges(list));
      return;
    }
    const [keys, values] = [
      list.keys.map((column) => Array.from(column)),
      list.values.map((column) => Array.from(column)),
    ];
    const copy = { ...list, keys, values };
    const work = (list.flags & LIST.SET) === 0 ? graph.removeEdges(copy) : graph.setEdges(copy);
    this.#start(list.collection, reply, work);
  }

  #set(request: EngineRequest, reply: EngineReply): void {
    const body = decodeBody<SetRequest>(request);
    replyBody(reply, this.#find(body.collection).setProperties(body));
  }

  #get(request: EngineRequest, reply: EngineReply): void {
    const body = decodeBody<GetRequest>(request);
    const graph = this.#find(body.collection);
    const { limitBytes } = reply;
    if (body.roots === undefined) replyBody(reply, getProperties(graph.table, graph.properties, body, limitBytes));
    else this.#start(body.collection, reply, endProperties(graph, this.#context.peers, body, limitBytes));
  }

  #decay(request: EngineRequest, reply: EngineReply): void {
    const body = decodeBody<DecayRequest>(request);
    this.#start(body.collection, reply, this.#find(body.collection).decay(body));
  }

  #leave(request: EngineRequest, reply: EngineReply): void {
    const { collection, leaves } = decodeBody<LeaveRequest>(request);
    const graph = this.#find(collection);
    replyBody(reply, { left: graph.leave(leaves), decays: graph.edges.decays } satisfies LeaveReply);
  }

  #reserve(request: EngineRequest, reply: EngineReply): void {
    const body = decodeBody<ReserveRequest>(request);
    replyBody(reply, this.#find(body.collection).reservations.answer(body));
  }

  #build(request: EngineRequest, reply: EngineReply): void {
    const body = decodeBody<BuildRequest>(request);
    this.#start(body.collection, reply, this.#find(body.collection, body.run).build(body));
  }

  #begin(request: EngineRequest, reply: EngineReply): void {
    const body = decodeBody<BeginRequest>(request);
    const graph = this.#find(body.collection, body.run);
    this.#start(body.collection, reply, graph.begin(body, this.#parts.requester), body.run);
  }

  #superstep(request: EngineRequest, reply: EngineReply): void {
    const body = decodeBody<SuperstepOrder>(request);
    const run = this.#find(body.collection, body.run).runs.get(body.run);
    if (run === undefined) throw noRun(body.run);
    this.#start(body.collection, reply, run.series.run(body), body.run);
  }

  /** Of a run that is gone they are for nobody. */
  #contributions(request: EngineRequest): void {
    const head = readContributions(request);
    const { value, vertex } = contributionsAt(request, head.count);
    const run = this.#graphs.get(head.collection)?.runs.get(head.run);
    run?.take(head, request.f64, value, request.i32, vertex);
  }

  #stepped(request: EngineRequest): void {
    const body = decodeBody<Stepped>(request);
    this.#graphs.get(body.collection)?.runs.get(body.run)?.series.take(body);
  }

  #halt(request: EngineRequest, reply: EngineReply): void {
    const { collection, run, program, sums, superstep } = decodeBody<HaltRequest>(request);
    this.#find(collection, run);
    replyBody(reply, isHalted(programNamed(this.#parts.programs, program), sums, superstep));
  }

  #complete(request: EngineRequest, reply: EngineReply): void {
    const { collection, run, keep } = decodeBody<CompleteRequest>(request);
    this.#graphs.get(collection)?.complete(run, keep);
    replyBody(reply, true);
  }

  #results(request: EngineRequest, reply: EngineReply): void {
    const body = decodeBody<ResultsRequest>(request);
    const { root, table } = this.#find(body.collection, body.run);
    writeResults(root, table, body, reply);
  }

  #neighbours(request: EngineRequest, reply: EngineReply): void {
    const body = decodeBody<NeighboursRequest>(request);
    const graph = this.#find(body.collection);
    this.#start(body.collection, reply, graph.neighbours(body, reply.limitBytes));
  }

  #scan(request: EngineRequest, reply: EngineReply): void {
    const body = decodeBody<ScanRequest>(request);
    replyBody(reply, scanVertices(this.#find(body.collection).table, body, reply.limitBytes));
  }

  #status(request: EngineRequest, reply: EngineReply): void {
    const { collection, run, attempt } = decodeBody<StatusRequest>(request);
    const { table, edges, runs } = this.#find(collection, run);
    const whole = run === undefined || (runs.get(run)?.attempt === attempt && runs.get(run)?.hasPeers === true);
    replyBody(reply, {
      vertices: table.count - table.removed,
      edges: edges.count,
      edgeBytes: edges.byteLength,
      decays: edges.decays,
      runs: runs.size,
      whole,
    });
  }
}

function noRun(run: number): ShardloomError {
  return new ShardloomError("ERR_UNAVAILABLE", "Cannot run superstep as the run is not open on this shard", {
    details: { run },
  });
}
