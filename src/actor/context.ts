/**
 * What a handler sees besides its state and its message.
 *
 * Invariant: one context lives as long as its activation, and what it says of "the message" is the one that runs; with none
 * running it says "no deadline, never aborted". An actor never waits for itself: asking one's own address from within a
 * message fails at once, as the answer could only come after the message that waits for it. A longer circle (A asks B,
 * B asks A) is ended by the deadline, which every nested ask inherits.
 */

import { ShardloomError } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import type { Activation } from "./activation.ts";
import { type ActorRef, type ActorSend, type AnyActorRef, type AskOptions, createActorRef } from "./actor-ref.ts";
import type { AnyActorDefinition } from "./define-actor.ts";
import { expired } from "./refusals.ts";
import type { OpenBarrier, OpenBarrierOptions, TickBarrier } from "./tick-barrier.ts";

/** What handlers and hooks get as their last argument. Good until what they return has settled. */
export interface ActorContext {
  readonly actorName: string;
  readonly key: string;
  /** This actor's own address, for telling itself something later. */
  readonly self: AnyActorRef;
  /**
   * Fires when the message is cancelled, when its deadline passes while it runs, or when the system closes.
   * Made when first looked at; a handler that does not look pays nothing.
   */
  readonly signal: AbortSignal;
  /** Time left until the deadline of the message, in ms, ≥ 0; `Infinity` without one. */
  readonly remainingMs: number;
  /** The address of another actor. Asks made through it end no later than the message that makes them. */
  actor<D extends AnyActorDefinition>(definition: D, key: string): ActorRef<D>;
  /**
   * Opens a tick barrier. The handle may outlive the message; close it in `onStop`, so that its members leave. A handler that
   * waits at a barrier holds its actor's mailbox meanwhile: give waits `context.signal`.
   */
  barrier(name: string, options?: OpenBarrierOptions): Promise<TickBarrier>;
  /**
   * Runs a synchronous call into native code (a database, a codec, an index) and tells the supervisor that it is one: such
   * a call may take as long as `maxNativeMs`, and is quarantined beyond that, never terminated.
   */
  native<T>(call: () => T): T;
}

/** What a context needs of its system. */
export interface TurnHost {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly send: ActorSend;
  /** Marks a native call on the thread's heartbeat. */
  readonly native: <T>(call: () => T) => T;
  /** How handlers open barriers; without it they cannot. */
  readonly barrier?: OpenBarrier | undefined;
}

const NEVER_ABORTED: AbortSignal = new AbortController().signal;

/** The context of one activation. */
export class TurnContext implements ActorContext {
  readonly #activation: Activation;
  readonly #host: TurnHost;

  constructor(activation: Activation, host: TurnHost) {
    this.#activation = activation;
    this.#host = host;
  }

  get actorName(): string {
    return this.#activation.type.definition.name;
  }

  get key(): string {
    return this.#activation.key;
  }

  get self(): AnyActorRef {
    return this.actor(this.#activation.type.definition, this.#activation.key) as AnyActorRef;
  }

  get remainingMs(): number {
    const deadlineAtMs = this.#activation.turn?.deadlineAtMs ?? 0;
    return deadlineAtMs === 0 ? Infinity : Math.max(0, deadlineAtMs - this.#host.clock.nowMs());
  }

  get signal(): AbortSignal {
    const { turn } = this.#activation;
    if (turn === undefined) return NEVER_ABORTED;
    if (turn.controller === undefined) {
      const controller = new AbortController();
      turn.controller = controller;
      if (turn.cancelled) controller.abort(new ShardloomError("ERR_ABORTED", `Message ${turn.handler} was cancelled`));
      else if (turn.deadlineAtMs !== 0) {
        turn.deadlineTimer = this.#host.scheduler.after(this.remainingMs, () => {
          controller.abort(new ShardloomError("ERR_TIMEOUT", `Message ${turn.handler} has passed its deadline`));
        });
      }
    }
    return turn.controller.signal;
  }

  actor<D extends AnyActorDefinition>(definition: D, key: string): ActorRef<D> {
    return createActorRef(definition, key, new TurnSend(this.#activation, this, this.#host.send));
  }

  async barrier(name: string, options?: OpenBarrierOptions): Promise<TickBarrier> {
    const open = this.#host.barrier;
    if (open !== undefined) return open(name, options);
    throw new ShardloomError("ERR_UNAVAILABLE", "Cannot open barrier as this actor's thread must belong to a cluster");
  }

  native<T>(call: () => T): T {
    return this.#host.native(call);
  }
}

/** Sends on behalf of an activation: adds the deadline, refuses what would wait for itself. */
class TurnSend implements ActorSend {
  readonly #activation: Activation;
  readonly #context: ActorContext;
  readonly #send: ActorSend;

  constructor(activation: Activation, context: ActorContext, send: ActorSend) {
    this.#activation = activation;
    this.#context = context;
    this.#send = send;
  }

  ask(
    actorName: string,
    key: string,
    handler: string,
    message: unknown,
    options: AskOptions | undefined,
  ): Promise<unknown> {
    const { turn, type } = this.#activation;
    if (turn === undefined) return this.#send.ask(actorName, key, handler, message, options);
    if (key === this.#activation.key && actorName === type.definition.name) {
      return Promise.reject(
        new ShardloomError(
          "ERR_INVALID_ARGUMENT",
          `Cannot ask ${actorName} as an actor must not wait for itself: current value is ${JSON.stringify(key)}`,
          {
            details: { actorName, key, handler },
          },
        ),
      );
    }
    if (turn.deadlineAtMs === 0) return this.#send.ask(actorName, key, handler, message, options);
    const { remainingMs } = this.#context;
    if (remainingMs <= 0) return Promise.reject(expired(turn.handler));
    const timeoutMs = Math.min(options?.timeoutMs ?? Infinity, remainingMs);
    return this.#send.ask(actorName, key, handler, message, { ...options, timeoutMs });
  }

  tell(actorName: string, key: string, handler: string, message: unknown): Promise<void> {
    return this.#send.tell(actorName, key, handler, message);
  }
}
