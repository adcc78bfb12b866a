/**
 * Drives the requesters of one event-loop thread: flushes once per turn, settles replies, watches deadlines, sleeps.
 *
 * A send schedules a run in the microtask queue; there everything that was sent is published with one wake per peer and
 * replies are settled. As callers go on in microtasks too, and may send more, runs follow one another until {@link QUIET_RUNS}
 * of them found nothing new; only then the thread spins for as long as replies have lately been worth it (`AdaptiveSpin`),
 * and then parks in `Atomics.waitAsync` on its own doorbell, which one batch of replies rings once.
 *
 * Invariant: while a request is open, either a run is scheduled or the doorbell is armed, and a ref'd timer for the earliest
 * deadline keeps the process alive (a pending `waitAsync` does not). A chain of asks answered within microtasks
 * hands the loop a turn every {@link TURN_LIMIT_MS}.
 */
import type { Doorbell } from "../../native-bridge/doorbell.ts";
import type { AdaptiveSpin } from "../../native-bridge/idle-strategy.ts";
import type { Clock } from "../runtime/clock.ts";
import type { Scheduler, Timer } from "../runtime/scheduler.ts";
import type { Requester } from "./requester.ts";

/** Replies settled for one peer before the next peer has its turn. */
const DRAIN_LIMIT = 256;
/** How long answered asks may chain in microtasks before timers and I/O get a turn. */
const TURN_LIMIT_MS = 1;
/** Runs without news before spinning: an `async` function that returns a promise takes three microtasks to resume its caller. */
const QUIET_RUNS = 3;
/** Runs between two looks at the clock, where no caller told the time. */
const CLOCK_EVERY_RUNS = 16;

/** What a pump needs from its thread. */
export interface ReplyPumpOptions {
  readonly clock: Clock;
  readonly scheduler: Scheduler;
  /** The doorbell that peers ring when they publish replies to this thread. */
  readonly bell: Doorbell;
  readonly spin: AdaptiveSpin;
}

/** Moves requests out and replies in for all requesters of one thread. */
export class ReplyPump {
  readonly #options: ReplyPumpOptions;
  #requesters: readonly Requester[] = [];
  #scheduled = false;
  /** Something was handed over since the last run. */
  #dirty = false;
  #armed = false;
  /** A wait for replies is open that spinning did not end. */
  #waiting = false;
  #quietRuns = 0;
  #runs = 0;
  #chainStartMs = -1;
  #timer: Timer | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #closed = false;
  readonly #run: () => void = () => this.#turn();
  readonly #endChain: () => void = () => {
    this.#chainStartMs = -1;
  };
  readonly #hasReply: () => boolean = () => {
    const requesters = this.#requesters;
    for (let at = 0; at < requesters.length; at++) {
      const requester = requesters[at] as Requester;
      if (requester.pending > 0 && requester.hasReply()) return true;
    }
    return false;
  };

  constructor(options: ReplyPumpOptions) {
    this.#options = options;
  }

  add(requester: Requester): void {
    this.#requesters = [...this.#requesters, requester];
  }

  remove(requester: Requester): void {
    this.#requesters = this.#requesters.filter((other) => other !== requester);
  }

  /**
   * Something waits to be flushed: a run comes before the event loop goes on. Bound, so that it can be passed on.
   *
   * @param nowMs The time, where the caller knows it, else 0.
   */
  readonly kick: (nowMs: number) => void = (nowMs) => {
    this.#dirty = true;
    if (!this.#closed) this.#schedule(nowMs);
  };

  /** Stops watching; the caller has failed what was open. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** Schedules the next run: as a microtask, or after a turn of the loop when the chain of microtasks has lasted. */
  #schedule(nowMs: number): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    const { clock, scheduler } = this.#options;
    if (this.#chainStartMs < 0) {
      this.#chainStartMs = nowMs === 0 ? clock.nowMs() : nowMs;
      scheduler.turn(this.#endChain);
    } else if (nowMs !== 0 || ++this.#runs % CLOCK_EVERY_RUNS === 0) {
      const now = nowMs === 0 ? clock.nowMs() : nowMs;
      if (now - this.#chainStartMs > TURN_LIMIT_MS) {
        scheduler.turn(this.#run);
        return;
      }
    }
    scheduler.defer(this.#run);
  }

  #turn(): void {
    this.#scheduled = false;
    if (this.#closed) return;
    if (this.#waiting && this.#hasReply()) {
      this.#waiting = false;
      this.#options.spin.woke();
    }
    const news = this.#exchange();
    const pending = this.#pending();
    if (pending === 0) {
      this.#waiting = false;
      this.#quietRuns = 0;
      this.#timer?.unref();
      return;
    }
    this.#quietRuns = news ? 0 : this.#quietRuns + 1;
    if (this.#scheduled) return;
    if (this.#quietRuns >= QUIET_RUNS) {
      if (this.#waiting || !this.#options.spin.spin(this.#hasReply)) {
        this.#waiting = true;
        this.#watchDeadlines();
        this.#park();
        return;
      }
      this.#exchange();
      this.#quietRuns = 0;
    }
    this.#schedule(0);
  }

  /** Publishes what was sent, settles what has come. @returns whether there was any of either */
  #exchange(): boolean {
    const requesters = this.#requesters;
    let news = this.#dirty;
    this.#dirty = false;
    for (const requester of requesters) {
      requester.flush();
      if (requester.queued === 0 && !requester.hasReply()) continue;
      for (;;) {
        const settled = requester.drain(DRAIN_LIMIT);
        if (settled > 0) news = true;
        if (settled < DRAIN_LIMIT) break;
      }
    }
    return news;
  }

  #pending(): number {
    let pending = 0;
    for (const requester of this.#requesters) pending += requester.pending;
    return pending;
  }

  readonly #onRung: () => void = () => {
    this.#armed = false;
    if (!this.#scheduled) this.#turn();
  };

  #park(): void {
    if (this.#armed || this.#scheduled) return;
    const { bell } = this.#options;
    const ticket = bell.prepareWait();
    if (this.#hasReply() || this.#madeRoom()) {
      bell.cancelWait();
      this.#schedule(0);
      return;
    }
    for (const requester of this.#requesters) requester.lookForDamage();
    const woken = bell.waitAsync(ticket);
    if (woken === undefined) {
      this.#schedule(0);
      return;
    }
    this.#armed = true;
    void woken.then(this.#onRung);
  }

  /** The second look after announcing: room may have been made between the refusal and the announcement. */
  #madeRoom(): boolean {
    let sent = 0;
    for (const requester of this.#requesters) sent += requester.sendQueued();
    return sent > 0;
  }

  #watchDeadlines(): void {
    let earliest = Number.POSITIVE_INFINITY;
    for (const requester of this.#requesters) {
      if (requester.pending > 0 && requester.earliestDeadlineMs < earliest) earliest = requester.earliestDeadlineMs;
    }
    if (this.#timer !== undefined && this.#timerAtMs <= earliest) {
      this.#timer.ref();
      return;
    }
    this.#timer?.cancel();
    this.#timerAtMs = earliest;
    this.#timer = this.#options.scheduler.timer(Math.max(0, earliest - this.#options.clock.nowMs()), () =>
      this.#expire(),
    );
  }

  #expire(): void {
    this.#timer = undefined;
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    this.#exchange();
    const nowMs = this.#options.clock.nowMs();
    for (const requester of this.#requesters) requester.sweep(nowMs);
    if (!this.#scheduled) this.#turn();
  }
}
