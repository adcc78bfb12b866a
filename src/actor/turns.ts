/**
 * Runs messages: one at a time per actor, in order, each to exactly one outcome.
 *
 * Invariant: an activation in phase `running` has its message in `turn`, and no other is started before that one has settled;
 * whoever accepts a message here (`fill`) sees `pending` go up once and down once. A turn that ends within the call leaves
 * nothing behind: its entry is used again.
 * Source: Orleans' turn-based scheduler. Divergence: actors with mail are served round robin, a few messages each.
 */

import { ShardloomError } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import type { Scheduler } from "../runtime/scheduler.ts";
import type { ValueCodec } from "../wire/value-codec.ts";
import type { Activation } from "./activation.ts";
import type { Directive } from "./actor-options.ts";
import type { ActorSend } from "./actor-ref.ts";
import { AskIndex } from "./ask-index.ts";
import type { AnyHandler } from "./define-actor.ts";
import type { ActorCounters, DeadLetterReason, Delivery, ReplySink } from "./delivery.ts";
import { isThenable, Lifecycle, type LifecycleHost } from "./lifecycle.ts";
import { MailboxEntry } from "./mailbox.ts";
import { cancelled, expired, outcomeOf } from "./refusals.ts";
import { RingQueue } from "./ring-queue.ts";
import type { OpenBarrier } from "./tick-barrier.ts";

/** What turns need of their system. */
export interface TurnsOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly send: ActorSend;
  readonly native: <T>(call: () => T) => T;
  readonly barrier?: OpenBarrier | undefined;
  readonly codec: ValueCodec;
  readonly tally: ActorCounters;
  readonly onTurn?: (() => void) | undefined;
  readonly onEscalation?: ((actorName: string, key: string, error: unknown) => void) | undefined;
  readonly onDeadLetter?:
    | ((reason: DeadLetterReason, actorName: string, key: string, handler: string) => void)
    | undefined;
}

/** Messages that one actor may run before others get their turn. */
const TURNS_PER_ACTOR = 16;
/** Messages that run in one go before the event loop gets its turn. */
const RUN_LIMIT = 256;

/** The turns of all activations of one system. */
export class Turns implements LifecycleHost {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Random;
  readonly send: ActorSend;
  readonly native: <T>(call: () => T) => T;
  readonly barrier: OpenBarrier | undefined;
  readonly tally: ActorCounters;
  readonly lifecycle: Lifecycle;
  readonly asks: AskIndex = new AskIndex();
  /** Messages accepted that have no outcome yet. */
  pending = 0;
  /** Serves every message that ends within `deliver`. */
  spare: MailboxEntry = new MailboxEntry();
  readonly #options: TurnsOptions;
  readonly #ready: RingQueue<Activation> = new RingQueue();
  /** The activation whose mailbox is being worked through. */
  #draining: Activation | undefined = undefined;
  #runIsScheduled = false;
  #openHandlers = 0;
  #whenQuiet: (() => void) | undefined = undefined;

  constructor(options: TurnsOptions) {
    this.clock = options.clock;
    this.scheduler = options.scheduler;
    this.random = options.random;
    this.send = options.send;
    this.native = options.native;
    this.barrier = options.barrier;
    this.tally = options.tally;
    this.#options = options;
    this.lifecycle = new Lifecycle(this);
    this.lifecycle.nowMs = Math.floor(this.clock.nowMs());
  }

  /** Handlers, hooks, back-offs and scheduled runs that only the event loop brings forward. */
  get open(): number {
    return this.#openHandlers + this.lifecycle.open + (this.#runIsScheduled ? 1 : 0);
  }

  /** Whether some activation is idle and has messages. */
  get hasWork(): boolean {
    return this.#ready.size > 0;
  }

  /** Runs waiting messages, at most `limit`; from within a handler it does nothing. */
  run(limit: number): number {
    if (this.lifecycle.depth > 0) return 0;
    let count = 0;
    while (count < limit) {
      const activation = this.#ready.shift();
      if (activation === undefined) break;
      activation.isQueued = false;
      count += this.#drain(activation, Math.min(TURNS_PER_ACTOR, limit - count));
    }
    return count;
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

  /**
   * Accepts a message into an entry, decoding it if it came as bytes.
   *
   * @returns false when it cannot be decoded; it has been refused then
   */
  fill(entry: MailboxEntry, activation: Activation, handler: AnyHandler, delivery: Delivery, sink: ReplySink): boolean {
    let { message } = delivery;
    if (delivery.bytes !== undefined) {
      try {
        message =
          delivery.byteLength === 0
            ? undefined
            : this.#options.codec.decode(delivery.bytes, delivery.byteOffset, delivery.byteLength);
      } catch (error) {
        this.refuse(delivery, sink, "corrupt", ShardloomError.from(error, "ERR_CORRUPT"));
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
    this.pending++;
    return true;
  }

  /** Runs an accepted message on an idle activation. */
  execute(activation: Activation, entry: MailboxEntry): void {
    activation.phase = "running";
    activation.turn = entry;
    this.#options.onTurn?.();
    let result: unknown;
    this.lifecycle.depth++;
    try {
      result = entry.run.call(
        activation.type.definition.spec.handlers,
        activation.state,
        entry.message,
        activation.context,
      );
    } catch (error) {
      this.lifecycle.depth--;
      this.#failTurn(activation, entry, error);
      return;
    }
    this.lifecycle.depth--;
    if (isThenable(result)) this.#awaitTurn(activation, entry, result);
    else this.#completeTurn(activation, entry, result);
  }

  /** Refuses a message that was not accepted. */
  refuse(delivery: Delivery, sink: ReplySink, reason: DeadLetterReason, error: ShardloomError): void {
    this.tally.dead[reason]++;
    this.#options.onDeadLetter?.(reason, delivery.actorName, delivery.key, delivery.handler);
    if (delivery.ask) sink.error(delivery.senderId, delivery.requestToken, error);
  }

  drop(entry: MailboxEntry, reason: DeadLetterReason, error: ShardloomError): void {
    if (!this.#settle(entry)) return;
    const { activation } = entry;
    this.tally.dead[reason]++;
    this.#options.onDeadLetter?.(reason, activation.type.definition.name, activation.key, entry.handler);
    if (entry.ask) entry.sink.error(entry.senderId, entry.requestToken, error);
  }

  escalated(activation: Activation, error: unknown): void {
    this.#options.onEscalation?.(activation.type.definition.name, activation.key, error);
  }

  workEnded(): void {
    if (this.#openHandlers + this.lifecycle.open === 0) this.#whenQuiet?.();
  }

  /** Resolves when no handler, hook or back-off is open, or at the deadline. One caller at a time. */
  async untilQuiet(deadlineAtMs: number): Promise<void> {
    if (this.#openHandlers + this.lifecycle.open === 0) return;
    await new Promise<void>((resolve) => {
      const stopWaiting = this.scheduler.after(Math.max(0, deadlineAtMs - this.clock.nowMs()), resolve);
      this.#whenQuiet = () => {
        stopWaiting();
        resolve();
      };
    });
    this.#whenQuiet = undefined;
  }

  readonly #runScheduled = (): void => {
    this.run(RUN_LIMIT);
    this.#runIsScheduled = this.hasWork;
    // The rest runs after one turn of the event loop, so that I/O and timers are not starved.
    if (this.#runIsScheduled) this.scheduler.after(0, this.#runScheduled);
  };

  /** Works through one mailbox for as long as the actor is idle in between. */
  #drain(activation: Activation, limit: number): number {
    let count = 0;
    this.#draining = activation;
    while (activation.phase === "idle" && activation.mailbox !== undefined && count < limit) {
      const wish = activation.mailbox.shiftSystem();
      if (wish !== undefined) {
        this.lifecycle[wish](activation);
        continue;
      }
      const entry = activation.mailbox.shift();
      if (entry === undefined) break;
      count++;
      if (this.#mayStart(entry)) this.execute(activation, entry);
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

  #awaitTurn(activation: Activation, entry: MailboxEntry, result: PromiseLike<unknown>): void {
    if (entry === this.spare) this.spare = new MailboxEntry();
    if (entry.ask && !entry.indexed) this.asks.add(entry);
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
      this.lifecycle.fail(activation, error, directive);
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
    this.lifecycle.touch(activation);
    if (activation.mailbox?.isEmpty === false) this.ready(activation);
  }

  /** Marks that a message has its outcome. @returns false if it had one before */
  #settle(entry: MailboxEntry): boolean {
    entry.deadlineTimer?.();
    if (entry.settled) return false;
    entry.settled = true;
    this.pending--;
    if (entry.indexed) this.asks.remove(entry);
    return true;
  }
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
