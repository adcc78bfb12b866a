/**
 * Reservations of a shard's vertices as far ends of edges from other shards: between the check that a vertex exists and the edge that
 * leads to it, the vertex cannot go.
 *
 * Protocol: the source's shard reserves the target at its owner, writes the edge, and commits, again until it is answered; or releases. An
 * answer other than `committed` to a commit means that there is no edge, and the source takes its own half back. A vertex that is to be
 * removed waits for its reservations, at most `ttlMs`, and takes no new ones. That it is removed is told to the sources' shards, which take
 * back what was committed by then; as answers and this news come in the order in which they were sent, nobody keeps half an edge.
 *
 * Invariant: a vertex with a live reservation is not removed; an edge is in `edges` if and only if its commit was answered `committed`, and
 * its target was not removed after; an answer that is given again after that is `gone`. Messages may be repeated: a token (unique for its
 * shard and epoch) has one end, which is remembered for `rememberMs`; one that is older is `expired`, so that an edge whose commit was
 * not answered by then is in doubt. What a former epoch of a shard reserved is released.
 * Cost: O(1) a call, amortised; at most `capacity` tokens are remembered.
 */
import { invalidArgument, ShardloomError } from "../../../src/errors.ts";
import type { Clock } from "../../../src/runtime/clock.ts";
import type { VertexKey } from "../vertex-key.ts";
import { NO_RESERVATION, type ReservationEvent, type ReservationState, transition } from "./edge-reservation.ts";
import type { IncomingEdge, IncomingEdges } from "./incoming-edges.ts";

export interface EdgeReservationsOptions {
  readonly clock: Clock;
  /** Whether this shard has the vertex. */
  readonly exists: (key: VertexKey) => boolean;
  /** Where committed edges are kept. */
  readonly edges: IncomingEdges;
  /**
   * A vertex whose removal was asked for has no reservations any more: it is to be removed in this call, with the edges that led to
   * it, which are out of `edges` already. Must not throw.
   */
  readonly onRemove: (key: VertexKey, edges: readonly IncomingEdge[]) => void;
  /** Milliseconds that a reservation holds, > 0. @default 5000 */
  readonly ttlMs?: number | undefined;
  /** Milliseconds, from the reservation, for which its end is remembered, ≥ ttlMs. @default 60000 */
  readonly rememberMs?: number | undefined;
  /** Most tokens remembered, live ones among them. @default 65536 */
  readonly capacity?: number | undefined;
}

/** Who asks: a shard in one of its lives, and a number that it gives to one edge. */
export interface EdgeToken {
  readonly shard: number;
  readonly epoch: number;
  readonly token: number;
}

/** An edge from another shard's vertex to one of this shard. */
export interface EdgeRequest extends EdgeToken {
  readonly source: VertexKey;
  readonly target: VertexKey;
}

/** `gone`: it was committed, and its target removed since. */
export type EndAnswer = "committed" | "released" | "expired" | "gone";
/** `missing`: no such vertex; `leaving`: it is being removed. */
export type ReserveAnswer = EndAnswer | "reserved" | "missing" | "leaving";

interface Held {
  readonly shard: number;
  readonly epoch: number;
  readonly token: number;
  /** Undefined: released before it was reserved. */
  readonly edge: EdgeRequest | undefined;
  readonly madeMs: number;
  state: ReservationState;
  /** Place of its commit in the order of commits and removals. */
  committed: number;
}

interface Removal {
  readonly atMs: number;
  readonly order: number;
}

interface Shard {
  readonly epoch: number;
  /** The shard was removed in this epoch. */
  isRemoved: boolean;
  readonly tokens: Map<number, Held>;
}

const DEFAULT_TTL_MS = 5_000;
const DEFAULT_REMEMBER_MS = 60_000;
const DEFAULT_CAPACITY = 65_536;
const COMPACT_AT = 1024;

export class EdgeReservations {
  readonly #options: EdgeReservationsOptions;
  readonly #ttlMs: number;
  readonly #rememberMs: number;
  readonly #capacity: number;
  readonly #shards = new Map<number, Shard>();
  /** Live reservations of a vertex. */
  readonly #live = new Map<VertexKey, number>();
  readonly #leaving = new Set<VertexKey>();
  /** All that is remembered, in order of time: `[#forgotten, #expired)` is over, what follows may be live. */
  #queue: Held[] = [];
  /** The last removal of each vertex, in order of time, for as long as tokens are remembered that may have led to it. */
  readonly #removals = new Map<VertexKey, Removal>();
  /** Of commits and removals. */
  #order = 0;
  #forgotten = 0;
  #expired = 0;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` */
  constructor(options: EdgeReservationsOptions) {
    this.#options = options;
    this.#ttlMs = options.ttlMs ?? DEFAULT_TTL_MS;
    this.#rememberMs = options.rememberMs ?? Math.max(DEFAULT_REMEMBER_MS, this.#ttlMs);
    this.#capacity = options.capacity ?? DEFAULT_CAPACITY;
    if (!(this.#ttlMs > 0 && this.#ttlMs < Number.POSITIVE_INFINITY)) {
      throw invalidArgument("reserve edges", "ttlMs", "a finite number above 0", this.#ttlMs);
    }
    if (!(this.#rememberMs >= this.#ttlMs)) {
      throw invalidArgument("reserve edges", "rememberMs", `at least ttlMs (${this.#ttlMs})`, this.#rememberMs);
    }
  }

  /** Live reservations of a vertex. */
  live(target: VertexKey): number {
    this.expire();
    return this.#live.get(target) ?? 0;
  }

  /** Tokens remembered. */
  get size(): number {
    return this.#queue.length - this.#forgotten;
  }

  /** @throws {ShardloomError} `ERR_OVERLOADED` with `capacity` tokens remembered; `ERR_STALE_EPOCH` for an epoch that is over */
  reserve(request: EdgeRequest): ReserveAnswer {
    this.expire();
    const { target, token } = request;
    const shard = this.#shardOf(request);
    if (shard === undefined) {
      const message = `Cannot reserve edge as the epoch of shard ${request.shard} must be a present one: current value is ${request.epoch}`;
      throw new ShardloomError("ERR_STALE_EPOCH", message, { details: { shard: request.shard, epoch: request.epoch } });
    }
    const known = shard.tokens.get(token);
    if (known !== undefined) return this.#answer(known);
    if (!this.#options.exists(target)) return "missing";
    if (this.#leaving.has(target)) return "leaving";
    const held = this.#remember(shard, request, request);
    this.#step(held, { kind: "reserve", expiresMs: held.madeMs + this.#ttlMs });
    this.#live.set(target, (this.#live.get(target) ?? 0) + 1);
    return "reserved";
  }

  /** Makes the edge, if its reservation still holds. */
  commit(token: EdgeToken): EndAnswer {
    return this.#end(token, "commit");
  }

  /** Gives a reservation up; one that was committed stays so. */
  release(token: EdgeToken): EndAnswer {
    return this.#end(token, "release");
  }

  /**
   * Removes a vertex of this shard: at once (`onRemove` was called), or when its last reservation has ended.
   *
   * @returns Whether it was removed at once; also false for a vertex that does not exist.
   */
  remove(target: VertexKey): boolean {
    this.expire();
    if (!this.#options.exists(target)) return false;
    if (!this.#live.has(target)) {
      this.#remove(target);
      return true;
    }
    this.#leaving.add(target);
    return false;
  }

  /**
   * Another shard is no more: releases what it reserved and removes the edges that came from it. Should it come back, it has a new epoch.
   *
   * @returns the edges removed
   */
  removeShard(shard: number): IncomingEdge[] {
    this.expire();
    const edges = this.#options.edges.removeShard(shard);
    const known = this.#shards.get(shard);
    if (known !== undefined) {
      known.isRemoved = true;
      this.#releaseAll(known);
    }
    return edges;
  }

  /** Ends what is over its time. Every call does so first; when none comes, a vertex that is to be removed waits for this one. */
  expire(): void {
    const nowMs = this.#options.clock.nowMs();
    while (this.#expired < this.#queue.length) {
      const held = this.#queue[this.#expired] as Held;
      if (held.madeMs + this.#ttlMs > nowMs) break;
      this.#expired++;
      this.#step(held, { kind: "time" });
    }
    while (this.#forgotten < this.#expired) {
      const held = this.#queue[this.#forgotten] as Held;
      if (held.madeMs + this.#rememberMs > nowMs) break;
      this.#forgotten++;
      const tokens = this.#shards.get(held.shard)?.tokens;
      if (tokens?.get(held.token) === held) tokens.delete(held.token);
    }
    for (const [key, { atMs }] of this.#removals) {
      if (atMs + this.#rememberMs > nowMs) break;
      this.#removals.delete(key);
    }
    if (this.#forgotten < COMPACT_AT || this.#forgotten * 2 < this.#queue.length) return;
    this.#queue = this.#queue.slice(this.#forgotten);
    this.#expired -= this.#forgotten;
    this.#forgotten = 0;
  }

  #end(token: EdgeToken, kind: "commit" | "release"): EndAnswer {
    this.expire();
    const shard = this.#shardOf(token);
    if (shard === undefined) return kind === "release" ? "released" : "expired";
    let held = shard.tokens.get(token.token);
    if (held === undefined) {
      if (kind === "commit") return "expired"; // nothing is remembered of a commit without a reservation, as it changes nothing
      held = this.#remember(shard, token, undefined);
    }
    this.#step(held, { kind });
    return this.#answer(held) as EndAnswer;
  }

  /** Moves a reservation on, and does what its end brings. */
  #step(held: Held, event: ReservationEvent): void {
    const before = held.state;
    held.state = transition(before, event, this.#options.clock.nowMs());
    const { edge } = held;
    if (edge === undefined || before.kind !== "reserved" || held.state.kind === "reserved") return;
    if (held.state.kind === "committed") {
      held.committed = ++this.#order;
      this.#options.edges.add(edge.shard, edge.source, edge.target);
    }
    const left = (this.#live.get(edge.target) as number) - 1;
    if (left > 0) {
      this.#live.set(edge.target, left);
      return;
    }
    this.#live.delete(edge.target);
    if (this.#leaving.delete(edge.target)) this.#remove(edge.target);
  }

  #remove(key: VertexKey): void {
    this.#removals.delete(key); // or it would keep its place
    this.#removals.set(key, { atMs: this.#options.clock.nowMs(), order: ++this.#order });
    this.#options.onRemove(key, this.#options.edges.removeTarget(key));
  }

  /** What whoever asks is told of a reservation that has begun. */
  #answer({ state, edge, committed }: Held): EndAnswer | "reserved" {
    if (state.kind === "none") return "expired";
    const removed = edge === undefined ? undefined : this.#removals.get(edge.target);
    return state.kind === "committed" && removed !== undefined && removed.order > committed ? "gone" : state.kind;
  }

  #remember(shard: Shard, { shard: index, epoch, token }: EdgeToken, edge: EdgeRequest | undefined): Held {
    if (this.size >= this.#capacity) {
      const message = `Cannot reserve edge as fewer than ${this.#capacity} can be remembered: current value is ${this.size}`;
      throw new ShardloomError("ERR_OVERLOADED", message, { details: { limit: this.#capacity } });
    }
    const madeMs = this.#options.clock.nowMs();
    const held: Held = { shard: index, epoch, token, edge, madeMs, state: NO_RESERVATION, committed: 0 };
    shard.tokens.set(token, held);
    this.#queue.push(held);
    return held;
  }

  /** A shard in the epoch of a message; undefined when it has a newer one. */
  #shardOf({ shard, epoch }: EdgeToken): Shard | undefined {
    const known = this.#shards.get(shard);
    if (known !== undefined && known.epoch >= epoch) {
      return known.epoch === epoch && !known.isRemoved ? known : undefined;
    }
    if (known !== undefined) this.#releaseAll(known);
    const state: Shard = { epoch, isRemoved: false, tokens: new Map() };
    this.#shards.set(shard, state);
    return state;
  }

  #releaseAll({ tokens }: Shard): void {
    for (const held of tokens.values()) this.#step(held, { kind: "release" });
  }
}
