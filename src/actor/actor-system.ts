/**
 * The virtual actors of one thread: delivers messages to them, brings them to life and lets them rest.
 *
 * Invariants: an actor runs one message at a time and its messages in the order they were accepted; every ask has exactly
 * one outcome; `received = delivered + rejected + dead + pending`. A message for an idle actor runs within `deliver`: a
 * synchronous handler then costs no promise, no timer and no garbage. A message sent from within a handler or hook is queued,
 * so no actor ever runs inside another's turn and no chain of messages deepens the stack.
 *
 * Single-threaded; no timers, clock or randomness of its own.
 * Source: Orleans (turn-based virtual actors). Divergence: supervised, with back-off and budget, as in Erlang/OTP.
 */

import { invalidArgument } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import { createValueCodec, type ValueCodec } from "../wire/value-codec.ts";
import { Activation, ActorType } from "./activation.ts";
import type { ActorSend } from "./actor-ref.ts";
import { type AnyActorDefinition, type AnyHandler, isActorDefinition } from "./define-actor.ts";
import {
  type ActorCounters,
  createActorCounters,
  type DeadLetterReason,
  type Delivery,
  type ReplySink,
} from "./delivery.ts";
import type { Lifecycle } from "./lifecycle.ts";
import { Mailbox, MailboxEntry, type SystemMessage } from "./mailbox.ts";
import { cancelled, closed, expired, overloaded, restartBudgetSpent, unknownTarget } from "./refusals.ts";
import type { OpenBarrier } from "./tick-barrier.ts";
import { Turns } from "./turns.ts";

/** What {@link createActorSystem} takes. */
export interface ActorSystemOptions {
  readonly definitions: readonly AnyActorDefinition[];
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  /** How handlers reach other actors. */
  readonly send: ActorSend;
  /** Marks a synchronous native call on the thread's heartbeat. @default the call alone */
  readonly native?: <T>(call: () => T) => T;
  /** How handlers open tick barriers. @default they cannot */
  readonly barrier?: OpenBarrier;
  /** Called whenever a message begins to run: the thread makes progress. */
  readonly onTurn?: () => void;
  /** Decodes messages that come as bytes. @default a codec without a structure table */
  readonly codec?: ValueCodec;
  /** @default counters of its own */
  readonly counters?: ActorCounters;
  /** An actor spent its restart budget. */
  readonly onEscalation?: (actorName: string, key: string, error: unknown) => void;
  /** A message died; for diagnostics, as it is counted anyway. */
  readonly onDeadLetter?: (reason: DeadLetterReason, actorName: string, key: string, handler: string) => void;
}

/** The host of virtual actors on one thread. */
export interface ActorSystem {
  /**
   * Takes a message; `delivery` is not kept. Never throws.
   * @returns false when the mailbox was full, which the sender of a tell learns in no other way
   */
  deliver(delivery: Delivery, sink: ReplySink): boolean;
  /** Gives an ask up: one that waits ends at once, one that runs sees `context.signal` fire. @returns whether it was open */
  cancel(senderId: number, requestToken: number): boolean;
  /**
   * Runs waiting messages, at most `limit`. Calling it is optional: they also run from the scheduler.
   * @returns how many ran
   */
  run(limit: number): number;
  /** Whether {@link ActorSystem.run} would find something. */
  hasWork(): boolean;
  /**
   * Lets actors rest that have been idle for long enough, looking at no more than `limit`. Also tells the system the time
   * that idle times are measured by, so it is to be called every few ms while messages flow.
   * @returns how many went
   */
  sweep(nowMs: number, limit?: number): number;
  /** Open handlers, hooks, back-offs and scheduled runs: while > 0 the thread must let its event loop turn. */
  pendingAsync(): number;
  /** Messages accepted that have no outcome yet. */
  pending(): number;
  /** Activations in memory. */
  activeCount(): number;
  /** A snapshot. */
  counters(): ActorCounters;
  /** Lets one actor rest after what it runs now. @returns whether it is active */
  passivate(actorName: string, key: string): boolean;
  /** Ends one activation after what it runs now; what waits is refused. @returns whether it is active */
  stop(actorName: string, key: string): boolean;
  /** Ends the activations of actors that live on another shard from now on, as {@link ActorSystem.stop} does. @returns how many */
  moveAway(hasMoved: (actorName: string, key: string) => boolean): number;
  /**
   * Refuses what waits, waits up to `timeoutMs` (default 5000) for what runs, then runs `onStop` of all. Idempotent.
   */
  close(options?: { readonly timeoutMs?: number }): Promise<void>;
}

const SWEEP_LIMIT = 256;
const CLOSE_TIMEOUT_MS = 5000;

/**
 * Creates a system.
 *
 * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` if a definition was not made by `defineActor`, or two have one name.
 */
export function createActorSystem(options: ActorSystemOptions): ActorSystem {
  const types = new Map<string, ActorType>();
  for (const definition of options.definitions) {
    const action = "create actor system";
    if (!isActorDefinition(definition)) throw invalidArgument(action, "definitions", "made by defineActor", definition);
    if (types.has(definition.name)) throw invalidArgument(action, "definitions", "of different names", definition.name);
    types.set(definition.name, new ActorType(definition));
  }
  return new System(options, types);
}

class System implements ActorSystem {
  readonly #turns: Turns;
  readonly #lifecycle: Lifecycle;
  readonly #clock: Clock;
  readonly #types: ReadonlyMap<string, ActorType>;
  readonly #typeList: readonly ActorType[];
  /** Type that the next sweep begins with, so that none starves. */
  #sweepFrom = 0;
  #closed: Promise<void> | undefined = undefined;
  /** What the last message was for. */
  #lastActorName = "";
  #lastHandlerName = "";
  #lastType: ActorType | undefined = undefined;
  #lastHandler: AnyHandler | undefined = undefined;

  constructor(options: ActorSystemOptions, types: ReadonlyMap<string, ActorType>) {
    const { codec = createValueCodec(), counters = createActorCounters() } = options;
    this.#turns = new Turns({ ...options, codec, tally: counters, native: options.native ?? ((call) => call()) });
    this.#lifecycle = this.#turns.lifecycle;
    this.#clock = options.clock;
    this.#types = types;
    this.#typeList = [...types.values()];
  }

  deliver(delivery: Delivery, sink: ReplySink): boolean {
    const turns = this.#turns;
    turns.tally.received++;
    if (delivery.handler !== this.#lastHandlerName || delivery.actorName !== this.#lastActorName) this.#find(delivery);
    const type = this.#lastType;
    const handler = this.#lastHandler;
    if (this.#closed !== undefined || type === undefined || handler === undefined) {
      this.#refuse(delivery, sink, type);
      return true;
    }
    if (delivery.deadlineAtMs !== 0 && (delivery.nowMs ?? this.#clock.nowMs()) >= delivery.deadlineAtMs) {
      turns.refuse(delivery, sink, "expired", expired(delivery.handler));
      return true;
    }
    const activation = type.activations.get(delivery.key) ?? this.#activate(type, delivery.key);
    const { mailbox } = activation;
    if (activation.phase === "idle" && this.#lifecycle.depth === 0 && (mailbox === undefined || mailbox.isEmpty)) {
      const entry = turns.spare;
      if (turns.fill(entry, activation, handler, delivery, sink)) turns.execute(activation, entry);
      if (entry === turns.spare) release(entry);
      return true;
    }
    return this.#enqueue(activation, handler, delivery, sink);
  }

  cancel(senderId: number, requestToken: number): boolean {
    const entry = this.#turns.asks.find(senderId, requestToken);
    if (entry === undefined) return false;
    entry.cancelled = true;
    const error = cancelled(entry.handler);
    if (entry.activation.turn === entry) {
      entry.controller?.abort(error);
    } else {
      entry.activation.mailbox?.remove(entry);
      this.#turns.drop(entry, "cancelled", error);
    }
    return true;
  }

  run(limit: number): number {
    return this.#turns.run(limit);
  }

  hasWork(): boolean {
    return this.#turns.hasWork;
  }

  sweep(nowMs: number, limit: number = SWEEP_LIMIT): number {
    this.#lifecycle.nowMs = Math.max(this.#lifecycle.nowMs, Math.floor(nowMs));
    let left = limit;
    let gone = 0;
    for (let index = 0; index < this.#typeList.length && left > 0; index++) {
      const type = this.#typeList[(this.#sweepFrom + index) % this.#typeList.length] as ActorType;
      const usedBefore = this.#lifecycle.nowMs - type.definition.options.idleAfterMs;
      for (; left > 0; left--) {
        const oldest = type.byUse.first;
        if (oldest === undefined || oldest.usedAtMs > usedBefore) break;
        if (this.#rest(oldest)) gone++;
      }
      left = this.#forgetStopped(type, left);
    }
    this.#sweepFrom = (this.#sweepFrom + 1) % Math.max(1, this.#typeList.length);
    return gone;
  }

  pendingAsync(): number {
    return this.#turns.open;
  }

  pending(): number {
    return this.#turns.pending;
  }

  activeCount(): number {
    return this.#typeList.reduce((sum, type) => sum + type.activations.size, 0);
  }

  counters(): ActorCounters {
    const { tally } = this.#turns;
    return { ...tally, dead: { ...tally.dead } };
  }

  passivate(actorName: string, key: string): boolean {
    return this.#wish(actorName, key, "passivate");
  }

  stop(actorName: string, key: string): boolean {
    return this.#wish(actorName, key, "stop");
  }

  moveAway(hasMoved: (actorName: string, key: string) => boolean): number {
    const gone = [...this.#all()].filter(({ type, key }) => hasMoved(type.definition.name, key));
    return gone.filter(({ type, key }) => this.#wish(type.definition.name, key, "move")).length;
  }

  close(options: { readonly timeoutMs?: number } = {}): Promise<void> {
    this.#closed ??= this.#close(options.timeoutMs ?? CLOSE_TIMEOUT_MS);
    return this.#closed;
  }

  /** Looks actor and handler up, and remembers them: messages to one handler come in runs. */
  #find(delivery: Delivery): void {
    this.#lastActorName = delivery.actorName;
    this.#lastHandlerName = delivery.handler;
    this.#lastType = this.#types.get(delivery.actorName);
    this.#lastHandler = this.#lastType?.handlers.get(delivery.handler);
  }

  #activate(type: ActorType, key: string): Activation {
    const activation = new Activation(type, key, this.#turns);
    type.activations.set(key, activation);
    type.byUse.append(activation);
    this.#turns.tally.activations++;
    this.#lifecycle.start(activation);
    return activation;
  }

  #enqueue(activation: Activation, handler: AnyHandler, delivery: Delivery, sink: ReplySink): boolean {
    const turns = this.#turns;
    if (activation.phase === "stopped") {
      turns.refuse(delivery, sink, "stopped", restartBudgetSpent(activation));
      return true;
    }
    const { mailboxCapacity } = activation.type.definition.options;
    activation.mailbox ??= new Mailbox(mailboxCapacity);
    if (activation.mailbox.size >= mailboxCapacity) {
      turns.tally.rejected++;
      if (delivery.ask) sink.error(delivery.senderId, delivery.requestToken, overloaded(activation, mailboxCapacity));
      return false;
    }
    const entry = new MailboxEntry();
    if (!turns.fill(entry, activation, handler, delivery, sink)) return true;
    activation.mailbox.push(entry);
    if (entry.ask) turns.asks.add(entry);
    if (activation.phase === "idle") turns.ready(activation);
    return true;
  }

  #refuse(delivery: Delivery, sink: ReplySink, type: ActorType | undefined): void {
    if (this.#closed !== undefined) this.#turns.refuse(delivery, sink, "closed", closed());
    else if (type === undefined)
      this.#turns.refuse(delivery, sink, "no-actor", unknownTarget(delivery.actorName, undefined));
    else this.#turns.refuse(delivery, sink, "no-handler", unknownTarget(delivery.actorName, delivery.handler));
  }

  #wish(actorName: string, key: string, wish: SystemMessage): boolean {
    const activation = this.#types.get(actorName)?.activations.get(key);
    if (activation === undefined || activation.phase === "stopped") return false;
    if (activation.phase === "idle" && this.#lifecycle.depth === 0) {
      this.#lifecycle[wish](activation);
    } else {
      activation.mailbox ??= new Mailbox(activation.type.definition.options.mailboxCapacity);
      activation.mailbox.pushSystem(wish);
      if (activation.phase === "idle") this.#turns.ready(activation);
    }
    return true;
  }

  #rest(activation: Activation): boolean {
    if (activation.phase === "idle" && activation.mailbox?.isEmpty !== false) {
      this.#lifecycle.passivate(activation);
      return true;
    }
    this.#lifecycle.touch(activation);
    return false;
  }

  /** Forgets the actors whose budget has come back: the next message starts them afresh. @returns what is left of the limit */
  #forgetStopped(type: ActorType, limit: number): number {
    const stoppedBefore = this.#lifecycle.nowMs - type.definition.options.restart.withinMs;
    for (let left = limit; ; left--) {
      const oldest = type.stopped.first;
      if (left === 0 || oldest === undefined || oldest.usedAtMs > stoppedBefore) return left;
      type.stopped.remove(oldest);
      type.activations.delete(oldest.key);
      oldest.phase = "gone";
    }
  }

  async #close(timeoutMs: number): Promise<void> {
    const lifecycle = this.#lifecycle;
    lifecycle.isClosing = true;
    const deadlineAtMs = this.#clock.nowMs() + timeoutMs;
    for (const activation of this.#all()) {
      lifecycle.dropWaiting(activation, "closed", closed);
      if (activation.phase === "backing-off") lifecycle.close(activation);
      if (activation.turn !== undefined) {
        activation.turn.cancelled = true;
        activation.turn.controller?.abort(closed());
      }
    }
    await this.#turns.untilQuiet(deadlineAtMs);
    for (const activation of this.#all()) {
      if (activation.turn !== undefined) this.#turns.drop(activation.turn, "closed", closed());
      else lifecycle.close(activation);
    }
    await this.#turns.untilQuiet(deadlineAtMs);
    for (const type of this.#typeList) type.activations.clear();
  }

  *#all(): Iterable<Activation> {
    for (const type of this.#typeList) yield* type.activations.values();
  }
}

/** Makes the entry good for the next message, keeping nothing of this one alive. */
function release(entry: MailboxEntry): void {
  entry.message = undefined;
  entry.settled = false;
  entry.cancelled = false;
  entry.controller = undefined;
  entry.deadlineTimer = undefined;
}
