/**
 * Tenants of one client thread: number, weight, what a request of theirs takes, and how much of the queue they hold.
 *
 * Invariant: a name has the same number on every thread and host (its stable hash, never 0); 0 is nobody's. What is kept for
 * each tenant is bounded: backlogs exist only while something waits, the rest for at most {@link MAX_TENANTS} of them; those
 * beyond have weight 1 and an unknown cost.
 * **Divergence** from a registry that counts: two names may share a number, with odds of 1 : 2^32 a pair, and then share a share.
 */
import { invalidArgument } from "../errors.ts";
import { hashString } from "../topology/stable-hash.ts";
import { type HeapNode, IndexedHeap } from "./indexed-heap.ts";

/** Tenants whose names, weights and costs are remembered. */
const MAX_TENANTS = 65_536;
/** Weight of the newest sample in the mean cost of a tenant. */
const COST_GAIN = 1 / 16;
/** Part of its share up to which a tenant counts as light. */
const LIGHT_PART = 0.5;

/** What a tenant has in the queue. */
class Backlog implements HeapNode {
  place = -1;
  readonly tenant: number;
  readonly weight: number;
  count = 0;
  bytes = 0;
  /** The larger part of the two capacities that it holds, over its weight. */
  load = 0;

  constructor(tenant: number, weight: number) {
    this.tenant = tenant;
    this.weight = weight;
  }
}

/** Numbers, weights, costs and backlogs of tenants. */
export class TenantShares {
  readonly #maxQueued: number;
  readonly #maxQueuedBytes: number;
  readonly #numbers = new Map<string, number>();
  readonly #weights = new Map<number, number>();
  readonly #costs = new Map<number, number>();
  readonly #backlogs = new Map<number, Backlog>();
  readonly #heaviest = new IndexedHeap<Backlog>((a, b) => a.load > b.load);
  #weightSum = 0;

  constructor(maxQueued: number, maxQueuedBytes: number, weights: Readonly<Record<string, number>>) {
    this.#maxQueued = maxQueued;
    this.#maxQueuedBytes = maxQueuedBytes;
    for (const [name, weight] of Object.entries(weights)) this.setWeight(this.numberOf(name), weight);
  }

  /**
   * The number of a tenant, for the envelope and for admission.
   *
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` unless the name is a string that is not empty.
   */
  numberOf(name: string): number {
    const known = this.#numbers.get(name);
    if (known !== undefined) return known;
    if (typeof name !== "string" || name === "")
      throw invalidArgument("admit work", "tenant", "a string that is not empty", name);
    const number = hashString(name) || 1;
    if (this.#numbers.size < MAX_TENANTS) this.#numbers.set(name, number);
    return number;
  }

  /** Sets a tenant's share against others; entries that wait already keep theirs. */
  setWeight(tenant: number, weight: number): void {
    if (typeof weight !== "number" || !(weight >= 0.001 && weight <= 1000))
      throw invalidArgument("admit work", "weight", "a number in [0.001, 1000]", weight);
    if (this.#weights.size >= MAX_TENANTS && !this.#weights.has(tenant))
      throw invalidArgument("admit work", "the number of weighted tenants", `at most ${MAX_TENANTS}`, MAX_TENANTS + 1);
    this.#weights.set(tenant, weight);
  }

  weightOf(tenant: number): number {
    return this.#weights.get(tenant) ?? 1;
  }

  /** Mean service time of the tenant's requests in us; 0 when unknown. */
  costUs(tenant: number): number {
    return this.#costs.get(tenant) ?? 0;
  }

  /** Takes in how long one request was served. */
  observe(tenant: number, serviceUs: number): void {
    const mean = this.#costs.get(tenant);
    if (mean !== undefined) this.#costs.set(tenant, mean + (serviceUs - mean) * COST_GAIN);
    else if (this.#costs.size < MAX_TENANTS) this.#costs.set(tenant, serviceUs);
  }

  /** Whether the tenant, with so many more bytes, would hold at most half of its share of the queue. */
  isLight(tenant: number, bytes: number): boolean {
    const backlog = this.#backlogs.get(tenant);
    const weight = backlog?.weight ?? this.weightOf(tenant);
    const weights = this.#weightSum + (backlog === undefined ? weight : 0);
    return this.#loadWith(tenant, bytes) * weights <= LIGHT_PART;
  }

  /** The tenant that holds most of the queue for its weight, or -1; never one that holds no more than `tenant` would. */
  heavierThan(tenant: number, bytes: number): number {
    const heaviest = this.#heaviest.first;
    return heaviest === undefined || heaviest.tenant === tenant || heaviest.load <= this.#loadWith(tenant, bytes)
      ? -1
      : heaviest.tenant;
  }

  /** Tenants that have something in the queue. */
  get waiting(): number {
    return this.#backlogs.size;
  }

  /** One more entry of a tenant waits. */
  add(tenant: number, bytes: number): void {
    let backlog = this.#backlogs.get(tenant);
    if (backlog === undefined) {
      backlog = new Backlog(tenant, this.weightOf(tenant));
      this.#backlogs.set(tenant, backlog);
      this.#heaviest.push(backlog);
      this.#weightSum += backlog.weight;
    }
    this.#change(backlog, 1, bytes);
  }

  /** One entry of a tenant waits no more. */
  remove(tenant: number, bytes: number): void {
    const backlog = this.#backlogs.get(tenant) as Backlog;
    this.#change(backlog, -1, -bytes);
    if (backlog.count > 0) return;
    this.#backlogs.delete(tenant);
    this.#heaviest.remove(backlog);
    this.#weightSum = this.#backlogs.size === 0 ? 0 : this.#weightSum - backlog.weight;
  }

  #change(backlog: Backlog, count: number, bytes: number): void {
    backlog.count += count;
    backlog.bytes += bytes;
    backlog.load = this.#useOf(backlog.count, backlog.bytes) / backlog.weight;
    this.#heaviest.moved(backlog);
  }

  #loadWith(tenant: number, bytes: number): number {
    const backlog = this.#backlogs.get(tenant);
    const weight = backlog?.weight ?? this.weightOf(tenant);
    return this.#useOf((backlog?.count ?? 0) + 1, (backlog?.bytes ?? 0) + bytes) / weight;
  }

  #useOf(count: number, bytes: number): number {
    return Math.max(count / this.#maxQueued, bytes / this.#maxQueuedBytes);
  }
}
