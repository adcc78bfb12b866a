/**
 * Neighbours of vertices, as one shard gives them: a page of lists, read out of its adjacency.
 *
 * Keys of far ends are read in place from the tables of their shards. Invariant: lists are in the order of the question and each in an
 * order that is the same until the graph changes; a page that ends within a list says where the next one begins.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { Csr } from "./csr.ts";
import type { BuildReply } from "./run-messages.ts";
import { hashOfKey, type VertexKey } from "./vertex-key.ts";
import { keyAt, type VertexTable } from "./vertex-table.ts";

/** Which edges are followed; of an undirected graph all three are the same. */
export type NeighbourDirection = "out" | "in" | "both";

export interface NeighboursRequest {
  readonly collection: number;
  readonly shards: readonly BuildReply[];
  readonly keys: readonly VertexKey[];
  readonly direction: NeighbourDirection;
  /** Neighbours of the first vertex that were given already. */
  readonly skip: number;
  /** Whatever the direction, edges as the shard keeps them, each once, but those to the shard at this place; -1: to all. */
  readonly keptBut?: number | undefined;
}

export interface NeighboursReply {
  /** Of the first vertices of the question; null for one that is not in the graph. */
  readonly lists: readonly (NeighbourList | null)[];
  /** Neighbours of the last of them that were given so far; -1: all. */
  readonly given: number;
}

export interface NeighbourList {
  readonly keys: VertexKey[];
  /** What each edge carries, column by column. */
  readonly columns: readonly number[][];
}

/** What a shard reads from. */
export interface NeighbourSource {
  readonly arena: Arena;
  readonly table: VertexTable;
  /** Adjacency in the directions that are asked for. */
  readonly ways: readonly Csr[];
}

/** @param limit Most neighbours of a page. */
export function neighboursOf(source: NeighbourSource, request: NeighboursRequest, limit: number): NeighboursReply {
  const lists: (NeighbourList | null)[] = [];
  let left = limit;
  let skip = request.skip;
  for (const key of request.keys) {
    const row = source.table.find(key, hashOfKey(key));
    left--; // lists that are empty take room as well
    if (left < 0) break;
    if (row < 0 || row >= (source.ways[0]?.rows ?? 0)) {
      lists.push(null);
      continue;
    }
    const list = readList(source, request, row, skip, left);
    lists.push(list);
    left -= list.keys.length;
    const given = skip + list.keys.length;
    if (given < degreeOf(source, request, row)) return { lists, given };
    skip = 0;
  }
  return { lists, given: -1 };
}

function readList(
  { arena, ways }: NeighbourSource,
  { shards, keptBut }: NeighboursRequest,
  row: number,
  skip: number,
  limit: number,
): NeighbourList {
  const keys: VertexKey[] = [];
  const columns = Array.from({ length: ways[0]?.columns ?? 0 }, (): number[] => []);
  let toSkip = skip;
  for (const { peers } of ways) {
    for (const [shard, edges] of peers.entries()) {
      if (shard === keptBut) continue;
      const end = edges.offsets[row + 1] as number;
      let at = edges.offsets[row] as number;
      const skipped = Math.min(toSkip, end - at);
      at += skipped;
      toSkip -= skipped;
      for (; at < end && keys.length < limit; at++) {
        keys.push(keyAt(arena, (shards[shard] as BuildReply).root[0], edges.targets[at] as number));
        for (const [column, values] of columns.entries()) values.push(edges.columns[column]?.[at] as number);
      }
    }
  }
  return { keys, columns };
}

function degreeOf({ ways }: NeighbourSource, { keptBut }: NeighboursRequest, row: number): number {
  let degree = 0;
  for (const { peers } of ways)
    for (const [shard, { offsets }] of peers.entries())
      if (shard !== keptBut) degree += (offsets[row + 1] as number) - (offsets[row] as number);
  return degree;
}
