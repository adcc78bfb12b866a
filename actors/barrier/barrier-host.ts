/**
 * The barriers that live on one thread, and who waits at them.
 *
 * A *session* is one thread's use of one barrier. It answers for the members that arrived or joined through it last: when the
 * thread is lost (`loseOrigin`), they are lost. A barrier whose last session ends is gone.
 *
 * Invariant: every wait given to `wait` ends exactly once, released or failed. Waits of the next tick survive the failure of
 * this one. Waits are told when the barrier's state is already the new one.
 */
import type { BarrierState } from "../../src/actor/tick-barrier.ts";
import { ShardloomError } from "../../src/errors.ts";
import { Barrier } from "../../src/routing/barrier.ts";
import type { BarrierMember } from "../../src/routing/barrier-member.ts";
import { assertSameBarrier, type ResolvedBarrierOptions } from "../../src/routing/barrier-options.ts";
import type { Clock } from "../../src/runtime/clock.ts";
import type { Scheduler } from "../../src/runtime/scheduler.ts";

/** Most barriers of one shard. */
export const MAX_BARRIERS = 4096;
/** Waits at one phase among which those that were given up are looked for. */
const PRUNE_WAITS = 256;

/** Somebody who waits for a phase. */
export interface BarrierWait {
  released(tick: number, phase: number, arrived: number, members: number): void;
  failed(error: ShardloomError): void;
  /** Whether nobody wants to know any more. */
  readonly abandoned: boolean;
}

/** What opening a barrier gives. */
export interface OpenedBarrier {
  readonly barrier: number;
  readonly session: number;
  readonly options: ResolvedBarrierOptions;
  readonly tick: number;
  /** Members by name: their numbers. */
  readonly members: readonly (readonly [name: string, id: number])[];
}

/** A member's number, and the first tick that it belongs to. */
export interface JoinedMember {
  readonly id: number;
  readonly tick: number;
}

/** The state of a barrier, with the numbers of its members. */
export interface NumberedState extends BarrierState {
  readonly ids: readonly (readonly [name: string, id: number])[];
}

/** What a host works with. */
export interface BarrierHostOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  /** Number of the first barrier: random, so that a successor does not answer for what its predecessor had. */
  readonly firstId: number;
}

interface Session {
  readonly id: number;
  readonly origin: string;
}

/** One barrier with its sessions and waits. */
class HostedBarrier {
  readonly id: number;
  readonly barrier: Barrier;
  readonly sessions: Map<number, Session> = new Map();
  /** Waits, and how the last phase ended, by slot: two ticks are open at most, an even and an odd one. */
  readonly #waits: BarrierWait[][];
  readonly #arrived: Int32Array;
  readonly #members: Int32Array;
  readonly #phases: number;
  readonly #scratch: (BarrierMember | undefined)[] = [];

  constructor(id: number, name: string, options: ResolvedBarrierOptions, clock: Clock, scheduler: Scheduler) {
    this.id = id;
    this.#phases = options.phases.length;
    this.#waits = Array.from({ length: 2 * this.#phases }, () => []);
    this.#arrived = new Int32Array(2 * this.#phases);
    this.#members = new Int32Array(2 * this.#phases);
    this.barrier = new Barrier({
      name,
      options,
      clock,
      scheduler,
      listener: {
        onPhase: (tick, phase, arrived, members) => this.#release(tick, phase, arrived, members),
        onFailed: (tick, error) => this.#failTick(tick, error),
      },
    });
  }

  arrive(session: Session, tick: number, phase: number, ids: ArrayLike<number>, from: number, count: number): boolean {
    const { barrier } = this;
    const members = this.#scratch;
    members.length = count;
    for (let at = 0; at < count; at++) members[at] = barrier.memberById(ids[from + at] as number);
    const complete = barrier.arrive(members, tick, phase);
    for (let at = 0; at < count; at++) (members[at] as BarrierMember).owner = session; // whoever was refused has not arrived
    return complete;
  }

  wait(tick: number, phase: number, wait: BarrierWait): void {
    const slot = this.#slot(tick, phase);
    let waits = this.#waits[slot] as BarrierWait[];
    if (waits.length >= PRUNE_WAITS && (waits.length & (waits.length - 1)) === 0) {
      waits = waits.filter(({ abandoned }) => !abandoned);
      this.#waits[slot] = waits;
    }
    waits.push(wait);
  }

  arrived(tick: number, phase: number): number {
    return this.#arrived[this.#slot(tick, phase)] as number;
  }

  members(tick: number, phase: number): number {
    return this.#members[this.#slot(tick, phase)] as number;
  }

  ids(): [string, number][] {
    return Array.from(this.barrier.members(), ({ name, id }): [string, number] => [name, id]);
  }

  close(error: ShardloomError): void {
    this.barrier.close();
    for (const slot of this.#waits.keys()) this.#failSlot(slot, error);
  }

  #slot(tick: number, phase: number): number {
    return (tick % 2) * this.#phases + phase;
  }

  #release(tick: number, phase: number, arrived: number, members: number): void {
    const slot = this.#slot(tick, phase);
    this.#arrived[slot] = arrived;
    this.#members[slot] = members;
    const waits = this.#waits[slot] as BarrierWait[];
    if (waits.length === 0) return;
    this.#waits[slot] = [];
    for (const wait of waits) wait.released(tick, phase, arrived, members);
  }

  #failTick(tick: number, error: ShardloomError): void {
    const from = this.#slot(tick, 0);
    for (let slot = from; slot < from + this.#phases; slot++) this.#failSlot(slot, error);
  }

  #failSlot(slot: number, error: ShardloomError): void {
    const waits = this.#waits[slot] as BarrierWait[];
    this.#waits[slot] = [];
    for (const wait of waits) wait.failed(error);
  }
}

/** All barriers of one thread. */
export class BarrierHost {
  readonly #options: BarrierHostOptions;
  readonly #byName: Map<string, HostedBarrier> = new Map();
  readonly #byId: Map<number, HostedBarrier> = new Map();
  #nextBarrier: number;
  #nextSession = 1;

  constructor(options: BarrierHostOptions) {
    this.#options = options;
    this.#nextBarrier = options.firstId & 0x3fffffff;
  }

  /**
   * Opens a session, and the barrier when it is new.
   *
   * @param origin The thread that opens it, as `loseOrigin` will name it.
   * @throws {ShardloomError} `ERR_BARRIER` without options for a new name, `ERR_INVALID_ARGUMENT` when it is open with others,
   *   `ERR_OVERLOADED` at 4096 barriers.
   */
  open(name: string, options: ResolvedBarrierOptions | undefined, origin: string): OpenedBarrier {
    let hosted = this.#byName.get(name);
    if (hosted === undefined) {
      if (options === undefined) throw notOpen(name);
      hosted = this.#create(name, options);
    } else if (options !== undefined) assertSameBarrier(name, hosted.barrier.options, options);
    const session: Session = { id: this.#nextSession++, origin };
    hosted.sessions.set(session.id, session);
    return {
      barrier: hosted.id,
      session: session.id,
      options: hosted.barrier.options,
      tick: hosted.barrier.currentTick,
      members: hosted.ids(),
    };
  }

  /** Ends a session: its members leave, or with the last session the barrier goes. @returns whether it was open */
  close(barrier: number, session: number): boolean {
    const hosted = this.#byId.get(barrier);
    const ending = hosted?.sessions.get(session);
    if (hosted === undefined || ending === undefined) return false;
    hosted.sessions.delete(session);
    if (hosted.sessions.size === 0) this.#drop(hosted);
    else for (const { name, owner } of [...hosted.barrier.members()]) if (owner === ending) hosted.barrier.leave(name);
    return true;
  }

  join(barrier: number, session: number, name: string): JoinedMember {
    const hosted = this.#find(barrier);
    const owner = this.#session(hosted, session);
    const member = hosted.barrier.join(name);
    member.owner = owner;
    return { id: member.id, tick: hosted.barrier.firstTickOf(member) };
  }

  leave(barrier: number, name: string): boolean {
    return this.#find(barrier).barrier.leave(name);
  }

  lose(barrier: number, name: string, cause: unknown): boolean {
    return this.#find(barrier).barrier.lose(name, cause);
  }

  /**
   * Arrivals of several members of one session, at one phase: `ids[from, from + count)`.
   *
   * @returns whether the phase is complete; else `wait` is to follow for whoever wants to know
   */
  arrive(
    barrier: number,
    session: number,
    tick: number,
    phase: number,
    ids: ArrayLike<number>,
    from: number,
    count: number,
  ): boolean {
    const hosted = this.#find(barrier);
    return hosted.arrive(this.#session(hosted, session), tick, phase, ids, from, count);
  }

  /** Ends with the phase, which must not be complete. */
  wait(barrier: number, tick: number, phase: number, wait: BarrierWait): void {
    this.#find(barrier).wait(tick, phase, wait);
  }

  /** How many had arrived when a phase became complete. */
  arrivedAt(barrier: number, tick: number, phase: number): number {
    return this.#find(barrier).arrived(tick, phase);
  }

  /** How many belonged to the tick when a phase became complete. */
  membersAt(barrier: number, tick: number, phase: number): number {
    return this.#find(barrier).members(tick, phase);
  }

  advance(barrier: number, from: number): number {
    return this.#find(barrier).barrier.advance(from);
  }

  poison(barrier: number, cause: unknown, member: string | undefined): void {
    this.#find(barrier).barrier.poison(cause, member);
  }

  state(barrier: number): NumberedState {
    const hosted = this.#find(barrier);
    return { ...hosted.barrier.state(), ids: hosted.ids() };
  }

  /** A thread is gone: its members are lost, one by one under each barrier's policy, and its sessions end. */
  loseOrigin(gone: (origin: string) => boolean, cause: unknown): void {
    for (const hosted of this.#byId.values()) {
      const { barrier, sessions } = hosted;
      const lost = new Set([...sessions.values()].filter(({ origin }) => gone(origin)));
      if (lost.size === 0) continue;
      for (const { name, owner } of [...barrier.members()]) if (lost.has(owner as Session)) barrier.lose(name, cause);
      for (const { id } of lost) this.close(hosted.id, id);
    }
  }

  /** Ends some barriers; who waits gets the error of that name. */
  closeWhere(isOver: (name: string) => boolean, errorOf: (name: string) => ShardloomError): void {
    for (const [name, hosted] of [...this.#byName]) if (isOver(name)) this.#drop(hosted, errorOf(name));
  }

  /** Ends every barrier; who waits gets `error`. */
  closeAll(error: ShardloomError): void {
    for (const hosted of this.#byId.values()) hosted.close(error);
    this.#byId.clear();
    this.#byName.clear();
  }

  #create(name: string, options: ResolvedBarrierOptions): HostedBarrier {
    if (this.#byId.size >= MAX_BARRIERS) {
      throw new ShardloomError(
        "ERR_OVERLOADED",
        `Cannot open barrier as a shard must host at most ${MAX_BARRIERS}: current value is ${this.#byId.size}`,
        { details: { limit: MAX_BARRIERS } },
      );
    }
    const { clock, scheduler } = this.#options;
    const hosted = new HostedBarrier(this.#nextBarrier, name, options, clock, scheduler);
    this.#nextBarrier = (this.#nextBarrier + 1) & 0x3fffffff;
    this.#byId.set(hosted.id, hosted);
    this.#byName.set(name, hosted);
    return hosted;
  }

  #drop(hosted: HostedBarrier, error: ShardloomError = closedBarrier(hosted.barrier.name)): void {
    this.#byId.delete(hosted.id);
    this.#byName.delete(hosted.barrier.name);
    hosted.close(error);
  }

  #find(barrier: number): HostedBarrier {
    const hosted = this.#byId.get(barrier);
    if (hosted === undefined) throw notOpen(barrier);
    return hosted;
  }

  #session(hosted: HostedBarrier, session: number): Session {
    const found = hosted.sessions.get(session);
    if (found === undefined) throw notOpen(hosted.barrier.name);
    return found;
  }
}

function closedBarrier(name: string): ShardloomError {
  return new ShardloomError("ERR_CLOSED", `Cannot wait at barrier ${JSON.stringify(name)} as it is closed`, {
    details: { barrier: name },
  });
}

function notOpen(barrier: string | number): ShardloomError {
  return new ShardloomError(
    "ERR_BARRIER",
    `Cannot use barrier as it must be open on this shard: current value is ${JSON.stringify(barrier)}`,
    { details: { barrier, reason: "not-open" } },
  );
}
