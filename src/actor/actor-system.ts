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

import { invalidArgument, ShardloomError } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import { createValueCodec, type ValueCodec } from "../wire/value-codec.ts";
import { Activation, ActorType } from "./activation.ts";
import type { Directive } from "./actor-options.ts";
import type { ActorSend } from "./actor-ref.ts";
import { AskIndex } from "./ask-index.ts";
import { type AnyActorDefinition, type Handler, isActorDefinition } from "./define-actor.ts";
import { type ActorCounters, createActorCounters, type DeadLetterReason, type Delivery, type ReplySink } from "./delivery.ts";
import { isThenable, Lifecycle, type LifecycleHost, restartBudgetSpent } from "./lifecycle.ts";
import { Mailbox, MailboxEntry, type SystemMessage } from "./mailbox.ts";
import { RingQueue } from "./ring-queue.ts";

/** What {@link createActorSystem} takes. */
export interface ActorSystemOptions {
  readonly definitions: readonly AnyActorDefinition[];
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  /** How handlers reach other actors. */
  readonly send: ActorSend;
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
  /** Takes a message; `delivery` is not kept. Never throws. */
  deliver(delivery: Delivery, sink: ReplySink): void;
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
  /**
   * Refuses what waits, waits up to `timeoutMs` (default 5000) for what runs, then runs `onStop` of all. Idempotent.
   */
  close(options?: { readonly timeoutMs?: number }): Promise<void>;
}

/** Messages that one actor may run before others get their turn. */
const TURNS_PER_ACTOR = 16;
/** Messages that run in one go before the event loop gets its turn. */
const RUN_LIMIT = 256;
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

class System implements ActorSystem, LifecycleHost {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly send: ActorSend;
  readonly tally: ActorCounters;
  readonly #options: ActorSystemOptions;
  readonly #codec: ValueCodec;
  readonly #types: ReadonlyMap<string, ActorType>;
  readonly #typeList: readonly ActorType[];
  readonly #asks: AskIndex = new AskIndex();
  readonly #ready: RingQueue<Activation> = new RingQueue();
  readonly #lifecycle: Lifecycle;
  /** Serves every message that ends within `deliver`. */
  #spare: MailboxEntry = new MailboxEntry();
  /** The activation whose mailbox is being worked through. */
  #draining: Activation | undefined = undefined;
  #runIsScheduled = false;
  #openHandlers = 0;
  #pending = 0;
  /** Type that the next sweep begins with, so that none starves. */
  #sweepFrom = 0;
  #closed: Promise<void> | undefined = undefined;
  #whenQuiet: (() => void) | undefined = undefined;

  constructor(options: ActorSystemOptions, types: ReadonlyMap<string, ActorType>) {
    this.clock = options.clock;
    this.scheduler = options.scheduler;
    this.random = options.random;
    this.send = options.send;
    this.tally = options.counters ?? createActorCounters();
    this.#options = options;
    this.#codec = options.codec ?? createValueCodec();
    this.#types = types;
    this.#typeList = [...types.values()];
    this.#lifecycle = new Lifecycle(this);
    this.#lifecycle.nowMs = Math.floor(this.clock.nowMs());
  }

  deliver(delivery: Delivery, sink: ReplySink): void {
    this.tally.received++;
    const type = this.#types.get(delivery.actorName);
    const handler = type?.handlers.get(delivery.handler);
    if (this.#closed !== undefined || type === undefined || handler === undefined) {
      return this.#refuseUnknown(delivery, sink, type);
    }
    if (delivery.deadlineAtMs !== 0 && this.clock.nowMs() >= delivery.deadlineAtMs) {
      return this.#refuse(delivery, sink, "expired", expired(delivery.handler));
    }
    const activation = type.activations.get(delivery.key) ?? this.#activate(type, delivery.key);
    const { mailbox } = activation;
    if (activation.phase === "idle" && this.#lifecycle.depth === 0 && (mailbox === undefined || mailbox.isEmpty)) {
      const entry = this.#spare;
      if (this.#fill(entry, activation, handler, delivery, sink)) this.#execute(activation, entry);
      if (entry === this.#spare) release(entry);
    } else {
      this.#enqueue(activation, handler, delivery, sink);
    }
  }

  cancel(senderId: number, requestToken: number): boolean {
    const entry = this.#asks.find(senderId, requestToken);
    if (entry === undefined) return false;
    entry.cancelled = true;
    const error = cancelled(entry.handler);
    if (entry.activation.turn === entry) {
      entry.controller?.abort(error);
    } else {
      entry.activation.mailbox?.remove(entry);
      this.drop(entry, "cancelled", error);
    }
    return true;
  }

  run(limit: number): number {
    if (this.#lifecycle.depth > 0) return 0;
    let count = 0;
    while (count < limit) {
      const activation = this.#ready.shift();
      if (activation === undefined) break;
      activation.isQueued = false;
      count += this.#drain(activation, Math.min(TURNS_PER_ACTOR, limit - count));
    }
    return count;
  }

  hasWork(): boolean {
    return this.#ready.size > 0;
  }

  sweep(nowMs: number, limit: number = SWEEP_LIMIT): number {
    this.#lifecycle.nowMs = Math.max(this.#lifecycle.nowMs, Math.floor(nowMs));
    let left = limit;
    let gone = 0;
    for (let index = 0; index < this.#typeList.length && left > 0; index++) {
      const type = this.#typeList[(this.#sweepFrom + index) % this.#typeList.length] as ActorType;
      for (let last = this.#lastUse(type); left > 0; left--) {
        const oldest = type.byUse.first;
        if (oldest === undefined || oldest.usedAtMs > last) break;
        if (this.#rest(oldest)) gone++;
      }
      left = this.#sweepStopped(type, left);
    }
    this.#sweepFrom = (this.#sweepFrom + 1) % Math.max(1, this.#typeList.length);
    return gone;
  }

  pendingAsync(): number {
    return this.#openHandlers + this.#lifecycle.open + (this.#runIsScheduled ? 1 : 0);
  }

  pending(): number {
    return this.#pending;
  }

  activeCount(): number {
    return this.#typeList.reduce((sum, type) => sum + type.activations.size, 0);
  }

  counters(): ActorCounters {
    return { ...this.tally, dead: { ...this.tally.dead } };
  }

  passivate(actorName: string, key: string): boolean {
    return this.#wish(actorName, key, "passivate");
  }

  stop(actorName: string, key: string): boolean {
    return this.#wish(actorName, key, "stop");
  }

  close(options: { readonly timeoutMs?: number } = {}): Promise<void> {
    this.#closed ??= this.#close(options.timeoutMs ?? CLOSE_TIMEOUT_MS);
    return this.#closed;
  }

  ready(activation: Activation): void {
    if (activation.isQueued || activation === this.#draining) return;
    activation.isQueued = true;
    this.#ready.push(activation);
    if (!this.#runIsScheduled) {
      this.#runIsScheduled = true;
      this.scheduler.defer(this.#runScheduled);
    }
  }

  drop(entry: MailboxEntry, reason: DeadLetterReason, error: ShardloomError): void {
    if (!this.#settle(entry)) return;
    this.tally.dead[reason]++;
    this.#options.onDeadLetter?.(reason, entry.activation.type.definition.name, entry.activation.key, entry.handler);
    if (entry.ask) entry.sink.error(entry.senderId, entry.requestToken, error);
  }

  escalated(activation: Activation, error: unknown): void {
    this.#options.onEscalation?.(activation.type.definition.name, activation.key, error);
  }

  workEnded(): void {
    if (this.#openHandlers + this.#lifecycle.open === 0) this.#whenQuiet?.();
  }

  readonly #runScheduled = (): void => {
    this.run(RUN_LIMIT);
    this.#runIsScheduled = this.hasWork();
    // The rest runs after one turn of the event loop, so that I/O and timers are not starved.
    if (this.#runIsScheduled) this.scheduler.after(0, this.#runScheduled);
  };

  #activate(type: ActorType, key: string): Activation {
    const activation = new Activation(type, key, this);
    type.activations.set(key, activation);
    type.byUse.append(activation);
    this.tally.activations++;
    this.#lifecycle.start(activation);
    return activation;
  }

  // biome-ignore lint/suspicious/noExplicitAny: handlers of all state types pass through here.
  #fill(entry: MailboxEntry, activation: Activation, handler: Handler<any>, delivery: Delivery, sink: ReplySink): boolean {
    let { message } = delivery;
    if (delivery.bytes !== undefined) {
      try {
        message = delivery.byteLength === 0 ? undefined : this.#codec.decode(delivery.bytes, delivery.byteOffset, delivery.byteLength);
      } catch (error) {
        this.#refuse(delivery, sink, "corrupt", ShardloomError.from(error, "ERR_CORRUPT"));
        return false;
      }
    }
    entry.activation = activation;
    entry.handler = delivery.handler;
    entry.run = handler;
    entry.message = message;
    entry.ask = delivery.ask;
    entry.deadlineAtMs = delivery.deadlineAtMs;
    entry.senderId = delivery.senderId;
    entry.requestToken = delivery.requestToken;
    entry.sink = sink;
    this.#pending++;
    return true;
  }

  // biome-ignore lint/suspicious/noExplicitAny: handlers of all state types pass through here.
  #enqueue(activation: Activation, handler: Handler<any>, delivery: Delivery, sink: ReplySink): void {
    if (activation.phase === "stopped") return this.#refuse(delivery, sink, "stopped", restartBudgetSpent(activation));
    const { mailboxCapacity } = activation.type.definition.options;
    activation.mailbox ??= new Mailbox(mailboxCapacity);
    if (activation.mailbox.size >= mailboxCapacity) {
      this.tally.rejected++;
      if (delivery.ask) sink.error(delivery.senderId, delivery.requestToken, overloaded(activation, mailboxCapacity));
      return;
    }
    const entry = new MailboxEntry();
    if (!this.#fill(entry, activation, handler, delivery, sink)) return;
    activation.mailbox.push(entry);
    if (entry.ask) this.#asks.add(entry);
    if (activation.phase === "idle") this.ready(activation);
  }

  /** Works through one mailbox for as long as the actor is idle in between. */
  #drain(activation: Activation, limit: number): number {
    let count = 0;
    this.#draining = activation;
    while (activation.phase === "idle" && activation.mailbox !== undefined && count < limit) {
      const wish = activation.mailbox.shiftSystem();
      if (wish !== undefined) {
        this.#lifecycle[wish](activation);
        continue;
      }
      const entry = activation.mailbox.shift();
      if (entry === undefined) break;
      count++;
      if (this.#mayStart(entry)) this.#execute(activation, entry);
    }
    this.#draining = undefined;
    if (activation.phase === "idle" && activation.mailbox?.isEmpty === false) this.ready(activation);
    return count;
  }

  #mayStart(entry: MailboxEntry): boolean {
    if (entry.deadlineAtMs !== 0 && this.clock.nowMs() >= entry.deadlineAtMs) {
      this.drop(entry, "expired", expired(entry.handler));
      return false;
    }
    if (entry.ask && entry.sink.isCancelled?.(entry.senderId, entry.requestToken) === true) {
      this.drop(entry, "cancelled", cancelled(entry.handler));
      return false;
    }
    return true;
  }

  #execute(activation: Activation, entry: MailboxEntry): void {
    activation.phase = "running";
    activation.turn = entry;
    let result: unknown;
    this.#lifecycle.depth++;
    try {
      result = entry.run.call(activation.type.definition.spec.handlers, activation.state, entry.message, activation.context);
    } catch (error) {
      this.#lifecycle.depth--;
      this.#failTurn(activation, entry, error);
      return;
    }
    this.#lifecycle.depth--;
    if (isThenable(result)) this.#awaitTurn(activation, entry, result);
    else this.#completeTurn(activation, entry, result);
  }

  #awaitTurn(activation: Activation, entry: MailboxEntry, result: PromiseLike<unknown>): void {
    if (entry === this.#spare) this.#spare = new MailboxEntry();
    if (entry.ask && !entry.indexed) this.#asks.add(entry);
    this.#openHandlers++;
    Promise.resolve(result).then(
      (value: unknown) => {
        this.#openHandlers--;
        this.#completeTurn(activation, entry, value);
        this.workEnded();
      },
      (error: unknown) => {
        this.#openHandlers--;
        this.#failTurn(activation, entry, error);
        this.workEnded();
      },
    );
  }

  #completeTurn(activation: Activation, entry: MailboxEntry, value: unknown): void {
    if (this.#settle(entry)) {
      this.tally.delivered++;
      if (entry.ask) answer(entry, value);
    }
    this.#endTurn(activation);
  }

  #failTurn(activation: Activation, entry: MailboxEntry, error: unknown): void {
    const gaveUp = entry.controller?.signal.aborted === true;
    const directive = gaveUp ? "resume" : judge(activation, error);
    const outcome = outcomeOf(activation, entry, error, gaveUp);
    if (directive !== "resume") {
      this.drop(entry, "failed", outcome);
      activation.turn = undefined;
      this.#lifecycle.fail(activation, error, directive);
      return;
    }
    if (this.#settle(entry)) {
      this.tally.delivered++;
      if (entry.ask) entry.sink.error(entry.senderId, entry.requestToken, outcome);
    }
    this.#endTurn(activation);
  }

  #endTurn(activation: Activation): void {
    activation.turn = undefined;
    activation.phase = "idle";
    this.#lifecycle.touch(activation);
    if (activation.mailbox?.isEmpty === false) this.ready(activation);
  }

  /** Marks that a message has its outcome. @returns false if it had one before */
  #settle(entry: MailboxEntry): boolean {
    entry.deadlineTimer?.();
    if (entry.settled) return false;
    entry.settled = true;
    this.#pending--;
    if (entry.indexed) this.#asks.remove(entry);
    return true;
  }

  #refuse(delivery: Delivery, sink: ReplySink, reason: DeadLetterReason, error: ShardloomError): void {
    this.tally.dead[reason]++;
    this.#options.onDeadLetter?.(reason, delivery.actorName, delivery.key, delivery.handler);
    if (delivery.ask) sink.error(delivery.senderId, delivery.requestToken, error);
  }

  #refuseUnknown(delivery: Delivery, sink: ReplySink, type: ActorType | undefined): void {
    const { actorName, handler } = delivery;
    if (this.#closed !== undefined) return this.#refuse(delivery, sink, "closed", closed());
    const [reason, what] = type === undefined ? (["no-actor", actorName] as const) : (["no-handler", `${actorName}.${handler}`] as const);
    const message = `Cannot deliver message as its actor and handler must be defined: current value is ${JSON.stringify(what)}`;
    this.#refuse(delivery, sink, reason, new ShardloomError("ERR_UNKNOWN_ACTOR", message, { details: { actorName, handler } }));
  }

  #wish(actorName: string, key: string, wish: SystemMessage): boolean {
    const activation = this.#types.get(actorName)?.activations.get(key);
    if (activation === undefined || activation.phase === "stopped") return false;
    if (activation.phase === "idle" && this.#lifecycle.depth === 0) {
      this.#lifecycle[wish](activation);
    } else {
      activation.mailbox ??= new Mailbox(activation.type.definition.options.mailboxCapacity);
      activation.mailbox.pushSystem(wish);
      if (activation.phase === "idle") this.ready(activation);
    }
    return true;
  }

  /** The latest use that is long enough ago, on the sweeps' clock. */
  #lastUse(type: ActorType): number {
    return this.#lifecycle.nowMs - type.definition.options.idleAfterMs;
  }

  #rest(activation: Activation): boolean {
    if (activation.phase === "idle" && activation.mailbox?.isEmpty !== false) {
      this.#lifecycle.passivate(activation);
      return true;
    }
    this.#lifecycle.touch(activation);
    return false;
  }

  /** Forgets the actors whose budget has come back: the next message starts them afresh. */
  #sweepStopped(type: ActorType, limit: number): number {
    const last = this.#lifecycle.nowMs - type.definition.options.restart.withinMs;
    for (let left = limit; ; left--) {
      const oldest = type.stopped.first;
      if (left === 0 || oldest === undefined || oldest.usedAtMs > last) return left;
      type.stopped.remove(oldest);
      type.activations.delete(oldest.key);
      oldest.phase = "gone";
    }
  }

  async #close(timeoutMs: number): Promise<void> {
    const lifecycle = this.#lifecycle;
    lifecycle.isClosing = true;
    const deadlineAtMs = this.clock.nowMs() + timeoutMs;
    for (const activation of this.#all()) {
      lifecycle.dropWaiting(activation, "closed", closed);
      if (activation.phase === "backing-off") lifecycle.close(activation);
      if (activation.turn !== undefined) {
        activation.turn.cancelled = true;
        activation.turn.controller?.abort(closed());
      }
    }
    await this.#untilQuiet(deadlineAtMs);
    for (const activation of this.#all()) {
      if (activation.turn !== undefined) this.drop(activation.turn, "closed", closed());
      else lifecycle.close(activation);
    }
    await this.#untilQuiet(deadlineAtMs);
    for (const type of this.#typeList) type.activations.clear();
  }

  *#all(): Iterable<Activation> {
    for (const type of this.#typeList) yield* type.activations.values();
  }

  async #untilQuiet(deadlineAtMs: number): Promise<void> {
    if (this.#openHandlers + this.#lifecycle.open === 0) return;
    await new Promise<void>((resolve) => {
      const stopWaiting = this.scheduler.after(Math.max(0, deadlineAtMs - this.clock.nowMs()), resolve);
      this.#whenQuiet = () => {
        stopWaiting();
        resolve();
      };
    });
    this.#whenQuiet = undefined;
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

function answer(entry: MailboxEntry, value: unknown): void {
  try {
    entry.sink.value(entry.senderId, entry.requestToken, value);
  } catch (error) {
    entry.sink.error(entry.senderId, entry.requestToken, ShardloomError.from(error));
  }
}

/** Asks the definition what a failure means; one whose judge fails too is restarted. */
function judge(activation: Activation, error: unknown): Directive {
  try {
    return activation.type.definition.options.restart.decide(error);
  } catch {
    return "restart"; // the state behind two failures is not to be trusted
  }
}

function outcomeOf(activation: Activation, entry: MailboxEntry, error: unknown, gaveUp: boolean): ShardloomError {
  if (ShardloomError.is(error)) return error;
  const reason: unknown = entry.controller?.signal.reason;
  if (gaveUp && ShardloomError.is(reason)) return reason;
  const { name } = activation.type.definition;
  const message = error instanceof Error ? error.message : String(error);
  return new ShardloomError("ERR_ACTOR_FAILED", `Handler ${name}.${entry.handler} failed: ${message}`, {
    cause: error,
    details: { actorName: name, key: activation.key, handler: entry.handler },
  });
}

function overloaded(activation: Activation, capacity: number): ShardloomError {
  const { name } = activation.type.definition;
  return new ShardloomError("ERR_OVERLOADED", `Cannot deliver message to ${name} as fewer than ${capacity} must wait: current value is ${capacity}`, {
    details: { actorName: name, key: activation.key, capacity },
  });
}

function expired(handler: string): ShardloomError {
  return new ShardloomError("ERR_TIMEOUT", `Message ${handler} passed its deadline before it started`, { details: { handler } });
}

function cancelled(handler: string): ShardloomError {
  return new ShardloomError("ERR_ABORTED", `Message ${handler} was cancelled`, { details: { handler } });
}

function closed(): ShardloomError {
  return new ShardloomError("ERR_CLOSED", "Cannot deliver message as the actor system is closed");
}
