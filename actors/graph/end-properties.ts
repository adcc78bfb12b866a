/**
 * Properties of vertices that may be of any shard, as one shard gives them: what the ends of its edges carry.
 *
 * What is of other shards comes from their ghosts, as far as what these know is still to be used; for the rest their owners are asked, all at
 * once, and what they answer is kept with ghosts.
 * Invariant: a value is the owner's, at most `ttlMs` old, and of its present worker; without ghosts it is as the owner has it now. A page ends
 * where the reply is full, and what it asks owners for is at most {@link KEYS_A_STEP} vertices more than are in it.
 */
import { ShardloomError } from "../../src/errors.ts";
import type { Payload } from "../../src/routing/requester.ts";
import { GRAPH_GET } from "../../src/wire/message-types.ts";
import type { EnginePeers } from "../engine.ts";
import type { GhostValues } from "./ghosts/ghost-table.ts";
import { decodeBody, encodeBody, refOf } from "./graph-messages.ts";
import { type GetReply, type GetRequest, sizeOfList } from "./property-messages.ts";
import type { ShardGraph } from "./shard-graph.ts";
import { hashOfKey, ownerOfHash, type VertexKey } from "./vertex-key.ts";

const KEYS_A_STEP = 128;
const OVERHEAD_BYTES = 64;
/** Longest time for an owner to answer; who waits for less gives up all of it. */
const ASK_MS = 30_000;

type Values = GhostValues | null;

/** What a shard reads with. */
interface Reader {
  readonly graph: ShardGraph;
  readonly peers: EnginePeers | undefined;
  /** Addresses of the roots, by shard. */
  readonly roots: readonly number[];
}

/** @param limitBytes Of the reply. */
export function* endProperties(
  graph: ShardGraph,
  peers: EnginePeers | undefined,
  { keys, names, roots = [] }: GetRequest,
  limitBytes: number,
): Generator<boolean, GetReply> {
  const reader = { graph, peers, roots: roots.map((root) => refOf(root).address) };
  const places = names.map((name) => graph.properties.place(name));
  const lists: Values[] = [];
  let left = limitBytes - OVERHEAD_BYTES;
  for (let from = 0; from < keys.length; from += KEYS_A_STEP) {
    for (const values of yield* valuesOf(reader, keys.slice(from, from + KEYS_A_STEP))) {
      const list = values === null ? null : places.map((place) => values[place] ?? null);
      left -= sizeOfList(list);
      if (left < 0 && lists.length > 0) return { lists };
      lists.push(list);
    }
  }
  return { lists };
}

/** All that vertices carry. */
function* valuesOf(reader: Reader, keys: readonly VertexKey[]): Generator<boolean, Values[]> {
  const { graph } = reader;
  const { table, properties, place, shard, ghosts } = graph;
  const epochs = reader.roots.map((root) => ghosts?.epochAt(root) ?? 0);
  const values: Values[] = new Array(keys.length).fill(null);
  const missing = new Map<number, number[]>();
  for (const [at, key] of keys.entries()) {
    const hash = hashOfKey(key);
    const owner = ownerOfHash(hash, place.shards);
    if (owner === shard) {
      const row = table.find(key, hash);
      if (row >= 0) values[at] = properties.names.map((name) => properties.get(row, name) ?? null);
      continue;
    }
    const known = ghosts?.look(key, owner, epochs[owner] as number);
    if (known !== undefined) values[at] = known;
    else missing.set(owner, [...(missing.get(owner) ?? []), at]);
  }
  if (missing.size === 0) return values;
  const asked = [...missing].map(async ([owner, places]) => {
    const found = await askOwner(
      reader,
      owner,
      places.map((at) => keys[at] as VertexKey),
    );
    for (const [index, at] of places.entries()) {
      const list = found[index] ?? null;
      values[at] = list;
      if (list !== null) ghosts?.keep(keys[at] as VertexKey, owner, epochs[owner] as number, list);
    }
  });
  yield* settled(Promise.all(asked));
  return values;
}

async function askOwner({ graph, peers }: Reader, owner: number, keys: readonly VertexKey[]): Promise<Values[]> {
  const { collection, members } = graph.place;
  if (peers === undefined) throw new ShardloomError("ERR_UNAVAILABLE", "Cannot read properties as there are no peers");
  const lists: Values[] = [];
  while (lists.length < keys.length) {
    const request: GetRequest = { collection, names: graph.properties.names, keys: keys.slice(lists.length) };
    const body = encodeBody(request);
    const payload: Payload = {
      byteLength: body.length,
      write: (target, offset) => target.bytes.set(body, offset),
    };
    const ask = peers.ask(members[owner] as number, GRAPH_GET, payload, (frame) => decodeBody<GetReply>(frame), ASK_MS);
    const reply = await ask;
    if (reply.lists.length === 0)
      throw new ShardloomError(
        "ERR_RECORD_TOO_LARGE",
        "Cannot read properties as those of a vertex do not fit a reply",
      );
    lists.push(...reply.lists);
  }
  return lists;
}

/** Waits for what comes by message. */
function* settled<T>(promise: Promise<T>): Generator<boolean, T> {
  const state: { end?: { readonly value: T } | { readonly error: unknown } } = {};
  promise.then(
    (value) => {
      state.end = { value };
    },
    (error: unknown) => {
      state.end = { error };
    },
  );
  while (state.end === undefined) yield false;
  if ("error" in state.end) throw state.end.error;
  return state.end.value;
}
