/**
 * CoTra: one shard is asked, any of them, which searches the graph with the others.
 *
 * Invariant: the shards come in an order that takes turns, so each is the origin of its share.
 */
import { VECTOR_COLLABORATE } from "../../../src/wire/message-types.ts";
import { collaboratePayload } from "../cotra/collaborate-codec.ts";
import { type AskingStrategy, wholeGraph } from "./vector-strategy.ts";

export const COTRA: AskingStrategy = {
  name: "cotra",
  exposedRegion: wholeGraph,
  selectShards: (_, shards) => shards.slice(0, 1).map(({ shard }) => ({ shard, entries: [] })),
  directMessage: (_, { collectionId, wanted, ef, bytes, timeoutMs }) => ({
    type: VECTOR_COLLABORATE,
    payload: collaboratePayload({ collectionId, k: wanted, ef, timeoutMs, query: bytes }),
  }),
};
