/**
 * `shardloom/sim`: simulated clusters in one thread, under virtual time, full of faults, decided by a seed.
 */

export type { Random } from "./runtime/random.ts";
export { counter } from "./sim/counter-model.ts";
export type { LinearizabilityViolation } from "./sim/counterexample.ts";
export { createWorld, type World } from "./sim/create-world.ts";
export { type EmitTestOptions, emitTest } from "./sim/emit-test.ts";
export {
  type ExploredProgram,
  type ExploreOptions,
  type ExploreResult,
  explore,
  replaySchedule,
  type ThreadHandle,
} from "./sim/explorer/explore.ts";
export type {
  DrawnFault,
  Fault,
  FaultKind,
  FaultRates,
  FaultsOption,
  TimedFault,
} from "./sim/fault-types.ts";
export { History, parseHistory } from "./sim/history.ts";
export {
  acknowledgedWritesSurvive,
  sessionsAreMonotonic,
  stalenessIsBounded,
  type VersionOf,
  type WriteOf,
} from "./sim/history-invariants.ts";
export type { Call, HistoryEntry, HistoryType, Violation } from "./sim/history-types.ts";
export {
  type GatherRecord,
  gathersTellWhatIsMissing,
  type MapView,
  type MessageCounts,
  messagesAreConserved,
  onePrimaryActs,
  onePrimaryPerEpoch,
  type PrimaryDeed,
} from "./sim/invariants.ts";
export {
  type LinearizabilityOptions,
  type LinearizabilityResult,
  linearizable,
} from "./sim/linearizability.ts";
export {
  checkListAppend,
  type ListAppendOptions,
  type ListAppendResult,
  type ListAppendViolation,
} from "./sim/list-append.ts";
export { defineModel, type Model, type SequentialSpec } from "./sim/model.ts";
export { keyValue, register } from "./sim/register-model.ts";
export { repeatCommand } from "./sim/repeat-command.ts";
export { createWorldRunner, type RunWorld, type WorldRunner } from "./sim/run-world.ts";
export {
  type RunScenario,
  type Scenario,
  type ShrinkOptions,
  type ShrinkProgress,
  type ShrinkResult,
  shrink,
} from "./sim/shrink.ts";
export { type ShrinkRunOptions, type ShrunkRun, shrinkRun } from "./sim/shrink-run.ts";
export { timelineHtml } from "./sim/timeline.ts";
export { type RegisterTest, type SimulateOptions, simulate } from "./sim/vitest.ts";
export type { Operation, OperationContext, Workload, WorkloadRef, WorldView } from "./sim/workload-types.ts";
export { type ActorWorkloadOptions, actorWorkload } from "./sim/workloads/actor-workload.ts";
export { type BarrierWorkloadOptions, barrierWorkload } from "./sim/workloads/barrier-workload.ts";
export { type GraphWorkloadOptions, graphWorkload } from "./sim/workloads/graph-workload.ts";
export { type ListAppendWorkloadOptions, listAppendWorkload } from "./sim/workloads/list-append-workload.ts";
export { type LogWorkloadOptions, logWorkload } from "./sim/workloads/log-workload.ts";
export { type NatsWorkloadOptions, natsWorkload } from "./sim/workloads/nats-workload.ts";
export { type RegisterOptions, registerWorkload } from "./sim/workloads/register-workload.ts";
export { type SearchWorkloadOptions, searchWorkload } from "./sim/workloads/search-workload.ts";
export type {
  Escape,
  NodeStats,
  ReplayPlan,
  ResolvedWorldOptions,
  RunOptions,
  RunProgress,
  RunResult,
  TraceEvent,
  WorldOptions,
} from "./sim/world-types.ts";
