/**
 * The public entry point of `shardloom`, and its only barrel.
 */

export { type DriveOptions, drive, type TickReport } from "../actors/barrier/drive.ts";
export type { CallOptions, PlainReadOptions, ReadOptions, WriteOptions } from "../actors/call-options.ts";
export type { ExplainedPlan, Explanation } from "../actors/planned-read.ts";
export type { RouterStats, ShardLoad } from "../actors/router-stats.ts";
export type {
  StoredText,
  TextCollection,
  TextDocument,
  TextExplanation,
  TextGetOptions,
  TextHit,
  TextSearchOptions,
  TextSearchResult,
  TextUpsertOptions,
} from "../actors/text/client-collection.ts";
export type { TextCollectionOptions } from "../actors/text/text-options.ts";
export type { TextShardStatus } from "../actors/text/text-replies.ts";
export type {
  GetOptions,
  LoadProgress,
  SearchOptions,
  SearchResult,
  StoredDocument,
  UpsertOptions,
  VectorCollection,
  VectorDocument,
  VectorHit,
  VectorRead,
} from "../actors/vector/client-collection.ts";
export type { VectorCollectionOptions } from "../actors/vector/vector-options.ts";
export { Arena, type ArenaOptions, createArena } from "../native-bridge/arena.ts";
export { ACCESS, type RegionRef } from "../native-bridge/region-layout.ts";
export { RegionTable } from "../native-bridge/region-table.ts";
export { type Completion, STATUS, statusName, Verbs, type WorkRequest } from "../native-bridge/verbs.ts";
export type { ActorRef, AskOptions } from "./actor/actor-ref.ts";
export type { ActorContext } from "./actor/context.ts";
export { type ActorDefinition, type ActorSpec, defineActor } from "./actor/define-actor.ts";
export type {
  ArriveOptions,
  BarrierState,
  LossPolicy,
  OpenBarrierOptions,
  PhaseResult,
  TickBarrier,
} from "./actor/tick-barrier.ts";
export type { AdmissionLimits } from "./client-thread.ts";
export { type CloseOptions, Cluster, type ClusterEvents, type ClusterInfo } from "./cluster.ts";
export { ClusterClient, type ClusterPort, connect } from "./cluster-client.ts";
export type { ClusterOptions } from "./cluster-options.ts";
export type { ClusterHealth, ClusterStats } from "./cluster-stats.ts";
export { ERROR_CODES, type ErrorCode, ShardloomError } from "./errors.ts";
export {
  type HybridHit,
  type HybridQuery,
  type HybridSearchOptions,
  type HybridSearchResult,
  hybridSearch,
} from "./hybrid-search.ts";
export type { PlacementChange } from "./plane/node-topology.ts";
export type { AdmissionStats } from "./routing/admission.ts";
export type { Acks } from "./routing/call-defaults.ts";
export { type FusedHit, type FusionSource, fuseByRank, fuseByScore } from "./routing/fusion.ts";
export type { Completeness, GatherPolicy, OutcomeStatus, ShardOutcome } from "./routing/gather.ts";
export type { Consistency, Strategy, UnavailablePolicy } from "./routing/plan.ts";
export type { Metadata } from "./store/metadata-codec.ts";
export { HashRing, type RingMember } from "./topology/hash-ring.ts";
export type { Member, NodeMember, ShardMember } from "./topology/member.ts";
export type { MemberChange } from "./topology/membership.ts";
export type { PlacementMember, PlacementMove, PlacementPlan } from "./topology/placement.ts";
export { Session } from "./topology/session.ts";
export { MEMBER_STATE, type MemberStateName, type ReplicaGroup, type TopologySnapshot } from "./topology/snapshot.ts";
export type { Priority } from "./wire/envelope-layout.ts";
