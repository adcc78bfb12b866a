/**
 * The public entry point of `shardloom`, and its only barrel.
 */

export { type DriveOptions, drive, type TickReport } from "../actors/barrier/drive.ts";
export type { CallOptions, PlainReadOptions, ReadOptions, WriteOptions } from "../actors/call-options.ts";
export type { ExplainedValue, Explaining } from "../actors/explained-value.ts";
export type {
  DecayOptions,
  DecayResult,
  DecayRule,
  TickDecay,
  TickDecayOptions,
} from "../actors/graph/client-decay.ts";
export type { Explained, ExplainOption, NeighbourOptions, PlainGraphOptions } from "../actors/graph/client-explain.ts";
export type { VertexHolder } from "../actors/graph/client-ghosts.ts";
export type { Graph, GraphShardStatus } from "../actors/graph/client-graph.ts";
export type {
  GraphBatch,
  GraphEdge,
  GraphEdgeColumns,
  GraphEdges,
  GraphLoadOptions,
  GraphLoadProgress,
} from "../actors/graph/client-load.ts";
export type { VertexNeighbours } from "../actors/graph/client-neighbours.ts";
export type { VertexPropertyValues } from "../actors/graph/client-properties.ts";
export type { EdgeReservation, ReserveEdgesOptions } from "../actors/graph/client-reservation.ts";
export type { GraphResult, VertexValue } from "../actors/graph/client-run.ts";
export type { CountTrianglesOptions, TraversalLimits, VertexStream } from "../actors/graph/client-traversal.ts";
export type { EdgeBatch, VertexBatch } from "../actors/graph/formats/graph-batch.ts";
export type { GhostStatus } from "../actors/graph/ghosts/shard-ghosts.ts";
export type { ExplainGraph, GraphExplanation, GraphOutcome } from "../actors/graph/graph-account.ts";
export type { MovedGraph } from "../actors/graph/graph-move.ts";
export type { GhostOptions, GraphOptions, PropertyKind } from "../actors/graph/graph-options.ts";
export type {
  ExplainRun,
  RunExplanation,
  ShardSuperstep,
  SuperstepExplanation,
} from "../actors/graph/run-account.ts";
export type { RunOptions, RunProgress } from "../actors/graph/run-options.ts";
export type { CommunityOptions, PageRankOptions, SourceOptions } from "../actors/graph/run-plans.ts";
export type { KHopOptions, KHopResult } from "../actors/graph/traversal/k-hop.ts";
export type { Motif, MotifEdge } from "../actors/graph/traversal/motif-pattern.ts";
export type { MotifMatch, MotifOptions, MotifResult } from "../actors/graph/traversal/motif-search.ts";
export type { ShortestPath, ShortestPathOptions } from "../actors/graph/traversal/shortest-path.ts";
export type { TriangleCount } from "../actors/graph/traversal/triangle-count.ts";
export type { NumberRange, VertexConditions } from "../actors/graph/traversal/vertex-conditions.ts";
export type { VertexKey } from "../actors/graph/vertex-key.ts";
export {
  defineVertexProgram,
  type ProgramState,
  type ProgramSums,
  type ProgramValue,
  type VertexContext,
  type VertexProgram,
} from "../actors/graph/vertex-program.ts";
export type { PropertyColumns, PropertyValue } from "../actors/graph/vertex-properties.ts";
export type { Collaboration, ExplainedPlan, Explanation, Reading, ShardWay } from "../actors/planned-read.ts";
export type { RouterStats, ShardLoad } from "../actors/router-stats.ts";
export type { SearchFallback } from "../actors/search-fallback.ts";
export type { AskedShard } from "../actors/shard-account.ts";
export type { ReadWay, ShardRead, ShardReader, ShardReads } from "../actors/shard-reader.ts";
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
export type { BatchSearchOptions, BatchSearchResult, BatchStats } from "../actors/vector/client-batch.ts";
export type {
  CountOptions,
  GetOptions,
  IndexedOptions,
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
export type {
  DirectMessage,
  SelectedShard,
  ShardDescriptor,
  SharedMemory,
  StrategyQuery,
  VectorStrategy,
} from "../actors/vector/strategy/vector-strategy.ts";
export type { MemoryDocument, VectorMemory } from "../actors/vector/vector-memory.ts";
export type { IndexName, StrategyName, VectorCollectionOptions } from "../actors/vector/vector-options.ts";
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
export { Cluster } from "./cluster.ts";
export {
  type AuditedCopy,
  type AuditedVshard,
  type AuditOptions,
  type AuditReport,
  type CopyVerdict,
  mergeAudits,
} from "./cluster-audit.ts";
export type { BackupOptions, BackupProgress, BackupReport } from "./cluster-backup.ts";
export { ClusterClient, connect } from "./cluster-client.ts";
export type { RemovalReport, RemoveOptions } from "./cluster-members.ts";
export type { NatsStorage } from "./cluster-nats-options.ts";
export type { NodeRemovalReport, RemoveNodeOptions } from "./cluster-node-removal.ts";
export type { ClusterOptions } from "./cluster-options.ts";
export type { ClusterPort } from "./cluster-ports.ts";
export type { RestoreOptions, RestoreReport } from "./cluster-restore.ts";
export type { ClusterHealth, ClusterStats } from "./cluster-stats.ts";
export type { CloseOptions, ClusterEvents, ClusterInfo } from "./cluster-types.ts";
export type { NodeAddress, NodeOptions } from "./cluster-wire.ts";
export { ERROR_CODES, type ErrorCode, ShardloomError } from "./errors.ts";
export {
  type GraphFile,
  type GraphFileProgress,
  type LoadGraphFileOptions,
  loadGraphFile,
  type OpenGraphOptions,
  openGraphFile,
} from "./files/graph-file.ts";
export {
  type HybridExplanation,
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
export type { ServerWaiting } from "./runtime/patience.ts";
export type { GraphVertex } from "./store/graph-vertex.ts";
export type { Metadata } from "./store/metadata-codec.ts";
export { HashRing, type RingMember } from "./topology/hash-ring.ts";
export type { Member, NodeMember, ShardMember } from "./topology/member.ts";
export type { MemberChange } from "./topology/membership.ts";
export type { PlacementMember, PlacementMove, PlacementPlan } from "./topology/placement.ts";
export { Session } from "./topology/session.ts";
export { MEMBER_STATE, type MemberStateName, type ReplicaGroup, type TopologySnapshot } from "./topology/snapshot.ts";
export type { Priority } from "./wire/envelope-layout.ts";
