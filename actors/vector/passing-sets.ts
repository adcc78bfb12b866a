/**
 * What passes the filters that a thread used of late: one set of vertices each.
 *
 * Invariant: at most {@link MOST_SETS} are kept; the one that was not used for longest gives its memory back.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { GraphView } from "./graph/graph-view.ts";
import { type PassesAt, PassingVertices } from "./graph/passing-vertices.ts";

const MOST_SETS = 8;
/** Documents that one search looks at for a set that is not known yet: what that takes is about what some searches take. */
const MOST_LOOKED_AT = 2_048;

export class PassingSets {
  readonly #arena: Arena;
  /** In order of use, the least recent first. */
  readonly #sets: Map<string, PassingVertices> = new Map();

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
    const set = this.#sets.get(key) ?? new PassingVertices(this.#arena);
    this.#sets.delete(key);
    this.#sets.set(key, set);
    const oldest = this.#sets.size > MOST_SETS ? this.#sets.keys().next().value : undefined;
    if (oldest !== undefined) {
      this.#sets.get(oldest)?.close();
      this.#sets.delete(oldest);
    }
    return set.update(view, MOST_LOOKED_AT, passes) ? set : undefined;
  }

  close(): void {
    for (const set of this.#sets.values()) set.close();
    this.#sets.clear();
  }
}
