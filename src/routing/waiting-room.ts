/**
 * All requests that wait for admission, whatever their shard: caps, pressure, and who must make room for whom.
 *
 * Invariant: count and bytes never exceed their caps, and equal the sums over the queues of all gates and over the backlogs of all
 * tenants. Pressure follows the larger of the two uses, with hysteresis (native-bridge/pressure.ts).
 */
import { nextPressure, PRESSURE_OPEN } from "../../native-bridge/pressure.ts";
import { PRIORITY } from "../wire/envelope-layout.ts";
import type { AdmissionTicket } from "./admission-ticket.ts";
import type { ShardGate } from "./shard-gate.ts";
import type { TenantShares } from "./tenant-shares.ts";

/** Part of the queue, as a shift, that is kept for control. */
const CONTROL_SHIFT = 6;

/** What has waited too long, and when the next will have. */
export interface Due {
  readonly tickets: readonly AdmissionTicket[];
  /** Infinity when nothing else waits. */
  readonly nextMs: number;
}

/** Where requests wait. */
export class WaitingRoom {
  count = 0;
  bytes = 0;
  pressure: number = PRESSURE_OPEN;
  /** How often the pressure changed its state. */
  pressureChanges = 0;
  readonly #gates: readonly ShardGate<AdmissionTicket>[];
  readonly #tenants: TenantShares;
  readonly #maxCount: number;
  readonly #maxBytes: number;

  constructor(gates: readonly ShardGate<AdmissionTicket>[], tenants: TenantShares, maxCount: number, maxBytes: number) {
    this.#gates = gates;
    this.#tenants = tenants;
    this.#maxCount = maxCount;
    this.#maxBytes = maxBytes;
  }

  /** Whether pressure sheds a request: bulk when throttled, normal when suspended, of light tenants one state later. */
  sheds({ priority, tenant, bytes }: AdmissionTicket): boolean {
    return priority < this.pressure - (this.#tenants.isLight(tenant, bytes) ? 1 : 0);
  }

  /** Whether there is room for a request. */
  fits({ priority, bytes }: AdmissionTicket): boolean {
    const cap = priority === PRIORITY.CONTROL ? this.#maxCount : this.#maxCount - (this.#maxCount >> CONTROL_SHIFT);
    return this.count < cap && this.bytes + bytes <= this.#maxBytes;
  }

  /**
   * Who must make room for a request that does not fit: the newest of the tenant that holds most of the queue for its weight,
   * in its lowest priority, at the shard where it has most. Undefined when nobody must: no tenant holds more than this one would, or
   * that one has only higher priorities.
   */
  victimFor({ priority, tenant, bytes }: AdmissionTicket): AdmissionTicket | undefined {
    const heavier = bytes > this.#maxBytes ? -1 : this.#tenants.heavierThan(tenant, bytes);
    if (heavier < 0) return undefined;
    for (let at: number = PRIORITY.BULK; at <= priority; at++) {
      let most = 0;
      let victim: AdmissionTicket | undefined;
      for (const { queue } of this.#gates) {
        const count = queue.size > most ? queue.countOf(at, heavier) : 0;
        if (count <= most) continue;
        most = count;
        victim = queue.newest(at, heavier);
      }
      if (victim !== undefined) return victim;
    }
    return undefined;
  }

  /** Puts a request that fits into the queue of its gate. */
  add(gate: ShardGate<AdmissionTicket>, ticket: AdmissionTicket): void {
    gate.queue.push(ticket);
    this.#tenants.add(ticket.tenant, ticket.bytes);
    this.count++;
    this.bytes += ticket.bytes;
    this.#weigh();
  }

  /** Takes the request whose turn it is at a gate. */
  take(gate: ShardGate<AdmissionTicket>): AdmissionTicket | undefined {
    const ticket = gate.queue.take();
    if (ticket !== undefined) this.#forget(ticket);
    return ticket;
  }

  /** Takes a request out, wherever it stands. @returns false when it does not wait */
  remove(ticket: AdmissionTicket): boolean {
    if (this.#gates[ticket.shard]?.queue.remove(ticket) !== true) return false;
    this.#forget(ticket);
    return true;
  }

  /** What has waited too long; it still waits. */
  due(nowMs: number): Due {
    const tickets: AdmissionTicket[] = [];
    let nextMs = Number.POSITIVE_INFINITY;
    const look = (ticket: AdmissionTicket): void => {
      if (ticket.giveUpAtMs <= nowMs) tickets.push(ticket);
      else nextMs = Math.min(nextMs, ticket.giveUpAtMs);
    };
    for (const { queue } of this.#gates) queue.forEach(look);
    return { tickets, nextMs };
  }

  #forget(ticket: AdmissionTicket): void {
    this.#tenants.remove(ticket.tenant, ticket.bytes);
    this.count--;
    this.bytes -= ticket.bytes;
    this.#weigh();
  }

  #weigh(): void {
    const next = nextPressure(this.pressure, Math.max(this.count / this.#maxCount, this.bytes / this.#maxBytes));
    if (next !== this.pressure) this.pressureChanges++;
    this.pressure = next;
  }
}
