/**
 * The shapes of partitions: which pairs of nodes a fault cuts.
 *
 * Invariant: a node always reaches itself. Pure: names in, pairs out.
 * Source: the grudges of Jepsen's nemesis (`bridge`, `majorities-ring`). Divergence: the ring is of neighbours, as the
 * rings of majorities need no extra shape here: two of its nodes that cannot reach each other may both reach a third.
 */
import type { FaultKind } from "./fault-types.ts";

/** A direction in which nothing arrives. */
export interface CutPair {
  readonly from: string;
  readonly to: string;
}

/** @param targets As the fault's kind orders them: see the fault table. */
export function cutPairs(kind: FaultKind, targets: readonly string[], nodes: readonly string[]): CutPair[] {
  switch (kind) {
    case "partition-one-way":
      return targets.slice(1).map((to) => ({ from: targets[0] as string, to }));
    case "partition":
      return bothWays(nodes, (one, other) => targets.includes(one) && !targets.includes(other));
    case "partition-bridge": {
      const [bridge, ...side] = targets;
      return bothWays(nodes, (one, other) => side.includes(one) && !side.includes(other) && other !== bridge);
    }
    case "partition-ring":
      return bothWays(nodes, (one, other) => one < other && !areNeighbours(targets, one, other));
    default:
      return [];
  }
}

function bothWays(nodes: readonly string[], isCut: (one: string, other: string) => boolean): CutPair[] {
  return nodes.flatMap((one) =>
    nodes.flatMap((other) =>
      one !== other && isCut(one, other)
        ? [
            { from: one, to: other },
            { from: other, to: one },
          ]
        : [],
    ),
  );
}

function areNeighbours(ring: readonly string[], one: string, other: string): boolean {
  const distance = Math.abs(ring.indexOf(one) - ring.indexOf(other));
  return distance === 1 || distance === ring.length - 1;
}
