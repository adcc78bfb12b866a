/**
 * One thread's use of one barrier: collects the arrivals of the thread's members and sends them together.
 *
 * A batch leaves when all local members of the tick have arrived at its phase, and at the latest with the next turn of the event
 * loop: a slow member delays nobody's arrival by more than that, so quorums, deadlines and blame stay those of the
 * members themselves.
 *
 * Invariant: the host alone judges. What this thread believes of positions only decides what is combined; an arrival that is
 * not simply the member's next one goes by itself, and when a batch is refused each of its arrivals is sent again by itself.
 * Once the host is lost every call fails with the same `ERR_BARRIER`.
 */
import type { PhaseResult } from "../../src/actor/tick-barrier.ts";
import { ShardloomError } from "../../src/errors.ts";
import { refusal } from "../../src/routing/barrier-errors.ts";
import type { ResolvedBarrierOptions } from "../../src/routing/barrier-options.ts";
import type { Scheduler } from "../../src/runtime/scheduler.ts";
import { Batch, type BatchOwner } from "./barrier-batch.ts";
import type { NumberedState, OpenedBarrier } from "./barrier-host.ts";
import type { BarrierLink, OpenSession } from "./barrier-link.ts";

/** Most arrivals in one message. */
const MAX_BATCH = 2048;

/** Errors after which the barrier is no longer where it was. */
const HOST_LOST: ReadonlySet<string> = new Set([
  "ERR_WORKER_LOST",
  "ERR_HANDLER_HUNG",
  "ERR_NATIVE_QUARANTINED",
  "ERR_RESTART_BUDGET",
  "ERR_STALE_EPOCH",
]);

/** What a session works with. */
export interface BarrierSessionParts {
  readonly name: string;
  readonly link: BarrierLink;
  readonly opened: OpenedBarrier;
  readonly scheduler: Scheduler;
  /** The session is of no use any more: closed, or its host is lost. */
  readonly onEnded: () => void;
}

/** A member of this thread, and the arrival that is expected of it next. */
interface LocalMember {
  readonly name: string;
  readonly id: number;
  readonly firstTick: number;
  tick: number;
  phase: number;
}

/** The arrivals that are being collected for one phase. */
interface Slot {
  tick: number;
  batch: Batch | undefined;
  /** Arrivals that have left already. */
  sent: number;
}

/** One thread's members of one barrier. */
export class BarrierSession implements BatchOwner {
  readonly name: string;
  readonly options: ResolvedBarrierOptions;
  /** The newest tick that this thread has heard of, and the last that it saw end; −1 for none since it advanced. */
  tick: number;
  ended = -1;
  /** Handles that use this session. */
  users = 0;
  readonly #parts: BarrierSessionParts;
  readonly #link: BarrierLink;
  readonly #at: OpenSession;
  readonly #phaseOf: ReadonlyMap<string, number>;
  readonly #known: Map<string, number>;
  readonly #local: Map<string, LocalMember> = new Map();
  /** Newest first tick of a local member: up to there not all of them are expected. */
  #newestTick = 0;
  /** By phase, for even and odd ticks. */
  readonly #slots: Slot[];
  #flushing = false;
  #broken: ShardloomError | undefined;
  readonly #flush: () => void = () => {
    this.#flushing = false;
    for (const slot of this.#slots) this.#send(slot);
  };

  constructor(parts: BarrierSessionParts) {
    const { opened } = parts;
    this.name = parts.name;
    this.options = opened.options;
    this.tick = opened.tick;
    this.#parts = parts;
    this.#link = parts.link;
    this.#at = { barrier: opened.barrier, session: opened.session };
    this.#phaseOf = new Map(opened.options.phases.map((phase, at) => [phase, at]));
    this.#known = new Map(opened.members);
    this.#slots = Array.from({ length: 2 * opened.options.phases.length }, () => ({
      tick: -1,
      batch: undefined,
      sent: 0,
    }));
  }

  /**
   * @param used Names that the caller has used; what it uses first is added.
   * @param round The tick that is meant. @default the one that the member is in
   */
  arrive(
    used: Set<string>,
    name: string,
    phaseName: string,
    timeoutMs: number,
    round: number | undefined,
  ): Promise<PhaseResult> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    const phase = this.#phaseOf.get(phaseName);
    if (phase === undefined) return Promise.reject(this.#unknownPhase(phaseName));
    const member = this.#local.get(name) ?? this.#adopt(used, name);
    if (member === undefined) return this.#arriveUnknown(used, name, phaseName, timeoutMs, round);
    const tick = round ?? Math.max(member.tick, this.tick);
    if (tick < member.tick || (tick === member.tick && phase < member.phase))
      return this.#alone(member, tick, phase, timeoutMs);
    // Most often it is the next one. What is further ahead the host refuses, and the member starts from there.
    member.tick = tick;
    member.phase = phase + 1;
    if (member.phase === this.options.phases.length) {
      member.tick = tick + 1;
      member.phase = 0;
    }
    const slot = this.#slots[(tick % 2) * this.options.phases.length + phase];
    if (slot === undefined) return this.#alone(member, tick, phase, timeoutMs); // no tick at all: a fraction, NaN
    return this.#collect(slot, member, tick, phase, timeoutMs);
  }

  /** Arrivals collected so far leave now. */
  flush(): void {
    this.#flush();
  }

  async join(used: Set<string>, name: string): Promise<number> {
    const { id, tick } = await this.#call(this.#link.join(this.#at, name));
    used.add(name);
    const present = this.#local.get(name);
    if (present?.id !== id) this.#addLocal(name, id, tick);
    return tick;
  }

  /** The arrivals of the member that are still here leave first. */
  async leave(name: string): Promise<boolean> {
    this.#forget(name);
    return this.#call(this.#link.leave(this.#at, name));
  }

  async lose(name: string, cause: unknown): Promise<boolean> {
    this.#forget(name);
    return this.#call(this.#link.lose(this.#at, name, cause));
  }

  async poison(cause: unknown, member: string | undefined): Promise<void> {
    await this.#call(this.#link.poison(this.#at, cause, member));
  }

  async advance(from: number | undefined): Promise<number> {
    this.flush();
    const tick = await this.#call(this.#link.advance(this.#at, from ?? (this.ended >= 0 ? this.ended : this.tick)));
    if (tick > this.tick) this.tick = tick;
    if (tick > this.ended) this.ended = -1;
    return tick;
  }

  async state(): Promise<NumberedState> {
    this.flush();
    const state = await this.#call(this.#link.state(this.#at));
    if (state.tick > this.tick) this.tick = state.tick;
    for (const [name, id] of state.ids) this.#known.set(name, id);
    return state;
  }

  async close(): Promise<void> {
    if (this.#broken !== undefined) return;
    this.#parts.onEnded();
    this.flush();
    await this.#link.close(this.#at).catch(() => undefined); // the host has gone: nothing is left to close
  }

  /** A phase of one of this thread's batches is complete. */
  complete(tick: number, phase: number, arrived: number, members: number): PhaseResult {
    const last = phase === this.options.phases.length - 1;
    if (last && tick > this.ended) this.ended = tick;
    const current = last && this.options.advance === "auto" ? tick + 1 : tick;
    if (current > this.tick) this.tick = current;
    return { round: tick, phase: this.options.phases[phase] as string, arrived, members };
  }

  /** What an error of the link means here. */
  failure(error: ShardloomError): ShardloomError {
    if (this.#broken !== undefined) return this.#broken;
    const reason = error.details["reason"];
    if (HOST_LOST.has(error.code) || (error.code === "ERR_BARRIER" && reason === "not-open")) return this.#break(error);
    if (error.code === "ERR_BARRIER") {
      const tick = error.details["tick"];
      if (typeof tick === "number" && tick > this.ended) this.ended = tick;
      if (typeof tick === "number" && tick > this.tick) this.tick = tick;
    }
    return error;
  }

  /** A member's arrival was refused: it starts again from where the barrier is. */
  refused(name: string, error: ShardloomError): void {
    const tick = error.details["tick"];
    if (typeof tick === "number" && tick > this.tick) this.tick = tick;
    const member = this.#local.get(name);
    if (member === undefined) return;
    member.tick = this.tick;
    member.phase = 0;
    if (error.details["reason"] === "unknown-member") this.#drop(name);
  }

  transmit(batch: Batch): void {
    if (this.#broken === undefined) this.#link.arrive(this.#at, batch);
    else batch.failed(this.#broken);
  }

  #collect(slot: Slot, member: LocalMember, tick: number, phase: number, timeoutMs: number): Promise<PhaseResult> {
    if (slot.tick !== tick) {
      this.#send(slot);
      slot.tick = tick;
      slot.sent = 0;
    } else if (slot.batch !== undefined && slot.batch.timeoutMs !== timeoutMs) this.#send(slot); // one message, one wait
    const batch = slot.batch ?? new Batch(this, tick, phase);
    slot.batch = batch;
    const promise = batch.add(member.name, member.id, timeoutMs);
    if (slot.sent + batch.count >= this.#expected(tick) || batch.count >= MAX_BATCH) this.#send(slot);
    else if (!this.#flushing) {
      this.#flushing = true;
      this.#parts.scheduler.turn(this.#flush);
    }
    return promise;
  }

  #send(slot: Slot): void {
    const { batch } = slot;
    if (batch === undefined) return;
    slot.batch = undefined;
    slot.sent += batch.count;
    this.transmit(batch);
  }

  #alone(member: LocalMember, tick: number, phase: number, timeoutMs: number): Promise<PhaseResult> {
    this.flush(); // what the member said before goes before
    const batch = new Batch(this, tick, phase);
    const promise = batch.add(member.name, member.id, timeoutMs);
    this.transmit(batch);
    return promise;
  }

  #expected(tick: number): number {
    if (tick >= this.#newestTick) return this.#local.size;
    let expected = 0;
    for (const { firstTick } of this.#local.values()) if (firstTick <= tick) expected++;
    return expected;
  }

  #adopt(used: Set<string>, name: string): LocalMember | undefined {
    const id = this.#known.get(name);
    if (id === undefined) return undefined;
    used.add(name);
    return this.#addLocal(name, id, this.tick);
  }

  /** Somebody else may have joined that member; if nobody has, the error says so. */
  async #arriveUnknown(
    used: Set<string>,
    name: string,
    phaseName: string,
    timeoutMs: number,
    round: number | undefined,
  ): Promise<PhaseResult> {
    const { tick } = await this.state();
    if (this.#known.has(name)) return this.arrive(used, name, phaseName, timeoutMs, round);
    throw refusal(this.name, "unknown-member", "arrive at", "member", "one that has joined", name, { tick });
  }

  #addLocal(name: string, id: number, firstTick: number): LocalMember {
    const member: LocalMember = { name, id, firstTick, tick: firstTick, phase: 0 };
    this.#known.set(name, id);
    this.#local.set(name, member);
    if (firstTick > this.#newestTick) this.#newestTick = firstTick;
    return member;
  }

  #forget(name: string): void {
    this.flush();
    this.#drop(name);
  }

  #drop(name: string): void {
    this.#local.delete(name);
    this.#known.delete(name);
  }

  async #call<T>(work: Promise<T>): Promise<T> {
    if (this.#broken !== undefined) {
      work.catch(() => undefined); // the first failure says why
      throw this.#broken;
    }
    try {
      return await work;
    } catch (error) {
      throw this.failure(ShardloomError.from(error));
    }
  }

  #break(cause: ShardloomError): ShardloomError {
    this.#broken = new ShardloomError(
      "ERR_BARRIER",
      `Cannot go on with tick ${this.tick} of barrier ${JSON.stringify(this.name)} as the shard that hosts it has lost it: ${cause.message}`,
      { details: { barrier: this.name, tick: this.tick, reason: "host-lost" }, cause },
    );
    this.#parts.onEnded();
    return this.#broken;
  }

  #unknownPhase(phase: string): ShardloomError {
    const rule = `one of ${this.options.phases.map((name) => JSON.stringify(name)).join(", ")}`;
    return refusal(this.name, "unknown-phase", "arrive at", "phase", rule, phase, { tick: this.tick });
  }
}
