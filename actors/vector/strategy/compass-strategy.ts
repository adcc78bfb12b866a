/**
 * Compass: the shards whose leaves are near a query are asked, as many as the recall target needs, and each searches what it computes for. The one
 * of which most is expected is asked first; the others begin where its candidates' lists lead to them, and leave out what is farther than those.
 *
 * Invariant: what it tells a shard are hints: the view of the leaves was current just before. Where one of the shards is not there any more it chooses
 * none: what that one computed for would be missing without a word.
 */
import { VECTOR_NEAR } from "../../../src/wire/message-types.ts";
import { nearMessage } from "./near-messages.ts";
import { type AskingStrategy, type RoutedQuery, wholeGraph } from "./vector-strategy.ts";

/** Leaves of a shard at whose medoids and landmarks its search begins. */
const ENTRY_LEAVES = 6;
/** Candidates that a follower is told. */
const MOST_KNOWN = 128;
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
    if (!plan.shards.every(({ shard }) => there.has(shard))) return [];
    const [first, ...others] = plan.shards;
    // Of which nothing is known, or who wants everything, searches as if it were alone.
    const followers = others.filter(({ share }) => share > 0).map(({ shard }) => shard);
    return first === undefined || followers.length === 0 ? plan.shards : [{ ...first, followers }, ...others];
  },
  directMessage({ shard, leaves: own, followers = [] }, { collectionId, leaves, wanted, ef, bytes }, lead) {
    const near = leaves.entriesOf(own, Math.min(ENTRY_LEAVES, own.length));
    const crossings = (lead?.crossings ?? []).flatMap((crossing) =>
      crossing.shard === shard ? [crossing.vertex] : [],
    );
    const request = {
      ...{ collectionId, wanted, ef, version: 0, leaves: [], code: bytes, recallPpm: 0, level: 0 },
      entries: [...crossings, ...near],
      known: lead?.candidates.slice(0, MOST_KNOWN) ?? [],
      others: followers,
    };
    return nearMessage(VECTOR_NEAR, request);
  },
};

/** What choosing shards, or leaves, is to reach, so that the search as a whole reaches a target. */
export function routingTarget(recallTarget: number): number {
  return 1 - (1 - recallTarget) * ROUTING_LOSS;
}
