/**
 * What one collaborative search took on all shards: summed by the token on its last way round, and told with the result.
 *
 * Invariant: whoever causes a cost counts it, once: the shard that asks counts the distances that it asked for and the answers to it, so
 * that owners count nothing. The counts are whole when a search ended by its ring; of one that was cut short they are the leader's alone.
 */

/** Counts of one search. Each is a u32 on the wire. */
export interface CotraTally {
  /** Distances computed, wherever. */
  computations: number;
  /** Of these, by one-sided reads of another shard's codes. */
  pulled: number;
  /** Of these, by another worker than that of the vertices' shard, which had more to do than it could. */
  stolen: number;
  /** One-sided reads of another shard's adjacency records. */
  listReads: number;
  /** Messages that asked an owner for distances. */
  pushes: number;
  /** Messages between shards, of all kinds. */
  messages: number;
  /** Bytes of these messages and of the one-sided reads, codes that other workers took over included. */
  bytes: number;
}

export const TALLY_BYTES = 28;

export function createTally(): CotraTally {
  return { computations: 0, pulled: 0, stolen: 0, listReads: 0, pushes: 0, messages: 0, bytes: 0 };
}

export function sumOf(a: CotraTally, b: CotraTally): CotraTally {
  return {
    computations: a.computations + b.computations,
    pulled: a.pulled + b.pulled,
    stolen: a.stolen + b.stolen,
    listReads: a.listReads + b.listReads,
    pushes: a.pushes + b.pushes,
    messages: a.messages + b.messages,
    bytes: a.bytes + b.bytes,
  };
}

/** Another worker than the vertices' own has computed, from codes that it read where they lie. */
export function countStolen(tally: CotraTally, vertices: number, codeBytes: number): void {
  tally.stolen += vertices;
  tally.bytes += vertices * codeBytes;
}

/** One member's counts of a search, and those that the token told it. */
export class TallyBook {
  readonly own: CotraTally = createTally();
  #carried: CotraTally = createTally();
  #generation = -1;

  countMessage(byteLength: number): void {
    this.own.messages++;
    this.own.bytes += byteLength;
  }

  /** A token came: those of older generations are dropped, as the ring drops them. */
  accept(generation: number, tally: CotraTally): void {
    if (generation < this.#generation) return;
    this.#generation = generation;
    this.#carried = tally;
  }

  /** Of this member and of those that the last token had visited. */
  get total(): CotraTally {
    return sumOf(this.#carried, this.own);
  }
}
