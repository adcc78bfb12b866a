/**
 * The side that asks: starts collaborative searches, and sees that each ends exactly once, in bounded time, with what is missing named.
 *
 * Invariant: `done` is called once a search: with the leader's answer; or, when the leader is lost, with what the other primaries report;
 * at the latest when deadline and grace have passed and {@link CotraOrigin.tick} is called. No I/O: time, messages and news of lost peers
 * are handed in. Whatever comes for a search that is over is ignored.
 */
import type { ErrorCode } from "../../../src/errors.ts";
import {
  type CotraMessage,
  decodeMessage,
  encodedBytes,
  encodeMessage,
  MESSAGE,
  type ResultMessage,
  STOP_REPORT,
} from "./cotra-messages.ts";
import { type ResolvedSettings, resolveSettings, settingsToBytes } from "./cotra-options.ts";
import { type CotraTally, createTally, sumOf } from "./cotra-tally.ts";
import { codeLength, type Pairs, pairsOf } from "./message-bytes.ts";
import { planSearch } from "./search-plan.ts";
import { TopHeap } from "./vertex-heaps.ts";

/** Milliseconds that an origin waits beyond a deadline for the leader's partial answer, and for reports when the leader is lost. */
const DEFAULT_GRACE_MS = 50;

/** What an origin needs. */
export interface CotraOriginOptions {
  /** The number under which peers reach this origin. */
  readonly self: number;
  readonly shards: number;
  readonly partitionOf: (vertex: number) => number;
  readonly now: () => number;
  /** Hands a message to the transport; must not call back at once. */
  readonly send: (to: number, bytes: Uint8Array<ArrayBuffer>) => void;
  /** @default 50 */
  readonly graceMs?: number;
  /**
   * Serial number of the first search, in [0, 2^32). Shards take a serial that they have seen for a duplicate, so an origin that is
   * restarted must begin elsewhere, or all shards must have been told that it was lost. @default 0
   */
  readonly firstSerial?: number;
}

/** One search. */
export interface CotraQuery {
  /** Encoded as the collection's codes. */
  readonly query: Uint8Array;
  /** Entry vertices of the navigation table; distances that are not known are not a number. */
  readonly entries: Pairs;
  readonly k: number;
  /** Vertices that the search keeps, ≥ k. */
  readonly ef: number;
  readonly timeoutMs: number;
  /** From {@link resolveSettings}. @default those of {@link settingsFor} */
  readonly settings?: ResolvedSettings;
}

/** How a search ended. */
export interface CotraOutcome {
  /** Nearest first; to be ranked again by the documents' rows. */
  readonly hits: Pairs;
  /** Whether all that the graph leads to was searched. */
  readonly complete: boolean;
  /** Shards whose part of the answer may be missing. */
  readonly missing: readonly number[];
  /** Why it is not complete. */
  readonly reason?: ErrorCode;
  /** What it took, the origin's messages included. */
  readonly tally: CotraTally;
  /** Shards that searched together; others were asked for distances only. */
  readonly primaries: readonly number[];
}

interface Pending {
  readonly done: (outcome: CotraOutcome) => void;
  readonly k: number;
  readonly leader: number;
  readonly primaries: readonly number[];
  readonly missing: Set<number>;
  /** What is known without any shard: the entries. */
  readonly best: TopHeap;
  readonly seen: Set<number>;
  tally: CotraTally;
  deadlineMs: number;
  /** After the leader is lost: the primaries that have not reported yet. */
  reports?: Set<number>;
}

/** The origin of searches. */
export class CotraOrigin {
  /** Messages sent to others than itself, and their bytes. */
  readonly counters = { messages: 0, messageBytes: 0 };
  readonly #options: CotraOriginOptions;
  readonly #graceMs: number;
  readonly #pending = new Map<number, Pending>();
  readonly #lost = new Set<number>();
  #nextSerial: number;

  constructor(options: CotraOriginOptions) {
    this.#options = options;
    this.#nextSerial = options.firstSerial ?? 0;
    this.#graceMs = options.graceMs ?? DEFAULT_GRACE_MS;
  }

  /** Searches that are not over. */
  get pending(): number {
    return this.#pending.size;
  }

  /** Starts a search. @returns Its serial number, for {@link cancel}. */
  search(query: CotraQuery, done: (outcome: CotraOutcome) => void): number {
    const serial = this.#nextSerial;
    this.#nextSerial = (serial + 1) >>> 0;
    const settings = query.settings ?? settingsFor(query.query);
    const { partitionOf, shards, now } = this.#options;
    const { entries, k, ef } = query;
    const plan = planSearch(entries, partitionOf, shards, settings.primaryShare, this.#lost);
    const missing = new Set<number>();
    for (const vertex of entries.vertices) if (this.#lost.has(partitionOf(vertex))) missing.add(partitionOf(vertex));
    if (plan === undefined) {
      const unavailable = missing.size > 0 ? { reason: "ERR_WORKER_LOST" as const } : {};
      const hits = pairsOf([], [], 0);
      const nobody = { tally: createTally(), primaries: [] };
      done({ hits, complete: missing.size === 0, missing: sorted(missing), ...unavailable, ...nobody });
      return serial;
    }
    const pending: Pending = {
      done,
      k,
      ...plan,
      missing,
      best: new TopHeap(k),
      seen: new Set(),
      tally: createTally(),
      deadlineMs: now() + query.timeoutMs + this.#graceMs,
    };
    addHits(pending, entries);
    this.#pending.set(serial, pending);
    const remainingMs = Math.max(0, Math.min(2 ** 32 - 1, Math.ceil(query.timeoutMs)));
    const start = { type: MESSAGE.START, ...this.#header(serial), remainingMs, k, ef, ...plan };
    for (const primary of plan.primaries)
      this.#sendCounted(pending, primary, {
        ...start,
        settings: settingsToBytes(settings),
        seeds: entries,
        query: query.query,
      });
    return serial;
  }

  /**
   * Takes one message.
   *
   * @throws {ShardloomError} `ERR_CORRUPT` for bytes that are no message.
   */
  receive(bytes: Uint8Array): void {
    const message = decodeMessage(bytes);
    if (message.type !== MESSAGE.RESULT) return;
    const pending = this.#pending.get(message.serial);
    if (pending === undefined) return;
    pending.tally = sumOf(pending.tally, message.tally);
    if (message.from === pending.leader) {
      for (const shard of message.missing) pending.missing.add(shard);
      const complete = message.reason === "none" && pending.missing.size === 0;
      if (message.reason === "ERR_OVERLOADED") this.#stopAll(pending, message.serial);
      this.#finish(message.serial, pending, message.hits, complete, reasonOf(message, pending));
    } else this.#takeReport(message, pending);
  }

  /** Ends what is overdue; to be called now and then. */
  tick(): void {
    const now = this.#options.now();
    for (const [serial, pending] of this.#pending) {
      if (now < pending.deadlineMs) continue;
      this.#stopAll(pending, serial);
      for (const shard of pending.reports ?? pending.primaries) pending.missing.add(shard);
      const reason = pending.reports === undefined ? "ERR_TIMEOUT" : "ERR_WORKER_LOST";
      this.#finish(serial, pending, bestOf(pending), false, reason);
    }
  }

  /** Calls a search off; `done` is told why. */
  cancel(serial: number, reason: ErrorCode = "ERR_ABORTED"): void {
    const pending = this.#pending.get(serial);
    if (pending === undefined) return;
    this.#stopAll(pending, serial);
    for (const shard of pending.primaries) pending.missing.add(shard);
    this.#finish(serial, pending, pairsOf([], [], 0), false, reason);
  }

  /** A shard died. Searches that it leads are ended with what the other primaries have found. */
  peerLost(peer: number): void {
    this.#lost.add(peer);
    for (const [serial, pending] of this.#pending) {
      if (pending.reports?.delete(peer) === true) pending.missing.add(peer);
      else if (peer === pending.leader && pending.reports === undefined) this.#askReports(serial, pending);
      if (pending.reports?.size === 0) this.#finish(serial, pending, bestOf(pending), false, "ERR_WORKER_LOST");
    }
  }

  /** A shard that was lost is back. */
  peerBack(peer: number): void {
    this.#lost.delete(peer);
  }

  #askReports(serial: number, pending: Pending): void {
    pending.missing.add(pending.leader);
    pending.reports = new Set();
    for (const primary of pending.primaries) {
      if (primary === pending.leader) continue;
      if (this.#lost.has(primary)) {
        pending.missing.add(primary);
        continue;
      }
      pending.reports.add(primary);
      this.#send(primary, { type: MESSAGE.STOP, flags: STOP_REPORT, ...this.#header(serial) });
    }
    pending.deadlineMs = Math.min(pending.deadlineMs, this.#options.now() + this.#graceMs);
  }

  #takeReport(message: ResultMessage, pending: Pending): void {
    const { serial, from } = message;
    if (pending.reports?.delete(from) === true) {
      addHits(pending, message.hits);
      for (const shard of message.missing) pending.missing.add(shard);
      if (pending.reports.size === 0) this.#finish(serial, pending, bestOf(pending), false, "ERR_WORKER_LOST");
      return;
    }
    if (message.reason === "none" || !pending.primaries.includes(from)) return;
    // A primary that takes no part: the ring can never close.
    this.#stopAll(pending, serial);
    pending.missing.add(from);
    addHits(pending, message.hits);
    this.#finish(serial, pending, bestOf(pending), false, message.reason);
  }

  #stopAll(pending: Pending, serial: number): void {
    for (const primary of pending.primaries) {
      if (this.#lost.has(primary)) continue;
      this.#send(primary, { type: MESSAGE.STOP, flags: 0, ...this.#header(serial) });
    }
  }

  #finish(serial: number, pending: Pending, hits: Pairs, complete: boolean, reason: ErrorCode | undefined): void {
    this.#pending.delete(serial);
    const missing = sorted(pending.missing);
    const { tally, primaries } = pending;
    pending.done({ hits, complete, missing, tally, primaries, ...(reason !== undefined && !complete && { reason }) });
  }

  #sendCounted(pending: Pending, to: number, message: CotraMessage): void {
    if (to !== this.#options.self) {
      pending.tally.messages++;
      pending.tally.bytes += encodedBytes(message);
    }
    this.#send(to, message);
  }

  #send(to: number, message: CotraMessage): void {
    const bytes = encodeMessage(message);
    if (to !== this.#options.self) {
      this.counters.messages++;
      this.counters.messageBytes += bytes.length;
    }
    this.#options.send(to, bytes);
  }

  #header(serial: number): { from: number; origin: number; serial: number; sequence: number } {
    return { from: this.#options.self, origin: this.#options.self, serial, sequence: 0 };
  }
}

function reasonOf(message: ResultMessage, pending: Pending): ErrorCode | undefined {
  if (message.reason !== "none") return message.reason;
  return pending.missing.size > 0 ? "ERR_WORKER_LOST" : undefined;
}

/** The defaults; of a query that is sent in fewer bytes than a code has, no codes are read. */
export function settingsFor(query: Uint8Array): ResolvedSettings {
  return resolveSettings(codeLength(query) < query.length ? { pullDegree: 0 } : {});
}

function addHits(pending: Pending, { vertices, distances }: Pairs): void {
  for (let at = 0; at < vertices.length; at++) {
    const vertex = vertices[at] as number;
    const distance = distances[at] as number;
    if (Number.isNaN(distance) || pending.seen.has(vertex)) continue;
    pending.seen.add(vertex);
    pending.best.offer(vertex, distance);
  }
}

function bestOf(pending: Pending): Pairs {
  const best = pending.best.nearest(pending.k);
  return pairsOf(
    best.map(({ vertex }) => vertex),
    best.map(({ distance }) => distance),
    Number.POSITIVE_INFINITY,
  );
}

function sorted(shards: ReadonlySet<number>): number[] {
  return [...shards].sort((a, b) => a - b);
}
