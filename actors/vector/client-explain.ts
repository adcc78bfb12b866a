/**
 * Accounts of searches that go another way than by a plan of the coordinator: by this thread alone, by shards that a strategy chose, or by
 * shards that search together.
 *
 * Invariant: an account tells of the search as it was done; to ask for one changes nothing about that.
 */
import type { ShardOutcome } from "../../src/routing/gather.ts";
import { checkExplain } from "../explained-value.ts";
import type { Collaboration, Explanation, Reading } from "../planned-read.ts";
import type { SearchFallback } from "../search-fallback.ts";
import { type ShardAccount, sumsOf } from "../shard-account.ts";
import type { VectorCollectionParts } from "./client-collection.ts";
import type { ShardSearchOptions } from "./client-search.ts";
import type { StrategyName } from "./vector-options.ts";

/** How a search went. */
export interface SearchCourse {
  readonly by: StrategyName;
  /** Why it was not the strategy that was asked for. */
  readonly fallback?: SearchFallback | undefined;
  readonly startedMs: number;
  /** Hits. */
  readonly count: number;
  readonly stalenessMs: number;
  /** Shards that searched. @default none: this thread did, in their memory */
  readonly shards?: readonly number[];
  /** Whom this thread sent messages. @default nobody */
  readonly asked?: ShardAccount;
  /** The same, where each was asked for a part of the answer. */
  readonly outcomes?: readonly ShardOutcome[];
  readonly collaboration?: Collaboration;
  readonly reading?: Reading;
}

/** The account of a search that has been answered, when one is asked for. */
export function explainedSearch(
  { coordinator }: VectorCollectionParts,
  options: ShardSearchOptions,
  {
    by,
    fallback,
    startedMs,
    count,
    stalenessMs,
    shards = [],
    asked,
    outcomes: parts,
    collaboration,
    reading,
  }: SearchCourse,
): { readonly explain?: Explanation } {
  const { explain } = options;
  if (!checkExplain("search", explain)) return {};
  const { topologyEpoch, vshards } = coordinator.snapshot;
  const { consistency } = coordinator.rules(options);
  const totalUs = (coordinator.nowMs() - startedMs) * 1000;
  const outcomes =
    parts ??
    (asked?.outcomes() ?? []).map(
      ({ shard, attempts, queueUs, serviceUs, bytes }): ShardOutcome => ({
        ...{ shard, servedBy: [shard], status: count === 0 ? "empty" : "answered", count, vshards },
        ...{ vshardsAnswered: vshards, attempts, hedges: 0, queueUs, serviceUs, latencyUs: totalUs, bytes },
      }),
    );
  const { attempts, bytes } = sumsOf(outcomes);
  const targets = shards.map((shard) => ({ shard, vshards: [], whole: true }));
  const account: Explanation = {
    plan: { kind: "scatter", topologyEpoch, strategy: by, consistency, targets, unavailable: [] },
    ...(fallback === undefined ? {} : { fallback }),
    planUs: 0,
    totalUs,
    stalenessMs,
    outcomes,
    attempts,
    hedges: 0,
    bytes: bytes + (collaboration?.bytes ?? 0) + (reading?.bytes ?? 0),
    ...(collaboration === undefined ? {} : { collaboration }),
    ...(reading === undefined ? {} : { reading }),
  };
  if (typeof explain === "function") explain(account);
  return { explain: account };
}
