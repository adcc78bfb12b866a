/**
 * One query on one of its primary shards: a best-first search that shares its finds with the other primaries.
 *
 * Invariant: every vertex has one shard responsible for it, its owner when that is primary and the leader otherwise; only the responsible
 * shard computes, keeps and expands it, so a vertex is computed once a query. Nothing is dropped unless it is beyond a bound that was
 * the ef-th best distance of computed vertices, hence at or above the final one: when all primaries are passive and no sync message is
 * under way, every vertex computed within the final bound has been expanded, which is what a centralised best-first search guarantees,
 * and the leader knows the ef best. Distances are float32 everywhere, so a bound that travels prunes nothing that it should not.
 * Source: CoTra (arXiv 2507.06653), coro_sub_query. Divergence: foreign vertices of all primaries go through the leader, which alone
 * pulls and pushes them, and reads foreign adjacency one-sidedly rather than sending a node task: owners need no state of the query, and
 * no vertex is computed twice. The public code prunes remote results by the bound exactly when the heap is not full; here it is when full.
 */

import {
  type CotraMessage,
  encodedBytes,
  type Header,
  MESSAGE,
  type Reason,
  type ReplyMessage,
  type StartMessage,
  type SyncMessage,
  type TokenMessage,
} from "./cotra-messages.ts";
import { type ResolvedSettings, settingsFromBytes } from "./cotra-options.ts";
import { countStolen, createTally, TallyBook } from "./cotra-tally.ts";
import { type ForeignClient, ForeignWork } from "./foreign-work.ts";
import { NO_PARTITION } from "./graph-view.ts";
import { MAX_BATCH, type Pairs, pairsOf } from "./message-bytes.ts";
import type { SearchHost } from "./search-host.ts";
import { PeerSequences } from "./sequence-window.ts";
import { type Token, TokenRing } from "./token-ring.ts";
import { CandidateHeap, TopHeap } from "./vertex-heaps.ts";
import { VertexSet } from "./vertex-set.ts";

/** The state of one query on one primary shard. */
export class PrimarySearch {
  readonly origin: number;
  readonly serial: number;
  readonly deadlineMs: number;
  readonly query: Uint8Array;
  readonly #host: SearchHost;
  readonly #self: number;
  readonly #leader: number;
  readonly #primaries: readonly number[];
  readonly #k: number;
  readonly #settings: ResolvedSettings;
  readonly #ring: TokenRing;
  readonly #candidates = new CandidateHeap();
  readonly #top: TopHeap;
  readonly #visited = new VertexSet();
  /** The least bound that a peer announced. */
  #peerBound = Number.POSITIVE_INFINITY;
  /** What the next sync messages say: vertices to each other primary, and own finds to all. */
  readonly #outgoing = new Map<number, number[]>();
  #finds: number[] = [];
  #findDistances: number[] = [];
  /** What the current step found to compute: own vertices, and those of partitions without a primary. */
  #own: number[] = [];
  readonly #foreign: ForeignWork;
  readonly #missing = new Set<number>();
  readonly #sequences = new PeerSequences();
  readonly #scratch: Int32Array;
  readonly #tally = new TallyBook();
  #tasks = 0;
  #stepsSinceSync = 0;
  #expandedWaiting = 0;
  #synced = false;
  #over = false;

  constructor(host: SearchHost, start: StartMessage, nowMs: number) {
    this.#host = host;
    this.origin = start.origin;
    this.serial = start.serial;
    this.deadlineMs = nowMs + start.remainingMs;
    this.query = start.query;
    this.#self = host.view.self;
    this.#leader = start.leader;
    this.#primaries = start.primaries;
    this.#k = start.k;
    this.#settings = settingsFromBytes(start.settings);
    this.#ring = new TokenRing(this.#self, start.primaries);
    this.#top = new TopHeap(start.ef);
    this.#scratch = new Int32Array(host.view.maxDegree);
    this.#foreign = new ForeignWork(this.#foreignClient());
    for (const primary of start.primaries) if (primary !== this.#self) this.#outgoing.set(primary, []);
    this.#seed(start.seeds);
  }

  get over(): boolean {
    return this.#over;
  }

  /** Distance beyond which nothing matters any more. */
  get bound(): number {
    return Math.min(this.#peerBound, this.#top.bound);
  }

  /**
   * Expands up to a group of candidates, sends what is due, and passes the token when there is nothing to do.
   *
   * @returns Whether anything was done; when not, only a message or a completed task can change that.
   */
  step(): boolean {
    if (this.#over || this.#tasks > 0 || this.#ring.lost.has(this.#leader)) return false;
    const expanded = this.#expandGroup();
    const worked = this.#dispatch() || expanded > 0;
    if (expanded > 0) {
      this.#host.counters.steps++;
      this.#stepsSinceSync++;
    }
    const idle = !this.#hasCandidate();
    const flushed = (idle || this.#stepsSinceSync >= this.#settings.syncEvery) && this.#flush();
    if (!idle || this.#tasks > 0 || this.#foreign.open > 0) return worked || flushed;
    return this.#advanceRing() || worked || flushed;
  }

  receiveSync(message: SyncMessage): void {
    if (!this.#isFresh(message)) return;
    this.#ring.received(message.from);
    this.#synced = true;
    const { vertices, distances } = message.tops;
    for (let at = 0; at < vertices.length; at++) {
      const vertex = vertices[at] as number;
      if (this.#host.view.partitionOf(vertex) === NO_PARTITION) this.#host.counters.damage++;
      else this.#top.offer(vertex, distances[at] as number);
    }
    this.#peerBound = Math.min(this.#peerBound, message.bound);
    for (const vertex of message.ids) this.#admit(vertex);
    this.#dispatch();
  }

  receiveToken(message: TokenMessage): void {
    if (!this.#isFresh(message)) return;
    for (const member of message.lost) this.peerLost(member);
    this.#tally.accept(message.generation, message.tally);
    this.#ring.accept(message);
  }

  receiveReply(message: ReplyMessage): void {
    this.#countMessage(message.from, message);
    this.#foreign.receive(message);
    this.#dispatch();
  }

  /** A shard died: what it was asked is read one-sidedly where that is possible, and named as missing where it is not. */
  peerLost(peer: number): void {
    if (this.#over || peer === this.#self || this.#ring.lost.has(peer)) return;
    this.#ring.lose(peer);
    if (this.#primaries.includes(peer)) this.#missing.add(peer);
    const queued = this.#outgoing.get(peer) ?? [];
    this.#outgoing.delete(peer);
    if (peer === this.#leader) return;
    for (const vertex of queued) this.#route(vertex, this.#host.view.partitionOf(vertex));
    this.#foreign.peerLost(peer);
    this.#dispatch();
  }

  /** Ends the search before its time. The leader answers with what it has, and names who might have had more. */
  expire(reason: Reason): void {
    if (this.#over) return;
    if (this.#leader === this.#self) {
      for (const primary of this.#outgoing.keys()) this.#missing.add(primary);
      for (const partition of this.#foreign.owing()) this.#missing.add(partition);
      if (this.#missing.size === 0) this.#missing.add(this.#self);
      this.#answer(reason);
    } else this.#end();
  }

  /** Ends the search as this shard cannot take part in it any more. */
  giveUp(): void {
    this.#missing.add(this.#self);
    this.#answer("ERR_OVERLOADED");
  }

  /** The origin calls the search off. */
  stop(report: boolean): void {
    if (report) this.#answer("none");
    else this.#end();
  }

  #seed({ vertices, distances }: Pairs): void {
    for (let at = 0; at < vertices.length; at++) {
      const vertex = vertices[at] as number;
      const distance = distances[at] as number;
      const partition = this.#host.view.partitionOf(vertex);
      if (partition === NO_PARTITION) this.#host.counters.damage++;
      else if (this.#visited.add(vertex)) {
        if (!Number.isNaN(distance)) this.#top.offer(vertex, distance);
        if (this.#responsible(partition) !== this.#self) continue;
        if (Number.isNaN(distance)) this.#route(vertex, partition);
        else this.#candidates.push(vertex, distance);
      }
    }
  }

  #hasCandidate(): boolean {
    return this.#candidates.size > 0 && this.#candidates.firstDistance <= this.bound;
  }

  #expandGroup(): number {
    const { firstGroup, group, patience } = this.#settings;
    const waiting = this.#foreign.open > 0;
    let most = this.#synced || this.#outgoing.size === 0 ? group : firstGroup;
    if (waiting) most = Math.min(most, patience - this.#expandedWaiting);
    else this.#expandedWaiting = 0;
    let expanded = 0;
    while (expanded < most && this.#hasCandidate()) {
      const vertex = this.#candidates.firstVertex;
      this.#candidates.pop();
      this.#expand(vertex);
      expanded++;
    }
    if (waiting) this.#expandedWaiting += expanded;
    this.#host.counters.expansions += expanded;
    return expanded;
  }

  #expand(vertex: number): void {
    const { view } = this.#host;
    const partition = view.partitionOf(vertex);
    const out = this.#scratch;
    if (partition !== this.#self) {
      this.#foreign.expand(vertex, partition, out);
      return;
    }
    const count = view.neighbours(vertex, out);
    for (let at = 0; at < count; at++) this.#admit(out[at] as number);
  }

  /** Takes in a vertex that some adjacency record names. */
  #admit(vertex: number): void {
    const partition = this.#host.view.partitionOf(vertex);
    if (partition === NO_PARTITION) this.#host.counters.damage++;
    else if (this.#visited.add(vertex)) this.#route(vertex, partition);
  }

  #route(vertex: number, partition: number): void {
    const responsible = this.#responsible(partition);
    if (responsible !== this.#self) this.#outgoing.get(responsible)?.push(vertex);
    else if (partition === this.#self) this.#own.push(vertex);
    else this.#foreign.add(vertex, partition);
  }

  #responsible(partition: number): number {
    return partition === this.#self || this.#outgoing.has(partition) ? partition : this.#leader;
  }

  /** Has everything computed that was routed here. @returns Whether there was anything. */
  #dispatch(): boolean {
    if (this.#own.length === 0) return this.#foreign.dispatch();
    const vertices = Int32Array.from(this.#own);
    this.#own = [];
    this.#tasks++;
    this.#tally.own.computations += vertices.length;
    this.#host.compute(this.query, vertices, (distances, stolen) => {
      this.#tasks--;
      if (stolen) countStolen(this.#tally.own, vertices.length, this.#host.view.codeBytes);
      for (let at = 0; at < vertices.length; at++) this.#found(vertices[at] as number, distances[at] as number);
    });
    this.#foreign.dispatch();
    return true;
  }

  #foreignClient(): ForeignClient {
    const search = this;
    const { view, counters } = this.#host;
    return {
      view,
      counters,
      tally: this.#tally.own,
      query: this.query,
      settings: this.#settings,
      lost: this.#ring.lost,
      get bound() {
        return search.bound;
      },
      send: (to, message) => this.#send(to, message),
      header: () => this.#header(),
      found: (vertex, distance) => this.#found(vertex, distance),
      admit: (vertex) => this.#admit(vertex),
      unreachable: (partition, count) => {
        this.#missing.add(partition);
        counters.unreachable += count;
      },
    };
  }

  /** A distance came in, of a vertex that this shard is responsible for. */
  #found(vertex: number, exact: number): void {
    const distance = Math.fround(exact);
    if (!Number.isFinite(distance) || distance > this.bound) return;
    this.#top.offer(vertex, distance);
    this.#candidates.push(vertex, distance);
    if (this.#outgoing.size === 0) return;
    this.#finds.push(vertex);
    this.#findDistances.push(distance);
  }

  /** Sends to each other primary what it has not been told yet. */
  #flush(): boolean {
    this.#stepsSinceSync = 0;
    if (this.#outgoing.size === 0) return false;
    const { bound } = this;
    const tops = pairsOf(this.#finds, this.#findDistances, bound);
    this.#finds = [];
    this.#findDistances = [];
    let sent = false;
    for (const [peer, queued] of this.#outgoing) {
      if (queued.length > 0) this.#outgoing.set(peer, []);
      const longest = Math.max(queued.length, tops.vertices.length);
      for (let from = 0; from < longest; from += MAX_BATCH) {
        const to = from + MAX_BATCH;
        const batch = { vertices: tops.vertices.subarray(from, to), distances: tops.distances.subarray(from, to) };
        this.#sendSync(peer, bound, batch, Int32Array.from(queued.slice(from, to)));
        sent = true;
      }
    }
    return sent;
  }

  #sendSync(peer: number, bound: number, tops: Pairs, ids: Int32Array): void {
    this.#ring.sent(peer);
    this.#host.counters.syncs++;
    const header = { ...this.#header(), sequence: this.#sequences.next(peer) };
    this.#send(peer, { type: MESSAGE.SYNC, ...header, bound, tops, ids });
  }

  #advanceRing(): boolean {
    const action = this.#ring.advance();
    if (action.kind === "none") return false;
    if (action.kind === "finished") this.#answer(this.#missing.size > 0 ? "ERR_WORKER_LOST" : "none");
    else {
      this.#host.counters.tokens++;
      this.#sendToken(action.to, action.token);
    }
    return true;
  }

  #sendToken(to: number, token: Token): void {
    const header = { ...this.#header(), sequence: this.#sequences.next(to) };
    const message = { type: MESSAGE.TOKEN, ...header, ...token, tally: createTally() };
    this.#countMessage(to, message);
    // The leader's own part is added when the token is back.
    this.#host.send(to, this.#leader === this.#self ? message : { ...message, tally: this.#tally.total });
  }

  #answer(reason: Reason): void {
    const best = this.#top.nearest(this.#k);
    const hits = pairsOf(
      best.map(({ vertex }) => vertex),
      best.map(({ distance }) => distance),
      Number.POSITIVE_INFINITY,
    );
    const header = { ...this.#header(), sequence: 0 };
    const missing = [...this.#missing].sort((a, b) => a - b);
    if (this.#leader === this.#self)
      for (const peer of this.#outgoing.keys()) this.#send(peer, { type: MESSAGE.STOP, flags: 0, ...header });
    const message = { type: MESSAGE.RESULT, ...header, reason, missing, hits, tally: createTally() };
    this.#countMessage(this.origin, message);
    this.#host.send(this.origin, { ...message, tally: this.#tally.total });
    this.#end();
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#host.ended(this);
  }

  #send(to: number, message: CotraMessage): void {
    this.#countMessage(to, message);
    this.#host.send(to, message);
  }

  #countMessage(peer: number, message: CotraMessage): void {
    if (peer !== this.#self) this.#tally.countMessage(encodedBytes(message));
  }

  /** Whether a numbered message is new and from a living primary. */
  #isFresh(message: Header): boolean {
    if (!this.#primaries.includes(message.from) || message.from === this.#self) {
      this.#host.counters.damage++;
      return false;
    }
    const verdict = this.#sequences.accept(message.from, message.sequence);
    if (verdict === "duplicate") this.#host.counters.duplicates++;
    if (verdict === "overrun") this.giveUp();
    return verdict === "new" && !this.#over && !this.#ring.lost.has(message.from);
  }

  #header(): Omit<Header, "sequence"> {
    return { from: this.#self, origin: this.origin, serial: this.serial };
  }
}
