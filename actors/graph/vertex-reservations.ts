/**
 * Reservations of one shard's vertices as ends of edges that are checked now and added later: between the check and the edge they do not go.
 *
 * ```
 *  held ──release──▶ over          a removal waits for its vertices' reservations, and no new ones are taken of them meanwhile
 *   │ ▲──renew, in time            a renewal or a release of what is over changes nothing, and says so
 *   └─────time───▶ over
 * ```
 * Invariant: while a reservation holds, every vertex of it exists on this worker; who renews one that is over learns it. They end with the
 * worker: then whoever has one is told that it is over, and adds no edge on the strength of it.
 * Cost: O(vertices) a call; at most {@link MAX_HELD} vertices of a graph are reserved on one shard.
 */
import { ShardloomError } from "../../src/errors.ts";
import { hashOfKey, type VertexKey } from "./vertex-key.ts";
import type { VertexTable } from "./vertex-table.ts";

/** Most vertices that are reserved at once, each as often as it is reserved. */
export const MAX_HELD = 65_536;
/** How long after a removal was refused nobody else may reserve its vertices: it is tried again sooner. */
const LEAVING_MS = 250;

/** What is asked of a shard about reservations of its vertices. */
export type ReserveRequest =
  | {
      readonly collection: number;
      readonly act: "hold";
      readonly keys: readonly VertexKey[];
      readonly holdMs: number;
    }
  | { readonly collection: number; readonly act: "renew" | "release"; readonly reservation: number };

export interface ReserveReply {
  /** 0: there is none, or none any more. */
  readonly reservation: number;
  /** Place of the first key that is not in the graph; -1: all are. */
  readonly missing: number;
}

interface Held {
  readonly keys: readonly VertexKey[];
  readonly holdMs: number;
  untilMs: number;
}

export class VertexReservations {
  readonly #nowMs: () => number;
  readonly #table: Pick<VertexTable, "find">;
  readonly #held: Map<number, Held> = new Map();
  /** How often each vertex is reserved. */
  readonly #counts: Map<VertexKey, number> = new Map();
  /** Vertices that somebody wants to remove, and until when nobody else may reserve them. */
  readonly #leaving: Map<VertexKey, number> = new Map();
  #size = 0;
  #last = 0;

  constructor(nowMs: () => number, table: Pick<VertexTable, "find">) {
    this.#nowMs = nowMs;
    this.#table = table;
  }

  /** @throws {ShardloomError} `ERR_OVERLOADED` for a vertex that is about to be removed, or when too many are reserved. */
  answer(request: ReserveRequest): ReserveReply {
    this.#expire();
    if (request.act === "hold") return this.#hold(request.keys, request.holdMs);
    const held = this.#held.get(request.reservation);
    if (held === undefined) return { reservation: 0, missing: -1 };
    if (request.act === "release") this.#end(request.reservation, held);
    else held.untilMs = this.#nowMs() + held.holdMs;
    return { reservation: request.reservation, missing: -1 };
  }

  /** Called before vertices are removed. @throws {ShardloomError} `ERR_OVERLOADED` while one of them is reserved; try again soon. */
  assertFree(keys: ArrayLike<VertexKey>): void {
    if (this.#counts.size === 0 && this.#leaving.size === 0) return;
    this.#expire();
    let reserved: VertexKey | undefined;
    for (let at = 0; at < keys.length; at++)
      if (this.#counts.has(keys[at] as VertexKey)) reserved ??= keys[at] as VertexKey;
    const untilMs = this.#nowMs() + LEAVING_MS;
    for (let at = 0; at < keys.length; at++)
      if (reserved === undefined) this.#leaving.delete(keys[at] as VertexKey);
      else this.#leaving.set(keys[at] as VertexKey, untilMs);
    if (reserved !== undefined) throw busy("remove vertices", reserved, "is reserved for an edge");
  }

  #hold(keys: readonly VertexKey[], holdMs: number): ReserveReply {
    const missing = keys.findIndex((key) => this.#table.find(key, hashOfKey(key)) < 0);
    if (missing >= 0) return { reservation: 0, missing };
    const leaving = keys.find((key) => this.#leaving.has(key));
    if (leaving !== undefined) throw busy("reserve vertices", leaving, "is about to be removed");
    if (this.#size + keys.length > MAX_HELD) {
      const rule = `at most ${MAX_HELD} of one shard can be reserved`;
      throw new ShardloomError("ERR_OVERLOADED", `Cannot reserve vertices as ${rule}: current value is ${this.#size}`, {
        details: { limit: MAX_HELD, reserved: this.#size },
      });
    }
    this.#size += keys.length;
    for (const key of keys) this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
    this.#held.set(++this.#last, { keys, holdMs, untilMs: this.#nowMs() + holdMs });
    return { reservation: this.#last, missing: -1 };
  }

  #expire(): void {
    const nowMs = this.#nowMs();
    for (const [reservation, held] of this.#held) if (held.untilMs <= nowMs) this.#end(reservation, held);
    for (const [key, untilMs] of this.#leaving) if (untilMs <= nowMs) this.#leaving.delete(key);
  }

  #end(reservation: number, { keys }: Held): void {
    this.#held.delete(reservation);
    this.#size -= keys.length;
    for (const key of keys) {
      const left = (this.#counts.get(key) as number) - 1;
      if (left > 0) this.#counts.set(key, left);
      else this.#counts.delete(key);
    }
  }
}

/** Whoever asks does so again, as while the shard builds: no run is in the way. */
function busy(action: string, vertex: VertexKey, why: string): ShardloomError {
  return new ShardloomError("ERR_OVERLOADED", `Cannot ${action} as ${JSON.stringify(vertex)} ${why}`, {
    details: { vertex, runs: 0 },
  });
}
