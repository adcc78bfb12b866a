/**
 * The collaborative search on one shard: its searches as primary, and its service as an owner to the searches of others.
 *
 * Invariant: no I/O, no clock, no thread of its own. Whoever hosts it hands in messages, the time and news of lost peers, and calls
 * {@link CotraShard.step} while that does something; everything goes out through `send`. As an owner a shard keeps nothing of a query but
 * its bytes, in a bounded cache that it may forget. All memory is bounded: searches, messages that came before their search, names of
 * searches that are over. Source: CoTra; see primary-search.ts. Order: messages may overtake each other and come twice.
 */

import type { ComputePool, ComputeTask } from "./compute-task.ts";
import { type CotraCounters, createCounters } from "./cotra-counters.ts";
import {
  ASK_NEIGHBOURS,
  type AskMessage,
  type CotraMessage,
  decodeMessage,
  encodeMessage,
  type Header,
  MESSAGE,
  REPLY_NEEDS_QUERY,
  REPLY_STOLEN,
  type Reason,
  STOP_REPORT,
  type StartMessage,
  type StopMessage,
} from "./cotra-messages.ts";
import { createTally } from "./cotra-tally.ts";
import type { GraphView } from "./graph-view.ts";
import { pairsOf } from "./message-bytes.ts";
import { PrimarySearch } from "./primary-search.ts";
import { RecentMap } from "./recent-map.ts";
import type { SearchHost } from "./search-host.ts";

/** Searches that one shard runs at once; a start beyond that is answered with `ERR_OVERLOADED`. */
export const MAX_SEARCHES = 4096;
/** Messages kept of one search that has not started here, and searches for which that is done. */
export const MAX_EARLY_MESSAGES = 64;
const MAX_EARLY_SEARCHES = 1024;
/** Queries of others that an owner remembers, and searches of its own that it remembers to be over. */
const MAX_QUERIES = 4096;
const MAX_ENDED = 16_384;

/** What a shard needs. */
export interface CotraShardOptions {
  readonly view: GraphView;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** Hands a message to the transport; the bytes belong to the callee. `to` may be this shard. Must not call back at once. */
  readonly send: (to: number, bytes: Uint8Array<ArrayBuffer>) => void;
  /** Where computations go. @default at once, on this thread */
  readonly compute?: ComputePool;
}

/** One shard of the collaborative search. */
export class CotraShard {
  readonly counters: CotraCounters = createCounters();
  readonly #view: GraphView;
  readonly #now: () => number;
  readonly #send: (to: number, bytes: Uint8Array<ArrayBuffer>) => void;
  readonly #pool: ComputePool | undefined;
  readonly #searches = new Map<number, PrimarySearch>();
  readonly #early = new RecentMap<Uint8Array[]>(MAX_EARLY_SEARCHES);
  readonly #ended = new RecentMap<true>(MAX_ENDED);
  readonly #queries = new RecentMap<Uint8Array>(MAX_QUERIES);
  readonly #tasks = new Map<number, { task: ComputeTask; done: (distances: Float64Array, stolen: boolean) => void }>();
  readonly #lost = new Set<number>();
  readonly #host: SearchHost;
  #nextTask = 0;

  constructor(options: CotraShardOptions) {
    this.#view = options.view;
    this.#now = options.now;
    this.#send = options.send;
    this.#pool = options.compute;
    this.#host = {
      view: this.#view,
      counters: this.counters,
      send: (to, message) => this.#post(to, message),
      compute: (query, vertices, done) => this.#compute(query, vertices, done),
      ended: (search) => this.#forget(search),
    };
  }

  /** Searches that run here. */
  get searches(): number {
    return this.#searches.size;
  }

  /**
   * Takes one message.
   *
   * @throws {ShardloomError} `ERR_CORRUPT` for bytes that are no message; nothing has changed then.
   */
  receive(bytes: Uint8Array): void {
    const message = decodeMessage(bytes);
    const key = keyOf(message);
    if (message.type === MESSAGE.ASK) {
      this.#serve(message);
      return;
    }
    if (message.type === MESSAGE.START) {
      this.#start(message, key);
      return;
    }
    const search = this.#searches.get(key);
    if (search !== undefined) deliver(search, message, this.counters);
    else if (message.type === MESSAGE.SYNC || message.type === MESSAGE.TOKEN) this.#keepEarly(message, key, bytes);
    else if (message.type === MESSAGE.STOP) this.#stopUnknown(message, key);
  }

  /** One step of every search that runs here. @returns Whether any of them did anything. */
  step(): boolean {
    let worked = false;
    for (const search of this.#searches.values()) if (search.step()) worked = true;
    return worked;
  }

  /** Ends the searches whose deadline has passed; to be called now and then. */
  tick(): void {
    const now = this.#now();
    for (const search of this.#searches.values()) if (now >= search.deadlineMs) search.expire("ERR_TIMEOUT");
  }

  /** A peer, shard or origin, died. Its searches are dropped, those that it took part in go on without it. */
  peerLost(peer: number): void {
    if (peer === this.#view.self) return;
    this.#lost.add(peer);
    for (const search of this.#searches.values()) {
      if (search.origin === peer) search.stop(false);
      else search.peerLost(peer);
    }
    // Should it come back, it may number its searches as before.
    for (const named of [this.#early, this.#ended, this.#queries])
      named.deleteRange(peer * SERIALS, (peer + 1) * SERIALS);
  }

  /** A message of a search could not be sent: its origin is told that this shard takes no part any more. */
  giveUp(origin: number, serial: number): void {
    this.#searches.get(keyOf({ origin, serial }))?.giveUp();
  }

  /** A peer that was lost is back, as a new one that knows nothing. Searches that missed it go on without it. */
  peerBack(peer: number): void {
    this.#lost.delete(peer);
  }

  /**
   * A task that its pool kept is over.
   *
   * @param done Whether the distances are written; when not, they are computed here and now.
   * @param stolen Whether another worker computed them.
   */
  complete(id: number, done: boolean, stolen = false): void {
    const pending = this.#tasks.get(id);
    if (pending === undefined) {
      this.counters.duplicates++;
      return;
    }
    this.#tasks.delete(id);
    const { task } = pending;
    if (!done) this.#view.distances(task.query, task.vertices, task.vertices.length, task.distances);
    pending.done(task.distances, stolen);
  }

  #start(message: StartMessage, key: number): void {
    if (this.#searches.has(key) || this.#ended.has(key)) {
      this.counters.duplicates++;
      return;
    }
    if (!message.primaries.includes(this.#view.self)) {
      this.counters.damage++;
      return;
    }
    if (this.#lost.has(message.origin)) return;
    if (this.#searches.size >= MAX_SEARCHES) {
      this.#refuse(message, key, "ERR_OVERLOADED");
      return;
    }
    this.counters.started++;
    const search = new PrimarySearch(this.#host, message, this.#now());
    this.#searches.set(key, search);
    for (const peer of this.#lost) search.peerLost(peer);
    const early = this.#early.take(key);
    for (const bytes of early ?? []) deliver(search, decodeMessage(bytes), this.counters);
  }

  #keepEarly(message: CotraMessage, key: number, bytes: Uint8Array): void {
    if (this.#ended.has(key)) return;
    const early = this.#early.get(key) ?? [];
    if (early.length >= MAX_EARLY_MESSAGES) {
      this.#early.take(key);
      this.#refuse(message, key, "ERR_OVERLOADED");
      return;
    }
    early.push(bytes.slice());
    this.#early.set(key, early);
  }

  /** Called off before it started here: a late start must not bring it to life. */
  #stopUnknown(message: StopMessage, key: number): void {
    if (this.#ended.has(key)) return;
    this.#early.take(key);
    if ((message.flags & STOP_REPORT) === 0) this.#ended.set(key, true);
    else this.#refuse(message, key, "none");
  }

  /** Tells the origin that this shard takes no part. */
  #refuse(message: Header, key: number, reason: Reason): void {
    this.#ended.set(key, true);
    const { origin, serial } = message;
    const missing = [this.#view.self];
    const header = { from: this.#view.self, origin, serial, sequence: 0 };
    this.#post(origin, {
      type: MESSAGE.RESULT,
      ...header,
      reason,
      missing,
      hits: pairsOf([], [], 0),
      tally: createTally(),
    });
  }

  /** Answers as an owner, for a search that runs elsewhere. */
  #serve(ask: AskMessage): void {
    const key = keyOf(ask);
    if (this.#lost.has(ask.from)) return;
    const mine = ask.ids.filter((vertex) => this.#view.partitionOf(vertex) === this.#view.self);
    this.counters.damage += ask.ids.length - mine.length;
    if ((ask.flags & ASK_NEIGHBOURS) !== 0) {
      const out = new Int32Array(this.#view.maxDegree);
      const count = mine.length === 0 ? 0 : this.#view.neighbours(mine[0] as number, out);
      // Ids out of range stay here: they do not fit a message, and the asker would only count them.
      const ids = out.subarray(0, count).filter((vertex) => vertex >= 0);
      this.counters.damage += count - ids.length;
      this.#reply(ask, 0, [], [], ids);
      return;
    }
    if (ask.query.length > 0) this.#queries.set(key, ask.query);
    const query = this.#queries.get(key);
    if (query === undefined) {
      this.#reply(ask, REPLY_NEEDS_QUERY, [], [], new Int32Array(0));
      return;
    }
    this.#compute(query, mine, (distances, stolen) => {
      const rounded = Array.from(distances, (distance) =>
        Number.isFinite(distance) ? Math.fround(distance) : Number.NaN,
      );
      this.#reply(ask, stolen ? REPLY_STOLEN : 0, [...mine], rounded, new Int32Array(0));
    });
  }

  #reply(ask: AskMessage, flags: number, vertices: number[], distances: number[], ids: Int32Array): void {
    const header = { from: this.#view.self, origin: ask.origin, serial: ask.serial, sequence: ask.sequence };
    const largest = Math.min(ask.bound, MAX_FLOAT32);
    this.#post(ask.from, { type: MESSAGE.REPLY, flags, ...header, pairs: pairsOf(vertices, distances, largest), ids });
  }

  #compute(query: Uint8Array, vertices: Int32Array, done: (distances: Float64Array, stolen: boolean) => void): void {
    this.counters.computations += vertices.length;
    const distances = new Float64Array(vertices.length);
    if (this.#pool === undefined || vertices.length === 0) {
      this.#view.distances(query, vertices, vertices.length, distances);
      done(distances, false);
      return;
    }
    const task: ComputeTask = { id: this.#nextTask++, partition: this.#view.self, query, vertices, distances };
    this.#tasks.set(task.id, { task, done });
    if (this.#pool.submit(task)) this.complete(task.id, true);
  }

  #post(to: number, message: CotraMessage): void {
    const bytes = encodeMessage(message);
    if (to !== this.#view.self) {
      this.counters.messages++;
      this.counters.messageBytes += bytes.length;
    }
    this.#send(to, bytes);
  }

  #forget(search: PrimarySearch): void {
    const key = keyOf(search);
    this.counters.ended++;
    this.#searches.delete(key);
    this.#ended.set(key, true);
  }
}

/** Largest finite float32. */
const MAX_FLOAT32 = 3.4028234663852886e38;

/** Serial numbers of one origin. */
const SERIALS = 2 ** 32;

/** A number that names a search: 16 bits of origin, 32 of serial. */
function keyOf({ origin, serial }: { readonly origin: number; readonly serial: number }): number {
  return origin * SERIALS + serial;
}

function deliver(search: PrimarySearch, message: CotraMessage, counters: CotraCounters): void {
  switch (message.type) {
    case MESSAGE.SYNC:
      search.receiveSync(message);
      return;
    case MESSAGE.TOKEN:
      search.receiveToken(message);
      return;
    case MESSAGE.REPLY:
      search.receiveReply(message);
      return;
    case MESSAGE.STOP:
      search.stop((message.flags & STOP_REPORT) !== 0);
      return;
    default:
      counters.damage++;
  }
}
