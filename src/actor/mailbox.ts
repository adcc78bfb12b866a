/**
 * The messages that wait for one activation.
 *
 * Invariant: messages leave in the order they were accepted, so each sender's own order holds; at most `capacity` wait; what
 * the host itself wants from the actor (its system messages) leaves before any message of a user. A cancelled message leaves
 * its place at once.
 * Source: protoactor-go `actor/mailbox.go` (system queue before user queue). Divergence: single thread, so no atomics.
 */

import type { Cancel } from "../runtime/scheduler.ts";
import type { Activation } from "./activation.ts";
import type { AnyHandler } from "./define-actor.ts";
import type { ReplySink } from "./delivery.ts";
import { RingQueue } from "./ring-queue.ts";

/** One message, from acceptance until its outcome. */
export class MailboxEntry {
  activation!: Activation;
  handler = "";
  run!: AnyHandler;
  message: unknown = undefined;
  ask = false;
  /** Absolute, on the system's clock; 0 is none. */
  deadlineAtMs = 0;
  senderId = 0;
  requestToken = 0;
  sink!: ReplySink;
  /** Its outcome is known: whatever happens to its handler now answers nobody. */
  settled = false;
  /** Its sender gave it up. */
  cancelled = false;
  /** It stands in the table of asks that can be cancelled. */
  indexed = false;
  /** Exists only when the handler looked at `context.signal`. */
  controller: AbortController | undefined = undefined;
  deadlineTimer: Cancel | undefined = undefined;
}

/** What the host asks of an actor, ahead of its users' messages. */
export type SystemMessage = "passivate" | "stop" | "move";

/** A bounded queue with a system lane. */
export class Mailbox {
  readonly #capacity: number;
  readonly #entries: RingQueue<MailboxEntry> = new RingQueue();
  #system: SystemMessage | undefined = undefined;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Messages of users that wait. */
  get size(): number {
    return this.#entries.size;
  }

  /** Nothing waits in either lane. */
  get isEmpty(): boolean {
    return this.#entries.size === 0 && this.#system === undefined;
  }

  /** Accepts a message, unless the mailbox is full. */
  push(entry: MailboxEntry): boolean {
    if (this.#entries.size >= this.#capacity) return false;
    this.#entries.push(entry);
    return true;
  }

  /** Takes the next message of a user. */
  shift(): MailboxEntry | undefined {
    return this.#entries.shift();
  }

  /** Takes a message out wherever it stands. */
  remove(entry: MailboxEntry): boolean {
    return this.#entries.remove(entry);
  }

  /** The system lane holds one wish: `stop` and `move` outrank `passivate`, and what comes after them changes nothing. */
  pushSystem(message: SystemMessage): void {
    if (this.#system === undefined || this.#system === "passivate") this.#system = message;
  }

  /** Takes the host's wish. */
  shiftSystem(): SystemMessage | undefined {
    const message = this.#system;
    this.#system = undefined;
    return message;
  }
}
