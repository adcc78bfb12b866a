/**
 * Searches of a collection that count who has answered, so that a test of a strategy does not hold on another's answers.
 *
 * Invariant: not all have to be its own, as on a busy machine some are answered otherwise; but many have to be, each time that it is looked at.
 */
import { expect } from "vitest";
import type { SearchOptions, SearchResult, StrategyName, VectorCollection } from "../../src/index.ts";

const LEAST_SHARE = 0.25;

export class OwnAnswers {
  readonly #docs: VectorCollection;
  readonly #by: StrategyName;
  #all = 0;
  #own = 0;

  /** @param by Who is to answer. */
  constructor(docs: VectorCollection, by: StrategyName = "one-sided") {
    this.#docs = docs;
    this.#by = by;
  }

  async search(vector: Float32Array, options: SearchOptions = { k: 1, ef: 100 }): Promise<SearchResult> {
    const found = await this.#docs.search(vector, options);
    this.#all++;
    if (found.by === this.#by) this.#own++;
    return found;
  }

  /** Of the searches since it was looked at last. */
  expectSome(when: string): void {
    expect(this.#own, `answers by ${this.#by} of ${this.#all} ${when}`).toBeGreaterThan(LEAST_SHARE * this.#all);
    this.#all = this.#own = 0;
  }
}
