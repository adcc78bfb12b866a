/**
 * The lease of whoever has a node's part of a store open: two processes never serve from it at the same time.
 *
 * Where a directory has a lock that ends with its process, a store elsewhere has a lease that is renewed: who opens it while somebody renews is
 * refused, who opens it after a crash waits until the lease is over. Writes of a former owner are refused by the logs in any case; the lease keeps
 * him from answering strong reads, and tells him.
 *
 * Invariant: see lease.ts. An owner whose lease was lost has lost it for good. Times are those of the lease itself, whatever the next one's are.
 */
import { ShardloomError } from "../errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Random } from "../runtime/random.ts";
import { type Scheduler, sleep, type Timer } from "../runtime/scheduler.ts";
import { decodeLease, HeldLease, leaseKey, WatchedLease } from "./lease.ts";
import type { LeaseEntry, LeaseStore } from "./lease-store.ts";
import type { LeaseWords } from "./lease-words.ts";

export interface OwnerLeaseOptions {
  readonly store: LeaseStore;
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  readonly random: Pick<Random, "u32">;
  /** Whose part of the store it is. */
  readonly node: string;
  /** What the store is called, for errors. */
  readonly place: string;
  readonly leaseMs: number;
}

const RENEWALS_PER_LEASE = 3;
const LOOKS_PER_LEASE = 10;
/** Tries to make the lease one's own while the store does not say whether it is. */
const TRIES = 8;

export class OwnerLease {
  readonly #options: OwnerLeaseOptions;
  readonly #held: HeldLease;
  #words: LeaseWords | undefined;
  #timer: Timer | undefined;
  #renewing: Promise<void> = Promise.resolve();
  #isOver = false;

  private constructor(options: OwnerLeaseOptions, held: HeldLease) {
    this.#options = options;
    this.#held = held;
    this.#renewLater();
  }

  /**
   * Takes the lease, after it is over.
   *
   * @throws {ShardloomError} `ERR_DIRECTORY_IN_USE` while somebody renews it; `ERR_UNAVAILABLE`, `ERR_TIMEOUT` when the store does not answer.
   */
  static async take(options: OwnerLeaseOptions): Promise<OwnerLease> {
    const { store, clock, random, node, leaseMs, place } = options;
    const seen = await overEntry(options);
    const held = new HeldLease({ store, clock, node, incarnation: random.u32(), leaseMs });
    let outcome = await held.acquireAfter(seen);
    for (let tries = 1; outcome === "unknown" && tries < TRIES; tries++) outcome = await held.renew();
    if (outcome === "held") return new OwnerLease(options, held);
    if (outcome === "lost") throw inUse(options);
    throw new ShardloomError(
      "ERR_UNAVAILABLE",
      `Cannot open ${place} as its servers must say who has it open: they do not answer`,
    );
  }

  /** From now on workers look at the lease before they answer strong reads and take writes. */
  guard(words: LeaseWords): void {
    this.#words = words;
    if (this.#isOver) words.lapse();
    else words.hold(this.#held.untilMs);
  }

  /** Gives the lease back. Everything that uses what it is for must have ended. */
  async close(): Promise<void> {
    const wasOver = this.#isOver;
    this.#isOver = true;
    this.#timer?.cancel();
    await this.#renewing;
    if (!wasOver) await this.#held.release();
  }

  #renewLater(): void {
    const { scheduler, leaseMs } = this.#options;
    this.#timer = scheduler.timer(leaseMs / RENEWALS_PER_LEASE, () => {
      this.#renewing = this.#renew();
    });
    this.#timer.unref();
  }

  async #renew(): Promise<void> {
    const outcome = await this.#held.renew();
    if (outcome === "held" && !this.#isOver) this.#words?.hold(this.#held.untilMs);
    if (outcome === "lost") {
      this.#isOver = true;
      this.#words?.lapse();
    }
    if (!this.#isOver) this.#renewLater();
  }
}

/** What a lease says that nobody renews any more; undefined: there never was one. */
async function overEntry(options: OwnerLeaseOptions): Promise<LeaseEntry | undefined> {
  const { store, clock, scheduler, node, leaseMs } = options;
  const key = leaseKey(node);
  const first = await store.get(key, leaseMs);
  const value = first === undefined ? undefined : decodeLease(first.value);
  if (first === undefined || value === undefined || value.takenBy !== undefined) return first;
  const lastsMs = value.leaseMs ?? leaseMs;
  const lookMs = Math.min(leaseMs, lastsMs) / LOOKS_PER_LEASE;
  const watched = new WatchedLease(lastsMs, lookMs, clock.nowMs());
  watched.saw(first, clock.nowMs());
  while (!watched.look(clock.nowMs())) {
    await sleep(scheduler, lookMs);
    const now = await store.get(key, leaseMs).catch(() => undefined); // a look that failed says nothing
    if (now !== undefined && now.revision !== first.revision) throw inUse(options);
  }
  return first;
}

function inUse({ place, node }: OwnerLeaseOptions): ShardloomError {
  return new ShardloomError(
    "ERR_DIRECTORY_IN_USE",
    `Cannot open ${place} as it must not be open elsewhere: somebody has it open as node ${node}`,
    { details: { place, node } },
  );
}
