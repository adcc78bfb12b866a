/**
 * The ends of edges as local numbers: sources in this shard's table, targets in place in the tables of those that own them.
 *
 * Invariant: all ends of a list are vertices of the graph at the moment of the call, or none is resolved. Whoever adds the edges does so in
 * the same turn: a vertex that is removed after that takes them with it, as a removal is told to builds that come after it.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import { ShardloomError } from "../../src/errors.ts";
import type { ResolvedEdges } from "./edge-changes.ts";
import type { ReceivedList } from "./graph-messages.ts";
import { hashOfKey, ownerOfHash, type VertexKey } from "./vertex-key.ts";
import { findVertex, type VertexTable } from "./vertex-table.ts";

/** Where vertices are looked up. */
export interface VertexPlaces {
  readonly arena: Arena;
  readonly shard: number;
  readonly table: VertexTable;
  /** Roots of all shards. The caller sees to it that they are those of present workers, after the call as well. */
  readonly peers: readonly RegionRef[];
}

/** @throws {ShardloomError} `ERR_UNKNOWN_VERTEX` with the key and its place in the list. */
export function resolveEdges(
  { arena, shard, table, peers }: VertexPlaces,
  action: string,
  { count, keys, values }: ReceivedList,
): ResolvedEdges {
  const [sources, targets] = keys as readonly [ArrayLike<VertexKey>, ArrayLike<VertexKey>];
  const rows = new Uint32Array(count);
  const owners = new Uint32Array(count);
  const locals = new Uint32Array(count);
  for (let at = 0; at < count; at++) {
    const source = sources[at] as VertexKey;
    const row = table.find(source, hashOfKey(source));
    if (row < 0) throw unknownVertex(action, "source", source, at);
    const target = targets[at] as VertexKey;
    const hash = hashOfKey(target);
    const owner = ownerOfHash(hash, peers.length);
    const local =
      owner === shard ? table.find(target, hash) : findVertex(arena, (peers[owner] as RegionRef).address, target, hash);
    if (local < 0) throw unknownVertex(action, "target", target, at);
    rows[at] = row;
    owners[at] = owner;
    locals[at] = local;
  }
  const columns = values.length === 0 ? undefined : values.map((column) => Float64Array.from(column));
  return { count, rows, peers: owners, targets: locals, columns };
}

/** An end of the edge at a place of a list is no vertex. */
export function unknownVertex(action: string, end: "source" | "target", vertex: VertexKey, at: number): ShardloomError {
  return new ShardloomError(
    "ERR_UNKNOWN_VERTEX",
    `Cannot ${action} as its ${end} must be a vertex of the graph: current value is ${JSON.stringify(vertex)}`,
    { details: { vertex, end, at } },
  );
}
