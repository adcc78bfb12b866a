/**
 * Placement: on which shards the copies of every vshard should be, and what has to move from where it is now.
 *
 * Invariant: a placement depends on its arguments alone. Copies of one vshard are on distinct members, spread over zones as evenly
 * as zones allow; each member holds its share by weight rounded down or up; and of all that was placed before, only what the
 * members above their share must give away moves. Primaries follow the same rule wherever the copies allow it.
 *
 * A plan is a dry run: nothing changes until somebody publishes a snapshot made from it.
 */
import { invalidArgument, ShardloomError } from "../errors.ts";
import { computeShares } from "./placement-shares.ts";
import { NOBODY, PlacementTable, type TableMembers } from "./placement-table.ts";
import {
  MAX_COPIES,
  MAX_SHARDS,
  MAX_VSHARDS,
  MEMBER_STATE,
  type MemberState,
  NO_SHARD,
  type TopologySnapshot,
} from "./snapshot.ts";
import { checkWeight } from "./weight.ts";

/** A shard that copies may be on. */
export interface PlacementMember {
  /** Number of the shard, below 256; each one once. */
  readonly shard: number;
  /** Share relative to others, above 0. @default 1 */
  readonly weight?: number;
  /** Number of its zone: shards that fail together. @default 0 */
  readonly zone?: number;
  /**
   * Members that are joining, up or suspect hold copies; those that are down, draining or removed give theirs away. A
   * suspicion is resolved within a second, so that nothing moves because of it. @default up
   */
  readonly state?: MemberState;
}

/**
 * Why something moves: its member is `down`, `draining` or no longer a member (`removed`); a member holds more than its share
 * (`balance`); two copies share a zone without need (`zone`); a vshard has too few or too many copies (`factor`); another
 * copy becomes the primary, which moves no data (`promotion`).
 */
export type MoveReason = "down" | "draining" | "removed" | "balance" | "zone" | "factor" | "promotion";

/** One step from the previous placement to the planned one. */
export interface PlacementMove {
  readonly vshard: number;
  /** What `to` will be, or what `from` was when there is no `to`. */
  readonly role: "primary" | "replica";
  /** Shard that gives the copy up, or {@link NO_SHARD} when one is added; for a promotion the primary until now. */
  readonly from: number;
  /** Shard that gets the copy, or {@link NO_SHARD} when one is dropped; for a promotion the next primary. */
  readonly to: number;
  /**
   * A shard that has the data and can be read from, {@link NO_SHARD} when none is left: then the data is lost. `from` itself
   * unless it is down.
   */
  readonly source: number;
  readonly reason: MoveReason;
}

/** A planned placement. */
export interface PlacementPlan {
  /** As `copies` of a snapshot: `Uint16Array[vshards × replicationFactor]`, {@link NO_SHARD} where members are too few. */
  readonly copies: Uint16Array;
  /** In the order of vshards; empty without a previous placement, as there is nothing to move. */
  readonly moves: readonly PlacementMove[];
}

/**
 * Plans where copies go.
 *
 * Cost: about O(vshards × members) the first time, O(moves × members) afterwards.
 *
 * @param previous Where they are; its `replicationFactor` and `shards` may differ from the next ones, its `vshards` may not.
 * @param replicationFactor Copies of each vshard, all counted, between 1 and 16.
 * @param vshards A power of two.
 * @throws {ShardloomError} `ERR_EMPTY_RING` when no member may hold copies; `ERR_INVALID_ARGUMENT` for a number out of range.
 */
export function planPlacement(
  previous: TopologySnapshot | undefined,
  members: readonly PlacementMember[],
  replicationFactor: number,
  vshards: number,
): PlacementPlan {
  checkArguments(previous, members, replicationFactor, vshards);
  const holders = members.filter(mayHold).toSorted((a, b) => a.shard - b.shard);
  if (holders.length === 0) {
    const message = `Cannot place vshards as none of ${members.length} members may hold copies`;
    throw new ShardloomError("ERR_EMPTY_RING", message, { details: { members: members.length } });
  }
  const indexed = indexMembers(holders);
  const width = Math.min(replicationFactor, holders.length);
  const table = new PlacementTable(vshards, width, indexed, computeShares({ ...indexed, vshards, width }));
  if (previous !== undefined) keepCopies(table, previous, indexed);
  table.fill();
  table.balance();
  const copies = orderedCopies(table, indexed.shards, vshards, replicationFactor);
  return { copies, moves: previous === undefined ? [] : listMoves(previous, copies, members, replicationFactor) };
}

function mayHold({ state = MEMBER_STATE.UP }: PlacementMember): boolean {
  return state === MEMBER_STATE.JOINING || state === MEMBER_STATE.UP || state === MEMBER_STATE.SUSPECT;
}

function indexMembers(holders: readonly PlacementMember[]): TableMembers {
  const zones = new Map<number, number>();
  const zoneOf = holders.map(({ zone = 0 }) => {
    const index = zones.get(zone) ?? zones.size;
    zones.set(zone, index);
    return index;
  });
  return {
    shards: Uint16Array.from(holders, ({ shard }) => shard),
    weights: Float64Array.from(holders, ({ weight = 1 }) => weight),
    zoneOf: Uint16Array.from(zoneOf),
  };
}

/** Takes over what may stay; of too many copies the last ones go. */
function keepCopies(table: PlacementTable, previous: TopologySnapshot, { shards }: TableMembers): void {
  const indexOf = new Uint16Array(NO_SHARD + 1).fill(NOBODY);
  for (const [index, shard] of shards.entries()) indexOf[shard] = index;
  const { copies, replicationFactor } = previous;
  for (const [at, shard] of copies.entries()) {
    const member = indexOf[shard] as number;
    const vshard = Math.floor(at / replicationFactor);
    if (member !== NOBODY && table.keep(vshard, member) && at % replicationFactor === 0)
      table.keepPrimary(vshard, member);
  }
}

/**
 * The primary first, then upwards from it and around: of one set of members with one primary there is one order (few replica
 * groups), and the second copies of a shard's vshards are not all on the same one.
 */
function orderedCopies(
  table: PlacementTable,
  shards: Uint16Array,
  vshards: number,
  replicationFactor: number,
): Uint16Array {
  const copies = new Uint16Array(vshards * replicationFactor).fill(NO_SHARD);
  const { length } = shards;
  for (let vshard = 0; vshard < vshards; vshard++) {
    const primary = table.primaryOf(vshard);
    const distance = (member: number): number => (member + length - primary) % length;
    const order = table.copiesOf(vshard).toSorted((a, b) => distance(a) - distance(b));
    for (const [at, member] of order.entries()) copies[vshard * replicationFactor + at] = shards[member] as number;
  }
  return copies;
}

function listMoves(
  previous: TopologySnapshot,
  copies: Uint16Array,
  members: readonly PlacementMember[],
  replicationFactor: number,
): PlacementMove[] {
  const byShard = new Map(members.map((member) => [member.shard, member]));
  const moves: PlacementMove[] = [];
  for (let vshard = 0; vshard < previous.vshards; vshard++) {
    const old = heldBy(previous.copies, vshard, previous.replicationFactor);
    const next = heldBy(copies, vshard, replicationFactor);
    if (old.length === next.length && old.every((shard, at) => shard === next[at])) continue;
    moves.push(...vshardMoves(vshard, old, next, byShard));
  }
  return moves;
}

function vshardMoves(
  vshard: number,
  old: Uint16Array,
  next: Uint16Array,
  members: ReadonlyMap<number, PlacementMember>,
): PlacementMove[] {
  const moves: PlacementMove[] = [];
  const crowded = isCrowded(old, next, members);
  const living = old.filter((shard) => canBeRead(members.get(shard)));
  const lost = old.filter((shard) => !next.includes(shard));
  const gained = next.filter((shard) => !old.includes(shard));
  // The primary is paired with the primary, as its role goes along.
  for (let at = 0; at < Math.max(lost.length, gained.length); at++) {
    const from = lost[at] ?? NO_SHARD;
    const to = gained[at] ?? NO_SHARD;
    const source = living.includes(from) ? from : (living[0] ?? NO_SHARD);
    const role = to === NO_SHARD ? from === old[0] : to === next[0];
    const reason = from === NO_SHARD ? "factor" : leaving(members.get(from), crowded, to);
    moves.push({ vshard, role: role ? "primary" : "replica", from, to, source, reason });
  }
  const [first = NO_SHARD] = next;
  if (first !== old[0] && old.includes(first)) {
    const from = old[0] ?? NO_SHARD;
    moves.push({ vshard, role: "primary", from, to: first, source: first, reason: "promotion" });
  }
  return moves;
}

function leaving(member: PlacementMember | undefined, crowded: boolean, to: number): MoveReason {
  switch (member?.state ?? (member === undefined ? MEMBER_STATE.REMOVED : MEMBER_STATE.UP)) {
    case MEMBER_STATE.DOWN:
      return "down";
    case MEMBER_STATE.DRAINING:
      return "draining";
    case MEMBER_STATE.REMOVED:
      return "removed";
    default:
      return to === NO_SHARD ? "factor" : crowded ? "zone" : "balance";
  }
}

/** Whether the old copies that may stay were in fewer zones than as many of the next ones are. */
function isCrowded(old: Uint16Array, next: Uint16Array, members: ReadonlyMap<number, PlacementMember>): boolean {
  const zonesOf = (shards: Uint16Array): number =>
    new Set(Array.from(shards, (shard) => members.get(shard)?.zone ?? 0)).size;
  const stays = old.filter((shard) => {
    const member = members.get(shard);
    return member !== undefined && mayHold(member);
  });
  return stays.length >= next.length && zonesOf(stays) < zonesOf(next);
}

function canBeRead(member: PlacementMember | undefined): boolean {
  return member !== undefined && (mayHold(member) || member.state === MEMBER_STATE.DRAINING);
}

function heldBy(copies: Uint16Array, vshard: number, replicationFactor: number): Uint16Array {
  const list = copies.subarray(vshard * replicationFactor, (vshard + 1) * replicationFactor);
  const end = list.indexOf(NO_SHARD);
  return end < 0 ? list : list.subarray(0, end);
}

function checkArguments(
  previous: TopologySnapshot | undefined,
  members: readonly PlacementMember[],
  replicationFactor: number,
  vshards: number,
): void {
  const action = "place vshards";
  if (!Number.isInteger(vshards) || vshards < 1 || vshards > MAX_VSHARDS || (vshards & (vshards - 1)) !== 0) {
    throw invalidArgument(action, "vshards", `a power of two between 1 and ${MAX_VSHARDS}`, vshards);
  }
  if (previous !== undefined && previous.vshards !== vshards) {
    throw invalidArgument(action, "vshards", `${previous.vshards} as before`, vshards);
  }
  if (!Number.isInteger(replicationFactor) || replicationFactor < 1 || replicationFactor > MAX_COPIES) {
    throw invalidArgument(action, "replicationFactor", `an integer between 1 and ${MAX_COPIES}`, replicationFactor);
  }
  const seen = new Set<number>();
  for (const { shard, weight = 1, zone = 0, state = MEMBER_STATE.UP } of members) {
    if (!Number.isInteger(shard) || shard < 0 || shard >= MAX_SHARDS || seen.has(shard)) {
      throw invalidArgument(action, "shard of a member", `an integer below ${MAX_SHARDS}, each once`, shard);
    }
    seen.add(shard);
    checkWeight(action, `weight of shard ${shard}`, weight);
    if (!Number.isInteger(zone) || zone < 0 || zone > 0xffff) {
      throw invalidArgument(action, `zone of shard ${shard}`, "an integer between 0 and 65535", zone);
    }
    if (!Object.values(MEMBER_STATE).includes(state)) {
      throw invalidArgument(action, `state of shard ${shard}`, "one of MEMBER_STATE", state);
    }
  }
}
