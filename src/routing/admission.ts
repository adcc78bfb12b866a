/**
 * Admission of all work of one client thread: limits in flight, a bounded fair queue before them, and refusal of what cannot be
 * served in time.
 *
 * Invariant: never more in flight than the limits, nor more queued than the caps; every request that enters ends in exactly one of admitted,
 * refused, cancelled and expired; nothing overtakes within tenant and priority, and nothing waits that could go: while a request
 * waits, its shard's limit or the limit of all is used up.
 *
 * Refusal, in this order: a request that would wait longer than its deadline (or `maxQueueDelayMs`) allows goes at once. Under
 * pressure (85 % of the queue: bulk; 95 %: normal; with hysteresis) low priorities are shed; a tenant that holds at most half its
 * share is shed one state later, and at the cap it pushes out the newest request of the tenant that holds most. So
 * a flood meets its own wall.
 * Thread: one owner thread. Attempts are admitted one by one and none waits while it holds a slot, so nothing deadlocks.
 */
import { pressureName } from "../../native-bridge/pressure.ts";
import { invalidArgument, type ShardloomError } from "../errors.ts";
import { onceAborted } from "../runtime/abort.ts";
import type { Timer } from "../runtime/scheduler.ts";
import { PRIORITY } from "../wire/envelope-layout.ts";
import { type AdmissionOptions, type ResolvedAdmissionOptions, resolveAdmissionOptions } from "./admission-options.ts";
import {
  type AdmissionStats,
  AdmissionTicket,
  type AdmissionWaiter,
  aborted,
  badRequest,
  badTimes,
  expired,
  isRequest,
  overloaded,
  type RefusalReason,
} from "./admission-ticket.ts";
import { ShardGate } from "./shard-gate.ts";
import { NO_SLOT, SlotTable } from "./slot-table.ts";
import { TenantShares } from "./tenant-shares.ts";
import { WaitingRoom } from "./waiting-room.ts";

export type { AdmissionStats, AdmissionTicket, AdmissionWaiter } from "./admission-ticket.ts";
export { NO_SLOT } from "./slot-table.ts";

type Counters = { -readonly [Name in "admitted" | "cancelled" | "expired"]: AdmissionStats[Name] };

/** Expiry is looked for at most this often; a request may stay as long past its time. */
const SWEEP_MS = 5;
/** Time between two looks at shards that hold requests back and return nothing. */
const LOOK_MS = 50;
/** Times in replies are unsigned 32-bit. */
const LONGEST_US = 2 ** 32;

/** The door of one client thread. */
export class AdmissionController {
  readonly #options: ResolvedAdmissionOptions;
  readonly #gates: readonly ShardGate<AdmissionTicket>[];
  readonly #slots: SlotTable;
  readonly #tenants: TenantShares;
  readonly #room: WaitingRoom;
  readonly #counters: Counters = { admitted: 0, cancelled: 0, expired: 0 };
  readonly #refused: Record<RefusalReason, number> = { delay: 0, pressure: 0, full: 0, "pushed-out": 0 };
  /** Whether requests may wait that only the limit of all holds back. */
  #totalBound = false;
  #turn = 0;
  #dispatching = false;
  #again = false;
  #timer: Timer | undefined;
  #armedAtMs: number = Number.POSITIVE_INFINITY;
  #lookAtMs: number = Number.POSITIVE_INFINITY;
  #closed: ShardloomError | undefined;

  /** @throws {ShardloomError} `ERR_INVALID_ARGUMENT` naming option, rule and value. */
  constructor(options: AdmissionOptions) {
    this.#options = resolveAdmissionOptions(options);
    const { shards, maxInFlight, maxQueued, maxQueuedBytes, tenantWeights, targetQueueMs } = this.#options;
    const gate = {
      minLimit: this.#options.minInFlightPerShard,
      initialLimit: this.#options.initialInFlightPerShard,
      maxLimit: this.#options.maxInFlightPerShard,
      targetQueueUs: targetQueueMs * 1000,
    };
    this.#gates = Array.from({ length: shards }, (_, shard) => new ShardGate<AdmissionTicket>(shard, gate));
    this.#slots = new SlotTable(maxInFlight);
    this.#tenants = new TenantShares(maxQueued, maxQueuedBytes, tenantWeights);
    this.#room = new WaitingRoom(this.#gates, this.#tenants, maxQueued, maxQueuedBytes);
  }

  /** The number of a tenant, the same everywhere; 0 is nobody's. */
  tenant(name: string): number {
    return this.#tenants.numberOf(name);
  }

  /** Sets a tenant's share against others, `0.001..1000`. */
  setTenantWeight(name: string, weight: number): void {
    this.#tenants.setWeight(this.#tenants.numberOf(name), weight);
  }

  /** Requests that wait. Who sends bulk stops while there are any. */
  get queued(): number {
    return this.#room.count;
  }

  /**
   * Enters at once, if nobody is to be waited for. No allocation, no clock.
   *
   * @param bytes What the request would take in the queue.
   * @returns A slot to give back with {@link leave}, or {@link NO_SLOT}: then `enter` queues or refuses.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` for an unknown shard or priority, or a bad tenant or size.
   */
  tryEnter(shard: number, priority: number, tenant: number, bytes: number): number {
    const gate = this.#gates[shard];
    if (gate === undefined || !isRequest(priority, tenant, bytes))
      throw badRequest(this.#gates.length, shard, priority, tenant, bytes);
    if (gate.inFlight >= gate.limit) {
      gate.held = true;
      return NO_SLOT;
    }
    if (gate.queue.size > 0 || this.#slots.free === 0 || this.#closed !== undefined) return NO_SLOT;
    return this.#take(gate, tenant, Number.NaN);
  }

  /**
   * Enters when it may, or is refused.
   *
   * @param deadlineAtMs Time of the clock; infinity when there is none.
   * @returns The ticket, for {@link cancel}; the waiter may have been called already.
   * @throws {ShardloomError} As {@link tryEnter}, and for a NaN deadline.
   */
  enter(
    shard: number,
    priority: number,
    tenant: number,
    bytes: number,
    deadlineAtMs: number,
    waiter: AdmissionWaiter,
  ): AdmissionTicket {
    const gate = this.#gates[shard];
    if (gate === undefined || !isRequest(priority, tenant, bytes))
      throw badRequest(this.#gates.length, shard, priority, tenant, bytes);
    if (Number.isNaN(deadlineAtMs)) throw invalidArgument("admit request", "deadlineAtMs", "a number", deadlineAtMs);
    const nowMs = this.#options.clock.nowMs();
    const weight = this.#tenants.weightOf(tenant);
    const costUs = this.#tenants.costUs(tenant) || gate.serviceUs || 1;
    const giveUpAtMs = Math.min(deadlineAtMs, nowMs + 2 * this.#options.maxQueueDelayMs);
    // biome-ignore format: one call, one line of whose and one of when
    const ticket = new AdmissionTicket(shard, priority, tenant, weight, costUs, bytes,
      deadlineAtMs, giveUpAtMs, waiter);
    if (this.#closed !== undefined) this.#end(ticket, "cancelled", this.#closed);
    else if (deadlineAtMs <= nowMs) this.#end(ticket, "expired", expired(ticket, nowMs));
    else {
      const slot = this.tryEnter(shard, priority, tenant, bytes);
      if (slot === NO_SLOT) this.#queueOrRefuse(gate, ticket, nowMs);
      else this.#admit(ticket, slot);
    }
    return ticket;
  }

  /**
   * {@link enter} as a promise of the slot.
   *
   * @param signal Cancels the wait; once admitted it changes nothing.
   */
  admit(
    shard: number,
    priority: number,
    tenant: number,
    bytes: number,
    deadlineAtMs: number,
    signal?: AbortSignal,
  ): Promise<number> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        this.#counters.cancelled++;
        reject(aborted(signal));
        return;
      }
      let unlisten: (() => void) | undefined;
      const ticket = this.enter(shard, priority, tenant, bytes, deadlineAtMs, {
        onAdmitted: (slot) => {
          unlisten?.();
          resolve(slot);
        },
        onFailure: (error) => {
          unlisten?.();
          reject(error);
        },
      });
      if (signal !== undefined && ticket.state === "queued")
        unlisten = onceAborted(signal, () => this.cancel(ticket, aborted(signal)));
    });
  }

  /** Takes a request out of the queue; its waiter is called with the error. @returns false when it waits no more */
  cancel(ticket: AdmissionTicket, error: ShardloomError): boolean {
    if (!this.#room.remove(ticket)) return false;
    this.#end(ticket, "cancelled", error);
    return true;
  }

  /**
   * Gives a slot back and lets in whoever is next.
   *
   * @param serviceUs How long the shard served the request, as its reply says; 0 when unknown.
   * @param queueUs How long the request waited before that, as its reply says.
   * @param ok Not ok is what says that the shard is overloaded: no answer in time, or a refusal; an answer that is an error is ok.
   * @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when nobody holds the slot: it was given back before; and for times that
   *   are none.
   */
  leave(slot: number, serviceUs: number, queueUs: number, ok: boolean): void {
    const gate = this.#gates[this.#slots.shardOf(slot)] as ShardGate<AdmissionTicket>;
    if (!(serviceUs >= 0 && serviceUs < LONGEST_US && queueUs >= 0 && queueUs < LONGEST_US))
      throw badTimes(serviceUs, queueUs, LONGEST_US);
    if (serviceUs > 0) this.#tenants.observe(this.#slots.tenantOf(slot), serviceUs);
    gate.observe(serviceUs, queueUs, !ok);
    gate.inFlight--;
    const sinceMs = this.#slots.sinceMsOf(slot);
    this.#slots.release(slot);
    if (this.#room.count === 0) {
      if (ok) gate.observeFlight((serviceUs + queueUs) / 1000);
      return;
    }
    const nowMs = this.#options.clock.nowMs();
    if (!Number.isNaN(sinceMs)) gate.observeFlight(nowMs - sinceMs);
    if (gate.queue.size > 0) gate.countPace(nowMs * 1000);
    this.#dispatch(gate, nowMs);
  }

  /** A shard was lost or replaced: all that waits for it ends with the error, and what was learnt of it is forgotten. */
  failShard(shard: number, error: ShardloomError): void {
    const gate = this.#gates[shard];
    if (gate === undefined) throw badRequest(this.#gates.length, shard, PRIORITY.NORMAL, 0, 0);
    gate.reset();
    const waiting: AdmissionTicket[] = [];
    gate.queue.forEach((ticket) => {
      waiting.push(ticket);
    });
    for (const ticket of waiting) this.cancel(ticket, error);
  }

  /** Ends all that waits with the error, and refuses whatever comes later with it. Slots may still be given back. */
  close(error: ShardloomError): void {
    if (this.#closed !== undefined) return;
    this.#closed = error;
    this.#timer?.cancel();
    for (const { shard } of this.#gates) this.failShard(shard, error);
  }

  stats(): AdmissionStats {
    return {
      ...this.#counters,
      refused: { ...this.#refused },
      inFlight: this.#slots.taken,
      queued: this.#room.count,
      queuedBytes: this.#room.bytes,
      tenantsWaiting: this.#tenants.waiting,
      pressure: pressureName(this.#room.pressure),
      pressureChanges: this.#room.pressureChanges,
      limits: this.#gates.map(({ limit }) => limit),
    };
  }

  #take(gate: ShardGate<AdmissionTicket>, tenant: number, nowMs: number): number {
    gate.inFlight++;
    this.#counters.admitted++;
    return this.#slots.take(gate.shard, tenant, nowMs);
  }

  #queueOrRefuse(gate: ShardGate<AdmissionTicket>, ticket: AdmissionTicket, nowMs: number): void {
    const { priority, tenant, weight } = ticket;
    const waitMs = gate.waitUs(gate.queue.ahead(priority, tenant, weight), nowMs * 1000) / 1000;
    const allowedMs = Math.min(this.#options.maxQueueDelayMs, ticket.deadlineAtMs - nowMs - gate.neededMs(ticket.cost));
    if (waitMs > allowedMs) {
      this.#refuse(ticket, "delay", waitMs - allowedMs);
      return;
    }
    const reason = this.#room.sheds(ticket) ? "pressure" : this.#makeRoom(ticket) ? undefined : "full";
    if (reason !== undefined) {
      this.#refuse(ticket, reason, waitMs / 4);
      return;
    }
    if (this.#closed !== undefined) {
      this.#end(ticket, "cancelled", this.#closed); // by a waiter that was pushed out
      return;
    }
    if (gate.queue.size === 0) gate.beginPace(nowMs * 1000);
    this.#room.add(gate, ticket);
    if (gate.inFlight < gate.limit) this.#totalBound = true;
    if (this.#room.count === 1 && this.#options.hasTaken !== undefined) this.#lookAtMs = nowMs + LOOK_MS;
    this.#arm(Math.min(ticket.giveUpAtMs, this.#lookAtMs), nowMs);
    // A waiter that was pushed out may have given a slot back meanwhile.
    if (this.#slots.free > 0 && gate.inFlight < gate.limit) this.#dispatch(gate, nowMs);
  }

  /** Pushes out requests of heavier tenants until the ticket fits. @returns whether it does */
  #makeRoom(ticket: AdmissionTicket): boolean {
    const room = this.#room;
    while (!room.fits(ticket)) {
      const victim = room.victimFor(ticket);
      if (victim === undefined) return false;
      room.remove(victim);
      this.#refuse(victim, "pushed-out", this.#options.maxQueueDelayMs);
    }
    return true;
  }

  /** Lets in whoever may go now that something of the gate's came back. Calls made by waiters are folded into one loop. */
  #dispatch(gate: ShardGate<AdmissionTicket>, nowMs: number): void {
    if (this.#dispatching) {
      this.#again = true;
      return;
    }
    this.#dispatching = true;
    try {
      if (!this.#totalBound) while (this.#dispatchOne(gate, nowMs));
      else this.#again = true;
      while (this.#again) {
        this.#again = false;
        this.#dispatchAll(nowMs);
      }
    } finally {
      this.#dispatching = false;
    }
    if (gate.queue.size > 0 && gate.inFlight >= gate.limit) gate.held = true;
  }

  /** One request a shard in turn, until none may go. */
  #dispatchAll(nowMs: number): void {
    const gates = this.#gates;
    for (let idle = 0; idle < gates.length && this.#room.count > 0 && this.#slots.free > 0; ) {
      const gate = gates[this.#turn] as ShardGate<AdmissionTicket>;
      this.#turn = this.#turn + 1 === gates.length ? 0 : this.#turn + 1;
      idle = this.#dispatchOne(gate, nowMs) ? 0 : idle + 1;
    }
    this.#totalBound = this.#room.count > 0 && this.#slots.free === 0;
  }

  /** Takes the next request of a shard and lets it in, unless it has come too late. @returns whether there was one */
  #dispatchOne(gate: ShardGate<AdmissionTicket>, nowMs: number): boolean {
    if (gate.queue.size === 0 || gate.inFlight >= gate.limit) return false;
    if (this.#slots.free === 0) {
      this.#totalBound = true;
      return false;
    }
    const ticket = this.#room.take(gate) as AdmissionTicket;
    if (!this.#giveUp(ticket, nowMs, gate.neededMs(ticket.cost)))
      this.#admit(ticket, this.#take(gate, ticket.tenant, nowMs));
    return true;
  }

  /** Ends a request that waits no more and cannot be served in the time it has left. @returns whether it was ended */
  #giveUp(ticket: AdmissionTicket, nowMs: number, neededMs: number): boolean {
    if (ticket.deadlineAtMs <= nowMs) this.#end(ticket, "expired", expired(ticket, nowMs));
    else if (ticket.giveUpAtMs <= nowMs || ticket.deadlineAtMs - nowMs < neededMs)
      this.#refuse(ticket, "delay", this.#options.maxQueueDelayMs);
    else return false;
    return true;
  }

  #admit(ticket: AdmissionTicket, slot: number): void {
    ticket.state = "admitted";
    ticket.waiter.onAdmitted(slot);
  }

  #refuse(ticket: AdmissionTicket, reason: RefusalReason, retryAfterMs: number): void {
    this.#refused[reason]++;
    const inFlight = this.#slots.taken;
    const error = overloaded(reason, ticket, Math.max(1, Math.ceil(retryAfterMs)), this.#room.count, inFlight);
    this.#end(ticket, "refused", error);
  }

  #end(ticket: AdmissionTicket, state: "refused" | "cancelled" | "expired", error: ShardloomError): void {
    ticket.state = state;
    if (state !== "refused") this.#counters[state]++;
    ticket.waiter.onFailure(error);
  }

  /** Makes sure that expiry is looked for at a time. The timer keeps no process alive: what is in flight does. */
  #arm(atMs: number, nowMs: number): void {
    if (atMs >= this.#armedAtMs) return;
    this.#timer?.cancel();
    this.#armedAtMs = Math.max(atMs, nowMs + SWEEP_MS);
    this.#timer = this.#options.scheduler.timer(this.#armedAtMs - nowMs, () => this.#sweep());
    this.#timer.unref();
  }

  /** Ends what has waited too long. */
  #sweep(): void {
    this.#armedAtMs = Number.POSITIVE_INFINITY;
    const nowMs = this.#options.clock.nowMs();
    const { tickets, nextMs } = this.#room.due(nowMs);
    for (const ticket of tickets) if (this.#room.remove(ticket)) this.#giveUp(ticket, nowMs, 0);
    if (nowMs >= this.#lookAtMs) this.#look(nowMs);
    if (this.#room.count > 0 && this.#closed === undefined) this.#arm(Math.min(nextMs, this.#lookAtMs), nowMs);
  }

  /** Lets more into shards that have taken all they got and wait, it seems, for what waits here. */
  #look(nowMs: number): void {
    const { hasTaken } = this.#options;
    this.#lookAtMs = nowMs + LOOK_MS;
    for (const gate of this.#gates)
      if (gate.look(gate.queue.size > 0 && hasTaken?.(gate.shard) === true)) this.#dispatch(gate, nowMs);
  }
}
