/**
 * A consistent hash ring with virtual nodes, weights and zones: which members hold a key, without a table of keys.
 *
 * Invariant: the ring is a function of its set of members alone. It does not matter in which order or how often they were
 * added, and positions never change between versions of one {@link RING_VERSION} (golden vectors in
 * `test/topology/hash-ring.test.ts`). A member that comes takes keys from others and moves none between them; one that goes
 * gives away its own keys only.
 * Source: Karger et al., "Consistent Hashing and Random Trees" (STOC 1997); virtual nodes and preference lists as in DeCandia
 * et al., "Dynamo" (SOSP 2007), sections 4.2 and 4.3. Divergence: copies go to distinct zones first, then to distinct members.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import { hashString } from "./stable-hash.ts";
import { checkWeight } from "./weight.ts";

/** Changes when positions or look-ups change: rings of two versions must not be mixed. */
export const RING_VERSION = 1;
/** Points on the ring of a member of weight 1. */
export const DEFAULT_VIRTUAL_NODES = 150;
/** Most virtual nodes per unit of weight. */
const MAX_VIRTUAL_NODES = 4096;
/** Most members of one ring: a point keeps its member's rank in 16 bits. */
const MAX_MEMBERS = 65_536;
const RANKS = 65_536;
const HASHES = 2 ** 32;

/** A member of a ring. */
export interface RingMember {
  /** Not empty; decides the member's positions. */
  readonly name: string;
  /** Share of keys relative to others, above 0. @default 1 */
  readonly weight?: number;
  /** Members of one zone fail together. @default "" */
  readonly zone?: string;
}

interface Registered {
  readonly name: string;
  readonly weight: number;
  readonly zone: string;
  /** Ascending positions of its virtual nodes. */
  readonly positions: Uint32Array;
}

/** What look-ups read: rebuilt by the first look-up after a change. */
interface Ring {
  /** Position × {@link RANKS} + rank of the member, ascending: equal positions go to the lower name. */
  readonly points: Float64Array;
  /** By rank, which is the order of names. */
  readonly members: readonly Registered[];
  /** By rank: number of the member's zone. */
  readonly zoneOf: Uint16Array;
  /** By number of the zone: how many members it has. */
  readonly zoneSizes: Uint32Array;
}

/** A hash ring. Not shared between threads. */
export class HashRing {
  readonly #virtualNodes: number;
  readonly #members: Map<string, Registered> = new Map();
  #ring: Ring | undefined;

  /**
   * @param options.virtualNodes Points of a member of weight 1, between 1 and 4096. More points spread keys more evenly
   *   (the share of a member varies by about 1/√points) and cost memory and building time.
   */
  constructor(options: { readonly virtualNodes?: number } = {}) {
    const { virtualNodes = DEFAULT_VIRTUAL_NODES } = options;
    if (!Number.isInteger(virtualNodes) || virtualNodes < 1 || virtualNodes > MAX_VIRTUAL_NODES) {
      const rule = `an integer between 1 and ${MAX_VIRTUAL_NODES}`;
      throw invalidArgument("create hash ring", "virtualNodes", rule, virtualNodes);
    }
    this.#virtualNodes = virtualNodes;
  }

  /** Number of members, however often each was added. */
  get count(): number {
    return this.#members.size;
  }

  /** Names of the members, in order of names. */
  get names(): readonly string[] {
    return [...this.#members.keys()].sort(byCodeUnits);
  }

  has(name: string): boolean {
    return this.#members.has(name);
  }

  /**
   * Adds a member, or gives it another weight or zone.
   *
   * @returns Whether anything changed: false for a member that is there already.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for an empty name, a weight that is not above 0, a zone that is no text, or too many members.
   */
  add(member: RingMember): boolean {
    const { name, weight = 1, zone = "" } = member;
    if (typeof name !== "string" || name === "")
      throw invalidArgument("add ring member", "name", "a non-empty string", name);
    checkWeight("add ring member", `weight of ${name}`, weight);
    if (typeof zone !== "string") throw invalidArgument("add ring member", `zone of ${name}`, "text", zone);
    const known = this.#members.get(name);
    if (known?.weight === weight && known.zone === zone) return false;
    if (known === undefined && this.#members.size === MAX_MEMBERS) {
      throw invalidArgument("add ring member", "count", `at most ${MAX_MEMBERS}`, MAX_MEMBERS + 1);
    }
    const points = Math.max(1, Math.round(weight * this.#virtualNodes));
    this.#members.set(name, { name, weight, zone, positions: ringPositions(name, points) });
    this.#ring = undefined;
    return true;
  }

  /** Removes a member. @returns false when there is no such member */
  remove(name: string): boolean {
    const removed = this.#members.delete(name);
    if (removed) this.#ring = undefined;
    return removed;
  }

  /**
   * The member that holds a key.
   *
   * Cost: one binary search, after a sort of all points when the ring has changed.
   *
   * @param key A string is hashed; a number is a hash already made (see `hashId`), an unsigned 32-bit integer.
   * @throws {ShardloomError} `ERR_EMPTY_RING` when there is no member; `ERR_INVALID_ARGUMENT` for a number that is no hash.
   */
  ownerOf(key: string | number): string {
    const ring = this.#built();
    const at = firstPoint(ring.points, hashOf(key));
    return memberAt(ring, at).name;
  }

  /**
   * The members that hold the copies of a key, the owner first.
   *
   * All copies count: 1 is the owner alone. No two copies are on one member, no zone has two copies before every zone has
   * one, none has three before every zone that can has two, and so on.
   *
   * @param key As for {@link ownerOf}.
   * @param copies At least 1. Fewer members than that give as many copies as there are members.
   * @throws {ShardloomError} `ERR_EMPTY_RING`, `ERR_INVALID_ARGUMENT`.
   */
  copiesOf(key: string | number, copies: number): string[] {
    if (!Number.isInteger(copies) || copies < 1) {
      throw invalidArgument("look up copies", "copies", "an integer of at least 1", copies);
    }
    const ring = this.#built();
    return walk(ring, firstPoint(ring.points, hashOf(key)), Math.min(copies, ring.members.length));
  }

  #built(): Ring {
    if (this.#members.size === 0) {
      throw new ShardloomError("ERR_EMPTY_RING", "Cannot look up key as the hash ring has no member");
    }
    this.#ring ??= buildRing([...this.#members.values()]);
    return this.#ring;
  }
}

/**
 * Positions of a member's virtual nodes: XXH32 of its name, seeded with the number of the virtual node.
 *
 * Shape: `Uint32Array[points]`, ascending.
 */
export function ringPositions(name: string, points: number): Uint32Array {
  return Uint32Array.from({ length: points }, (_, index) => hashString(name, index)).sort();
}

function buildRing(unordered: readonly Registered[]): Ring {
  const members = unordered.toSorted((a, b) => byCodeUnits(a.name, b.name));
  const points = new Float64Array(members.reduce((sum, { positions }) => sum + positions.length, 0));
  const zones = new Map<string, number>();
  const zoneOf = new Uint16Array(members.length);
  const zoneSizes = new Uint32Array(members.length);
  let filled = 0;
  for (const [rank, { zone, positions }] of members.entries()) {
    const number = zones.get(zone) ?? zones.size;
    zones.set(zone, number);
    zoneOf[rank] = number;
    zoneSizes[number] = (zoneSizes[number] as number) + 1;
    for (const position of positions) points[filled++] = position * RANKS + rank;
  }
  return { points: points.sort(), members, zoneOf, zoneSizes: zoneSizes.slice(0, zones.size) };
}

/** Index of the first point at or after a hash, or 0 after the last one. */
function firstPoint(points: Float64Array, hash: number): number {
  let low = 0;
  let high = points.length;
  const wanted = hash * RANKS;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((points[middle] as number) < wanted) low = middle + 1;
    else high = middle;
  }
  return low === points.length ? 0 : low;
}

function memberAt(ring: Ring, point: number): Registered {
  return ring.members[(ring.points[point] as number) % RANKS] as Registered;
}

/**
 * Walks clockwise from a point. In round r each zone may hold r copies; who finds his zone full waits for a later round, in
 * the order of the walk.
 */
function walk(ring: Ring, start: number, wanted: number): string[] {
  const { points, members, zoneOf, zoneSizes } = ring;
  const seen = new Uint8Array(members.length);
  const inZone = new Uint32Array(zoneSizes.length);
  const chosen: string[] = [];
  let waiting: number[] = [];
  let round = 1;
  const offer = (rank: number): void => {
    const zone = zoneOf[rank] as number;
    if ((inZone[zone] as number) >= round) {
      waiting.push(rank);
      return;
    }
    inZone[zone] = (inZone[zone] as number) + 1;
    chosen.push((members[rank] as Registered).name);
  };
  for (let step = 0; chosen.length < wanted; step++) {
    const rank = (points[(start + step) % points.length] as number) % RANKS;
    if (seen[rank] === 1) continue;
    seen[rank] = 1;
    offer(rank);
    while (chosen.length < wanted && chosen.length === roundSize(zoneSizes, round)) {
      round++;
      const retry = waiting;
      waiting = [];
      for (const late of retry) {
        if (chosen.length < wanted) offer(late);
      }
    }
  }
  return chosen;
}

/** Copies that there are when every zone has as many as the round admits. */
function roundSize(zoneSizes: Uint32Array, round: number): number {
  let sum = 0;
  for (const size of zoneSizes) sum += Math.min(size, round);
  return sum;
}

function hashOf(key: string | number): number {
  if (typeof key === "string") return hashString(key);
  if (!Number.isInteger(key) || key < 0 || key >= HASHES) {
    throw invalidArgument("look up key", "hash", "an integer between 0 and 4294967295", key);
  }
  return key;
}

/** Order of names that no locale changes. */
function byCodeUnits(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
