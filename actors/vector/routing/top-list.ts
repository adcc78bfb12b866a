/**
 * The best few of many numbered distances, kept sorted.
 *
 * Invariant: `ids[0..count)` are in the total order (distance, id), no id twice as long as the caller offers none twice.
 * For short lists only: an insertion moves what stands behind it.
 */
export class TopList {
  readonly limit: number;
  readonly ids: Int32Array;
  readonly distances: Float64Array;
  count = 0;

  /** @param limit How many are kept, at least 1. */
  constructor(limit: number) {
    this.limit = limit;
    this.ids = new Int32Array(limit);
    this.distances = new Float64Array(limit);
  }

  /** Distance that an id must beat to get in. */
  get bound(): number {
    return this.count < this.limit ? Number.POSITIVE_INFINITY : (this.distances[this.limit - 1] as number);
  }

  clear(): void {
    this.count = 0;
  }

  /** Whether the id got in. */
  offer(id: number, distance: number): boolean {
    const { ids, distances, limit } = this;
    let at = this.count;
    if (at === limit) {
      const last = distances[limit - 1] as number;
      if (!(distance < last || (distance === last && id < (ids[limit - 1] as number)))) return false;
      at--;
    } else {
      this.count++;
    }
    while (at > 0) {
      const before = distances[at - 1] as number;
      if (before < distance || (before === distance && (ids[at - 1] as number) < id)) break;
      distances[at] = before;
      ids[at] = ids[at - 1] as number;
      at--;
    }
    distances[at] = distance;
    ids[at] = id;
    return true;
  }
}
