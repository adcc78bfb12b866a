/**
 * SPIRE: one shard is asked, the one that computes for the leaf nearest to the query; it has the leaves that count read where they are.
 *
 * Invariant: as of Compass: made for one query, and what it tells the shard are hints.
 */
import { VECTOR_SPIRE } from "../../../src/wire/message-types.ts";
import { TopList } from "../routing/top-list.ts";
import { type RoutedParts, routingTarget } from "./compass-strategy.ts";
import { nearRequestBytes, writeNearRequest } from "./near-messages.ts";
import { SCATTER, type VectorStrategy } from "./vector-strategy.ts";

const PER_MILLION = 1_000_000;

export function spireStrategy({ collectionId, router, graph }: RoutedParts): VectorStrategy {
  return {
    ...SCATTER,
    name: "spire",
    selectShards({ code }, shards) {
      const nearest = new TopList(1);
      router.nearestLeaves(code, nearest);
      const shard = router.shardOf(nearest.ids[0] as number);
      return shards.filter((known) => known.shard === shard).map((known) => ({ ...known, leaves: nearest.ids }));
    },
    directMessage(_, { bytes, k, wanted, selectivity, recallTarget }) {
      const request = {
        ...{ collectionId, wanted, version: 0, entries: [], leaves: [], code: bytes },
        ef: Math.ceil(k / selectivity),
        recallPpm: Math.round(routingTarget(recallTarget) * PER_MILLION),
      };
      const write = (target: Parameters<typeof writeNearRequest>[0], offset: number): void =>
        writeNearRequest(target, offset, request);
      return { type: VECTOR_SPIRE, payload: { byteLength: nearRequestBytes(request), write } };
    },
    exposedRegion: () => graph,
  };
}
