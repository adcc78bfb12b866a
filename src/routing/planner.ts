/**
 * Plans reads: decides for every vshard that is asked for which copy answers, by one snapshot, and makes one target per shard.
 *
 * Invariant: see `plan.ts`. The unit of choice is the replica group: vshards with the same copies go to the same shard, unless
 * they differ in which copies are fresh enough; then, and only then, the group is split, by the set of copies that qualify.
 * A planner belongs to one thread and is not re-entrant: all that it works with between two plans is kept and used again, so that
 * a plan allocates its targets, their vshards and itself.
 *
 * Cost: O(wanted vshards + replica groups × copies); for a set, also the span between its lowest and highest vshard.
 */
import { invalidArgument } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import { MAX_SHARDS, MEMBER_STATE, type ReplicaGroup, type TopologySnapshot } from "../topology/snapshot.ts";
import { Eligibility, ranksFor, UNAVAILABLE_REASONS, whyNobody } from "./eligibility.ts";
import type {
  LagSource,
  Plan,
  PlanRequest,
  PlanTarget,
  ReadRules,
  UnavailableReason,
  UnavailableVshards,
} from "./plan.ts";
import type { ReplicaLoads } from "./replica-loads.ts";
import { Fallbacks, RoutedPlan } from "./routed-plan.ts";
import { CHOOSERS, Choice, type Chooser, mix, PLACES } from "./strategies.ts";

/** What a planner is made with. */
export interface PlannerOptions {
  readonly random: Random;
  readonly clock: Clock;
  /** Loads as this thread sees them, with room for all shards. */
  readonly loads: ReplicaLoads;
  /** @default nothing is known of any copy but the primary */
  readonly lag?: LagSource | undefined;
  /** The shard that `prefer-local` prefers. @default none: `prefer-local` is like `power-of-two` */
  readonly localShard?: number | undefined;
}

const NOTHING_UNAVAILABLE: readonly UnavailableVshards[] = [];
const NO_UNIT = -1;
const MAX_STAMP = 0x7fffffff;
/**
 * Steps of the random numbers, which are mixed counters: one per plan from the seed, one per unit from the plan's, and one
 * apart for the order. A number from `Random` would be boxed.
 * Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
 */
const PLAN_STEP = 0x9e3779b9 | 0;
const UNIT_STEP = 0x85157af5 | 0;
const ORDER_STEP = 0x68bc21eb;

/** Plans the reads of one client thread. */
export class Planner {
  readonly #random: Random;
  readonly #clock: Clock;
  readonly #choice: Choice;
  readonly #fallbacks: Fallbacks;
  readonly #eligibility: Eligibility;

  /** Counts plans, in steps; begins where `random` says. */
  #sequence: number;

  #snapshot: TopologySnapshot | undefined;
  /** Per shard, the vshards that it holds a copy of. */
  #held: Int32Array = new Int32Array(0);
  /** Per replica group, how often it was planned; begins anywhere, so that groups do not move in step. */
  #turns: Int32Array = new Int32Array(0);

  /** Marks what belongs to the running plan, so that nothing has to be cleared. */
  #stamp = 0;
  #wanted: Int32Array = new Int32Array(0);
  /** Whether every vshard from the lowest to the highest is wanted, marked or not. */
  #isAll = false;
  #lowest = 0;
  #highest = 0;
  /** Per wanted vshard, its shard or the number of its reason. */
  #place: Uint16Array = new Uint16Array(0);
  #groupStamp: Int32Array = new Int32Array(0);
  /** First unit of each group; units of one group are chained. */
  #groupUnit: Int32Array = new Int32Array(0);
  #units = 0;
  #unitMask: Uint16Array = new Uint16Array(0);
  #unitPlace: Uint16Array = new Uint16Array(0);
  #unitNext: Int32Array = new Int32Array(0);
  readonly #touched: Uint16Array = new Uint16Array(PLACES);
  #touchedCount = 0;
  readonly #vshardCount: Int32Array = new Int32Array(PLACES);
  readonly #itemCount: Int32Array = new Int32Array(PLACES);
  /** What is being filled, by place; empty between plans. */
  readonly #parts: (Part | undefined)[] = new Array<Part | undefined>(PLACES).fill(undefined);

  constructor(options: PlannerOptions) {
    const { random, clock, loads, lag, localShard = -1 } = options;
    this.#random = random;
    this.#sequence = random.u32() | 0;
    this.#clock = clock;
    this.#choice = new Choice(loads, localShard);
    this.#eligibility = new Eligibility(lag);
    this.#fallbacks = new Fallbacks(clock, this.#eligibility, new Choice(loads, localShard));
  }

  /**
   * Plans one request.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when no vshard is asked for, or one that the topology does not have, and when
   *   the loads have no room for the snapshot's shards.
   */
  plan(request: PlanRequest): Plan {
    const { snapshot, rules, kind } = request;
    if (snapshot !== this.#snapshot) this.#adopt(snapshot);
    this.#reset();
    if (kind === "point") this.#wantOne(request.vshard, snapshot);
    else if (request.vshards === undefined) this.#wantAll(snapshot);
    else this.#want(request.vshards, snapshot);
    this.#sequence = (this.#sequence + PLAN_STEP) | 0;
    const salt = mix(this.#sequence);
    this.#route(snapshot, rules, salt);
    if (kind === "batch") this.#countItems(request.vshards);
    this.#allocate(kind === "batch" ? request.vshards.length : 0);
    this.#fillVshards();
    if (kind === "batch") this.#fillItems(request.vshards);
    return this.#finish(snapshot, kind, rules, salt);
  }

  /** Prepares for another map. Turns go on for every list of copies that is still there. */
  #adopt(snapshot: TopologySnapshot): void {
    const { loads } = this.#choice;
    if (loads.shards < snapshot.shards)
      throw invalidArgument("plan read", "loads.shards", `at least ${snapshot.shards} (shards)`, loads.shards);
    const known = new Map<string, number>();
    for (const group of this.#snapshot?.groups ?? [])
      known.set(group.copies.join(), this.#turns[group.index] as number);
    const { vshards, groups } = snapshot;
    this.#turns = Int32Array.from(groups, ({ copies }) => known.get(copies.join()) ?? this.#random.u32() & MAX_STAMP);
    this.#held = new Int32Array(snapshot.shards);
    for (const group of groups)
      for (const shard of group.copies) this.#held[shard] = (this.#held[shard] as number) + group.vshards.length;
    this.#stamp = 0;
    this.#groupStamp = new Int32Array(groups.length);
    this.#groupUnit = new Int32Array(groups.length);
    this.#wanted = new Int32Array(vshards);
    this.#place = new Uint16Array(vshards);
    this.#unitMask = new Uint16Array(vshards);
    this.#unitPlace = new Uint16Array(vshards);
    this.#unitNext = new Int32Array(vshards);
    this.#choice.upShards = countUp(snapshot);
    this.#snapshot = snapshot;
  }

  /** Also cleans up after a plan that ended in an error. */
  #reset(): void {
    const { assigned } = this.#choice;
    for (let at = 0; at < this.#touchedCount; at++) {
      const place = this.#touched[at] as number;
      assigned[place] = 0;
      this.#vshardCount[place] = 0;
      this.#itemCount[place] = 0;
    }
    this.#choice.assignedTotal = 0;
    this.#touchedCount = 0;
    this.#units = 0;
    if (this.#stamp === MAX_STAMP) {
      this.#wanted.fill(0);
      this.#groupStamp.fill(0);
      this.#stamp = 0;
    }
    this.#stamp++;
  }

  #wantAll(snapshot: TopologySnapshot): void {
    this.#isAll = true;
    this.#lowest = 0;
    this.#highest = snapshot.vshards - 1;
  }

  #wantOne(vshard: number, snapshot: TopologySnapshot): void {
    requireVshard("vshard", vshard, snapshot);
    this.#isAll = true; // all from itself to itself
    this.#lowest = vshard;
    this.#highest = vshard;
  }

  #want(vshards: ArrayLike<number>, snapshot: TopologySnapshot): void {
    if (vshards.length === 0) throw invalidArgument("plan read", "vshards.length", "at least 1", 0);
    let lowest = snapshot.vshards;
    let highest = 0;
    for (let at = 0; at < vshards.length; at++) {
      const vshard = vshards[at] as number;
      requireVshard("vshards", vshard, snapshot);
      this.#wanted[vshard] = this.#stamp;
      if (vshard < lowest) lowest = vshard;
      if (vshard > highest) highest = vshard;
    }
    this.#isAll = false;
    this.#lowest = lowest;
    this.#highest = highest;
  }

  /** Gives every wanted vshard its place. */
  #route(snapshot: TopologySnapshot, rules: ReadRules, salt: number): void {
    const chooser = CHOOSERS[rules.strategy];
    const ranks = ranksFor(rules);
    const nowMs = rules.consistency === "bounded-staleness" ? this.#clock.nowMs() : 0;
    // In an order that differs by plan: who chooses later sees more of what is assigned, and must not always be the same group.
    // The range is widened to a power of two, over which every odd stride visits everything once.
    const span = this.#highest - this.#lowest + 1;
    const last = span === 1 ? 0 : 0xffff_ffff >>> Math.clz32(span - 1);
    const stride = mix((salt + ORDER_STEP) | 0) | 1;
    for (let step = 0, at = salt & last; step <= last; step++, at = (at + stride) & last) {
      const vshard = this.#lowest + at;
      if (at >= span || (!this.#isAll && this.#wanted[vshard] !== this.#stamp)) continue;
      const group = snapshot.groupOf[vshard] as number;
      const { copies } = snapshot.groups[group] as ReplicaGroup;
      const mask = this.#eligibility.maskOf(rules, vshard, copies, nowMs);
      let unit = this.#findUnit(group, mask);
      if (unit === NO_UNIT) {
        this.#choice.draw = mix((salt + Math.imul(this.#units, UNIT_STEP)) | 0);
        this.#choice.turn = this.#turns[group] as number;
        this.#choice.gather(copies, mask, snapshot.states, ranks);
        const place = this.#choice.count > 0 ? this.#choose(chooser) : placeOfNobody(rules, copies, snapshot.states);
        unit = this.#addUnit(group, mask, place);
      }
      const place = this.#unitPlace[unit] as number;
      this.#place[vshard] = place;
      this.#vshardCount[place] = (this.#vshardCount[place] as number) + 1;
    }
  }

  #choose(chooser: Chooser): number {
    const shard = chooser(this.#choice);
    this.#choice.assignedTotal++;
    return shard;
  }

  #findUnit(group: number, mask: number): number {
    if (this.#groupStamp[group] !== this.#stamp) {
      // One turn a plan, however the group is split: two units with two candidates each would else meet the same one every time.
      this.#groupStamp[group] = this.#stamp;
      this.#groupUnit[group] = NO_UNIT;
      this.#turns[group] = ((this.#turns[group] as number) + 1) & MAX_STAMP;
      return NO_UNIT;
    }
    let unit = this.#groupUnit[group] as number;
    while (unit !== NO_UNIT && this.#unitMask[unit] !== mask) unit = this.#unitNext[unit] as number;
    return unit;
  }

  #addUnit(group: number, mask: number, place: number): number {
    const unit = this.#units++;
    this.#unitMask[unit] = mask;
    this.#unitPlace[unit] = place;
    this.#unitNext[unit] = this.#groupUnit[group] as number;
    this.#groupUnit[group] = unit;
    const { assigned } = this.#choice;
    if (assigned[place] === 0) this.#touched[this.#touchedCount++] = place;
    assigned[place] = (assigned[place] as number) + 1;
    return unit;
  }

  #countItems(items: ArrayLike<number>): void {
    for (let at = 0; at < items.length; at++) {
      const place = this.#place[items[at] as number] as number;
      this.#itemCount[place] = (this.#itemCount[place] as number) + 1;
    }
  }

  /** Makes the parts. All lists of items share one buffer, as many small ones would be many allocations off the heap. */
  #allocate(itemTotal: number): void {
    const buffer = itemTotal > 0 ? new ArrayBuffer(4 * itemTotal) : undefined;
    let itemsFrom = 0;
    for (let at = 0; at < this.#touchedCount; at++) {
      const place = this.#touched[at] as number;
      const count = this.#vshardCount[place] as number;
      const vshards = new Uint16Array(count);
      const part: Part =
        place < MAX_SHARDS
          ? { shard: place, vshards, whole: count === this.#held[place] }
          : { vshards, reason: UNAVAILABLE_REASONS[place - MAX_SHARDS] as UnavailableReason };
      if (buffer === undefined) {
        this.#parts[place] = part;
        continue;
      }
      const itemCount = this.#itemCount[place] as number;
      this.#parts[place] = { ...part, items: new Uint32Array(buffer, 4 * itemsFrom, itemCount) };
      itemsFrom += itemCount;
    }
  }

  /** From the highest down, as that uses the counts up. */
  #fillVshards(): void {
    for (let vshard = this.#highest; vshard >= this.#lowest; vshard--) {
      if (!this.#isAll && this.#wanted[vshard] !== this.#stamp) continue;
      const place = this.#place[vshard] as number;
      const at = (this.#vshardCount[place] as number) - 1;
      this.#vshardCount[place] = at;
      (this.#parts[place] as Part).vshards[at] = vshard;
    }
  }

  #fillItems(items: ArrayLike<number>): void {
    for (let item = items.length - 1; item >= 0; item--) {
      const place = this.#place[items[item] as number] as number;
      const at = (this.#itemCount[place] as number) - 1;
      this.#itemCount[place] = at;
      ((this.#parts[place] as Part).items as Uint32Array)[at] = item;
    }
  }

  #finish(snapshot: TopologySnapshot, kind: Plan["kind"], rules: ReadRules, salt: number): Plan {
    let missing = 0;
    for (let at = 0; at < this.#touchedCount; at++) if ((this.#touched[at] as number) >= MAX_SHARDS) missing++;
    const targets = new Array<PlanTarget>(this.#touchedCount - missing);
    const unavailable = missing === 0 ? NOTHING_UNAVAILABLE : new Array<UnavailableVshards>(missing);
    let target = 0;
    let gap = 0;
    for (let at = 0; at < this.#touchedCount; at++) {
      const place = this.#touched[at] as number;
      const part = this.#parts[place] as Part;
      this.#parts[place] = undefined;
      if ("reason" in part) (unavailable as UnavailableVshards[])[gap++] = part;
      else targets[target++] = part;
    }
    return new RoutedPlan(snapshot, kind, rules, targets, unavailable, salt, this.#fallbacks);
  }
}

type Part = PlanTarget | UnavailableVshards;

function placeOfNobody(rules: ReadRules, copies: Uint16Array, states: Uint8Array): number {
  return MAX_SHARDS + UNAVAILABLE_REASONS.indexOf(whyNobody(rules, copies, states));
}

function requireVshard(name: string, vshard: number, { vshards }: TopologySnapshot): void {
  if (!Number.isInteger(vshard) || vshard < 0 || vshard >= vshards)
    throw invalidArgument("plan read", name, `made of integers in [0, ${vshards})`, vshard);
}

function countUp({ states }: TopologySnapshot): number {
  let up = 0;
  for (const state of states) if (state === MEMBER_STATE.UP) up++;
  return Math.max(1, up);
}
