/**
 * The table that a placement is worked out in: which member holds which copy, and moves that bring every member to its share.
 *
 * Invariant: after {@link PlacementTable.fill} every vshard has its copies on distinct members within the bounds of their
 * zones, and no later step breaks that. Each step of {@link PlacementTable.balance} brings the loads closer to their bounds.
 * Source: augmenting paths (Ford and Fulkerson 1956), shortest first (Edmonds and Karp 1972), over members instead of slots:
 * a step "member a gives vshard v to member b" is an arc a → b. Candidates are tried in the order of weighted rendezvous hashing
 * (Thaler and Ravishankar 1998; weights as in Schindelhauer and Schomaker 2005), bounded as in Mirrokni, Thorup and
 * Zadimoghaddam 2018. Divergence: vshards share preferences by bucket, so that few replica groups arise: a group is what
 * every plan pays for.
 */
import type { Shares } from "./placement-shares.ts";
import { hashBytes } from "./stable-hash.ts";

/** Stands for "nobody" in the table. */
export const NOBODY = 0xffff;
/** Preferences that are computed: vshards that are equal modulo this share one. A power of two. */
const BUCKETS = 1024;
const HASHES = 2 ** 32;

/** Shards and weights of the members, by index. */
export interface TableMembers {
  readonly shards: Uint16Array;
  readonly weights: Float64Array;
  readonly zoneOf: Uint16Array;
}

/** The copies of all vshards while they are being placed; members are indices. */
export class PlacementTable {
  readonly #vshards: number;
  readonly #width: number;
  readonly #members: TableMembers;
  readonly #shares: Shares;
  readonly #buckets: number;
  readonly #preferences: (Uint16Array | undefined)[] = [];
  /** Shape: `Uint16Array[vshards × width]`, in no order. */
  readonly #slots: Uint16Array;
  /** Shape: `Uint8Array[vshards × members]`, 1 where the member holds a copy: what the slots say, for a look without a search. */
  readonly #copyAt: Uint8Array;
  /** Shape: `Uint8Array[vshards × zones]`, copies of the vshard in the zone. */
  readonly #inZone: Uint8Array;
  /** Shape: `Uint8Array[vshards]`: free slots, and how many of them are owed to zones below their lower bound. */
  readonly #lacking: Uint8Array;
  readonly #owed: Uint8Array;
  /** Shape: `Uint16Array[vshards]`, one of the vshard's slots or {@link NOBODY}. */
  readonly #primaries: Uint16Array;
  readonly #load: Int32Array;
  readonly #primaryLoad: Int32Array;
  /** By member: vshards that it holds, with some that it gave away and are dropped when it is searched. */
  readonly #held: number[][];

  constructor(vshards: number, width: number, members: TableMembers, shares: Shares) {
    const count = members.shards.length;
    this.#vshards = vshards;
    this.#width = width;
    this.#members = members;
    this.#shares = shares;
    this.#buckets = Math.min(vshards, BUCKETS);
    this.#slots = new Uint16Array(vshards * width).fill(NOBODY);
    this.#copyAt = new Uint8Array(vshards * count);
    this.#inZone = new Uint8Array(vshards * shares.zoneLow.length);
    this.#lacking = new Uint8Array(vshards).fill(width);
    this.#owed = new Uint8Array(vshards).fill(shares.zoneLow.reduce((sum, low) => sum + low, 0));
    this.#primaries = new Uint16Array(vshards).fill(NOBODY);
    this.#load = new Int32Array(count);
    this.#primaryLoad = new Int32Array(count);
    this.#held = Array.from({ length: count }, () => []);
  }

  /** Takes over a copy from an earlier placement, unless a zone has no place for it. @returns whether it was taken */
  keep(vshard: number, member: number): boolean {
    if (!this.#admits(vshard, member)) return false;
    this.#put(vshard, member);
    return true;
  }

  /** Takes over a primary; the member must hold a copy. */
  keepPrimary(vshard: number, member: number): void {
    this.#primaries[vshard] = member;
    this.#primaryLoad[member] = (this.#primaryLoad[member] as number) + 1;
  }

  /** Gives every vshard the copies that it lacks, and a primary, where possible to members below their share. */
  fill(): void {
    for (let bucket = 0; bucket < this.#buckets; bucket++) {
      for (let vshard = bucket; vshard < this.#vshards; vshard += this.#buckets) {
        // Who has the data leads before who must fetch it first.
        if (this.#primaries[vshard] === NOBODY) this.#lead(vshard);
        while (this.#lacking[vshard] !== 0) this.#put(vshard, this.#candidate(vshard));
        if (this.#primaries[vshard] === NOBODY) this.#lead(vshard);
      }
    }
  }

  /** Moves copies, then primaries, until every member is within its bounds or nothing can bring it there. */
  balance(): void {
    const { copiesLow, copiesHigh, primariesLow, primariesHigh } = this.#shares;
    this.#shed();
    level(this.#load, copiesLow, copiesHigh, this.#copySearch);
    level(this.#primaryLoad, primariesLow, primariesHigh, this.#primarySearch);
  }

  /** Primary of a vshard. */
  primaryOf(vshard: number): number {
    return this.#primaries[vshard] as number;
  }

  /** All copies of a vshard, in no order. */
  copiesOf(vshard: number): Uint16Array {
    return this.#slots.subarray(vshard * this.#width, (vshard + 1) * this.#width);
  }

  #holds(vshard: number, member: number): boolean {
    return this.#copyAt[vshard * this.#load.length + member] !== 0;
  }

  /** Whether a member may get one more copy, such that the rest of the copies still finds its zones. */
  #admits(vshard: number, member: number): boolean {
    if (this.#holds(vshard, member)) return false;
    const { zoneLow, zoneHigh } = this.#shares;
    const zone = this.#members.zoneOf[member] as number;
    const inZone = this.#inZone[vshard * zoneLow.length + zone] as number;
    if (this.#lacking[vshard] === 0 || inZone >= (zoneHigh[zone] as number)) return false;
    return inZone < (zoneLow[zone] as number) || (this.#owed[vshard] as number) < (this.#lacking[vshard] as number);
  }

  /** Whether a vshard's copy may go from one member to another. */
  #mayMove(vshard: number, from: number, to: number): boolean {
    if (this.#holds(vshard, to)) return false;
    const { zoneOf } = this.#members;
    const old = zoneOf[from] as number;
    const next = zoneOf[to] as number;
    if (old === next) return true;
    const { zoneLow, zoneHigh } = this.#shares;
    const zones = vshard * zoneLow.length;
    return (
      (this.#inZone[zones + old] as number) > (zoneLow[old] as number) &&
      (this.#inZone[zones + next] as number) < (zoneHigh[next] as number)
    );
  }

  /** The best member for one more copy: below its share if there is one, else below its share rounded up, else any. */
  #candidate(vshard: number): number {
    const { copiesLow, copiesHigh } = this.#shares;
    let below = NOBODY;
    let any = NOBODY;
    for (const member of this.#preference(vshard)) {
      const load = this.#load[member] as number;
      const full = load >= (copiesHigh[member] as number);
      if ((full && any !== NOBODY) || (load >= (copiesLow[member] as number) && below !== NOBODY)) continue;
      if (!this.#admits(vshard, member)) continue;
      if (load < (copiesLow[member] as number)) return member;
      if (!full) below = member;
      else any = member;
    }
    return below === NOBODY ? any : below;
  }

  /** Moves copies from members above their share straight to members below theirs; what needs a detour is left. */
  #shed(): void {
    const { copiesLow, copiesHigh } = this.#shares;
    for (const [from, high] of copiesHigh.entries()) {
      if ((this.#load[from] as number) <= high) continue;
      for (const vshard of this.#current(from)) {
        if ((this.#load[from] as number) <= high) break;
        for (const to of this.#preference(vshard)) {
          if ((this.#load[to] as number) >= (copiesLow[to] as number) || !this.#mayMove(vshard, from, to)) continue;
          this.#move(vshard, from, to);
          break;
        }
      }
    }
  }

  /** Chooses a primary among the copies that there are, if any. */
  #lead(vshard: number): void {
    const { primariesLow, primariesHigh } = this.#shares;
    let best = NOBODY;
    let bestRank = Number.POSITIVE_INFINITY;
    for (const member of this.#preference(vshard)) {
      if (!this.#holds(vshard, member)) continue;
      const load = this.#primaryLoad[member] as number;
      const rank = load < (primariesLow[member] as number) ? 0 : load < (primariesHigh[member] as number) ? 1 : 2;
      if (rank < bestRank) {
        best = member;
        bestRank = rank;
      }
    }
    if (best !== NOBODY) this.keepPrimary(vshard, best);
  }

  #put(vshard: number, member: number): void {
    const zones = this.#shares.zoneLow;
    const zone = this.#members.zoneOf[member] as number;
    if ((this.#inZone[vshard * zones.length + zone] as number) < (zones[zone] as number)) {
      this.#owed[vshard] = (this.#owed[vshard] as number) - 1;
    }
    this.#lacking[vshard] = (this.#lacking[vshard] as number) - 1;
    this.#store(this.#slots.indexOf(NOBODY, vshard * this.#width), vshard, member);
  }

  /** Neither side of a move falls below or rises above a bound of its zone, so that nothing becomes owed. */
  #move(vshard: number, from: number, to: number): void {
    const zone = vshard * this.#shares.zoneLow.length + (this.#members.zoneOf[from] as number);
    this.#inZone[zone] = (this.#inZone[zone] as number) - 1;
    this.#copyAt[vshard * this.#load.length + from] = 0;
    this.#load[from] = (this.#load[from] as number) - 1;
    this.#store(this.#slots.indexOf(from, vshard * this.#width), vshard, to);
    if (this.#primaries[vshard] === from) this.#promote(vshard, from, to);
  }

  #store(slot: number, vshard: number, member: number): void {
    const zone = vshard * this.#shares.zoneLow.length + (this.#members.zoneOf[member] as number);
    this.#slots[slot] = member;
    this.#inZone[zone] = (this.#inZone[zone] as number) + 1;
    this.#copyAt[vshard * this.#load.length + member] = 1;
    this.#load[member] = (this.#load[member] as number) + 1;
    (this.#held[member] as number[]).push(vshard);
  }

  #promote(vshard: number, from: number, to: number): void {
    this.#primaryLoad[from] = (this.#primaryLoad[from] as number) - 1;
    this.keepPrimary(vshard, to);
  }

  /** Arcs of a copy: to every member that may take it. */
  readonly #copySearch: ArcSearch = {
    arcs: (member, visit) => {
      let open = this.#exchangers(member).filter(visit.wants);
      for (const vshard of this.#current(member)) {
        if (open.length === 0) return;
        for (const to of open) {
          if (this.#mayMove(vshard, member, to) && visit.reach(to, vshard)) return;
        }
        open = open.filter(visit.wants);
      }
    },
    step: (vshard, from, to) => {
      if (!this.#holds(vshard, from) || !this.#mayMove(vshard, from, to)) return false;
      this.#move(vshard, from, to);
      return true;
    },
  };

  /** Arcs of a primary: to the other copies of its vshard. */
  readonly #primarySearch: ArcSearch = {
    arcs: (member, visit) => {
      for (const vshard of this.#current(member)) {
        if (this.#primaries[vshard] !== member) continue;
        for (const to of this.copiesOf(vshard)) if (visit.wants(to) && visit.reach(to, vshard)) return;
      }
    },
    step: (vshard, from, to) => {
      if (this.#primaries[vshard] !== from || !this.#holds(vshard, to)) return false;
      this.#promote(vshard, from, to);
      return true;
    },
  };

  /** Members that could take anything from a member at all: those of its zone, and of others if both have room to vary. */
  #exchangers(member: number): number[] {
    const { zoneLow, zoneHigh } = this.#shares;
    const { zoneOf } = this.#members;
    const varies = (zone: number): boolean => (zoneLow[zone] as number) < (zoneHigh[zone] as number);
    const own = zoneOf[member] as number;
    return [...zoneOf.keys()].filter((other) => {
      const zone = zoneOf[other] as number;
      return zone === own || (varies(own) && varies(zone));
    });
  }

  /** vshards that a member holds now; forgets those that it gave away. */
  #current(member: number): readonly number[] {
    const held = this.#held[member] as number[];
    if (held.length === this.#load[member]) return held;
    const kept = [...new Set(held)].filter((vshard) => this.#holds(vshard, member));
    this.#held[member] = kept;
    return kept;
  }

  /** Members in the order in which a vshard prefers them. Cost: a sort for the first vshard of its bucket. */
  #preference(vshard: number): Uint16Array {
    const bucket = vshard & (this.#buckets - 1);
    this.#preferences[bucket] ??= rendezvousOrder(bucket, this.#members);
    return this.#preferences[bucket];
  }
}

/** One kind of arc between members. */
interface ArcSearch {
  /** Visits the members that something of `member` may go to, until told to stop. */
  arcs(member: number, visit: Visit): void;
  /** Moves along an arc. @returns false when earlier steps of the same path have closed it */
  step(vshard: number, from: number, to: number): boolean;
}

interface Visit {
  /** Whether this member was not reached before. */
  wants(member: number): boolean;
  /** Reaches a member. @returns whether the search is over */
  reach(member: number, vshard: number): boolean;
}

/** Brings loads within their bounds: first what is above its bound to where it is lacking, then what is left of either. */
function level(load: Int32Array, low: Int32Array, high: Int32Array, search: ArcSearch): void {
  const above = (bounds: Int32Array) => (member: number) => (load[member] as number) > (bounds[member] as number);
  const below = (bounds: Int32Array) => (member: number) => (load[member] as number) < (bounds[member] as number);
  for (const [from, to] of [
    [above(high), below(low)],
    [above(high), below(high)],
    [above(low), below(low)],
  ] as const) {
    while (augment(load.length, from, to, search)) {}
  }
}

/**
 * Moves one unit along the shortest path from a member that has too much to one that has too little.
 *
 * The path is walked from its end, so that each step leaves all constraints kept. Steps of a shortest path do not close each other.
 *
 * @returns Whether a unit was moved: as often as there is excess, so that a loop over this ends.
 */
function augment(
  members: number,
  from: (member: number) => boolean,
  to: (member: number) => boolean,
  search: ArcSearch,
): boolean {
  const cameFrom = new Int32Array(members).fill(-1);
  const via = new Int32Array(members);
  const queue: number[] = [];
  for (let member = 0; member < members; member++) {
    if (!from(member)) continue;
    cameFrom[member] = member;
    queue.push(member);
  }
  let end = -1;
  for (const member of queue) {
    search.arcs(member, {
      wants: (next) => cameFrom[next] === -1,
      reach: (next, vshard) => {
        cameFrom[next] = member;
        via[next] = vshard;
        queue.push(next);
        if (to(next)) end = next;
        return end >= 0;
      },
    });
    if (end < 0) continue;
    for (let at = end; cameFrom[at] !== at; at = cameFrom[at] as number) {
      if (!search.step(via[at] as number, cameFrom[at] as number, at)) return false;
    }
    return true;
  }
  return false;
}

const scratch = new Uint8Array(4);

/** Members by falling weighted rendezvous score for a bucket. */
function rendezvousOrder(bucket: number, members: TableMembers): Uint16Array {
  const { shards, weights } = members;
  const scores = weights.map((weight, member) => {
    const shard = shards[member] as number;
    scratch.set([shard & 255, shard >>> 8, bucket & 255, bucket >>> 8]);
    return -weight / Math.log((hashBytes(scratch, 0, 4) + 0.5) / HASHES);
  });
  const order = Uint16Array.from(shards.keys());
  return order.sort((a, b) => (scores[b] as number) - (scores[a] as number) || a - b);
}
