/**
 * Improves a packing by single moves and by swaps, each of which lessens the affinity that crosses partitions.
 *
 * Invariant: no partition grows beyond the capacity or loses its last vectors, and the cut never grows. Deterministic: leaves in order, ties to the lowest.
 * Cost: at most {@link MOST_PASSES} passes; a pass looks at every leaf for each leaf that another partition draws.
 * Source: Fiduccia and Mattheyses, DAC 1982. Divergence: only steps that gain, no hill climbing; swaps as the partitions are full.
 */
import type { LeafAffinity } from "./leaf-affinity.ts";
import { SLICE_GROUPS, type Steps, within } from "./steps.ts";

const MOST_PASSES = 20;
/** Leaves a slice, where each may look at every other. */
const SLICE_SWAPS = 16;
const LEAST_GAIN = 1e-9;

/** Share of the affinity between leaves of different partitions. */
export function cutOf(partitionOf: Int32Array, affinity: LeafAffinity): number {
  const { starts, leaves, weights } = affinity;
  let cut = 0;
  let total = 0;
  for (let leaf = 0; leaf < partitionOf.length; leaf++) {
    for (let at = starts[leaf] as number; at < (starts[leaf + 1] as number); at++) {
      const weight = weights[at] as number;
      total += weight;
      if (partitionOf[leaves[at] as number] !== partitionOf[leaf]) cut += weight;
    }
  }
  return total > 0 ? cut / total : 0;
}

/** Changes `partitionOf` and `loads` in place. */
export function* refinePacking(
  partitionOf: Int32Array,
  loads: Int32Array,
  counts: Int32Array,
  affinity: LeafAffinity,
  capacity: number,
): Steps<void> {
  const refinement = new Refinement(partitionOf, loads, counts, affinity, capacity);
  for (let pass = 0; pass < MOST_PASSES; pass++)
    if (!(yield* within(refinement.pass(), pass / MOST_PASSES, (pass + 1) / MOST_PASSES))) return;
}

class Refinement {
  readonly #partitionOf: Int32Array;
  readonly #loads: Int32Array;
  readonly #counts: Int32Array;
  readonly #affinity: LeafAffinity;
  readonly #capacity: number;
  /** Affinity of each leaf with each partition. */
  readonly #pull: Float64Array;
  /** The row of one leaf, spread out. */
  readonly #row: Float64Array;

  constructor(
    partitionOf: Int32Array,
    loads: Int32Array,
    counts: Int32Array,
    affinity: LeafAffinity,
    capacity: number,
  ) {
    this.#partitionOf = partitionOf;
    this.#loads = loads;
    this.#counts = counts;
    this.#affinity = affinity;
    this.#capacity = capacity;
    this.#pull = new Float64Array(partitionOf.length * loads.length);
    this.#row = new Float64Array(partitionOf.length);
    for (let leaf = 0; leaf < partitionOf.length; leaf++) this.#spread(leaf, partitionOf[leaf] as number, 1);
  }

  /** Whether anything was gained. */
  *pass(): Steps<boolean> {
    const leaves = this.#partitionOf.length;
    let gained = false;
    for (let leaf = 0; leaf < leaves; leaf++) {
      if (leaf % SLICE_GROUPS === 0) yield (0.5 * leaf) / leaves;
      gained = this.#moveOne(leaf) || gained;
    }
    for (let leaf = 0; leaf < leaves; leaf++) {
      if (leaf % SLICE_SWAPS === 0) yield 0.5 + (0.5 * leaf) / leaves;
      gained = this.#swapOne(leaf) || gained;
    }
    return gained;
  }

  #moveOne(leaf: number): boolean {
    const from = this.#partitionOf[leaf] as number;
    const count = this.#counts[leaf] as number;
    if (count > 0 && count === this.#loads[from]) return false; // all that it has
    let best = -1;
    let most = LEAST_GAIN;
    for (let p = 0; p < this.#loads.length; p++) {
      if (p === from || (this.#loads[p] as number) + count > this.#capacity) continue;
      const gain = this.#gain(leaf, p);
      if (gain <= most) continue;
      most = gain;
      best = p;
    }
    if (best < 0) return false;
    this.#move(leaf, best);
    return true;
  }

  /** Swaps a leaf with one of the partition that draws it most, where there is no room for it alone. */
  #swapOne(leaf: number): boolean {
    const from = this.#partitionOf[leaf] as number;
    let to = from;
    for (let p = 0; p < this.#loads.length; p++) if (this.#gain(leaf, p) > this.#gain(leaf, to)) to = p;
    const drawn = this.#gain(leaf, to);
    if (drawn <= LEAST_GAIN) return false;
    const { starts, leaves, weights } = this.#affinity;
    const end = starts[leaf + 1] as number;
    for (let at = starts[leaf] as number; at < end; at++) this.#row[leaves[at] as number] = weights[at] as number;
    let partner = -1;
    let most = LEAST_GAIN;
    for (let other = 0; other < this.#partitionOf.length; other++) {
      if (this.#partitionOf[other] !== to) continue;
      const gain = drawn + this.#gain(other, from) - 2 * (this.#row[other] as number);
      if (gain <= most || !this.#fits(leaf, other)) continue;
      most = gain;
      partner = other;
    }
    for (let at = starts[leaf] as number; at < end; at++) this.#row[leaves[at] as number] = 0;
    if (partner < 0) return false;
    this.#move(leaf, to);
    this.#move(partner, from);
    return true;
  }

  #fits(a: number, b: number): boolean {
    const difference = (this.#counts[b] as number) - (this.#counts[a] as number);
    const loadOfA = this.#loads[this.#partitionOf[a] as number] as number;
    const loadOfB = this.#loads[this.#partitionOf[b] as number] as number;
    const [afterA, afterB] = [loadOfA + difference, loadOfB - difference];
    return afterA > 0 && afterB > 0 && afterA <= this.#capacity && afterB <= this.#capacity;
  }

  #gain(leaf: number, to: number): number {
    const at = leaf * this.#loads.length;
    return (this.#pull[at + to] as number) - (this.#pull[at + (this.#partitionOf[leaf] as number)] as number);
  }

  #move(leaf: number, to: number): void {
    const from = this.#partitionOf[leaf] as number;
    const count = this.#counts[leaf] as number;
    this.#loads[from] = (this.#loads[from] as number) - count;
    this.#loads[to] = (this.#loads[to] as number) + count;
    this.#partitionOf[leaf] = to;
    this.#spread(leaf, from, -1);
    this.#spread(leaf, to, 1);
  }

  /** Tells the neighbours of a leaf that it is (1) or is no longer (−1) in a partition. */
  #spread(leaf: number, partition: number, sign: number): void {
    const { starts, leaves, weights } = this.#affinity;
    for (let at = starts[leaf] as number; at < (starts[leaf + 1] as number); at++) {
      const index = (leaves[at] as number) * this.#loads.length + partition;
      this.#pull[index] = (this.#pull[index] as number) + sign * (weights[at] as number);
    }
  }
}
