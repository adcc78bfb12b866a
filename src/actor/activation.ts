/**
 * One virtual actor that is in memory now, and the type it belongs to.
 *
 * Invariant: an activation runs at most one message (`turn`) at a time; `phase` says which of its fields mean anything.
 * An idle one that never queued and never failed is this object, its context, its key and its state: everything else is
 * shared or absent.
 */

import type { Cancel } from "../runtime/scheduler.ts";
import { ActivationList } from "./activation-list.ts";
import { type ActorContext, TurnContext, type TurnHost } from "./context.ts";
import type { AnyActorDefinition, AnyHandler } from "./define-actor.ts";
import type { Mailbox, MailboxEntry } from "./mailbox.ts";
import { HEALTHY, type SupervisionState } from "./supervision.ts";

/**
 * Where an activation stands.
 *
 * `starting`: `init` or `onStart` has not settled · `idle`: no message runs · `running`: `turn` runs ·
 * `backing-off`: failed, waits to start again · `stopping`: `onStop` or `onPassivate` has not settled ·
 * `stopped`: spent its restart budget, refuses messages · `gone`: no longer in the table.
 */
export type Phase = "starting" | "idle" | "running" | "backing-off" | "stopping" | "stopped" | "gone";

/** A definition within one system. */
export class ActorType {
  readonly definition: AnyActorDefinition;
  readonly handlers: ReadonlyMap<string, AnyHandler>;
  readonly activations: Map<string, Activation> = new Map();
  /** All activations but the stopped ones, the one unused for longest first. */
  readonly byUse: ActivationList = new ActivationList();
  /** The stopped ones, the one stopped first at the front. */
  readonly stopped: ActivationList = new ActivationList();

  constructor(definition: AnyActorDefinition) {
    this.definition = definition;
    this.handlers = new Map(definition.handlerNames.map((name) => [name, definition.spec.handlers[name]]));
  }
}

/** Stands for the state while there is none. */
export const NO_STATE: unique symbol = Symbol("no state");

/** The activation of one key. */
export class Activation {
  readonly type: ActorType;
  readonly key: string;
  readonly context: ActorContext;
  phase: Phase = "starting";
  state: unknown = NO_STATE;
  /** The message that runs; only in phase `running`. */
  turn: MailboxEntry | undefined = undefined;
  /** Made when a message first has to wait. */
  mailbox: Mailbox | undefined = undefined;
  supervision: SupervisionState = HEALTHY;
  /** Stands in the queue of activations that have something to do. */
  isQueued = false;
  /** Ends the back-off; only in phase `backing-off`. */
  timer: Cancel | undefined = undefined;
  /** When it was last used, to the ms; only as fresh as the host's idea of now. */
  usedAtMs = 0;
  /** Neighbours in the list it is in. */
  previous: Activation | undefined = undefined;
  next: Activation | undefined = undefined;

  constructor(type: ActorType, key: string, host: TurnHost) {
    this.type = type;
    this.key = key;
    this.context = new TurnContext(this, host);
  }
}
