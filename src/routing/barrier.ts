/**
 * The tick barrier as a state machine: phases, members, arrivals; no I/O, no promises, no threads.
 *
 * Invariants: a member's arrivals form one gapless run of positions (tick × phases + phase), at most to the end of the next
 * tick; `counts[slot]` is the number of present members that have arrived at that position, so an arrival costs O(1) and
 * looks at nobody else. A departure takes the member's own arrivals back before anything is compared: a phase is complete by
 * who is there, never by a sum that somebody has left behind. Counts of the next tick are kept in slots of their own and never
 * erased. Deadlines are absolute: set when a tick or phase begins, touched by no arrival.
 * Every change ends in `#settle`, so whatever makes a phase complete (arrival, departure, begin) tells so at once.
 *
 * Source: phago's barrier, whose defects are listed in the tests; Gupta, "The fuzzy barrier", ASPLOS 1989, for arrivals ahead.
 * Divergence: membership, not counts; a failed tick stays until `advance` passes it.
 */
import type { BarrierState } from "../actor/tick-barrier.ts";
import { ShardloomError } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import { BarrierClock } from "./barrier-clock.ts";
import { type Failure, type RefusalReason, refusal, tickFailed, tooManyMembers } from "./barrier-errors.ts";
import { type BarrierMember, Member } from "./barrier-member.ts";
import { MAX_MEMBERS, MAX_TICK, type ResolvedBarrierOptions, requireMemberName } from "./barrier-options.ts";

/** What a barrier tells, synchronously, when its own state is already the new one; it may be called back from there. */
export interface BarrierListener {
  /** A phase is complete; told once per phase, in order. */
  onPhase(tick: number, phase: number, arrived: number, members: number): void;
  /** A tick has failed: nobody waits for it any more. */
  onFailed(tick: number, error: ShardloomError): void;
  /** A member was removed as lost. */
  onLost?(member: BarrierMember, cause: unknown): void;
}

/** What a barrier is made of. */
export interface BarrierParts {
  readonly name: string;
  readonly options: ResolvedBarrierOptions;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly listener: BarrierListener;
}

type Status = BarrierState["status"];

/** Members that an error names; there may be thousands. */
const NAMED_LIMIT = 16;

/** One barrier. */
export class Barrier {
  readonly name: string;
  readonly options: ResolvedBarrierOptions;
  readonly #parts: BarrierParts;
  readonly #phases: number;
  readonly #byName: Map<string, Member> = new Map();
  readonly #byId: Map<number, Member> = new Map();
  /** Arrivals by position, of this tick and the next: `#half` is where this tick's begin. */
  readonly #counts: Int32Array;
  #half = 0;
  #status: Status = "waiting";
  #tick: number;
  /** The phase that is not complete; their number when all are, or when the tick has failed. */
  #phase = 0;
  /** Position of this tick's first phase. */
  #base = 0;
  /** Members of this tick, and of those from the next one on. */
  #size = 0;
  #joining = 0;
  #lost = 0;
  #nextId = 1;
  #failure: ShardloomError | undefined;
  #failedTick = -1;
  readonly #clock: BarrierClock;

  constructor(parts: BarrierParts) {
    const { name, options } = parts;
    this.name = name;
    this.options = options;
    this.#parts = parts;
    this.#phases = options.phases.length;
    this.#counts = new Int32Array(2 * this.#phases);
    this.#tick = options.startTick;
    this.#clock = new BarrierClock({
      clock: parts.clock,
      scheduler: parts.scheduler,
      tickMs: options.deadlineMs,
      phaseMs: options.phaseDeadlineMs,
      onRing: (nowMs) => this.expire(nowMs),
    });
    for (const member of options.members) this.#add(member); // all of them, before any of them can begin
    this.#settle();
  }

  /** The tick that runs, or is about to, or has ended and was not yet passed. */
  get currentTick(): number {
    return this.#tick;
  }

  member(name: string): BarrierMember | undefined {
    return this.#byName.get(name);
  }

  memberById(id: number): BarrierMember | undefined {
    return this.#byId.get(id);
  }

  members(): Iterable<BarrierMember> {
    return this.#byName.values();
  }

  /** The first tick that a member belongs to, not before the current one. */
  firstTickOf(member: BarrierMember): number {
    return (member as Member).first > this.#base ? this.#tick + 1 : this.#tick;
  }

  /** Cost: O(members); for people and tests. */
  state(): BarrierState {
    const members: string[] = [];
    const joining: string[] = [];
    for (const { name, first } of this.#byName.values()) (first > this.#base ? joining : members).push(name);
    const open = this.#phase < this.#phases;
    return {
      tick: this.#tick,
      status: this.#status,
      phase: open ? this.options.phases[this.#phase] : undefined,
      arrived: open ? (this.#counts[this.#half + this.#phase] as number) : 0,
      members,
      joining,
      lost: this.#lost,
    };
  }

  /**
   * Adds a member, from the current tick on when that has not begun, else from the next. One that is there stays as it is.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` (name; no next tick), `ERR_OVERLOADED` at 16384 members.
   */
  join(name: string): BarrierMember {
    requireMemberName("join barrier", name);
    const present = this.#byName.get(name);
    if (present !== undefined) return present;
    const member = this.#add(name);
    this.#settle();
    return member;
  }

  #add(name: string): Member {
    const { size } = this.#byName;
    if (size >= MAX_MEMBERS) throw tooManyMembers(this.name, MAX_MEMBERS, size);
    const now = this.#status === "waiting";
    if (!now && this.#tick === MAX_TICK) throw this.#overflow("join");
    const member = new Member(name, this.#nextId++, now ? this.#base : this.#base + this.#phases);
    this.#byName.set(name, member);
    this.#byId.set(member.id, member);
    if (now) this.#size++;
    else this.#joining++;
    return member;
  }

  /**
   * Notes that members have come to the end of a phase, all of them or none. A repeated arrival changes nothing.
   *
   * Cost: O(members given).
   *
   * @returns whether the phase is complete; else `onPhase` or `onFailed` will tell of it.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` with `details.reason`, or the `ERR_BARRIER` of a failed tick.
   */
  arrive(members: readonly (BarrierMember | undefined)[], tick: number, phase: number): boolean {
    const base = this.#positionOf(tick);
    if (!(phase >= 0 && phase < this.#phases && Number.isInteger(phase))) throw this.#unknownPhase(phase);
    const position = base + phase;
    const floor = this.#base + this.#phase;
    for (let at = 0; at < members.length; at++) this.#check(members[at] as Member, tick, phase, position, floor);
    let fresh = 0;
    for (let at = 0; at < members.length; at++) {
      const member = members[at] as Member;
      if (position < member.next) continue;
      member.next = position + 1;
      fresh++;
    }
    if (position < floor) return true; // late, which only a quorum admits
    const slot = this.#slot(position);
    this.#counts[slot] = (this.#counts[slot] as number) + fresh;
    if (position === floor) this.#settle();
    return position < this.#base + this.#phase;
  }

  /** Takes a member out, at once. @returns whether it was one */
  leave(name: string): boolean {
    const member = this.#byName.get(name);
    if (member === undefined) return false;
    const counted = this.#remove(member);
    if (counted) this.#checkQuorum(member, undefined);
    this.#settle();
    return true;
  }

  /** Takes a member out as lost: the policy says what becomes of the tick. @returns whether it was one */
  lose(name: string, cause: unknown): boolean {
    const member = this.#byName.get(name);
    if (member === undefined) return false;
    const counted = this.#remove(member);
    this.#lost++;
    if (counted && this.options.lossPolicy === "abort") this.#fail({ reason: "lost", member: name, cause });
    else if (counted) this.#checkQuorum(member, cause);
    this.#parts.listener.onLost?.(member, cause);
    this.#settle();
    return true;
  }

  /**
   * Fails the current tick for all its members. One that has failed keeps its first cause.
   *
   * @param tick The tick that is meant. @default the current one
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when that tick is not the current one.
   */
  poison(cause: unknown, member: string | undefined, tick: number = this.#tick): void {
    if (tick !== this.#tick)
      throw this.#refuse(tick < this.#tick ? "stale-round" : "future-round", "poison", "round", `${this.#tick}`, tick);
    if (this.#status !== "failed") this.#fail({ reason: "poisoned", member, cause });
  }

  /**
   * Begins the tick after `from`; does nothing when that was done already.
   *
   * @returns the current tick
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when `from` is not complete, not failed, or not the current or last tick.
   */
  advance(from: number): number {
    if (from === this.#tick - 1) return this.#tick;
    if (from !== this.#tick) {
      const reason = from < this.#tick ? "stale-round" : "future-round";
      throw this.#refuse(reason, "advance", "from", `${this.#tick - 1} or ${this.#tick}`, from);
    }
    if (this.#status !== "complete" && this.#status !== "failed") {
      const { phase = "" } = this.state();
      throw this.#refuse("unfinished", "advance", `every phase of tick ${from}`, "complete", phase, { tick: from });
    }
    if (this.#tick === MAX_TICK) throw this.#overflow("advance");
    this.#enterNext();
    this.#settle();
    return this.#tick;
  }

  /** Lets the members that are late be lost, when a deadline has passed. The timer does it; calling it early does nothing. */
  expire(nowMs: number): void {
    if (this.#status !== "running" || nowMs < this.#clock.deadlineAtMs) return;
    const floor = this.#base + this.#phase;
    const missing = [...this.#byName.values()].filter(({ first, next }) => first <= this.#base && next <= floor);
    if (this.options.lossPolicy === "shrink" && missing.length < this.#size) {
      this.#clock.startTick();
      const late = new ShardloomError("ERR_TIMEOUT", `Cannot wait for member as its deadline has passed`);
      for (const { name } of missing) this.lose(name, late);
      return;
    }
    this.#fail({
      reason: "deadline",
      missing: missing.slice(0, NAMED_LIMIT).map(({ name }) => name),
      missingCount: missing.length,
    });
  }

  /** Stops the timer. The owner ends the waits. */
  close(): void {
    this.#clock.close();
  }

  #check(member: Member | undefined, tick: number, phase: number, position: number, floor: number): void {
    if (member === undefined || !member.present)
      throw this.#refuse("unknown-member", "arrive at", "member", "one that has joined", member?.name, { round: tick });
    if (position < member.first)
      throw this.#refuse("not-yet-member", "arrive at", "round", `at least ${this.#tick + 1}`, tick, {
        member: member.name,
      });
    const expected = Math.max(member.next, floor);
    if (position <= expected) return;
    const round = this.#tick + (expected < this.#base + this.#phases ? 0 : 1);
    const rule = `${JSON.stringify(this.#phaseName(expected))} of round ${round}`;
    throw this.#refuse("phase-order", "arrive at", "phase", rule, this.options.phases[phase], {
      member: member.name,
      round: tick,
    });
  }

  /** Position of the first phase of a tick that may be arrived at. */
  #positionOf(tick: number): number {
    if (tick === this.#tick) {
      if (this.#status === "failed") throw this.#failure as ShardloomError;
      return this.#base;
    }
    if (tick === this.#tick + 1 && this.#tick < MAX_TICK) return this.#base + this.#phases;
    if (tick === this.#failedTick && this.#failure !== undefined) throw this.#failure;
    if (this.#tick === MAX_TICK && !(tick < MAX_TICK)) throw this.#overflow("arrive at", tick);
    const reason = tick < this.#tick ? "stale-round" : "future-round";
    throw this.#refuse(reason, "arrive at", "round", `${this.#tick} or ${this.#tick + 1}`, tick);
  }

  #slot(position: number): number {
    const ahead = position - this.#base;
    return ahead < this.#phases ? this.#half + ahead : this.#phases - this.#half + ahead - this.#phases;
  }

  #phaseName(position: number): string {
    const ahead = position - this.#base;
    return this.options.phases[ahead < this.#phases ? ahead : ahead - this.#phases] ?? "none: both ticks are done";
  }

  /** Takes back what the member has added. @returns whether it belonged to a tick that runs */
  #remove(member: Member): boolean {
    member.present = false;
    this.#byName.delete(member.name);
    this.#byId.delete(member.id);
    const joined = member.first <= this.#base;
    if (joined) this.#size--;
    else this.#joining--;
    for (let at = Math.max(this.#base + this.#phase, member.first); at < member.next; at++) {
      const slot = this.#slot(at);
      this.#counts[slot] = (this.#counts[slot] as number) - 1;
    }
    return joined && this.#status === "running";
  }

  #checkQuorum(member: Member, cause: unknown): void {
    if (this.#status === "running" && this.#size < this.options.quorum)
      this.#fail({ reason: "quorum", member: member.name, ...(cause === undefined ? {} : { cause }) });
  }

  #fail(failure: Failure): void {
    const phase = this.options.phases[this.#phase];
    const error = tickFailed(this.name, this.#tick, phase, failure);
    this.#failure = error;
    this.#failedTick = this.#tick;
    this.#status = "failed";
    this.#phase = this.#phases;
    this.#clock.stop();
    this.#parts.listener.onFailed(this.#tick, error);
  }

  /** Begins what can begin, completes what is complete. Callbacks may change anything: every look is a new one. */
  #settle(): void {
    const { quorum, minMembers, advance } = this.options;
    for (;;) {
      if (this.#status === "waiting") {
        if (this.#size < minMembers) return;
        this.#status = "running";
        this.#clock.startTick();
      }
      if (this.#status !== "running") return;
      const phase = this.#phase;
      const arrived = this.#counts[this.#half + phase] as number;
      const members = this.#size;
      if (arrived < (quorum === 0 ? members : quorum)) return;
      const tick = this.#tick;
      this.#phase = phase + 1;
      if (this.#phase < this.#phases) {
        this.#clock.startPhase();
      } else if (advance === "auto" && tick < MAX_TICK) {
        this.#enterNext();
      } else {
        this.#status = "complete";
        this.#clock.stop();
      }
      this.#parts.listener.onPhase(tick, phase, arrived, members);
    }
  }

  /** The next tick becomes the current one, with what was kept for it. It begins in `#settle`. */
  #enterNext(): void {
    this.#counts.fill(0, this.#half, this.#half + this.#phases);
    this.#half = this.#phases - this.#half;
    this.#base += this.#phases;
    this.#tick++;
    this.#phase = 0;
    this.#size += this.#joining;
    this.#joining = 0;
    this.#status = "waiting";
    this.#clock.stop();
  }

  #unknownPhase(phase: number): ShardloomError {
    return this.#refuse("unknown-phase", "arrive at", "phase", `a number below ${this.#phases}`, phase);
  }

  #overflow(action: string, tick: number = this.#tick + 1): ShardloomError {
    return this.#refuse("tick-overflow", action, "round", `at most ${MAX_TICK}`, tick);
  }

  #refuse(
    reason: RefusalReason,
    action: string,
    what: string,
    rule: string,
    value: unknown,
    details: Readonly<Record<string, unknown>> = {},
  ): ShardloomError {
    return refusal(this.name, reason, action, what, rule, value, { tick: this.#tick, ...details });
  }
}
