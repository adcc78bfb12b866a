/**
 * The tick barrier as members see it: types only, so that handlers, clients and the machine behind it mean the same.
 *
 * Words: a *tick* (or round) is one pass through the barrier's named *phases*, in order. A *member* arrives once at every
 * phase of every tick that it belongs to; a phase is complete when all members have arrived, or as many as the quorum asks.
 * Invariant: the members of a tick are fixed when it begins. Who joins later belongs to the next one; who leaves or is lost
 * counts at once.
 */

/**
 * What a lost member does to the tick that runs. A member that leaves of its own accord always shrinks it.
 *
 * - `abort`: the tick fails for all, with the loss as its cause.
 * - `shrink`: the others go on without it.
 * - `quorum`: a phase is complete as soon as `quorum` members have arrived, whoever they are, so nobody waits for stragglers:
 *   who arrives later in the same tick goes straight on. The tick fails when fewer than `quorum` members are left.
 */
export type LossPolicy = "abort" | "shrink" | "quorum";

/** How a barrier works. All but `phases` have defaults. */
export interface BarrierOptions {
  /** Names of the phases, in order: 1 to 64, distinct, 1 to 64 characters each. */
  readonly phases: readonly string[];
  /** Members of the first tick. @default none: they join */
  readonly members?: readonly string[];
  /** Members without which no tick begins, `1..16384`. @default the number of `members`, at least 1 */
  readonly minMembers?: number;
  /** @default "abort" */
  readonly lossPolicy?: LossPolicy;
  /** Arrivals that complete a phase, `1..minMembers`; with the policy `quorum` only. */
  readonly quorum?: number;
  /**
   * Longest duration of a tick in ms, in `(0, 2^31)`, from its beginning; no arrival prolongs it. Under `shrink` the members
   * that have not arrived are lost then, and the others have as long again; otherwise, or when nobody has arrived, the tick
   * fails and its members stay. @default none
   */
  readonly deadlineMs?: number;
  /** The same for every single phase, from the completion of the one before. @default none */
  readonly phaseDeadlineMs?: number;
  /**
   * Who begins the next tick: the completion of the last phase, or a call of `advanceTick`. After a failed tick it is always
   * a call. @default "auto"
   */
  readonly advance?: "auto" | "manual";
  /** Number of the first tick, `0..2^53 - 1`. @default 0 */
  readonly startTick?: number;
}

/** A phase that is complete. */
export interface PhaseResult {
  readonly round: number;
  readonly phase: string;
  /** Members that had arrived, and that belonged to the tick, when the phase was complete. */
  readonly arrived: number;
  readonly members: number;
}

/** Limits of one wait. They end the wait, never the arrival: it counts, and arriving again waits again. */
export interface ArriveOptions {
  /** Tick of the arrival. @default the one that the member is in, as far as this thread knows */
  readonly round?: number;
  /** How long to wait, in ms, in `(0, 2^31)`. @default the barrier's `waitTimeoutMs` */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** Where a barrier stands. */
export interface BarrierState {
  readonly tick: number;
  /** `waiting`: for members, before the tick begins. `complete`: for `advanceTick`. */
  readonly status: "waiting" | "running" | "complete" | "failed";
  /** The phase that members arrive at, undefined when the tick is complete or failed. */
  readonly phase: string | undefined;
  /** Members that have arrived at it. */
  readonly arrived: number;
  /** Members of this tick; while it waits, those that would begin it. */
  readonly members: readonly string[];
  /** Members from the next tick on. */
  readonly joining: readonly string[];
  /** Members lost since the barrier was opened. */
  readonly lost: number;
}

/** Handle on a barrier, for one thread. Any number of its members may use it; their arrivals share messages. */
export interface TickBarrier {
  readonly name: string;
  readonly phases: readonly string[];
  /** The tick as this thread last heard of it; see {@link currentTick}. */
  readonly tick: number;
  /**
   * Says that a member has come to the end of a phase, and resolves when the phase is complete. May be called ahead: for the
   * next phase before this one is complete, up to the last phase of the next tick. Saying it twice is saying it once.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for an unknown member or phase, a phase out of order, a tick that is over or
   *   beyond the next one; `ERR_BARRIER` when the tick fails, with the reason as its cause; `ERR_TIMEOUT`, `ERR_ABORTED`.
   */
  arrive(member: string, phase: string, options?: ArriveOptions): Promise<PhaseResult>;
  /** Adds a member that arrives through this handle. Idempotent. @returns the first tick that it belongs to */
  join(member: string): Promise<number>;
  /** Takes a member out, at once. @returns whether it was one */
  leave(member: string): Promise<boolean>;
  /** Takes a member out as lost, under the barrier's loss policy. @returns whether it was one */
  lose(member: string, cause: unknown): Promise<boolean>;
  /** Fails the tick that runs, for all members: `ERR_BARRIER` with this cause and, when given, this member. */
  poison(cause: unknown, member?: string): Promise<void>;
  /**
   * Begins the tick after `from`, which must be complete or failed. Of several callers one does it; the others get the same answer.
   *
   * @param from @default the last tick that this handle saw end
   * @returns the tick that has begun, or waits for members
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when a phase is not complete, or at tick 2^53 - 1.
   */
  advanceTick(from?: number): Promise<number>;
  currentTick(): Promise<number>;
  state(): Promise<BarrierState>;
  /** Members of this handle leave. A barrier that nobody has open any more is gone. Idempotent. */
  close(): Promise<void>;
}

/** Options of opening a barrier from a thread. */
export interface OpenBarrierOptions extends BarrierOptions {
  /** How long members wait when they do not say, in ms, in `(0, 2^31)`. @default the cluster's `requestTimeoutMs` */
  readonly waitTimeoutMs?: number;
}

/** Opens a barrier by name; without options only one that exists. */
export type OpenBarrier = (name: string, options?: OpenBarrierOptions) => Promise<TickBarrier>;
