/**
 * The lease of a node: how it is held, and how others find that it is over.
 *
 * The holder renews it by compare-and-set and counts its time from before it sent the renewal that succeeded, on its own monotonic clock. Others count
 * from when they first saw what the lease says, on theirs, and longer: whatever the two clocks show, the holder is through first. Taking over is a
 * compare-and-set on what was seen: so no renewal has come between, and every later one fails, also one that was sent before and comes late.
 *
 * Invariant: while `until` of a holder has not passed on its clock, nobody has taken the lease over. Clocks may differ by `CLOCK_SHARE`; a clock that
 * jumps forward makes its holder give up early, and a watcher count no more than between two of its looks.
 * Source: Gray and Cheriton, "Leases", SOSP 1989; the order of times as there, section 2.
 */
import { ShardloomError } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { LeaseEntry, LeaseStore } from "./lease-store.ts";

/** What a lease says. */
export interface LeaseValue {
  readonly holder: string;
  readonly incarnation: number;
  /** Counts the times that it was acquired or taken. */
  readonly leaseEpoch: number;
  /** Counts renewals. */
  readonly counter: number;
  /** How long it is good, by its holder; absent: as everybody's, in ms. */
  readonly leaseMs?: number;
  /** Who has taken it from its holder, who is not to hold it any more; the holder himself when he has given it back. */
  readonly takenBy?: string;
}

/** How much longer than the holder others wait, at least: twice 5 % between two clocks, and some. */
const CLOCK_SHARE = 1.15;

/** Part of the lease that one call to the store may take: what was lost is sent again while it is good. */
const CALL_SHARE = 0.25;

/** Key of a node's lease. */
export function leaseKey(node: string): string {
  return `node/${node}`;
}

export function encodeLease(value: LeaseValue): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

/** @returns undefined for what is no lease */
export function decodeLease(bytes: Uint8Array): LeaseValue | undefined {
  try {
    const value = JSON.parse(new TextDecoder().decode(bytes)) as Partial<LeaseValue> | null;
    const isLease = typeof value?.holder === "string" && Number.isInteger(value.leaseEpoch);
    return isLease ? (value as LeaseValue) : undefined;
  } catch {
    return undefined; // somebody else's bytes: whoever wants the lease writes over them
  }
}

/** What a holder works with. */
export interface HeldLeaseOptions {
  readonly store: LeaseStore;
  readonly clock: Clock;
  readonly node: string;
  readonly incarnation: number;
  readonly leaseMs: number;
}

/** The lease of this node. Calls must not overlap. */
export class HeldLease {
  readonly #options: HeldLeaseOptions;
  readonly #key: string;
  #revision = 0;
  #epoch = 0;
  #counter = 0;
  #untilMs: number = Number.NEGATIVE_INFINITY;
  /** When renewals were sent whose outcome is not known, by counter. */
  readonly #sentAtMs: Map<number, number> = new Map();

  constructor(options: HeldLeaseOptions) {
    this.#options = options;
    this.#key = leaseKey(options.node);
  }

  /** Until when it is good, on this node's clock. */
  get untilMs(): number {
    return this.#untilMs;
  }

  /** Under which it was acquired last. */
  get leaseEpoch(): number {
    return this.#epoch;
  }

  /** Makes the lease this life's. @returns false when that is not known yet: to be tried again */
  async acquire(): Promise<boolean> {
    const { store, node, incarnation, leaseMs } = this.#options;
    this.#untilMs = Number.NEGATIVE_INFINITY;
    const known = await attempt(store.get(this.#key, leaseMs * CALL_SHARE));
    if (known === FAILED) return false;
    const value = known === undefined ? undefined : decodeLease(known.value);
    if (value !== undefined && value.incarnation > incarnation && value.holder === node)
      throw new ShardloomError(
        "ERR_STALE_EPOCH",
        `Cannot hold lease of ${node} as its incarnation must be at least ${value.incarnation}: current value is ${incarnation}`,
      );
    this.#epoch = (value?.leaseEpoch ?? 0) + 1;
    this.#revision = known?.revision ?? 0;
    return (await this.renew()) === "held";
  }

  /** Makes the lease this life's if it is as it was seen, by somebody who knows that it is over. @returns as {@link renew} */
  acquireAfter(seen: LeaseEntry | undefined): Promise<"held" | "lost" | "unknown"> {
    this.#epoch = ((seen === undefined ? undefined : decodeLease(seen.value))?.leaseEpoch ?? 0) + 1;
    this.#revision = seen?.revision ?? 0;
    return this.renew();
  }

  /** Gives it back: who wants it next need not wait until it is over. Nothing depends on it. */
  async release(): Promise<void> {
    const { store, leaseMs, node } = this.#options;
    this.#untilMs = Number.NEGATIVE_INFINITY;
    await attempt(store.put(this.#key, encodeLease({ ...this.#value, takenBy: node }), this.#revision, leaseMs));
  }

  /** @returns `lost` when somebody else has it: it must be acquired again; `unknown`: it is as good as it was */
  async renew(): Promise<"held" | "lost" | "unknown"> {
    const { store, clock, node, incarnation, leaseMs } = this.#options;
    const counter = ++this.#counter;
    const sentAtMs = clock.nowMs(); // before it leaves: whoever sees it sees it later
    this.#sentAtMs.set(counter, sentAtMs);
    const revision = await attempt(
      store.put(this.#key, encodeLease(this.#value), this.#revision, leaseMs * CALL_SHARE),
    );
    if (revision !== FAILED) return this.#held(counter, revision);
    const entry = await attempt(store.get(this.#key, leaseMs * CALL_SHARE)); // in doubt, or another one was there first
    if (entry === FAILED) return "unknown";
    if (entry === undefined) return this.#revision === 0 ? "unknown" : "lost";
    const found = decodeLease(entry.value);
    const isOurs = found?.holder === node && found.incarnation === incarnation && found.leaseEpoch === this.#epoch;
    if (isOurs && found.takenBy === undefined) return this.#held(found.counter, entry.revision);
    return entry.revision === this.#revision ? "unknown" : "lost";
  }

  get #value(): LeaseValue {
    const { node: holder, incarnation, leaseMs } = this.#options;
    return { holder, incarnation, leaseEpoch: this.#epoch, counter: this.#counter, leaseMs };
  }

  #held(counter: number, revision: number): "held" {
    this.#revision = revision;
    const sentAtMs = this.#sentAtMs.get(counter);
    if (sentAtMs !== undefined) this.#untilMs = Math.max(this.#untilMs, sentAtMs + this.#options.leaseMs);
    for (const sent of this.#sentAtMs.keys()) if (sent <= counter) this.#sentAtMs.delete(sent);
    return "held";
  }
}

/** Judges the lease of another node. */
export class WatchedLease {
  readonly #overMs: number;
  readonly #stepMs: number;
  #entry: LeaseEntry | undefined;
  #quietMs = 0;
  #lookedAtMs: number;

  /** @param lookMs Time between two looks, about: no more than twice as much counts for one. */
  constructor(leaseMs: number, lookMs: number, nowMs: number) {
    this.#overMs = leaseMs * CLOCK_SHARE + lookMs;
    this.#stepMs = 2 * lookMs;
    this.#lookedAtMs = nowMs;
  }

  /** What was seen last; undefined: nothing was ever there. */
  get entry(): LeaseEntry | undefined {
    return this.#entry;
  }

  /** It was seen. Older news than is known changes nothing. */
  saw(entry: LeaseEntry, nowMs: number): void {
    if (entry.revision <= (this.#entry?.revision ?? 0)) return;
    this.#entry = entry;
    this.#quietMs = 0;
    this.#lookedAtMs = nowMs;
  }

  /** Whether it may be taken over. Called every `lookMs`. */
  look(nowMs: number): boolean {
    // A clock that jumped, or a thread that slept, has not watched meanwhile.
    this.#quietMs += Math.min(this.#stepMs, Math.max(0, nowMs - this.#lookedAtMs));
    this.#lookedAtMs = nowMs;
    return this.#quietMs >= this.#overMs;
  }
}

/** Takes the lease of a node whose time is over. @returns its new epoch; undefined when it was not, or that is not known */
export async function takeLease(
  store: LeaseStore,
  node: string,
  entry: LeaseEntry | undefined,
  takenBy: string,
  timeoutMs: number,
): Promise<{ readonly leaseEpoch: number } | undefined> {
  const known = entry === undefined ? undefined : decodeLease(entry.value);
  if (known?.takenBy !== undefined) return { leaseEpoch: known.leaseEpoch }; // by somebody who did not come further
  const leaseEpoch = (known?.leaseEpoch ?? 0) + 1;
  const incarnation = known?.incarnation ?? 0;
  const value: LeaseValue = { holder: node, incarnation, leaseEpoch, counter: 0, takenBy };
  // In doubt it is seen next time, by whoever looks.
  const revision = await attempt(store.put(leaseKey(node), encodeLease(value), entry?.revision ?? 0, timeoutMs));
  return revision === FAILED ? undefined : { leaseEpoch };
}

const FAILED: unique symbol = Symbol("failed");

/** The answer of a call to the store, or that there is none. */
async function attempt<T>(call: Promise<T>): Promise<T | typeof FAILED> {
  try {
    return await call;
  } catch (error) {
    if (ShardloomError.is(error)) return FAILED; // stale, timed out or closed: what is there says more
    throw error;
  }
}
