/**
 * What passes the filters that a thread used of late: one set of vertices each.
 *
 * Invariant: at most {@link MOST_SETS} are kept; the one that was not used for longest gives its memory back. Copies of the codes of what passes
 * take {@link MOST_COPY_BYTES} at most, less in a small arena, and only those that were not used for a while are given up for others: two sets never drive each other out.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { GraphView } from "./graph/graph-view.ts";
import type { CopyRoom, PassingScan } from "./graph/passing-scan.ts";
import { type PassesAt, PassingVertices } from "./graph/passing-vertices.ts";

const MOST_SETS = 8;
/** Documents that one search looks at for a set that is not known yet: what that takes is about what some searches take. */
const MOST_LOOKED_AT = 2_048;
/** Copies of codes that a thread keeps, of all its filters, and the part of the arena that they may be. */
const MOST_COPY_BYTES: number = 16 * 1024 * 1024;
const COPY_SHARE = 1 / 16;
/** Searches after which copies that were not used may be given up. */
const IDLE_SEARCHES = 256;

interface UsedSet {
  readonly set: PassingVertices;
  /** Number of the search that used it last. */
  usedAt: number;
}

export class PassingSets implements CopyRoom {
  readonly #arena: Arena;
  /** In order of use, the least recent first. */
  readonly #sets: Map<string, UsedSet> = new Map();
  #searches = 0;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  /**
   * The vertices whose documents pass, as of now.
   *
   * @param view A current one.
   * @returns Undefined while they are not all known: each call looks at some more.
   * @throws {ShardloomError} `ERR_OUT_OF_MEMORY`.
   */
  of(key: string, view: GraphView, passes: PassesAt): PassingVertices | undefined {
    const used = this.#sets.get(key) ?? { set: new PassingVertices(this.#arena, this), usedAt: 0 };
    used.usedAt = ++this.#searches;
    this.#sets.delete(key);
    this.#sets.set(key, used);
    const oldest = this.#sets.size > MOST_SETS ? this.#sets.keys().next().value : undefined;
    if (oldest !== undefined) {
      this.#sets.get(oldest)?.set.close();
      this.#sets.delete(oldest);
    }
    return used.set.update(view, MOST_LOOKED_AT, passes) ? used.set : undefined;
  }

  claim(scan: PassingScan, byteLength: number): boolean {
    const scans = [...this.#sets.values()].map(({ set, usedAt }) => ({ scan: set.scan, usedAt }));
    const room = Math.min(MOST_COPY_BYTES, COPY_SHARE * this.#arena.capacityBytes);
    let left = room - scans.reduce((sum, of) => sum + of.scan.copyBytes, 0);
    for (const { scan: other, usedAt } of scans) {
      if (left >= byteLength || byteLength > room) break;
      if (other === scan || this.#searches - usedAt < IDLE_SEARCHES) continue;
      left += other.copyBytes;
      other.dropCopies();
    }
    return left >= byteLength;
  }

  close(): void {
    for (const { set } of this.#sets.values()) set.close();
    this.#sets.clear();
  }
}
