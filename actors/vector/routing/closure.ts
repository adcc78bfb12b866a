/**
 * Border vectors stand in more than one group: those nearly as near as the nearest, unless one chosen already lies between.
 *
 * Invariant: the nearest group is always chosen and comes first; no group is chosen that is nearer to a chosen group than the
 * vector is to it (relative neighbourhood rule), so that copies go to different sides and not into one crowd.
 * Source: Chen et al., "SPANN", NeurIPS 2021, section 3.2.2 (closure assignment, RNG rule).
 */
import type { CodeTable } from "./code-table.ts";
import type { TopList } from "./top-list.ts";

export interface ClosureOptions {
  /** How much farther than the nearest, as a share of its distance (not of its square), a group may be. */
  readonly slack: number;
  /** Groups a vector may stand in, at least 1. */
  readonly copies: number;
}

/**
 * Chooses the groups of one vector among its nearest, in order.
 *
 * @param groups Centroids, under the metric that groups.
 * @param top The vector's nearest groups, best first, not empty.
 * @param into Filled from the front.
 * @returns How many were chosen.
 */
export function chooseGroups(groups: CodeTable, top: TopList, options: ClosureOptions, into: Int32Array): number {
  const { ids, distances, count } = top;
  // Squared distances grow with the square of the slack; 1 − cosine is half of a squared distance.
  const bound = (distances[0] as number) * (1 + options.slack) ** 2;
  const most = Math.min(options.copies, into.length);
  into[0] = ids[0] as number;
  let chosen = 1;
  for (let i = 1; i < count && chosen < most; i++) {
    const distance = distances[i] as number;
    if (distance > bound) break;
    let hidden = false;
    for (let j = 0; j < chosen && !hidden; j++) hidden = groups.between(into[j] as number, ids[i] as number) < distance;
    if (!hidden) into[chosen++] = ids[i] as number;
  }
  return chosen;
}
