/**
 * Collects what one rule finds, so that a rule that is broken everywhere does not bury the others.
 *
 * Invariant: a rule that found something reports something: the first {@link MAX_FINDINGS}, and how many more there were.
 */
import type { HistoryEntry, Violation } from "./history-types.ts";

/** Violations of one rule that are reported in full. */
export const MAX_FINDINGS = 16;

export class Findings {
  readonly #rule: string;
  readonly #violations: Violation[] = [];
  #more = 0;

  constructor(rule: string) {
    this.#rule = rule;
  }

  add(message: string, entries: readonly HistoryEntry[] = []): void {
    if (this.#violations.length === MAX_FINDINGS) this.#more++;
    else this.#violations.push({ rule: this.#rule, message, entries });
  }

  get violations(): readonly Violation[] {
    if (this.#more === 0) return this.#violations;
    return [...this.#violations, { rule: this.#rule, message: `and ${this.#more} more`, entries: [] }];
  }
}
