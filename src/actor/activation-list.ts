/**
 * An order of activations, kept in the activations themselves.
 *
 * Invariant: an activation is in one list at most; no operation allocates, so touching an actor after each message is free
 * of garbage. Cost: O(1) each.
 */

import type { Activation } from "./activation.ts";

/** A doubly linked list through `previous` and `next` of its members. */
export class ActivationList {
  /** The member that has been in place longest. */
  first: Activation | undefined = undefined;
  #last: Activation | undefined = undefined;

  /** Adds at the end. The activation must be in no list. */
  append(activation: Activation): void {
    activation.previous = this.#last;
    if (this.#last === undefined) this.first = activation;
    else this.#last.next = activation;
    this.#last = activation;
  }

  /** Takes a member out. */
  remove(activation: Activation): void {
    const { previous, next } = activation;
    if (previous === undefined) this.first = next;
    else previous.next = next;
    if (next === undefined) this.#last = previous;
    else next.previous = previous;
    activation.previous = undefined;
    activation.next = undefined;
  }

  /** Makes a member the last one. */
  moveToEnd(activation: Activation): void {
    if (this.#last === activation) return;
    this.remove(activation);
    this.append(activation);
  }
}
