/**
 * What a shard's copies of other shards' vshards are kept with, and what of them a shard gives itself when it becomes their primary.
 *
 * Invariant: no behaviour.
 */
import type { ShardLog } from "../../src/store/log.ts";
import type { ReplicaTable } from "../../src/topology/replica-table.ts";
import type { TopologySource } from "../../src/topology/topology-source.ts";
import type { ReplicatedEngine } from "../engine.ts";

/** What copies are kept with. */
export interface CopiesOptions {
  readonly shard: number;
  /** Which worker of the shard this is, see `firstShardIncarnation`. */
  readonly incarnation: number;
  readonly topology: TopologySource;
  readonly table: ReplicaTable;
  readonly nowMs: () => number;
  readonly engines: readonly ReplicatedEngine[];
  /** The shard's log; undefined: nothing is kept on disk. */
  readonly log?: ShardLog | undefined;
  /** As in `PrimaryOptions`. */
  readonly loggedAt?: (vshard: number) => number;
  /** Whether a vshard's primary is on another node, which must not count on what this one has not got durably. @default none is */
  readonly isRemote?: (vshard: number) => boolean;
  /**
   * Whether copies here may have acknowledged what they have forgotten: the node has started anew, and its disk did not have to have it before.
   * @default they may not
   */
  readonly forgets?: boolean;
  /** Whether the rows are what the replica table says: nobody's who died in the middle of an entry. @default not */
  readonly isFresh?: boolean;
}

/** What a shard that becomes a vshard's primary has of it already. */
export interface OwnCopy {
  /** LSN that no row is behind, -1 when it may have nothing. */
  readonly lsn: number;
  /** Whether the rows are those of that LSN exactly. */
  readonly exact: boolean;
  /** See {@link CopyStatus.isUnsure}. */
  readonly isUnsure?: boolean;
  /** Another shard was heard that is the primary in a newer map: nothing is to be done here before that is known. */
  readonly isFenced?: boolean;
}
