/**
 * One shard's part of a run: state in a registered block, an inbox, and the work of one superstep.
 *
 * What is sent in superstep k is received in k + 1: from an inbox, when every shard pushes first, or out of the senders' arrays. The
 * coordinator begins k + 1 when every shard has acknowledged k and knows how much was sent, so that it can choose. Arrays of what was
 * sent take turns: one is written while the other is read. One inbox is enough: nobody pushes for k + 2 before all have received in k + 1.
 *
 * Invariant: a contribution is taken for the superstep that it names or not at all, and never twice. What is pulled counts only if every
 * peer's region is the same after the superstep as before it. Saved state is whole: it is written before it is named.
 */
import type { Kernels } from "../../native-bridge/kernels.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import type { Verbs } from "../../native-bridge/verbs.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { Requester } from "../../src/routing/requester.ts";
import type { RunView, ShardAlgorithm } from "./algorithm.ts";
import { assertReadable } from "./assert-readable.ts";
import { type Csr, degreesOf, openCsr } from "./csr.ts";
import { type ContributionsHead, refOf } from "./graph-messages.ts";
import { type Block, type GraphRoot, RUN_WORD } from "./graph-root.ts";
import { MergedRows } from "./merged-rows.ts";
import { MirroredRows } from "./mirrored-rows.ts";
import { type Outlet, type Pushed, push } from "./outgoing.ts";
import { accept, pull, pullFirst, store } from "./propagate.ts";
import type { BeginReply, BeginRequest, SuperstepRequest, UntimedAck } from "./run-messages.ts";
import { restoreState, saveState } from "./run-state.ts";
import { SuperstepSeries } from "./superstep-series.ts";
import { identityOf, nothingOf } from "./vertex-program.ts";
import type { VertexProperties } from "./vertex-properties.ts";
import type { VertexTable } from "./vertex-table.ts";

const ROWS_A_SLICE = 16_384;
/** Of a run's state, behind its fields: what was sent, in even and in odd supersteps. */
const OUTBOXES = 2;

/** What a run is made of. */
export interface ShardRunParts {
  readonly root: GraphRoot;
  readonly table: VertexTable;
  readonly properties: VertexProperties;
  readonly algorithm: ShardAlgorithm;
  readonly request: BeginRequest;
  readonly directed: boolean;
  readonly out: Csr;
  readonly in: Csr | undefined;
  readonly verbs: Verbs;
  readonly kernels: Kernels;
  readonly outlet: Omit<Outlet, "own" | "rowsOf">;
  readonly nowMs: () => number;
}

export class ShardRun {
  readonly id: number;
  readonly attempt: number;
  readonly state: Block;
  /** Does what is ordered. */
  readonly series: SuperstepSeries;
  readonly #parts: ShardRunParts;
  readonly #view: Mutable<RunView>;
  readonly #outboxes: Float64Array[];
  /** 1 for rows whose vertices were removed before the run began: they do not compute. */
  readonly #gone: Uint8Array | undefined;
  /** What was pushed: combined values, or labels of each peer's vertices. */
  #inboxArray: Float64Array | undefined;
  #scratchArray: Float64Array | undefined;
  #labels: Float64Array[] | undefined;
  #mirrors: MirroredRows[] = [];
  /** Values received, values that peers say they have sent, and peers that have said so. */
  #received = 0;
  #announced = 0;
  readonly #ended: Set<number> = new Set();
  #superstep: number;
  /** The ways to the peers' workers when the run began. */
  readonly #requesters: readonly (Requester | undefined)[];
  /** The superstep that contributions are taken for. */
  #next: number;

  constructor(parts: ShardRunParts) {
    const { root, table, algorithm, request, out, directed } = parts;
    this.#parts = parts;
    this.id = request.run;
    this.attempt = request.attempt;
    this.#superstep = request.after;
    this.#next = request.after + 1;
    const rows = out.rows;
    const arrayBytes = (algorithm.fields + OUTBOXES) * rows * 8;
    const gone = table.removed === 0 ? undefined : table.gone?.subarray(0, rows);
    this.state = root.allocate(Math.max(8, arrayBytes + (gone === undefined ? 0 : (rows + 7) & ~7)));
    const array = (at: number): Float64Array =>
      new Float64Array(root.arena.buffer, this.state.address + at * rows * 8, rows);
    this.#outboxes = [array(algorithm.fields), array(algorithm.fields + 1)];
    if (gone !== undefined) {
      this.#gone = new Uint8Array(root.arena.buffer, this.state.address + arrayBytes, rows);
      this.#gone.set(gone);
    }
    for (const outbox of this.#outboxes) outbox.fill(nothingOf(algorithm.combine));
    const both = !directed || algorithm.direction === "both";
    const other = parts.in ?? out;
    const ways = both ? [out, other] : [out];
    const rowsOf = request.shards.map((shard) => shard.rows);
    this.#view = {
      shard: parts.outlet.shard,
      rows,
      vertices: request.shards.reduce((sum, { vertices }) => sum + vertices, 0),
      rowsOf,
      superstep: 0,
      params: request.params,
      table,
      properties: parts.properties,
      fields: Array.from({ length: algorithm.fields }, (_, at) => array(at)),
      outbox: this.#outboxes[0] as Float64Array,
      incoming: new Float64Array(),
      sources: [],
      degrees: degreesOf(ways, rows),
      ways,
      origins: both ? ways : [other],
      neighbours: [],
      directed,
      before: new Float64Array(algorithm.aggregates.length),
      sums: new Float64Array(algorithm.aggregates.length),
      active: 0,
      activeEdges: 0,
    };
    this.series = new SuperstepSeries({ ...parts, run: this });
    this.#mirrors = rowsOf.map(() => new MirroredRows());
    this.#requesters = rowsOf.map((_, shard) => parts.outlet.requester(shard));
    try {
      if (request.after >= 0) restoreState(root, this.id, this.state, request.after);
      else algorithm.check?.(this.#view);
    } catch (error) {
      root.release(this.state);
      throw error;
    }
  }

  /** Lays out what will be pulled, where that is worth it. */
  *prepare(): Generator<boolean> {
    const { origins, rowsOf } = this.#view;
    if (!this.#parts.request.pulls || !this.#isSummed || rowsOf.length === 1) return;
    this.#merged = yield* MergedRows.of(this.#parts.root, origins, rowsOf);
  }

  /** Whether all peers' workers are those that the run began with. */
  get hasPeers(): boolean {
    const { requester } = this.#parts.outlet;
    return this.#requesters.every((began, shard) => began === requester(shard) && began?.lost !== true);
  }

  /** Takes contributions that a peer has pushed. Those of another attempt or superstep are not for this one. */
  take(
    { attempt, superstep, source, count, total }: ContributionsHead,
    f64: Float64Array,
    valueAt: number,
    words: Uint32Array | Int32Array,
    vertexAt: number,
  ): void {
    if (attempt !== this.attempt || superstep !== this.#next || this.#ended.has(source)) return;
    const { algorithm } = this.#parts;
    let taken: boolean;
    if (algorithm.kind === "labels") {
      this.#labels ??= this.#view.rowsOf.map((rows) => new Float64Array(rows));
      const into = this.#labels[source];
      taken = into !== undefined && store(into, f64, valueAt, words, vertexAt, count);
    } else if (algorithm.kind === "neighbourhoods") {
      const mirror = this.#mirrors[source];
      const rows = this.#view.rowsOf[source] ?? 0;
      taken = mirror?.take(rows, f64, valueAt, words, vertexAt, count) === true;
    } else taken = accept(algorithm.combine, this.#inbox, f64, valueAt, words, vertexAt, count);
    if (!taken)
      throw new ShardloomError("ERR_CORRUPT", "Cannot take contributions as one names a vertex that is not there");
    this.#received += count;
    if (total < 0) return;
    this.#announced += total;
    this.#ended.add(source);
  }

  /** One superstep. Yields false while it waits for contributions. */
  *superstep(request: SuperstepRequest): Generator<boolean, UntimedAck> {
    const { algorithm } = this.#parts;
    const view = this.#view;
    const { superstep, receive } = request;
    if (request.attempt !== this.attempt || superstep !== this.#superstep + 1) {
      throw new ShardloomError(
        "ERR_STALE_EPOCH",
        `Cannot run superstep ${superstep} of attempt ${request.attempt} as superstep ${this.#superstep + 1} of attempt ${this.attempt} is next`,
      );
    }
    this.#superstep = superstep;
    let pushed: Pushed = { sent: [], pushedBytes: 0 };
    if (receive === "push") {
      pushed = yield* this.#push(superstep);
      while (this.#ended.size < view.rowsOf.length) yield false;
      if (this.#received !== this.#announced) throw miscounted(superstep, this.#announced, this.#received);
    }
    const received = this.#received;
    this.#next = superstep + 1;
    view.superstep = superstep;
    view.outbox = this.#outboxes[superstep & 1] as Float64Array;
    view.before = Float64Array.from(request.before);
    view.sums = Float64Array.from(algorithm.aggregates, identityOf);
    view.active = 0;
    view.activeEdges = 0;
    const computed = yield* this.#compute(
      request,
      request.peers.map(({ state }) => refOf(state)),
    );
    if (receive === "push") this.#inboxArray?.fill(nothingOf(algorithm.combine));
    this.#received = 0;
    this.#announced = 0;
    this.#ended.clear();
    if (request.save) {
      saveState(this.#parts.root, this.id, this.state, superstep);
      yield true;
    }
    const { active, activeEdges } = view;
    return { superstep, computed, active, activeEdges, sums: [...view.sums], ...pushed, received };
  }

  /** Keeps the state as the run's result, and nothing else of it. */
  keep(): void {
    const { root, algorithm } = this.#parts;
    root.forgetRun(this.id);
    const word = root.run(this.id, true) as number;
    root.set(word + RUN_WORD.fields, algorithm.results);
    root.set(word + RUN_WORD.rows, this.#view.rows);
    root.set(word + RUN_WORD.gone, this.#gone === undefined ? 0 : this.#gone.byteOffset - this.state.address);
    root.name(word + RUN_WORD.result, this.state);
  }

  /** Frees the state, unless it is kept. */
  release(): void {
    const { root } = this.#parts;
    if (this.#sums !== undefined) root.release(this.#sums);
    if (this.#merged !== undefined) root.release(this.#merged.block);
    const word = root.run(this.id, false);
    if (word !== undefined && root.block(word + RUN_WORD.result) === this.state) return;
    root.release(this.state);
  }

  /** @returns how many vertices it has computed */
  *#compute({ receive, peers, superstep }: SuperstepRequest, states: readonly RegionRef[]): Generator<boolean, number> {
    const { algorithm, request, verbs } = this.#parts;
    const view = this.#view;
    const { rows } = view;
    const near = algorithm.kind === "neighbourhoods";
    if (near && receive === "none") return 0; // the neighbours' edges come in the next superstep
    const reads = receive === "pull";
    const read = near ? request.shards.map(({ out }) => refOf(out)) : states;
    if (reads) for (const ref of read) assertReadable(verbs, ref);
    if (near) view.neighbours = reads ? this.#neighbours(peers) : this.#mirrored();
    const sources = this.#sources(receive, superstep, states);
    view.sources = sources;
    view.incoming = receive === "push" && algorithm.kind === "combined" ? this.#inbox : this.#pulled;
    if (receive === "pull" && this.#merged !== undefined) yield* this.#merged.take(sources);
    const slice = algorithm.slice ?? ROWS_A_SLICE;
    let computed = 0;
    for (let from = 0; from < rows; from += slice) {
      const to = Math.min(rows, from + slice);
      if (receive === "pull" && algorithm.kind === "combined") this.#pullRows(sources, from, to);
      for (let at = from; at < to; ) {
        const end = this.#endOfPresent(at, to);
        if (end > at) algorithm.compute(view, at, end);
        computed += end - at;
        at = end + 1;
      }
      yield true;
    }
    if (reads) for (const ref of read) assertReadable(verbs, ref);
    return computed;
  }

  /** The first row from one on whose vertex was removed. */
  #endOfPresent(from: number, to: number): number {
    const found = this.#gone?.subarray(from, to).indexOf(1) ?? -1;
    return found < 0 ? to : from + found;
  }

  /** The adjacency of all shards, in place. */
  #neighbours(peers: SuperstepRequest["peers"]): RunView["neighbours"] {
    const { root, request } = this.#parts;
    return peers.map((peer, shard) => ({
      out: openCsr(root.arena, (request.shards[shard] as BeginRequest["shards"][number]).out[0]),
      in: openCsr(root.arena, (peer.in as NonNullable<BeginReply["in"]>)[0]),
    }));
  }

  /** What of it the peers have sent; this shard's own is at hand. */
  #mirrored(): RunView["neighbours"] {
    const { out, in: other } = this.#parts;
    const { rowsOf, shard } = this.#view;
    const none = new MirroredRows();
    return this.#mirrors.map((mirror, peer) => {
      const rows = rowsOf[peer] as number;
      if (peer === shard) return { out, in: other ?? out };
      return { out: mirror.toCsr(rows, rowsOf.length), in: none.toCsr(rows, rowsOf.length) };
    });
  }

  readonly #empty: Float64Array = new Float64Array();
  #pulledRows: Float64Array | undefined;
  /** The block in which they are summed up, where they are: in the arena, as the kernel needs them there. */
  #sums: Block | undefined;
  /** Edges of all peers in one list; undefined: one list for each. */
  #merged: MergedRows | undefined;

  /** Whether pulled values are summed up as they are, which the kernel does. */
  get #isSummed(): boolean {
    const { kind, combine, way } = this.#parts.algorithm;
    return kind === "combined" && combine === "sum" && way === "value";
  }

  /** Where pulled values are combined. */
  get #pulled(): Float64Array {
    if (this.#parts.algorithm.kind !== "combined") return this.#empty;
    this.#pulledRows ??= this.#makePulled();
    return this.#pulledRows;
  }

  #makePulled(): Float64Array {
    const { root } = this.#parts;
    const { rows } = this.#view;
    if (!this.#isSummed) return new Float64Array(rows);
    this.#sums = root.allocate(Math.max(8, rows * 8));
    return new Float64Array(root.arena.buffer, this.#sums.address, rows);
  }

  /** What each peer's vertices sent in the last superstep. */
  #sources(receive: string, superstep: number, states: readonly RegionRef[]): Float64Array[] {
    const { algorithm, root } = this.#parts;
    if (receive === "none") return [];
    if (receive === "push") return algorithm.kind === "labels" ? (this.#labels ?? []) : [];
    const place = algorithm.fields + ((superstep - 1) & 1);
    return states.map(({ address }, shard) => {
      const rows = this.#view.rowsOf[shard] as number;
      return new Float64Array(root.arena.buffer, address + place * rows * 8, rows);
    });
  }

  #pullRows(sources: readonly Float64Array[], from: number, to: number): void {
    const { algorithm, kernels } = this.#parts;
    const { origins, incoming, fields } = this.#view;
    incoming.fill(nothingOf(algorithm.combine), from, to);
    if (this.#merged !== undefined) {
      this.#merged.pullSum(kernels, incoming, from, to);
      return;
    }
    for (const { peers } of origins) {
      for (let peer = 0; peer < sources.length; peer++) {
        const edges = peers[peer] as Csr["peers"][number];
        if (edges.edges === 0) continue;
        const source = sources[peer] as Float64Array;
        if (algorithm.firstOnly === true) pullFirst(incoming, fields[0] as Float64Array, edges, source, from, to);
        else if (this.#sums !== undefined) {
          const { offsets, targets } = edges;
          kernels.pullSum(incoming.byteOffset, offsets.byteOffset, targets.byteOffset, source.byteOffset, from, to);
        } else pull(algorithm.combine, algorithm.way, incoming, edges, source, from, to);
      }
    }
  }

  /** Pushes what was sent in the last superstep. */
  *#push(superstep: number): Generator<boolean, Pushed> {
    const { algorithm, request, outlet } = this.#parts;
    const { rowsOf, shard, ways, directed } = this.#view;
    const head = { collection: request.collection, run: this.id, attempt: this.attempt, superstep };
    const own: Outlet["own"] = (values, vertices, count, total) =>
      this.take({ ...head, source: shard, count, total }, values, 0, vertices, 0);
    const outbox = this.#outboxes[(superstep - 1) & 1] as Float64Array;
    return yield* push({ ...outlet, rowsOf, own }, head, {
      algorithm,
      directed,
      ways,
      values: outbox,
      scratch: () => this.#scratch,
    });
  }

  /** Whoever pushes leaves it as it was. */
  get #scratch(): Float64Array {
    const { combine } = this.#parts.algorithm;
    this.#scratchArray ??= new Float64Array(Math.max(0, ...this.#view.rowsOf)).fill(nothingOf(combine));
    return this.#scratchArray;
  }

  get #inbox(): Float64Array {
    const { combine } = this.#parts.algorithm;
    this.#inboxArray ??= new Float64Array(this.#view.rows).fill(nothingOf(combine));
    return this.#inboxArray;
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

function miscounted(superstep: number, expected: number, received: number): ShardloomError {
  return new ShardloomError(
    "ERR_INTERNAL",
    `Cannot compute superstep ${superstep} as its inbox must have ${expected} values: current value is ${received}`,
    { details: { superstep, expected, received } },
  );
}
