/**
 * Compass: the shards whose leaves are near a query are asked, as many as the recall target needs, and each searches what it computes for.
 *
 * Invariant: what it tells a shard are hints: the view of the leaves was current just before. Where one of the shards is not there any more it chooses
 * none: what that one computed for would be missing without a word.
 */
import { VECTOR_NEAR } from "../../../src/wire/message-types.ts";
import { nearMessage } from "./near-messages.ts";
import { type AskingStrategy, type RoutedQuery, wholeGraph } from "./vector-strategy.ts";

/** Leaves of a shard at whose medoids and landmarks its search begins. */
const ENTRY_LEAVES = 6;
/** Part of the allowed loss that choosing shards may take; the rest is for the searches in them. */
const ROUTING_LOSS = 0.5;

export const COMPASS: AskingStrategy<RoutedQuery> = {
  name: "compass",
  exposedRegion: wholeGraph,
  selectShards({ leaves, code, k, selectivity, recallTarget, spent }, shards) {
    const target = routingTarget(recallTarget);
    const plan = leaves.router.selectShards(code, { k, recallTarget: target, selectivity });
    spent.distances += plan.computed;
    const there = new Set(shards.map(({ shard }) => shard));
    return plan.shards.every(({ shard }) => there.has(shard)) ? plan.shards : [];
  },
  directMessage(selected, { collectionId, leaves, wanted, ef, bytes }) {
    const entries = leaves.entriesOf(selected.leaves, Math.min(ENTRY_LEAVES, selected.leaves.length));
    const request = { collectionId, wanted, ef, version: 0, entries, leaves: [], code: bytes, recallPpm: 0, level: 0 };
    return nearMessage(VECTOR_NEAR, request);
  },
};

/** What choosing shards, or leaves, is to reach, so that the search as a whole reaches a target. */
export function routingTarget(recallTarget: number): number {
  return 1 - (1 - recallTarget) * ROUTING_LOSS;
}
