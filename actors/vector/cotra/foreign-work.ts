/**
 * What the leader of a query does about vertices whose owners are no primaries: few are read one-sidedly, more are pushed to the owner.
 *
 * Invariant: a vertex handed in is computed, or its partition is reported unreachable; a question to an owner is open until its reply comes
 * or the owner is lost, and then it is read instead. An owner answers only what is within the bound; it needs nothing of the query but its
 * bytes, which go with the first push.
 * Source: the pull and push of CoTra. Divergence: an owner's codes are read until a push pays, and adjacency is read one-sidedly rather than
 * by a node task; both fall back to a message where the owner exposes no region.
 */

import type { CotraCounters } from "./cotra-counters.ts";
import {
  ASK_NEIGHBOURS,
  type CotraMessage,
  type Header,
  MESSAGE,
  REPLY_NEEDS_QUERY,
  REPLY_STOLEN,
  type ReplyMessage,
} from "./cotra-messages.ts";
import type { ResolvedSettings } from "./cotra-options.ts";
import { type CotraTally, countStolen } from "./cotra-tally.ts";
import { type GraphView, NOT_EXPOSED } from "./graph-view.ts";
import { MAX_BATCH } from "./message-bytes.ts";

/** What this work needs of the search that it belongs to. */
export interface ForeignClient {
  readonly view: GraphView;
  readonly counters: CotraCounters;
  readonly tally: CotraTally;
  readonly query: Uint8Array;
  readonly settings: ResolvedSettings;
  readonly bound: number;
  readonly lost: ReadonlySet<number>;
  send(to: number, message: CotraMessage): void;
  header(): Omit<Header, "sequence">;
  found(vertex: number, distance: number): void;
  admit(vertex: number): void;
  /** Vertices of a partition cannot be had from anybody. */
  unreachable(partition: number, count: number): void;
}

/** A question to an owner that is not answered yet. */
interface Post {
  readonly partition: number;
  readonly vertices: Int32Array;
  readonly neighbours: boolean;
}

const NO_QUERY = new Uint8Array(0);

/** Foreign vertices of one query. */
export class ForeignWork {
  readonly #client: ForeignClient;
  /** Vertices of the current step, by partition. */
  readonly #groups = new Map<number, number[]>();
  readonly #posts = new Map<number, Post>();
  /** Owners that were sent the query, and how many codes were read of each. */
  readonly #knowsQuery = new Set<number>();
  readonly #codesRead = new Map<number, number>();
  #nextAsk = 0;

  constructor(client: ForeignClient) {
    this.#client = client;
  }

  /** Questions that are not answered yet. */
  get open(): number {
    return this.#posts.size;
  }

  /** Partitions that owe an answer. */
  owing(): number[] {
    return [...this.#posts.values()].map(({ partition }) => partition);
  }

  /** Keeps a vertex for the next {@link dispatch}. */
  add(vertex: number, partition: number): void {
    const group = this.#groups.get(partition);
    if (group === undefined) this.#groups.set(partition, [vertex]);
    else group.push(vertex);
  }

  /** Reads or pushes what was added. @returns Whether there was anything. */
  dispatch(): boolean {
    if (this.#groups.size === 0) return false;
    const { settings, lost } = this.#client;
    const groups = [...this.#groups];
    this.#groups.clear();
    for (const [partition, group] of groups) {
      const limit = this.#knowsQuery.has(partition)
        ? settings.pullDegreeKnown
        : settings.pullDegree - (this.#codesRead.get(partition) ?? 0);
      const vertices = Int32Array.from(group);
      if (vertices.length <= limit || lost.has(partition)) this.#pull(partition, vertices);
      else
        for (let from = 0; from < vertices.length; from += MAX_BATCH)
          this.#ask(partition, vertices.slice(from, from + MAX_BATCH), false);
    }
    return true;
  }

  /** Has the neighbours of a foreign vertex admitted, now or when its owner answers. */
  expand(vertex: number, partition: number, scratch: Int32Array): void {
    const { view, counters, tally } = this.#client;
    const count = view.pullNeighbours(vertex, scratch);
    if (count === NOT_EXPOSED) {
      this.#ask(partition, Int32Array.of(vertex), true);
      return;
    }
    counters.adjacencyReads++;
    counters.readBytes += view.adjacencyBytes;
    tally.listReads++;
    tally.bytes += view.adjacencyBytes;
    for (let at = 0; at < count; at++) this.#client.admit(scratch[at] as number);
  }

  receive(message: ReplyMessage): void {
    const post = this.#posts.get(message.sequence);
    if (post === undefined || post.partition !== message.from) {
      this.#client.counters.duplicates++;
      return;
    }
    this.#posts.delete(message.sequence);
    if ((message.flags & REPLY_NEEDS_QUERY) !== 0) {
      this.#knowsQuery.delete(post.partition);
      this.#ask(post.partition, post.vertices, post.neighbours);
      return;
    }
    const { vertices, distances } = message.pairs;
    const { tally, view } = this.#client;
    if ((message.flags & REPLY_STOLEN) !== 0) countStolen(tally, post.vertices.length, view.codeBytes);
    // Owners answer in the order asked, so what is not found further on was not asked, or comes twice.
    let asked = 0;
    for (let at = 0; at < vertices.length; at++) {
      const found = post.neighbours ? -1 : post.vertices.indexOf(vertices[at] as number, asked);
      if (found < 0) this.#client.counters.damage++;
      else {
        asked = found + 1;
        this.#client.found(vertices[at] as number, distances[at] as number);
      }
    }
    for (const vertex of message.ids) this.#client.admit(vertex);
  }

  /** An owner died: what it was asked is read, or given up. */
  peerLost(peer: number): void {
    for (const [sequence, post] of this.#posts) {
      if (post.partition !== peer) continue;
      this.#posts.delete(sequence);
      if (post.neighbours) this.#client.unreachable(peer, 1);
      else this.#pull(peer, post.vertices);
    }
  }

  #pull(partition: number, vertices: Int32Array): void {
    const { view, counters, tally, query } = this.#client;
    const distances = new Float64Array(vertices.length);
    if (view.pull(query, partition, vertices, vertices.length, distances) === NOT_EXPOSED) {
      this.#ask(partition, vertices, false); // at most a pull degree, or of a lost owner: one message or none
      return;
    }
    this.#codesRead.set(partition, (this.#codesRead.get(partition) ?? 0) + vertices.length);
    counters.codeReads += vertices.length;
    counters.readBytes += vertices.length * view.codeBytes;
    counters.pulled += vertices.length;
    tally.computations += vertices.length;
    tally.pulled += vertices.length;
    tally.bytes += vertices.length * view.codeBytes;
    for (let at = 0; at < vertices.length; at++) this.#client.found(vertices[at] as number, distances[at] as number);
  }

  #ask(partition: number, vertices: Int32Array, neighbours: boolean): void {
    const { lost, counters, tally, bound } = this.#client;
    if (lost.has(partition)) {
      this.#client.unreachable(partition, vertices.length);
      return;
    }
    const sequence = this.#nextAsk++;
    this.#posts.set(sequence, { partition, vertices, neighbours });
    const query = neighbours || this.#knowsQuery.has(partition) ? NO_QUERY : this.#client.query;
    if (!neighbours) {
      this.#knowsQuery.add(partition);
      counters.pushes++;
      counters.pushedVertices += vertices.length;
      tally.pushes++;
      tally.computations += vertices.length;
    }
    const flags = neighbours ? ASK_NEIGHBOURS : 0;
    const header = { ...this.#client.header(), sequence };
    this.#client.send(partition, { type: MESSAGE.ASK, flags, ...header, bound, ids: vertices, query });
  }
}
