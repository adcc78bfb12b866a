/**
 * What a shard found for the queries of one request: rows and scores, in arrays that grow.
 *
 * Invariant: the hits of a query lie together, best first, and those of later queries behind them.
 */

/** Hits of the queries of one request, back to back. */
export class SearchResult {
  rows: Int32Array = new Int32Array(256);
  scores: Float64Array = new Float64Array(256);
  /** Hits in `rows`. */
  count = 0;

  push(row: number, score: number): void {
    if (this.count === this.rows.length) {
      const rows = new Int32Array(this.count * 2);
      const scores = new Float64Array(this.count * 2);
      rows.set(this.rows);
      scores.set(this.scores);
      this.rows = rows;
      this.scores = scores;
    }
    this.rows[this.count] = row;
    this.scores[this.count++] = score;
  }
}
