/**
 * Edges that are checked now and added later: both ends of each are reserved at the shards that own them, and stay until the edges are there.
 *
 * ```
 *  reserve ──all ends held──▶ reserved ──commit: all renewed, then written──▶ added, reservations given back
 *     └──an end is missing──▶ refused      └──release, or the time is over──▶ nothing was added
 * ```
 * Invariant: a reservation has one end. Edges are written only after every shard has said that its part still holds, and then all the same
 * with both ends looked up in the step that writes them: so what comes later than it should is refused, and no edge leads nowhere.
 */
import { invalidArgument, ShardloomError } from "../../src/errors.ts";
import { GRAPH_RESERVE } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import { askShard, askWhenBuilt, type GraphHandle } from "./client-calls.ts";
import { checkedEdges, type GraphEdgeColumns, type GraphEdges, sendEdges } from "./client-load.ts";
import { unknownVertex } from "./edge-resolver.ts";
import { hashOfKey, ownerOfHash, type VertexKey } from "./vertex-key.ts";
import type { ReserveReply, ReserveRequest } from "./vertex-reservations.ts";

/** Vertices of one message. */
const MAX_KEYS = 128;
const HOLD_MS = 5_000;
const MAX_HOLD_MS = 60_000;

/** Options of {@link Graph.reserveEdges}. */
export interface ReserveEdgesOptions extends CallOptions {
  /** How long the ends are held, and once more from the commit on, in ms, `1..60000`. @default 5000 */
  readonly holdMs?: number;
}

/** What one shard holds. */
interface Part {
  readonly shard: number;
  readonly reservation: number;
}

/** Edges whose ends are reserved. Commit it or release it; disposing of it releases what was not committed. */
export class EdgeReservation implements AsyncDisposable {
  /** How many edges. */
  readonly edges: number;
  readonly #handle: GraphHandle;
  readonly #columns: GraphEdgeColumns;
  readonly #parts: readonly Part[];
  #ended = false;

  constructor(handle: GraphHandle, columns: GraphEdgeColumns, parts: readonly Part[]) {
    this.edges = columns.sources.length;
    this.#handle = handle;
    this.#columns = columns;
    this.#parts = parts;
  }

  /**
   * Adds the edges. However it ends, the reservation is over then.
   *
   * @returns how many
   * @throws {ShardloomError} `ERR_TIMEOUT` when the time was over, or a worker was lost that held a part: nothing was added; `ERR_CLOSED`
   * after a commit or a release; as {@link Graph.addEdges}.
   */
  async commit(options: CallOptions = {}): Promise<number> {
    if (this.#ended)
      throw new ShardloomError("ERR_CLOSED", "Cannot commit edges as they were committed or released before");
    this.#ended = true;
    try {
      const held = await Promise.all(this.#parts.map((part) => this.#end(part, "renew", options)));
      if (!held.every(Boolean))
        throw new ShardloomError("ERR_TIMEOUT", "Cannot commit edges as the reservation of their ends is over", {
          details: { edges: 0, shards: this.#parts.filter((_, at) => !held[at]).map(({ shard }) => shard) },
          retryable: false,
        });
      return await sendEdges(this.#handle, this.#columns, options, "add");
    } finally {
      await this.#release();
    }
  }

  /** Gives the ends back; nothing is added. Idempotent. */
  async release(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#release();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  /** What cannot be told goes with its time. */
  async #release(): Promise<void> {
    await Promise.allSettled(this.#parts.map((part) => this.#end(part, "release")));
  }

  async #end({ shard, reservation }: Part, act: "renew" | "release", options?: CallOptions): Promise<boolean> {
    const request: ReserveRequest = { collection: this.#handle.collection, act, reservation };
    const reply = await askShard<ReserveReply>(this.#handle, shard, GRAPH_RESERVE, request, options);
    return reply.reservation === reservation;
  }
}

/** Reserves both ends of edges, or nothing. */
export async function reserveEdges(
  handle: GraphHandle,
  edges: GraphEdges,
  { holdMs = HOLD_MS, ...options }: ReserveEdgesOptions,
): Promise<EdgeReservation> {
  if (!Number.isFinite(holdMs) || holdMs < 1 || holdMs > MAX_HOLD_MS)
    throw invalidArgument("reserve edges", "holdMs", `a number between 1 and ${MAX_HOLD_MS}`, holdMs);
  const columns = checkedEdges(handle, edges);
  const parts: Part[] = [];
  const hold = async (shard: number, mine: readonly VertexKey[]): Promise<void> => {
    for (let from = 0; from < mine.length; from += MAX_KEYS) {
      const keys = mine.slice(from, from + MAX_KEYS);
      const request: ReserveRequest = { collection: handle.collection, act: "hold", keys, holdMs };
      const ask = (): Promise<ReserveReply> => askShard(handle, shard, GRAPH_RESERVE, request, options);
      const { reservation, missing } = await askWhenBuilt(handle, options, ask);
      if (missing >= 0) throw missingEnd(columns, keys[missing] as VertexKey);
      parts.push({ shard, reservation });
    }
  };
  const results = await Promise.allSettled(endsByShard(handle, columns).map((mine, shard) => hold(shard, mine)));
  const failed = results.find((result) => result.status === "rejected");
  const reserved = new EdgeReservation(handle, columns, parts);
  if (failed === undefined) return reserved;
  await reserved.release();
  throw failed.reason;
}

/** Each vertex once. */
function endsByShard({ options }: GraphHandle, { sources, targets }: GraphEdgeColumns): VertexKey[][] {
  const ends = Array.from({ length: options.shards }, () => new Set<VertexKey>());
  for (const column of [sources, targets]) {
    for (let at = 0; at < column.length; at++) {
      const key = column[at] as VertexKey;
      ends[ownerOfHash(hashOfKey(key), options.shards)]?.add(key);
    }
  }
  return ends.map((keys) => [...keys]);
}

function missingEnd({ sources, targets }: GraphEdgeColumns, vertex: VertexKey): ShardloomError {
  const source = Array.prototype.indexOf.call(sources, vertex);
  const target = Array.prototype.indexOf.call(targets, vertex);
  const isSource = source >= 0 && (target < 0 || source <= target);
  return unknownVertex("reserve edge", isSource ? "source" : "target", vertex, isSource ? source : target);
}
