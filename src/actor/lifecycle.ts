/**
 * How activations begin, fail, rest and end. Everything here may run hooks of the user, sync or async.
 *
 * Invariant: a phase changes here or in `actor-system.ts` and nowhere else; no message runs while a hook is open; messages
 * that arrive meanwhile wait and are served by whatever comes after (a fresh state) or refused with a reason.
 * Source: Orleans' activation lifecycle, Pekko's supervision. Divergence: queued messages survive a restart.
 */

import type { ShardloomError } from "../errors.ts";
import type { Random } from "../runtime/random.ts";
import { type Activation, NO_STATE } from "./activation.ts";
import type { Directive } from "./actor-options.ts";
import type { TurnHost } from "./context.ts";
import type { StopReason } from "./define-actor.ts";
import type { ActorCounters, DeadLetterReason } from "./delivery.ts";
import type { MailboxEntry } from "./mailbox.ts";
import { moved, restartBudgetSpent, stoppedOnDemand } from "./refusals.ts";
import { transition } from "./supervision.ts";

/** What the lifecycle needs of its system. */
export interface LifecycleHost extends TurnHost {
  readonly random: Random;
  readonly tally: ActorCounters;
  /** The activation is idle and has messages. */
  ready(activation: Activation): void;
  /** Ends a waiting message without running it. */
  drop(entry: MailboxEntry, reason: DeadLetterReason, error: ShardloomError): void;
  /** A hook or a back-off ended: {@link Lifecycle.open} went down. */
  workEnded(): void;
  escalated(activation: Activation, error: unknown): void;
}

/** The lifecycle of all activations of one system. */
export class Lifecycle {
  readonly #host: LifecycleHost;
  /** Open hooks and back-offs: work that only the event loop can bring forward. */
  open = 0;
  /** Frames of user code on the stack; while there are any, deliveries are queued instead of run in line. */
  depth = 0;
  /** Nothing starts any more. */
  isClosing = false;
  /** The host's idea of now, refreshed by its sweeps, in whole ms. */
  nowMs = 0;

  constructor(host: LifecycleHost) {
    this.#host = host;
  }

  /** Begins a new state. Ends in phase `idle`, `starting`, or whatever a failure leads to. */
  start(activation: Activation): void {
    const { spec } = activation.type.definition;
    activation.phase = "starting";
    let opening: PromiseLike<unknown> | undefined;
    this.depth++;
    try {
      const made: unknown = spec.init(activation.context);
      if (isThenable(made)) {
        opening = this.#startLater(activation, made);
      } else {
        activation.state = made;
        const started: unknown = spec.onStart?.(made, activation.context);
        if (isThenable(started)) opening = started;
      }
    } catch (error) {
      opening = rejected(error); // never at once: a start that fails at once must not recurse
    } finally {
      this.depth--;
    }
    if (opening === undefined) this.#started(activation);
    else
      this.#track(
        opening,
        () => this.#started(activation),
        (error) => this.fail(activation, error, "restart", true),
      );
  }

  /** Says that an activation was used, for the order in which idle ones go. */
  touch(activation: Activation): void {
    if (activation.usedAtMs === this.nowMs) return;
    activation.usedAtMs = this.nowMs;
    activation.type.byUse.moveToEnd(activation);
  }

  /** Takes the consequences of a failure. The message at fault has had its outcome. */
  fail(
    activation: Activation,
    error: unknown,
    directive: Exclude<Directive, "resume">,
    atStart: boolean = false,
  ): void {
    const policy = activation.type.definition.options.restart;
    const atMs = this.#host.clock.nowMs();
    const event =
      directive === "stop"
        ? ({ kind: "stop", atMs } as const)
        : ({ kind: "failed", atMs, jitter: this.#host.random.float(), atStart } as const);
    const next = transition(policy, activation.supervision, event);
    activation.supervision = next;
    const reason = next.kind === "stopped" ? "escalated" : "restart";
    this.#runStopHook(activation, reason, () => {
      if (next.kind === "backing-off") this.#backOff(activation, next.untilMs - atMs);
      else this.#escalate(activation, error);
    });
  }

  /** Drops the state of an idle activation, and the activation with it unless messages have arrived meanwhile. */
  passivate(activation: Activation): void {
    const { onPassivate } = activation.type.definition.spec;
    const done = (): void => {
      this.#host.tally.passivations++;
      this.#leave(activation);
    };
    if (onPassivate === undefined) done();
    else this.#runHook(activation, () => onPassivate(activation.state, activation.context), done);
  }

  /** Ends an idle activation for good: what waits is refused. */
  stop(activation: Activation): void {
    this.dropWaiting(activation, "stopped", () => stoppedOnDemand(activation));
    this.#runStopHook(activation, "stopped", () => this.#leave(activation));
  }

  /** Ends an idle activation that lives elsewhere from now on: what waits is refused. */
  move(activation: Activation): void {
    this.dropWaiting(activation, "stopped", () => moved(activation));
    this.#runStopHook(activation, "moved", () => this.#leave(activation));
  }

  /** Ends an activation as its system closes; one that runs or starts is left alone. */
  close(activation: Activation): void {
    if (activation.phase === "backing-off") {
      activation.timer?.();
      activation.timer = undefined;
      this.open--;
      activation.phase = "gone";
    } else if (activation.phase === "idle") {
      this.#runStopHook(activation, "closed", () => {
        activation.phase = "gone";
      });
    }
  }

  /** Refuses all that wait. */
  dropWaiting(activation: Activation, reason: DeadLetterReason, makeError: () => ShardloomError): void {
    for (let entry = activation.mailbox?.shift(); entry !== undefined; entry = activation.mailbox?.shift()) {
      this.#host.drop(entry, reason, makeError());
    }
  }

  async #startLater(activation: Activation, made: PromiseLike<unknown>): Promise<void> {
    activation.state = await made;
    await activation.type.definition.spec.onStart?.(activation.state, activation.context);
  }

  #started(activation: Activation): void {
    activation.phase = "idle";
    activation.usedAtMs = -1; // whenever it is, touching moves it
    this.touch(activation);
    if (activation.mailbox !== undefined && !activation.mailbox.isEmpty) this.#host.ready(activation);
  }

  #backOff(activation: Activation, delayMs: number): void {
    if (this.isClosing) {
      activation.phase = "gone";
    } else if (delayMs <= 0) {
      this.#restart(activation);
    } else {
      activation.phase = "backing-off";
      this.open++;
      activation.timer = this.#host.scheduler.after(delayMs, () => {
        activation.timer = undefined;
        this.open--;
        this.#restart(activation);
        this.#host.workEnded();
      });
    }
  }

  #restart(activation: Activation): void {
    const policy = activation.type.definition.options.restart;
    activation.supervision = transition(policy, activation.supervision, { kind: "back-off-over" });
    this.#host.tally.restarts++;
    this.start(activation);
  }

  /** Keeps the activation as a headstone, so that whoever asks learns why nobody answers. */
  #escalate(activation: Activation, error: unknown): void {
    activation.phase = "stopped";
    activation.usedAtMs = this.nowMs;
    activation.type.byUse.remove(activation);
    activation.type.stopped.append(activation);
    this.#host.tally.escalations++;
    this.dropWaiting(activation, "stopped", () => restartBudgetSpent(activation));
    activation.mailbox = undefined;
    this.#host.escalated(activation, error);
  }

  /** Removes an activation whose state is gone, or begins anew when messages wait. */
  #leave(activation: Activation): void {
    activation.state = NO_STATE;
    if (activation.mailbox !== undefined && activation.mailbox.size > 0 && !this.isClosing) {
      this.#host.tally.activations++;
      this.start(activation);
      return;
    }
    activation.phase = "gone";
    activation.mailbox = undefined;
    activation.type.byUse.remove(activation);
    activation.type.activations.delete(activation.key);
  }

  #runStopHook(activation: Activation, reason: StopReason, done: () => void): void {
    const { onStop } = activation.type.definition.spec;
    const { state } = activation;
    activation.state = NO_STATE;
    if (onStop === undefined || state === NO_STATE) done();
    else this.#runHook(activation, () => onStop(state, activation.context, reason), done);
  }

  /** Runs a hook that may fail without consequence other than being counted. */
  #runHook(activation: Activation, hook: () => unknown, done: () => void): void {
    activation.phase = "stopping";
    let result: unknown;
    this.depth++;
    try {
      result = hook();
    } catch {
      this.#host.tally.hookFailures++; // the state is being dropped either way; there is nobody to answer
    } finally {
      this.depth--;
    }
    if (!isThenable(result)) {
      done();
      return;
    }
    this.#track(result, done, () => {
      this.#host.tally.hookFailures++;
      done();
    });
  }

  #track(work: PromiseLike<unknown>, done: () => void, failed: (error: unknown) => void): void {
    this.open++;
    const end = (consequence: () => void): void => {
      this.open--;
      consequence();
      this.#host.workEnded();
    };
    Promise.resolve(work).then(
      () => end(done),
      (error: unknown) => end(() => failed(error)),
    );
  }
}

/** What user code threw, as a promise; it need not be an Error. */
async function rejected(error: unknown): Promise<never> {
  throw error;
}

/** Whether a value must be awaited. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}
