/**
 * SPIRE: one shard is asked, the one that computes for the leaf nearest to the query; it has the leaves that count read where they are. Which
 * leaves there are the shards tell each other. In a collection with levels they tell each other which clusters stand highest, and as each shard knows
 * them the first is asked.
 *
 * Invariant: as of Compass: what it tells the shard are hints. The shards come in an order that takes turns.
 */
import { VECTOR_SPIRE } from "../../../src/wire/message-types.ts";
import { TopList } from "../routing/top-list.ts";
import { nearMessage } from "./near-messages.ts";
import { type AskingStrategy, type RoutedQuery, type VectorStrategy, wholeGraph } from "./vector-strategy.ts";

const PER_MILLION = 1_000_000;

export const SPIRE: AskingStrategy<RoutedQuery> & Required<Pick<VectorStrategy, "buildTimeExchange">> = {
  name: "spire",
  exposedRegion: wholeGraph,
  buildTimeExchange: (peer, held) => held.offer(peer),
  selectShards({ leaves: { router }, index, code, spent }, shards) {
    if (index === "levels") return shards.slice(0, 1).map(({ shard }) => ({ shard, entries: [] }));
    const nearest = new TopList(1);
    spent.distances += router.nearestLeaves(code, nearest);
    const shard = router.shardOf(nearest.ids[0] as number);
    return shards.filter((known) => known.shard === shard).map((known) => ({ ...known, entries: [] }));
  },
  directMessage(_, { collectionId, bytes, k, wanted, selectivity, recallTarget }) {
    const request = {
      ...{ collectionId, wanted, version: 0, entries: [], leaves: [], code: bytes, level: 0 },
      ef: Math.ceil(k / selectivity),
      recallPpm: Math.max(1, Math.round(recallTarget * PER_MILLION)),
    };
    return nearMessage(VECTOR_SPIRE, request);
  },
};
