/**
 * The errors by which an actor system says that a message was not handled, or how its handling failed.
 *
 * Invariant: each is made in one place, so that the same mishap has the same code, words and details wherever it happens.
 */

import { describeValue, ShardloomError } from "../errors.ts";
import type { Activation } from "./activation.ts";
import type { MailboxEntry } from "./mailbox.ts";

/** The error of whoever asks an actor that has been stopped. */
export function restartBudgetSpent(activation: Activation): ShardloomError {
  const { name, options } = activation.type.definition;
  const { maxRestarts, withinMs } = options.restart;
  return new ShardloomError(
    "ERR_RESTART_BUDGET",
    `Actor ${name} is stopped as it failed more than ${maxRestarts} times within ${withinMs} ms`,
    {
      details: { actorName: name, key: activation.key, maxRestarts, withinMs },
    },
  );
}

/** The actor was ended by its host. */
export function stoppedOnDemand(activation: Activation): ShardloomError {
  const { name } = activation.type.definition;
  return new ShardloomError("ERR_UNAVAILABLE", `Actor ${name} was stopped`, {
    details: { actorName: name, key: activation.key },
  });
}

/** Another shard hosts the actor by now. */
export function moved(activation: Activation): ShardloomError {
  const { name } = activation.type.definition;
  return new ShardloomError("ERR_UNAVAILABLE", `Cannot deliver message as actor ${name} has moved to another shard`, {
    details: { actorName: name, key: activation.key },
  });
}

/** No such actor (`handler` undefined), or no such handler on it. */
export function unknownTarget(actorName: string, handler: string | undefined): ShardloomError {
  const what = handler === undefined ? actorName : `${actorName}.${handler}`;
  const message = `Cannot deliver message as its actor and handler must be defined: current value is ${JSON.stringify(what)}`;
  return new ShardloomError("ERR_UNKNOWN_ACTOR", message, { details: { actorName, handler } });
}

/** The mailbox is full. */
export function overloaded(activation: Activation, capacity: number): ShardloomError {
  const { name } = activation.type.definition;
  return new ShardloomError(
    "ERR_OVERLOADED",
    `Cannot deliver message to ${name} as fewer than ${capacity} must wait: current value is ${capacity}`,
    {
      details: { actorName: name, key: activation.key, capacity },
    },
  );
}

/** The deadline passed while the message waited. */
export function expired(handler: string): ShardloomError {
  return new ShardloomError("ERR_TIMEOUT", `Message ${handler} passed its deadline before it started`, {
    details: { handler },
  });
}

/** The sender gave the message up. */
export function cancelled(handler: string): ShardloomError {
  return new ShardloomError("ERR_ABORTED", `Message ${handler} was cancelled`, { details: { handler } });
}

/** The system closes or is closed. */
export function closed(): ShardloomError {
  return new ShardloomError("ERR_CLOSED", "Cannot deliver message as the actor system is closed");
}

/** What the sender of a message whose handler threw gets to see. `gaveUp`: its signal had fired before. */
export function outcomeOf(
  activation: Activation,
  entry: MailboxEntry,
  error: unknown,
  gaveUp: boolean,
): ShardloomError {
  if (ShardloomError.is(error)) return error;
  const reason: unknown = entry.controller?.signal.reason;
  if (gaveUp && ShardloomError.is(reason)) return reason;
  const { name } = activation.type.definition;
  const message = error instanceof Error ? error.message : describeValue(error);
  return new ShardloomError("ERR_ACTOR_FAILED", `Handler ${name}.${entry.handler} failed: ${message}`, {
    cause: error,
    details: { actorName: name, key: activation.key, handler: entry.handler },
  });
}
