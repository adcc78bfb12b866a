/**
 * How much each member of a placement should hold: shares by weight, cut off where a member or a zone can hold no more.
 *
 * Invariant: a placement exists in which every member holds the floor or the ceiling of its share and every vshard keeps the
 * bounds of its zones. The shares divided by the number of vshards are a fractional placement of one vshard; the constraints
 * (vshard, zone, member) are laminar, so a whole-numbered one exists too (total unimodularity).
 */

/** Members by index: what shares are computed from. */
export interface ShareInput {
  /** Shape: `Float64Array[members]`, all above 0. */
  readonly weights: Float64Array;
  /** Shape: `Uint16Array[members]`, indices from 0 without a gap. */
  readonly zoneOf: Uint16Array;
  readonly vshards: number;
  /** Copies of each vshard, at most the number of members. */
  readonly width: number;
}

/** What each member should hold, and how many copies of one vshard a zone may. */
export interface Shares {
  /** Shape: `Int32Array[members]`: bounds of the copies on a member; they differ by at most one. */
  readonly copiesLow: Int32Array;
  readonly copiesHigh: Int32Array;
  /** Shape: `Int32Array[members]`: bounds of the primaries on a member, reached where the copies allow it. */
  readonly primariesLow: Int32Array;
  readonly primariesHigh: Int32Array;
  /** Shape: `Int32Array[zones]`: bounds of the copies of one vshard in a zone: no zone has two before all have one, and so on. */
  readonly zoneLow: Int32Array;
  readonly zoneHigh: Int32Array;
}

/** Shares are whole when they are this close to a whole number. */
const EPSILON = 1e-6;
/** Halvings of the level's range: enough for every bit of a float64. */
const HALVINGS = 100;

/** Cost: O(members × halvings). */
export function computeShares(input: ShareInput): Shares {
  const { weights, zoneOf, vshards, width } = input;
  const sizes: number[] = [];
  for (const zone of zoneOf) sizes[zone] = (sizes[zone] ?? 0) + 1;
  const rounds = zoneRounds(sizes, width);
  const zoneHigh = Int32Array.from(sizes, (size) => Math.min(size, rounds));
  // When all zones together are just enough, none may have less.
  const exact = zoneHigh.reduce((sum, high) => sum + high, 0) === width;
  const zoneLow = Int32Array.from(sizes, (size) => Math.min(size, exact ? rounds : rounds - 1));

  // Copies: a member of weight w holds level × w, but never more than one copy of each vshard.
  const inZone = (zone: number, level: number): number => {
    let sum = 0;
    for (const [member, weight] of weights.entries()) {
      if (zoneOf[member] === zone) sum += Math.min(vshards, level * weight);
    }
    return sum;
  };
  const clamped = (zone: number, level: number): number => {
    const low = vshards * (zoneLow[zone] as number);
    return Math.max(low, Math.min(vshards * (zoneHigh[zone] as number), inZone(zone, level)));
  };
  const levelLimit = vshards / Math.min(...weights);
  const everywhere = (level: number): number => sizes.reduce((sum, _, zone) => sum + clamped(zone, level), 0);
  const level = solve(everywhere, vshards * width, levelLimit);
  const zoneLevels = sizes.map((_, zone) => {
    const held = clamped(zone, level);
    // A zone at a bound has a level of its own; others share one, and so does the rounding.
    return Math.abs(held - inZone(zone, level)) < EPSILON ? level : solve((at) => inZone(zone, at), held, levelLimit);
  });
  const copies = weights.map((weight, member) =>
    Math.min(vshards, (zoneLevels[zoneOf[member] as number] as number) * weight),
  );
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const primaries = weights.map((weight) => (vshards * weight) / total);
  return {
    copiesLow: floors(copies),
    copiesHigh: ceilings(copies),
    primariesLow: floors(primaries),
    primariesHigh: ceilings(primaries),
    zoneLow,
    zoneHigh,
  };
}

/** Most copies of one vshard that a zone needs to hold, when they are spread as evenly as sizes allow. */
function zoneRounds(sizes: readonly number[], width: number): number {
  let rounds = 1;
  while (sizes.reduce((sum, size) => sum + Math.min(size, rounds), 0) < width) rounds++;
  return rounds;
}

/** The argument in `[0, high]` at which a rising function reaches a value. */
function solve(rising: (at: number) => number, value: number, limit: number): number {
  let low = 0;
  let high = limit;
  for (let halving = 0; halving < HALVINGS; halving++) {
    const middle = (low + high) / 2;
    if (rising(middle) < value) low = middle;
    else high = middle;
  }
  return high;
}

function floors(shares: Float64Array): Int32Array {
  return Int32Array.from(shares, (share) => Math.floor(share + EPSILON));
}

function ceilings(shares: Float64Array): Int32Array {
  return Int32Array.from(shares, (share) => Math.ceil(share - EPSILON));
}
