/**
 * The reasons for which a search went another way than it was asked to.
 *
 * Invariant: a search that another strategy answered names one of them, in its result and in its plan.
 */

/**
 * Why another strategy answered: the search has a `filter` that only the shards can apply, or is `exact`; it must not miss
 * what other copies know (`consistency`), or other nodes have a part of it (`nodes`; with both each shard searches its node's graph); the query has no code (`query`: with u8, one that is no bytes); the memory of a shard cannot be
 * read now, or there is none left to search in (`memory`); the graph leads to fewer documents than were wanted although there are more (`reach`); the leaves are not known yet, or vertices
 * are on their way to them (`training`), or there are none, by inner product (`metric`) and of codes other than f32 and u8
 * (`code`); a shard that was asked did not answer (`shard`), or knew leaves of another version (`version`); messages would be too long (`size`: for more
 * than 4096 candidates, or than a ring of the cluster has room for). And of searches that shards do together: one was `lost` meanwhile, had no time
 * (`late`) or too much to do (`overloaded`).
 */
export type SearchFallback =
  | "filter"
  | "exact"
  | "consistency"
  | "nodes"
  | "query"
  | "memory"
  | "reach"
  | "training"
  | "metric"
  | "code"
  | "shard"
  | "version"
  | "lost"
  | "late"
  | "overloaded"
  | "size";
