/**
 * The queue of one shard: priorities, within a priority weighted fairness over tenants, within a tenant first in first out.
 *
 * Invariant: while two tenants of one priority both wait, the costs served of each, divided by its weight, differ by at most
 * one entry's cost over weight of each, whatever the others offer; leaving the queue and coming back gains nothing. A
 * lower priority that waits is passed over at most {@link MAX_PASSED} times in a row, so that nobody starves.
 * Source: Golestani, "A self-clocked fair queueing scheme for broadband applications", INFOCOM 1994: an entry's tag is the larger of the
 * virtual time and its lane's last tag, plus cost / weight; the least tag is served and becomes the virtual time.
 * Cost: O(log tenants) for each push, take and remove.
 */
import { type HeapNode, IndexedHeap } from "./indexed-heap.ts";

/** Number of priorities; see `PRIORITY` in src/wire/envelope-layout.ts. */
export const PRIORITIES = 3;

/** How often in a row a waiting bulk and a waiting normal entry are passed over for higher ones. */
export const MAX_PASSED: readonly number[] = [8, 16, 0];

/** One waiting entry. The fields below `cost` belong to the queue. */
export class QueueEntry {
  readonly priority: number;
  readonly tenant: number;
  /** Share of its tenant against others, > 0. The first entry of a tenant's lane decides. */
  readonly weight: number;
  /** What serving it is expected to take, > 0, in any unit that all entries share. */
  readonly cost: number;
  lane: Lane | undefined;
  previous: QueueEntry | undefined;
  next: QueueEntry | undefined;

  constructor(priority: number, tenant: number, weight: number, cost: number) {
    this.priority = priority;
    this.tenant = tenant;
    this.weight = weight;
    this.cost = cost;
  }
}

/** The entries of one tenant in one priority, in their order. */
class Lane implements HeapNode {
  place = -1;
  readonly tenant: number;
  readonly weight: number;
  /** Virtual time from which the first entry's cost counts. */
  start: number;
  /** Virtual time at which the first entry is to be served. */
  tag = 0;
  /** Ties go by the time of becoming first. */
  turn = 0;
  count = 0;
  first: QueueEntry | undefined;
  last: QueueEntry | undefined;

  constructor(tenant: number, weight: number, start: number) {
    this.tenant = tenant;
    this.weight = weight;
    this.start = start;
  }
}

function isLaneBefore(a: Lane, b: Lane): boolean {
  return a.tag < b.tag || (a.tag === b.tag && a.turn < b.turn);
}

/** One priority. */
class PriorityClass {
  readonly heap: IndexedHeap<Lane> = new IndexedHeap(isLaneBefore);
  readonly lanes: Map<number, Lane> = new Map();
  virtual = 0;
  turns = 0;
  count = 0;
  weights = 0;
  passed = 0;

  /** Gives a lane's first entry its tag. */
  schedule(lane: Lane): void {
    lane.tag = lane.start + (lane.first as QueueEntry).cost / lane.weight;
    lane.turn = this.turns++;
  }
}

/** Waiting entries of one shard. */
export class FairQueue<E extends QueueEntry> {
  readonly #classes: readonly PriorityClass[] = Array.from({ length: PRIORITIES }, () => new PriorityClass());
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Appends an entry to its tenant's lane. */
  push(entry: E): void {
    const owner = this.#classes[entry.priority] as PriorityClass;
    let lane = owner.lanes.get(entry.tenant);
    if (lane === undefined) {
      lane = new Lane(entry.tenant, entry.weight, owner.virtual);
      owner.lanes.set(entry.tenant, lane);
      owner.weights += lane.weight;
    }
    entry.lane = lane;
    entry.previous = lane.last;
    entry.next = undefined;
    if (lane.last === undefined) lane.first = entry;
    else lane.last.next = entry;
    lane.last = entry;
    lane.count++;
    owner.count++;
    this.#size++;
    if (lane.count > 1) return;
    owner.schedule(lane);
    owner.heap.push(lane);
  }

  /** Takes the entry whose turn it is. */
  take(): E | undefined {
    if (this.#size === 0) return undefined;
    const owner = this.#nextClass();
    const lane = owner.heap.first as Lane;
    const entry = lane.first as E;
    owner.virtual = lane.tag;
    lane.start = lane.tag;
    this.#unlink(owner, lane, entry);
    return entry;
  }

  /** Takes an entry out, wherever it stands. It has cost its tenant nothing. @returns false when it was not in this queue */
  remove(entry: E): boolean {
    const { lane } = entry;
    const owner = this.#classes[entry.priority] as PriorityClass;
    if (lane === undefined || owner.lanes.get(entry.tenant) !== lane) return false;
    this.#unlink(owner, lane, entry);
    return true;
  }

  /** The entry of a tenant that came last, in one priority, and how many it has there. */
  newest(priority: number, tenant: number): E | undefined {
    return this.#classes[priority]?.lanes.get(tenant)?.last as E | undefined;
  }

  /** Entries of a tenant in one priority. */
  countOf(priority: number, tenant: number): number {
    return this.#classes[priority]?.lanes.get(tenant)?.count ?? 0;
  }

  /**
   * About how many entries would be served before one that is pushed now: all of higher priority, and of its own one as many
   * as fairness lets through before its tenant's turn.
   */
  ahead(priority: number, tenant: number, weight: number): number {
    let higher = 0;
    for (let above = priority + 1; above < PRIORITIES; above++) higher += (this.#classes[above] as PriorityClass).count;
    const owner = this.#classes[priority] as PriorityClass;
    const lane = owner.lanes.get(tenant);
    const weights = owner.weights + (lane === undefined ? weight : 0);
    const fair = (((lane?.count ?? 0) + 1) * weights) / (lane?.weight ?? weight) - 1;
    return higher + Math.min(owner.count, Math.ceil(fair));
  }

  /** Calls back with every entry, in no order that means anything; the queue must not change meanwhile. */
  forEach(callback: (entry: E) => void): void {
    for (const { heap } of this.#classes) {
      for (const lane of heap.nodes)
        for (let entry = lane.first; entry !== undefined; entry = entry.next) callback(entry as E);
    }
  }

  /** The highest priority that waits, unless a lower one was passed over too often. */
  #nextClass(): PriorityClass {
    let highest = PRIORITIES - 1;
    while ((this.#classes[highest] as PriorityClass).count === 0) highest--;
    let chosen = highest;
    for (let below = highest - 1; below >= 0; below--) {
      const waiting = this.#classes[below] as PriorityClass;
      if (waiting.count === 0) continue;
      if (chosen === highest && waiting.passed >= (MAX_PASSED[below] as number)) chosen = below;
      else waiting.passed++;
    }
    const owner = this.#classes[chosen] as PriorityClass;
    owner.passed = 0;
    return owner;
  }

  #unlink(owner: PriorityClass, lane: Lane, entry: QueueEntry): void {
    const wasFirst = lane.first === entry;
    if (entry.previous === undefined) lane.first = entry.next;
    else entry.previous.next = entry.next;
    if (entry.next === undefined) lane.last = entry.previous;
    else entry.next.previous = entry.previous;
    entry.lane = undefined;
    entry.previous = undefined;
    entry.next = undefined;
    lane.count--;
    owner.count--;
    this.#size--;
    if (lane.count === 0) {
      // Its last tag is not after the virtual time, so there is nothing to remember of it.
      owner.heap.remove(lane);
      owner.lanes.delete(lane.tenant);
      owner.weights = owner.heap.size === 0 ? 0 : owner.weights - lane.weight;
      if (owner.count === 0) owner.passed = 0;
    } else if (wasFirst) {
      owner.schedule(lane);
      owner.heap.moved(lane);
    }
  }
}
