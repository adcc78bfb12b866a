/**
 * Questions of a client about ghosts: how many every shard has, and which shards have ghosts of a vertex.
 *
 * Invariant: an answer is what a shard knew at one moment; what its peers have not told it yet is not in it.
 */
import { GRAPH_GHOSTS } from "../../src/wire/message-types.ts";
import type { CallOptions } from "../call-options.ts";
import { askAll, askShard, type GraphHandle } from "./client-calls.ts";
import type { GhostsReply, GhostsRequest } from "./ghosts/ghost-handlers.ts";
import type { GhostStatus } from "./ghosts/shard-ghosts.ts";
import { checkKey, hashOfKey, ownerOfHash, type VertexKey } from "./vertex-key.ts";

/** Vertices of one message. */
const MAX_KEYS = 128;

/** A shard whose edges lead to a vertex of another. */
export interface VertexHolder {
  readonly shard: number;
  /** How many of them. */
  readonly references: number;
}

/** In shard order. */
export async function readGhosts(handle: GraphHandle, options: CallOptions): Promise<GhostStatus[]> {
  const { collection } = handle;
  const request: GhostsRequest = { collection, keys: [] };
  const replies = await askAll<GhostsReply>(handle, GRAPH_GHOSTS, () => request, options);
  return replies.map(({ status }) => status);
}

/** In the order of the keys. */
export async function readHolders(
  handle: GraphHandle,
  keys: readonly VertexKey[],
  options: CallOptions,
): Promise<(readonly VertexHolder[] | undefined)[]> {
  const { collection, options: kept } = handle;
  const places = Array.from({ length: kept.shards }, (): number[] => []);
  for (const [at, key] of keys.entries()) {
    checkKey("read holders", "vertex", key, at);
    (places[ownerOfHash(hashOfKey(key), places.length)] as number[]).push(at);
  }
  const answers: (readonly VertexHolder[] | undefined)[] = new Array(keys.length).fill(undefined);
  const read = async (shard: number, mine: readonly number[]): Promise<void> => {
    for (let from = 0; from < mine.length; from += MAX_KEYS) {
      const part = mine.slice(from, from + MAX_KEYS);
      const request: GhostsRequest = { collection, keys: part.map((at) => keys[at] as VertexKey) };
      const { holders } = await askShard<GhostsReply>(handle, shard, GRAPH_GHOSTS, request, options);
      for (const [at, list] of holders.entries())
        answers[part[at] as number] = list?.map(([holder, references]) => ({
          shard: kept.members[holder] as number,
          references,
        }));
    }
  };
  await Promise.all(places.map((mine, shard) => read(shard, mine)));
  return answers;
}
