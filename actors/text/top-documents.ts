/**
 * The best k documents of a search, in a bounded heap under the total order (score descending, id ascending).
 *
 * Invariant: `take` gives the same list whatever the order of the offers. Ids are looked at for equal scores only.
 */
import { compareIds, type RankPosition } from "../../src/routing/ranked.ts";
import type { DocumentId } from "../../src/store/id-codec.ts";

export class TopDocuments {
  /** Filled by {@link take}, best first. */
  readonly rows: number[] = [];
  readonly scores: number[] = [];
  /** A score below this cannot enter; −1 while there is room. */
  floor = -1;
  readonly #idOf: (row: number) => DocumentId;
  #limit = 0;
  #after: RankPosition | undefined;

  constructor(idOf: (row: number) => DocumentId) {
    this.#idOf = idOf;
  }

  /** @param after Only what ranks strictly behind it is kept. */
  begin(limit: number, after?: RankPosition): void {
    this.#after = after;
    this.#limit = limit;
    this.rows.length = this.scores.length = 0;
    this.floor = -1;
  }

  offer(row: number, score: number): void {
    if (score < this.floor) return;
    if (this.#after !== undefined && !this.#isBehind(row, score, this.#after)) return;
    const { rows, scores } = this;
    if (rows.length < this.#limit) {
      let child = rows.push(row) - 1;
      scores.push(score);
      while (child > 0) {
        const parent = (child - 1) >> 1;
        if (!this.#isWorse(row, score, rows[parent] as number, scores[parent] as number)) break;
        this.#swap(child, parent);
        child = parent;
      }
    } else if (this.#isWorse(rows[0] as number, scores[0] as number, row, score)) {
      rows[0] = row;
      scores[0] = score;
      this.#sink(rows.length);
    }
    if (rows.length === this.#limit) this.floor = scores[0] as number;
  }

  /** Sorts what was kept. Offers end here. */
  take(): void {
    for (let end = this.rows.length - 1; end > 0; end--) {
      this.#swap(0, end);
      this.#sink(end);
    }
  }

  #sink(length: number): void {
    const { rows, scores } = this;
    for (let at = 0; ; ) {
      let child = 2 * at + 1;
      if (child >= length) return;
      if (child + 1 < length && this.#isWorseAt(child + 1, child)) child++;
      if (!this.#isWorse(rows[child] as number, scores[child] as number, rows[at] as number, scores[at] as number))
        return;
      this.#swap(at, child);
      at = child;
    }
  }

  #isBehind(row: number, score: number, after: RankPosition): boolean {
    return score === after.score ? compareIds(this.#idOf(row), after.id) > 0 : score < after.score;
  }

  #isWorseAt(a: number, b: number): boolean {
    const { rows, scores } = this;
    return this.#isWorse(rows[a] as number, scores[a] as number, rows[b] as number, scores[b] as number);
  }

  #isWorse(rowA: number, scoreA: number, rowB: number, scoreB: number): boolean {
    if (scoreA !== scoreB) return scoreA < scoreB;
    return compareIds(this.#idOf(rowA), this.#idOf(rowB)) > 0;
  }

  #swap(a: number, b: number): void {
    const { rows, scores } = this;
    const row = rows[a] as number;
    const score = scores[a] as number;
    rows[a] = rows[b] as number;
    scores[a] = scores[b] as number;
    rows[b] = row;
    scores[b] = score;
  }
}
