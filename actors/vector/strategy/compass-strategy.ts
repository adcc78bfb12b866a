/**
 * Compass: the shards whose leaves are near a query are asked, as many as the recall target needs, and each searches what it computes for. The one
 * of which most is expected is asked first; the others begin where its candidates' lists lead to them, and leave out what is farther than those.
 *
 * Invariant: what it tells a shard are hints: the view of the leaves was current just before. Where one of the shards is not there any more it chooses
 * none: what that one computed for would be missing without a word.
 */
import { VECTOR_NEAR } from "../../../src/wire/message-types.ts";
import { nearMessage } from "./near-messages.ts";
import { type AskingStrategy, type RoutedQuery, type SelectedShard, wholeGraph } from "./vector-strategy.ts";

/** Leaves of a shard at whose medoids and landmarks its search begins. */
const ENTRY_LEAVES = 6;
/** Candidates that a follower is told: at most so many, and such a part of those that it keeps, or it could not look beyond them. */
const MOST_KNOWN = 128;
const KNOWN_SHARE = 0.75;
/** Part of the allowed loss that choosing shards may take; the rest is for the searches in them. */
const ROUTING_LOSS = 0.5;

export const COMPASS: AskingStrategy<RoutedQuery> = {
  name: "compass",
  exposedRegion: wholeGraph,
  selectShards({ leaves, code, k, filter, selectivity, recallTarget, spent }, shards) {
    const target = routingTarget(recallTarget);
    const plan = leaves.router.selectShards(code, { k, recallTarget: target, selectivity });
    spent.distances += plan.computed;
    const there = new Set(shards.map(({ shard }) => shard));
    if (!plan.shards.every(({ shard }) => there.has(shard))) return [];
    // Now, as it is now that their numbers are those of the table that is looked at.
    const selected = plan.shards.map(({ shard, leaves: own }): SelectedShard => {
      return { shard, entries: leaves.entriesOf(own, Math.min(ENTRY_LEAVES, own.length)) };
    });
    const [first, ...others] = selected;
    // A shard of which nothing is known, or of which all is wanted, searches as if it were alone; so do all by a filter, which what was found may not pass.
    const followers = plan.shards.slice(1).flatMap(({ shard, share }) => (share > 0 ? [shard] : []));
    return first === undefined || followers.length === 0 || filter !== undefined
      ? selected
      : [{ ...first, followers }, ...others];
  },
  directMessage({ shard, entries, followers = [] }, { collectionId, wanted, ef, bytes }, lead) {
    const crossings = (lead?.crossings ?? []).flatMap((crossing) =>
      crossing.shard === shard ? [crossing.vertex] : [],
    );
    const request = {
      ...{ collectionId, wanted, ef, version: 0, leaves: [], code: bytes, recallPpm: 0, level: 0 },
      entries: [...crossings, ...entries],
      known: lead?.candidates.slice(0, Math.min(MOST_KNOWN, Math.floor(KNOWN_SHARE * ef))) ?? [],
      others: followers,
    };
    return nearMessage(VECTOR_NEAR, request);
  },
};

/** What choosing shards, or leaves, is to reach, so that the search as a whole reaches a target. */
export function routingTarget(recallTarget: number): number {
  return 1 - (1 - recallTarget) * ROUTING_LOSS;
}
