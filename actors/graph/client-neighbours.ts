/**
 * Neighbours of vertices, as a client asks for them: what traversals read a graph through.
 *
 * Invariant: what was added or removed before a question is in its answer; a shard that has changed since the client last looked says so, and
 * the question is put again.
 */
import { invalidArgument } from "../../src/errors.ts";
import { GRAPH_BUILD, GRAPH_NEIGHBOURS } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import { askAgain, askAll, askShard, type GraphHandle } from "./client-calls.ts";
import { getVertexProperties, type VertexPropertyValues } from "./client-properties.ts";
import type { GraphAccount } from "./graph-account.ts";
import { plainRef } from "./graph-messages.ts";
import type { NeighbourDirection, NeighbourList, NeighboursReply, NeighboursRequest } from "./graph-neighbours.ts";
import type { BuildReply } from "./run-messages.ts";
import { checkKey, hashOfKey, ownerOfHash, type VertexKey } from "./vertex-key.ts";

/** Vertices of one message. */
const QUESTION = 256;

/** The other ends of a vertex's edges, one for each edge. */
export interface VertexNeighbours {
  readonly keys: readonly VertexKey[];
  /** `weights[i]` of the edge to `keys[i]`; undefined: all are 1. */
  readonly weights: Float64Array | undefined;
  /** Of the edges, by name; NaN where an edge has none. Undefined in a graph whose edges have no properties. */
  readonly properties?: Readonly<Record<string, Float64Array>>;
  /** What the vertex `keys[i]` carries, of what was asked for; undefined for one that was removed meanwhile. */
  readonly vertexProperties?: readonly (VertexPropertyValues | undefined)[];
}

/** Has all shards build what waits. @returns what they answer, by place */
export async function buildAll(handle: GraphHandle, options: CallOptions): Promise<BuildReply[]> {
  const { collection, roots, lost } = handle;
  const table = roots().map(plainRef);
  const replies = await askAll<BuildReply>(handle, GRAPH_BUILD, () => ({ collection, run: 0, roots: table }), options);
  if (lost !== undefined) replies.splice(lost.place, 0, lost.built);
  return replies;
}

/** Reads neighbours from all shards. */
export class NeighbourClient {
  readonly #handle: GraphHandle;
  readonly #keptBut: number | undefined;
  #shards: readonly BuildReply[] | undefined;

  /** @param keptBut As in {@link NeighboursRequest}. */
  constructor(handle: GraphHandle, keptBut?: number) {
    this.#handle = handle;
    this.#keptBut = keptBut;
  }

  /** Neighbours in the order of the question; undefined for what is not in the graph. */
  async read(
    vertices: readonly VertexKey[],
    direction: NeighbourDirection,
    options: CallOptions,
    account?: GraphAccount,
  ): Promise<(VertexNeighbours | undefined)[]> {
    const handle = { ...this.#handle, account };
    const places = handle.options.members.map((): number[] => []);
    for (const [at, key] of vertices.entries()) {
      checkKey("read neighbours", "vertex", key, at);
      (places[ownerOfHash(hashOfKey(key), places.length)] as number[]).push(at);
    }
    return askAgain(handle, async () => {
      try {
        const answers: (NeighbourList | undefined)[] = new Array(vertices.length).fill(undefined);
        this.#shards ??= await buildAll(handle, options);
        await Promise.all(
          places.map((mine, shard) => this.#readShard(handle, shard, mine, vertices, direction, options, answers)),
        );
        return answers.map((list) => (list === undefined ? undefined : this.#named(list)));
      } catch (error) {
        this.#shards = undefined;
        throw error;
      }
    });
  }

  #named({ keys, columns }: NeighbourList): VertexNeighbours {
    const { weighted, edgeProperties } = this.#handle.options;
    const values = columns.map((column) => Float64Array.from(column));
    const weights = weighted ? values.shift() : undefined;
    if (edgeProperties.length === 0) return { keys, weights };
    return {
      keys,
      weights,
      properties: Object.fromEntries(edgeProperties.map((name, at) => [name, values[at] as Float64Array])),
    };
  }

  async #readShard(
    handle: GraphHandle,
    shard: number,
    places: readonly number[],
    vertices: readonly VertexKey[],
    direction: NeighbourDirection,
    options: CallOptions,
    answers: (NeighbourList | undefined)[],
  ): Promise<void> {
    const { collection } = handle;
    const keptBut = this.#keptBut === undefined ? {} : { keptBut: this.#keptBut };
    const shards = this.#shards as readonly BuildReply[];
    let next = 0;
    let skip = 0;
    while (next < places.length) {
      const keys = places.slice(next, next + QUESTION).map((at) => vertices[at] as VertexKey);
      const request: NeighboursRequest = { collection, shards, keys, direction, skip, ...keptBut };
      const { lists, given } = await askShard<NeighboursReply>(handle, shard, GRAPH_NEIGHBOURS, request, options);
      for (const [at, list] of lists.entries()) {
        const place = places[next + at] as number;
        if (list !== null) answers[place] = joined(at === 0 && skip > 0 ? answers[place] : undefined, list);
      }
      next += given < 0 ? lists.length : lists.length - 1;
      skip = Math.max(0, given);
    }
  }
}

/** The same lists, with what the other ends carry: each shard tells that of the ends of its own vertices' edges, see end-properties.ts. */
export async function withEnds(
  live: GraphHandle,
  vertices: readonly VertexKey[],
  lists: readonly (VertexNeighbours | undefined)[],
  names: readonly string[],
  options: CallOptions,
): Promise<(VertexNeighbours | undefined)[]> {
  const handle = { ...live };
  const { shards } = handle.options;
  if (!Array.isArray(names)) throw invalidArgument("read neighbours", "vertexProperties", "a list of names", names);
  const known = Array.from({ length: shards }, () => new Map<VertexKey, VertexPropertyValues | undefined>());
  const ownerAt = (at: number): Map<VertexKey, VertexPropertyValues | undefined> =>
    known[ownerOfHash(hashOfKey(vertices[at] as VertexKey), shards)] as never;
  for (const [at, list] of lists.entries()) for (const key of list?.keys ?? []) ownerAt(at).set(key, undefined);
  const read = async (ends: (typeof known)[number], shard: number): Promise<void> => {
    const keys = [...ends.keys()];
    const values = await getVertexProperties(handle, keys, names, options, shard);
    for (const [at, key] of keys.entries()) ends.set(key, values[at]);
  };
  await Promise.all(known.map(read));
  return lists.map((list, at) => list && { ...list, vertexProperties: list.keys.map((key) => ownerAt(at).get(key)) });
}

function joined(before: NeighbourList | undefined, list: NeighbourList): NeighbourList {
  if (before === undefined) return list;
  const columns = list.columns.map((column, at) => [...(before.columns[at] ?? []), ...column]);
  return { keys: [...before.keys, ...list.keys], columns };
}
