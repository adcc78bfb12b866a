/**
 * Drives the requesters of one event-loop thread: flushes once per turn, settles replies, watches deadlines, sleeps.
 *
 * A send schedules one microtask; there everything that this turn sent is published with one wake per peer, replies
 * are drained, and the thread spins for as long as replies have lately been worth it (`AdaptiveSpin`). Then it parks
 * in `Atomics.waitAsync` on the thread's own doorbell, which one reply batch rings once.
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
  readonly #requesters: Set<Requester> = new Set();
  #scheduled = false;
  #armed = false;
  /** A wait for replies is open that spinning did not end. */
  #waiting = false;
  #chainStartMs = -1;
  #timer: Timer | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  #closed = false;
  readonly #run: () => void = () => this.#turn();
  readonly #hasReply: () => boolean = () => {
    for (const requester of this.#requesters) if (requester.hasReply()) return true;
    return false;
  };

  constructor(options: ReplyPumpOptions) {
    this.#options = options;
  }

  add(requester: Requester): void {
    this.#requesters.add(requester);
  }

  remove(requester: Requester): void {
    this.#requesters.delete(requester);
  }

  /** Something waits to be flushed: runs a turn before the event loop goes on. Bound, so that it can be passed on. */
  readonly kick: () => void = () => {
    if (this.#scheduled || this.#closed) return;
    this.#scheduled = true;
    const { clock, scheduler } = this.#options;
    if (this.#chainStartMs < 0) {
      this.#chainStartMs = clock.nowMs();
      scheduler.turn(() => {
        this.#chainStartMs = -1;
      });
    } else if (clock.nowMs() - this.#chainStartMs > TURN_LIMIT_MS) {
      scheduler.turn(this.#run);
      return;
    }
    scheduler.defer(this.#run);
  };

  /** Stops watching; the caller has failed what was open. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #turn(): void {
    this.#scheduled = false;
    if (this.#closed) return;
    const { spin } = this.#options;
    this.#flush();
    if (this.#waiting && this.#hasReply()) {
      this.#waiting = false;
      spin.woke();
    }
    let pending = this.#drain();
    while (pending > 0 && !this.#waiting && !this.#scheduled) {
      if (spin.spin(this.#hasReply)) pending = this.#drain();
      else this.#waiting = true;
    }
    if (pending === 0) this.#waiting = false;
    this.#flush();
    this.#watchDeadlines(pending);
    if (pending > 0) this.#park();
  }

  #flush(): void {
    for (const requester of this.#requesters) requester.flush();
  }

  #drain(): number {
    let pending = 0;
    for (const requester of this.#requesters) {
      while (requester.drain(DRAIN_LIMIT) === DRAIN_LIMIT);
      pending += requester.pending;
    }
    return pending;
  }

  #park(): void {
    if (this.#armed || this.#scheduled) return;
    const { bell } = this.#options;
    const ticket = bell.prepareWait();
    if (this.#hasReply() || this.#madeRoom()) {
      bell.cancelWait();
      this.kick();
      return;
    }
    const woken = bell.waitAsync(ticket);
    if (woken === undefined) {
      this.kick();
      return;
    }
    this.#armed = true;
    void woken.then(() => {
      this.#armed = false;
      this.#turn();
    });
  }

  /** The second look after announcing: room may have been made between the refusal and the announcement. */
  #madeRoom(): boolean {
    let sent = 0;
    for (const requester of this.#requesters) sent += requester.sendQueued();
    return sent > 0;
  }

  #watchDeadlines(pending: number): void {
    if (pending === 0) {
      this.#timer?.unref();
      return;
    }
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
    this.#timer = this.#options.scheduler.timer(Math.max(0, earliest - this.#options.clock.nowMs()), () => this.#expire());
  }

  #expire(): void {
    this.#timer = undefined;
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    this.#drain();
    const nowMs = this.#options.clock.nowMs();
    for (const requester of this.#requesters) requester.sweep(nowMs);
    this.#turn();
  }
}
