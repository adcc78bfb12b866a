/**
 * Brings a shard's vertices to where a leaf table places them; once all shards have, mends the shard's lists, which name vertices where they were before.
 *
 * Invariant: a table's places count from when every shard has mended, so that a search of one label finds what it is led to there. A shard that has no
 * room for its vertices leaves them where they are, and nobody waits for it: searches that need no places find them. Owner thread only.
 */
import { PASSES_ENDED } from "../../../src/store/graph-layout.ts";
import { isFull, unlessFull } from "./graph-errors.ts";
import type { GraphRoot } from "./graph-root.ts";
import { allPlaced, noteMended, notePlaced } from "./leaf-table.ts";

/** Rows between two looks at the clock. */
const SLICE = 8;

/** What it works on. */
export interface LeafPlacementParts {
  readonly rowsUsed: () => number;
  /** False: another shard's part is on its way. @throws {ShardloomError} when there is no room. */
  readonly place: (row: number, version: number) => boolean;
  /** Has a pass of repair that is under way look at all vertices again. @returns the number of the first that ends having looked at all from now on */
  readonly freshPass: () => number;
  /** One slice of a pass of repair. @throws {ShardloomError} when there is no room */
  readonly sweep: (deadlineMs: number) => void;
  readonly nowMs: () => number;
}

export class LeafPlacement {
  readonly #root: GraphRoot;
  readonly #shard: number;
  readonly #parts: LeafPlacementParts;
  /** Versions by which the rows are looked at, and the next one of them; by which all were. */
  #placing = 0;
  #next = 0;
  #placed = 0;
  /** Versions by which lists are mended, and the pass that does it; by which they were. */
  #mending = 0;
  #pass = 0;
  #mended = 0;
  /** Version for which there was no room. */
  #givenUp = 0;

  constructor(root: GraphRoot, shard: number, parts: LeafPlacementParts) {
    this.#root = root;
    this.#shard = shard;
    this.#parts = parts;
  }

  /** Whether nothing is left to do for a table. */
  isSettled(version: number): boolean {
    if (version === this.#givenUp || version === this.#mended) return true;
    return version === this.#placed && allPlaced(this.#root, version) === undefined;
  }

  /** Whether the shard's vertices are where a table places them. */
  isPlaced(version: number): boolean {
    return version === this.#placed;
  }

  /** One slice for the table that there is now. @returns whether more is left that can be done at once */
  run(version: number, deadlineMs: number): boolean {
    if (this.isSettled(version)) return false;
    if (this.isPlaced(version)) return unlessFull(() => this.#mend(version, deadlineMs), false); // next time
    try {
      return this.#place(version, deadlineMs);
    } catch (error) {
      if (!isFull(error)) throw error;
      this.#givenUp = version;
      notePlaced(this.#root, this.#shard, -version);
      return false;
    }
  }

  /** Goes over all rows once; what is in a chunk of the right label stays there. */
  #place(version: number, deadlineMs: number): boolean {
    const { rowsUsed, place, nowMs } = this.#parts;
    if (this.#placing !== version) {
      this.#placing = version;
      this.#next = 0;
    }
    for (let count = 1; this.#next < rowsUsed(); count++) {
      if (!place(this.#next, version)) return false; // next time
      this.#next++;
      if (count % SLICE === 0 && nowMs() >= deadlineMs) return true;
    }
    this.#placed = version;
    notePlaced(this.#root, this.#shard, version);
    return true;
  }

  #mend(version: number, deadlineMs: number): boolean {
    const { freshPass, sweep, nowMs } = this.#parts;
    if (allPlaced(this.#root, version) !== true) return false; // next time
    if (this.#mending !== version) {
      this.#mending = version;
      this.#pass = freshPass();
    }
    if (!this.#hasEnded()) sweep(deadlineMs);
    if (!this.#hasEnded()) return nowMs() >= deadlineMs; // it waits for another shard's part otherwise
    this.#mended = version;
    noteMended(this.#root, this.#shard, version);
    return false;
  }

  /** Whether the pass that mends has, which may have gone on while documents waited to be linked. */
  #hasEnded(): boolean {
    const ended = this.#root.get(this.#root.partition(this.#shard) + PASSES_ENDED);
    return ((ended - this.#pass) | 0) >= 0;
  }
}
