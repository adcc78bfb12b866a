/**
 * Which numbered messages of one sender have come in, whatever their order.
 *
 * Invariant: a number is accepted once. Memory is bounded: numbers more than {@link MAX_AHEAD} beyond the first that is missing are
 * refused as `overrun`, which a sender that is not broken never causes.
 */

/** Numbers that may be kept beyond the first that is missing. */
export const MAX_AHEAD = 4096;

/** Numbers seen, starting at 0. */
export class SequenceWindow {
  #next = 0;
  readonly #ahead = new Set<number>();

  accept(sequence: number): "new" | "duplicate" | "overrun" {
    if (sequence < this.#next || this.#ahead.has(sequence)) return "duplicate";
    if (sequence > this.#next + MAX_AHEAD) return "overrun";
    this.#ahead.add(sequence);
    while (this.#ahead.delete(this.#next)) this.#next++;
    return "new";
  }
}

/** The numbers of one search's messages, both ways, by peer. */
export class PeerSequences {
  readonly #windows = new Map<number, SequenceWindow>();
  readonly #sent = new Map<number, number>();

  /** The number of the next message to a peer. */
  next(peer: number): number {
    const sequence = this.#sent.get(peer) ?? 0;
    this.#sent.set(peer, sequence + 1);
    return sequence;
  }

  /** What a number of a message from a peer says. */
  accept(peer: number, sequence: number): ReturnType<SequenceWindow["accept"]> {
    let window = this.#windows.get(peer);
    if (window === undefined) {
      window = new SequenceWindow();
      this.#windows.set(peer, window);
    }
    return window.accept(sequence);
  }
}
