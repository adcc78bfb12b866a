/**
 * Properties of vertices as one shard takes and gives them.
 *
 * Invariant: a list is taken whole or not at all; a page of values ends where the reply is full, and says how far it has come.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { PlainRef } from "./graph-messages.ts";
import { hashOfKey, type VertexKey } from "./vertex-key.ts";
import type { PropertyColumns, PropertyValue, VertexProperties } from "./vertex-properties.ts";
import type { VertexTable } from "./vertex-table.ts";

const OVERHEAD_BYTES = 64;
const VALUE_BYTES = 9;

export interface SetRequest {
  readonly collection: number;
  readonly keys: readonly VertexKey[];
  readonly columns: PropertyColumns;
}

export interface GetRequest {
  readonly collection: number;
  readonly keys: readonly VertexKey[];
  readonly names: readonly string[];
  /** Roots of all shards: the shard reads vertices of the others too, see end-properties.ts. Absent: they are not in the graph, for it. */
  readonly roots?: readonly PlainRef[] | undefined;
}

export interface GetReply {
  /** Of the first vertices of the question, in the order of the names; null for one that is not in the graph, and for a value that is not there. */
  readonly lists: readonly (readonly (PropertyValue | null)[] | null)[];
}

/** @returns how many vertices. @throws {ShardloomError} `ERR_UNKNOWN_VERTEX`, `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_MEMORY`. */
export function setProperties(table: VertexTable, properties: VertexProperties, { keys, columns }: SetRequest): number {
  const rows = keys.map((key, at) => {
    const row = table.find(key, hashOfKey(key));
    if (row >= 0) return row;
    throw new ShardloomError(
      "ERR_UNKNOWN_VERTEX",
      `Cannot set properties as their vertex must be one of the graph: current value is ${JSON.stringify(key)}`,
      { details: { vertex: key, at } },
    );
  });
  properties.set(rows, columns);
  return rows.length;
}

/** @param limitBytes Of the reply. */
export function getProperties(
  table: VertexTable,
  properties: VertexProperties,
  { keys, names }: GetRequest,
  limitBytes: number,
): GetReply {
  const lists: (readonly (PropertyValue | null)[] | null)[] = [];
  let left = limitBytes - OVERHEAD_BYTES;
  for (const key of keys) {
    const row = table.find(key, hashOfKey(key));
    const list = row < 0 ? null : names.map((name) => properties.get(row, name) ?? null);
    left -= sizeOfList(list);
    if (left < 0 && lists.length > 0) break;
    lists.push(list);
  }
  return { lists };
}

/** Most bytes of the values of a vertex in a reply. */
export function sizeOfList(list: readonly (PropertyValue | null)[] | null): number {
  return (list ?? []).reduce<number>((bytes, value) => bytes + sizeOf(value), VALUE_BYTES);
}

function sizeOf(value: PropertyValue | null): number {
  return VALUE_BYTES + (typeof value === "string" ? 3 * value.length : 0);
}
