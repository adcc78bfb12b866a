/**
 * Finds an open ask by what its sender calls it, so that it can be cancelled.
 *
 * Invariant: holds exactly the asks that wait or run asynchronously; one that is answered within `deliver` never enters.
 */

import type { MailboxEntry } from "./mailbox.ts";

/** Open asks by sender and request token. */
export class AskIndex {
  readonly #bySender: Map<number, Map<number, MailboxEntry>> = new Map();

  add(entry: MailboxEntry): void {
    let asks = this.#bySender.get(entry.senderId);
    if (asks === undefined) {
      asks = new Map();
      this.#bySender.set(entry.senderId, asks);
    }
    asks.set(entry.requestToken, entry);
    entry.indexed = true;
  }

  find(senderId: number, requestToken: number): MailboxEntry | undefined {
    return this.#bySender.get(senderId)?.get(requestToken);
  }

  /** Takes an ask out, unless its token has been used again meanwhile. */
  remove(entry: MailboxEntry): void {
    if (!entry.indexed) return;
    entry.indexed = false;
    const asks = this.#bySender.get(entry.senderId);
    if (asks?.get(entry.requestToken) !== entry) return;
    asks.delete(entry.requestToken);
    if (asks.size === 0) this.#bySender.delete(entry.senderId);
  }
}
