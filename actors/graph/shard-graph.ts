/**
 * One shard's part of a graph: vertices, edges, the adjacency of the other direction, and the runs over them.
 *
 * Invariant: while a run is open nothing is added or removed, so all that runs read stays where it is. The other direction's adjacency
 * is derived: it is made of what the peers' regions hold when a run begins, and made anew once any shard has changed.
 */
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { Verbs } from "../../native-bridge/verbs.ts";
import { invalidArgument } from "../../src/errors.ts";
import type { EngineContext } from "../engine.ts";
import { type AlgorithmName, algorithmOf } from "./algorithms.ts";
import { assertReadable } from "./assert-readable.ts";
import { allocateCsr, type Csr, countLoops, openCsr, type PeerEdges, transposeInto } from "./csr.ts";
import type { ResolvedEdges } from "./edge-changes.ts";
import { resolveEdges } from "./edge-resolver.ts";
import { EdgeStore } from "./edge-store.ts";
import { ShardGhosts } from "./ghosts/shard-ghosts.ts";
import { plainRef, type ReceivedList, refOf } from "./graph-messages.ts";
import { type NeighboursReply, type NeighboursRequest, neighboursOf } from "./graph-neighbours.ts";
import { type ResolvedGraphOptions, shapeOf } from "./graph-options.ts";
import { busy, changed, notOpen, unmet } from "./graph-refusals.ts";
import { type Block, type GraphRoot, MAX_RUNS, ROOT_WORD, RUN_WORD } from "./graph-root.ts";
import { algorithmOfProgram } from "./program-algorithm.ts";
import { programNamed } from "./program-calls.ts";
import { type SetRequest, setProperties } from "./property-messages.ts";
import type { BeginReply, BeginRequest, BuildReply, BuildRequest, DecayReply, DecayRequest } from "./run-messages.ts";
import { savedSteps } from "./run-state.ts";
import { RunTimes } from "./run-times.ts";
import { ShardRun } from "./shard-run.ts";
import { type Surroundings, surroundingsOf } from "./surroundings.ts";
import type { VertexKey } from "./vertex-key.ts";
import type { VertexProgram } from "./vertex-program.ts";
import { VertexProperties } from "./vertex-properties.ts";
import { VertexReservations } from "./vertex-reservations.ts";
import { VertexTable } from "./vertex-table.ts";

/** Most bytes of a neighbour in a reply, with its weight, whose key is a number or text. */
const NUMBER_BYTES = 24;
const TEXT_BYTES = 540;

/** What a graph needs to know of its cluster. */
export interface GraphPlace {
  readonly collection: number;
  readonly options: ResolvedGraphOptions;
  readonly shards: number;
  readonly members: readonly number[];
}

export class ShardGraph {
  readonly place: GraphPlace;
  readonly root: GraphRoot;
  readonly table: VertexTable;
  readonly edges: EdgeStore;
  readonly properties: VertexProperties;
  readonly reservations: VertexReservations;
  /** Undefined: the graph was created without. */
  readonly ghosts: ShardGhosts | undefined;
  readonly runs: Map<number, ShardRun> = new Map();
  readonly times: RunTimes;
  /** This shard among the members. */
  readonly shard: number;
  readonly #context: EngineContext;
  readonly #verbs: Verbs;
  readonly #programs: ReadonlyMap<string, VertexProgram>;
  /** Adjacency that open runs may still read. */
  readonly #retired: Block[] = [];
  /** Roots of all shards, as they were told last. */
  #peers: readonly RegionRef[] = [];
  #in: { readonly stamp: string; readonly block: Block } | undefined;
  /** Whether the other direction is being made. */
  #turning = false;
  /** Builds and removals under way. */
  #changing = 0;
  /** It is being copied elsewhere: nothing changes any more. */
  #leaves = false;

  constructor(
    context: EngineContext,
    place: GraphPlace,
    root: GraphRoot,
    programs: ReadonlyMap<string, VertexProgram>,
  ) {
    this.place = place;
    this.shard = place.members.indexOf(context.workerIndex);
    this.root = root;
    this.#context = context;
    this.#programs = programs;
    this.#verbs = new Verbs(context.arena);
    this.table = new VertexTable(root);
    this.edges = new EdgeStore(root, place.shards, shapeOf(place.options));
    this.properties = new VertexProperties(root, place.options.vertexProperties);
    const { peers } = context;
    root.set(ROOT_WORD.epoch, peers?.incarnation ?? 0);
    if (place.options.ghosts !== false && peers !== undefined)
      this.ghosts = new ShardGhosts({ ...place, context, peers, shard: this.shard, options: place.options.ghosts });
    this.times = new RunTimes(context.nowMs);
    this.reservations = new VertexReservations(context.nowMs, this.table);
    for (const run of root.runs()) this.times.heard(run);
  }

  /** Tells where the peers' tables are, by shard. */
  meet(peers: readonly RegionRef[]): void {
    this.#peers = peers;
  }

  addVertices(keys: ArrayLike<VertexKey>, ifMissing: boolean): number {
    this.#assertStill("add vertices");
    return this.table.add(keys, ifMissing);
  }

  /** Removes vertices; their edges go with the next build, on whatever shard they are. @returns how many there were */
  removeVertices(keys: ArrayLike<VertexKey>): number {
    this.#assertStill("remove vertices");
    this.reservations.assertFree(keys);
    return this.table.remove(keys);
  }

  /** From now on nothing is changed and no run begins, or they may again. @returns how it was. @throws {ShardloomError} `ERR_OVERLOADED`. */
  leave(leaves: boolean): boolean {
    if (leaves && !this.#leaves) this.#assertStill("leave shard");
    const left = this.#leaves;
    this.#leaves = leaves;
    return left;
  }

  setProperties(request: SetRequest): number {
    this.#assertStill("set properties");
    return setProperties(this.table, this.properties, request);
  }

  addEdges(list: ReceivedList): number {
    this.#assertStill("add edges");
    this.#checkValues(list);
    this.edges.add(this.#resolve("add edge", list));
    return list.count;
  }

  /** Gives all edges between pairs of vertices other numbers. */
  *setEdges(list: ReceivedList): Generator<boolean, number> {
    this.#assertStill("set edges");
    this.#checkValues(list);
    const edges = this.#resolve("set edge", list);
    return yield* this.#change(({ targetRows, removals }) => this.edges.set(targetRows, removals, edges));
  }

  /** Removes all edges between pairs of vertices. */
  *removeEdges(list: ReceivedList): Generator<boolean, number> {
    this.#assertStill("remove edges");
    const edges = this.#resolve("remove edge", list);
    return yield* this.#change(({ targetRows, removals }) => this.edges.remove(targetRows, removals, edges));
  }

  /** Makes weights smaller; the same decay again changes nothing. @returns edges that are left, and those that went */
  *decay({ roots, ...decay }: DecayRequest): Generator<boolean, DecayReply> {
    this.#assertStill("decay weights");
    this.meet(roots.map(refOf));
    const pruned = yield* this.#change(({ targetRows, removals }) => this.edges.decay(targetRows, removals, decay));
    return { edges: this.edges.count, pruned };
  }

  *build({ run, roots }: BuildRequest): Generator<boolean, BuildReply> {
    this.meet(roots.map(refOf));
    if (this.runs.size === 0) {
      while (this.#changing > 0) yield false;
      this.#changing++;
      try {
        yield* this.#build();
      } finally {
        this.#changing--;
      }
    }
    const { root, table } = this;
    return {
      rows: table.count,
      vertices: table.count - table.removed,
      edges: this.edges.count,
      numeric: table.numeric,
      structure: root.get(ROOT_WORD.structure),
      root: plainRef(root.ref),
      out: plainRef((this.edges.block as Block).ref),
      fresh: this.#context.randomU32() & 0x7fff_ffff || 1,
      saved: run === 0 ? [] : savedSteps(root, run),
    };
  }

  *begin(
    request: BeginRequest,
    requester: ConstructorParameters<typeof ShardRun>[0]["outlet"]["requester"],
  ): Generator<boolean, BeginReply> {
    const { run: id, shards, algorithm: name } = request;
    this.#assertHere("begin run");
    const out = this.#builtAs(shards);
    this.runs.get(id)?.release();
    this.runs.delete(id);
    this.#makeRoom(id);
    this.root.run(id, true); // before any work: there must be a place for the result
    this.times.heard(id, request.limits);
    const program = request.program ? programNamed(this.#programs, name) : undefined;
    const algorithm = program ? algorithmOfProgram(program) : algorithmOf(name as AlgorithmName, request.params);
    const needsIn = request.pulls || !this.place.options.directed || algorithm.direction === "both";
    if (needsIn) yield* this.#turnRound(shards);
    const run = new ShardRun({
      root: this.root,
      table: this.table,
      properties: this.properties,
      algorithm,
      request,
      directed: this.place.options.directed,
      out,
      in: needsIn ? this.#inCsr() : undefined,
      verbs: this.#verbs,
      kernels: this.#context.kernels,
      nowMs: this.#context.nowMs,
      outlet: { shard: this.shard, requester: (peer) => requester(this.place.members[peer] as number) },
    });
    this.runs.set(id, run);
    yield* run.prepare();
    return {
      state: plainRef(run.state.ref),
      in: needsIn && this.#in !== undefined ? plainRef(this.#in.block.ref) : undefined,
      aggregates: algorithm.aggregates,
      halts: program?.halt !== undefined,
      names: program === undefined ? ["value"] : Object.keys(program.state),
      maxSupersteps: program === undefined ? Number.MAX_SAFE_INTEGER : (program.maxSupersteps ?? 1000),
      kind: algorithm.kind,
    };
  }

  /** @param limitBytes Of the reply. */
  *neighbours(request: NeighboursRequest, limitBytes: number): Generator<boolean, NeighboursReply> {
    const { shards, direction, keptBut } = request;
    const out = this.#builtAs(shards);
    const { options } = this.place;
    const isKept = keptBut !== undefined;
    const forth = isKept || direction !== "in" || !options.directed;
    const back = !isKept && (direction !== "out" || !options.directed);
    if (back) yield* this.#turnRound(shards);
    const ways = [...(forth ? [out] : []), ...(back ? [this.#inCsr() as Csr] : [])];
    for (const [at, { root }] of shards.entries()) if (at !== keptBut) assertReadable(this.#verbs, refOf(root));
    const entryBytes = (this.table.numeric ? NUMBER_BYTES : TEXT_BYTES) + 9 * this.edges.shape.columns;
    const limit = Math.max(2, Math.floor(limitBytes / entryBytes) - 1);
    return neighboursOf({ arena: this.#context.arena, table: this.table, ways }, request, limit);
  }

  /** Ends a run: keeps its result, or forgets all of it. */
  complete(id: number, keep: boolean): void {
    const run = this.runs.get(id);
    if (!keep) this.root.forgetRun(id);
    else if (run !== undefined) run.keep();
    else if (!this.#hasResult(id)) throw notOpen(id);
    run?.release();
    this.runs.delete(id);
    if (!keep) this.times.forget(id);
    this.#releaseRetired();
  }

  /** Runs that are under way, and of which nobody has asked anything for too long. */
  abandoned(): number[] {
    return this.root.runs().filter((id) => this.times.overdueMs(id, "idleMs") > 0 && !this.#hasResult(id));
  }

  drop(): void {
    this.ghosts?.close();
    for (const run of this.runs.values()) run.release();
    this.runs.clear();
    this.root.drop();
  }

  /** A result that nobody has looked at for too long gives way, the oldest first. */
  #makeRoom(id: number): void {
    const held = this.root.runs();
    if (held.includes(id) || held.length < MAX_RUNS) return;
    const over = (run: number): number => this.times.overdueMs(run, "resultIdleMs");
    const [oldest] = held.filter((run) => this.#hasResult(run) && over(run) > 0).sort((a, b) => over(b) - over(a));
    if (oldest !== undefined) this.complete(oldest, false);
  }

  #hasResult(id: number): boolean {
    const word = this.root.run(id, false);
    return word !== undefined && this.root.block(word + RUN_WORD.result) !== undefined;
  }

  #releaseRetired(): void {
    if (this.runs.size > 0) return;
    for (const block of this.#retired.splice(0)) this.root.release(block);
  }

  #inCsr(): Csr | undefined {
    return this.#in === undefined ? undefined : openCsr(this.#context.arena, this.#in.block.address);
  }

  /** Builds, and changes what was built; nobody else changes anything meanwhile. */
  *#change<T>(act: (around: Surroundings) => Generator<boolean, T>): Generator<boolean, T> {
    this.#changing++;
    try {
      yield* this.#build();
      return yield* act(this.#surroundings());
    } finally {
      this.#changing--;
    }
  }

  *#build(): Generator<boolean> {
    const { targetRows, removals } = this.#surroundings();
    yield* this.edges.build(this.table.count, targetRows, removals);
    if (this.ghosts === undefined || this.#peers.length !== this.place.shards) return;
    const roots = this.#peers.map(({ address }) => address);
    yield* this.ghosts.derive(this.edges.built(this.table.count) as Csr, roots);
  }

  #surroundings(): Surroundings {
    return surroundingsOf(this.#context.arena, this.shard, this.place.shards, this.root.ref, this.#peers);
  }

  /** The adjacency, if all shards are still as they were when they told so. @throws {ShardloomError} `ERR_STALE_EPOCH`. */
  #builtAs(shards: readonly BuildReply[]): Csr {
    const out = this.edges.built(this.table.count);
    const { u32 } = this.#context.arena;
    const same = ({ root, structure }: BuildReply): boolean =>
      Atomics.load(u32, (root[0] >>> 2) + ROOT_WORD.structure) === structure;
    // A shard that was built before a peer's vertex was removed may have edges to it, although the peer has told what it is now.
    const removals = shards.reduce((sum, { root }) => sum + Atomics.load(u32, (root[0] >>> 2) + ROOT_WORD.removed), 0);
    const known = shards.every(same) && removals === this.edges.stamp;
    if (out === undefined || !known || this.#changing > 0) throw changed();
    return out;
  }

  /** Makes the adjacency of the other direction out of what the peers hold, unless it is there. */
  *#turnRound(shards: readonly BuildReply[]): Generator<boolean> {
    const stamp = shards.map(({ root, structure }) => `${root.join(":")}/${structure}`).join(" ");
    while (this.#turning) yield false;
    if (this.#in?.stamp === stamp) return;
    this.#turning = true;
    try {
      yield* this.#makeIn(shards, stamp);
    } finally {
      this.#turning = false;
    }
  }

  *#makeIn(shards: readonly BuildReply[], stamp: string): Generator<boolean> {
    const { arena } = this.#context;
    if (this.#in !== undefined) this.#retired.push(this.#in.block);
    this.#in = undefined;
    this.#releaseRetired();
    const refs = shards.map(({ out }) => refOf(out));
    for (const ref of refs) assertReadable(this.#verbs, ref);
    const theirs = refs.map(({ address }) => openCsr(arena, address).peers[this.shard] as PeerEdges);
    // An undirected edge leads there and back; one of a vertex with itself is no other edge back.
    const onceOnly = (peer: number): boolean => peer === this.shard && !this.place.options.directed;
    const counts = theirs.map((from, peer) => from.edges - (onceOnly(peer) ? countLoops(from) : 0));
    const block = allocateCsr(this.root, this.table.count, counts, this.edges.shape);
    try {
      const csr = openCsr(arena, block.address);
      for (const [peer, from] of theirs.entries())
        yield* transposeInto(csr.peers[peer] as PeerEdges, from, onceOnly(peer));
      for (const ref of refs) assertReadable(this.#verbs, ref);
      this.#in = { stamp, block };
    } finally {
      if (this.#in?.block !== block) this.root.release(block); // also when nobody waits any more
    }
  }

  #resolve(action: string, list: ReceivedList): ResolvedEdges {
    const { table, place, shard } = this;
    if (this.#peers.length !== place.shards) throw unmet();
    const resolved = resolveEdges({ arena: this.#context.arena, table, shard, peers: this.#peers }, action, list);
    for (const ref of this.#peers) assertReadable(this.#verbs, ref);
    return resolved;
  }

  #checkValues({ values }: ReceivedList): void {
    const { columns } = this.edges.shape;
    if (values.length === 0 || values.length === columns) return;
    throw invalidArgument("take edges", "what they carry", `${columns} columns of numbers`, values.length);
  }

  #assertStill(action: string): void {
    this.#assertHere(action);
    if (this.runs.size === 0 && this.#changing === 0) return;
    const { size } = this.runs;
    throw busy(action, size === 0 ? "adjacency is being built" : `${size} runs are computing over the graph`, size);
  }

  #assertHere(action: string): void {
    if (this.#leaves) throw busy(action, "the graph is being moved to other shards");
  }
}
