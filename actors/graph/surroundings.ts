/**
 * What the peers of a shard have at one moment, as far as builds of its adjacency need it: how many vertices, and which were removed.
 *
 * Invariant: of each peer the number of removals is read before the flags, so that there may be more of them than counted, never fewer:
 * who knows of as many removals as are counted has seen all their flags.
 */
import type { Arena } from "../../native-bridge/arena.ts";
import type { RegionRef } from "../../native-bridge/region-layout.ts";
import type { Removals } from "./edge-changes.ts";
import { ROOT_WORD } from "./graph-root.ts";
import { goneAt } from "./vertex-table.ts";

export interface Surroundings {
  /** By shard, a number above all local numbers of its vertices. */
  readonly targetRows: number[];
  readonly removals: Removals;
}

/** @param peers Roots of all shards, as far as they are known. */
export function surroundingsOf(
  arena: Arena,
  shard: number,
  shards: number,
  own: RegionRef,
  peers: readonly RegionRef[],
): Surroundings {
  const targetRows: number[] = [];
  const targets: Removals["targets"][number][] = [];
  let stamp = 0;
  for (let peer = 0; peer < shards; peer++) {
    const { address = 0 } = (peer === shard ? own : peers[peer]) ?? {};
    const word = (at: number): number => (address === 0 ? 0 : Atomics.load(arena.u32, (address >>> 2) + at));
    stamp += word(ROOT_WORD.removed);
    targets.push(address === 0 ? undefined : goneAt(arena, address));
    targetRows.push(word(ROOT_WORD.vertices));
  }
  return { targetRows, removals: { stamp, rows: targets[shard], targets } };
}
